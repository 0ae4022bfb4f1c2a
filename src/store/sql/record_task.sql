-- Records what a worker has found out about a task, if it still has the task's lease.
-- :verification, :place and :token are the lease, which lasts :lease_seconds from now; :done whether nothing of the task is left,
-- :after_created_at and :after_id (or NULL) the last row of "EventLog" that was looked at. Added: :rows, :seals, :break_count, :finding_count,
-- :completed_by_host, and :breaks and :findings as far as no more than :most_kept of each are kept.
-- :opens_links is a month whose links are to be looked at, or NULL: all of them, unless that was done before.
-- \set verification 'gen_random_uuid()'
-- \set place 1
-- \set token 'gen_random_uuid()'
-- \set lease_seconds 60::float8
-- \set done true
-- \set after_created_at NULL::timestamp
-- \set after_id NULL
-- \set rows 1
-- \set seals 1
-- \set break_count 0
-- \set breaks '''[]''::jsonb'
-- \set finding_count 0
-- \set findings '''[]''::jsonb'
-- \set completed_by_host 0
-- \set opens_links NULL::text
-- \set most_kept 1000
WITH task AS (
    UPDATE "VerificationTask"
    SET
        done = :done,
        "afterCreatedAt" = :after_created_at,
        "afterId" = :after_id,
        "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second'
    WHERE "verificationId" = :verification AND place = :place AND token = :token AND NOT done
    RETURNING 1
),
opened AS (
    UPDATE "VerificationTask" t
    SET done = false
    FROM task
    WHERE t."verificationId" = :verification AND t.kind = 'links' AND t.month = :opens_links AND t.done AND t.token IS NULL
)
UPDATE "ArchiveVerification"
SET
    "rowsDone" = "rowsDone" + :rows,
    "sealsDone" = "sealsDone" + :seals,
    "breakCount" = "breakCount" + :break_count,
    breaks = breaks || COALESCE((
        SELECT jsonb_agg(found ORDER BY at) FROM jsonb_array_elements(:breaks) WITH ORDINALITY f (found, at)
        WHERE at <= :most_kept - jsonb_array_length(breaks)
    ), '[]'),
    "findingCount" = "findingCount" + :finding_count,
    findings = findings || COALESCE((
        SELECT jsonb_agg(found ORDER BY at) FROM jsonb_array_elements(:findings) WITH ORDINALITY f (found, at)
        WHERE at <= :most_kept - jsonb_array_length(findings)
    ), '[]'),
    "completedByHost" = "completedByHost" + :completed_by_host,
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC'
FROM task
WHERE id = :verification
