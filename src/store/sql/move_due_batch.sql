-- Moves the next due rows of one month from "EventLog" to its partition of the archive, in order of ("createdAt", id).
-- What is deleted is what is inserted: the rows that DELETE returns, each in its newest version. Rows that another session has locked
-- are left out; so are rows that are held, and duplicates, rows whose id or event is archived already, which are named instead.
-- The chain's head is looked up here and not once per run: a row that becomes the head meanwhile is not visible to this
-- statement, so it cannot be moved either.
-- What is set is as due_rows has it; and :address, :key and :using, by which a row is found; :duplicates, :partition, :column_names,
-- :archived_values, :archived_at and :returned; :moved_ids and :moved_digests where triggers fire; :texts of the columns that are sealed,
-- :rows, which returns them, and :no_texts, a NULL for each.
-- Columns: summary, and the texts of the columns. A row for each that was moved, without summary, and one row with the summary alone, as JSON:
-- seen, leaving (rows that were to be deleted), deleted, moved, movedIds (where triggers fire), movedDigests (where they may
-- alter what is archived), duplicateIds and duplicateTimes, lastCreatedAt and lastId (null when no row was seen).
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
-- \set archived_at '''2026-05-01''::timestamp'
-- \set texts 'id::text'
-- \set rows 'SELECT NULL::text AS summary, archived.* FROM archived UNION ALL'
-- \set no_texts ', NULL::text'
-- \set address e.ctid
-- \set key ', e."txHash"'
-- \set using 'WHERE e.ctid = ANY (ARRAY(SELECT ctid FROM leaving))'
-- \set duplicates 'SELECT NULL::text AS id, NULL::timestamp AS "createdAt" WHERE false'
-- \set partition '"StreamArchive_2026_01"'
-- \set column_names 'id, "createdAt"'
-- \set archived_values 'id, "createdAt"'
-- \set returned 'e.id, e."createdAt"'
-- \set moved_ids '''{}''::text[]'
-- \set moved_digests '''{}''::text[]'
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
    RETURNING :texts
)
:rows
SELECT
    json_build_object(
        'seen', (SELECT count(*) FROM due),
        'leaving', (SELECT count(*) FROM leaving),
        'deleted', (SELECT count(*) FROM moved),
        'moved', (SELECT count(*) FROM archived),
        'movedIds', :moved_ids,
        'movedDigests', :moved_digests,
        'duplicateIds', ARRAY(SELECT id::text FROM duplicate),
        'duplicateTimes', ARRAY(SELECT "createdAt"::timestamp FROM duplicate),
        'lastCreatedAt', last."createdAt"::timestamp,
        'lastId', last.id::text
    )::text AS summary:no_texts
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM due ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
