-- Chains the events by hashes, as the host does.
DO $$
DECLARE
    row record;
    parent text;
    head text := '';
BEGIN
    CREATE TEMPORARY TABLE chain (id text, parent_hash text, entry_hash text) ON COMMIT DROP;
    FOR row IN
        SELECT id, '{"amount":' || COALESCE('"' || amount || '"', 'null') || ',"eventIndex":' || "eventIndex"
            || ',"eventType":' || to_json("eventType") || ',"ledger":' || ledger
            || ',"ledgerClosedAt":' || to_json("ledgerClosedAt") || ',"metadata":' || COALESCE(to_json(metadata)::text, 'null')
            || ',"receiver":' || COALESCE(to_json(receiver)::text, 'null')
            || ',"sender":' || COALESCE(to_json(sender)::text, 'null')
            || ',"streamId":' || to_json("streamId") || ',"txHash":' || to_json("txHash") || '}' AS content
        FROM "EventLog"
        ORDER BY "createdAt", id
    LOOP
        parent := NULLIF(head, '');
        head := encode(sha256(convert_to(row.content || head, 'UTF8')), 'hex');
        INSERT INTO chain VALUES (row.id, parent, head);
    END LOOP;
    UPDATE "EventLog" e SET parent_hash = c.parent_hash, entry_hash = c.entry_hash FROM chain c WHERE c.id = e.id;
END
$$
