-- The columns of "EventLog" in order, each with the type that the archive has it with.
-- Columns: name, quoted (the name as SQL writes it), wanted, own_type (of "EventLog", without length), collation (NULL when the type's own), archived (NULL when
-- the archive lacks the column), is_required, is_generated, default_value (as SQL; NULL for none).
SELECT
    e.attname::text AS name,
    quote_ident(e.attname) AS quoted,
    format_type(e.atttypid, e.atttypmod) AS wanted,
    -- A cast to a type with a length would cut a value off in silence.
    format_type(e.atttypid, -1) AS own_type,
    CASE WHEN e.attcollation <> t.typcollation THEN e.attcollation::regcollation::text END AS collation,
    format_type(a.atttypid, a.atttypmod) AS archived,
    e.attnotnull AS is_required,
    e.attgenerated <> '' AS is_generated,
    pg_get_expr(d.adbin, d.adrelid) AS default_value
FROM pg_attribute e
JOIN pg_type t ON t.oid = e.atttypid
LEFT JOIN pg_attribute a
    ON a.attrelid = '"StreamArchive"'::regclass AND a.attname = e.attname AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = e.attrelid AND d.adnum = e.attnum
WHERE e.attrelid = '"EventLog"'::regclass AND e.attnum > 0 AND NOT e.attisdropped
ORDER BY e.attnum
