-- Both ids of the stream that a caller names by either (domain rule 8). Continued by the statement that reads.
-- $1 the id as given. Column `id` is Stream.id, `contract_id` is Stream."streamId"; an unknown id stands for both.
WITH found AS (
    SELECT id, "streamId", 1 AS rank FROM "Stream" WHERE id = $1
    UNION ALL SELECT id, "streamId", 2 FROM "Stream" WHERE "streamId" = $1
    -- The stream's own row is gone:
    UNION ALL SELECT id, "streamId", 3 FROM "StreamIdentity" WHERE id = $1
    UNION ALL SELECT id, "streamId", 4 FROM "StreamIdentity" WHERE "streamId" = $1
),
ids AS (
    SELECT COALESCE(first.id, $1) AS id, COALESCE(first."streamId", $1) AS contract_id
    FROM (SELECT) one
    LEFT JOIN (SELECT id, "streamId" FROM found ORDER BY rank, id DESC LIMIT 1) first ON true
)
