-- Settles due rows that are archived already: under the same id, or under another one because the host has ingested the event again.
-- Where the contents are the same the row is dropped, and kept on record if it has anything that the archived one has not; where they
-- differ it stays (domain rule 6). The rows are locked by the statement before.
-- :ids (of the type :id_type) and :times are theirs, :run and :month those of the batch, :most_kept is how many on record of the run stay; :archived is where
-- they are looked for, :is_archived tells whether the row e is the row a, :is_agreed and :is_same_contents whether the contents are
-- the same, :has_gap whether e has more.
-- One row: same, dropped, already_archived (of these, under the same id), conflicts (ids of those that stay, in order).
-- \set ids '''{}''::text[]'
-- \set times '''{}''::timestamp[]'
-- \set id_type text
-- \set run 'gen_random_uuid()'
-- \set month '''2026-01'''
-- \set most_kept 1000
-- \set entry_hash e.entry_hash
-- \set archived 'SELECT * FROM "StreamArchive"'
-- \set is_archived 'a.id = e.id'
-- \set is_agreed true
-- \set is_same_contents true
-- \set has_gap false
WITH pair AS MATERIALIZED (
    SELECT
        e.id, e."createdAt", row_to_json(e.*) AS row, :entry_hash AS entry_hash, a.id AS archived_id, a.is_same,
        a.id = e.id AS is_same_id, a.has_gap
    FROM unnest(:ids, :times) duplicate (id, created_at)
    JOIN "EventLog" e ON e.id = CAST(duplicate.id AS :id_type) AND e."createdAt" = duplicate.created_at
    CROSS JOIN LATERAL (
        -- OFFSET keeps this a look-up per row.
        SELECT a.id, CASE WHEN a.id = e.id THEN (:is_agreed) ELSE (:is_same_contents) END AS is_same, (:has_gap) AS has_gap
        FROM (:archived) a
        WHERE :is_archived
        ORDER BY a.id = e.id DESC, is_same DESC, a.id
        OFFSET 0
        LIMIT 1
    ) a
),
finding AS (
    INSERT INTO "MaintenanceFinding" ("runId", kind, "logId", month, detail, "entryHash")
    -- A row that is dropped is nowhere else: each is kept. Of those that stay some will do.
    SELECT
        :run, CASE WHEN is_same THEN 'duplicate_dropped' ELSE 'duplicate_kept' END, id::text, :month,
        json_build_object('archivedId', archived_id, 'row', row), entry_hash
    FROM (
        SELECT *, row_number() OVER (PARTITION BY is_same ORDER BY "createdAt", id) AS place
        FROM pair WHERE NOT is_same_id OR (is_same AND has_gap)
    ) placed
    WHERE is_same OR place <= :most_kept - (
        SELECT count(*) FROM "MaintenanceFinding" f WHERE f."runId" = :run AND f.kind = 'duplicate_kept'
    )
    ON CONFLICT DO NOTHING
),
dropped AS (
    DELETE FROM "EventLog" e
    USING (SELECT id, "createdAt", is_same_id FROM pair WHERE is_same) same
    WHERE e.id = same.id AND e."createdAt" = same."createdAt"
    RETURNING same.is_same_id
)
SELECT
    (SELECT count(*) FROM pair WHERE is_same) AS same,
    (SELECT count(*) FROM dropped) AS dropped,
    (SELECT count(*) FROM dropped WHERE is_same_id) AS already_archived,
    ARRAY(SELECT id::text FROM pair WHERE NOT is_same ORDER BY "createdAt", id) AS conflicts
