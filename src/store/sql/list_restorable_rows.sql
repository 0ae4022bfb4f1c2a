-- The rows that the next batch of a restore would put into "EventLog".
-- What is set is as restore_candidates has it. One row: places, as text, in order.
-- \set limit 10
-- \set held '''{}''::text[]'
-- \set refused_places '''{}''::text[]'
-- \set partition '"StreamArchive_2026_01"'
-- \set key ''
-- \set lacking NULL::text
-- \set after true
-- \set matches true
-- \set is_returned true
-- \set same_event 'SELECT NULL AS yes'
-- \set copy 1
-- \set candidates `cat restore_candidates.sql`
WITH :candidates
SELECT ARRAY(SELECT place::text FROM candidate WHERE obstacle IS NULL AND is_returned ORDER BY place) AS places
