-- Rows whose parent is not where it is looked for.
-- $1 a stream's contract ids, or NULL for all, $2 most rows. Columns: id, parent_hash.
SELECT r.id, r.parent_hash
FROM {rows} r
WHERE r.parent_hash IS NOT NULL
  AND {of_stream}
  AND NOT EXISTS (SELECT FROM {rows} p WHERE p.entry_hash = r.parent_hash)
LIMIT $2
