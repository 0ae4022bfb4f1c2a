-- Takes one month of the open run, beside others of its execution that work on other months: they share the run's lease,
-- under a name that is made anew whenever somebody else has had it. An earlier slice that had the month has it no more,
-- and can commit nothing more.
-- :lease_seconds is how long the lease lasts, :run the run, :execution the execution, :month the month. One row: holder of the lease, and
-- of the month; none when the run has ended, somebody else holds it, or maintenance is paused.
-- \set lease_seconds 60::float8
-- \set run 'gen_random_uuid()'
-- \set execution NULL::text
-- \set month '''2026-01'''
UPDATE "MaintenanceRun"
SET
    "leaseHolder" = CASE
        WHEN starts_with("leaseHolder", :execution || ' months ') THEN "leaseHolder"
        ELSE :execution || ' months ' || gen_random_uuid()
    END,
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    status = 'running',
    error = NULL,
    attempts = attempts + 1,
    months = months || jsonb_build_object(
        :month::text, COALESCE(months -> :month, '{}') || jsonb_build_object('holder', gen_random_uuid())
    )
WHERE id = :run AND "finishedAt" IS NULL
  AND (
      -- One that failed is begun again as a whole: a slice that comes too late must not hide why.
      ("leaseHolder" IS NULL AND status <> 'failed')
      OR "leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC'
      OR starts_with("leaseHolder", :execution || ' ')
  )
  AND NOT EXISTS (SELECT FROM "MaintenancePause")
RETURNING "leaseHolder" AS holder, months -> :month ->> 'holder' AS "monthHolder"
