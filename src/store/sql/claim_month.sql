-- Claims the next month of a run that has work, with a fresh fencing token. A month that another holds is passed over. The claim does
-- not wait for a batch that is under way, whose seal has a key-share lock by its foreign key.
-- :run and :run_token are the owner's, who has the month for :lease_seconds; :month is the one month that is wanted, or NULL. The owner
-- claims that one from an earlier slice of its own, too.
-- One row: month (NULL when none was claimed), token, and the month's progress; is_held: whether another run holds a month that has work.
-- \set run 'gen_random_uuid()'
-- \set run_token 'gen_random_uuid()'
-- \set lease_seconds 60::float8
-- \set month NULL::text
WITH owner AS MATERIALIZED (
    SELECT id, "leaseHolder" FROM "MaintenanceRun"
    WHERE id = :run AND token = :run_token AND "finishedAt" IS NULL FOR SHARE
),
next AS MATERIALIZED (
    SELECT m.month
    FROM "RunMonth" w
    JOIN "ArchiveMonth" m ON m.month = w.month
    WHERE w."runId" = (SELECT id FROM owner)
      AND CASE WHEN :month::text IS NULL THEN NOT w.done ELSE w.month = :month END
      AND (
          m.token IS NULL
          -- Within a run a lease does not expire: whoever takes the run over revokes it.
          OR (m."runId" <> :run AND m."leaseExpiresAt" < clock_timestamp() AT TIME ZONE 'UTC')
          OR (m."runId" = :run AND m.month = :month)
      )
    ORDER BY m.month
    LIMIT 1
    FOR NO KEY UPDATE OF m SKIP LOCKED
),
claimed AS (
    UPDATE "ArchiveMonth" m
    SET
        "runId" = :run,
        "leaseHolder" = owner."leaseHolder",
        token = gen_random_uuid(),
        "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second'
    FROM next, owner
    WHERE m.month = next.month
    RETURNING m.month, m.token
)
SELECT
    claimed.month, claimed.token,
    w.done, w."afterCreatedAt", w."afterId", w.place, w.moved, w."onHold", w.conflicts, w."conflictDetails",
    EXISTS (
        SELECT FROM "RunMonth" left_over JOIN "ArchiveMonth" m ON m.month = left_over.month
        WHERE left_over."runId" = :run AND NOT left_over.done AND m.token IS NOT NULL AND m."runId" <> :run
          AND m."leaseExpiresAt" >= clock_timestamp() AT TIME ZONE 'UTC'
          AND (:month::text IS NULL OR m.month = :month)
    ) AS is_held
FROM (SELECT) one
LEFT JOIN claimed ON true
LEFT JOIN "RunMonth" w ON w."runId" = :run AND w.month = claimed.month
