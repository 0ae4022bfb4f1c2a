-- A stream's newest snapshot taken at or before a time, else its oldest one: either way the nearest to that time.
-- $1 either id, $2 the time. Columns: snapshotMonth, createdAt.
SELECT s."snapshotMonth", s."createdAt"
FROM "StreamSnapshot" s
WHERE s."streamId" = (SELECT id FROM ids)
ORDER BY s."createdAt" <= $2 DESC, GREATEST(s."createdAt" - $2, $2 - s."createdAt"), s."snapshotMonth" DESC
LIMIT 1
