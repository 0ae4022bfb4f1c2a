-- Rows whose parent is not where it is looked for.
-- Parameters: contract_ids (a stream's; only of_stream names them), limit (most rows). Parts: rows (a month's, or "EventLog"),
-- of_stream (a condition on r).
-- Columns: id, parent_hash.
-- \set limit '1000'
-- \set rows '"StreamArchive_2026_01"'
-- \set of_stream 'true'
SELECT r.id::text AS id, r.parent_hash::text AS parent_hash
FROM :rows r
WHERE r.parent_hash IS NOT NULL
  AND :of_stream
  AND NOT EXISTS (SELECT FROM :rows p WHERE p.entry_hash = r.parent_hash)
LIMIT :limit
