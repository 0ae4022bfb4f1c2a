-- A partition of the archive is made without indexes, loaded, and then indexed: building from sorted rows is several times
-- faster than inserting row by row.

-- Makes the partition of the month that month_start lies in, without indexes, unless it is there.
-- It is made apart and then attached: CREATE TABLE ... PARTITION OF would shut out the archive's readers.
CREATE OR REPLACE FUNCTION stream_archive_create_partition(month_start timestamp) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    month timestamp := date_trunc('month', month_start);
    partition text := 'StreamArchive_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Two workers may make partitions at once. The lock is the one that ATTACH takes. It must be a table's: an advisory
    -- lock would not make the session look at the catalog anew.
    LOCK TABLE "StreamArchive" IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE "StreamArchive" INCLUDING DEFAULTS)', partition);
    EXECUTE format(
        'ALTER TABLE "StreamArchive" ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        partition, month, month + interval '1 month'
    );
END
$$;

-- Builds the first of the three indexes that the partition of the month lacks, under the name that PostgreSQL would give it.
-- Returns whether there was one: one at a time, so that what is built is kept. Readers go on meanwhile; writers of this
-- partition wait.
CREATE FUNCTION stream_archive_index_partition(month_start timestamp) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    partition text := 'StreamArchive_' || to_char(month_start, 'YYYY_MM');
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
    RETURN false;
END
$$;
