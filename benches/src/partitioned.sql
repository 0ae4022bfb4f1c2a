-- Makes the host's empty EventLog a partitioned one, by month on "createdAt", with the same indexes. A key of a partitioned
-- table holds the column that it is partitioned by.
ALTER TABLE "EventLog" RENAME TO "Ordinary";
CREATE TABLE "EventLog" (LIKE "Ordinary" INCLUDING DEFAULTS) PARTITION BY RANGE ("createdAt");
DROP TABLE "Ordinary";
ALTER TABLE "EventLog"
    ADD PRIMARY KEY (id, "createdAt"),
    ADD CONSTRAINT "EventLog_txHash_eventIndex_key" UNIQUE ("txHash", "eventIndex", "createdAt");
CREATE INDEX "EventLog_streamId_idx"           ON "EventLog" ("streamId");
CREATE INDEX "EventLog_eventType_idx"          ON "EventLog" ("eventType");
CREATE INDEX "EventLog_createdAt_idx"          ON "EventLog" ("createdAt");
CREATE INDEX "EventLog_ledger_idx"             ON "EventLog" (ledger);
CREATE INDEX "EventLog_streamId_createdAt_idx" ON "EventLog" ("streamId", "createdAt" DESC);
DO $$
DECLARE
    month timestamp := '2025-05-01';
BEGIN
    WHILE month < '2026-07-01' LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF "EventLog" FOR VALUES FROM (%L) TO (%L)',
            'EventLog_' || to_char(month, 'YYYY_MM'), month, month + interval '1 month'
        );
        month := month + interval '1 month';
    END LOOP;
END
$$;
