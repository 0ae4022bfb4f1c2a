-- Records a batch that restored logs of a month.
-- :run and :month say whose; :after_created_at, :after_id and :place are the last row that was looked at, :moved the rows of the pass so
-- far, :done whether there are no more; :on_hold, :conflicts and :conflict_details what the pass has left. Added: :logs_restored.
-- \set run 'gen_random_uuid()'
-- \set month '''2026-01'''
-- \set after_created_at NULL::timestamp
-- \set after_id NULL
-- \set place NULL
-- \set moved 1
-- \set done false
-- \set on_hold 0
-- \set conflicts 0
-- \set conflict_details '''[]''::jsonb'
-- \set logs_restored 1
UPDATE "RunMonth"
SET
    "afterCreatedAt" = :after_created_at,
    "afterId" = :after_id,
    place = :place,
    moved = :moved,
    done = :done,
    "onHold" = :on_hold,
    conflicts = :conflicts,
    "conflictDetails" = :conflict_details,
    "logsRestored" = "logsRestored" + :logs_restored
WHERE "runId" = :run AND month = :month
