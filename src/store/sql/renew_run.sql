-- Renews the lease of a run and records what its owner has done, in the transaction that did it. The row stays locked until that
-- commits: nobody claims the run in between.
-- :run and :token are the owner's, whose lease lasts :lease_seconds from now; :changes are assignments for what changed.
-- One row: paused, whether maintenance is; none when the lease is lost.
-- \set run 'gen_random_uuid()'
-- \set token 'gen_random_uuid()'
-- \set lease_seconds 60::float8
-- \set changes ', phase = phase'
UPDATE "MaintenanceRun"
SET
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC'
    :changes
WHERE id = :run AND token = :token AND "finishedAt" IS NULL
RETURNING EXISTS (SELECT FROM "MaintenancePause") AS paused
