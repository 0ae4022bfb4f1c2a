-- Part of statements that write a batch: seals its rows, as the next seal in their month's chain, and tells those whose entry hash is not that
-- of their contents.
-- :source is the expression that has the rows, :digest and :is_wrong are computed of each, :also what else is carried along;
-- :month, :sequence, :kind, :run, :archived_after, :archived_at and :columns are the seal's, :previous is the digest of the one before,
-- :removed what is hashed of rows that leave (nothing, or SQL that begins with ||).
proof AS NOT MATERIALIZED (
    SELECT id, "createdAt", ledger, :digest AS digest, :is_wrong AS is_wrong:also FROM :source
),
-- Computed once, though what it has is named twice.
batch AS MATERIALIZED (
    -- As digest_rows.sql has it for any number of rows. A batch has few enough for one value to hold all their digests, and is
    -- sorted once instead of twice.
    SELECT
        rows, min_ledger, max_ledger, first_at, last_at, leaves,
        (SELECT min(id::text COLLATE "C") FROM proof WHERE "createdAt" = first_at) AS first_id,
        (SELECT max(id::text COLLATE "C") FROM proof WHERE "createdAt" = last_at) AS last_id,
        (
            SELECT string_agg(sha256(substr(digests, 32 * 10000 * chunk + 1, 32 * 10000)), '' ORDER BY chunk)
            FROM generate_series(0, (rows::int - 1) / 10000) chunk
        ) AS digests
    FROM (
        SELECT
            count(*) AS rows,
            min(ledger)::bigint AS min_ledger,
            max(ledger)::bigint AS max_ledger,
            min("createdAt") AS first_at,
            max("createdAt") AS last_at,
            string_agg(digest, '') AS digests,
            string_agg(substr(digest, 1, 8), '') AS leaves
        FROM (SELECT digest, ledger, "createdAt" FROM proof ORDER BY "createdAt", id::text COLLATE "C") sorted
        HAVING count(*) > 0
    ) whole
),
seal AS (
    INSERT INTO "ArchiveSeal" (
        month, sequence, kind, "runId", rows, "firstCreatedAt", "firstId", "lastCreatedAt", "lastId", "archivedAfter",
        "archivedAt", "minLedger", "maxLedger", columns, digest, leaves
    )
    SELECT
        :month, :sequence, :kind, :run, rows, first_at, first_id, last_at, last_id, :archived_after,
        :archived_at, min_ledger, max_ledger, :columns,
        sha256(:previous || archive_seal_header(
            :month, :sequence, :kind, :run, rows, first_at, first_id, last_at, last_id, :archived_after,
            :archived_at, min_ledger, max_ledger, :columns
        ) || digests || :removed),
        leaves
    FROM batch
),
mismatch AS (
    SELECT id, entry_hash, content_hash FROM :source WHERE :is_wrong
)
