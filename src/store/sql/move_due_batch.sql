-- Moves the next due rows of one month from "EventLog" to its partition of the archive, in order of ("createdAt", id), and
-- seals them as the next entry of the month's ledger.
-- What is deleted is what is inserted: the rows that DELETE returns, each in its newest version. Rows that another
-- session has locked are left out; so are rows with a twin, an archived row of the same id, and duplicates, rows that are
-- archived under another id, which are named instead; and rows that are held.
-- The chain's head is looked up here and not once per run: a row that becomes the head meanwhile is not visible to this
-- statement, so it cannot be moved either.
-- $1 cutoff, $2 whether "EventLog" has hashes, $3 and $4 the month's first instant and its end or the cutoff,
-- $5 and $6 the last row of the batch before, $7 most rows, $8 "archivedAt" of the rows, $9 streams that are held; $10 and so
-- on: the ledger's entry.
-- One row: seen, moved, twin_ids, duplicate_ids, in_use (rows of the same stretch that were left out because somebody else
-- has locked or just changed them), on_hold and restored (rows of the same stretch that are held), hash_mismatches,
-- last_created_at and last_id (NULL when no row was seen).
WITH head AS MATERIALIZED (
{chain_head}
),
due AS MATERIALIZED (
    SELECT e.ctid AS place, e.id, e."createdAt"{key}
    FROM "EventLog" e
    WHERE e."createdAt" >= $3 AND e."createdAt" < $4
      -- The first condition says nothing new, but starts the scan of the index where the batch before ended.
      AND e."createdAt" >= $5
      AND (e."createdAt", e.id) > ($5, $6)
      AND e.id NOT IN (SELECT id FROM head)
      AND e."streamId" <> ALL ($9)
      AND {is_free}
    ORDER BY e."createdAt", e.id
    LIMIT $7
    FOR UPDATE OF e SKIP LOCKED
),
twin AS MATERIALIZED (
{twins}
),
duplicate AS MATERIALIZED (
{duplicates}
),
moved AS (
    DELETE FROM "EventLog" e
    -- By place and as an array: planned as nothing but a look-up of these rows, whatever the statistics say.
    WHERE e.ctid = ANY (ARRAY(
        SELECT place FROM due
        WHERE id NOT IN (SELECT id FROM twin) AND id NOT IN (SELECT id FROM duplicate)
    ))
    RETURNING {returned}
),
archived AS (
    INSERT INTO {partition} ({columns}, "archivedAt")
    SELECT {columns}, $8 FROM moved
    RETURNING {proof_columns}
),
{proof}
SELECT
    counted.seen,
    counted.moved,
    twins.ids AS twin_ids,
    duplicates.ids AS duplicate_ids,
    GREATEST(0, stretch.rows - counted.moved - cardinality(twins.ids) - cardinality(duplicates.ids)) AS in_use,
    stretch.on_hold,
    stretch.restored,
    (SELECT count(*) FROM mismatch) AS hash_mismatches,
    last."createdAt" AS last_created_at,
    last.id AS last_id
FROM (SELECT (SELECT count(*) FROM due) AS seen, (SELECT count(*) FROM archived) AS moved) counted
CROSS JOIN (SELECT ARRAY(SELECT id FROM twin) AS ids) twins
CROSS JOIN (SELECT ARRAY(SELECT id FROM duplicate) AS ids) duplicates
LEFT JOIN (SELECT "createdAt", id FROM due ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE e."streamId" <> ALL ($9) AND {is_free}) AS rows,
        count(*) FILTER (WHERE e."streamId" = ANY ($9)) AS on_hold,
        count(*) FILTER (WHERE e."streamId" <> ALL ($9) AND NOT ({is_free})) AS restored
    FROM "EventLog" e
    WHERE e."createdAt" >= $3 AND e."createdAt" < $4
      AND e."createdAt" >= $5
      AND (e."createdAt", e.id) > ($5, $6)
      AND e.id NOT IN (SELECT id FROM head)
      -- A full batch ends with its last row; any other goes to the end of the month. The first condition says
      -- nothing new, but bounds the scan of the index.
      AND e."createdAt" <= CASE WHEN counted.seen < $7 THEN $4 ELSE last."createdAt" END
      AND (counted.seen < $7 OR (e."createdAt", e.id) <= (last."createdAt", last.id))
) stretch
