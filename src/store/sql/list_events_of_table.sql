-- A stream's events in one table, in order of ("createdAt", id). By whatever collation the tables have: the order is by bytes.
-- Filled in: the table, when its rows were archived, a condition that leaves rows out, DESC and <, or ASC and >.
-- $1 any of its ids, $2 from (inclusive), $3 to (exclusive), $4 event type, $5 and $6 the last row of the page before; each
-- NULL for none. $7 most rows, $8 most bytes of metadata: the row that passes them is the last one.
-- a.* and not a list: `more` holds whatever columns the host added. Its three younger columns may be missing.
SELECT
    a.id,
    (SELECT names FROM ids) AS names,
    a."eventType",
    a."streamId",
    a."txHash",
    (to_jsonb(a) ->> 'eventIndex')::integer AS "eventIndex",
    a.ledger::bigint AS ledger,
    a."ledgerClosedAt",
    a.sender,
    a.receiver,
    a.amount::text AS amount,
    a.metadata,
    to_jsonb(a) ->> 'parent_hash' AS parent_hash,
    to_jsonb(a) ->> 'entry_hash' AS entry_hash,
    a."createdAt",
    {archived_at} AS "archivedAt",
    snapshot_service_wire_json(
        to_jsonb(a) - ARRAY[
            'id', 'eventType', 'streamId', 'txHash', 'eventIndex', 'ledger', 'ledgerClosedAt', 'sender', 'receiver',
            'amount', 'metadata', 'parent_hash', 'entry_hash', 'createdAt', 'archivedAt', 'bytes_before'
        ],
        '{table}'::regclass
    )::text AS more
FROM (
    SELECT a.*
    FROM (
        -- Its length is known without reading it.
        SELECT
            a.*,
            sum(octet_length(a.metadata)) OVER (
                ORDER BY a."createdAt" {direction}, a.id COLLATE "C" {direction}
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS bytes_before
        FROM (
            SELECT a.*
            FROM ids
            CROSS JOIN LATERAL unnest(ids.contract_ids, ids.contract_ids_from, ids.contract_ids_until) n (id, since, until)
            -- A scan of the index for each contract id, nearly always one, which stops at the page's end.
            CROSS JOIN LATERAL (
                SELECT a.*
                FROM {table} a
                WHERE a."streamId" = n.id
                  -- Written so that the planner does not take it for a short stretch, all rows of which could be sorted.
                  AND COALESCE(a."createdAt" >= n.since, true)
                  AND COALESCE(a."createdAt" < n.until, true)
                  AND ($2 IS NULL OR a."createdAt" >= $2)
                  AND ($3 IS NULL OR a."createdAt" < $3)
                  AND ($4 IS NULL OR a."eventType" = $4)
                  {left_out}
                  -- The first condition says nothing new, but lets the planner leave out the months that are read.
                  AND ($5 IS NULL OR a."createdAt" {after}= $5)
                  AND ($5 IS NULL OR (a."createdAt", a.id COLLATE "C") {after} ($5, $6))
                ORDER BY a."createdAt" {direction}, a.id COLLATE "C" {direction}
                LIMIT $7
            ) a
            ORDER BY a."createdAt" {direction}, a.id COLLATE "C" {direction}
            LIMIT $7
        ) a
    ) a
    WHERE a.bytes_before IS NULL OR a.bytes_before < $8
) a
ORDER BY a."createdAt" {direction}, a.id COLLATE "C" {direction}
