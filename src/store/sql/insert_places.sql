-- Inserts rows of the archive into "EventLog" and leaves them in the archive: what restore_batch inserts, to find out whether
-- "EventLog" takes it. Sent as a text that a DO block executes with the rows' places.
-- :places are these, :names, :rows and :partition are as restore_batch has them.
-- \set places '''{}''::tid[]'
-- \set partition '"StreamArchive_2026_01"'
-- \set names 'id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt"'
-- \set rows 'SELECT g.id, g."eventType", g."streamId", g."txHash", g.ledger, g."ledgerClosedAt" FROM gone g'
WITH gone AS MATERIALIZED (
    SELECT a.* FROM :partition a WHERE a.ctid = ANY (:places)
)
INSERT INTO "EventLog" (:names) OVERRIDING SYSTEM VALUE
:rows
