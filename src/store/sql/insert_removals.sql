-- Keeps the digests of rows that left a month of the archive.
-- :month and :sequence are the seal's that tells so; the others have an element for each row, times as texts.
-- \set month '''2026-01'''
-- \set sequence 1
-- \set archived_at '''{}''::text[]'
-- \set ids '''{}''::text[]'
-- \set created_at '''{}''::text[]'
-- \set digests '''{}''::bytea[]'
INSERT INTO "ArchiveRemoval" (month, "archivedAt", id, "createdAt", digest, sequence)
SELECT :month, CAST(archived_at AS timestamp), id, CAST(created_at AS timestamp), digest, :sequence
FROM unnest(:archived_at, :ids, :created_at, :digests) removed (archived_at, id, created_at, digest)
