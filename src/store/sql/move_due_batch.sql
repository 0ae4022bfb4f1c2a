-- Moves the next due rows of one month from "EventLog" to its partition of the archive, in order of ("createdAt", id), and seals
-- them: the month's next seal.
-- What is deleted is what is inserted: the rows that DELETE returns, each in its newest version. Rows that another session has locked
-- are left out; so are rows that are held, and duplicates, rows whose id or event is archived already, which are named instead.
-- The chain's head is looked up here and not once per run: a row that becomes the head meanwhile is not visible to this
-- statement, so it cannot be moved either.
-- What is set is as due_rows and seal_batch have it; and :address, :key and :using, by which a row is found; :duplicates, :columns and
-- :archived_values, :returned, :proof_columns; :moved_ids and :moved_digests where triggers fire; :mismatches.
-- One row: seen, leaving (rows that were to be deleted), deleted, moved, moved_ids (where triggers fire), moved_digests (where they may
-- alter what is archived), duplicate_ids and duplicate_times, hash_mismatches, mismatches (some of them: id, entryHash, computedHash),
-- last_created_at and last_id (NULL when no row was seen).
-- \set cutoff '''2026-04-01''::timestamp'
-- \set has_hashes true
-- \set month_start '''2026-01-01''::timestamp'
-- \set month_end '''2026-02-01''::timestamp'
-- \set after_created_at '''2026-01-01''::timestamp'
-- \set after_id NULL
-- \set id_type text
-- \set limit 10
-- \set held '''{}''::text[]'
-- \set kept_types '''{}''::text[]'
-- \set is_free true
-- \set chain_head `cat chain_head.sql`
-- \set due_rows `cat due_rows.sql`
-- \set month '''2026-01'''
-- \set sequence 1
-- \set run 'gen_random_uuid()'
-- \set previous '''''::bytea'
-- \set archived_after NULL::timestamp
-- \set archived_at '''2026-05-01''::timestamp'
-- \set columns '''{id}''::text[]'
-- \set kind '''archived'''
-- \set removed ''''''
-- \set also ''
-- \set proof `cat seal_batch.sql`
-- \set address e.ctid
-- \set key ', e."txHash"'
-- \set using 'WHERE e.ctid = ANY (ARRAY(SELECT ctid FROM leaving))'
-- \set duplicates 'SELECT NULL::text AS id, NULL::timestamp AS "createdAt" WHERE false'
-- \set partition '"StreamArchive_2026_01"'
-- \set column_names 'id, "createdAt"'
-- \set archived_values 'id, "createdAt"'
-- \set returned 'e.id, e."createdAt"'
-- \set proof_columns 'id, "createdAt", ledger, '''' AS content_hash, '''' AS entry_hash, '''' AS rest'
-- \set source archived
-- \set digest 'sha256(convert_to(content_hash || rest, ''UTF8''))'
-- \set is_wrong false
-- \set moved_ids '''{}''::text[]'
-- \set moved_digests '''{}''::text[]'
-- \set mismatches '''[]''::jsonb'
WITH head AS MATERIALIZED (
:chain_head
),
due AS MATERIALIZED (
    SELECT :address, e.id, e."createdAt":key
:due_rows),
duplicate AS MATERIALIZED (
:duplicates
),
leaving AS MATERIALIZED (
    SELECT * FROM due WHERE id NOT IN (SELECT id FROM duplicate)
),
moved AS (
    DELETE FROM "EventLog" e
    :using
    RETURNING :returned
),
archived AS (
    INSERT INTO :partition (:column_names, "archivedAt")
    SELECT :archived_values, :archived_at FROM moved
    RETURNING :proof_columns
),
:proof
SELECT
    (SELECT count(*) FROM due) AS seen,
    (SELECT count(*) FROM leaving) AS leaving,
    (SELECT count(*) FROM moved) AS deleted,
    (SELECT count(*) FROM archived) AS moved,
    :moved_ids AS moved_ids,
    :moved_digests AS moved_digests,
    ARRAY(SELECT id::text FROM duplicate) AS duplicate_ids,
    ARRAY(SELECT "createdAt"::timestamp FROM duplicate) AS duplicate_times,
    (SELECT count(*) FROM mismatch) AS hash_mismatches,
    :mismatches AS mismatches,
    last."createdAt"::timestamp AS last_created_at,
    last.id::text AS last_id
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM due ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
