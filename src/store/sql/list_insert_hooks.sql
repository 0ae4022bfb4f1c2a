-- What of the host's own acts on rows that are inserted into "EventLog": enabled triggers, also of its partitions, and rules.
-- Columns: is_rule, is_after (a trigger that fires after the insertion), name (with the kind and the table, for people).
SELECT
    false AS is_rule,
    (t.tgtype & 2) = 0 AND (t.tgtype & 64) = 0 AS is_after,
    format('trigger %I on %s', t.tgname, t.tgrelid::regclass) AS name
FROM pg_trigger t
WHERE (t.tgrelid = '"EventLog"'::regclass OR t.tgrelid IN (SELECT relid FROM pg_partition_tree('"EventLog"'::regclass)))
  -- As look_at_host.sql has it.
  AND (NOT t.tgisinternal OR t.tgparentid <> 0 AND t.tgconstrrelid = 0)
  -- Of a trigger that partitions share, the one of "EventLog": which may itself be a partition.
  AND (t.tgparentid = 0 OR t.tgrelid = '"EventLog"'::regclass)
  AND (t.tgtype & 4) <> 0
  AND t.tgenabled IN ('O', 'A')
UNION ALL
SELECT true, false, format('rule %I on %s', r.rulename, r.ev_class::regclass)
FROM pg_rewrite r
WHERE r.ev_class = '"EventLog"'::regclass AND r.ev_type = '3' AND r.ev_enabled IN ('O', 'A')
ORDER BY name
