-- Remembers both ids of the next streams for which they are not known yet (domain rule 8), in order of Stream.id.
-- $1 the last stream of the batch before, $2 most streams. One row: last_id (NULL when no stream is left).
WITH page AS MATERIALIZED (
    SELECT s.id, s."streamId"
    FROM "Stream" s
    WHERE s.id > $1
      AND s."streamId" IS NOT NULL
      AND NOT EXISTS (SELECT FROM "StreamIdentity" k WHERE k.id = s.id AND k."streamId" = s."streamId")
    ORDER BY s.id
    LIMIT $2
),
remembered AS (
    INSERT INTO "StreamIdentity" (id, "streamId")
    SELECT id, "streamId" FROM page
    ON CONFLICT (id) DO UPDATE SET "streamId" = EXCLUDED."streamId"
)
SELECT max(id) AS last_id FROM page
