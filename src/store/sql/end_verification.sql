-- Ends a verification, or interrupts it if tasks are left.
-- :verification is the verification.
-- \set verification 'gen_random_uuid()'
WITH left_over AS (
    SELECT EXISTS (SELECT FROM "VerificationTask" WHERE "verificationId" = :verification AND NOT done) AS there
),
ended AS (
    UPDATE "ArchiveVerification"
    SET
        status = CASE WHEN there THEN 'interrupted' WHEN "breakCount" > 0 THEN 'failed' ELSE 'passed' END,
        "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
        "finishedAt" = CASE WHEN NOT there THEN clock_timestamp() AT TIME ZONE 'UTC' END
    FROM left_over
    WHERE id = :verification AND "finishedAt" IS NULL
)
DELETE FROM "VerificationTask"
USING left_over
WHERE NOT there AND "verificationId" = :verification
