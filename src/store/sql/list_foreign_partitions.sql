-- Partitions of "StreamArchive" that are not of one month, by their name and bounds.
-- Columns: name, bounds.
SELECT p.relname::text AS name, pg_get_expr(p.relpartbound, p.oid) AS bounds
FROM pg_inherits i
JOIN pg_class p ON p.oid = i.inhrelid
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN p.relname ~ '^StreamArchive_[0-9]{4}_(0[1-9]|1[0-2])$' THEN to_date(right(p.relname, 7), 'YYYY_MM')
    END AS month
) name
WHERE i.inhparent = '"StreamArchive"'::regclass
  AND pg_get_expr(p.relpartbound, p.oid) IS DISTINCT FROM format(
      'FOR VALUES FROM (%L) TO (%L)', name.month::timestamp(3), (name.month + interval '1 month')::timestamp(3)
  )
ORDER BY p.relname
