    -- Of any number of rows: in chunks, so that no value holds the digests of all of them.
    SELECT
        COALESCE(sum(rows), 0)::bigint AS rows,
        min(min_ledger) AS min_ledger,
        max(max_ledger) AS max_ledger,
        COALESCE(string_agg(digest, '' ORDER BY chunk), '') AS digests,
        COALESCE(string_agg(leaves, '' ORDER BY chunk), '') AS leaves
    FROM (
        SELECT
            (place - 1) / 10000 AS chunk,
            count(*) AS rows,
            min(ledger)::bigint AS min_ledger,
            max(ledger)::bigint AS max_ledger,
            sha256(string_agg(digest, '' ORDER BY place)) AS digest,
            string_agg(substr(digest, 1, 8), '' ORDER BY place) AS leaves
        FROM (
            SELECT digest, ledger, row_number() OVER (ORDER BY "createdAt", id COLLATE "C") AS place FROM {rows}
        ) placed
        GROUP BY (place - 1) / 10000
    ) chunks
