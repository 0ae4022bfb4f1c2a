-- What makes the grants of the service's roles mean something else than they say, each as what to do about it.
-- Column: hindrance.
WITH service_role AS (
    SELECT oid, rolname FROM pg_roles WHERE rolname IN ('snapshot_service_read', 'snapshot_service_maintain')
)
-- Without a policy a role sees no rows, and no error says so.
SELECT format(
    'the owner of %1$s.%2$I, %3$s, must let the role see all rows: CREATE POLICY %4$I ON %1$s.%2$I TO %4$I USING (true);',
    c.relnamespace::regnamespace, c.relname, pg_get_userbyid(c.relowner), r.rolname
) AS hindrance
FROM pg_class c
CROSS JOIN service_role r
WHERE c.oid IN ('"Stream"'::regclass, '"EventLog"'::regclass)
  AND c.relrowsecurity
  AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive AND r.oid = ANY (p.polroles))
UNION ALL
-- As everybody can in databases that are older than PostgreSQL 15.
SELECT format(
    'everybody can make tables in the schema %1$I; its owner, %2$s, should run: REVOKE CREATE ON SCHEMA %1$I FROM PUBLIC;',
    n.nspname, pg_get_userbyid(n.nspowner)
)
FROM pg_namespace n
CROSS JOIN LATERAL aclexplode(n.nspacl) g
WHERE (n.nspname = current_schema OR n.oid = (SELECT relnamespace FROM pg_class WHERE oid = '"EventLog"'::regclass)) AND g.grantee = 0 AND g.privilege_type = 'CREATE'
