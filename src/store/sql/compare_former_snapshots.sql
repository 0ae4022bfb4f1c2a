-- Compares the former service's snapshots with the service's own.
-- :former is the table. One row: rows, equal, differing and left_out (ids of some).
-- \set former '"StreamSnapshot"'
WITH compared AS MATERIALIZED (
    SELECT
        f.id,
        f."snapshotMonth" ~ '^[0-9]{4}-(0[1-9]|1[0-2])$' AND f."createdAt" >= '0001-01-01' AND f."createdAt" < '10000-01-01' AS can_be,
        t.id IS NOT NULL AND (
            t.id, t."streamId", t.sender, t.receiver, t."tokenAddress", t."amountPerSecond", t."totalAmount", t.status, t."snapshotMonth",
            t."createdAt"
        ) IS NOT DISTINCT FROM (
            f.id, f."streamId", f.sender, f.receiver, f."tokenAddress", f."amountPerSecond"::numeric, f."totalAmount"::numeric, f.status::text,
            f."snapshotMonth", f."createdAt"
        ) AS is_equal
    FROM :former f
    LEFT JOIN "StreamSnapshot" t ON t.id = f.id
)
SELECT
    count(*) AS rows,
    count(*) FILTER (WHERE is_equal) AS equal,
    ARRAY(SELECT id FROM compared WHERE can_be IS TRUE AND NOT is_equal ORDER BY id LIMIT 10) AS differing,
    ARRAY(SELECT id FROM compared WHERE can_be IS NOT TRUE ORDER BY id LIMIT 10) AS left_out
FROM compared
