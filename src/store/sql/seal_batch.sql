-- Part of a statement that writes a batch: seals its rows as the next entry of their month's ledger, and records those whose
-- entry hash is not that of their contents.
proof AS NOT MATERIALIZED (
    SELECT id, "createdAt", ledger, substr(proof, 1, 32) AS digest, proof{also} FROM {source}
),
batch AS (
{digest_rows}
),
edge AS (
    SELECT first."createdAt" AS first_at, first.id AS first_id, newest."createdAt" AS last_at, newest.id AS last_id
    FROM (SELECT "createdAt", id FROM proof ORDER BY "createdAt", id COLLATE "C" LIMIT 1) first
    CROSS JOIN (SELECT "createdAt", id FROM proof ORDER BY "createdAt" DESC, id COLLATE "C" DESC LIMIT 1) newest
),
seal AS (
    INSERT INTO "ArchiveSeal" (
        month, sequence, kind, "runId", rows, "firstCreatedAt", "firstId", "lastCreatedAt", "lastId", "archivedAfter",
        "archivedAt", "minLedger", "maxLedger", columns, digest, leaves
    )
    SELECT
        {month}, {sequence}, '{kind}', {run}, rows, first_at, first_id, last_at, last_id, {archived_after},
        {archived_at}, min_ledger, max_ledger, {columns},
        sha256({previous} || archive_seal_header(
            {month}, {sequence}, '{kind}', {run}, rows, first_at, first_id, last_at, last_id, {archived_after},
            {archived_at}, min_ledger, max_ledger, {columns}
        ) || digests{removed}),
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
    SELECT {run}, 'hash_mismatch', id, {month}, jsonb_build_object(
        'entryHash', convert_from(substr(proof, 97), 'UTF8'), 'computedHash', convert_from(substr(proof, 33, 64), 'UTF8')
    )
    FROM proof
    WHERE octet_length(proof) > 32
    ON CONFLICT DO NOTHING
    RETURNING 1
)
