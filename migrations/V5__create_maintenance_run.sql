-- "MaintenanceRun": each run of maintenance, what it is about, how far it is, and who owns it.
-- A run is open until "finishedAt". At most one restore and one run of another scope are open; beside a rollback there is none.
-- The owner of a run has its lease until "leaseExpiresAt". The fencing token is new for each owner: a former owner cannot commit. All
-- times are UTC. Those of leases are the database's own, so that no two clocks are compared.
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
    "leaseHolder"       TEXT,                        -- the owner: a program, or an execution of the state machine
    token               UUID,                        -- the fencing token; NULL while nobody owns the run
    "leaseExpiresAt"    TIMESTAMP(3),
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

-- "RunMonth": each month that a run works on, how far the run is there, and what it has done. A run's totals are the sums.
CREATE TABLE IF NOT EXISTS "RunMonth" (
    "runId"             UUID NOT NULL,
    month               TEXT NOT NULL CHECK (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    done                BOOLEAN NOT NULL DEFAULT false,      -- all rows were looked at
    passes              INTEGER NOT NULL DEFAULT 0,          -- how often the run began the month again, because due rows were left
    "afterCreatedAt"    TIMESTAMP,                           -- the last row that was looked at; NULL at the start of a pass
    "afterId"           TEXT,
    place               TEXT,                                -- where this row is in its partition, for a restore
    moved               BIGINT NOT NULL DEFAULT 0,           -- rows moved in this pass
    "rowsToRestore"     BIGINT,                              -- counted before a restore moves the first row
    "logsArchived"      BIGINT NOT NULL DEFAULT 0,
    "alreadyArchived"   BIGINT NOT NULL DEFAULT 0,
    "duplicatesDropped" BIGINT NOT NULL DEFAULT 0,
    "hashMismatches"    BIGINT NOT NULL DEFAULT 0,
    "completedByHost"   BIGINT NOT NULL DEFAULT 0,           -- rows whose hash is that of what they were before the host completed them
    "linksMissing"      BIGINT NOT NULL DEFAULT 0,           -- rows whose parent was nowhere
    "logsRestored"      BIGINT NOT NULL DEFAULT 0,
    "onHold"            BIGINT NOT NULL DEFAULT 0,           -- rows that a restore left, under legal hold
    conflicts           BIGINT NOT NULL DEFAULT 0,           -- rows that a restore left, because "EventLog" does not take them
    "conflictDetails"   JSONB NOT NULL DEFAULT '[]',         -- the first hundred of these; see ConflictDetail
    PRIMARY KEY ("runId", month)
);

-- "MaintenancePause": while it has its one row, no run goes on and none starts.
CREATE TABLE IF NOT EXISTS "MaintenancePause" (
    one        BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    reason     TEXT NOT NULL,
    "pausedBy" TEXT NOT NULL,
    "pausedAt" TIMESTAMP(3) NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')
);
