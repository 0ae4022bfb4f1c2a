-- Moves the next archived rows of one month that match back to "EventLog", and seals that they left: the month's next seal, and each with
-- the digest that it was sealed with, so that its seal still verifies.
-- What is inserted is what is deleted: the rows that DELETE returns. Rows of streams on hold stay; so do rows in whose way
-- "EventLog" has a row, of the same id or of the same event. A row that the former service's archive still has is not put back.
-- What is set is as restore_candidates and seal_batch have it; and :names and :rows, which are inserted, :kept, which records them,
-- :is_gone_returned of the row g, :is_same of the inserted row r and the row g, :digested, :is_end, :most_conflicts, :lost_columns.
-- One row: seen, is_end (whether there is nothing after the stretch that was looked at), last_place, last_created_at and last_id
-- (NULL when no row was seen), removed (to be put back), kept (recorded as restored), restored, restored_ids and restored_digests (empty
-- unless asked for), on_hold, conflicts, conflict_ids, conflict_places, conflict_obstacles and conflict_columns (of the first of these),
-- lost_columns (that "EventLog" has not and one of the rows has a value in).
-- \set run 'gen_random_uuid()'
-- \set month '''2026-01'''
-- \set limit 10
-- \set held '''{}''::text[]'
-- \set refused_places '''{}''::text[]'
-- \set partition '"StreamArchive_2026_01"'
-- \set key ''
-- \set lacking NULL::text
-- \set after true
-- \set matches true
-- \set is_returned true
-- \set same_event 'SELECT NULL AS yes'
-- \set copy 1
-- \set candidates `cat restore_candidates.sql`
-- \set sequence 1
-- \set previous '''''::bytea'
-- \set archived_after NULL::timestamp
-- \set archived_at NULL::timestamp
-- \set columns '''{id}''::text[]'
-- \set kind '''restored'''
-- \set removed ''''''
-- \set also ', "archivedAt"'
-- \set source leaving
-- \set digest '''''::bytea'
-- \set is_wrong false
-- \set proof `cat seal_batch.sql`
-- \set proof_columns 'id, "createdAt", "archivedAt", ledger, ''''::bytea AS proof, NULL::text AS entry_hash, NULL::text AS content_hash'
-- \set names 'id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt"'
-- \set rows 'SELECT g.id, g."eventType", g."streamId", g."txHash", g.ledger, g."ledgerClosedAt" FROM gone g'
-- \set kept 'SELECT id FROM gone'
-- \set is_gone_returned true
-- \set is_same true
-- \set digested ' WHERE false'
-- \set is_end true
-- \set most_conflicts 100
-- \set lost_columns '''{}''::text[]'
WITH :candidates,
gone AS (
    DELETE FROM :partition a
    -- By place and as an array: planned as nothing but a look-up of these rows.
    WHERE a.ctid = ANY (ARRAY(SELECT place FROM candidate WHERE obstacle IS NULL))
    RETURNING a.*
),
restored AS (
    INSERT INTO "EventLog" (:names) OVERRIDING SYSTEM VALUE
    :rows
    RETURNING :names
),
kept AS (
:kept
),
leaving AS MATERIALIZED (
    SELECT :proof_columns FROM gone
),
:proof,
first_conflict AS MATERIALIZED (
    SELECT * FROM candidate WHERE obstacle IS NOT NULL ORDER BY "createdAt", id LIMIT :most_conflicts
),
removal AS (
    INSERT INTO "ArchiveRemoval" (month, "archivedAt", id, "createdAt", digest, sequence)
    SELECT :month, "archivedAt", id::text, "createdAt", digest, :sequence FROM proof
)
SELECT
    (SELECT count(*) FROM seen) AS seen,
    :is_end AS is_end,
    (SELECT max(place)::text FROM seen) AS last_place,
    last."createdAt" AS last_created_at,
    last.id::text AS last_id,
    (SELECT count(*) FROM gone g WHERE :is_gone_returned) AS removed,
    (SELECT count(*) FROM kept) AS kept,
    -- Those that the host's triggers have left as they were.
    (SELECT count(*) FROM restored r JOIN gone g ON g.id = r.id WHERE :is_same) AS restored,
    ARRAY(SELECT id::text FROM restored:digested) AS restored_ids,
    ARRAY(SELECT md5(ROW(:names)::text) FROM restored:digested) AS restored_digests,
    (SELECT count(*) FROM wanted) - (SELECT count(*) FROM candidate) AS on_hold,
    (SELECT count(*) FROM candidate WHERE obstacle IS NOT NULL) AS conflicts,
    ARRAY(SELECT id::text FROM first_conflict ORDER BY "createdAt", id) AS conflict_ids,
    ARRAY(SELECT place::text FROM first_conflict ORDER BY "createdAt", id) AS conflict_places,
    ARRAY(SELECT obstacle FROM first_conflict ORDER BY "createdAt", id) AS conflict_obstacles,
    ARRAY(SELECT COALESCE(lacking, '') FROM first_conflict ORDER BY "createdAt", id) AS conflict_columns,
    ARRAY(SELECT unnest(:lost_columns) FROM gone) AS lost_columns
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM seen ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
