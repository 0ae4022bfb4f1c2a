-- Recomputes the entry hashes of rows of "EventLog", in order of ("createdAt", id). Rows whose time cannot be are left out.
-- $1 and $2 the last row of the batch before (an id of NULL is before all), $3 a stream's contract ids, or NULL for all, $4 most rows, $5 most ids named.
-- One row: rows, last_created_at and last_id (NULL when there was none), mismatches (as verify_seal has them), mismatch_count,
-- is_filtered (whether row security is in force).
WITH batch AS MATERIALIZED (
    SELECT id, "createdAt", {entry_hash} AS entry_hash, {content_hash} AS computed_hash
    FROM "EventLog" e
    WHERE "createdAt" >= GREATEST($1, '0001-01-01') AND "createdAt" < '10000-01-01'
      AND ($2 IS NULL OR ("createdAt", id) > ($1, $2)) AND {of_stream}
    ORDER BY "createdAt", id
    LIMIT $4
)
SELECT
    (SELECT count(*) FROM batch) AS rows,
    last."createdAt" AS last_created_at,
    last.id AS last_id,
    (
        SELECT COALESCE(jsonb_agg(jsonb_build_array(id, entry_hash, computed_hash)), '[]')
        FROM (SELECT * FROM batch WHERE entry_hash <> computed_hash LIMIT $5) mismatch
    ) AS mismatches,
    (SELECT count(*) FROM batch WHERE entry_hash <> computed_hash) AS mismatch_count,
    row_security_active('"EventLog"'::regclass) AS is_filtered
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM batch ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
