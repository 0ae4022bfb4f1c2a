-- "StreamArchive": events that left "EventLog", partitioned by month on "createdAt", and the narrow route to its partitions.
-- It has every column of "EventLog", by name and type, and "archivedAt". Only the key columns are NOT NULL: "EventLog"
-- guards the contents, and rows that the former service archived lack columns that "EventLog" requires.
-- Types and collations that are not PostgreSQL's own are the host's to alter and drop, so nothing here depends on one: such
-- a column is text, or an array of text.
-- A plain table that the former service left is adopted: every row keeps its id and its values.
-- Like all migrations this one may run again, to make what somebody dropped.

-- The narrow route for a role that owns no table: three functions that run as their owner, who migrates, and can do nothing
-- but make, index and analyse the partition of a month. Who may call them is granted by each `migrate`.

-- Makes the partition of the month that month_start lies in, without indexes, unless it is there: to build an index from
-- sorted rows is several times faster than to insert row by row.
-- It is made apart and then attached: CREATE TABLE ... PARTITION OF would shut out the archive's readers.
CREATE OR REPLACE FUNCTION stream_archive_create_partition(month_start timestamp) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    month timestamp := date_trunc('month', month_start);
    partition text := 'StreamArchive_' || to_char(month, 'YYYY_MM');
BEGIN
    -- Other months have no name of their own. NULL is none of these either.
    IF (month_start >= '0001-01-01' AND month_start < '10000-01-01') IS NOT TRUE THEN
        RAISE EXCEPTION 'the archive has no month of %', month_start USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Two workers may make partitions at once. The lock is the one that ATTACH takes, and leaves the other partitions
    -- alone. It must be a table's: an advisory lock would not make the session look at the catalog anew.
    LOCK TABLE ONLY "StreamArchive" IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE "StreamArchive" INCLUDING DEFAULTS)', partition);
    -- It has no key until it is indexed, and none that a publication takes then. Where the host publishes all tables, rows
    -- could not be restored, filled in or rolled back without an identity.
    EXECUTE format('ALTER TABLE %I REPLICA IDENTITY FULL', partition);
    -- The engine names the partition. Readers name the archive, which is enough.
    IF to_regrole('snapshot_service_maintain') IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO snapshot_service_maintain', partition);
    END IF;
    EXECUTE format(
        'ALTER TABLE "StreamArchive" ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        partition, month, month + interval '1 month'
    );
END
$$;

-- The name of the partition of the month: a table that only has such a name is somebody else's. Called by the other two.
CREATE OR REPLACE FUNCTION stream_archive_partition_name(month_start timestamp) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'StreamArchive_' || to_char(month_start, 'YYYY_MM');
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_inherits
        WHERE inhparent = '"StreamArchive"'::regclass AND inhrelid = to_regclass(quote_ident(partition))
    ) THEN
        RAISE EXCEPTION 'the archive has no partition of %', month_start USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN partition;
END
$$;

-- Builds the first of the four indexes that the partition of the month lacks, under the name that PostgreSQL would give
-- it. Returns whether there was one: one at a time, so that what is built is kept. Readers go on meanwhile; writers of
-- this partition wait.
CREATE OR REPLACE FUNCTION stream_archive_index_partition(month_start timestamp) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text := stream_archive_partition_name(month_start);
    -- Hosts older than "eventIndex" have no such column.
    has_event_index boolean := EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = '"StreamArchive"'::regclass AND attname = 'eventIndex' AND NOT attisdropped
    );
    name text;
BEGIN
    -- Partitions of the first versions have a primary key instead; to make one of an index would shut out readers.
    name := partition || '_id_createdAt_key';
    IF to_regclass(quote_ident(partition || '_pkey')) IS NULL AND to_regclass(quote_ident(name)) IS NULL THEN
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id, "createdAt")', name, partition);
        RETURN true;
    END IF;
    name := partition || '_streamId_createdAt_idx';
    IF to_regclass(quote_ident(name)) IS NULL THEN
        EXECUTE format('CREATE INDEX %I ON %I ("streamId", "createdAt" DESC)', name, partition);
        RETURN true;
    END IF;
    -- Either will do: a host may have got "eventIndex" since.
    IF to_regclass(quote_ident(partition || '_txHash_eventIndex_idx')) IS NULL
        AND to_regclass(quote_ident(partition || '_txHash_idx')) IS NULL
    THEN
        IF has_event_index THEN
            EXECUTE format('CREATE INDEX %I ON %I ("txHash", "eventIndex")', partition || '_txHash_eventIndex_idx', partition);
        ELSE
            EXECUTE format('CREATE INDEX %I ON %I ("txHash")', partition || '_txHash_idx', partition);
        END IF;
        RETURN true;
    END IF;
    name := partition || '_archivedAt_idx';
    IF to_regclass(quote_ident(name)) IS NULL THEN
        EXECUTE format('CREATE INDEX %I ON %I USING brin ("archivedAt") WITH (pages_per_range = 32)', name, partition);
        RETURN true;
    END IF;
    RETURN false;
