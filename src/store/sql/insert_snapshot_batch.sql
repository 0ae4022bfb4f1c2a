-- Takes the month's snapshot of those of the next streams that have none (domain rules 3 and 4), or retakes those older
-- than the run, and tells whose ids are not recorded as they are (rule 8). In order of Stream.id.
-- Parameters: month, after (the stream before the first, or NULL for none), limit (most streams), started_at (of the run, UTC),
-- refresh (whether to retake), upto (the last stream, or NULL for no end), taken_at (when the batch is taken, UTC: a stream's
-- state is of then, not of the run's start).
-- Parts, by what the catalogue says of "Stream" (store::snapshots::StreamForm): distinct (DISTINCT ON where an id may be there
-- twice), id_type (of Stream.id), columns, row_created_at, how each value is made of the columns of s; logged and event_ids (the events that the
-- statement sees), log_is_filtered.
-- One row: seen, last_id (NULL when no stream was seen), created, unparsed, unparsed_ids (some of them, for the log),
-- unrecorded_ids, is_filtered and log_is_filtered (whether row security is in force on "Stream", and on "EventLog" where it is read).
-- \set month '''2026-03'''
-- \set after 'NULL::text'
-- \set limit '1000'
-- \set started_at '''2026-04-01''::timestamp'
-- \set refresh 'false'
-- \set upto 'NULL::text'
-- \set taken_at '''2026-04-01''::timestamp'
-- \set distinct ''
-- \set id_type text
-- \set columns 's.*'
-- \set row_created_at 'page."createdAt"'
-- \set logged `cat list_logged_ids.sql`
-- \set event_ids `cat list_event_ids_of_stream.sql`
-- \set log_is_filtered 'row_security_active(''"EventLog"''::regclass)'
-- \set sender 's.sender'
-- \set receiver 's.receiver'
-- \set token_address 's."tokenAddress"'
-- \set amount 's.amount'
-- \set per_second 'div(parsed.total, s.duration)'
-- \set status 's.status::text'
-- \set state 'row_to_json(s.*)'
WITH page AS MATERIALIZED (
    -- Rows are addressed by id: what is in the place of "Stream" need not be one table.
    SELECT :distinct :columns
    FROM "Stream" s
    WHERE s.id IS NOT NULL AND (:after IS NULL OR s.id > CAST(CAST(:after AS text) AS :id_type))
      AND (:upto IS NULL OR s.id <= CAST(CAST(:upto AS text) AS :id_type))
    ORDER BY s.id
    LIMIT :limit
),
missing AS MATERIALIZED (
    SELECT page.*
    FROM page
    -- LIMIT keeps this a look-up per stream: a join could be planned as a scan of years of snapshots for every batch.
    LEFT JOIN LATERAL (
        SELECT true AS yes
        FROM "StreamSnapshot" t
        WHERE t."streamId" = page.id::text AND t."snapshotMonth" = :month AND NOT (:refresh AND t."createdAt" < :started_at)
        LIMIT 1
    ) taken ON true
    WHERE taken.yes IS NULL
),
-- One object, by contract-level id, and not a join: that could be planned as if hardly any event were so new.
logged AS MATERIALIZED (
    :logged
),
unrecorded AS MATERIALIZED (
    SELECT page.id
    FROM page
    -- As above.
    LEFT JOIN LATERAL (
        SELECT true AS yes FROM "StreamIdentity" k
        -- IS TRUE keeps the planner from the index on the contract's id: by the stream's, records of a page lie side by side.
        WHERE k.id = page.id::text COLLATE "default" AND k."isLast" AND (k."streamId" = page."streamId") IS TRUE
          AND k."rowCreatedAt" IS NOT DISTINCT FROM :row_created_at
        LIMIT 1
    ) known ON true
    WHERE page."streamId" IS NOT NULL AND known.yes IS NULL
),
created AS (
    INSERT INTO "StreamSnapshot" AS t (
        id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount", status, state,
        "snapshotMonth", "createdAt", "eventIds"
    )
    SELECT
        gen_random_uuid()::text, s.id::text, :sender, :receiver, :token_address, CASE WHEN parsed.total IS NOT NULL THEN :per_second END,
        parsed.total, :status, :state, :month, :taken_at, :event_ids
    FROM missing s
    CROSS JOIN LATERAL (
        -- An expression that counts the digits itself, {1,39}, costs several times as much.
        SELECT CASE WHEN :amount ~ '^-?[0-9]+$' AND length(:amount) - position('-' IN :amount) <= 39 THEN :amount::numeric(39,0) END AS total
        OFFSET 0
    ) parsed
    -- Always so; and all look-ups above are done before the first row is inserted: they would walk over the new ones.
    WHERE (SELECT count(*) FROM missing) > 0
    ON CONFLICT ("streamId", "snapshotMonth") DO UPDATE
    SET sender = EXCLUDED.sender, receiver = EXCLUDED.receiver, "tokenAddress" = EXCLUDED."tokenAddress",
        "amountPerSecond" = EXCLUDED."amountPerSecond", "totalAmount" = EXCLUDED."totalAmount",
        status = EXCLUDED.status, state = EXCLUDED.state, "createdAt" = EXCLUDED."createdAt",
        "eventIds" = EXCLUDED."eventIds"
    WHERE :refresh AND t."createdAt" < :started_at
    RETURNING "streamId", "totalAmount"
)
SELECT
    (SELECT count(*) FROM page) AS seen,
    (SELECT id::text FROM page ORDER BY page.id DESC LIMIT 1) AS last_id,
    count(*) AS created,
    count(*) FILTER (WHERE "totalAmount" IS NULL) AS unparsed,
    ARRAY(SELECT "streamId" FROM created WHERE "totalAmount" IS NULL LIMIT 10) AS unparsed_ids,
    row_security_active('"Stream"'::regclass) AS is_filtered,
    :log_is_filtered AS log_is_filtered,
    ARRAY(SELECT id::text FROM unrecorded) AS unrecorded_ids
FROM created
