-- Seals all rows of a month as the first entry of its ledger. Nothing happens when it has none.
-- $1 month, $2 digest of the month's head, $3 columns of the row form. One row: rows.
WITH sealed AS MATERIALIZED (
    SELECT "createdAt", id, "archivedAt", ledger, {digest} AS digest FROM {partition}
),
batch AS (
{digest_rows}
),
edge AS (
    SELECT first."createdAt" AS first_at, first.id AS first_id, last."createdAt" AS last_at, last.id AS last_id
    FROM (SELECT "createdAt", id FROM sealed ORDER BY "createdAt", id COLLATE "C" LIMIT 1) first
    CROSS JOIN (SELECT "createdAt", id FROM sealed ORDER BY "createdAt" DESC, id COLLATE "C" DESC LIMIT 1) last
),
seal AS (
    INSERT INTO "ArchiveSeal" (
        month, sequence, kind, rows, "firstCreatedAt", "firstId", "lastCreatedAt", "lastId", "archivedAt", "minLedger",
        "maxLedger", columns, digest, leaves
    )
    SELECT
        $1, 1, 'adopted', rows, first_at, first_id, last_at, last_id, archived_at, min_ledger, max_ledger, $3,
        sha256($2 || archive_seal_header(
            $1, 1, 'adopted', NULL, rows, first_at, first_id, last_at, last_id, NULL, archived_at, min_ledger,
            max_ledger, $3
        ) || digests),
        leaves
    FROM batch CROSS JOIN edge CROSS JOIN (SELECT max("archivedAt") AS archived_at FROM sealed) newest
    RETURNING digest, "archivedAt"
),
head AS (
    UPDATE "ArchiveMonth" m SET entries = 1, digest = seal.digest, "archivedAt" = seal."archivedAt"
    FROM seal WHERE m.month = $1
)
SELECT rows FROM batch
