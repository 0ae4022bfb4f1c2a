-- Part of count_unlinked.sql: as find_unverifiable.sql has it, of all rows at once.
-- Parts: rows (a month's), before (those of the month before). Column: parent_hash.
    SELECT parent_hash::text
    FROM (
        SELECT
            is_own, parent_hash,
            lag(id) OVER in_order AS id_before, lag(entry_hash) OVER in_order AS entry_hash_before
        FROM (
            SELECT true AS is_own, id, "createdAt", parent_hash, entry_hash FROM :rows own
            UNION ALL
            (
                SELECT false, id, "createdAt", parent_hash, entry_hash FROM :before earlier
                ORDER BY "createdAt" DESC, id DESC LIMIT 1
            )
        ) row
        WINDOW in_order AS (ORDER BY "createdAt", id)
    ) placed
    WHERE is_own AND parent_hash IS NOT NULL AND id_before IS NOT NULL AND entry_hash_before IS NULL
