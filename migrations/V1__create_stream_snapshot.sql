-- "StreamSnapshot": the whole state of every stream, one row per stream and month.
-- A table that the former service left is adopted: every row keeps its id and its values.
DO $$
DECLARE
    status_type text := (
        SELECT format_type(atttypid, atttypmod)
        FROM pg_attribute
        WHERE attrelid = '"Stream"'::regclass AND attname = 'status'
    );
BEGIN
    IF to_regclass('"StreamSnapshot"') IS NULL THEN
        EXECUTE format('
            CREATE TABLE "StreamSnapshot" (
                id                TEXT PRIMARY KEY,
                "streamId"        TEXT NOT NULL,
                sender            TEXT NOT NULL,
                receiver          TEXT NOT NULL,
                "tokenAddress"    TEXT,
                "amountPerSecond" NUMERIC(39,0),
                "totalAmount"     NUMERIC(39,0),
                status            %s NOT NULL,
                state             JSONB,
                "snapshotMonth"   TEXT NOT NULL,
                "createdAt"       TIMESTAMP(3) NOT NULL
            )', status_type);
        CREATE UNIQUE INDEX "StreamSnapshot_streamId_snapshotMonth_key"
            ON "StreamSnapshot" ("streamId", "snapshotMonth");
        CREATE INDEX "StreamSnapshot_snapshotMonth_idx" ON "StreamSnapshot" ("snapshotMonth");
    ELSE
        ALTER TABLE "StreamSnapshot"
            ALTER "tokenAddress" DROP NOT NULL,
            ALTER "amountPerSecond" DROP NOT NULL,
            ALTER "amountPerSecond" TYPE NUMERIC(39,0),
            ALTER "totalAmount" DROP NOT NULL,
            ALTER "totalAmount" TYPE NUMERIC(39,0),
            ADD COLUMN IF NOT EXISTS state JSONB;
        CREATE UNIQUE INDEX IF NOT EXISTS "StreamSnapshot_streamId_snapshotMonth_key"
            ON "StreamSnapshot" ("streamId", "snapshotMonth");
        CREATE INDEX IF NOT EXISTS "StreamSnapshot_snapshotMonth_idx" ON "StreamSnapshot" ("snapshotMonth");
        -- The unique index serves look-ups by stream.
        DROP INDEX IF EXISTS "StreamSnapshot_streamId_idx";
    END IF;
END
$$;

ALTER TABLE "StreamSnapshot"
    DROP CONSTRAINT IF EXISTS "StreamSnapshot_snapshotMonth_check",
    -- In UTC, whatever the session's time zone.
    ALTER "createdAt" SET DEFAULT (now() AT TIME ZONE 'UTC'),
    ADD CONSTRAINT "StreamSnapshot_snapshotMonth_check"
        CHECK ("snapshotMonth" ~ '^[0-9]{4}-(0[1-9]|1[0-2])$');

COMMENT ON COLUMN "StreamSnapshot"."streamId" IS 'Stream.id, not the contract-level id';
COMMENT ON COLUMN "StreamSnapshot".state IS 'The whole "Stream" row; NULL only in rows adopted from the former service';
