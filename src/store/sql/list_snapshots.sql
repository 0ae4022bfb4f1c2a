-- A stream's snapshots, newest month first.
-- $1 either id, $2 this month only or NULL, $3 months before this one only or NULL, $4 most rows.
SELECT
    s.id,
    s."streamId",
    (SELECT contract_id FROM ids) AS contract_id,
    s.sender,
    s.receiver,
    s."tokenAddress",
    s."amountPerSecond"::text AS "amountPerSecond",
    s."totalAmount"::text AS "totalAmount",
    s.status,
    s.state::text AS state,
    s."snapshotMonth",
    s."createdAt",
    s."eventIds" IS NOT NULL AS has_event_ids
FROM "StreamSnapshot" s
WHERE s."streamId" = (SELECT id FROM ids)
  AND ($2 IS NULL OR s."snapshotMonth" = $2)
  AND ($3 IS NULL OR s."snapshotMonth" < $3)
ORDER BY s."snapshotMonth" DESC
LIMIT $4
