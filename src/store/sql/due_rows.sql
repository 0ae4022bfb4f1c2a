    -- The next due rows of a month, locked, in order of ("createdAt", id). Rows that another session has locked are left out, and
    -- rows that are held. Part of other statements.
    -- $1 cutoff, $2 whether "EventLog" has hashes, $3 and $4 the month's first instant and its end or the cutoff, $5 and $6 the last
    -- row of the batch before (an id of NULL is before all), $7 most rows, $8 streams that are held, $9 event types that stay.
    FROM "EventLog" e
    WHERE e."createdAt" >= $3 AND e."createdAt" < $4
      AND e."createdAt" >= $5
      AND ($6 IS NULL OR (e."createdAt", e.id) > ($5, $6))
      AND e.id NOT IN (SELECT id FROM head)
      -- A row without stream or type is of none that is held.
      AND (e."streamId" = ANY ($8)) IS NOT TRUE
      AND (e."eventType"::text = ANY ($9)) IS NOT TRUE
      AND {is_free}
    ORDER BY e."createdAt", e.id
    LIMIT $7
    FOR UPDATE OF e SKIP LOCKED
