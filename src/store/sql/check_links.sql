-- Looks for parents that batches did not find among their own rows, and takes those that are found off their seals. What is left after
-- the last look was nowhere when it was archived.
-- :months and :sequences name the seals, :hashes is a query for hashes of rows, in its first column, :is_last whether there is nothing more to
-- look at.
-- Columns: month, sequence, "runId"; one row for each seal that is checked now and has rows whose parent is nowhere.
-- \set months '''{2026-01}''::text[]'
-- \set sequences '''{1}''::integer[]'
-- \set hashes 'SELECT entry_hash FROM "EventLog"'
-- \set is_last true
WITH pending AS MATERIALIZED (
    SELECT s.month, s.sequence, s.unlinked
    FROM unnest(:months, :sequences) wanted (month, sequence)
    JOIN "ArchiveSeal" s ON s.month = wanted.month AND s.sequence = wanted.sequence
    WHERE NOT s."linksChecked"
),
found AS MATERIALIZED (
    SELECT hash FROM (:hashes) known (hash) WHERE hash IN (SELECT unnest(unlinked) FROM pending)
),
checked AS (
    UPDATE "ArchiveSeal" s
    SET unlinked = missing.parents, "linksChecked" = :is_last OR missing.parents = '{}'
    FROM (
        SELECT month, sequence, ARRAY(SELECT parent FROM unnest(unlinked) parent WHERE parent NOT IN (SELECT hash FROM found)) AS parents
        FROM pending
    ) missing
    WHERE s.month = missing.month AND s.sequence = missing.sequence AND NOT s."linksChecked"
    RETURNING s.month, s.sequence, s."runId", s.unlinked
)
SELECT month, sequence, "runId" FROM checked WHERE :is_last AND unlinked <> '{}'
