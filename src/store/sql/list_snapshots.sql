-- A stream's snapshots, newest month first. Of a month in which two of its Stream.ids have one, that which was taken first.
-- Parameters: stream (any of its ids), month (this one only, or NULL), before (months before this one only, or NULL), limit (most
-- rows).
-- Columns: those of "StreamSnapshot" as text, names (all ids of the stream), has_event_ids.
-- \set stream '''42'''
-- \set month 'NULL::text'
-- \set before 'NULL::text'
-- \set limit '50'
WITH ids AS MATERIALIZED (SELECT * FROM stream_identity_look_up(:stream))
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
          AND (:month IS NULL OR s."snapshotMonth" = :month)
          AND (:before IS NULL OR s."snapshotMonth" < :before)
        ORDER BY s."snapshotMonth" DESC
        LIMIT :limit
    ) s
    ORDER BY s."snapshotMonth" DESC, s."createdAt", s.id
    LIMIT :limit
) s
ORDER BY s."snapshotMonth" DESC
