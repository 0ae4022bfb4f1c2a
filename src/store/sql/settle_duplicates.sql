-- Settles due rows whose event is archived under another id: the host has ingested it again. Where the contents are the same
-- the row is dropped and kept on record; where they differ it stays. The rows are locked by the statement before.
-- $1 and $2 their ids and times, $3 run, $4 month, $5 most rows on record of the run that stay. One row: same, dropped, conflicts (ids of those
-- that stay, in order).
WITH pair AS MATERIALIZED (
    SELECT e.id, e."createdAt", row_to_json(e.*) AS row, {entry_hash} AS entry_hash, a.id AS archived_id, a.is_same
    FROM unnest($1, $2) duplicate (id, created_at)
    JOIN "EventLog" e ON e.id = duplicate.id AND e."createdAt" = duplicate.created_at
    CROSS JOIN LATERAL (
        -- OFFSET keeps this a look-up per row.
        SELECT a.id, ({same_contents}) AS is_same
        FROM ({archived}) a
        WHERE a."txHash" = e."txHash" AND a."eventIndex" = e."eventIndex"
        ORDER BY is_same DESC, a.id
        OFFSET 0
        LIMIT 1
    ) a
),
finding AS (
    INSERT INTO "MaintenanceFinding" ("runId", kind, "logId", month, detail, "entryHash")
    -- A row that is dropped is nowhere else: each is kept. Of those that stay some will do.
    SELECT
        $3, CASE WHEN is_same THEN 'duplicate_dropped' ELSE 'duplicate_kept' END, id, $4,
        json_build_object('archivedId', archived_id, 'row', row), entry_hash
    FROM (SELECT *, row_number() OVER (PARTITION BY is_same ORDER BY "createdAt", id) AS place FROM pair) placed
    WHERE is_same OR place <= $5 - (
        SELECT count(*) FROM "MaintenanceFinding" f WHERE f."runId" = $3 AND f.kind = 'duplicate_kept'
    )
    ON CONFLICT DO NOTHING
),
dropped AS (
    DELETE FROM "EventLog" e
    USING (SELECT id, "createdAt" FROM pair WHERE is_same) same
    WHERE e.id = same.id AND e."createdAt" = same."createdAt"
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM pair WHERE is_same) AS same,
    (SELECT count(*) FROM dropped) AS dropped,
    ARRAY(SELECT id FROM pair WHERE NOT is_same ORDER BY "createdAt", id) AS conflicts
