-- Part of statements that digest :rows, any number of them: in chunks, so that no value holds the digests of all of them.
    SELECT
        COALESCE(sum(rows), 0)::bigint AS rows,
        min(min_ledger) AS min_ledger,
        max(max_ledger) AS max_ledger,
        COALESCE(string_agg(digest, '' ORDER BY chunk), '') AS digests,
        COALESCE(string_agg(leaves, '' ORDER BY chunk), '') AS leaves
    FROM (
        SELECT
            chunk,
            count(*) AS rows,
            min(ledger)::bigint AS min_ledger,
            max(ledger)::bigint AS max_ledger,
            sha256(string_agg(digest, '')) AS digest,
            string_agg(substr(digest, 1, 8), '') AS leaves
        FROM (
            -- Sorted for the groups and within them: aggregates that sort for themselves do it once each.
            SELECT (place - 1) / 10000 AS chunk, digest, ledger
            FROM (
                SELECT digest, ledger, row_number() OVER (ORDER BY "createdAt", id::text COLLATE "C") AS place FROM :rows
            ) placed
            ORDER BY chunk, place
        ) sorted
        GROUP BY chunk
    ) chunks
