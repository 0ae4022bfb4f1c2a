-- Ends a slice: the run is done, or is left for whoever continues it.
-- :run and :holder are whose lease it is, :status, :stop_reason and :error (or NULL) how it ends, :is_finished whether the run does.
-- \set run 'gen_random_uuid()'
-- \set holder '''me'''
-- \set status '''succeeded'''
-- \set stop_reason NULL
-- \set error NULL
-- \set is_finished true
UPDATE "MaintenanceRun"
SET
    "leaseHolder" = NULL,
    "leaseExpiresAt" = NULL,
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    "finishedAt" = CASE WHEN :is_finished THEN clock_timestamp() AT TIME ZONE 'UTC' END,
    phase = CASE WHEN :is_finished THEN 'done' ELSE phase END,
    -- What a run found out is not hidden behind its success.
    status = CASE WHEN :status = 'succeeded' AND "hashMismatches" > 0 THEN 'succeeded_with_findings' ELSE :status END,
    "stopReason" = :stop_reason,
    error = :error,
    "waitingFor" = NULL
WHERE id = :run AND "leaseHolder" = :holder AND "finishedAt" IS NULL
