-- Up to which "archivedAt" the next seal of a month reaches, of rows that no seal has: all rows of an instant are sealed together.
-- :partition is the month's, :archived_after up to which rows are sealed or NULL, :limit about how many rows a seal has.
-- One row: until, NULL when all rows are sealed.
-- \set partition '"StreamArchive_2026_01"'
-- \set archived_after NULL::timestamp
-- \set limit 10
SELECT max("archivedAt") AS until
FROM (
    SELECT "archivedAt" FROM :partition
    WHERE "archivedAt" > COALESCE(:archived_after, '-infinity')
    ORDER BY "archivedAt" LIMIT :limit
) next
