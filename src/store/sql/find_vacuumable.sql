-- "EventLog" if this session's role may vacuum it: as its owner, the database's, or, since PostgreSQL 17, by MAINTAIN.
-- One row or none: name, as SQL writes it.
SELECT format('%I.%I', n.nspname, c.relname) AS name
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_database d ON d.datname = current_database()
WHERE c.oid = '"EventLog"'::regclass
  AND (
      pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE')
      -- Not a word that older versions know.
      OR CASE
          WHEN current_setting('server_version_num')::integer >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN')
          ELSE false
      END
  )
