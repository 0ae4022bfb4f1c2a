-- Starts a run and claims it, unless one is open that it may not run beside, its period is done, or maintenance is paused.
-- :lease_seconds is how long the lease lasts; :trigger, :scope, :period (or NULL), :snapshot_month, :cutoff, :refresh, :force,
-- :started_at (UTC), :phase and :target (of a restore, or NULL) are the run's; :execution is that of the state machine that it is for, or
-- NULL. One row: id, token; none when there was no room for it.
-- \set lease_seconds 60::float8
-- \set trigger '''cli'''
-- \set scope '''archive'''
-- \set period NULL
-- \set snapshot_month '''2026-05'''
-- \set cutoff '''2026-04-01''::timestamp'
-- \set refresh false
-- \set force false
-- \set started_at '''2026-05-31''::timestamp'
-- \set phase '''archive'''
-- \set target NULL::jsonb
-- \set execution NULL::text
INSERT INTO "MaintenanceRun" (
    trigger, scope, period, "snapshotMonth", cutoff, refresh, force, phase, target, status, "startedAt", "updatedAt",
    "leaseHolder", token, "leaseExpiresAt"
)
SELECT
    :trigger, :scope, :period, :snapshot_month, :cutoff, :refresh, :force, :phase, :target, 'running', :started_at, clock_timestamp() AT TIME ZONE 'UTC',
    COALESCE(:execution, current_setting('application_name')), gen_random_uuid(),
    clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second'
WHERE NOT EXISTS (SELECT FROM "MaintenancePause")
ON CONFLICT DO NOTHING
RETURNING id, token
