-- A run as it is told of. Continued by the condition. A run whose holder is dead is not running, whatever its row says.
SELECT
    id, trigger, scope, period, target, "snapshotMonth", cutoff, refresh, force, phase,
    CASE WHEN died THEN 'interrupted' ELSE status END AS status,
    streams, "streamsEstimated", "snapshotsCreated", "unparsedAmounts",
    "rowsEstimated", "logsArchived", "alreadyArchived", "duplicatesDropped", "hashMismatches", "logsRestored", months, "heldBack", "hostFindings",
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
