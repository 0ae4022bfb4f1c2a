-- The seals: every batch that enters or leaves a month of the archive is sealed, with a digest over its rows, in a chain of the month's
-- seals. The service computes the digests; docs/SEALS.md says how.

-- Where somebody dropped the seals, the chains' ends and the removals prove nothing: the rows that are there are sealed anew, by
-- `migrate`, which says so.
DO $$
BEGIN
    IF to_regclass('"ArchiveSeal"') IS NULL THEN
        IF to_regclass('"ArchiveRemoval"') IS NOT NULL THEN
            DELETE FROM "ArchiveRemoval";
        END IF;
        IF to_regclass('"ArchiveMonth"') IS NOT NULL THEN
            DELETE FROM "ArchiveMonth";
        END IF;
    END IF;
END
$$;

-- "ArchiveMonth": each month's chain of seals, and who works on the month. Rows enter and leave a month of the archive only under its
-- lease. The fencing token is new for each claim. A commit advances the chain under the condition that the token is still its own.
CREATE TABLE IF NOT EXISTS "ArchiveMonth" (
    month            TEXT PRIMARY KEY CHECK (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    seals            INTEGER NOT NULL DEFAULT 0,    -- sequence of the last
    digest           BYTEA NOT NULL,                -- of the last; of the month's name, before the first
    "archivedAt"     TIMESTAMP(3),                  -- up to which rows are sealed: no later seal has rows before it
    "runId"          UUID,                          -- the run that has the lease
    "leaseHolder"    TEXT,
    token            UUID,                          -- the fencing token; NULL while nobody works on the month
    "leaseExpiresAt" TIMESTAMP(3)
);

-- "ArchiveSeal": each seal has the rows of its month whose "archivedAt" is after the seal's "archivedAfter" and not after its
-- "archivedAt": each batch has an instant of its own. A seal of kind restored has "ArchiveRemoval"'s instead.
CREATE TABLE IF NOT EXISTS "ArchiveSeal" (
    month            TEXT NOT NULL,
    sequence         INTEGER NOT NULL,          -- from 1, without gaps
    kind             TEXT NOT NULL CHECK (kind IN ('archived', 'adopted', 'restored')),
    "runId"          UUID,                      -- NULL: rows copied from the former service's archive
    rows             BIGINT NOT NULL,
    "firstCreatedAt" TIMESTAMP NOT NULL,
    "firstId"        TEXT NOT NULL,
    "lastCreatedAt"  TIMESTAMP NOT NULL,
    "lastId"         TEXT NOT NULL,
    "archivedAfter"  TIMESTAMP(3),
    "archivedAt"     TIMESTAMP(3),
    "minLedger"      BIGINT,                    -- the oldest and the newest ledger number of its rows
    "maxLedger"      BIGINT,
    columns          TEXT[] NOT NULL,           -- of the rows, all others were empty
    "presentColumns" TEXT[],                    -- what these are called since one was renamed: no part of what is sealed. NULL: the same;
                                                -- a NULL among them: that column was empty, and is gone
    unlinked         TEXT[] NOT NULL DEFAULT '{}',   -- for each row whose parent was nowhere when it was archived, its "parent_hash":
                                                -- no part of what is sealed
    "linksChecked"   BOOLEAN NOT NULL DEFAULT true,  -- false: these parents are not among the batch's own rows, and may be elsewhere
    digest           BYTEA NOT NULL,
    leaves           BYTEA NOT NULL,            -- the first 8 bytes of each row's digest: to tell which row is altered
    PRIMARY KEY (month, sequence)
);
-- A log whose links are all broken has a parent for each row here: to compress them takes longer than to write them.
ALTER TABLE "ArchiveSeal" ALTER unlinked SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS "ArchiveSeal_runId_idx" ON "ArchiveSeal" ("runId");
CREATE INDEX IF NOT EXISTS "ArchiveSeal_unchecked_idx" ON "ArchiveSeal" (month) WHERE NOT "linksChecked";

-- Where somebody dropped the chains' ends, they follow from the seals.
INSERT INTO "ArchiveMonth" (month, seals, digest, "archivedAt")
SELECT month, max(sequence), (array_agg(digest ORDER BY sequence DESC))[1], max("archivedAt")
FROM "ArchiveSeal" GROUP BY month
ON CONFLICT DO NOTHING;
ALTER TABLE "ArchiveSeal"
    DROP CONSTRAINT IF EXISTS "ArchiveSeal_month_fkey",
    ADD CONSTRAINT "ArchiveSeal_month_fkey" FOREIGN KEY (month) REFERENCES "ArchiveMonth";

-- "ArchiveRemoval": the digests of rows that left a sealed batch, so that its seal still verifies. By the seal of kind
-- restored that took them.
CREATE TABLE IF NOT EXISTS "ArchiveRemoval" (
    month        TEXT NOT NULL,
    "archivedAt" TIMESTAMP(3) NOT NULL,
    id           TEXT NOT NULL,
    "createdAt"  TIMESTAMP NOT NULL,
    digest       BYTEA NOT NULL,
    sequence     INTEGER NOT NULL,
    PRIMARY KEY (month, "archivedAt", id)
);
CREATE INDEX IF NOT EXISTS "ArchiveRemoval_month_sequence_idx" ON "ArchiveRemoval" (month, sequence);

-- "MaintenanceFinding": what a run found out about rows and did not hide.
CREATE TABLE IF NOT EXISTS "MaintenanceFinding" (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "runId"   UUID NOT NULL,
    kind      TEXT NOT NULL CHECK (kind IN ('hash_mismatch', 'link_missing', 'duplicate_dropped', 'duplicate_kept')),
    "logId"   TEXT NOT NULL,
    month     TEXT NOT NULL,
    detail    JSON NOT NULL,                -- not JSONB: a row may have values that only JSON can hold
    "entryHash" TEXT,                       -- of a row that was dropped
    "foundAt" TIMESTAMP(3) NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')
);
CREATE UNIQUE INDEX IF NOT EXISTS "MaintenanceFinding_runId_kind_logId_key" ON "MaintenanceFinding" ("runId", kind, "logId");
-- A row that was dropped may be the parent of another.
CREATE INDEX IF NOT EXISTS "MaintenanceFinding_entryHash_idx" ON "MaintenanceFinding" ("entryHash")
    WHERE kind = 'duplicate_dropped';

-- "ArchiveVerification": each verification, how far it is, and what it found.
CREATE TABLE IF NOT EXISTS "ArchiveVerification" (
    id            UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    month         TEXT,                         -- only this
    "streamId"    TEXT,                         -- only this, by the contract-level id
    "isFull"      BOOLEAN NOT NULL,             -- whether rows of "EventLog" are looked at, too
    status        TEXT NOT NULL CHECK (status IN ('running', 'passed', 'failed', 'interrupted')),
    "rowsTotal"   BIGINT NOT NULL DEFAULT 0,    -- by the seals; of "EventLog" by the planner's estimate
    "rowsDone"    BIGINT NOT NULL DEFAULT 0,
    "sealsDone"   BIGINT NOT NULL DEFAULT 0,
    breaks        JSONB NOT NULL DEFAULT '[]',  -- what is not as it was archived: the first thousand
    "breakCount"  BIGINT NOT NULL DEFAULT 0,
    findings      JSONB NOT NULL DEFAULT '[]',  -- what the host's hash chain lacks, and lacked when it was archived: the first thousand
    "findingCount" BIGINT NOT NULL DEFAULT 0,
    "completedByHost" BIGINT NOT NULL DEFAULT 0, -- rows whose hash is that of what they were before the host completed their metadata
    "startedAt"   TIMESTAMP(3) NOT NULL,
    "updatedAt"   TIMESTAMP(3) NOT NULL,
    "finishedAt"  TIMESTAMP(3)
);
CREATE INDEX IF NOT EXISTS "ArchiveVerification_startedAt_idx" ON "ArchiveVerification" ("startedAt" DESC);

-- "VerificationTask": what a verification that has not ended looks at, in order of place. Whoever works on a task has its lease.
CREATE TABLE IF NOT EXISTS "VerificationTask" (
    "verificationId" UUID NOT NULL,
    place            INTEGER NOT NULL,
    kind             TEXT NOT NULL CHECK (kind IN ('partitions', 'seal', 'month', 'links', 'logs', 'log_links')),
    month            TEXT,                      -- of a seal, a month or its links
    sequence         INTEGER,                   -- of a seal
    "afterCreatedAt" TIMESTAMP,                 -- the last row of "EventLog" that was looked at
    "afterId"        TEXT,
    done             BOOLEAN NOT NULL DEFAULT false,
    token            UUID,                      -- the fencing token; NULL while nobody works on the task
    "leaseExpiresAt" TIMESTAMP(3),
    PRIMARY KEY ("verificationId", place)
);

-- "FormerTable": the tables that the former service left, and how many rows each had when `migrate` copied them.
CREATE TABLE IF NOT EXISTS "FormerTable" (
    name TEXT PRIMARY KEY,                      -- as SQL writes it, with its schema
    rows BIGINT NOT NULL
);

-- "RestoredLog": rows that were moved back into "EventLog" and stay there until they are released.
CREATE TABLE IF NOT EXISTS "RestoredLog" (
    id           TEXT PRIMARY KEY,
    "streamId"   TEXT,
    "runId"      UUID NOT NULL
);
CREATE INDEX IF NOT EXISTS "RestoredLog_streamId_idx" ON "RestoredLog" ("streamId");
CREATE INDEX IF NOT EXISTS "RestoredLog_runId_idx" ON "RestoredLog" ("runId");

-- "LegalHold": streams whose events may not be moved. Who locks the table in SHARE mode knows all holds that are in force.
CREATE TABLE IF NOT EXISTS "LegalHold" (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    "streamId"      TEXT NOT NULL,              -- the contract-level id, which events carry; until it is known, Stream.id
    reason          TEXT NOT NULL,
    "heldBy"        TEXT NOT NULL,
    "heldAt"        TIMESTAMP(3) NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    "releaseReason" TEXT,
    "releasedBy"    TEXT,
    "releasedAt"    TIMESTAMP(3)
);
CREATE UNIQUE INDEX IF NOT EXISTS "LegalHold_streamId_reason_key" ON "LegalHold" ("streamId", reason) WHERE "releasedAt" IS NULL;
