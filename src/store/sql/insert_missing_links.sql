-- Counts the rows of seals whose parent was nowhere when they were archived, and keeps them with their run, as far as there is room.
-- :run and :month are the seals', :sequences their numbers, :partition the month's rows, :most_kept how many a run keeps.
-- One row: missing, how many rows these are.
-- \set run 'gen_random_uuid()'
-- \set month '''2026-01'''
-- \set sequences '''{1}''::integer[]'
-- \set partition '"StreamArchive_2026_01"'
-- \set most_kept 1000
WITH seal AS MATERIALIZED (
    SELECT "archivedAt", unlinked FROM "ArchiveSeal" WHERE month = :month AND sequence = ANY (:sequences)
),
missing AS MATERIALIZED (
    SELECT a.id::text AS id, a.parent_hash::text AS parent_hash
    FROM :partition a
    WHERE a."archivedAt" IN (SELECT "archivedAt" FROM seal) AND a.parent_hash::text IN (SELECT unnest(unlinked) FROM seal)
),
counted AS (
    UPDATE "RunMonth" SET "linksMissing" = "linksMissing" + (SELECT count(*) FROM missing) WHERE "runId" = :run AND month = :month
),
kept AS (
    INSERT INTO "MaintenanceFinding" ("runId", kind, "logId", month, detail)
    SELECT :run, 'link_missing', id, :month, json_build_object('parentHash', parent_hash)
    FROM missing
    LIMIT GREATEST(:most_kept - (
        SELECT count(*) FROM "MaintenanceFinding" f WHERE f."runId" = :run AND f.kind = 'link_missing'
    ), 0)
    ON CONFLICT DO NOTHING
)
SELECT count(*) AS missing FROM missing
