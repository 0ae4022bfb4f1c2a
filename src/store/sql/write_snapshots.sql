-- The snapshots, a line of JSON each, in order of month and stream; as the API has them. Not as jsonb, which cannot hold all
-- that a state may have.
-- Column: line.
-- JSON of the host's may have line breaks between its parts, and nowhere else.
SELECT translate(json_build_object(
    'id', s.id,
    'streamId', s."streamId",
    'sender', s.sender,
    'receiver', s.receiver,
    'tokenAddress', s."tokenAddress",
    'amountPerSecond', s."amountPerSecond"::text,
    'totalAmount', s."totalAmount"::text,
    'status', s.status,
    'state', s.state,
    'snapshotMonth', s."snapshotMonth",
    'createdAt', to_char(s."createdAt", 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
)::text, E'\n\r', '  ') AS line
FROM "StreamSnapshot" s
ORDER BY s."snapshotMonth", s."streamId"
