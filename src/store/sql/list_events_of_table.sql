-- A stream's events in one table, in order of ("createdAt", id). By whatever collation the tables have: the order is by bytes.
-- Filled in: the table, when its rows were archived, a condition that leaves rows out, DESC and <, or ASC and >.
-- $1 any of its ids, $2 from (inclusive), $3 to (exclusive), $4 event type, $5 and $6 the last row of the page before; each
-- NULL for none. $7 most rows, $8 most bytes of metadata: the row that passes them is the last one. $9 a snapshot's id, or
-- NULL: events that it is known to have are left out.
-- Columns: id, names, createdAt, archivedAt, event (the whole row as JSON, with whatever columns the host added and
-- without those that it lacks), wire_forms (of the columns that the service does not know, those whose values leave otherwise
-- than JSON has them; NULL for none).
SELECT
    a.id,
    (SELECT names FROM ids) AS names,
    a."createdAt"::timestamp AS "createdAt",
    {archived_at} AS "archivedAt",
    -- As text, not jsonb: that cannot hold everything that a column of type json can.
    row_to_json(a.*)::text AS event,
    (
        WITH RECURSIVE column_type (name, oid) AS (
            SELECT c.attname, c.atttypid
            FROM pg_attribute c
            WHERE c.attrelid = '{table}'::regclass AND c.attnum > 0 AND NOT c.attisdropped AND c.attname NOT IN (
                'id', 'eventType', 'streamId', 'txHash', 'eventIndex', 'ledger', 'ledgerClosedAt', 'sender', 'receiver',
                'amount', 'metadata', 'parent_hash', 'entry_hash', 'createdAt', 'archivedAt'
            )
            UNION ALL
            -- A domain is written as the type that it is made of.
            SELECT c.name, d.typbasetype FROM column_type c JOIN pg_type d ON d.oid = c.oid AND d.typtype = 'd'
        )
        SELECT json_object_agg(c.name, CASE
            WHEN c.oid IN ('bigint'::regtype, 'numeric'::regtype) THEN 'number'
            WHEN c.oid = 'timestamp'::regtype THEN 'timestamp'
            ELSE 'timestamptz'
        END)::text
        FROM column_type c
        WHERE c.oid IN ('bigint'::regtype, 'numeric'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
    ) AS wire_forms
FROM (
    SELECT a.*
    -- Where the host has dropped the column, this is it.
    FROM (SELECT NULL::text AS metadata) absent
    CROSS JOIN LATERAL (
        -- Its length is known without reading it.
        SELECT
            a.*,
            sum(octet_length(metadata::text)) OVER (
                ORDER BY a."createdAt" {direction}, a.id COLLATE "C" {direction}
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS "snapshot-service: bytes before"
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
                  AND ($4 IS NULL OR a."eventType"::text = $4)
                  -- Times that cannot be, and that no answer could say.
                  AND a."createdAt" >= '0001-01-01' AND a."createdAt" < '10000-01-01'
                  AND ($9 IS NULL OR a.id::text <> ALL (
                      COALESCE((SELECT t."eventIds" FROM "StreamSnapshot" t WHERE t.id = $9), '{}')
                  ))
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
    WHERE a."snapshot-service: bytes before" IS NULL OR a."snapshot-service: bytes before" < $8
) a
ORDER BY a."createdAt" {direction}, a.id COLLATE "C" {direction}
