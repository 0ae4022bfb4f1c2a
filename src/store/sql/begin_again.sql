-- Begins months of a run again, in which due rows are left that nothing holds. A month is left as it is after :most_passes, and after a
-- pass that moved nothing: others use its rows.
-- :run is the run, :months are the months. Column: month, one row for each that is begun again.
-- \set run 'gen_random_uuid()'
-- \set months '''{2026-01}''::text[]'
-- \set most_passes 4
UPDATE "RunMonth"
SET passes = passes + 1, done = false, moved = 0, "afterCreatedAt" = NULL, "afterId" = NULL
WHERE "runId" = :run AND month = ANY (:months) AND passes < :most_passes AND (passes = 0 OR moved > 0)
RETURNING month
