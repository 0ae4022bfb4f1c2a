-- Part of insert_snapshot_batch.sql: the ids of the stream s's events among those logged (list_logged_ids.sql), under whichever
-- contract id it is known by: it may have got another one in the meantime.
CASE WHEN (SELECT ids FROM logged) IS NULL THEN '{}'::text[] ELSE ARRAY(
    SELECT jsonb_array_elements_text((SELECT ids FROM logged) -> contract.id)
    FROM (
        SELECT s."streamId"::text
        UNION
        SELECT theirs."streamId"
        FROM "StreamIdentity" its
        JOIN "StreamIdentity" theirs ON theirs.stream = its.stream
        WHERE its.id = s.id::text COLLATE "default"
    ) contract (id)
    WHERE (SELECT ids FROM logged) ? contract.id
) END
