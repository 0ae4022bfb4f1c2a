-- Recomputes an entry of the ledger from the rows that it seals and those that have left it since.
-- $1 month, $2 sequence, $3 most ids named. One row: is_right (the digest is that of the entry and its rows), leaves_right,
-- rows (looked at), mismatches (as JSON: id, entryHash, computedHash of rows whose hash is not theirs) and how many, excess_ids
-- (rows with values in columns that the entry does not cover; they are no mismatches) and how many. Twice as many mismatches
-- are named: those of altered rows do not count.
WITH entry AS MATERIALIZED (
    SELECT
        s.*,
        COALESCE(
            (SELECT p.digest FROM "ArchiveSeal" p WHERE p.month = $1 AND p.sequence = $2 - 1),
            CASE WHEN $2 = 1 THEN sha256(convert_to($1, 'UTF8')) END
        ) AS previous
    FROM "ArchiveSeal" s
    WHERE s.month = $1 AND s.sequence = $2
),
present AS MATERIALIZED (
{present}
),
sealed AS (
    SELECT id, "createdAt", ledger::bigint AS ledger, substr(proof, 1, 32) AS digest FROM present
    UNION ALL
{removed}
),
batch AS (
{digest_rows}
)
SELECT
    COALESCE(entry.digest = sha256(previous || archive_seal_header(
        entry.month, entry.sequence, kind, "runId", entry.rows, "firstCreatedAt", "firstId", "lastCreatedAt", "lastId",
        "archivedAfter", "archivedAt", "minLedger", "maxLedger", columns
    ) || digests || CASE WHEN kind = 'restored' THEN (
        {digest_removals}
    ) ELSE '' END), false) AS is_right,
    entry.leaves = batch.leaves AS leaves_right,
    batch.rows,
    (
        SELECT COALESCE(jsonb_agg(jsonb_build_array(
            id, convert_from(substr(proof, 97), 'UTF8'), convert_from(substr(proof, 33, 64), 'UTF8')
        )), '[]')
        FROM (SELECT * FROM present WHERE octet_length(proof) > 32 AND NOT has_excess LIMIT 2 * $3) mismatch
    ) AS mismatches,
    (SELECT count(*) FROM present WHERE octet_length(proof) > 32 AND NOT has_excess) AS mismatch_count,
    ARRAY(SELECT id FROM present WHERE has_excess LIMIT $3) AS excess_ids,
    (SELECT count(*) FROM present WHERE has_excess) AS excess_count
FROM entry CROSS JOIN batch
