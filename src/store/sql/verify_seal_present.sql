    SELECT
        id, "createdAt", ledger::bigint AS ledger, entry_hash, encode(content, 'hex') AS computed_hash, has_excess,
        sha256(convert_to(encode(content, 'hex') || rest, 'UTF8')) AS digest
    FROM (
        SELECT {proof_columns}, {has_excess} AS has_excess
        FROM {partition} a
        WHERE "archivedAt" > COALESCE((SELECT "archivedAfter" FROM entry), '-infinity')
          AND "archivedAt" <= (SELECT "archivedAt" FROM entry)
        -- OFFSET keeps the content from being computed for each use of it.
        OFFSET 0
    ) row
