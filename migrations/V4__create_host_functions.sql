-- Functions that read what is the host's, whatever types it has: rows of "Stream", and all that callers are shown of a stream.
-- They are called in transactions of the service, whose time zone is UTC and whose search path finds the host's tables.

-- The rows of "Stream" that have one of these ids, of the one kind or the other.
-- Where the host has dropped a column, absent has NULL for it. Parameters are qualified: the host may have columns of their names.
CREATE OR REPLACE FUNCTION stream_identity_rows(row_ids text[], contracts text[])
RETURNS TABLE (id text, contract text, created timestamp)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
#variable_conflict use_column
DECLARE
    id_type text := (
        SELECT format_type(a.atttypid, NULL)
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = '"Stream"'::regclass AND a.attname = 'id' AND t.typcategory <> 'S'
    );
BEGIN
    -- Ids that are no texts: the ones that can be of the type are looked for by the index.
    IF id_type IS NOT NULL THEN
        row_ids := ARRAY(
            SELECT n.id FROM unnest(stream_identity_rows.row_ids) n (id)
            WHERE CASE
                WHEN id_type = 'uuid' THEN n.id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                WHEN id_type = 'bigint' THEN n.id ~ '^-?[0-9]{1,18}$'
                WHEN id_type = 'integer' THEN n.id ~ '^-?[0-9]{1,9}$'
                ELSE true
            END
        );
        IF id_type NOT IN ('uuid', 'bigint', 'integer') THEN
            id_type := 'text';
        END IF;
        RETURN QUERY EXECUTE format(
            $query$
                SELECT
                    s.id::text COLLATE "default", s.contract::text COLLATE "default",
                    CASE WHEN (
                        SELECT t.typcategory = 'D' AND t.typname !~ '^time(tz)?$' FROM pg_type t WHERE t.oid = pg_typeof(s.created)
                    ) THEN s.created::text::timestamp END
                FROM (SELECT NULL::text AS "streamId", NULL::timestamp AS "createdAt") absent
                CROSS JOIN LATERAL (
                    SELECT s.id, "streamId" AS contract, "createdAt" AS created FROM "Stream" s
                    WHERE s.id%1$s = ANY ($1::%2$s[])
                    UNION
                    SELECT s.id, "streamId", "createdAt" FROM "Stream" s WHERE "streamId" = ANY ($2) AND s.id IS NOT NULL
                ) s
            $query$,
            CASE id_type WHEN 'text' THEN '::text' ELSE '' END, id_type
        ) USING row_ids, contracts;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT
        s.id::text COLLATE "default",
        s.contract::text COLLATE "default",
        CASE WHEN (SELECT t.typcategory = 'D' AND t.typname !~ '^time(tz)?$' FROM pg_type t WHERE t.oid = pg_typeof(s.created))
            THEN s.created::text::timestamp END
    FROM (SELECT NULL::text AS "streamId", NULL::timestamp AS "createdAt") absent
    CROSS JOIN LATERAL (
        SELECT s.id, "streamId" AS contract, "createdAt" AS created FROM "Stream" s
        WHERE s.id IN (SELECT unnest(stream_identity_rows.row_ids))
        UNION
        SELECT s.id, "streamId", "createdAt" FROM "Stream" s
        WHERE "streamId" IN (SELECT unnest(stream_identity_rows.contracts)) AND s.id IS NOT NULL
    ) s;
END
$$;

-- What readers call. A session keeps the plan of each statement, which takes longer to parse and to plan than to run: it is
-- generic, so that the next stream and the next page have it, too. Where the host alters a table, PostgreSQL drops the plan and
-- reads the text anew, so the results are of types that never change. Plans go through an index in its order, whatever the
-- estimates say: bounds are always there, so that they are conditions of the index and leave partitions out.

