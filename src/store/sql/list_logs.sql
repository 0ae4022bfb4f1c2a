-- Rows of "EventLog", in order of ("createdAt", id). Rows whose time cannot be are left out.
-- :after_created_at and :after_id are the last row of the batch before (an id of NULL is before all), :contract_ids a stream's, which only
-- :of_stream names, a condition on e; :limit most rows, :id_type the type of EventLog.id, :texts the texts of its columns.
-- Columns: id and created_at, and the texts.
-- \set after_created_at '''-infinity''::timestamp'
-- \set after_id 'NULL::text'
-- \set id_type text
-- \set limit '1000'
-- \set texts 'e.id::text'
-- \set of_stream 'true'
SELECT e.id::text AS id, e."createdAt"::timestamp AS created_at, :texts
FROM "EventLog" e
WHERE e."createdAt" >= GREATEST(:after_created_at, '0001-01-01') AND e."createdAt" < '10000-01-01'
  AND (:after_id IS NULL OR (e."createdAt", e.id) > (:after_created_at, CAST(CAST(:after_id AS text) AS :id_type))) AND :of_stream
ORDER BY e."createdAt", e.id
LIMIT :limit
