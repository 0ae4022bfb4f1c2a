-- Locks the rows that the next batch may move, where other tables reference logs or triggers fire. A reference that comes now waits.
-- Parameters as due_rows.sql has them.
-- One row: seen, last_created_at and last_id (NULL when no row was seen).
WITH head AS MATERIALIZED (
{chain_head}
),
locked AS MATERIALIZED (
    SELECT e.id, e."createdAt"
{due_rows})
SELECT (SELECT count(*) FROM locked) AS seen, last."createdAt" AS last_created_at, last.id AS last_id
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM locked ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