-- The stream's snapshots, newest month first: of one month, or of months before one, NULL for any. Of a month in which two of its
-- Stream.ids have one, that which was taken first.
CREATE OR REPLACE FUNCTION stream_snapshot_list(stream text, month text, before text, most bigint)
RETURNS TABLE (
    id text, "streamId" text, names text[], sender text, receiver text, "tokenAddress" text, "amountPerSecond" numeric,
    "totalAmount" numeric, status text, state json, "snapshotMonth" text, "createdAt" timestamp, has_event_ids boolean
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    its record := stream_identity_look_up(stream);
BEGIN
    RETURN QUERY
    SELECT
        s.id, s."streamId", its.names, s.sender, s.receiver, s."tokenAddress", s."amountPerSecond", s."totalAmount", s.status,
        -- As it is stored: whoever takes no row does not read it.
        s.state, s."snapshotMonth", s."createdAt"::timestamp, s."eventIds" IS NOT NULL
    FROM (
        SELECT DISTINCT ON (s."snapshotMonth") s.*
        FROM unnest(its.ids, its.ids_from, its.ids_until) n (id, since, until)
        CROSS JOIN LATERAL (
            SELECT s.*
            FROM "StreamSnapshot" s
            WHERE s."streamId" = n.id
              -- A condition of the index; there is no text after which none comes.
              AND s."snapshotMonth" >= COALESCE(stream_snapshot_list.month, '')
              AND (stream_snapshot_list.month IS NULL OR s."snapshotMonth" = stream_snapshot_list.month)
              AND (stream_snapshot_list.before IS NULL OR s."snapshotMonth" < stream_snapshot_list.before)
              AND s."createdAt" >= '0001-01-01' AND s."createdAt" < '10000-01-01'
              AND COALESCE(s."createdAt" >= n.since, true)
              AND COALESCE(s."createdAt" < n.until, true)
            ORDER BY s."snapshotMonth" DESC
            LIMIT stream_snapshot_list.most
        ) s
        ORDER BY s."snapshotMonth" DESC, s."createdAt", s.id
        LIMIT stream_snapshot_list.most
    ) s
    ORDER BY s."snapshotMonth" DESC;
END
$$;

-- Of the columns of one of the two tables that the service does not know, those whose values leave otherwise than JSON has them, and
-- how (host::WireForm); NULL for none.
CREATE OR REPLACE FUNCTION stream_event_wire_forms(described regclass) RETURNS text
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    unknown name[] := ARRAY(
        SELECT c.attname
        FROM pg_attribute c
        WHERE c.attrelid = described AND c.attnum > 0 AND NOT c.attisdropped AND c.attname NOT IN (
            'id', 'eventType', 'streamId', 'txHash', 'eventIndex', 'ledger', 'ledgerClosedAt', 'sender', 'receiver', 'amount',
            'metadata', 'parent_hash', 'entry_hash', 'createdAt', 'archivedAt'
        )
    );
BEGIN
    IF unknown = '{}' THEN
        RETURN NULL;
    END IF;
    RETURN (
        WITH RECURSIVE column_type (name, oid) AS (
            SELECT c.attname, c.atttypid FROM pg_attribute c WHERE c.attrelid = described AND c.attname = ANY (unknown)
            UNION ALL
            -- A domain is written as the type that it is made of.
            SELECT c.name, d.typbasetype FROM column_type c JOIN pg_type d ON d.oid = c.oid AND d.typtype = 'd'
        )
        SELECT json_object_agg(c.name, CASE
            WHEN c.oid IN ('bigint'::regtype, 'numeric'::regtype) THEN 'number'
            WHEN c.oid = 'timestamp'::regtype THEN 'timestamp'
            ELSE 'timestamptz'
        END)
        FROM column_type c
        WHERE c.oid IN ('bigint'::regtype, 'numeric'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
    );
END
$$;

-- A stream's events in order of ("createdAt", id), by bytes whatever collation the tables have, one function for each order:
-- stream_archive_list (newest first) of "StreamArchive" alone; stream_event_list and stream_event_list_oldest_first of both tables,
-- each event once. One statement reads both, so that a row that moves is in one place; a table that ends early by bytes ends the page.
-- Parameters: "from" (inclusive) and "to" (exclusive), event_type, after_created_at and after_id (the last row of the page before),
-- each NULL for none; most (rows), max_bytes (most bytes of metadata: the row that passes them is the last one), snapshot (the id of
-- one, or NULL: events that it is known to have are left out).
-- event is the whole row as JSON, with whatever columns the host added and without those that it lacks; wire_forms are those of
-- stream_event_wire_forms. Where "EventLog" is read, a row without an event is the first: left_out says how many of the stream's events
-- no reader shows, because their time cannot be (only "EventLog" has such, at the ends of an index), and is_filtered whether
-- row security is in force there.
DO $make$
DECLARE
    -- What reads one table. %1$s: the table; %2$s: when its rows were archived; %3$s: a condition that leaves rows out; %4$s and
    -- %5$s: DESC and <, or ASC and >; %6$s: the function;
    -- %7$s: its variable with the forms.
    of_table constant text := $sql$
SELECT
    a.id::text AS id,
    a."createdAt"::timestamp AS "createdAt",
    %2$s AS "archivedAt",
    a AS content,
    %7$s AS wire_forms
FROM (
    SELECT a.*
    -- Where the host has dropped the column, this is it.
    FROM (SELECT NULL::text AS metadata) absent
    CROSS JOIN LATERAL (
        -- Its length is known without reading it.
        SELECT
            a.*,
            sum(octet_length(metadata::text)) OVER (
                ORDER BY a."createdAt" %4$s, a.id::text COLLATE "C" %4$s
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS "snapshot-service: bytes before"
        FROM (
            SELECT a.*
            FROM unnest(its.contract_ids, its.contract_ids_from, its.contract_ids_until) n (id, since, until)
            -- A scan of the index for each contract id, nearly always one, which stops at the page's end. In its own order, with
            -- what else is of the last instant: a sort by the id would look as cheap to the planner where it expects one row.
            CROSS JOIN LATERAL (
                SELECT a.*
                FROM %1$s a
                WHERE a."streamId" = n.id
                  AND COALESCE(a."createdAt" >= n.since, true)
                  AND COALESCE(a."createdAt" < n.until, true)
                  AND a."createdAt" >= page.low AND a."createdAt" < page.high
                  AND (%6$s.event_type IS NULL OR a."eventType"::text = %6$s.event_type)
                  AND a.id::text <> ALL (page.known)
                  %3$s
                  AND (%6$s.after_id IS NULL OR (a."createdAt", a.id::text COLLATE "C") %5$s (%6$s.after_created_at, %6$s.after_id))
                ORDER BY a."createdAt" %4$s
                FETCH FIRST (%6$s.most) ROWS WITH TIES
            ) a
            ORDER BY a."createdAt" %4$s, a.id::text COLLATE "C" %4$s
            LIMIT %6$s.most
        ) a
    ) a
    WHERE a."snapshot-service: bytes before" IS NULL OR a."snapshot-service: bytes before" < %6$s.max_bytes
) a
ORDER BY a."createdAt" %4$s, a.id::text COLLATE "C" %4$s
$sql$;
    -- Without the copies that the former service left in both tables: the hot ones are shown (domain rule 6). Each row is looked up
    -- by itself: NOT EXISTS could be planned as a scan of the whole of "EventLog", and IS NULL as if hardly any row passed.
    is_rest constant text := 'AND a.id IS DISTINCT FROM (SELECT e.id FROM "EventLog" e WHERE e.id = a.id LIMIT 1)';
    made record;
BEGIN
    FOR made IN
        SELECT *
        FROM (
            VALUES
                ('stream_archive_list', false, 'DESC', '<'),
                ('stream_event_list', true, 'DESC', '<'),
                ('stream_event_list_oldest_first', true, 'ASC', '>')
        ) v (name, reads_log, direction, after)
    LOOP
        EXECUTE format(
            $create$
CREATE OR REPLACE FUNCTION %1$I(
    stream text, "from" timestamp, "to" timestamp, event_type text, after_created_at timestamp, after_id text, most bigint,
    max_bytes bigint, snapshot text
)
RETURNS TABLE (
    id text, names text[], "createdAt" timestamp, "archivedAt" timestamp, event text, wire_forms text, left_out bigint,
    is_filtered boolean
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
<<page>>
DECLARE
    its record := stream_identity_look_up(stream);
    -- Not times that cannot be, and that no answer could say; nor what is before the page.
    low timestamp := GREATEST("from", '0001-01-01', %2$s);
    high timestamp := LEAST("to", '10000-01-01', %3$s);
    known text[] := COALESCE((SELECT t."eventIds" FROM "StreamSnapshot" t WHERE t.id = snapshot), '{}');
    forms_of_archive text := stream_event_wire_forms('"StreamArchive"');
    %4$s
    -- As text, not jsonb: that cannot hold everything that a column of type json can. Of the page's rows alone.
    RETURN QUERY
    SELECT e.id, its.names, e."createdAt", e."archivedAt", row_to_json(e.content)::text, e.wire_forms, NULL::bigint, NULL::boolean
    FROM (%5$s) e
    ORDER BY e."createdAt" %6$s, e.id COLLATE "C" %6$s;
END
$function$
            $create$,
            made.name,
            CASE made.direction WHEN 'ASC' THEN 'after_created_at' ELSE 'NULL' END,
            CASE made.direction WHEN 'DESC' THEN $sql$after_created_at + interval '1 microsecond'$sql$ ELSE 'NULL' END,
            CASE WHEN made.reads_log THEN $sql$forms_of_log text := stream_event_wire_forms('"EventLog"');
BEGIN
    left_out := (
        SELECT count(*) FROM "EventLog" e WHERE e."streamId" = ANY (its.contract_ids) AND e."createdAt" < '0001-01-01'
    ) + (
        SELECT count(*) FROM "EventLog" e WHERE e."streamId" = ANY (its.contract_ids) AND e."createdAt" >= '10000-01-01'
    ) + (
        SELECT count(*) FROM "EventLog" e WHERE e."streamId" = ANY (its.contract_ids) AND e."createdAt" IS NULL
    );
    is_filtered := row_security_active('"EventLog"');
    RETURN NEXT;
            $sql$ ELSE 'BEGIN' END,
            CASE WHEN made.reads_log THEN format(
                'SELECT * FROM ((%1$s) UNION ALL (%2$s)) e ORDER BY e."createdAt" %3$s, e.id COLLATE "C" %3$s LIMIT %4$s.most',
                format(of_table, '"EventLog"', 'NULL::timestamp', '', made.direction, made.after, made.name, 'page.forms_of_log'),
                format(of_table, '"StreamArchive"', 'a."archivedAt"::timestamp', is_rest, made.direction, made.after, made.name,
                       'page.forms_of_archive'),
                made.direction, made.name)
            ELSE format(of_table, '"StreamArchive"', 'a."archivedAt"::timestamp', '', made.direction, made.after, made.name,
                        'page.forms_of_archive')
            END,
            made.direction
        );
    END LOOP;
END
$make$;
