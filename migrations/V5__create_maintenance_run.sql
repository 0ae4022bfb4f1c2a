-- "MaintenanceRun": each run of maintenance, what it is about, how far it is, and who works on it.
-- A run is open until "finishedAt"; there are one open restore and one open run of another scope at most, and beside a rollback
-- none. Whoever works on it holds its lease: "leaseHolder" until
-- "leaseExpiresAt". Every transaction of the run renews the lease and records the progress; without the lease it cannot
-- commit. All times are UTC; those of the lease are the database's own, so that no two clocks are compared.
CREATE TABLE IF NOT EXISTS "MaintenanceRun" (
    id                  UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    trigger             TEXT NOT NULL CHECK (trigger IN ('schedule', 'api', 'cli')),
    scope               TEXT NOT NULL CHECK (scope IN ('maintenance', 'snapshots', 'archive', 'restore', 'rollback')),
    period              TEXT UNIQUE CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),   -- of scheduled runs only
    "snapshotMonth"     TEXT NOT NULL CHECK ("snapshotMonth" ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    cutoff              TIMESTAMP NOT NULL,
    refresh             BOOLEAN NOT NULL DEFAULT false,
    force               BOOLEAN NOT NULL DEFAULT false,
    phase               TEXT NOT NULL CHECK (phase IN ('snapshots', 'archive', 'restore', 'vacuum', 'done')),
    status              TEXT NOT NULL CHECK (status IN (
                            'running', 'succeeded', 'succeeded_with_findings', 'failed', 'interrupted')),
    streams             BIGINT NOT NULL DEFAULT 0,   -- seen so far; all there are, once their snapshots are complete
    "streamsEstimated"  BIGINT,
    "lastStreamId"      TEXT,                        -- Stream.id up to which snapshots were taken; NULL at first
    "snapshotsCreated"  BIGINT NOT NULL DEFAULT 0,
    "unparsedAmounts"   BIGINT NOT NULL DEFAULT 0,
    "rowsEstimated"     BIGINT,                      -- due when archiving began, by the planner's estimate
    "logsArchived"      BIGINT NOT NULL DEFAULT 0,
    "alreadyArchived"   BIGINT NOT NULL DEFAULT 0,
    months              JSONB NOT NULL DEFAULT '{}', -- by month: how far it is, and what stayed; see MonthProgress
    "heldBack"          JSONB NOT NULL DEFAULT '[]', -- due rows that stayed, by the last look; see StoredHeldBack
    "currentMonth"      TEXT,
    "rowsPerSecond"     DOUBLE PRECISION,
    "batchRows"         INTEGER,                     -- that a batch was cut down to, because more took too long
    "waitingFor"        TEXT,                        -- why the run pauses between two batches
    "stopReason"        TEXT CHECK ("stopReason" IN (
                            'deadline', 'signal', 'paused', 'cancelled', 'error', 'lease_expired')),
    error               TEXT,
    attempts            INTEGER NOT NULL DEFAULT 1,  -- slices begun
    "startedAt"         TIMESTAMP(3) NOT NULL,
    "updatedAt"         TIMESTAMP(3) NOT NULL,
    "finishedAt"        TIMESTAMP(3),
    "leaseHolder"       TEXT,
    "leaseExpiresAt"    TIMESTAMP(3),
    "hashMismatches"    BIGINT NOT NULL DEFAULT 0,
    "duplicatesDropped" BIGINT NOT NULL DEFAULT 0,
    "logsRestored"      BIGINT NOT NULL DEFAULT 0,
    target              JSONB,                       -- what a restore is about; see RestoreTarget
    "hostFindings"      JSONB NOT NULL DEFAULT '[]', -- what the host has that refuses, holds or warns; see HostFinding
    CHECK ((period IS NOT NULL) = (trigger = 'schedule')),
    -- Two lanes: no restore keeps snapshots from being taken. A rollback takes both. The constraint decides which of two
    -- triggers starts a run.
    CONSTRAINT "MaintenanceRun_open_excl" EXCLUDE USING gist ((
        CASE scope WHEN 'restore' THEN int4range(2, 3) WHEN 'rollback' THEN int4range(1, 3) ELSE int4range(1, 2) END
    ) WITH &&) WHERE ("finishedAt" IS NULL)
);
CREATE INDEX IF NOT EXISTS "MaintenanceRun_startedAt_id_idx" ON "MaintenanceRun" ("startedAt" DESC, id DESC);

-- "MaintenancePause": while it has its one row, no run goes on and none starts.
CREATE TABLE IF NOT EXISTS "MaintenancePause" (
    one        BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    reason     TEXT NOT NULL,
    "pausedBy" TEXT NOT NULL,
    "pausedAt" TIMESTAMP(3) NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')
);
