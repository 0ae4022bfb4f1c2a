-- Which of these parents nobody can know: the former service dropped the hashes of the rows that it archived, so the first row
-- after one of these names a parent that is no longer told.
-- Parameters: hashes (of parents). Parts: rows (a month's), before (those of the month before).
-- Column: parent_hash.
-- \set hashes '''{}''::text[]'
-- \set rows '"StreamArchive_2026_01"'
-- \set before '"StreamArchive_2026_01"'
SELECT r.parent_hash::text AS parent_hash
FROM (SELECT * FROM :rows p WHERE p.parent_hash::text = ANY (:hashes)) r
CROSS JOIN LATERAL (
    SELECT b.entry_hash
    FROM (SELECT id, "createdAt", entry_hash FROM :rows c UNION ALL SELECT id, "createdAt", entry_hash FROM :before d) b
    WHERE (b."createdAt", b.id) < (r."createdAt", r.id)
    ORDER BY b."createdAt" DESC, b.id DESC
    LIMIT 1
) earlier
WHERE earlier.entry_hash IS NULL
