-- Which of the rows that this transaction has locked are referenced by another table. A statement of its own, after the one that
-- locks: it sees every reference that was committed before, and none can be added until the transaction ends.
-- :first and :last are the first and the last row's "createdAt". One row: ids.
-- \set first '''2026-01-01''::timestamp'
-- \set last '''2026-02-01''::timestamp'
-- \set is_locked 'e.xmax = pg_current_xact_id()::xid'
-- \set is_referenced false
SELECT ARRAY(
    SELECT e.id::text
    FROM "EventLog" e
    WHERE e."createdAt" >= :first AND e."createdAt" <= :last
      AND :is_locked
      AND (:is_referenced)
) AS ids
