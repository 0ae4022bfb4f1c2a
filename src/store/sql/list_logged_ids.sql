-- Part of insert_snapshot_batch.sql: the ids of the events that may be of the time when a snapshot is taken, by contract-level
-- id: of transactions an hour long, by clocks up to ten minutes apart, twice. It sees what the batch sees.
-- Parameters: taken_at (when the batch is taken, UTC). Column: ids, an object of arrays, or NULL when there is none.
SELECT jsonb_object_agg(e.contract_id, e.ids) AS ids
FROM (
    SELECT e."streamId"::text AS contract_id, jsonb_agg(e.id::text) AS ids
    FROM "EventLog" e
    -- As it is stored.
    WHERE e."createdAt" >= :taken_at::timestamp(3) - interval '80 minutes' AND e."createdAt" <= :taken_at::timestamp(3) + interval '20 minutes'
      AND e."streamId" IS NOT NULL AND e.id IS NOT NULL
    GROUP BY 1
) e
