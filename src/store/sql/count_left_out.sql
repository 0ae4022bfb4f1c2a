-- How many of a stream's events no reader shows, because their time cannot be: only "EventLog" has such. Three looks at the
-- ends of an index.
-- Parameters: stream (any of its ids).
-- One row: left_out, is_filtered (whether row security is in force on "EventLog").
-- \set stream '''42'''
WITH ids AS MATERIALIZED (SELECT * FROM stream_identity_look_up(:stream))
SELECT
    (
        SELECT count(*) FROM "EventLog" e
        WHERE e."streamId" = ANY ((SELECT contract_ids FROM ids)::text[]) AND e."createdAt" < '0001-01-01'
    ) + (
        SELECT count(*) FROM "EventLog" e
        WHERE e."streamId" = ANY ((SELECT contract_ids FROM ids)::text[]) AND e."createdAt" >= '10000-01-01'
    ) + (
        SELECT count(*) FROM "EventLog" e
        WHERE e."streamId" = ANY ((SELECT contract_ids FROM ids)::text[]) AND e."createdAt" IS NULL
    ) AS left_out,
    row_security_active('"EventLog"'::regclass) AS is_filtered
