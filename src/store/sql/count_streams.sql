-- Counts streams by what maintenance has done with them.
-- $1 month, $2 count only snapshots taken since then (UTC), or NULL. One row: streams, without_snapshot, unremembered.
SELECT
    count(*) AS streams,
    count(*) FILTER (WHERE t."streamId" IS NULL) AS without_snapshot,
    count(*) FILTER (WHERE s."streamId" IS NOT NULL AND k.id IS NULL) AS unremembered
FROM "Stream" s
LEFT JOIN "StreamSnapshot" t
    ON t."streamId" = s.id AND t."snapshotMonth" = $1 AND ($2 IS NULL OR t."createdAt" >= $2)
LEFT JOIN "StreamIdentity" k
    ON k.id = s.id AND k."streamId" = s."streamId" AND k."isLast"
    AND k."rowCreatedAt" IS NOT DISTINCT FROM s."createdAt"::timestamp
