-- Counts streams by what maintenance has done with them.
-- Parameters: month, since (only snapshots taken since then count, UTC; NULL for all). Part: distinct (DISTINCT ON where an id may be
-- there twice).
-- One row: streams, without_id (of which nothing is taken), without_snapshot, unremembered, is_filtered (whether row security is
-- in force on "Stream").
-- \set month '''2026-03'''
-- \set since 'NULL::timestamp'
-- \set distinct ''
SELECT
    count(*) AS streams,
    (SELECT count(*) FROM "Stream" WHERE id IS NULL) AS without_id,
    count(*) FILTER (WHERE t."streamId" IS NULL) AS without_snapshot,
    count(*) FILTER (WHERE s."streamId" IS NOT NULL AND k.id IS NULL) AS unremembered,
    row_security_active('"Stream"'::regclass) AS is_filtered
FROM (
    SELECT s.*
    -- Where the host has dropped the column, this is it.
    FROM (SELECT NULL::text AS "streamId") absent
    CROSS JOIN LATERAL (SELECT :distinct id, "streamId" FROM "Stream" WHERE id IS NOT NULL) s
) s
LEFT JOIN "StreamSnapshot" t
    ON t."streamId" = s.id::text AND t."snapshotMonth" = :month AND (:since IS NULL OR t."createdAt" >= :since)
LEFT JOIN "StreamIdentity" k
    ON k.id = s.id::text AND k."streamId" = s."streamId" AND k."isLast"
