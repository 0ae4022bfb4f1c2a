-- Which of the rows that this transaction has locked are referenced by another table. A statement of its own, after the one that
-- locks: it sees every reference that was committed before, and none can be added until the transaction ends.
-- $1 and $2 the first and the last row's "createdAt". One row: ids.
SELECT ARRAY(
    SELECT e.id
    FROM "EventLog" e
    WHERE e."createdAt" >= $1 AND e."createdAt" <= $2
      AND {is_locked}
      AND ({is_referenced})
) AS ids
