-- Fills in what adopted rows of one partition never got, from the rows of "EventLog" with the same ids, and seals them anew:
-- they leave the entry that had them for one of their own.
-- $1 ids, $2 "archivedAt" of the rows from now on; $3 and so on: the ledger's entry. One row: completed, hash_mismatches,
-- mismatches (some of them, as move_due_batch has them).
WITH old AS MATERIALIZED (
    SELECT id, "createdAt", "archivedAt", {old_digest} AS digest FROM {partition} WHERE id = ANY ($1)
),
removal AS (
    INSERT INTO "ArchiveRemoval" (month, "archivedAt", id, "createdAt", digest, sequence)
    SELECT {month}, "archivedAt", id, "createdAt", digest, {sequence} FROM old
),
completed AS (
    UPDATE {partition} a
    SET {fill}, "archivedAt" = $2
    FROM "EventLog" e
    WHERE e.id = ANY ($1) AND a.id = e.id AND a."createdAt" = e."createdAt"
    RETURNING {proof_columns}
),
{proof}
SELECT
    (SELECT count(*) FROM completed) AS completed,
    (SELECT count(*) FROM mismatch) AS hash_mismatches,
    {mismatches} AS mismatches
