-- How rows of "EventLog" compare with the archived rows of the same id (domain rule 6).
-- The rows are locked by the statement before, in the same transaction.
-- $1 and $2 their ids and times. Columns: id, createdAt, partition (of the archived row, as SQL writes it), agrees (with all archived rows of
-- the id), has_gaps. In order of ("createdAt", id).
SELECT id, "createdAt", partition, bool_and(agrees) OVER (PARTITION BY id) AS agrees, has_gaps
FROM (
    SELECT e.id, e."createdAt", a.tableoid AS partition, ({agree}) AS agrees, ({gap}) AS has_gaps
    FROM unnest($1, $2) twin (id, created_at)
    JOIN "EventLog" e ON e.id = twin.id AND e."createdAt" = twin.created_at
    -- OFFSET keeps this a look-up per row: a join could be planned as a scan of the whole archive.
    CROSS JOIN LATERAL (SELECT * FROM ({twins}) a WHERE a.id = twin.id OFFSET 0) a
) pair
ORDER BY "createdAt", id
