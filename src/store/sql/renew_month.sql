-- Renews the lease of a month, and that of its run, in the transaction that worked on the month. Advances the month's chain to the seal
-- that this transaction has added, if it has added one.
-- :run, :month and :token are the lease, which lasts :lease_seconds from now; :rows_per_second is the rate, or NULL for as before.
-- One row: paused, whether maintenance is; none when the lease is lost.
-- \set run 'gen_random_uuid()'
-- \set month '''2026-01'''
-- \set token 'gen_random_uuid()'
-- \set lease_seconds 60::float8
-- \set rows_per_second NULL::float8
-- \set advanced `cat advance_chain.sql`
WITH run AS (
    -- First: whoever takes a run over locks the run before its months.
    UPDATE "MaintenanceRun"
    SET
        "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second',
        "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
        "currentMonth" = :month,
        "rowsPerSecond" = COALESCE(:rows_per_second, "rowsPerSecond")
    WHERE id = :run AND "finishedAt" IS NULL
    RETURNING id
)
UPDATE "ArchiveMonth" m
SET
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second',
    :advanced
FROM run
WHERE m.month = :month AND m.token = :token AND m."runId" = run.id
RETURNING EXISTS (SELECT FROM "MaintenancePause") AS paused
