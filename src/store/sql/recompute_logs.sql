-- Recomputes the entry hashes of rows of "EventLog", in order of ("createdAt", id). Rows whose time cannot be are left out.
-- Parameters: after_created_at and after_id (the last row of the batch before; an id of NULL is before all), contract_ids (a
-- stream's; only of_stream names them), limit (most rows), named (most ids named). Parts: id_type (of EventLog.id), entry_hash (as stored), content_hash (as
-- computed), of_stream (a condition on e).
-- One row: rows, last_created_at and last_id (NULL when there was none), mismatches (as verify_seal has them), mismatch_count,
-- is_filtered (whether row security is in force).
-- \set after_created_at '''-infinity''::timestamp'
-- \set after_id 'NULL::text'
-- \set id_type text
-- \set limit '1000'
-- \set named '1000'
-- \set entry_hash 'entry_hash::text'
-- \set content_hash 'encode(sha256(convert_to(id::text, ''UTF8'')), ''hex'')'
-- \set of_stream 'true'
WITH batch AS MATERIALIZED (
    SELECT id, "createdAt", :entry_hash AS entry_hash, :content_hash AS computed_hash
    FROM "EventLog" e
    WHERE "createdAt" >= GREATEST(:after_created_at, '0001-01-01') AND "createdAt" < '10000-01-01'
      AND (:after_id IS NULL OR ("createdAt", id) > (:after_created_at, CAST(CAST(:after_id AS text) AS :id_type))) AND :of_stream
    ORDER BY "createdAt", id
    LIMIT :limit
)
SELECT
    (SELECT count(*) FROM batch) AS rows,
    last."createdAt"::timestamp AS last_created_at,
    last.id::text AS last_id,
    (
        SELECT COALESCE(jsonb_agg(jsonb_build_array(id::text, entry_hash, computed_hash)), '[]')
        FROM (SELECT * FROM batch WHERE entry_hash <> computed_hash LIMIT :named) mismatch
    ) AS mismatches,
    (SELECT count(*) FROM batch WHERE entry_hash <> computed_hash) AS mismatch_count,
    row_security_active('"EventLog"'::regclass) AS is_filtered
FROM (SELECT) one
LEFT JOIN (SELECT "createdAt", id FROM batch ORDER BY "createdAt" DESC, id DESC LIMIT 1) last ON true
