-- Takes the lease of the open restore, or of the open run of another scope, if nobody holds it and maintenance is not paused. An execution of the state machine
-- takes it from its own earlier slices, too.
-- $1 seconds that the lease lasts, $2 whether to force, $3 the execution or NULL, $4 whether it is the restore. One row: id,
-- holder; none when it could not be taken.
UPDATE "MaintenanceRun"
SET
    "leaseHolder" = COALESCE($3, current_setting('application_name')) || ' ' || gen_random_uuid(),
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + $1 * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    "stopReason" = CASE WHEN status = 'running' AND starts_with("leaseHolder", $3 || ' ') IS NOT TRUE
        THEN 'lease_expired' ELSE "stopReason" END,
    status = 'running',
    error = NULL,
    "waitingFor" = NULL,
    force = force OR $2,
    attempts = attempts + 1
WHERE "finishedAt" IS NULL AND (scope = 'restore') = $4
  AND (
      "leaseHolder" IS NULL
      OR "leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC'
      OR starts_with("leaseHolder", $3 || ' ')
  )
  AND NOT EXISTS (SELECT FROM "MaintenancePause")
RETURNING id, "leaseHolder" AS holder
