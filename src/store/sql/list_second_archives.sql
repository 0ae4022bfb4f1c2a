-- Tables that look like a second archive of the log: they have its principal columns, and are neither the log's nor the
-- service's own. Reads pg_attribute as a whole, so only `migrate` and `doctor` ask.
-- Columns: name (as SQL writes it), may_read, has_pages (whether it takes any room). In order.
WITH own AS (
    SELECT to_regclass('"EventLog"')::oid AS oid
    UNION ALL SELECT to_regclass('"StreamArchive"')
    -- The former service's, which is copied.
    UNION ALL
    SELECT c.oid FROM pg_class c JOIN pg_class log ON log.oid = to_regclass('"EventLog"') AND log.relnamespace = c.relnamespace
    WHERE c.relname = 'StreamArchive'
    UNION ALL SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = to_regclass('"StreamArchive"')
),
candidate AS (
    SELECT a.attrelid AS oid
    FROM pg_attribute a
    WHERE a.attnum > 0 AND NOT a.attisdropped
      AND a.attname IN ('id', 'eventType', 'streamId', 'txHash', 'ledger', 'createdAt')
    GROUP BY a.attrelid
    HAVING count(*) = 6
)
SELECT
    format('%I.%I', n.nspname, c.relname) AS name,
    has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AND NOT row_security_active(c.oid) AS may_read,
    pg_relation_size(c.oid) + COALESCE((SELECT sum(pg_relation_size(t.relid)) FROM pg_partition_tree(c.oid) t), 0) > 0 AS has_pages
FROM candidate k
JOIN pg_class c USING (oid)
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND c.oid NOT IN (SELECT oid FROM own WHERE oid IS NOT NULL)
  -- A month of the archive that somebody has detached.
  AND c.relname !~ '^StreamArchive_[0-9]{4}_[0-9]{2}$'
  -- Tables that inherit from the log are part of it.
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent IN (SELECT oid FROM own))
ORDER BY 1
