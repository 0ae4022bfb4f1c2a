-- "StreamArchive": events that left "EventLog", partitioned by month on "createdAt", and the narrow route to its partitions.
-- Each `migrate` gives it every column of "EventLog", by name. Types that are PostgreSQL's own are the same; others are the host's to
-- alter and drop, so that such a column is text, or an array of text. "createdAt" is UTC without a zone, whatever the host's is: what
-- partitions a table can never be altered. Only the key columns are NOT NULL: "EventLog" guards the contents. `migrate` makes
-- the table itself (store/archive_columns.rs), because its columns are the host's.

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
    name := partition || '_id_createdAt_key';
    IF to_regclass(quote_ident(name)) IS NULL THEN
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
-- in silence. Rows are looked up by their keys, for which a small sample will do: a large one costs as much as an index.
CREATE OR REPLACE FUNCTION stream_archive_analyze_partition(month_start timestamp) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET default_statistics_target = 10 AS $$
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
