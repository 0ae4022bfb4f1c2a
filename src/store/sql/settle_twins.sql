-- Settles rows of "EventLog" that the archive has already (domain rule 6): where the copies agree, what the archived one
-- never got is filled in and the row is dropped; where they differ, it stays.
-- The rows are locked by the statement before, in the same transaction.
-- $1 their ids. One row: dropped, conflict_ids.
WITH pair AS MATERIALIZED (
    SELECT e.*, a."createdAt" AS twin_created_at, ({agree}) AS twin_agrees, ({gap}) AS twin_has_gaps
    FROM unnest($1) twin (id)
    JOIN "EventLog" e ON e.id = twin.id
    -- OFFSET keeps this a look-up per row: a join could be planned as a scan of the whole archive.
    CROSS JOIN LATERAL (SELECT * FROM "StreamArchive" a WHERE a.id = twin.id OFFSET 0) a
),
agreeing AS MATERIALIZED (
    SELECT id FROM pair GROUP BY id HAVING bool_and(twin_agrees)
),
filled AS (
    UPDATE "StreamArchive" a
    SET {fill}
    FROM pair e
    WHERE e.twin_has_gaps AND e.id IN (SELECT id FROM agreeing)
      AND a.id = e.id AND a."createdAt" = e.twin_created_at
),
dropped AS (
    DELETE FROM "EventLog" e
    USING agreeing
    WHERE e.id = agreeing.id
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM dropped) AS dropped,
    ARRAY(SELECT DISTINCT id FROM pair WHERE id NOT IN (SELECT id FROM agreeing) ORDER BY id) AS conflict_ids
