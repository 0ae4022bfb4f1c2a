-- A stream's newest snapshot taken at or before a time, else its oldest one: either way the nearest to that time.
-- Parameters: stream (any of its ids), at (the time).
-- Columns: snapshotMonth, createdAt.
-- \set stream '''42'''
-- \set at '''2026-04-01''::timestamp'
WITH ids AS MATERIALIZED (SELECT * FROM stream_identity_look_up(:stream))
SELECT s."snapshotMonth", s."createdAt"
FROM (
    -- Of each month that which list_snapshots shows.
    SELECT DISTINCT ON (s."snapshotMonth") s."snapshotMonth", s."createdAt"
    FROM ids
    CROSS JOIN LATERAL unnest(ids.ids, ids.ids_from, ids.ids_until) n (id, since, until)
    JOIN "StreamSnapshot" s
        ON s."streamId" = n.id
        AND s."createdAt" >= '0001-01-01' AND s."createdAt" < '10000-01-01'
        AND (n.since IS NULL OR s."createdAt" >= n.since)
        AND (n.until IS NULL OR s."createdAt" < n.until)
    ORDER BY s."snapshotMonth" DESC, s."createdAt", s.id
) s
ORDER BY s."createdAt" <= :at DESC, GREATEST(s."createdAt" - :at, :at - s."createdAt"), s."snapshotMonth" DESC
LIMIT 1
