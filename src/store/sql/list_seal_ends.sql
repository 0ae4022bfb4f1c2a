-- Part of statements about links: the hashes of rows that are the last of a seal. In an unbroken chain they are the parents of the next
-- seal's first row, and found by their keys.
-- :partition is the month's, :month_text the month, :is_wanted a condition on the seal s, :is_last_row tells whether the row a has the id
-- s."lastId".
SELECT last.entry_hash
FROM "ArchiveSeal" s
CROSS JOIN LATERAL (
    SELECT a.entry_hash::text AS entry_hash FROM :partition a
    WHERE :is_last_row AND a."createdAt" = s."lastCreatedAt"
    LIMIT 1
) last
WHERE s.month = :month_text AND s.kind <> 'restored' AND :is_wanted
