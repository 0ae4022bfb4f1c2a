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
