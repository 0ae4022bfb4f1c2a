-- Looks for parents that batches did not find among their own rows, and takes those that are found off their seals. What is left after
-- the last look was nowhere when it was archived.
-- :hashes is a query for hashes of rows, in its first column; :is_last whether there is nothing more to look at.
-- Columns: month, "runId", missing (how many rows of a seal have a parent that is nowhere); one row for each seal that is checked now and has any.
-- \set hashes 'SELECT entry_hash FROM "EventLog"'
-- \set is_last true
WITH wanted AS MATERIALIZED (
    SELECT DISTINCT parent FROM "ArchiveSeal" s CROSS JOIN unnest(s.unlinked) parent WHERE NOT s."linksChecked"
),
found AS MATERIALIZED (
    SELECT hash FROM (:hashes) known (hash) WHERE hash IN (SELECT parent FROM wanted)
),
checked AS (
    UPDATE "ArchiveSeal" s
    SET unlinked = missing.parents, "linksChecked" = :is_last OR missing.parents = '{}'
    FROM (
        SELECT month, sequence, ARRAY(SELECT parent FROM unnest(unlinked) parent WHERE parent NOT IN (SELECT hash FROM found)) AS parents
        FROM "ArchiveSeal" WHERE NOT "linksChecked"
    ) missing
    WHERE s.month = missing.month AND s.sequence = missing.sequence AND NOT s."linksChecked"
    RETURNING s.month, s."runId", s.unlinked
)
SELECT month, "runId", cardinality(unlinked)::bigint AS missing FROM checked WHERE :is_last AND unlinked <> '{}'
