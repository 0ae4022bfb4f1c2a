-- Takes the lease of the open restore, or of the open run of another scope, if nobody holds it and maintenance is not paused. An
-- execution of the state machine takes it from its own earlier slices, too.
-- :lease_seconds is how long the lease lasts, :force whether to force, :execution the execution or NULL, :is_restore whether it is
-- the restore. One row: id, holder; none when it could not be taken.
-- \set lease_seconds 60::float8
-- \set force false
-- \set execution NULL::text
-- \set is_restore false
UPDATE "MaintenanceRun"
SET
    "leaseHolder" = COALESCE(:execution, current_setting('application_name')) || ' ' || gen_random_uuid(),
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    "stopReason" = CASE WHEN status = 'running' AND starts_with("leaseHolder", :execution || ' ') IS NOT TRUE
        THEN 'lease_expired' ELSE "stopReason" END,
    status = 'running',
    error = NULL,
    "waitingFor" = NULL,
    force = force OR :force,
    attempts = attempts + 1
WHERE "finishedAt" IS NULL AND (scope = 'restore') = :is_restore
  AND (
      "leaseHolder" IS NULL
      OR "leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC'
      OR starts_with("leaseHolder", :execution || ' ')
  )
  AND NOT EXISTS (SELECT FROM "MaintenancePause")
RETURNING id, "leaseHolder" AS holder
