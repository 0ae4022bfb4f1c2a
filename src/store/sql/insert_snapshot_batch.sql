-- Takes the month's snapshot of the next streams that have none (domain rules 3 and 4), in order of Stream.id.
-- $1 month, $2 the last stream of the batch before, $3 most streams, $4 now (UTC).
-- One row: last_id (NULL when no stream is left), created, unparsed, unparsed_ids (some of them, for the log).
WITH page AS MATERIALIZED (
    SELECT
        s.id,
        s.sender,
        s.receiver,
        s."tokenAddress",
        CASE WHEN s.amount::text ~ '^-?[0-9]{1,39}$' THEN s.amount::text::numeric(39,0) END AS total,
        s.duration,
        s.status,
        to_jsonb(s) AS state
    FROM "Stream" s
    WHERE s.id > $2
      AND NOT EXISTS (
          SELECT FROM "StreamSnapshot" t WHERE t."streamId" = s.id AND t."snapshotMonth" = $1
      )
    ORDER BY s.id
    LIMIT $3
),
created AS (
    INSERT INTO "StreamSnapshot" (
        id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount", status, state,
        "snapshotMonth", "createdAt"
    )
    SELECT
        gen_random_uuid()::text, id, sender, receiver, "tokenAddress",
        CASE WHEN total IS NULL THEN NULL WHEN duration > 0 THEN div(total, duration) ELSE 0 END,
        total, status, state, $1, $4
    FROM page
    ON CONFLICT ("streamId", "snapshotMonth") DO NOTHING
    RETURNING "streamId", "totalAmount"
)
SELECT
    (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last_id,
    count(*) AS created,
    count(*) FILTER (WHERE "totalAmount" IS NULL) AS unparsed,
    ARRAY(SELECT "streamId" FROM created WHERE "totalAmount" IS NULL LIMIT 10) AS unparsed_ids
FROM created
