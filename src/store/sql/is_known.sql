-- Whether a stream, a log, hot or archived, a snapshot or a record has an id.
-- $1 the id. Column: is_known.
SELECT EXISTS (SELECT FROM stream_identity_rows(ARRAY[$1], ARRAY[$1]))
    OR EXISTS (SELECT FROM "StreamIdentity" WHERE id = $1)
    OR EXISTS (SELECT FROM "StreamIdentity" WHERE "streamId" = $1)
    OR EXISTS (SELECT FROM "StreamSnapshot" WHERE "streamId" = $1)
    OR EXISTS (SELECT FROM "EventLog" WHERE "streamId" = $1)
    OR EXISTS (SELECT FROM "StreamArchive" WHERE "streamId" = $1) AS is_known