END
$$;

-- Brings the statistics of the partition of the month up to date. PostgreSQL would pass over a table of somebody else's
-- in silence.
CREATE OR REPLACE FUNCTION stream_archive_analyze_partition(month_start timestamp) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    EXECUTE format('ANALYZE %I', stream_archive_partition_name(month_start));
END
$$;

DO $$
DECLARE
    route regprocedure;
BEGIN
    FOREACH route IN ARRAY ARRAY[
        'stream_archive_create_partition(timestamp)',
        'stream_archive_index_partition(timestamp)',
        'stream_archive_analyze_partition(timestamp)'
    ]::regprocedure[] LOOP
        -- Temporary tables last, or a caller's own would be taken for the service's.
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', route, current_schema);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', route);
    END LOOP;
END
$$;

DO $$
DECLARE
    mirrored text := (
        SELECT string_agg(
            format('%I %s', a.attname, wanted.type)
            || CASE WHEN c.oid IS NOT NULL THEN ' COLLATE ' || c.oid::regcollation ELSE '' END
            || CASE WHEN a.attname IN ('id', 'createdAt') THEN ' NOT NULL' ELSE '' END,
            ', ' ORDER BY a.attnum)
        FROM pg_attribute a
        JOIN pg_type t ON t.oid = a.atttypid
        CROSS JOIN LATERAL (
            -- What a domain is made of, at whatever depth.
            WITH RECURSIVE made_of (oid, modifier, depth) AS (
                SELECT a.atttypid, a.atttypmod, 0
                UNION ALL
                SELECT d.typbasetype, CASE WHEN d.typtypmod >= 0 THEN d.typtypmod ELSE m.modifier END, m.depth + 1
                FROM made_of m JOIN pg_type d ON d.oid = m.oid AND d.typtype = 'd'
            )
            SELECT b.*, m.modifier FROM made_of m JOIN pg_type b ON b.oid = m.oid ORDER BY m.depth DESC LIMIT 1
        ) base
        LEFT JOIN pg_collation c
            ON c.oid = a.attcollation AND c.oid <> t.typcollation AND c.collnamespace = 'pg_catalog'::regnamespace
            AND t.typnamespace = 'pg_catalog'::regnamespace
        -- As store/sql/list_mirrored_columns.sql has it, by which each `migrate` aligns the columns.
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN t.typname ~ '^_reg' AND t.typnamespace = 'pg_catalog'::regnamespace THEN 'text[]'
                WHEN t.typname ~ '^reg' AND t.typnamespace = 'pg_catalog'::regnamespace THEN 'text'
                WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN format_type(a.atttypid, a.atttypmod)
                WHEN a.attname IN ('createdAt', 'ledger', 'eventIndex') AND base.typnamespace = 'pg_catalog'::regnamespace
                    THEN format_type(base.oid, base.modifier)
                WHEN t.typtype = 'b' AND t.typcategory = 'A' THEN 'text[]'
                ELSE 'text'
            END AS type
        ) wanted
        WHERE a.attrelid = '"EventLog"'::regclass AND a.attnum > 0 AND NOT a.attisdropped
          -- A column of the host's of this name is refused before anything is archived.
          AND a.attname <> 'archivedAt'
    );
    -- A table that is partitioned is the service's own.
    adopt boolean := EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('"StreamArchive"') AND relkind = 'r');
    adopted text;
    unknown text;
    month timestamp;
BEGIN
    IF to_regclass('"StreamArchive"') IS NOT NULL AND NOT adopt THEN
        RETURN;
    END IF;
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

    FOR month IN
        SELECT DISTINCT date_trunc('month', "createdAt") FROM "StreamArchive_adopted"
        WHERE "createdAt" >= '0001-01-01' AND "createdAt" < '10000-01-01'
    LOOP
        PERFORM stream_archive_create_partition(month);
        -- Read by the mover: only here can a copy of an event have another "createdAt" than "EventLog" says.
        EXECUTE format(
            'COMMENT ON TABLE %I IS ''Holds rows adopted from the former service''',
            'StreamArchive_' || to_char(month, 'YYYY_MM')
        );
    END LOOP;
    EXECUTE format(
        'INSERT INTO "StreamArchive" (%1$s) SELECT %1$s FROM "StreamArchive_adopted"
         WHERE "createdAt" >= ''0001-01-01'' AND "createdAt" < ''10000-01-01''', adopted);
    -- Rows whose time cannot be are of no month. They stay in the former table, and `migrate` and `doctor` name it.
    DELETE FROM "StreamArchive_adopted" WHERE "createdAt" >= '0001-01-01' AND "createdAt" < '10000-01-01';
    IF NOT EXISTS (SELECT FROM "StreamArchive_adopted") THEN
        DROP TABLE "StreamArchive_adopted";
    END IF;
    ANALYZE "StreamArchive";
END
$$;
