-- A stream's snapshots, newest month first. Of a month in which two of its Stream.ids have one, that which was taken first.
-- Parameters: stream (any of its ids), month (this one only, or NULL), before (months before this one only, or NULL), limit (most
-- rows).
-- Columns: those of "StreamSnapshot" as text, names (all ids of the stream), has_event_ids.
-- \set stream '''42'''
-- \set month 'NULL::text'
-- \set before 'NULL::text'
-- \set limit '50'
SELECT
    id, "streamId", names, sender, receiver, "tokenAddress", "amountPerSecond"::text, "totalAmount"::text, status, state::text,
    "snapshotMonth", "createdAt", has_event_ids
FROM stream_snapshot_list(:stream, :month, :before, :limit)
