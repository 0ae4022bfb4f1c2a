-- Part of restore_batch and insert_places: rows that the former service archived have lost where in their transaction they were. They
-- come after all that is known of it, in order of ("createdAt", id).
    SELECT :numbered_values
    FROM gone g
    CROSS JOIN LATERAL (
        SELECT GREATEST(
            (SELECT max(e."eventIndex") FROM "EventLog" e WHERE e."txHash" = g."txHash"),
            (SELECT max(a."eventIndex") FROM "StreamArchive" a WHERE a."txHash" = g."txHash"),
            -1
        ) AS last
    ) known
    WHERE g."eventIndex" IS NULL AND :is_gone_returned
