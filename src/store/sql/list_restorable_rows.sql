-- The rows that the next batch of a restore would move.
-- $1 to $12 as of restore_candidates. One row: places, as text, in order.
WITH {candidates}
SELECT ARRAY(SELECT place::text FROM candidate WHERE obstacle IS NULL ORDER BY place) AS places
