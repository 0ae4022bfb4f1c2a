-- Recomputes a seal of the chain from the rows that it seals and those that have left it since.
-- Parameters: month, sequence, limit (most ids named). Parts: present and removed (as diff_seal.sql has them), digest_rows (of the
-- rows sealed), digest_removals (of the rows that left for this seal).
-- One row: is_right (the digest is that of the seal and its rows), leaves_right, rows (looked at), mismatches (as JSON: id,
-- entryHash, computedHash of rows whose hash is not theirs) and how many, excess_ids (rows with values in columns that the seal
-- does not cover; they are no mismatches) and how many. Twice as many mismatches are named: those of altered rows do not count.
-- \set month '''2026-01'''
-- \set sequence '1'
-- \set limit '1000'
-- \set present `cat verify_seal_present.sql`
-- \set proof_columns 'id, "createdAt", ledger, sha256(convert_to(id, ''UTF8'')) AS proof'
-- \set has_excess 'false'
-- \set partition '"StreamArchive_2026_01"'
-- \set removed 'SELECT id, "createdAt", NULL::bigint AS ledger, digest FROM "ArchiveRemoval" WHERE month = :month AND sequence = :sequence'
-- \set digest_rows `cat digest_rows.sql`
-- \set rows 'sealed'
-- \set digest_removals 'SELECT sha256(string_agg(digest, '''' ORDER BY id)) FROM "ArchiveRemoval" WHERE month = :month AND sequence = :sequence'
WITH seal AS MATERIALIZED (
    SELECT
        s.*,
        COALESCE(
            (SELECT p.digest FROM "ArchiveSeal" p WHERE p.month = :month AND p.sequence = :sequence - 1),
            CASE WHEN :sequence = 1 THEN sha256(convert_to(:month, 'UTF8')) END
        ) AS previous
    FROM "ArchiveSeal" s
    WHERE s.month = :month AND s.sequence = :sequence
),
present AS MATERIALIZED (
:present
),
sealed AS (
    SELECT id, "createdAt", ledger::bigint AS ledger, substr(proof, 1, 32) AS digest FROM present
    UNION ALL
:removed
),
batch AS (
:digest_rows
)
SELECT
    COALESCE(seal.digest = sha256(previous || archive_seal_header(
        seal.month, seal.sequence, kind, "runId", seal.rows, "firstCreatedAt", "firstId", "lastCreatedAt", "lastId",
        "archivedAfter", "archivedAt", "minLedger", "maxLedger", columns
    ) || digests || CASE WHEN kind = 'restored' THEN (
        :digest_removals
    ) ELSE '' END), false) AS is_right,
    seal.leaves = batch.leaves AS leaves_right,
    batch.rows,
    (
        SELECT COALESCE(jsonb_agg(jsonb_build_array(
            id, convert_from(substr(proof, 97), 'UTF8'), convert_from(substr(proof, 33, 64), 'UTF8')
        )), '[]')
        FROM (SELECT * FROM present WHERE octet_length(proof) > 32 AND NOT has_excess LIMIT 2 * :limit) mismatch
    ) AS mismatches,
    (SELECT count(*) FROM present WHERE octet_length(proof) > 32 AND NOT has_excess) AS mismatch_count,
    ARRAY(SELECT id FROM present WHERE has_excess LIMIT :limit) AS excess_ids,
    (SELECT count(*) FROM present WHERE has_excess) AS excess_count
FROM seal CROSS JOIN batch
