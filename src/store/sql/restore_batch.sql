-- Moves the next archived rows of one month that match back to "EventLog", and records in the month's ledger that they left:
-- as its next entry, and each with the digest that it was sealed with, so that its seal still verifies.
-- What is inserted is what is deleted: the rows that DELETE returns. Rows of streams on hold stay; so do rows in whose way
-- "EventLog" has a row, of the same id or of the same event.
-- $1 to $5 what matches: contract ids, from, to, run, the month; each of the first four NULL for all. Where the batch before ended:
-- $6 a place, or $7 and $8 a row. $9 most rows looked at, $10 streams that are held, $11 the run, $12 places of rows that
-- "EventLog" does not take; $13 and so on: the ledger's entry.
-- One row: seen, is_end (whether there is nothing after the stretch that was looked at), last_place, last_created_at and last_id
-- (NULL when no row was seen), removed, kept (recorded as restored), restored, restored_ids and restored_digests (empty unless asked for), on_hold, conflicts,
-- conflict_ids, conflict_places, conflict_obstacles and conflict_columns (of the first of these), lost_columns (that "EventLog"
-- has not and one of the rows has a value in).
WITH {candidates},
gone AS (
    DELETE FROM {partition} a
    -- By place and as an array: planned as nothing but a look-up of these rows.
    WHERE a.ctid = ANY (ARRAY(SELECT place FROM candidate WHERE obstacle IS NULL))
    RETURNING a.*
),
restored AS (
    INSERT INTO "EventLog" ({names}) OVERRIDING SYSTEM VALUE
    {rows}
    RETURNING {names}
),
held AS (
{held}
),
leaving AS MATERIALIZED (
    SELECT {proof_columns} FROM gone
),
{proof},
first_conflict AS MATERIALIZED (
    SELECT * FROM candidate WHERE obstacle IS NOT NULL ORDER BY "createdAt", id LIMIT {most_conflicts}
),
removal AS (
    INSERT INTO "ArchiveRemoval" (month, "archivedAt", id, "createdAt", digest, sequence)
    SELECT $13, "archivedAt", id, "createdAt", digest, $14 FROM proof
)
SELECT
    (SELECT count(*) FROM seen) AS seen,
    {is_end} AS is_end,
    (SELECT max(place)::text FROM seen) AS last_place,
    last."createdAt" AS last_created_at,
    last.id AS last_id,
    (SELECT count(*) FROM gone) AS removed,
    (SELECT count(*) FROM held) AS kept,
    -- Those that the host's triggers have left as they were.
    (SELECT count(*) FROM restored r JOIN gone g ON g.id = r.id WHERE {is_same}) AS restored,
    ARRAY(SELECT id FROM restored{digested}) AS restored_ids,
    ARRAY(SELECT md5(ROW({names})::text) FROM restored{digested}) AS restored_digests,
    (SELECT count(*) FROM wanted) - (SELECT count(*) FROM candidate) AS on_hold,
    (SELECT count(*) FROM candidate WHERE obstacle IS NOT NULL) AS conflicts,
    ARRAY(SELECT id FROM first_conflict ORDER BY "createdAt", id) AS conflict_ids,
    ARRAY(SELECT place::text FROM first_conflict ORDER BY "createdAt", id) AS conflict_places,
    ARRAY(SELECT obstacle FROM first_conflict ORDER BY "createdAt", id) AS conflict_obstacles,
    ARRAY(SELECT COALESCE(lacking, '') FROM first_conflict ORDER BY "createdAt", id) AS conflict_columns,
    ARRAY(SELECT unnest({lost_columns}) FROM gone) AS lost_columns
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM seen ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
