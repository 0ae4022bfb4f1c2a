-- Records a batch that archived logs of a month.
-- :run and :month say whose; :after_created_at and :after_id are the last row that was looked at, :moved the rows of the pass so far,
-- :done whether there are no more. Added: :logs_archived, :already_archived, :duplicates_dropped, :hash_mismatches,
-- :completed_by_host.
-- \set run 'gen_random_uuid()'
-- \set month '''2026-01'''
-- \set after_created_at NULL::timestamp
-- \set after_id NULL
-- \set moved 1
-- \set done false
-- \set logs_archived 1
-- \set already_archived 0
-- \set duplicates_dropped 0
-- \set hash_mismatches 0
-- \set completed_by_host 0
UPDATE "RunMonth"
SET
    "afterCreatedAt" = :after_created_at,
    "afterId" = :after_id,
    moved = :moved,
    done = :done,
    "logsArchived" = "logsArchived" + :logs_archived,
    "alreadyArchived" = "alreadyArchived" + :already_archived,
    "duplicatesDropped" = "duplicatesDropped" + :duplicates_dropped,
    "hashMismatches" = "hashMismatches" + :hash_mismatches,
    "completedByHost" = "completedByHost" + :completed_by_host
WHERE "runId" = :run AND month = :month
