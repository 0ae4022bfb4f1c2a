-- Rows whose parent is not where it is looked for.
-- $1 a stream's contract-level id, or NULL for all, $2 most rows. Columns: id, parent_hash.
SELECT r.id, r.parent_hash
FROM {rows} r
WHERE r.parent_hash IS NOT NULL
  AND ($1 IS NULL OR r."streamId" = $1)
  AND NOT EXISTS (SELECT FROM {rows} p WHERE p.entry_hash = r.parent_hash)
LIMIT $2
