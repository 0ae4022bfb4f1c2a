-- A table that the former service has left in the host's schema.
-- :table is its name, :columns are names of columns that it must have.
-- One row or none: name (as SQL writes it, with its schema), columns (names of all that it has).
-- \set table '''StreamArchive'''
-- \set columns '''{id}''::text[]'
SELECT format('%I.%I', n.nspname, c.relname) AS name, has.columns
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT array_agg(attname::text ORDER BY attnum) AS columns
    FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
) has
WHERE c.relname = :table AND c.relkind IN ('r', 'p')
  AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = '"EventLog"'::regclass)
  AND has.columns @> :columns
