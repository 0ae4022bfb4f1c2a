-- A stream's events in one table, in order of ("createdAt", id). By whatever collation the tables have: the order is by bytes.
-- Parameters: stream (any of its ids); from (inclusive), to (exclusive), event_type, after_created_at and after_id (the last row
-- of the page before), each NULL for none; limit (most rows), max_bytes (most bytes of metadata: the row that passes them is the last
-- one), snapshot (the id of one, or NULL: events that it is known to have are left out).
-- Parts: stream_ids (what the stream is called, unless the statement around has it), table, class (the table by its oid),
-- archived_at (when its rows were archived), left_out (a condition that leaves rows out), direction and after (DESC and <, or ASC
-- and >).
-- Columns: id, names, createdAt, archivedAt, event (the whole row as JSON, with whatever columns the host added and
-- without those that it lacks), wire_forms (of the columns that the service does not know, those whose values leave otherwise
-- than JSON has them; NULL for none).
-- \set stream '''42'''
-- \set from 'NULL::timestamp'
-- \set to 'NULL::timestamp'
-- \set event_type 'NULL::text'
-- \set after_created_at 'NULL::timestamp'
-- \set after_id 'NULL::text'
-- \set limit '50'
-- \set max_bytes '4000000'
-- \set snapshot 'NULL::text'
-- \set stream_ids 'WITH ids AS MATERIALIZED (SELECT * FROM stream_identity_look_up(:stream))'
-- \set table '"StreamArchive"'
-- \set class '''"StreamArchive"''::regclass'
-- \set archived_at 'a."archivedAt"'
-- \set left_out ''
-- \set direction 'DESC'
-- \set after '<'
:stream_ids
SELECT
    a.id::text AS id,
    (SELECT names FROM ids) AS names,
    a."createdAt"::timestamp AS "createdAt",
    :archived_at AS "archivedAt",
    -- As text, not jsonb: that cannot hold everything that a column of type json can.
    row_to_json(a.*)::text AS event,
    (
        WITH RECURSIVE column_type (name, oid) AS (
            SELECT c.attname, c.atttypid
            FROM pg_attribute c
            WHERE c.attrelid = :class AND c.attnum > 0 AND NOT c.attisdropped AND c.attname NOT IN (
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
                ORDER BY a."createdAt" :direction, a.id::text COLLATE "C" :direction
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS "snapshot-service: bytes before"
        FROM (
            SELECT a.*
            FROM ids
            CROSS JOIN LATERAL unnest(ids.contract_ids, ids.contract_ids_from, ids.contract_ids_until) n (id, since, until)
            -- A scan of the index for each contract id, nearly always one, which stops at the page's end.
            CROSS JOIN LATERAL (
                SELECT a.*
                FROM :table a
                WHERE a."streamId" = n.id
                  -- Written so that the planner does not take it for a short stretch, all rows of which could be sorted.
                  AND COALESCE(a."createdAt" >= n.since, true)
                  AND COALESCE(a."createdAt" < n.until, true)
                  AND (:from IS NULL OR a."createdAt" >= :from)
                  AND (:to IS NULL OR a."createdAt" < :to)
                  AND (:event_type IS NULL OR a."eventType"::text = :event_type)
                  -- Times that cannot be, and that no answer could say.
                  AND a."createdAt" >= '0001-01-01' AND a."createdAt" < '10000-01-01'
                  AND (:snapshot IS NULL OR a.id::text <> ALL (
                      COALESCE((SELECT t."eventIds" FROM "StreamSnapshot" t WHERE t.id = :snapshot), '{}')
                  ))
                  :left_out
                  -- The first condition says nothing new, but lets the planner leave out the months that are read.
                  AND (:after_created_at IS NULL OR a."createdAt" :after= :after_created_at)
                  AND (:after_created_at IS NULL OR (a."createdAt", a.id::text COLLATE "C") :after (:after_created_at, :after_id))
                ORDER BY a."createdAt" :direction, a.id::text COLLATE "C" :direction
                LIMIT :limit
            ) a
            ORDER BY a."createdAt" :direction, a.id::text COLLATE "C" :direction
            LIMIT :limit
        ) a
    ) a
    WHERE a."snapshot-service: bytes before" IS NULL OR a."snapshot-service: bytes before" < :max_bytes
) a
ORDER BY a."createdAt" :direction, a.id::text COLLATE "C" :direction
