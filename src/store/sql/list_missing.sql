-- What of all that the migrations make is not there.
-- :tables and :functions are their names, :service_schema the schema that they are to be in.
-- One row: is_installed (whether anything of it is there), tables and functions (names of those that are not).
-- \set tables '''{StreamArchive}''::text[]'
-- \set functions '''{stream_history_refresh}''::text[]'
-- \set service_schema '''snapshot_service''::regnamespace'
WITH missing_table AS (
    SELECT name FROM unnest(:tables) name
    WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.relname = name AND c.relnamespace = :service_schema)
),
missing_function AS (
    SELECT name FROM unnest(:functions) name
    WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.proname = name AND p.pronamespace = :service_schema)
)
SELECT
    (SELECT count(*) FROM missing_table) < cardinality(:tables)
        OR (SELECT count(*) FROM missing_function) < cardinality(:functions) AS is_installed,
    ARRAY(SELECT name FROM missing_table ORDER BY 1) AS tables,
    ARRAY(SELECT name FROM missing_function ORDER BY 1) AS functions
