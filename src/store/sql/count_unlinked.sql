-- How many rows have a parent that is nowhere; and the first of them.
-- Parameters: contract_ids (a stream's; only of_stream names them), limit (most rows named). Parts: rows (a month's, or "EventLog"),
-- of_stream (a condition on r), hot (hashes of "EventLog"), unverifiable (parents that nobody can know), was_missing (parents that were nowhere before).
-- Columns: was_missing, count, ids, parents; a row for either that there is.
-- \set limit '1000'
-- \set rows '"StreamArchive_2026_01"'
-- \set before '"StreamArchive_2026_01"'
-- \set of_stream 'true'
-- \set hot 'SELECT entry_hash FROM "EventLog"'
-- \set unverifiable `cat list_unverifiable.sql`
-- \set was_missing 'SELECT unnest(unlinked) FROM "ArchiveSeal" WHERE month = ''2026-01'''
WITH unlinked AS MATERIALIZED (
    SELECT r.id::text AS id, r.parent_hash::text AS parent_hash
    FROM :rows r
    WHERE r.parent_hash IS NOT NULL
      AND :of_stream
      AND NOT EXISTS (SELECT FROM :rows p WHERE p.entry_hash = r.parent_hash)
      AND NOT EXISTS (SELECT FROM "StreamArchive" p WHERE p.entry_hash = r.parent_hash)
      AND NOT EXISTS (SELECT FROM (:hot) p (entry_hash) WHERE p.entry_hash::text = r.parent_hash::text)
      AND NOT EXISTS (
          SELECT FROM "MaintenanceFinding" p
          WHERE p.kind = 'duplicate_dropped' AND p."entryHash" = r.parent_hash::text
      )
),
broken AS MATERIALIZED (
    SELECT u.id, u.parent_hash, u.parent_hash IN (:was_missing) AS was_missing FROM unlinked u
    WHERE u.parent_hash NOT IN (:unverifiable)
)
SELECT was_missing, count(*) AS count, (array_agg(id))[1:CAST(:limit AS integer)] AS ids, (array_agg(parent_hash))[1:CAST(:limit AS integer)] AS parents
FROM broken
GROUP BY was_missing
