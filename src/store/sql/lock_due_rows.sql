-- Locks the rows that the next batch may move, where other tables reference logs or triggers fire. A reference that comes now waits.
-- What is set is as due_rows has it.
-- One row: seen, last_created_at and last_id (NULL when no row was seen).
-- \set cutoff '''2026-04-01''::timestamp'
-- \set has_hashes true
-- \set month_start '''2026-01-01''::timestamp'
-- \set month_end '''2026-02-01''::timestamp'
-- \set after_created_at '''2026-01-01''::timestamp'
-- \set after_id NULL
-- \set id_type text
-- \set limit 10
-- \set held '''{}''::text[]'
-- \set kept_types '''{}''::text[]'
-- \set is_free true
-- \set chain_head `cat chain_head.sql`
-- \set due_rows `cat due_rows.sql`
WITH head AS MATERIALIZED (
:chain_head
),
locked AS MATERIALIZED (
    SELECT e.id, e."createdAt"
:due_rows)
SELECT (SELECT count(*) FROM locked) AS seen, last."createdAt"::timestamp AS last_created_at, last.id::text AS last_id
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM locked ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
