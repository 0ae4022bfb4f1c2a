-- Claims the next task of a verification, with a fresh fencing token. A task that another worker has is passed over.
-- :verification is the verification; the lease lasts :lease_seconds.
-- One row: place, kind, month, sequence, "afterCreatedAt", "afterId", token; none when there is no task to claim.
-- \set verification 'gen_random_uuid()'
-- \set lease_seconds 60::float8
UPDATE "VerificationTask" t
SET
    token = gen_random_uuid(),
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second'
WHERE "verificationId" = :verification AND place = (
    SELECT place
    FROM "VerificationTask"
    WHERE "verificationId" = :verification AND NOT done
      AND (token IS NULL OR "leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC')
    ORDER BY place
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING place, kind, month, sequence, "afterCreatedAt", "afterId", token
