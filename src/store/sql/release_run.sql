-- Gives the lease of a run back: the run is done, or is left for whoever continues it.
-- :run and :token are the owner's, :status, :stop_reason and :error (or NULL) say how it ends, :is_finished whether the run does.
-- \set run 'gen_random_uuid()'
-- \set token 'gen_random_uuid()'
-- \set status '''succeeded'''
-- \set stop_reason NULL
-- \set error NULL
-- \set is_finished true
UPDATE "MaintenanceRun" r
SET
    "leaseHolder" = NULL,
    token = NULL,
    "leaseExpiresAt" = NULL,
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    "finishedAt" = CASE WHEN :is_finished THEN clock_timestamp() AT TIME ZONE 'UTC' END,
    phase = CASE WHEN :is_finished THEN 'done' ELSE phase END,
    -- What a run found out is not hidden behind its success.
    status = CASE
        WHEN :status = 'succeeded' AND EXISTS (
            SELECT FROM "RunMonth" w WHERE w."runId" = r.id AND (w."hashMismatches" > 0 OR w."linksMissing" > 0)
        )
        THEN 'succeeded_with_findings' ELSE :status
    END,
    "stopReason" = :stop_reason,
    error = :error,
    "waitingFor" = NULL
WHERE id = :run AND token = :token AND "finishedAt" IS NULL
