-- Rows of "Stream" that have to do with a stream and are not recorded as they are.
-- $1 any of its ids. Column: id.
SELECT s.id
FROM (
    SELECT id::text AS id, "streamId"::text AS contract, "createdAt"::timestamp AS created
    FROM "Stream" WHERE id = ANY (ARRAY(SELECT unnest(ids) FROM ids))
    UNION
    SELECT id::text, "streamId"::text, "createdAt"::timestamp
    FROM "Stream" WHERE "streamId" = ANY (ARRAY(SELECT unnest(contract_ids) FROM ids))
) s
WHERE s.contract IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM "StreamIdentity" k
      WHERE k.id = s.id COLLATE "default" AND k."isLast" AND k."streamId" = s.contract
        AND k."rowCreatedAt" IS NOT DISTINCT FROM s.created
  )
