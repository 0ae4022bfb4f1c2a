-- The rows of a seal.
-- :partition is the month's, or a query without rows; :texts are the texts of the columns that are hashed; rows are those after
-- :archived_after (NULL: from the beginning) and not after :archived_at, both texts; :removed adds rows that have left the seal since
-- (nothing, or SQL that begins with UNION ALL); :order is that of the seal, or nothing.
-- Columns: removal (the digest of a row that has left; NULL for one that is there), and the texts. Of a row that has left they are NULL, but for
-- "createdAt" and id. :names are names for them: the host may have columns of any name.
-- \set partition '"StreamArchive_2026_01"'
-- \set texts 'a.id::text'
-- \set names text_1
-- \set archived_after NULL::text
-- \set archived_at '''2026-05-01'''
-- \set removed ''
-- \set order 'ORDER BY at, key'
SELECT removal, :names
FROM (
    SELECT NULL::bytea, a."createdAt", a.id::text COLLATE "C", :texts
    FROM :partition a
    WHERE a."archivedAt" > COALESCE(CAST(:archived_after AS timestamp), '-infinity')
      AND a."archivedAt" <= CAST(:archived_at AS timestamp)
    :removed
) sealed (removal, at, key, :names)
:order
