-- Changes with each change of the definition of the log or of "Stream": columns, indexes, keys to it, triggers, rules, row security, grants, partitions.
-- A fraction of what look_at_host.sql costs: read under each batch's lock. A foreign key to a table has triggers there.
-- One row: version.
WITH RECURSIVE tree (oid) AS (
    SELECT '"EventLog"'::regclass::oid
    UNION ALL
    SELECT to_regclass('"Stream"')::oid
    UNION ALL
    -- Holds and restored logs keep rows back; the archive receives them. A trigger or row security there matters, too.
    SELECT to_regclass(quote_ident(name))::oid FROM unnest('{LegalHold,RestoredLog,StreamArchive}'::text[]) name
    UNION ALL
    SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT md5(string_agg(definition, ' ' ORDER BY definition)) AS version
FROM (
    SELECT 'c' || c.oid || '.' || c.xmin FROM tree JOIN pg_class c ON c.oid = tree.oid
    UNION ALL SELECT 'a' || a.attnum || '.' || a.xmin FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid WHERE a.attnum > 0
    UNION ALL SELECT 'i' || i.indexrelid || '.' || i.xmin FROM tree JOIN pg_index i ON i.indrelid = tree.oid
    UNION ALL SELECT 't' || t.oid || '.' || t.xmin FROM tree JOIN pg_trigger t ON t.tgrelid = tree.oid
    UNION ALL SELECT 'r' || r.oid || '.' || r.xmin FROM tree JOIN pg_rewrite r ON r.ev_class = tree.oid
    UNION ALL SELECT 'p' || p.oid || '.' || p.xmin FROM tree JOIN pg_policy p ON p.polrelid = tree.oid
) definitions (definition)
