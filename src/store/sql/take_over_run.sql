-- Takes the lease of the open run, if nobody holds it and maintenance is not paused.
-- $1 seconds that the lease lasts, $2 whether to force. One row: id, holder; none when it could not be taken.
UPDATE "MaintenanceRun"
SET
    "leaseHolder" = current_setting('application_name') || ' ' || gen_random_uuid(),
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + $1 * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    "stopReason" = CASE WHEN status = 'running' THEN 'lease_expired' ELSE "stopReason" END,
    status = 'running',
    error = NULL,
    "waitingFor" = NULL,
    force = force OR $2,
    attempts = attempts + 1
WHERE "finishedAt" IS NULL
  AND ("leaseHolder" IS NULL OR "leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC')
  AND NOT EXISTS (SELECT FROM "MaintenancePause")
RETURNING id, "leaseHolder" AS holder
