-- Part of check_links: the hashes of rows that are the last of a seal of a month. In an unbroken chain they are the parents of the next
-- seal's first row, and found by their keys.
-- :partition is the month's, :month_text the month, :archived_id_type the type of the archive's ids.
SELECT last.entry_hash::text
FROM "ArchiveSeal" s
CROSS JOIN LATERAL (
    SELECT a.entry_hash FROM :partition a
    WHERE a.id = CAST(s."lastId" AS :archived_id_type) AND a."createdAt" = s."lastCreatedAt"
    LIMIT 1
) last
WHERE s.month = :month_text
