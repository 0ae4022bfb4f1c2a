-- Renews the lease and records progress, in the transaction that made it: the row stays locked until that commits, so
-- nobody can take the lease in between.
-- :run and :holder are whose lease it is, which lasts :lease_seconds; :month and :month_holder of a slice that works on one month beside
-- others, else NULL. What changed follows, each NULL for nothing. Set: :phase, :streams, :streams_estimated, :rows_estimated,
-- :held_back, :current_month, :rows_per_second, :waiting_for (empty for nothing), :last_stream, :batch_rows, and :months, the progress
-- of some. Added: :snapshots_created, :unparsed_amounts, :logs_archived, :already_archived, :duplicates_dropped, :hash_mismatches,
-- :logs_restored. One row: paused; none when the lease is lost.
-- \set run 'gen_random_uuid()'
-- \set holder '''me'''
-- \set lease_seconds 60::float8
-- \set phase '''archive'''
-- \set streams NULL::bigint
-- \set streams_estimated NULL::bigint
-- \set snapshots_created 0
-- \set unparsed_amounts 0
-- \set rows_estimated NULL::bigint
-- \set logs_archived 0
-- \set already_archived 0
-- \set months NULL::jsonb
-- \set held_back NULL::jsonb
-- \set current_month NULL
-- \set rows_per_second NULL::float8
-- \set waiting_for NULL::text
-- \set last_stream NULL
-- \set batch_rows NULL::integer
-- \set duplicates_dropped 0
-- \set hash_mismatches 0
-- \set logs_restored 0
-- \set month '''2026-01'''
-- \set month_holder NULL
UPDATE "MaintenanceRun"
SET
    "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second',
    "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
    phase = COALESCE(:phase, phase),
    streams = COALESCE(:streams, streams),
    "streamsEstimated" = COALESCE(:streams_estimated, "streamsEstimated"),
    -- As JSON, since "as before" and "none" differ.
    "lastStreamId" = CASE WHEN :last_stream IS NULL THEN "lastStreamId" ELSE :last_stream::json #>> '{}' END,
    "snapshotsCreated" = "snapshotsCreated" + COALESCE(:snapshots_created, 0),
    "unparsedAmounts" = "unparsedAmounts" + COALESCE(:unparsed_amounts, 0),
    "rowsEstimated" = COALESCE(:rows_estimated, "rowsEstimated"),
    "logsArchived" = "logsArchived" + COALESCE(:logs_archived, 0),
    "alreadyArchived" = "alreadyArchived" + COALESCE(:already_archived, 0),
    months = CASE WHEN :months IS NULL THEN months ELSE months || :months END,
    "heldBack" = COALESCE(:held_back, "heldBack"),
    "currentMonth" = COALESCE(:current_month, "currentMonth"),
    "rowsPerSecond" = COALESCE(:rows_per_second, "rowsPerSecond"),
    "waitingFor" = CASE WHEN :waiting_for IS NULL THEN "waitingFor" ELSE NULLIF(:waiting_for, '') END,
    "batchRows" = COALESCE(:batch_rows, "batchRows"),
    "duplicatesDropped" = "duplicatesDropped" + COALESCE(:duplicates_dropped, 0),
    "hashMismatches" = "hashMismatches" + COALESCE(:hash_mismatches, 0),
    "logsRestored" = "logsRestored" + COALESCE(:logs_restored, 0)
WHERE id = :run AND "leaseHolder" = :holder AND "finishedAt" IS NULL
  AND (:month IS NULL OR months -> :month ->> 'holder' = :month_holder)
RETURNING EXISTS (SELECT FROM "MaintenancePause") AS paused
