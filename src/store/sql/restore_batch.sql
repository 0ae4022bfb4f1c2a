-- Moves the next archived rows of one month that match back to "EventLog".
-- What is inserted is what is deleted: the rows that DELETE returns. Rows of streams on hold stay; so do rows in whose way
-- "EventLog" has a row, of the same id or of the same event. A row that the former service's archive still has is not put back.
-- What is set is as restore_candidates has it; and :names and :rows, which are inserted, :kept, which records them,
-- :is_gone_returned of the row g, :is_same of the inserted row r and the row g, :digested, :is_end, :most_conflicts, :lost_columns; :texts
-- of the columns that are sealed, and :no_texts, a NULL for each.
-- Columns: summary, and the texts of the columns. A row for each that left, without summary, and one row with the summary alone, as JSON:
-- seen, isEnd (whether there is nothing after the stretch that was looked at), lastPlace, lastCreatedAt and lastId
-- (null when no row was seen), removed (to be put back), kept (recorded as restored), restored, restoredIds and restoredDigests (empty
-- unless asked for), onHold, conflicts, conflictIds, conflictPlaces, conflictObstacles and conflictColumns (of the first of these),
-- lostColumns (that "EventLog" has not and one of the rows has a value in).
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
-- \set names 'id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt"'
-- \set rows 'SELECT g.id, g."eventType", g."streamId", g."txHash", g.ledger, g."ledgerClosedAt" FROM gone g'
-- \set kept 'SELECT id FROM gone'
-- \set is_gone_returned true
-- \set is_same true
-- \set digested ' WHERE false'
-- \set is_end true
-- \set most_conflicts 100
-- \set texts 'id::text'
-- \set no_texts ', NULL::text'
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
first_conflict AS MATERIALIZED (
    SELECT * FROM candidate WHERE obstacle IS NOT NULL ORDER BY "createdAt", id LIMIT :most_conflicts
)
SELECT NULL::text AS summary, :texts FROM gone
UNION ALL
SELECT
    json_build_object(
        'seen', (SELECT count(*) FROM seen),
        'isEnd', :is_end,
        'lastPlace', (SELECT max(place)::text FROM seen),
        'lastCreatedAt', last."createdAt",
        'lastId', last.id::text,
        'removed', (SELECT count(*) FROM gone g WHERE :is_gone_returned),
        'kept', (SELECT count(*) FROM kept),
        -- Those that the host's triggers have left as they were.
        'restored', (SELECT count(*) FROM restored r JOIN gone g ON g.id = r.id WHERE :is_same),
        'restoredIds', ARRAY(SELECT id::text FROM restored:digested),
        'restoredDigests', ARRAY(SELECT md5(ROW(:names)::text) FROM restored:digested),
        'onHold', (SELECT count(*) FROM wanted) - (SELECT count(*) FROM candidate),
        'conflicts', (SELECT count(*) FROM candidate WHERE obstacle IS NOT NULL),
        'conflictIds', ARRAY(SELECT id::text FROM first_conflict ORDER BY "createdAt", id),
        'conflictPlaces', ARRAY(SELECT place::text FROM first_conflict ORDER BY "createdAt", id),
        'conflictObstacles', ARRAY(SELECT obstacle FROM first_conflict ORDER BY "createdAt", id),
        'conflictColumns', ARRAY(SELECT COALESCE(lacking, '') FROM first_conflict ORDER BY "createdAt", id),
        'lostColumns', ARRAY(SELECT unnest(:lost_columns) FROM gone)
    )::text:no_texts
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM seen ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
