-- Changes with each change of the definition of the log or of "Stream": columns, indexes, keys to it, triggers, rules, row security, grants,
-- partitions; and with each of what is the service's own and acts on rows that move: columns of the archive, and triggers, rules and
-- row security. A partition that is made or indexed changes nothing of that.
-- A fraction of what look_at_host.sql costs: read under each batch's lock. A foreign key to a table has triggers there.
-- One row: version.
WITH RECURSIVE tree (oid) AS (
    SELECT to_regclass('"EventLog"')::oid
    UNION ALL
    SELECT to_regclass('"Stream"')::oid
    UNION ALL
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
),
-- Holds and restored logs keep rows back; the archive receives them.
own (oid) AS (
    SELECT to_regclass(quote_ident(name))::oid FROM unnest('{LegalHold,RestoredLog,StreamArchive}'::text[]) name
    UNION ALL
    SELECT i.inhrelid FROM own o JOIN pg_inherits i ON i.inhparent = o.oid
),
acting (oid) AS (SELECT oid FROM tree UNION ALL SELECT oid FROM own)
SELECT md5(string_agg(definition, ' ' ORDER BY definition)) AS version
FROM (
    SELECT 'c' || c.oid || '.' || c.xmin FROM tree JOIN pg_class c ON c.oid = tree.oid
    UNION ALL SELECT 'a' || a.attnum || '.' || a.xmin FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid WHERE a.attnum > 0
    UNION ALL SELECT 'i' || i.indexrelid || '.' || i.xmin FROM tree JOIN pg_index i ON i.indrelid = tree.oid
    UNION ALL
    SELECT 'o' || a.attnum || '.' || a.xmin FROM pg_attribute a
    WHERE a.attrelid = to_regclass('"StreamArchive"') AND a.attnum > 0
    UNION ALL
    SELECT 's' || c.oid FROM own JOIN pg_class c ON c.oid = own.oid WHERE c.relrowsecurity OR c.relforcerowsecurity
    UNION ALL SELECT 't' || t.oid || '.' || t.xmin FROM acting JOIN pg_trigger t ON t.tgrelid = acting.oid
    UNION ALL SELECT 'r' || r.oid || '.' || r.xmin FROM acting JOIN pg_rewrite r ON r.ev_class = acting.oid
    UNION ALL SELECT 'p' || p.oid || '.' || p.xmin FROM acting JOIN pg_policy p ON p.polrelid = acting.oid
) definitions (definition)
