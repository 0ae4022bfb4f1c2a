-- Claims the open restore, or the open run of another scope, unless somebody else owns it or maintenance is paused. The fencing token
-- is fresh. An execution of the state machine owns its run across its slices; a slice that works on one month joins the others.
-- :lease_seconds is how long the lease lasts, :run the run or NULL for whichever is open, :force whether to force, :execution the
-- execution or NULL, :is_restore whether it is the restore, :joins whether other slices of the execution keep their token.
-- One row: id, token; none when the run could not be claimed.
-- \set lease_seconds 60::float8
-- \set run NULL::uuid
-- \set force false
-- \set execution NULL::text
-- \set is_restore false
-- \set joins false
UPDATE "MaintenanceRun"
SET
    "leaseHolder" = COALESCE(:execution, current_setting('application_name')),
    token = CASE WHEN :joins AND "leaseHolder" = :execution THEN token ELSE gen_random_uuid() END,
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    "stopReason" = CASE WHEN status = 'running' AND ("leaseHolder" = :execution) IS NOT TRUE
        THEN 'lease_expired' ELSE "stopReason" END,
    status = 'running',
    error = NULL,
    "waitingFor" = NULL,
    force = force OR :force,
    attempts = attempts + 1
WHERE "finishedAt" IS NULL AND (scope = 'restore') = :is_restore AND (:run IS NULL OR id = :run)
  AND (token IS NULL OR "leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC' OR "leaseHolder" = :execution)
  -- A slice that joins takes the run from nobody. A run that failed is begun again as a whole: a slice that comes too late must not
  -- hide why.
  AND (NOT :joins OR "leaseHolder" = :execution OR (token IS NULL AND status <> 'failed'))
  AND NOT EXISTS (SELECT FROM "MaintenancePause")
RETURNING id, token
