-- "StreamSnapshot": the whole state of every stream, one row per stream and month.
-- Nothing in it is of a type of the host's, and only what the service itself decides is required: a stream whose row lacks
-- something gets its snapshot all the same (domain rule 3).
-- Like all migrations this one may run again, to make what somebody dropped.
CREATE TABLE IF NOT EXISTS "StreamSnapshot" (
    id                TEXT PRIMARY KEY,
    "streamId"        TEXT NOT NULL,       -- Stream.id, not the contract-level id
    sender            TEXT,
    receiver          TEXT,
    "tokenAddress"    TEXT,
    "amountPerSecond" NUMERIC(39,0),
    "totalAmount"     NUMERIC(39,0),
    status            TEXT,                -- as it was called on that day
    state             JSON,                -- the whole "Stream" row as it is served; not JSONB, which cannot hold everything that
                                           -- JSON can; NULL in copies of the former service's, and where it cannot be written
    "snapshotMonth"   TEXT NOT NULL CHECK ("snapshotMonth" ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    "createdAt"       TIMESTAMP(3) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    "eventIds"        TEXT[],              -- of events from 80 minutes before to 20 minutes after "createdAt", those that the state
                                           -- has; NULL where "EventLog" was not read
    UNIQUE ("streamId", "snapshotMonth")
);
-- For counts and exports of a month. Not of the month alone: the planner may take such an index for looking up one stream in a table that
-- is still empty, and then each look goes through all of the month that others have written meanwhile.
CREATE INDEX IF NOT EXISTS "StreamSnapshot_snapshotMonth_streamId_idx" ON "StreamSnapshot" ("snapshotMonth", "streamId");
