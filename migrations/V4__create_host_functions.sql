-- Functions that read what is the host's, whatever types it has: values on their way to callers, and rows of "Stream". They are called in
-- transactions of the service, whose time zone is UTC and whose search path finds the host's tables.

-- A row as JSON, the way it leaves the service: columns that described_by has as 64-bit or decimal numbers become
-- strings, since they may exceed 2^53; its times become RFC 3339 in UTC with milliseconds and Z.
-- Values that do not look like a time are left alone: the column may have had another type when the row was written.
CREATE OR REPLACE FUNCTION snapshot_service_wire_json(value jsonb, described_by regclass) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT value || COALESCE(jsonb_object_agg(
        column_name,
        CASE
            WHEN type IN ('bigint'::regtype, 'numeric'::regtype) THEN content
            WHEN content !~ '^\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d' THEN content
            WHEN type = 'timestamp'::regtype THEN to_char(content::timestamp, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
            ELSE to_char(content::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        END
    ), '{}')
    FROM (
        SELECT attname AS column_name, atttypid AS type, value ->> attname AS content
        FROM pg_attribute
        WHERE attrelid = described_by AND attnum > 0 AND NOT attisdropped
          AND atttypid IN ('bigint'::regtype, 'numeric'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
          AND jsonb_typeof(value -> attname) IN ('string', 'number')
    ) columns
$$;

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
