-- Starts a run and takes its lease, unless one is open that it may not run beside, its period is done, or maintenance is paused.
-- $1 seconds that the lease lasts, $2 trigger, $3 scope, $4 period or NULL, $5 snapshot month, $6 cutoff, $7 whether to
-- retake snapshots, $8 whether to force, $9 the run's start (UTC), $10 phase, $11 what a restore is about or NULL, $12 the
-- execution of the state machine that it is for, or NULL. One row: id, holder; none when there was no room for it.
INSERT INTO "MaintenanceRun" (
    trigger, scope, period, "snapshotMonth", cutoff, refresh, force, phase, target, status, "startedAt", "updatedAt",
    "leaseHolder", "leaseExpiresAt"
)
SELECT
    $2, $3, $4, $5, $6, $7, $8, $10, $11, 'running', $9, clock_timestamp() AT TIME ZONE 'UTC',
    COALESCE($12, current_setting('application_name')) || ' ' || gen_random_uuid(),
    clock_timestamp() AT TIME ZONE 'UTC' + $1 * interval '1 second'
WHERE NOT EXISTS (SELECT FROM "MaintenancePause")
ON CONFLICT DO NOTHING
RETURNING id, "leaseHolder" AS holder
