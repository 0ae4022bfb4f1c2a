-- Takes one month of the open run, beside others of its execution that work on other months: they share the run's lease,
-- under a name that is made anew whenever somebody else has had it. An earlier slice that had the month has it no more,
-- and can commit nothing more.
-- $1 seconds that the lease lasts, $2 run, $3 the execution, $4 the month. One row: holder of the lease, and of the month;
-- none when the run has ended, somebody else holds it, or maintenance is paused.
UPDATE "MaintenanceRun"
SET
    "leaseHolder" = CASE
        WHEN starts_with("leaseHolder", $3 || ' months ') THEN "leaseHolder"
        ELSE $3 || ' months ' || gen_random_uuid()
    END,
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + $1 * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    status = 'running',
    error = NULL,
    attempts = attempts + 1,
    months = months || jsonb_build_object(
        $4::text, COALESCE(months -> $4, '{}') || jsonb_build_object('holder', gen_random_uuid())
    )
WHERE id = $2 AND "finishedAt" IS NULL
  AND (
      -- One that failed is begun again as a whole: a slice that comes too late must not hide why.
      ("leaseHolder" IS NULL AND status <> 'failed')
      OR "leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC'
      OR starts_with("leaseHolder", $3 || ' ')
  )
  AND NOT EXISTS (SELECT FROM "MaintenancePause")
RETURNING "leaseHolder" AS holder, months -> $4 ->> 'holder' AS "monthHolder"
