-- "StreamArchive": events that left "EventLog", partitioned by month on "createdAt".
-- It has every column of "EventLog", by name and type, and "archivedAt". Only the key columns are NOT NULL: "EventLog"
-- guards the contents, and rows that the former service archived lack columns that "EventLog" requires.
-- A plain table that the former service left is adopted: every row keeps its id and its values.

-- Makes the partition of the month that month_start lies in, unless it is there.
-- The primary key and the indexes belong to the partition, so that one can be loaded first and indexed after. It is
-- made apart and then attached: CREATE TABLE ... PARTITION OF would shut out the archive's readers.
CREATE FUNCTION stream_archive_create_partition(month_start timestamp) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    month timestamp := date_trunc('month', month_start);
    partition text := 'StreamArchive_' || to_char(month, 'YYYY_MM');
    -- Hosts older than "eventIndex" have no such column.
    transaction_key text := CASE
        WHEN EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = '"StreamArchive"'::regclass AND attname = 'eventIndex' AND NOT attisdropped
        ) THEN '"txHash", "eventIndex"'
        ELSE '"txHash"'
    END;
BEGIN
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Two runs may want the same month at once; the second then finds it made. The lock is the one that ATTACH takes. It
    -- must be a table's: an advisory lock would not make the session look at the catalog anew.
    LOCK TABLE "StreamArchive" IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE "StreamArchive" INCLUDING DEFAULTS, PRIMARY KEY (id, "createdAt"))', partition);
    EXECUTE format('CREATE INDEX ON %I ("streamId", "createdAt" DESC)', partition);
    EXECUTE format('CREATE INDEX ON %I (%s)', partition, transaction_key);
    EXECUTE format(
        'ALTER TABLE "StreamArchive" ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        partition, month, month + interval '1 month'
    );
END
$$;

DO $$
DECLARE
    mirrored text := (
        SELECT string_agg(
            format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
            || CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END
            || CASE WHEN a.attname IN ('id', 'createdAt') THEN ' NOT NULL' ELSE '' END,
            ', ' ORDER BY a.attnum)
        FROM pg_attribute a
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = '"EventLog"'::regclass AND a.attnum > 0 AND NOT a.attisdropped
    );
    adopt boolean := to_regclass('"StreamArchive"') IS NOT NULL;
    adopted text;
    unknown text;
    month timestamp;
BEGIN
    IF adopt THEN
        ALTER TABLE "StreamArchive" RENAME TO "StreamArchive_adopted";
    END IF;

    EXECUTE format('
        CREATE TABLE "StreamArchive" (
            %s,
            "archivedAt" TIMESTAMP(3) NOT NULL DEFAULT (now() AT TIME ZONE ''UTC'')
        ) PARTITION BY RANGE ("createdAt")', mirrored);

    IF NOT adopt THEN
        RETURN;
    END IF;

    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
           string_agg(quote_ident(a.attname), ', ') FILTER (WHERE own.attname IS NULL)
    INTO adopted, unknown
    FROM pg_attribute a
    LEFT JOIN pg_attribute own
        ON own.attrelid = '"StreamArchive"'::regclass AND own.attname = a.attname AND NOT own.attisdropped
    WHERE a.attrelid = '"StreamArchive_adopted"'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'the former "StreamArchive" has columns that "EventLog" has not: %', unknown
            USING HINT = 'Add them to "EventLog" or move their contents elsewhere, then migrate again.';
    END IF;

    FOR month IN SELECT DISTINCT date_trunc('month', "createdAt") FROM "StreamArchive_adopted" LOOP
        PERFORM stream_archive_create_partition(month);
        -- Read by the mover: only here can a copy of an event have another "createdAt" than "EventLog" says.
        EXECUTE format(
            'COMMENT ON TABLE %I IS ''Holds rows adopted from the former service''',
            'StreamArchive_' || to_char(month, 'YYYY_MM')
        );
    END LOOP;
    EXECUTE format('INSERT INTO "StreamArchive" (%1$s) SELECT %1$s FROM "StreamArchive_adopted"', adopted);
    DROP TABLE "StreamArchive_adopted";
    ANALYZE "StreamArchive";
END
$$;
