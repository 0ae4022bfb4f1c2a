-- Copies snapshots of the former service, as they are: those of a stream and month that have one already stay in the former table.
-- :former is the table, :after the id before (NULL is before all), :limit most rows. One row: last_id (NULL when there are no more),
-- copied.
-- \set former '(SELECT *, NULL::text AS sender, NULL::text AS receiver, NULL::text AS "tokenAddress", 1 AS "amountPerSecond", 1 AS "totalAmount", NULL::text AS status FROM (SELECT ''a'' AS id, ''b'' AS "streamId", ''2026-01'' AS "snapshotMonth", now()::timestamp AS "createdAt") one) former'
-- \set after NULL::text
-- \set limit 10
WITH former AS MATERIALIZED (
    SELECT * FROM :former WHERE :after IS NULL OR id > :after ORDER BY id LIMIT :limit
),
copied AS (
    INSERT INTO "StreamSnapshot" (
        id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount", status, "snapshotMonth", "createdAt"
    )
    SELECT
        id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount", status::text, "snapshotMonth", "createdAt"
    FROM former
    WHERE "snapshotMonth" ~ '^[0-9]{4}-(0[1-9]|1[0-2])$' AND "createdAt" >= '0001-01-01' AND "createdAt" < '10000-01-01'
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT max(id) FROM former) AS last_id, (SELECT count(*) FROM copied) AS copied
