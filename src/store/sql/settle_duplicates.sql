-- Settles due rows whose event is archived under another id: the host has ingested it again. Where the contents are the same
-- the row is dropped and kept on record; where they differ it stays. The rows are locked by the statement before.
-- $1 their ids, $2 run, $3 month. One row: dropped, conflicts (ids of those that stay, in order).
WITH pair AS MATERIALIZED (
    SELECT e.id, e."createdAt", to_jsonb(e) AS row, a.id AS archived_id, a.is_same
    FROM unnest($1) duplicate (id)
    JOIN "EventLog" e ON e.id = duplicate.id
    CROSS JOIN LATERAL (
        -- OFFSET keeps this a look-up per row.
        SELECT a.id, ({same_contents}) AS is_same
        FROM ({archived}) a
        WHERE a."txHash" = e."txHash" AND a."eventIndex" = e."eventIndex"
        ORDER BY is_same DESC, a.id
        OFFSET 0
        LIMIT 1
    ) a
),
finding AS (
    INSERT INTO "MaintenanceFinding" ("runId", kind, "logId", month, detail)
    SELECT
        $2, CASE WHEN is_same THEN 'duplicate_dropped' ELSE 'duplicate_kept' END, id, $3,
        jsonb_build_object('archivedId', archived_id, 'row', row)
    FROM pair
    ON CONFLICT DO NOTHING
),
dropped AS (
    DELETE FROM "EventLog" WHERE id = ANY (ARRAY(SELECT id FROM pair WHERE is_same)) RETURNING 1
)
SELECT
    (SELECT count(*) FROM dropped) AS dropped,
    ARRAY(SELECT id FROM pair WHERE NOT is_same ORDER BY "createdAt", id) AS conflicts
