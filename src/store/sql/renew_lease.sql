-- Renews the lease and records progress, in the transaction that made it: the row stays locked until that commits, so
-- nobody can take the lease in between.
-- $1 run, $2 holder, $3 seconds that the lease lasts; then what changed, each NULL for nothing: $4 phase, $5 streams seen,
-- $6 streams estimated, $7 snapshots added, $8 unparsed amounts added, $9 rows estimated, $10 logs archived added,
-- $11 logs dropped added, $12 progress of months, $13 due rows that stayed, $14 month, $15 rows per second,
-- $16 what is waited for (empty for nothing), $17 the last stream seen, $18 rows that a batch was cut down to, $19
-- duplicates dropped added, $20 hash mismatches added, $21 logs restored added; $22 the month and $23 who has it, of a
-- slice that works on one month beside others, else NULL.
-- One row: paused; none when the lease is lost.
UPDATE "MaintenanceRun"
SET
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + $3 * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    phase = COALESCE($4, phase),
    streams = COALESCE($5, streams),
    "streamsEstimated" = COALESCE($6, "streamsEstimated"),
    -- As JSON, since "as before" and "none" differ.
    "lastStreamId" = CASE WHEN $17 IS NULL THEN "lastStreamId" ELSE $17::json #>> '{}' END,
    "snapshotsCreated" = "snapshotsCreated" + COALESCE($7, 0),
    "unparsedAmounts" = "unparsedAmounts" + COALESCE($8, 0),
    "rowsEstimated" = COALESCE($9, "rowsEstimated"),
    "logsArchived" = "logsArchived" + COALESCE($10, 0),
    "alreadyArchived" = "alreadyArchived" + COALESCE($11, 0),
    months = CASE WHEN $12 IS NULL THEN months ELSE months || $12 END,
    "heldBack" = COALESCE($13, "heldBack"),
    "currentMonth" = COALESCE($14, "currentMonth"),
    "rowsPerSecond" = COALESCE($15, "rowsPerSecond"),
    "waitingFor" = CASE WHEN $16 IS NULL THEN "waitingFor" ELSE NULLIF($16, '') END,
    "batchRows" = COALESCE($18, "batchRows"),
    "duplicatesDropped" = "duplicatesDropped" + COALESCE($19, 0),
    "hashMismatches" = "hashMismatches" + COALESCE($20, 0),
    "logsRestored" = "logsRestored" + COALESCE($21, 0)
WHERE id = $1 AND "leaseHolder" = $2 AND "finishedAt" IS NULL
  AND ($22 IS NULL OR months -> $22 ->> 'holder' = $23)
RETURNING EXISTS (SELECT FROM "MaintenancePause") AS paused
