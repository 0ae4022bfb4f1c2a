-- Part of updates of "ArchiveMonth" m: advances the month's chain to the seal that this transaction has added, if it has added one.
(seals, digest, "archivedAt") = (
    SELECT
        COALESCE(s.sequence, m.seals), COALESCE(s.digest, m.digest), COALESCE(s."archivedAt", m."archivedAt")
    FROM (SELECT) one
    LEFT JOIN "ArchiveSeal" s ON s.month = m.month AND s.sequence = m.seals + 1
)
