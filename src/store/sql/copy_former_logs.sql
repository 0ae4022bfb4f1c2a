-- Copies logs of one month from the former service's archive that are neither in "EventLog" nor archived nor restored.
-- Each keeps the time when it was archived, unless the month's chain of seals is beyond it already. A seal covers all rows of an
-- instant, so that those of one are copied together.
-- :former is the table, :partition the month's, :column_names and :adopted_values are what is written, :month_start and :month_end its first
-- instant and its end, :sealed_until the "archivedAt" up to which rows are sealed or NULL, :limit about how many rows are copied.
-- \set former '(SELECT a.*, a."archivedAt" AS "formerAt" FROM "StreamArchive" a)'
-- \set partition '"StreamArchive_2026_01"'
-- \set column_names 'id, "createdAt"'
-- \set adopted_values 'f.id, f."createdAt"'
-- \set month_start '''2026-01-01''::timestamp'
-- \set month_end '''2026-02-01''::timestamp'
-- \set sealed_until NULL::timestamp
-- \set limit 10
WITH wanted AS MATERIALIZED (
    SELECT f.*, GREATEST(f."archivedAt"::timestamp, :sealed_until + interval '1 millisecond') AS archived_at
    FROM :former f
    WHERE f."createdAt" >= :month_start AND f."createdAt" < :month_end
      AND NOT EXISTS (SELECT FROM "EventLog" e WHERE e.id::text = f.id::text)
      AND NOT EXISTS (SELECT FROM :partition a WHERE a.id::text = f.id::text)
      AND NOT EXISTS (SELECT FROM "RestoredLog" r WHERE r.id = f.id::text)
)
INSERT INTO :partition (:column_names, "archivedAt")
SELECT :adopted_values, archived_at
FROM wanted f
WHERE archived_at <= COALESCE(
    (SELECT w.archived_at FROM wanted w ORDER BY w.archived_at OFFSET :limit - 1 LIMIT 1), 'infinity')
