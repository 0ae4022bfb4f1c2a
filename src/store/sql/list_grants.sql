-- What is to be granted to the service's roles and revoked from them, so that each has what it needs and nothing else.
-- Looks at the service's own objects and at what the service uses of the host's: never at others, nor at other roles.
-- :is_wanted says whether the roles are to have anything; if not, only the host's objects are looked at: the service's are dropped.
-- Columns: is_grant, statement, object (as SQL writes it), owner, is_possible (for the role of this session). In order.
-- \set is_wanted true
WITH wanted_of_table (role_name, privilege, tables, columns) AS (VALUES
    -- list, get, report. Of "Stream" what says which stream a row is.
    ('snapshot_service_read', 'SELECT', '{
        EventLog, StreamSnapshot, StreamArchive, StreamHistory, StreamIdentity, MaintenanceRun, RunMonth, MaintenancePause,
        MaintenanceFinding, ArchiveMonth, ArchiveSeal, ArchiveRemoval, ArchiveVerification, VerificationTask, RestoredLog,
        LegalHold, FormerTable, snapshot_service_migrations
    }'::name[], NULL::name[]),
    ('snapshot_service_read', 'SELECT', '{Stream}', '{id, streamId, createdAt}'),
    -- maintain. What is only ever added to can only be added to: seals, but for what is not sealed, removals, findings.
    ('snapshot_service_maintain', 'SELECT', '{
        Stream, EventLog, StreamSnapshot, StreamArchive, StreamHistory, StreamIdentity, MaintenanceRun, RunMonth,
        MaintenancePause, MaintenanceFinding, ArchiveMonth, ArchiveSeal, ArchiveRemoval, ArchiveVerification, VerificationTask,
        RestoredLog, LegalHold, FormerTable
    }', NULL),
    ('snapshot_service_maintain', 'INSERT', '{
        EventLog, StreamSnapshot, StreamIdentity, MaintenanceRun, RunMonth, MaintenancePause, MaintenanceFinding,
        ArchiveMonth, ArchiveSeal, ArchiveRemoval, ArchiveVerification, VerificationTask, RestoredLog, LegalHold
    }', NULL),
    ('snapshot_service_maintain', 'UPDATE', '{
        StreamSnapshot, StreamIdentity, MaintenanceRun, RunMonth, ArchiveMonth, ArchiveVerification, VerificationTask,
        RestoredLog, LegalHold
    }', NULL),
    ('snapshot_service_maintain', 'UPDATE', '{ArchiveSeal}', '{unlinked, linksChecked}'),
    ('snapshot_service_maintain', 'DELETE', '{EventLog, MaintenancePause, VerificationTask, RestoredLog}', NULL),
    -- SELECT ... FOR UPDATE asks for it, of any one column. This one decides nothing here, and where there are hashes a
    -- change of it shows.
    ('snapshot_service_maintain', 'UPDATE', '{EventLog}', '{ledgerClosedAt}')
),
wanted_of_function (role_name, functions) AS (VALUES
    ('snapshot_service_read', '{
        stream_archive_list, stream_event_list, stream_event_list_oldest_first, stream_event_wire_forms, stream_history,
        stream_identity_look_up, stream_identity_of, stream_identity_rows, stream_identity_turn, stream_snapshot_list
    }'::name[]),
    ('snapshot_service_maintain', '{
        stream_archive_list, stream_event_list, stream_event_list_oldest_first, stream_event_wire_forms, stream_history,
        stream_identity_look_up, stream_identity_of, stream_identity_rows, stream_identity_turn, stream_snapshot_list,
        stream_identity_observe, stream_archive_create_partition, stream_archive_index_partition, stream_archive_analyze_partition
    }')
),
service_role AS (
    SELECT oid, rolname, quote_ident(rolname) AS name
    FROM pg_roles WHERE rolname IN ('snapshot_service_read', 'snapshot_service_maintain')
),
log AS (
    SELECT '"EventLog"'::regclass AS relid UNION SELECT relid FROM pg_partition_tree('"EventLog"')
),
-- Columns by which other tables of the host's reference a log: whoever archives looks whether one does. The log itself is
-- granted as a whole, and a partition's key is its table's.
reference AS MATERIALIZED (
    SELECT DISTINCT k.conrelid AS oid, key.attnum
    FROM log
    JOIN pg_constraint k ON k.confrelid = log.relid AND k.contype = 'f'
        -- The log may itself be a partition, and the key one to the table above.
        AND NOT EXISTS (SELECT FROM pg_constraint p JOIN log ON log.relid = p.confrelid WHERE p.oid = k.conparentid)
    CROSS JOIN unnest(k.conkey) key (attnum)
    WHERE k.conrelid NOT IN (SELECT relid FROM log)
),
former AS MATERIALIZED (
    SELECT c.oid FROM pg_class c JOIN pg_class log ON log.oid = '"EventLog"'::regclass AND log.relnamespace = c.relnamespace
    WHERE c.relname IN ('StreamSnapshot', 'StreamArchive') AND c.relkind IN ('r', 'p')
),
relation AS MATERIALIZED (
    -- The tables and the view.
    SELECT c.*, false AS is_host, false AS is_partition, false AS is_reference
    FROM pg_class c
    WHERE c.relnamespace = quote_ident(current_schema)::regnamespace
      AND c.relname IN (SELECT unnest(tables) FROM wanted_of_table)
    UNION ALL
    SELECT c.*, true, false, false FROM pg_class c WHERE c.oid IN ('"Stream"'::regclass, '"EventLog"'::regclass)
    UNION ALL
    -- Partitions: who names the archive needs nothing of them, but the engine names them.
    SELECT c.*, false, true, false
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass('"StreamArchive"')
    UNION ALL
    -- Sequences that number rows of "EventLog": a log that goes back may need a number.
    SELECT c.*, true, false, false
    FROM pg_attrdef f
    JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class c ON c.oid = d.refobjid AND c.relkind = 'S'
    WHERE f.adrelid = '"EventLog"'::regclass
    UNION ALL
    -- Tables of the host's that are only read: those that reference the log, and those that the former service left.
    SELECT c.*, true, false, true
    FROM pg_class c WHERE c.oid IN (SELECT oid FROM reference) OR c.oid IN (SELECT oid FROM former)
),
object AS MATERIALIZED (
    SELECT
        CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
        oid, relname AS name, relowner AS owner, relacl AS acl, is_host, is_partition, is_reference, false AS is_definer,
        format('%s.%I', relnamespace::regnamespace, relname) AS quoted
    FROM relation
    UNION ALL
    SELECT
        'FUNCTION', oid, proname, proowner, COALESCE(proacl, acldefault('f', proowner)), false, false, false, prosecdef,
        format('%s.%I(%s)', pronamespace::regnamespace, proname, pg_get_function_identity_arguments(oid))
    FROM pg_proc
    WHERE pronamespace = quote_ident(current_schema)::regnamespace
      AND proname IN (SELECT unnest(functions) FROM wanted_of_function)
    UNION ALL
    SELECT
        'SCHEMA', n.oid, n.nspname, n.nspowner, n.nspacl, n.nspname <> current_schema, false,
        n.nspname <> current_schema AND n.oid <> host.relnamespace, false, quote_ident(n.nspname)
    FROM pg_namespace n
    JOIN pg_class host ON host.oid = '"EventLog"'::regclass
    WHERE n.nspname = current_schema OR n.oid IN (SELECT relnamespace FROM relation WHERE is_host OR is_reference)
),
wanted AS MATERIALIZED (
    SELECT r.oid AS role, r.name AS role_name, o.kind, o.oid, w.privilege, NULL::name AS "column"
    FROM wanted_of_table w
    JOIN service_role r ON r.rolname = w.role_name
    JOIN object o ON o.kind = 'TABLE' AND o.name = ANY (w.tables) AND NOT o.is_partition AND NOT o.is_reference
    WHERE w.columns IS NULL AND :is_wanted
    UNION ALL
    SELECT r.oid, r.name, o.kind, o.oid, w.privilege, a.attname
    FROM wanted_of_table w
    JOIN service_role r ON r.rolname = w.role_name
    JOIN object o ON o.kind = 'TABLE' AND o.name = ANY (w.tables) AND NOT o.is_partition AND NOT o.is_reference
    JOIN pg_attribute a ON a.attrelid = o.oid AND a.attname = ANY (w.columns) AND NOT a.attisdropped
    WHERE :is_wanted
    UNION ALL
    SELECT r.oid, r.name, o.kind, o.oid, w.privilege, NULL
    FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) w (privilege)
    JOIN service_role r ON r.rolname = 'snapshot_service_maintain'
    JOIN object o ON o.is_partition
    WHERE :is_wanted
    UNION ALL
    SELECT r.oid, r.name, o.kind, o.oid, 'EXECUTE', NULL
    FROM wanted_of_function w
    JOIN service_role r ON r.rolname = w.role_name
    JOIN object o ON o.kind = 'FUNCTION' AND o.name = ANY (w.functions)
    WHERE :is_wanted
    UNION ALL
    SELECT r.oid, r.name, o.kind, o.oid, 'USAGE', NULL
    FROM service_role r
    JOIN object o
        ON (o.kind = 'SCHEMA' AND NOT o.is_reference)
        OR (o.kind IN ('SCHEMA', 'SEQUENCE') AND r.rolname = 'snapshot_service_maintain')
    WHERE :is_wanted
    UNION ALL
    SELECT r.oid, r.name, o.kind, o.oid, 'SELECT', a.attname
    FROM reference k
    JOIN service_role r ON r.rolname = 'snapshot_service_maintain'
    JOIN object o ON o.kind = 'TABLE' AND o.is_reference AND o.oid = k.oid
    JOIN pg_attribute a ON a.attrelid = k.oid AND a.attnum = k.attnum
    WHERE :is_wanted
    UNION ALL
    SELECT r.oid, r.name, o.kind, o.oid, 'SELECT', NULL
    FROM former f
    JOIN service_role r ON r.rolname = 'snapshot_service_maintain'
    JOIN object o ON o.kind = 'TABLE' AND o.oid = f.oid
    WHERE :is_wanted
),
granted AS MATERIALIZED (
    SELECT o.kind, o.oid, g.grantor, g.grantee, g.privilege_type AS privilege, NULL::name AS "column", o.is_definer
    FROM object o CROSS JOIN aclexplode(o.acl) g
    -- What else the host grants of a table that references the log is the host's affair.
    WHERE (o.is_host OR :is_wanted)
      AND (NOT o.is_reference OR (o.oid IN (SELECT oid FROM former) AND g.grantee = to_regrole('snapshot_service_maintain')))
    UNION ALL
    SELECT o.kind, o.oid, g.grantor, g.grantee, g.privilege_type, a.attname, false
    FROM object o
    JOIN pg_attribute a ON a.attrelid = o.oid AND o.kind = 'TABLE' AND NOT a.attisdropped
    CROSS JOIN aclexplode(a.attacl) g
    WHERE (o.is_host OR :is_wanted)
      AND (NOT o.is_reference OR (g.privilege_type = 'SELECT' AND g.grantee = to_regrole('snapshot_service_maintain')))
),
missing AS (
    SELECT w.*, has.is_possible
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN w."column" IS NOT NULL THEN has_column_privilege(w.role, w.oid, w."column", w.privilege)
                WHEN w.kind = 'TABLE' THEN has_table_privilege(w.role, w.oid, w.privilege)
                WHEN w.kind = 'SEQUENCE' THEN has_sequence_privilege(w.role, w.oid, w.privilege)
                WHEN w.kind = 'FUNCTION' THEN has_function_privilege(w.role, w.oid, w.privilege)
                ELSE has_schema_privilege(w.role, w.oid, w.privilege)
            END AS already,
            CASE
                WHEN w."column" IS NOT NULL THEN has_column_privilege(w.oid, w."column", grantable)
                WHEN w.kind = 'TABLE' THEN has_table_privilege(w.oid, grantable)
                WHEN w.kind = 'SEQUENCE' THEN has_sequence_privilege(w.oid, grantable)
                WHEN w.kind = 'FUNCTION' THEN has_function_privilege(w.oid, grantable)
                ELSE has_schema_privilege(w.oid, grantable)
            END AS is_possible
        FROM (SELECT w.privilege || ' WITH GRANT OPTION') grant_option (grantable)
    ) has
    WHERE NOT has.already
),
extra AS (
    SELECT g.*, COALESCE(r.name, 'PUBLIC') AS role_name
    FROM granted g
    LEFT JOIN service_role r ON r.oid = g.grantee
    -- Nobody else may call what runs as its owner.
    WHERE (r.oid IS NOT NULL OR (g.grantee = 0 AND g.is_definer))
      AND NOT EXISTS (
          SELECT FROM wanted w
          WHERE w.role = g.grantee AND w.kind = g.kind AND w.oid = g.oid AND w.privilege = g.privilege
            AND w."column" IS NOT DISTINCT FROM g."column"
      )
),
change AS (
    SELECT true AS is_grant, kind, oid, role_name, privilege, "column", is_possible FROM missing
    UNION ALL
    SELECT false, e.kind, e.oid, e.role_name, e.privilege, e."column",
           pg_has_role(o.owner, 'USAGE') OR pg_has_role(e.grantor, 'USAGE')
    FROM extra e JOIN object o ON o.kind = e.kind AND o.oid = e.oid
)
SELECT
    c.is_grant,
    format(
        CASE WHEN c.is_grant THEN 'GRANT %s ON %s %s TO %s' ELSE 'REVOKE %s ON %s %s FROM %s CASCADE' END,
        string_agg(DISTINCT c.privilege || COALESCE(' (' || quote_ident(c."column") || ')', ''), ', '),
        c.kind, o.quoted, c.role_name
    ) AS statement,
    o.quoted AS object,
    pg_get_userbyid(o.owner)::text AS owner,
    bool_and(c.is_possible) AS is_possible
FROM change c
JOIN object o ON o.kind = c.kind AND o.oid = c.oid
GROUP BY c.is_grant, c.kind, o.quoted, o.owner, c.role_name
ORDER BY c.is_grant, c.kind, o.quoted, c.role_name
