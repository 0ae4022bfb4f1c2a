-- The months of the archive, oldest first, by what their seals say. A seal of kind restored has rows that left.
-- Columns: month, rows, seals, sealed_at (UTC), digest (of the last seal, in hexadecimal).
SELECT
    m.month, COALESCE(sealed.rows, 0) AS rows, m.seals, m."archivedAt" AS sealed_at, encode(m.digest, 'hex') AS digest
FROM "ArchiveMonth" m
LEFT JOIN LATERAL (
    SELECT sum(CASE WHEN s.kind = 'restored' THEN -s.rows ELSE s.rows END)::bigint AS rows FROM "ArchiveSeal" s WHERE s.month = m.month
) sealed ON true
ORDER BY m.month
