-- What the catalogue says of the host's two tables and of this session's role: all that decides what maintenance may do.
-- Reads the catalogue alone, in one statement. Names are as SQL writes them, unless a field is called `name`.
-- :own_tables are the names of the service's own, :service_schema the schema that they are in. One row: facts, a JSON document of the
-- form that host::HostFacts has.
-- \set own_tables '''{StreamArchive}''::text[]'
-- \set service_schema '''snapshot_service''::regnamespace'
WITH RECURSIVE host AS MATERIALIZED (
    SELECT to_regclass('"Stream"')::oid AS streams, to_regclass('"EventLog"')::oid AS log
),
-- Both tables with their partitions and the tables that inherit from them.
tree (root, relation) AS (
    SELECT oid, oid FROM host CROSS JOIN LATERAL (VALUES (streams), (log)) root (oid) WHERE oid IS NOT NULL
    UNION ALL
    SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.relation
),
member AS MATERIALIZED (
    SELECT t.root, c.* FROM tree t JOIN pg_class c ON c.oid = t.relation
),
-- Plain columns that decide which partition has a row, at any level, and are never NULL.
partition_key AS MATERIALIZED (
    SELECT DISTINCT m.root, a.attname
    FROM member m
    JOIN pg_partitioned_table p ON p.partrelid = m.oid
    CROSS JOIN LATERAL unnest(p.partattrs::smallint[]) key (attnum)
    JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum = key.attnum AND a.attnotnull
),
-- Tables that reference the log, once for each key; a key of partitions belongs to the key of their table.
reference AS MATERIALIZED (
    SELECT c.*, r.relname, r.relnamespace, n.nspname, c.conrelid IN (SELECT oid FROM member m WHERE m.root = host.log) AS is_self
    FROM host
    JOIN member log ON log.root = host.log
    JOIN pg_constraint c ON c.confrelid = log.oid AND c.contype = 'f'
        -- The log may itself be a partition, and its keys, triggers and publications those of a table above it.
        AND NOT EXISTS (
            SELECT FROM pg_constraint p JOIN member m ON m.root = host.log AND m.oid = p.confrelid WHERE p.oid = c.conparentid
        )
    JOIN pg_class r ON r.oid = c.conrelid
    JOIN pg_namespace n ON n.oid = r.relnamespace
),
-- The service's own tables, with the partitions of the archive.
own AS MATERIALIZED (
    SELECT c.* FROM pg_class c WHERE c.relname = ANY (:own_tables) AND c.relnamespace = :service_schema
    UNION ALL
    SELECT c.* FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('"StreamArchive"')
),
-- What publishes one of these publishes the log.
published AS (
    SELECT oid, relnamespace FROM member, host WHERE root = host.log
    UNION
    SELECT c.oid, c.relnamespace FROM host CROSS JOIN pg_partition_ancestors(host.log) a JOIN pg_class c ON c.oid = a.relid
),
-- Where row security hides rows from this role: by what a statement does (r: reads, w: locks, d: deletes, a: inserts). A
-- permissive policy that is simply true hides nothing, as long as no restrictive one is in force.
hidden AS MATERIALIZED (
    SELECT relation.oid, command.letter
    FROM (SELECT oid FROM member WHERE oid = root UNION SELECT conrelid FROM reference) relation
    CROSS JOIN unnest('{r,w,d,a}'::text[]) command (letter)
    WHERE row_security_active(relation.oid)
      AND NOT COALESCE((
          SELECT
              bool_or(p.polpermissive AND policy.is_true)
              AND NOT bool_or(NOT p.polpermissive AND NOT policy.is_true)
          FROM pg_policy p
          CROSS JOIN LATERAL (
              SELECT
                  COALESCE(pg_get_expr(CASE WHEN command.letter = 'a' THEN COALESCE(p.polwithcheck, p.polqual) ELSE p.polqual END,
                      p.polrelid), 'true') = 'true' AS is_true
          ) policy
          WHERE p.polrelid = relation.oid
            AND p.polcmd::text IN (command.letter, '*')
            AND EXISTS (
                SELECT FROM unnest(p.polroles) role (oid) WHERE role.oid = 0 OR pg_has_role(role.oid, 'USAGE')
            )
      ), false)
),
described AS (
    SELECT
        m.root,
        json_build_object(
            'name', format('%I.%I', n.nspname, m.relname),
            'kind', m.relkind::text,
            'isInheritedFrom', m.relkind = 'r' AND EXISTS (SELECT FROM member k WHERE k.root = m.oid AND k.oid <> m.oid),
            'foreignPartitions', ARRAY(
                SELECT k.oid::regclass::text FROM member k WHERE k.root = m.oid AND k.oid <> m.oid AND k.relkind = 'f' ORDER BY 1
            ),
            'partitionKeys', ARRAY(SELECT k.attname FROM partition_key k WHERE k.root = m.oid ORDER BY 1),
            'hiddenCommands', ARRAY(SELECT h.letter FROM hidden h WHERE h.oid = m.oid ORDER BY 1),
            'mayRead', has_table_privilege(m.oid, 'SELECT') AND has_schema_privilege(m.relnamespace, 'USAGE'),
            'mayDelete', has_table_privilege(m.oid, 'DELETE'),
            'mayLock', has_any_column_privilege(m.oid, 'UPDATE'),
            'withoutIdentity', ARRAY(
                SELECT k.oid::regclass::text
                FROM member k
                WHERE k.root = m.oid AND k.relkind = 'r' AND NOT (
                    k.relreplident = 'f'
                    OR EXISTS (
                        SELECT FROM pg_index i
                        WHERE i.indrelid = k.oid AND i.indimmediate
                          AND CASE k.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
                    )
                )
                ORDER BY 1
            ),
            'hasTimeIndex', indexes.has_time,
            'hasStreamIndex', indexes.has_stream,
            'hasIdKey', indexes.has_id_key,
            'mayHaveKey', NOT EXISTS (
                SELECT FROM member k
                JOIN pg_partitioned_table p ON p.partrelid = k.oid
                CROSS JOIN unnest(p.partattrs::smallint[]) key (attnum)
                LEFT JOIN pg_attribute a ON a.attrelid = k.oid AND a.attnum = key.attnum
                WHERE k.root = m.oid AND a.attnotnull IS NOT TRUE
            ),
            'isPopulated', m.relispopulated,
            'closedSchemas', ARRAY(
                SELECT DISTINCT quote_ident(tn.nspname)
                FROM pg_attribute a
                JOIN pg_type t ON t.oid = a.atttypid
                JOIN pg_namespace tn ON tn.oid = t.typnamespace
                WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT has_schema_privilege(tn.oid, 'USAGE')
                ORDER BY 1
            ),
            'hasIdKeyAlone', indexes.has_id_key_alone,
            'columns', ARRAY(
                SELECT json_build_object(
                    'name', a.attname,
                    'type', format_type(a.atttypid, a.atttypmod),
                    'isForeign', t.typnamespace <> 'pg_catalog'::regnamespace,
                    'isTime', t.typcategory = 'D' AND t.typname !~ '^time(tz)?$',
                    'wire', CASE
                        WHEN base.oid IN ('bigint'::regtype, 'numeric'::regtype) THEN 'number'
                        WHEN base.oid = 'timestamp'::regtype THEN 'timestamp'
                        WHEN base.oid = 'timestamptz'::regtype THEN 'timestamptz'
                        ELSE 'plain'
                    END
                )
                FROM pg_attribute a
                JOIN pg_type t ON t.oid = a.atttypid
                CROSS JOIN LATERAL (
                    -- A domain is written as the type that it is made of.
                    SELECT CASE WHEN t.typtype = 'd' THEN (
                        WITH RECURSIVE made_of (oid) AS (
                            SELECT t.typbasetype
                            UNION ALL
                            SELECT d.typbasetype FROM made_of m JOIN pg_type d ON d.oid = m.oid AND d.typtype = 'd'
                        )
                        SELECT d.oid FROM made_of JOIN pg_type d USING (oid) WHERE d.typtype <> 'd'
                    ) ELSE t.oid END AS oid
                ) base
                WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
                ORDER BY a.attnum
            ),
            'triggers', ARRAY(
                SELECT json_build_object(
                    'name', quote_ident(t.tgname),
                    'table', t.tgrelid::regclass::text,
                    'onDelete', t.tgtype & 8 <> 0,
                    'onInsert', t.tgtype & 4 <> 0,
                    'isBefore', t.tgtype & 2 <> 0
                )
                FROM pg_trigger t
                JOIN member k ON k.root = m.oid AND k.oid = t.tgrelid
                -- Up to PostgreSQL 14 what a partition has of a trigger above it counts as internal.
                WHERE (NOT t.tgisinternal OR t.tgparentid <> 0 AND t.tgconstrrelid = 0)
                  AND t.tgenabled IN ('O', 'A') AND t.tgtype & 12 <> 0
                  AND NOT EXISTS (
                      SELECT FROM pg_trigger p JOIN member of ON of.root = m.oid AND of.oid = p.tgrelid WHERE p.oid = t.tgparentid
                  )
                ORDER BY t.tgname, t.tgrelid
            ),
            'rules', ARRAY(
                SELECT json_build_object(
                    'name', quote_ident(r.rulename),
                    'table', r.ev_class::regclass::text,
                    'onDelete', r.ev_type = '4',
                    'onInsert', r.ev_type = '3'
                )
                FROM pg_rewrite r
                JOIN member k ON k.root = m.oid AND k.oid = r.ev_class
                WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'A') AND r.ev_type IN ('3', '4')
                ORDER BY r.rulename, r.ev_class
            )
        ) AS facts
    FROM member m
    JOIN pg_namespace n ON n.oid = m.relnamespace
    CROSS JOIN LATERAL (
        SELECT
            COALESCE(bool_or(i.is_sorted AND i.first_key = 'createdAt'), false) AS has_time,
            COALESCE(bool_or(i.is_sorted AND i.first_key = 'streamId'), false) AS has_stream,
            COALESCE(bool_or(i.indisunique AND i.has_each_id AND i.keys <@ (
                '{id,createdAt}'::name[] || ARRAY(SELECT k.attname FROM partition_key k WHERE k.root = m.oid)
            )), false) AS has_id_key,
            COALESCE(bool_or(i.indisunique AND i.keys = '{id}'), false) AS has_id_key_alone
        FROM (
            SELECT i.indisunique, am.amname = 'btree' AS is_sorted, keys.names AS keys, keys.names[1] AS first_key, keys.has_each_id
            FROM pg_index i
            JOIN pg_class ic ON ic.oid = i.indexrelid
            JOIN pg_am am ON am.oid = ic.relam
            CROSS JOIN LATERAL (
                SELECT
                    array_agg(a.attname ORDER BY key.place) AS names,
                    COALESCE(bool_or(a.attname = 'id' AND a.attnotnull), false) AS has_each_id
                FROM unnest(i.indkey::smallint[]) WITH ORDINALITY key (attnum, place)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.attnum
                WHERE key.place <= i.indnkeyatts
            ) keys
            -- One that covers some rows only finds only these. An expression has no column.
            WHERE i.indrelid = m.oid AND i.indisvalid AND i.indpred IS NULL AND cardinality(keys.names) = i.indnkeyatts
        ) i
    ) indexes
    WHERE m.oid = m.root
)
SELECT json_build_object(
    'role', current_user,
    'streams', (SELECT facts FROM described WHERE root = host.streams),
    'log', (SELECT facts FROM described WHERE root = host.log),
    'references', ARRAY(
        SELECT json_build_object(
            'constraint', quote_ident(r.conname),
            'table', format('%I.%I', r.nspname, r.relname),
            'isSelf', r.is_self,
            'logColumns', ARRAY(
                SELECT a.attname FROM unnest(r.confkey) WITH ORDINALITY key (attnum, place)
                JOIN pg_attribute a ON a.attrelid = r.confrelid AND a.attnum = key.attnum ORDER BY key.place
            ),
            'columns', ARRAY(
                SELECT quote_ident(a.attname) FROM unnest(r.conkey) WITH ORDINALITY key (attnum, place)
                JOIN pg_attribute a ON a.attrelid = r.conrelid AND a.attnum = key.attnum ORDER BY key.place
            ),
            'operators', ARRAY(
                -- Two collations make an operator fail. Which one is named matters only where one is not exact; otherwise it is
                -- that of the column that may have an index.
                SELECT format(
                    '%sOPERATOR(%I.%s)',
                    CASE
                        WHEN a.attcollation = b.attcollation THEN ''
                        WHEN p.collisdeterministic AND f.collisdeterministic THEN 'COLLATE ' || f.oid::regcollation || ' '
                        ELSE 'COLLATE ' || p.oid::regcollation || ' '
                    END,
                    n.nspname, o.oprname
                )
                FROM unnest(r.conpfeqop, r.confkey, r.conkey) WITH ORDINALITY key (oid, log_attnum, attnum, place)
                JOIN pg_operator o ON o.oid = key.oid
                JOIN pg_namespace n ON n.oid = o.oprnamespace
                JOIN pg_attribute a ON a.attrelid = r.confrelid AND a.attnum = key.log_attnum
                JOIN pg_attribute b ON b.attrelid = r.conrelid AND b.attnum = key.attnum
                LEFT JOIN pg_collation p ON p.oid = a.attcollation
                LEFT JOIN pg_collation f ON f.oid = b.attcollation
                ORDER BY key.place
            ),
            'closedSchema', CASE WHEN NOT has_schema_privilege(r.relnamespace, 'USAGE') THEN quote_ident(r.nspname) END,
            'mayRead', has_schema_privilege(r.relnamespace, 'USAGE')
                AND (SELECT bool_and(has_column_privilege(r.conrelid, key.attnum, 'SELECT')) FROM unnest(r.conkey) key (attnum)),
            'isHidden', EXISTS (SELECT FROM hidden h WHERE h.oid = r.conrelid AND h.letter = 'r'),
            'hasIndex', EXISTS (
                SELECT FROM pg_index i
                WHERE i.indrelid = r.conrelid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = ANY (r.conkey)
            )
        )
        FROM reference r
        ORDER BY r.conname, r.conrelid
    ),
    'publications', ARRAY(
        SELECT quote_ident(p.pubname) FROM pg_publication p
        WHERE p.pubdelete
          AND (
              p.puballtables
              OR EXISTS (
                  SELECT FROM pg_publication_rel l
                  WHERE l.prpubid = p.oid AND l.prrelid IN (SELECT oid FROM published)
              )
              -- Of all tables in a schema, since PostgreSQL 15: an earlier one has no such catalogue to name, but every
              -- version says what depends on what.
              OR EXISTS (
                  SELECT FROM pg_depend of_publication
                  JOIN pg_depend of_schema
                      ON of_schema.classid = of_publication.classid AND of_schema.objid = of_publication.objid
                      AND of_schema.refclassid = 'pg_namespace'::regclass
                  JOIN published m ON m.relnamespace = of_schema.refobjid
                  WHERE of_publication.refclassid = 'pg_publication'::regclass AND of_publication.refobjid = p.oid
                    AND of_publication.classid = to_regclass('pg_catalog.pg_publication_namespace')
              )
          )
        ORDER BY p.pubname
    ),
    -- Whatever a policy of the host's says: nobody else has rows in these.
    'hiddenOwn', ARRAY(
        SELECT c.oid::regclass::text FROM own c WHERE c.relrowsecurity AND row_security_active(c.oid) ORDER BY 1
    ),
    'ownTriggers', ARRAY(
        SELECT json_build_object(
            'name', quote_ident(t.tgname),
            'table', t.tgrelid::regclass::text,
            'isOfArchive', c.relname ~ '^StreamArchive'
        )
        FROM own c JOIN pg_trigger t ON t.tgrelid = c.oid
        WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
          AND NOT EXISTS (SELECT FROM pg_trigger p JOIN own o ON o.oid = p.tgrelid WHERE p.oid = t.tgparentid)
        ORDER BY t.tgname, t.tgrelid
    ),
    'mayMaintain', NOT EXISTS (
        SELECT FROM own c WHERE c.relname = 'MaintenanceRun' AND NOT has_table_privilege(c.oid, 'INSERT')
    ) AND NOT EXISTS (
        SELECT FROM pg_proc p
        WHERE p.proname = 'stream_archive_create_partition' AND p.pronamespace = :service_schema
          AND NOT has_function_privilege(p.oid, 'EXECUTE')
    ),
    'seesStatistics', pg_has_role('pg_read_all_stats', 'USAGE'),
    'goneStandbys', ARRAY(
        SELECT s.slot_name FROM pg_replication_slots s WHERE s.slot_type = 'physical' AND NOT s.active ORDER BY s.slot_name
    ),
    'openSchema', (
        SELECT min(quote_ident(n.nspname)) FROM pg_namespace n
        WHERE n.oid IN (:service_schema, (SELECT relnamespace FROM member WHERE oid = host.log))
          AND EXISTS (SELECT FROM aclexplode(n.nspacl) g WHERE g.grantee = 0 AND g.privilege_type = 'CREATE')
    ),
    'eventTriggers', ARRAY(
        SELECT quote_ident(t.evtname) FROM pg_event_trigger t
        WHERE t.evtenabled IN ('O', 'A') AND t.evtevent IN ('ddl_command_start', 'ddl_command_end', 'sql_drop', 'table_rewrite')
          -- Some name the commands that they fire for.
          AND (
              t.evttags IS NULL
              OR t.evttags && '{CREATE TABLE,ALTER TABLE,DROP TABLE,CREATE INDEX,CREATE FUNCTION,CREATE VIEW,GRANT}'
          )
        ORDER BY t.evtname
    )
) AS facts
FROM host
