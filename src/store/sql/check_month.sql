-- What no single seal of a month's chain shows.
-- Parameters: month, limit (most ids named). Parts: partition (the month's rows).
-- One row: missing (sequences without seal), beyond (sequences after the head's), head_right (the head is the last seal),
-- unsealed_ids (rows after the last batch), unexplained_ids (rows that are said to have left without a seal that says so);
-- and how many of each, missing_count and so on.
-- \set month '''2026-01'''
-- \set limit '1000'
-- \set partition '"StreamArchive_2026_01"'
WITH head AS MATERIALIZED (
    SELECT m.seals, m.digest, m."archivedAt" FROM "ArchiveMonth" m WHERE m.month = :month
),
beyond AS MATERIALIZED (
    SELECT s.sequence FROM "ArchiveSeal" s LEFT JOIN head ON true
    WHERE s.month = :month AND (head.seals IS NULL OR s.sequence > head.seals OR s.sequence < 1)
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
        -- However many seals the head is made to claim.
        SELECT place::integer
        FROM head
        CROSS JOIN LATERAL generate_series(1, LEAST(
            head.seals, :limit + (SELECT count(*) FROM "ArchiveSeal" s WHERE s.month = :month)
        )) place
        WHERE NOT EXISTS (SELECT FROM "ArchiveSeal" s WHERE s.month = :month AND s.sequence = place)
        ORDER BY place LIMIT :limit
    ) AS missing,
    COALESCE((
        SELECT GREATEST(head.seals, 0) - (
            SELECT count(*) FROM "ArchiveSeal" s WHERE s.month = :month AND s.sequence BETWEEN 1 AND head.seals
        )
        FROM head
    ), 0) AS missing_count,
    ARRAY(SELECT sequence FROM beyond ORDER BY sequence LIMIT :limit) AS beyond,
    (SELECT count(*) FROM beyond) AS beyond_count,
    COALESCE((
        SELECT
            head.digest = COALESCE(
                (SELECT s.digest FROM "ArchiveSeal" s WHERE s.month = :month AND s.sequence = head.seals),
                CASE WHEN head.seals = 0 THEN sha256(convert_to(:month, 'UTF8')) END
            )
            AND head."archivedAt" IS NOT DISTINCT FROM (SELECT max(s."archivedAt") FROM "ArchiveSeal" s WHERE s.month = :month)
        FROM head
    ), NOT EXISTS (SELECT FROM "ArchiveSeal" s WHERE s.month = :month)) AS head_right,
    ARRAY(SELECT id FROM unsealed LIMIT :limit) AS unsealed_ids,
    (SELECT count(*) FROM unsealed) AS unsealed_count,
    ARRAY(SELECT id FROM unexplained LIMIT :limit) AS unexplained_ids,
    (SELECT count(*) FROM unexplained) AS unexplained_count
