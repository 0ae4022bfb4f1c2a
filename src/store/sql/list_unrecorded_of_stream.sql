-- Rows of "Stream" that have to do with a stream and are not recorded as they are.
-- Parameters: stream (any of its ids).
-- Column: id.
-- \set stream '''42'''
SELECT s.id
FROM stream_identity_look_up(:stream) ids
CROSS JOIN LATERAL stream_identity_rows(ids.ids, ids.contract_ids) s
WHERE s.contract IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM "StreamIdentity" k
      WHERE k.id = s.id AND k."isLast" AND k."streamId" = s.contract
        AND k."rowCreatedAt" IS NOT DISTINCT FROM s.created
  )
