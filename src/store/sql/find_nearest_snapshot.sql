-- A stream's newest snapshot taken at or before a time, else its oldest one: either way the nearest to that time.
-- $1 any of its ids, $2 the time. Columns: snapshotMonth, createdAt.
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
ORDER BY s."createdAt" <= $2 DESC, GREATEST(s."createdAt" - $2, $2 - s."createdAt"), s."snapshotMonth" DESC
LIMIT 1
