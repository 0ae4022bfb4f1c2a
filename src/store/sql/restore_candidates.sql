-- Part of statements about the next batch of a restore: the rows that are looked at, and what keeps each from going back.
-- What matches: :contract_ids, :from, :to and :run, each NULL for all, of :month, by :matches. Where the batch before ended, by :after:
-- :after_place, or :after_created_at and :after_id. :limit is how many rows are looked at, :held are streams that are held,
-- :refused_places those of rows that "EventLog" was found not to take. :is_returned is false of a row that leaves the archive and is
-- not put into "EventLog". :partition, :key, :lacking, :same_event and :copy are as the columns are.
-- candidate: place, id, "createdAt", obstacle (NULL for a row that may go; same_id or same_event when "EventLog" or an earlier
-- row of the batch has its id or its event; not_null_violation; refused) and lacking (the column that it must have a value in).
seen AS MATERIALIZED (
    SELECT a.ctid AS place, a.id, a."createdAt", a."streamId", a."archivedAt", :is_returned AS is_returned, :lacking AS lacking:key
    FROM :partition a
    WHERE :after
    LIMIT :limit
),
wanted AS MATERIALIZED (
    SELECT a.* FROM seen a WHERE :matches
),
looked_up AS MATERIALIZED (
    SELECT
        w.*,
        CASE
            WHEN NOT w.is_returned THEN NULL
            WHEN same_id.yes IS NOT NULL THEN 'same_id'
            WHEN same_event.yes IS NOT NULL THEN 'same_event'
            WHEN w.lacking IS NOT NULL THEN 'not_null_violation'
            WHEN refused.place IS NOT NULL THEN 'refused'
        END AS obstacle
    FROM wanted w
    -- LIMIT keeps these look-ups per row: a join could be planned as a scan of the whole of "EventLog". And id alone need not be
    -- unique where "EventLog" is partitioned.
    LEFT JOIN LATERAL (SELECT true AS yes FROM "EventLog" e WHERE e.id = w.id LIMIT 1) same_id ON true
    LEFT JOIN LATERAL (:same_event) same_event ON true
    LEFT JOIN (SELECT place::tid AS place FROM unnest(:refused_places::text[]) place) refused ON refused.place = w.place
    -- A row without stream is of none that is held.
    WHERE (w."streamId"::text = ANY (:held)) IS NOT TRUE
),
candidate AS MATERIALIZED (
    SELECT
        w.place, w.id, w."createdAt", w.lacking, w.is_returned,
        -- Of rows of one id or one event that are both archived, the first.
        CASE
            WHEN w.obstacle IS NOT NULL THEN w.obstacle
            WHEN NOT w.is_returned THEN NULL
            WHEN row_number() OVER (PARTITION BY w.id, w.obstacle IS NULL ORDER BY w."createdAt") > 1 THEN 'same_id'
            WHEN :copy > 1 THEN 'same_event'
        END AS obstacle
    FROM looked_up w
)
