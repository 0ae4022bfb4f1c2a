-- The rows that left a month for one seal of kind restored, in its order, times as texts.
-- :month and :sequence name the seal.
-- Columns: id, archivedAt, createdAt, digest.
-- \set month '''2026-01'''
-- \set sequence 1
SELECT id, "archivedAt"::text AS "archivedAt", "createdAt"::text AS "createdAt", digest
FROM "ArchiveRemoval" r
WHERE month = :month AND sequence = :sequence
ORDER BY r."createdAt", id COLLATE "C"
