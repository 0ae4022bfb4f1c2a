-- The archive's ledger: every batch that enters or leaves a month of the archive is an entry with a digest over its rows,
-- chained to the entry before. How digests are computed is in docs/LEDGER.md; nothing here may change it for old entries.

-- Who archives without a ledger meanwhile would leave rows that no entry seals.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM "MaintenanceRun"
        WHERE "finishedAt" IS NULL AND "leaseExpiresAt" > clock_timestamp() AT TIME ZONE 'UTC'
    ) THEN
        RAISE EXCEPTION 'a run of maintenance is under way'
            USING HINT = 'Pause maintenance or wait until its lease expires, then migrate again.';
    END IF;
END
$$;

-- "ArchiveMonth": the head of each month's ledger. Its row is locked by whoever adds an entry.
CREATE TABLE "ArchiveMonth" (
    month        TEXT PRIMARY KEY CHECK (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    entries      INTEGER NOT NULL DEFAULT 0,    -- sequence of the last
    digest       BYTEA NOT NULL,                -- of the last; of the month's name, before the first
    "archivedAt" TIMESTAMP(3)                   -- up to which rows are sealed: no later entry has rows before it
);

-- "ArchiveSeal": the ledger. An entry seals the rows of its month whose "archivedAt" is after the entry's "archivedAfter" and
-- not after its "archivedAt": each batch has an instant of its own. An entry of kind restored has "ArchiveRemoval"'s instead.
CREATE TABLE "ArchiveSeal" (
    month            TEXT NOT NULL REFERENCES "ArchiveMonth",
    sequence         INTEGER NOT NULL,          -- from 1, without gaps
    kind             TEXT NOT NULL CHECK (kind IN ('archived', 'adopted', 'completed', 'restored')),
    "runId"          UUID,                      -- NULL: rows that were there before there was a ledger
    rows             BIGINT NOT NULL,
    "firstCreatedAt" TIMESTAMP NOT NULL,
    "firstId"        TEXT NOT NULL,
    "lastCreatedAt"  TIMESTAMP NOT NULL,
    "lastId"         TEXT NOT NULL,
    "archivedAfter"  TIMESTAMP(3),
    "archivedAt"     TIMESTAMP(3),
    "minLedger"      BIGINT,                    -- the oldest and the newest ledger number of its rows
    "maxLedger"      BIGINT,
    columns          TEXT[] NOT NULL,           -- that the row form covers; all others were empty
    digest           BYTEA NOT NULL,
    leaves           BYTEA NOT NULL,            -- the first 8 bytes of each row's digest: to tell which row is altered
    PRIMARY KEY (month, sequence)
);
CREATE INDEX "ArchiveSeal_runId_idx" ON "ArchiveSeal" ("runId");

-- "ArchiveRemoval": the digests of rows that left a sealed batch, so that its seal still verifies. By the entry of kind
-- restored, or completed (an adopted row that got what the former service dropped), that took them.
CREATE TABLE "ArchiveRemoval" (
    month        TEXT NOT NULL,
    "archivedAt" TIMESTAMP(3) NOT NULL,
    id           TEXT NOT NULL,
    "createdAt"  TIMESTAMP NOT NULL,
    digest       BYTEA NOT NULL,
    sequence     INTEGER NOT NULL,
    PRIMARY KEY (month, "archivedAt", id)
);
CREATE INDEX "ArchiveRemoval_month_sequence_idx" ON "ArchiveRemoval" (month, sequence);

-- What is hashed of an entry, before its rows' digests. Timestamps as PostgreSQL writes them (DateStyle ISO).
CREATE FUNCTION archive_seal_header(
    month text, sequence integer, kind text, run_id uuid, rows bigint, first_created_at timestamp, first_id text,
    last_created_at timestamp, last_id text, archived_after timestamp, archived_at timestamp, min_ledger bigint,
    max_ledger bigint, columns text[]
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT convert_to(to_json(ARRAY[
        month, sequence::text, kind, run_id::text, rows::text, first_created_at::text, first_id, last_created_at::text,
        last_id, archived_after::text, archived_at::text, min_ledger::text,
        max_ledger::text
    ] || columns)::text, 'UTF8')
$$;

-- What an entry hashes of a row that left.
CREATE FUNCTION archive_removal_digest(archived_at timestamp, id text, created_at timestamp, digest bytea) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(
        to_json(ARRAY[archived_at::text, id, created_at::text, encode(digest, 'hex')])::text, 'UTF8'
    ))
$$;

-- "MaintenanceFinding": what a run found out about rows and did not hide.
CREATE TABLE "MaintenanceFinding" (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "runId"   UUID NOT NULL,
    kind      TEXT NOT NULL CHECK (kind IN ('hash_mismatch', 'duplicate_dropped', 'duplicate_kept')),
    "logId"   TEXT NOT NULL,
    month     TEXT NOT NULL,
    detail    JSON NOT NULL,                -- not JSONB: a row may have values that only JSON can hold
    "entryHash" TEXT,                       -- of a row that was dropped
    "foundAt" TIMESTAMP(3) NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')
);
CREATE UNIQUE INDEX "MaintenanceFinding_runId_kind_logId_key" ON "MaintenanceFinding" ("runId", kind, "logId");
-- A row that was dropped may be the parent of another.
CREATE INDEX "MaintenanceFinding_entryHash_idx" ON "MaintenanceFinding" ("entryHash")
    WHERE kind = 'duplicate_dropped';

-- "ArchiveVerification": each verification, how far it is, and what it found.
CREATE TABLE "ArchiveVerification" (
    id            UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    month         TEXT,                         -- only this
    "streamId"    TEXT,                         -- only this, by the contract-level id
    "isFull"      BOOLEAN NOT NULL,             -- whether rows of "EventLog" are looked at, too
    status        TEXT NOT NULL CHECK (status IN ('running', 'passed', 'failed', 'interrupted')),
    attempts      INTEGER NOT NULL DEFAULT 1,   -- calls begun; only the last may go on
    position      JSONB,                        -- what was done last; NULL at first
    "rowsTotal"   BIGINT NOT NULL DEFAULT 0,    -- by the ledger; of "EventLog" by the planner's estimate
    "rowsDone"    BIGINT NOT NULL DEFAULT 0,
    "sealsDone"   BIGINT NOT NULL DEFAULT 0,
    breaks        JSONB NOT NULL DEFAULT '[]',  -- the first thousand
    "breakCount"  BIGINT NOT NULL DEFAULT 0,
    "startedAt"   TIMESTAMP(3) NOT NULL,
    "updatedAt"   TIMESTAMP(3) NOT NULL,
    "finishedAt"  TIMESTAMP(3)
);
CREATE INDEX "ArchiveVerification_startedAt_idx" ON "ArchiveVerification" ("startedAt" DESC);

-- "RestoredLog": rows that were moved back into "EventLog" and stay there until they are released.
CREATE TABLE "RestoredLog" (
    id           TEXT PRIMARY KEY,
    "streamId"   TEXT NOT NULL,
    "runId"      UUID NOT NULL
);
CREATE INDEX "RestoredLog_streamId_idx" ON "RestoredLog" ("streamId");
CREATE INDEX "RestoredLog_runId_idx" ON "RestoredLog" ("runId");

-- "LegalHold": streams whose events may not be moved. Who locks the table in SHARE mode knows all holds that are in force.
CREATE TABLE "LegalHold" (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    "streamId"      TEXT NOT NULL,              -- the contract-level id, which events carry; until it is known, Stream.id
    reason          TEXT NOT NULL,
    "heldBy"        TEXT NOT NULL,
    "heldAt"        TIMESTAMP(3) NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    "releaseReason" TEXT,
    "releasedBy"    TEXT,
    "releasedAt"    TIMESTAMP(3)
);
CREATE UNIQUE INDEX "LegalHold_streamId_reason_key" ON "LegalHold" ("streamId", reason) WHERE "releasedAt" IS NULL;

ALTER TABLE "MaintenanceRun"
    DROP CONSTRAINT "MaintenanceRun_scope_check",
    ADD CONSTRAINT "MaintenanceRun_scope_check"
        CHECK (scope IN ('maintenance', 'snapshots', 'archive', 'restore', 'rollback')),
    DROP CONSTRAINT "MaintenanceRun_phase_check",
    ADD CONSTRAINT "MaintenanceRun_phase_check" CHECK (phase IN ('snapshots', 'archive', 'restore', 'vacuum', 'done')),
    DROP CONSTRAINT "MaintenanceRun_status_check",
    ADD CONSTRAINT "MaintenanceRun_status_check"
        CHECK (status IN ('running', 'succeeded', 'succeeded_with_findings', 'failed', 'interrupted')),
    ADD "hashMismatches" BIGINT NOT NULL DEFAULT 0,
    ADD "duplicatesDropped" BIGINT NOT NULL DEFAULT 0,
    ADD "logsRestored" BIGINT NOT NULL DEFAULT 0,
    ADD target JSONB;                           -- what a restore is about; see RestoreTarget

-- As before, and a fourth index: the rows of a batch lie together, so their places go by "archivedAt" in very little room.
CREATE OR REPLACE FUNCTION stream_archive_index_partition(month_start timestamp) RETURNS boolean
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
    name := partition || '_archivedAt_idx';
    IF to_regclass(quote_ident(name)) IS NULL THEN
        EXECUTE format('CREATE INDEX %I ON %I USING brin ("archivedAt") WITH (pages_per_range = 32)', name, partition);
        RETURN true;
    END IF;
    RETURN false;
END
$$;
