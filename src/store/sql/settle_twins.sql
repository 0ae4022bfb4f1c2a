-- Settles rows of "EventLog" that the archive has already (domain rule 6): where the copies agree, what the archived one
-- never got is filled in and the row is dropped; where they differ, it stays.
-- The rows are locked by the statement before, in the same transaction.
-- $1 their ids. One row: dropped, conflict_ids.
WITH pair AS MATERIALIZED (
    SELECT e.id, bool_and({agree}) AS agree
    FROM "EventLog" e
    JOIN "StreamArchive" a ON a.id = e.id
    WHERE e.id = ANY ($1)
    GROUP BY e.id
),
filled AS (
    UPDATE "StreamArchive" a
    SET {fill}
    FROM "EventLog" e
    JOIN pair ON pair.id = e.id AND pair.agree
    WHERE a.id = e.id AND a."createdAt" = e."createdAt" AND ({gap})
),
dropped AS (
    DELETE FROM "EventLog" e
    USING pair
    WHERE e.id = pair.id AND pair.agree
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM dropped) AS dropped,
    ARRAY(SELECT id FROM pair WHERE NOT agree ORDER BY id) AS conflict_ids
