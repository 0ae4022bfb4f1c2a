-- The columns of "EventLog" in order, each with the type that the archive has it with. That is the log's own where it is
-- PostgreSQL's; a type or a collation of the host's is the host's to alter and drop, so nothing may depend on it: such a
-- column is text in the archive, or an array of text. So is a column that names an object of the host's, such as a regclass:
-- its text changes with the object's name. Three columns that the engine looks for or computes with have the type that a
-- domain is made of. "createdAt" is UTC without a zone: the archive's can never be altered, since it partitions.
-- Columns: name, hot (its type in "EventLog", of any length), wanted (the archive's), is_foreign (whether hot is a type of the host's), collation
-- (NULL when the type's own, or the host's), archived (NULL when the archive lacks the column), is_taken (whether the archive
-- has a column of this name for itself), is_required, is_generated, default_value (as SQL; NULL for none), sequence
-- (that an identity column counts by; NULL for none).
SELECT
    e.attname::text AS name,
    format_type(e.atttypid, -1) AS hot,
    CASE
        WHEN e.attname = 'createdAt' AND base.oid IN ('timestamp'::regtype, 'timestamptz'::regtype, 'date'::regtype)
            THEN 'timestamp without time zone'
        WHEN t.typname ~ '^_reg' AND t.typnamespace = 'pg_catalog'::regnamespace THEN 'text[]'
        WHEN t.typname ~ '^reg' AND t.typnamespace = 'pg_catalog'::regnamespace THEN 'text'
        WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN format_type(e.atttypid, e.atttypmod)
        WHEN e.attname IN ('id', 'ledger', 'eventIndex') AND base.typnamespace = 'pg_catalog'::regnamespace
            THEN format_type(base.oid, base.modifier)
        WHEN t.typtype = 'b' AND t.typcategory = 'A' THEN 'text[]'
        ELSE 'text'
    END AS wanted,
    t.typnamespace <> 'pg_catalog'::regnamespace AS is_foreign,
    c.oid::regcollation::text AS collation,
    format_type(a.atttypid, a.atttypmod) AS archived,
    e.attname = 'archivedAt' AS is_taken,
    e.attnotnull AS is_required,
    e.attgenerated <> '' AS is_generated,
    pg_get_expr(d.adbin, d.adrelid) AS default_value,
    CASE WHEN e.attidentity <> '' THEN pg_get_serial_sequence('"EventLog"', e.attname) END AS sequence
FROM pg_attribute e
JOIN pg_type t ON t.oid = e.atttypid
CROSS JOIN LATERAL (
    -- What a domain is made of, at whatever depth.
    WITH RECURSIVE made_of (oid, modifier, depth) AS (
        SELECT e.atttypid, e.atttypmod, 0
        UNION ALL
        SELECT d.typbasetype, CASE WHEN d.typtypmod >= 0 THEN d.typtypmod ELSE m.modifier END, m.depth + 1
        FROM made_of m JOIN pg_type d ON d.oid = m.oid AND d.typtype = 'd'
    )
    SELECT b.*, m.modifier FROM made_of m JOIN pg_type b ON b.oid = m.oid ORDER BY m.depth DESC LIMIT 1
) base
LEFT JOIN pg_collation c
    ON c.oid = e.attcollation AND c.oid <> t.typcollation AND c.collnamespace = 'pg_catalog'::regnamespace
    AND t.typnamespace = 'pg_catalog'::regnamespace
LEFT JOIN pg_attribute a
    ON a.attrelid = to_regclass('"StreamArchive"') AND a.attname = e.attname AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = e.attrelid AND d.adnum = e.attnum
WHERE e.attrelid = '"EventLog"'::regclass AND e.attnum > 0 AND NOT e.attisdropped
ORDER BY e.attnum
