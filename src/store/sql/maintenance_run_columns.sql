-- A run as it is told of. Continued by the condition. A run whose owner is dead is not running, whatever its row says.
SELECT
    id, trigger, scope, period, target, "snapshotMonth", cutoff, refresh, force, phase,
    CASE WHEN died THEN 'interrupted' ELSE status END AS status,
    streams, "streamsEstimated", "snapshotsCreated", "unparsedAmounts", "rowsEstimated", "heldBack", "hostFindings",
    total.*,
    "currentMonth", "rowsPerSecond",
    CASE WHEN NOT died THEN "waitingFor" END AS "waitingFor",
    CASE WHEN died THEN 'lease_expired' ELSE "stopReason" END AS "stopReason",
    error, attempts, "startedAt", "updatedAt", "finishedAt"
FROM (
    SELECT
        *,
        COALESCE(status = 'running' AND "leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC', false) AS died
    FROM "MaintenanceRun"
) run
CROSS JOIN LATERAL (
    SELECT
        COALESCE(sum("logsArchived"), 0)::bigint AS "logsArchived",
        COALESCE(sum("alreadyArchived"), 0)::bigint AS "alreadyArchived",
        COALESCE(sum("duplicatesDropped"), 0)::bigint AS "duplicatesDropped",
        COALESCE(sum("hashMismatches"), 0)::bigint AS "hashMismatches",
        COALESCE(sum("completedByHost"), 0)::bigint AS "completedByHost",
        COALESCE(sum("linksMissing"), 0)::bigint AS "linksMissing",
        COALESCE(sum("logsRestored"), 0)::bigint AS "logsRestored",
        COALESCE(sum("onHold"), 0)::bigint AS "onHold",
        COALESCE(sum(conflicts), 0)::bigint AS conflicts,
        COALESCE(jsonb_agg("conflictDetails" ORDER BY month) FILTER (WHERE conflicts > 0), '[]') AS "conflictDetails"
    FROM "RunMonth" WHERE "runId" = run.id
) total
