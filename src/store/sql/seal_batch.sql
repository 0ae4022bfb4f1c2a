-- Part of a statement that writes a batch: seals its rows as the next entry of their month's ledger, and records those whose
-- entry hash is not that of their contents.
proof AS MATERIALIZED (
    SELECT id, "createdAt", ledger, entry_hash, encode(content, 'hex') AS computed_hash, {digest} AS digest{also}
    FROM {source}
),
batch AS (
    SELECT
        count(*) AS rows,
        max(ledger)::bigint AS max_ledger,
        string_agg(digest, '') AS digests,
        string_agg(substr(digest, 1, 8), '') AS leaves
    FROM (SELECT * FROM proof ORDER BY "createdAt", id COLLATE "C") sorted
),
edge AS (
    SELECT first."createdAt" AS first_at, first.id AS first_id, newest."createdAt" AS last_at, newest.id AS last_id
    FROM (SELECT "createdAt", id FROM proof ORDER BY "createdAt", id COLLATE "C" LIMIT 1) first
    CROSS JOIN (SELECT "createdAt", id FROM proof ORDER BY "createdAt" DESC, id COLLATE "C" DESC LIMIT 1) newest
),
seal AS (
    INSERT INTO "ArchiveSeal" (
        month, sequence, kind, "runId", rows, "firstCreatedAt", "firstId", "lastCreatedAt", "lastId", "archivedAfter",
        "archivedAt", "maxLedger", columns, digest, leaves
    )
    SELECT
        {month}, {sequence}, '{kind}', {run}, rows, first_at, first_id, last_at, last_id, {archived_after},
        {archived_at}, max_ledger, {columns},
        sha256({previous} || archive_seal_header(
            {month}, {sequence}, '{kind}', {run}, rows, first_at, first_id, last_at, last_id, {archived_after},
            {archived_at}, max_ledger, {columns}
        ) || digests),
        leaves
    FROM batch CROSS JOIN edge
    RETURNING digest
),
ledger_head AS (
    UPDATE "ArchiveMonth" m
    SET entries = {sequence}, digest = seal.digest, "archivedAt" = COALESCE({archived_at}, m."archivedAt")
    FROM seal
    WHERE m.month = {month}
),
mismatch AS (
    INSERT INTO "MaintenanceFinding" ("runId", kind, "logId", month, detail)
    SELECT {run}, 'hash_mismatch', id, {month}, jsonb_build_object('entryHash', entry_hash, 'computedHash', computed_hash)
    FROM proof
    WHERE entry_hash <> computed_hash
    RETURNING 1
)
