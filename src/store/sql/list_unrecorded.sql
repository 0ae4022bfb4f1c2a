-- Streams whose ids are not recorded as they are. Columns that the host has dropped are NULL, as in stream_identity_rows.
-- Column: id.
SELECT s.id
FROM (SELECT array_agg(id::text) AS ids FROM "Stream" WHERE id IS NOT NULL) every
CROSS JOIN LATERAL stream_identity_rows(every.ids, '{}') s
LEFT JOIN "StreamIdentity" k
    ON k.id = s.id AND k."streamId" = s.contract AND k."isLast"
    AND k."rowCreatedAt" IS NOT DISTINCT FROM s.created
WHERE s.contract IS NOT NULL AND k.id IS NULL
