-- Moves the next due rows of one month from "EventLog" to its partition of the archive, in order of ("createdAt", id), and
-- seals them as the next entry of the month's ledger.
-- What is deleted is what is inserted: the rows that DELETE returns, each in its newest version. Rows that another
-- session has locked are left out; so are rows with a twin, an archived row of the same id, and duplicates, rows that are
-- archived under another id, which are named instead; and rows that are held.
-- The chain's head is looked up here and not once per run: a row that becomes the head meanwhile is not visible to this
-- statement, so it cannot be moved either.
-- $1 to $9 as due_rows.sql has them, $10 "archivedAt" of the rows, $11 ids of rows that are referenced; $12 and so on: the ledger's
-- entry.
-- One row: seen, leaving (rows that were to be deleted), deleted, moved, moved_ids (where triggers fire), moved_digests (where they may alter what is archived), twin_ids and twin_times, duplicate_ids and
-- duplicate_times, hash_mismatches, mismatches (some of them: id, entryHash, computedHash), last_created_at and last_id (NULL
-- when no row was seen).
WITH head AS MATERIALIZED (
{chain_head}
),
due AS MATERIALIZED (
    SELECT {address}, e.id, e."createdAt"{key}
{due_rows}),
twin AS MATERIALIZED (
{twins}
),
duplicate AS MATERIALIZED (
{duplicates}
),
leaving AS MATERIALIZED (
    SELECT * FROM due WHERE id NOT IN (SELECT id FROM twin) AND id NOT IN (SELECT id FROM duplicate)
),
moved AS (
    DELETE FROM "EventLog" e
    {using}
    RETURNING {returned}
),
archived AS (
    INSERT INTO {partition} ({columns}, "archivedAt")
    SELECT {values}, $10 FROM moved
    RETURNING {proof_columns}
),
{proof}
SELECT
    (SELECT count(*) FROM due) AS seen,
    (SELECT count(*) FROM leaving) AS leaving,
    (SELECT count(*) FROM moved) AS deleted,
    (SELECT count(*) FROM archived) AS moved,
    {moved_ids} AS moved_ids,
    {moved_digests} AS moved_digests,
    ARRAY(SELECT id FROM twin) AS twin_ids,
    ARRAY(SELECT "createdAt" FROM twin) AS twin_times,
    ARRAY(SELECT id FROM duplicate) AS duplicate_ids,
    ARRAY(SELECT "createdAt" FROM duplicate) AS duplicate_times,
    (SELECT count(*) FROM mismatch) AS hash_mismatches,
    {mismatches} AS mismatches,
    last."createdAt" AS last_created_at,
    last.id AS last_id
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM due ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
