-- Inserts :rows events into :table, evenly spread over :days days after :start and over :streams streams, with ledger numbers
-- from :ledger on. Each has the hash of itself and of the one before, as the host writes it: an aggregate over a window passes
-- it on, so that a row is written once.
CREATE FUNCTION pg_temp.hash_next(head text, content text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN RETURN encode(sha256(convert_to(content || head, 'UTF8')), 'hex'); END $$;
CREATE AGGREGATE pg_temp.chain(text) (SFUNC = pg_temp.hash_next, STYPE = text, INITCOND = '');
INSERT INTO :table (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, receiver, amount, metadata,
    "createdAt", parent_hash, entry_hash)
SELECT id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, receiver, amount, metadata, "createdAt",
    lag(entry_hash) OVER (), entry_hash
FROM (
    -- A series is in order without ORDER BY, which would sort it.
    SELECT *, pg_temp.chain(
        '{"amount":"' || amount || '","eventIndex":0,"eventType":"' || "eventType" || '","ledger":' || ledger
            || ',"ledgerClosedAt":"' || "ledgerClosedAt" || '","metadata":' || to_json(metadata) || ',"receiver":"' || receiver
            || '","sender":"' || sender || '","streamId":"' || "streamId" || '","txHash":"' || "txHash" || '"}'
    ) OVER (ROWS UNBOUNDED PRECEDING) AS entry_hash
    FROM (
        SELECT 'c' || md5(:start || i) AS id, (array['create', 'withdraw', 'pause', 'resume'])[1 + i % 4] AS "eventType",
            (41650000001 + (i * 7919) % :streams)::text AS "streamId", md5(:start || i) || md5((i + 1)::text) AS "txHash",
            (:ledger + i)::integer AS ledger, '2026-01-01T00:00:00Z' AS "ledgerClosedAt", 'GSENDER' || i % 1000 AS sender,
            'GRECEIVER' || i % 1000 AS receiver, i * 1000 AS amount,
            '{"memo":"invoice ' || i || '","source":"bench"}' AS metadata,
            timestamp :start + i * (interval '1 day' * :days / greatest(:rows, 1)) AS "createdAt"
        FROM generate_series(1, :rows::bigint) i
        OFFSET 0
    ) e
) e;
