-- Part of several statements: the newest row of "EventLog" when it is due and the host takes its hash as the next event's parent
-- (domain rule 7); else no row. Several rows may share the newest "createdAt": the head is the one that none of them has as parent.
-- Rows with a time that cannot be are none that the host would take for the newest. :cutoff and :has_hashes are the run's.
WITH newest AS MATERIALIZED (
    SELECT id, parent_hash, entry_hash
    FROM "EventLog"
    WHERE "createdAt" = (SELECT max("createdAt") FROM "EventLog" WHERE "createdAt" < '10000-01-01') AND "createdAt" < :cutoff
)
SELECT newest.id
FROM newest
LEFT JOIN (SELECT DISTINCT parent_hash FROM newest) child ON child.parent_hash = newest.entry_hash
WHERE :has_hashes OR newest.entry_hash IS NOT NULL
ORDER BY child.parent_hash IS NOT NULL, newest.entry_hash IS NULL, newest.id DESC
LIMIT 1
