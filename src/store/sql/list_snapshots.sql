-- A stream's snapshots, newest month first. Of a month in which two of its Stream.ids have one, that which was taken first.
-- $1 any of its ids, $2 this month only or NULL, $3 months before this one only or NULL, $4 most rows.
SELECT
    s.id,
    s."streamId",
    (SELECT names FROM ids) AS names,
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
FROM (
    SELECT DISTINCT ON (s."snapshotMonth") s.*
    FROM ids
    CROSS JOIN LATERAL unnest(ids.ids, ids.ids_from, ids.ids_until) n (id, since, until)
    CROSS JOIN LATERAL (
        SELECT s.*
        FROM "StreamSnapshot" s
        WHERE s."streamId" = n.id
          AND s."createdAt" >= '0001-01-01' AND s."createdAt" < '10000-01-01'
          AND (n.since IS NULL OR s."createdAt" >= n.since)
          AND (n.until IS NULL OR s."createdAt" < n.until)
          AND ($2 IS NULL OR s."snapshotMonth" = $2)
          AND ($3 IS NULL OR s."snapshotMonth" < $3)
        ORDER BY s."snapshotMonth" DESC
        LIMIT $4
    ) s
    ORDER BY s."snapshotMonth" DESC, s."createdAt", s.id
    LIMIT $4
) s
ORDER BY s."snapshotMonth" DESC
