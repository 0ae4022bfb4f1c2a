-- Months whose partition of the archive lacks an index: a slice that ended while it loaded them left them so. An index goes
-- by the name that stream_archive_index_partition gives it.
-- Column: month, as YYYY-MM, oldest first.
SELECT replace(right(p.relname, 7), '_', '-') AS month
FROM pg_inherits i
JOIN pg_class p ON p.oid = i.inhrelid
CROSS JOIN LATERAL (
    SELECT array_agg(substr(x.relname, length(p.relname) + 2)) AS names
    FROM pg_index
    JOIN pg_class x ON x.oid = indexrelid
    WHERE indrelid = p.oid
) indexes
WHERE i.inhparent = '"StreamArchive"'::regclass
  AND p.relname ~ '^StreamArchive_[0-9]{4}_[0-9]{2}$'
  AND NOT COALESCE(
      names && '{pkey,id_createdAt_key}' AND names && '{streamId_createdAt_idx}'
          AND names && '{txHash_eventIndex_idx,txHash_idx}' AND names && '{archivedAt_idx}',
      false)
ORDER BY p.relname
