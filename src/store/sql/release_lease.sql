-- Ends a slice: the run is done, or is left for whoever continues it.
-- $1 run, $2 holder, $3 status, $4 why it stopped or NULL, $5 error or NULL, $6 whether the run is finished.
UPDATE "MaintenanceRun"
SET
    "leaseHolder" = NULL,
    "leaseExpiresAt" = NULL,
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    "finishedAt" = CASE WHEN $6 THEN clock_timestamp() AT TIME ZONE 'UTC' END,
    phase = CASE WHEN $6 THEN 'done' ELSE phase END,
    -- What a run found out is not hidden behind its success.
    status = CASE WHEN $3 = 'succeeded' AND "hashMismatches" > 0 THEN 'succeeded_with_findings' ELSE $3 END,
    "stopReason" = $4,
    error = $5,
    "waitingFor" = NULL
WHERE id = $1 AND "leaseHolder" = $2 AND "finishedAt" IS NULL
