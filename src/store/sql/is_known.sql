-- Whether a stream, a log, hot or archived, a snapshot or a record has an id.
-- Parameters: id.
-- One row: is_known.
-- \set id '''42'''
SELECT EXISTS (SELECT FROM stream_identity_rows(ARRAY[:id], ARRAY[:id]))
    OR EXISTS (SELECT FROM "StreamIdentity" WHERE id = :id)
    OR EXISTS (SELECT FROM "StreamIdentity" WHERE "streamId" = :id)
    OR EXISTS (SELECT FROM "StreamSnapshot" WHERE "streamId" = :id)
    OR EXISTS (SELECT FROM "EventLog" WHERE "streamId" = :id)
    OR EXISTS (SELECT FROM "StreamArchive" WHERE "streamId" = :id) AS is_known
