-- Compares the former service's archive with the service's own, and with what is still in "EventLog".
-- :former is the table, :is_archived tells whether the archived row a is the row f, :is_hot whether the row e of "EventLog" is, :id_type is the type of its ids. One row: rows, equal, differing and left_out (ids of some).
-- \set former '"StreamArchive"'
-- \set is_archived true
-- \set is_hot true
-- \set id_type text
WITH compared AS MATERIALIZED (
    SELECT
        f.id::text AS id,
        f."createdAt" >= '0001-01-01' AND f."createdAt" < '10000-01-01' AS can_be,
        COALESCE(hot.is_equal, archived.is_equal, false) AS is_equal
    FROM :former f
    LEFT JOIN LATERAL (
        SELECT (:is_hot) AS is_equal FROM "EventLog" e WHERE e.id = CAST(CAST(f.id AS text) AS :id_type) LIMIT 1
    ) hot ON true
    LEFT JOIN LATERAL (
        SELECT (:is_archived) AS is_equal FROM "StreamArchive" a
        WHERE a.id = CAST(CAST(f.id AS text) AS :id_type) AND a."createdAt" >= date_trunc('month', f."createdAt"::timestamp)
          AND a."createdAt" < date_trunc('month', f."createdAt"::timestamp) + interval '1 month'
        LIMIT 1
    ) archived ON true
)
SELECT
    count(*) AS rows,
    count(*) FILTER (WHERE is_equal) AS equal,
    ARRAY(SELECT id FROM compared WHERE can_be IS TRUE AND NOT is_equal ORDER BY id LIMIT 10) AS differing,
    ARRAY(SELECT id FROM compared WHERE can_be IS NOT TRUE ORDER BY id LIMIT 10) AS left_out
FROM compared
