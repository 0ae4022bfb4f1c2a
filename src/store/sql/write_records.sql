-- What a rollback drops that is nowhere else, a line of JSON each: legal holds and who ended them, logs that were dropped as
-- duplicates and what else was found, and the ids of streams that are gone.
-- Column: line.
-- As JSON, not JSONB: a finding may hold a log with values that only JSON can hold.
SELECT json_build_object('table', table_name, 'row', record)::text AS line
FROM (
    SELECT
        1 AS place, 'LegalHold' AS table_name, "heldAt" AS moment, id::text AS id,
        snapshot_service_wire_json(to_jsonb(r), '"LegalHold"')::json AS record
    FROM "LegalHold" r
    UNION ALL
    SELECT 2, 'MaintenanceFinding', NULL, "runId" || ' ' || kind || ' ' || "logId",
           (
               SELECT row_to_json(f)
               FROM (
                   SELECT r.id::text AS id, r."runId", r.kind, r."logId", r.month, r.detail, r."entryHash",
                          to_char(r."foundAt", 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS "foundAt"
               ) f
           )
    FROM "MaintenanceFinding" r
    UNION ALL
    SELECT 3, 'StreamIdentity', NULL, to_char(number, 'FM0000000000000000000'), snapshot_service_wire_json(to_jsonb(r), '"StreamIdentity"')::json
    FROM "StreamIdentity" r
) records
ORDER BY place, moment, id COLLATE "C"
