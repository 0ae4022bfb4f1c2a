-- Continues the last verification of the same kind, if it was interrupted or its process has been silent, and that not longer
-- than a day ago; or starts one.
-- Parameters: month or NULL, stream or NULL, is_full, rows_total (rows to look at), now (UTC).
-- One row: id, is_new.
-- \set month '''2026-01'''
-- \set stream 'NULL::text'
-- \set is_full 'false'
-- \set rows_total '1000'
-- \set now '''2026-04-01''::timestamp'
WITH continued AS (
    UPDATE "ArchiveVerification"
    SET status = 'running', "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC'
    WHERE id = (
        SELECT id
        FROM "ArchiveVerification" v
        WHERE month IS NOT DISTINCT FROM :month AND "streamId" IS NOT DISTINCT FROM :stream AND "isFull" = :is_full
          AND "finishedAt" IS NULL
          AND "updatedAt" > clock_timestamp() AT TIME ZONE 'UTC' - interval '1 day'
          AND (status = 'interrupted' OR "updatedAt" < clock_timestamp() AT TIME ZONE 'UTC' - interval '1 minute')
          AND EXISTS (SELECT FROM "VerificationTask" t WHERE t."verificationId" = v.id)
        ORDER BY "startedAt" DESC
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id
),
started AS (
    INSERT INTO "ArchiveVerification" (month, "streamId", "isFull", status, "rowsTotal", "startedAt", "updatedAt")
    SELECT :month, :stream, :is_full, 'running', :rows_total, :now, clock_timestamp() AT TIME ZONE 'UTC'
    WHERE NOT EXISTS (SELECT FROM continued)
    RETURNING id
)
SELECT id, false AS is_new FROM continued UNION ALL SELECT id, true FROM started
