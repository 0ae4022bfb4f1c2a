-- How many rows have a parent that is nowhere; and the first of them.
-- $1 a stream's contract ids, or NULL for all, $2 most rows named. One row: count, ids, parents.
WITH unlinked AS MATERIALIZED (
    SELECT r.id, r.parent_hash
    FROM {rows} r
    WHERE r.parent_hash IS NOT NULL
      AND {of_stream}
      AND NOT EXISTS (SELECT FROM {rows} p WHERE p.entry_hash = r.parent_hash)
      AND NOT EXISTS (SELECT FROM "StreamArchive" p WHERE p.entry_hash = r.parent_hash)
      AND NOT EXISTS (SELECT FROM "EventLog" p WHERE p.entry_hash = r.parent_hash)
      AND NOT EXISTS (
          SELECT FROM "MaintenanceFinding" p
          WHERE p.kind = 'duplicate_dropped' AND p."entryHash" = r.parent_hash
      )
),
broken AS MATERIALIZED (
    SELECT u.id, u.parent_hash FROM unlinked u
    WHERE u.parent_hash NOT IN ({unverifiable})
)
SELECT
    (SELECT count(*) FROM broken) AS count,
    ARRAY(SELECT id FROM broken LIMIT $2) AS ids,
    ARRAY(SELECT parent_hash FROM broken LIMIT $2) AS parents
