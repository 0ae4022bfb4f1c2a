-- Continues the last verification of the same kind, if it was interrupted or its process has been silent, and that not longer
-- than a day ago; or starts one.
-- $1 month or NULL, $2 stream or NULL, $3 whether it is full, $4 rows to look at, $5 now (UTC). One row: id, position (the last
-- piece that was looked at, or NULL), attempts.
WITH continued AS (
    UPDATE "ArchiveVerification"
    SET status = 'running', attempts = attempts + 1, "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC'
    WHERE id = (
        SELECT id
        FROM "ArchiveVerification"
        WHERE month IS NOT DISTINCT FROM $1 AND "streamId" IS NOT DISTINCT FROM $2 AND "isFull" = $3
          AND "finishedAt" IS NULL
          AND "updatedAt" > clock_timestamp() AT TIME ZONE 'UTC' - interval '1 day'
          AND (status = 'interrupted' OR "updatedAt" < clock_timestamp() AT TIME ZONE 'UTC' - interval '1 minute')
        ORDER BY "startedAt" DESC
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id, position, attempts
),
started AS (
    INSERT INTO "ArchiveVerification" (month, "streamId", "isFull", status, "rowsTotal", "startedAt", "updatedAt")
    SELECT $1, $2, $3, 'running', $4, $5, clock_timestamp() AT TIME ZONE 'UTC'
    WHERE NOT EXISTS (SELECT FROM continued)
    RETURNING id, position, attempts
)
SELECT id, position, attempts FROM continued UNION ALL SELECT id, position, attempts FROM started
