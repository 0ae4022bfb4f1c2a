-- What no single seal of a month's chain shows.
-- Parameters: month, limit (most ids named). Parts: partition (the month's rows).
-- One row: missing (sequences without seal), beyond (sequences after the chain's end), end_right (the end is the last seal),
-- unsealed_ids (rows after the last batch), unexplained_ids (rows that are said to have left without a seal that says so);
-- and how many of each, missing_count and so on.
-- \set month '''2026-01'''
-- \set limit '1000'
-- \set partition '"StreamArchive_2026_01"'
WITH chain_end AS MATERIALIZED (
    SELECT m.seals, m.digest, m."archivedAt" FROM "ArchiveMonth" m WHERE m.month = :month
),
beyond AS MATERIALIZED (
    SELECT s.sequence FROM "ArchiveSeal" s LEFT JOIN chain_end ON true
    WHERE s.month = :month AND (chain_end.seals IS NULL OR s.sequence > chain_end.seals OR s.sequence < 1)
),
unsealed AS MATERIALIZED (
    SELECT id::text AS id FROM :partition a
    WHERE a."archivedAt" > COALESCE((SELECT max(s."archivedAt") FROM "ArchiveSeal" s WHERE s.month = :month), '-infinity')
),
unexplained AS MATERIALIZED (
    SELECT r.id FROM "ArchiveRemoval" r
    LEFT JOIN "ArchiveSeal" s ON s.month = r.month AND s.sequence = r.sequence
    WHERE r.month = :month
      AND s.kind IS DISTINCT FROM 'restored'
)
SELECT
    ARRAY(
        -- However many seals the end is made to claim.
        SELECT place::integer
        FROM chain_end
        CROSS JOIN LATERAL generate_series(1, LEAST(
            chain_end.seals, :limit + (SELECT count(*) FROM "ArchiveSeal" s WHERE s.month = :month)
        )) place
        WHERE NOT EXISTS (SELECT FROM "ArchiveSeal" s WHERE s.month = :month AND s.sequence = place)
        ORDER BY place LIMIT :limit
    ) AS missing,
    COALESCE((
        SELECT GREATEST(chain_end.seals, 0) - (
            SELECT count(*) FROM "ArchiveSeal" s WHERE s.month = :month AND s.sequence BETWEEN 1 AND chain_end.seals
        )
        FROM chain_end
    ), 0) AS missing_count,
    ARRAY(SELECT sequence FROM beyond ORDER BY sequence LIMIT :limit) AS beyond,
    (SELECT count(*) FROM beyond) AS beyond_count,
    COALESCE((
        SELECT
            chain_end.digest = COALESCE(
                (SELECT s.digest FROM "ArchiveSeal" s WHERE s.month = :month AND s.sequence = chain_end.seals),
                CASE WHEN chain_end.seals = 0 THEN sha256(convert_to(:month, 'UTF8')) END
            )
            AND chain_end."archivedAt" IS NOT DISTINCT FROM (SELECT max(s."archivedAt") FROM "ArchiveSeal" s WHERE s.month = :month)
        FROM chain_end
    ), NOT EXISTS (SELECT FROM "ArchiveSeal" s WHERE s.month = :month)) AS end_right,
    ARRAY(SELECT id FROM unsealed LIMIT :limit) AS unsealed_ids,
    (SELECT count(*) FROM unsealed) AS unsealed_count,
    ARRAY(SELECT id FROM unexplained LIMIT :limit) AS unexplained_ids,
    (SELECT count(*) FROM unexplained) AS unexplained_count
