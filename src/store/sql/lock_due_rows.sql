-- Locks the rows that the next batch may move, where other tables reference logs or triggers fire. A reference that comes now waits.
-- Parameters as move_due_batch has them: $1 cutoff, $2 whether "EventLog" has hashes, $3 and $4 the month's first instant and its
-- end or the cutoff, $5 and $6 the last row of the batch before, $7 most rows, $8 streams that are held, $9 event types that stay.
-- One row: seen, last_created_at and last_id (NULL when no row was seen).
WITH head AS MATERIALIZED (
{chain_head}
),
locked AS MATERIALIZED (
    SELECT e.id, e."createdAt"
    FROM "EventLog" e
    WHERE e."createdAt" >= $3 AND e."createdAt" < $4
      AND e."createdAt" >= $5
      AND (e."createdAt", e.id) > ($5, $6)
      AND e.id NOT IN (SELECT id FROM head)
      AND e."streamId" <> ALL ($8)
      AND e."eventType"::text <> ALL ($9)
      AND {is_free}
    ORDER BY e."createdAt", e.id
    LIMIT $7
    FOR UPDATE OF e SKIP LOCKED
)
SELECT (SELECT count(*) FROM locked) AS seen, last."createdAt" AS last_created_at, last.id AS last_id
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM locked ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
