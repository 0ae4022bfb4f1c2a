-- What is left in "EventLog" that is due, and why: the look that says whether a run is complete (domain rule 11). A row that nothing
-- holds has no reason: it was in use, or came after the batches had passed.
-- :cutoff and :has_hashes are the run's, :held streams that are held, :kept_types event types that stay, :most_ids how many are named
-- of each reason; :is_restored, :is_conflict and :referenced_by tell of the row e.
-- Columns: reason, event_type and month where :groups and :group_by name them, rows, ids (the oldest), objects (what references them), months
-- (of rows without reason).
-- \set cutoff '''2026-04-01''::timestamp'
-- \set has_hashes true
-- \set held '''{}''::text[]'
-- \set kept_types '''{}''::text[]'
-- \set most_ids 1000
-- \set chain_head `cat chain_head.sql`
-- \set is_restored false
-- \set is_conflict false
-- \set referenced_by NULL::text
-- \set groups ''
-- \set group_by ''
WITH head AS MATERIALIZED (
:chain_head
),
due AS (
    SELECT e.* FROM "EventLog" e WHERE e."createdAt" < :cutoff
    UNION ALL
    -- Times that no clock has said.
    SELECT e.* FROM "EventLog" e WHERE e."createdAt" >= '10000-01-01'
    UNION ALL
    SELECT e.* FROM "EventLog" e WHERE e."createdAt" IS NULL
),
explained AS (
    SELECT
        e.id, e."createdAt", e."eventType",
        CASE WHEN isfinite(e."createdAt") THEN to_char(e."createdAt"::timestamp, 'YYYY-MM') END AS month,
        why.reason, why.object
    FROM due e
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN (e."createdAt" >= '0001-01-01' AND e."createdAt" < '10000-01-01') IS NOT TRUE THEN 'time_out_of_range'
                WHEN e.id IN (SELECT id FROM head) THEN 'chain_head'
                WHEN e."streamId"::text = ANY (:held) THEN 'legal_hold'
                WHEN :is_restored THEN 'restored'
                WHEN e."eventType"::text = ANY (:kept_types) THEN 'kept_type'
            END AS reason
        OFFSET 0
    ) cheap
    CROSS JOIN LATERAL (
        SELECT
            COALESCE(cheap.reason, CASE WHEN object.name IS NOT NULL THEN 'referenced' WHEN :is_conflict THEN 'conflict' END) AS reason,
            object.name AS object
        FROM (SELECT CASE WHEN cheap.reason IS NULL THEN :referenced_by END AS name OFFSET 0) object
        OFFSET 0
    ) why
),
numbered AS (
    SELECT *, row_number() OVER (PARTITION BY reason ORDER BY "createdAt", id) AS place FROM explained
)
SELECT
    reason, :groups
    count(*) AS rows,
    COALESCE(array_agg(id::text ORDER BY place) FILTER (WHERE place <= :most_ids), '{}') AS ids,
    COALESCE(array_agg(DISTINCT object) FILTER (WHERE object IS NOT NULL), '{}') AS objects,
    COALESCE(array_agg(DISTINCT month) FILTER (WHERE reason IS NULL), '{}') AS months
FROM numbered
GROUP BY reason:group_by
