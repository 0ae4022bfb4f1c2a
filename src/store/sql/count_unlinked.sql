-- How many rows have a parent that is nowhere; and the first of them.
-- Parameters: contract_ids (a stream's; only of_stream names them), limit (most rows named). Parts: rows (a month's, or "EventLog"),
-- of_stream (a condition on r), unverifiable (parents that nobody can know).
-- One row: count, ids, parents.
-- \set limit '1000'
-- \set rows '"StreamArchive_2026_01"'
-- \set before '"StreamArchive_2026_01"'
-- \set of_stream 'true'
-- \set unverifiable `cat list_unverifiable.sql`
WITH unlinked AS MATERIALIZED (
    SELECT r.id::text AS id, r.parent_hash
    FROM :rows r
    WHERE r.parent_hash IS NOT NULL
      AND :of_stream
      AND NOT EXISTS (SELECT FROM :rows p WHERE p.entry_hash = r.parent_hash)
      AND NOT EXISTS (SELECT FROM "StreamArchive" p WHERE p.entry_hash = r.parent_hash)
      AND NOT EXISTS (SELECT FROM "EventLog" p WHERE p.entry_hash = r.parent_hash)
      AND NOT EXISTS (
          SELECT FROM "MaintenanceFinding" p
          WHERE p.kind = 'duplicate_dropped' AND p."entryHash" = r.parent_hash
      )
),
broken AS MATERIALIZED (
    SELECT u.id, u.parent_hash FROM unlinked u
    WHERE u.parent_hash NOT IN (:unverifiable)
)
SELECT
    (SELECT count(*) FROM broken) AS count,
    ARRAY(SELECT id FROM broken LIMIT :limit) AS ids,
    ARRAY(SELECT parent_hash FROM broken LIMIT :limit) AS parents
