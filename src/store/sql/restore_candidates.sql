-- Part of statements about the next batch of a restore: the rows that are looked at, and what keeps each from going back.
-- $1 to $10 as of restore_batch; $12 the places of rows that "EventLog" was found not to take.
-- candidate: place, id, "createdAt", obstacle (NULL for a row that may go; same_id or same_event when "EventLog" or an earlier
-- row of the batch has its id or its event; not_null_violation; refused) and lacking (the column that it must have a value in).
seen AS MATERIALIZED (
    SELECT a.ctid AS place, a.id, a."createdAt", a."streamId", a."archivedAt", {lacking} AS lacking{key}
    FROM {partition} a
    WHERE {after}
    LIMIT $9
),
wanted AS MATERIALIZED (
    SELECT a.* FROM seen a WHERE {matches}
),
looked_up AS MATERIALIZED (
    SELECT
        w.*,
        CASE
            WHEN same_id.yes IS NOT NULL THEN 'same_id'
            WHEN same_event.yes IS NOT NULL THEN 'same_event'
            WHEN w.lacking IS NOT NULL THEN 'not_null_violation'
            WHEN refused.place IS NOT NULL THEN 'refused'
        END AS obstacle
    FROM wanted w
    -- LIMIT keeps these look-ups per row: a join could be planned as a scan of the whole of "EventLog". And id alone need not be
    -- unique where "EventLog" is partitioned.
    LEFT JOIN LATERAL (SELECT true AS yes FROM "EventLog" e WHERE e.id = w.id LIMIT 1) same_id ON true
    LEFT JOIN LATERAL ({same_event}) same_event ON true
    LEFT JOIN (SELECT place::tid AS place FROM unnest($12::text[]) place) refused ON refused.place = w.place
    -- A row without stream is of none that is held.
    WHERE (w."streamId" = ANY ($10)) IS NOT TRUE
),
candidate AS MATERIALIZED (
    SELECT
        w.place, w.id, w."createdAt", w.lacking,
        -- Of rows of one id or one event that are both archived, the first.
        CASE
            WHEN w.obstacle IS NOT NULL THEN w.obstacle
            WHEN row_number() OVER (PARTITION BY w.id, w.obstacle IS NULL ORDER BY w."createdAt") > 1 THEN 'same_id'
            WHEN {copy} > 1 THEN 'same_event'
        END AS obstacle
    FROM looked_up w
)
