-- Moves the next archived rows of one month that match back to "EventLog", and records in the month's ledger that they left:
-- as its next entry, and each with the digest that it was sealed with, so that its seal still verifies.
-- What is inserted is what is deleted: the rows that DELETE returns. Rows of streams on hold stay; so do rows in whose way
-- "EventLog" has a row, of the same id or of the same event.
-- $1 to $5 what matches: contract ids, from, to, run, the month; each of the first four NULL for all. Where the batch before ended:
-- $6 a place, or $7 and $8 a row. $9 most rows looked at, $10 streams that are held, $11 the run; $12 and so on: the ledger's
-- entry.
-- One row: seen, is_end (whether there is nothing after the stretch that was looked at), last_place, last_created_at and last_id
-- (NULL when no row was seen), removed, restored, on_hold, conflict_ids, lost_columns (that "EventLog" has not and one of the
-- rows has a value in).
WITH seen AS MATERIALIZED (
    SELECT a.ctid AS place, a.id, a."createdAt", a."streamId", a."archivedAt"{key}
    FROM {partition} a
    WHERE {after}
    LIMIT $9
),
wanted AS MATERIALIZED (
    SELECT a.*, {copy} AS copy FROM seen a WHERE {matches}
),
candidate AS MATERIALIZED (
    SELECT
        w.place, w.id, w."createdAt",
        w.copy > 1 OR same_id.yes IS NOT NULL OR same_event.yes IS NOT NULL AS is_blocked
    FROM wanted w
    -- LIMIT keeps these look-ups per row: a join could be planned as a scan of the whole of "EventLog".
    LEFT JOIN LATERAL (SELECT true AS yes FROM "EventLog" e WHERE e.id = w.id LIMIT 1) same_id ON true
    LEFT JOIN LATERAL ({same_event}) same_event ON true
    WHERE w."streamId" <> ALL ($10)
),
gone AS (
    DELETE FROM {partition} a
    -- By place and as an array: planned as nothing but a look-up of these rows.
    WHERE a.ctid = ANY (ARRAY(SELECT place FROM candidate WHERE NOT is_blocked))
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
removal AS (
    INSERT INTO "ArchiveRemoval" (month, "archivedAt", id, "createdAt", digest, sequence)
    SELECT $12, "archivedAt", id, "createdAt", digest, $13 FROM proof
)
SELECT
    (SELECT count(*) FROM seen) AS seen,
    {is_end} AS is_end,
    (SELECT max(place)::text FROM seen) AS last_place,
    last."createdAt" AS last_created_at,
    last.id AS last_id,
    (SELECT count(*) FROM gone) AS removed,
    -- Those that the host's triggers have left as they were.
    (SELECT count(*) FROM restored r JOIN gone g ON g.id = r.id WHERE {is_same}) AS restored,
    (SELECT count(*) FROM wanted) - (SELECT count(*) FROM candidate) AS on_hold,
    ARRAY(SELECT id FROM candidate WHERE is_blocked ORDER BY "createdAt", id) AS conflict_ids,
    ARRAY(SELECT unnest({lost_columns}) FROM gone) AS lost_columns
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM seen ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
