-- Part of move_due_batch and lock_due_rows: the next due rows of a month, locked, in order of ("createdAt", id). Rows that another
-- session has locked are left out, and rows that are held.
-- :cutoff and :has_hashes are the run's; :month_start and :month_end the month's first instant and its end, or the cutoff;
-- :after_created_at and :after_id the last row of the batch before (an id of NULL is before all), :id_type the type of the log's ids,
-- :limit most rows, :held streams that are held, :kept_types event types that stay, :is_free what else lets a row go.
FROM "EventLog" e
WHERE e."createdAt" >= :month_start AND e."createdAt" < :month_end
  AND e."createdAt" >= :after_created_at
  AND (:after_id IS NULL OR (e."createdAt", e.id) > (:after_created_at, CAST(CAST(:after_id AS text) AS :id_type)))
  AND e.id NOT IN (SELECT id FROM head)
  -- A row without stream or type is of none that is held.
  AND (e."streamId"::text = ANY (:held)) IS NOT TRUE
  AND (e."eventType"::text = ANY (:kept_types)) IS NOT TRUE
  AND :is_free
ORDER BY e."createdAt", e.id
LIMIT :limit
FOR UPDATE OF e SKIP LOCKED
