-- When the oldest due row after a position was created; not the one that is held back as the chain's head.
-- :cutoff and :has_hashes are the run's, :after the position's "createdAt".
-- One row: created_at (NULL when nothing is due).
-- \set cutoff '''2026-04-01''::timestamp'
-- \set has_hashes true
-- \set after '''2026-01-01''::timestamp'
-- \set chain_head `cat chain_head.sql`
WITH head AS MATERIALIZED (
:chain_head
)
SELECT
    (
        SELECT e."createdAt"::timestamp
        FROM "EventLog" e
        WHERE e."createdAt" >= :after AND e."createdAt" < :cutoff AND e.id NOT IN (SELECT id FROM head)
        ORDER BY e."createdAt"
        LIMIT 1
    ) AS created_at
