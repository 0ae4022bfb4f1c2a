-- Which rows make a seal's digest wrong: leaves of the seal that no row has, and rows whose leaf the seal has not.
-- Parameters: month, sequence, leaves (the seal's), limit (most of each that are named). Parts: present (rows that it seals),
-- removed (rows that have left it, or that it says have left).
-- One row: sealed_places (in the seal, from 1), present_places (where rows are among the rows) and present_ids, all in order;
-- differences, how many there are: a row in the place of a leaf is one; mismatch_count, rows whose hash is not theirs among those
-- that are as they were.
-- \set month '''2026-01'''
-- \set sequence '1'
-- \set leaves 'decode(''0123456789abcdef'', ''hex'')'
-- \set limit '1000'
-- \set present `cat verify_seal_present.sql`
-- \set proof_columns 'id, "createdAt", ledger, sha256(convert_to(id, ''UTF8'')) AS proof'
-- \set has_excess 'false'
-- \set partition '"StreamArchive_2026_01"'
-- \set removed 'SELECT id, "createdAt", NULL::bigint AS ledger, digest FROM "ArchiveRemoval" WHERE month = :month AND sequence = :sequence'
WITH seal AS MATERIALIZED (
    SELECT s.* FROM "ArchiveSeal" s WHERE s.month = :month AND s.sequence = :sequence
),
present AS MATERIALIZED (
:present
),
sealed AS (
    SELECT
        id, "createdAt", ledger::bigint AS ledger, substr(proof, 1, 32) AS digest,
        octet_length(proof) > 32 AND NOT has_excess AS is_mismatch
    FROM present
    UNION ALL
    SELECT removed.*, false FROM (
:removed
    ) removed
),
found AS MATERIALIZED (
    SELECT
        row_number() OVER (ORDER BY "createdAt", id::text COLLATE "C") AS place, id, substr(digest, 1, 8) AS leaf, is_mismatch
    FROM sealed
),
leaf AS MATERIALIZED (
    SELECT place, substr(:leaves, place * 8 - 7, 8) AS leaf FROM generate_series(1, octet_length(:leaves) / 8) place
),
row_difference AS MATERIALIZED (
    -- How many rows before it are as they were.
    SELECT place, id, place - row_number() OVER (ORDER BY place) AS gap
    FROM found
    WHERE NOT EXISTS (SELECT FROM leaf WHERE leaf.leaf = found.leaf)
),
leaf_difference AS MATERIALIZED (
    SELECT place, place - row_number() OVER (ORDER BY place) AS gap
    FROM leaf
    WHERE NOT EXISTS (SELECT FROM found WHERE found.leaf = leaf.leaf)
)
SELECT
    ARRAY(SELECT place::bigint FROM leaf_difference ORDER BY place LIMIT :limit) AS sealed_places,
    ARRAY(SELECT place FROM row_difference ORDER BY place LIMIT :limit) AS present_places,
    ARRAY(SELECT id FROM row_difference ORDER BY place LIMIT :limit) AS present_ids,
    (
        -- Between two rows that are as they were, each row stands for a leaf, as far as there are as many.
        SELECT COALESCE(sum(GREATEST(rows, leaves)), 0)::bigint
        FROM (SELECT gap, count(*) AS rows FROM row_difference GROUP BY gap) r
        FULL JOIN (SELECT gap, count(*) AS leaves FROM leaf_difference GROUP BY gap) l USING (gap)
    ) AS differences,
    (
        SELECT count(*) FROM found
        WHERE is_mismatch AND NOT EXISTS (SELECT FROM row_difference d WHERE d.place = found.place)
    ) AS mismatch_count
