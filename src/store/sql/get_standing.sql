-- How maintenance has fared.
-- Parameters: from and to (UTC): verifications are looked at that last got further after the one and up to the other.
-- One row: now, by the clock that "finishedAt" is of; last_success, or when the first migration was applied where no run has
-- succeeded; breaks that the verifications have found.
-- \set from '''2026-03-31''::timestamp'
-- \set to '''2026-04-01''::timestamp'
SELECT
    clock_timestamp() AT TIME ZONE 'UTC' AS now,
    COALESCE(
        (
            SELECT max("finishedAt")
            FROM "MaintenanceRun"
            WHERE scope = 'maintenance' AND status IN ('succeeded', 'succeeded_with_findings')
        ),
        (SELECT min(applied_on::timestamptz) AT TIME ZONE 'UTC' FROM snapshot_service_migrations)
    ) AS last_success,
    (
        SELECT COALESCE(sum("breakCount"), 0)::bigint
        FROM "ArchiveVerification"
        WHERE "updatedAt" > :from AND "updatedAt" <= :to
    ) AS breaks
