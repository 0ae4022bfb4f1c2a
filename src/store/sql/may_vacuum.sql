-- Whether this session's role may vacuum "EventLog": as its owner, the database's, or, since PostgreSQL 17, by
-- MAINTAIN. One row: may_vacuum.
SELECT
    pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE')
    -- Not a word that older versions know.
    OR CASE
        WHEN current_setting('server_version_num')::integer >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN')
        ELSE false
    END AS may_vacuum
FROM pg_class c
JOIN pg_database d ON d.datname = current_database()
WHERE c.oid = '"EventLog"'::regclass
