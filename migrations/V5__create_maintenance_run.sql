-- "MaintenanceRun": each run of maintenance, what it is about, how far it is, and who works on it.
-- A run is open until "finishedAt"; there is one open run at most. Whoever works on it holds its lease: "leaseHolder" until
-- "leaseExpiresAt". Every transaction of the run renews the lease and records the progress; without the lease it cannot
-- commit. All times are UTC; those of the lease are the database's own, so that no two clocks are compared.
CREATE TABLE "MaintenanceRun" (
    id                  UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    trigger             TEXT NOT NULL CHECK (trigger IN ('schedule', 'api', 'cli')),
    scope               TEXT NOT NULL CHECK (scope IN ('maintenance', 'snapshots', 'archive')),
    period              TEXT UNIQUE CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),   -- of scheduled runs only
    "snapshotMonth"     TEXT NOT NULL CHECK ("snapshotMonth" ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    cutoff              TIMESTAMP NOT NULL,
    refresh             BOOLEAN NOT NULL DEFAULT false,
    force               BOOLEAN NOT NULL DEFAULT false,
    phase               TEXT NOT NULL CHECK (phase IN ('snapshots', 'archive', 'vacuum', 'done')),
    status              TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'interrupted')),
    streams             BIGINT NOT NULL DEFAULT 0,   -- seen so far; all there are, once their snapshots are complete
    "streamsEstimated"  BIGINT,
    "lastStreamId"      TEXT,                        -- Stream.id up to which snapshots were taken; NULL at first
    "snapshotsCreated"  BIGINT NOT NULL DEFAULT 0,
    "unparsedAmounts"   BIGINT NOT NULL DEFAULT 0,
    "rowsEstimated"     BIGINT,                      -- due when archiving began, by the planner's estimate
    "logsArchived"      BIGINT NOT NULL DEFAULT 0,
    "alreadyArchived"   BIGINT NOT NULL DEFAULT 0,
    months              JSONB NOT NULL DEFAULT '{}', -- by month: how far it is, and what stayed; see MonthProgress
    "chainHeadId"       TEXT,
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
    CHECK ((period IS NOT NULL) = (trigger = 'schedule'))
);
-- One open run at most: the constraint decides which of two triggers starts it.
CREATE UNIQUE INDEX "MaintenanceRun_open_key" ON "MaintenanceRun" ((true)) WHERE "finishedAt" IS NULL;
CREATE INDEX "MaintenanceRun_startedAt_id_idx" ON "MaintenanceRun" ("startedAt" DESC, id DESC);

-- "MaintenancePause": while it has its one row, no run goes on and none starts.
CREATE TABLE "MaintenancePause" (
    one        BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    reason     TEXT NOT NULL,
    "pausedBy" TEXT NOT NULL,
    "pausedAt" TIMESTAMP(3) NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')
);
