-- When the oldest due row after a position was created; not the one that is held back as the chain's head.
-- $1 cutoff, $2 whether "EventLog" has hashes, $3 and $4 the position ("createdAt", id; NULL is before all ids).
-- One row: created_at (NULL when nothing is due).
WITH head AS MATERIALIZED (
{chain_head}
)
SELECT
    (
        SELECT e."createdAt"
        FROM "EventLog" e
        WHERE e."createdAt" >= $3 AND ($4 IS NULL OR (e."createdAt", e.id) > ($3, $4)) AND e."createdAt" < $1 AND e.id NOT IN (SELECT id FROM head)
        ORDER BY e."createdAt"
        LIMIT 1
    ) AS created_at
