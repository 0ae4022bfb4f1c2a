-- What a rollback drops that is nowhere else: legal holds and who ended them, logs that were dropped as duplicates and what else
-- was found, and the ids of streams that are gone.
-- Columns: table, row (as JSON; rollback::write_record says how its values leave).
-- As JSON, not JSONB: a finding may hold a log with values that only JSON can hold.
SELECT table_name AS "table", record::text AS "row"
FROM (
    SELECT 1 AS place, 'LegalHold' AS table_name, "heldAt" AS moment, id::text AS id, row_to_json(r) AS record
    FROM "LegalHold" r
    UNION ALL
    SELECT 2, 'MaintenanceFinding', NULL, "runId" || ' ' || kind || ' ' || "logId", row_to_json(r)
    FROM "MaintenanceFinding" r
    UNION ALL
    SELECT 3, 'StreamIdentity', NULL, to_char(number, 'FM0000000000000000000'), row_to_json(r)
    FROM "StreamIdentity" r
) records
ORDER BY place, moment, id COLLATE "C"
