-- Keeps rows of a month whose parent was nowhere when they were archived with their run, and counts them, as far as there is room.
-- :run and :month are the seal's, :missing how many rows these are, :partition the month's rows, :most_kept how many a run keeps.
-- \set run 'gen_random_uuid()'
-- \set month '''2026-01'''
-- \set missing 1
-- \set partition '"StreamArchive_2026_01"'
-- \set most_kept 1000
WITH counted AS (
    UPDATE "RunMonth" SET "linksMissing" = "linksMissing" + :missing WHERE "runId" = :run AND month = :month
),
seal AS MATERIALIZED (
    SELECT "archivedAt", unlinked FROM "ArchiveSeal" WHERE month = :month AND "runId" = :run AND unlinked <> '{}'
)
INSERT INTO "MaintenanceFinding" ("runId", kind, "logId", month, detail)
SELECT :run, 'link_missing', a.id::text, :month, json_build_object('parentHash', a.parent_hash)
FROM :partition a
WHERE a."archivedAt" IN (SELECT "archivedAt" FROM seal) AND a.parent_hash IN (SELECT unnest(unlinked) FROM seal)
LIMIT GREATEST(:most_kept - (
    SELECT count(*) FROM "MaintenanceFinding" f WHERE f."runId" = :run AND f.kind = 'link_missing'
), 0)
ON CONFLICT DO NOTHING
