-- What of all that the migrations make is not there.
-- $1 names of the tables, $2 names of the functions.
-- One row: is_installed (whether anything of it is there), tables and functions (names of those that are not).
WITH wanted_table AS (
    SELECT
        name,
        -- The former service left plain tables of two of the names, and an ORM may have made these anew.
        CASE name
            WHEN 'StreamArchive' THEN c.relkind = 'p'
            WHEN 'StreamSnapshot' THEN EXISTS (
                SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'state' AND NOT a.attisdropped
            )
            ELSE true
        END AS is_ours
    FROM unnest($1) name
    LEFT JOIN pg_class c ON c.oid = to_regclass(quote_ident(name))
    WHERE c.oid IS NOT NULL
),
wanted_function AS (
    SELECT name
    FROM unnest($2) name
    WHERE EXISTS (SELECT FROM pg_proc p WHERE p.proname = name AND p.pronamespace = quote_ident(current_schema)::regnamespace)
)
SELECT
    EXISTS (SELECT FROM wanted_table WHERE is_ours) OR EXISTS (SELECT FROM wanted_function) AS is_installed,
    ARRAY(
        SELECT name FROM unnest($1) name
        WHERE NOT EXISTS (SELECT FROM wanted_table t WHERE t.name = name.name AND t.is_ours) ORDER BY 1
    ) AS tables,
    ARRAY(
        SELECT name FROM unnest($2) name WHERE NOT EXISTS (SELECT FROM wanted_function f WHERE f.name = name.name) ORDER BY 1
    ) AS functions
