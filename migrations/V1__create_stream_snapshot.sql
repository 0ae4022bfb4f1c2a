-- "StreamSnapshot": the whole state of every stream, one row per stream and month.
-- A table that the former service left is adopted: every row keeps its id and its values. Safe to run again.
-- Nothing in it is of a type of the host's, and only what the service itself decides is required: a stream whose row lacks
-- something gets its snapshot all the same (domain rule 3).
CREATE TABLE IF NOT EXISTS "StreamSnapshot" (
    id                TEXT PRIMARY KEY,
    "streamId"        TEXT NOT NULL,
    sender            TEXT,
    receiver          TEXT,
    "tokenAddress"    TEXT,
    "amountPerSecond" NUMERIC(39,0),
    "totalAmount"     NUMERIC(39,0),
    status            TEXT,                -- as it was called on that day
    state             JSON,                -- and not JSONB, which cannot hold everything that JSON can
    "snapshotMonth"   TEXT NOT NULL,
    "createdAt"       TIMESTAMP(3) NOT NULL,
    "eventIds"        TEXT[]
);

DO $$
BEGIN
    -- The former service's column is of the host's type. What is so already is not written.
    IF (SELECT atttypid <> 'text'::regtype FROM pg_attribute
        WHERE attrelid = '"StreamSnapshot"'::regclass AND attname = 'status') THEN
        ALTER TABLE "StreamSnapshot" ALTER status DROP DEFAULT, ALTER status TYPE TEXT USING status::text;
    END IF;
    IF EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = '"StreamSnapshot"'::regclass AND attname IN ('amountPerSecond', 'totalAmount')
          AND format_type(atttypid, atttypmod) <> 'numeric(39,0)'
    ) THEN
        ALTER TABLE "StreamSnapshot"
            ALTER "amountPerSecond" TYPE NUMERIC(39,0),
            ALTER "totalAmount" TYPE NUMERIC(39,0);
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = '"StreamSnapshot"'::regclass AND conname = 'StreamSnapshot_snapshotMonth_check'
    ) THEN
        ALTER TABLE "StreamSnapshot"
            ADD CONSTRAINT "StreamSnapshot_snapshotMonth_check" CHECK ("snapshotMonth" ~ '^[0-9]{4}-(0[1-9]|1[0-2])$');
    END IF;
END
$$;

ALTER TABLE "StreamSnapshot"
    ADD COLUMN IF NOT EXISTS state JSON,
    ADD COLUMN IF NOT EXISTS "eventIds" TEXT[],
    ALTER sender DROP NOT NULL,
    ALTER receiver DROP NOT NULL,
    ALTER "tokenAddress" DROP NOT NULL,
    ALTER "amountPerSecond" DROP NOT NULL,
    ALTER "totalAmount" DROP NOT NULL,
    ALTER status DROP NOT NULL,
    -- In UTC, whatever the session's time zone.
    ALTER "createdAt" SET DEFAULT (now() AT TIME ZONE 'UTC');

CREATE UNIQUE INDEX IF NOT EXISTS "StreamSnapshot_streamId_snapshotMonth_key"
    ON "StreamSnapshot" ("streamId", "snapshotMonth");
CREATE INDEX IF NOT EXISTS "StreamSnapshot_snapshotMonth_idx" ON "StreamSnapshot" ("snapshotMonth");
-- The unique index serves look-ups by stream.
DROP INDEX IF EXISTS "StreamSnapshot_streamId_idx";

COMMENT ON COLUMN "StreamSnapshot"."streamId" IS 'Stream.id, not the contract-level id';
COMMENT ON COLUMN "StreamSnapshot".state IS
    'The whole "Stream" row as it is served; NULL only in rows adopted from the former service, and where it cannot be written';
COMMENT ON COLUMN "StreamSnapshot"."eventIds" IS
    'Ids of the events, from 80 minutes before to 20 minutes after "createdAt", that the state has; NULL where "EventLog" was not read';
