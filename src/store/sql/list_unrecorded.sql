-- Streams whose ids are not recorded as they are. Column: id.
SELECT s.id::text AS id
FROM "Stream" s
LEFT JOIN "StreamIdentity" k
    ON k.id = s.id AND k."streamId" = s."streamId" AND k."isLast"
    AND k."rowCreatedAt" IS NOT DISTINCT FROM s."createdAt"::timestamp
WHERE s."streamId" IS NOT NULL AND k.id IS NULL
