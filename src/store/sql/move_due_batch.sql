-- Moves the next due rows of one month from "EventLog" to its partition of the archive, in order of ("createdAt", id).
-- What is deleted is what is inserted: the rows that DELETE returns, each in its newest version. Rows that another session has locked
-- are left out; so are rows that are held, and duplicates, rows whose id or event is archived already, which are named instead.
-- The chain's head is looked up here and not once per run: a row that becomes the head meanwhile is not visible to this
-- statement, so it cannot be moved either.
-- What is set is as due_rows has it; and :address, :key and :using, by which a row is found; :duplicates, :partition, :column_names,
-- :archived_values, :archived_at and :returned; :moved_ids and :moved_digests where triggers fire; and :returning, the texts of the columns
-- that are sealed.
-- A row of texts for each that was archived. The transaction's setting snapshot_service.batch has what else is to be said, as JSON: seen,
-- leaving (rows that were to be deleted), deleted, movedIds (where triggers fire), movedDigests (where they may alter what is archived),
-- duplicateIds and duplicateTimes, lastCreatedAt and lastId (null when no row was seen). Refused: a SELECT of both from the two
-- CTEs. The server copies each row once more for it, which costs as much as to send it.
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
-- \set returning 'RETURNING id::text'
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
)
INSERT INTO :partition (:column_names, "archivedAt")
SELECT :archived_values, :archived_at
FROM moved
-- Always so.
WHERE (
    SELECT set_config('snapshot_service.batch', json_build_object(
        'seen', (SELECT count(*) FROM due),
        'leaving', (SELECT count(*) FROM leaving),
        'deleted', (SELECT count(*) FROM moved),
        'movedIds', :moved_ids,
        'movedDigests', :moved_digests,
        'duplicateIds', ARRAY(SELECT id::text FROM duplicate),
        'duplicateTimes', ARRAY(SELECT "createdAt"::timestamp FROM duplicate),
        'lastCreatedAt', last."createdAt"::timestamp,
        'lastId', last.id::text
    )::text, true)
    FROM (SELECT) one
    LEFT JOIN (SELECT "createdAt", id FROM due ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
) IS NOT NULL
:returning
