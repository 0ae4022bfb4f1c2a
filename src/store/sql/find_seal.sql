-- A seal, all times as texts, and the digest of the seal before it.
-- :month and :sequence name the seal.
-- Columns: those of "ArchiveSeal", and previous (NULL when there is no seal before it).
-- \set month '''2026-01'''
-- \set sequence 1
SELECT
    s.month, s.sequence, s.kind, s."runId"::text AS "runId", s.rows, s."firstCreatedAt"::text AS "firstCreatedAt", s."firstId",
    s."lastCreatedAt"::text AS "lastCreatedAt", s."lastId", s."archivedAfter"::text AS "archivedAfter",
    s."archivedAt"::text AS "archivedAt", s."minLedger", s."maxLedger", s.columns, s."presentColumns", s.digest, s.leaves,
    (SELECT p.digest FROM "ArchiveSeal" p WHERE p.month = s.month AND p.sequence = s.sequence - 1) AS previous
FROM "ArchiveSeal" s
WHERE s.month = :month AND s.sequence = :sequence
