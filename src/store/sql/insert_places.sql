-- Inserts rows of the archive into "EventLog" and leaves them in the archive: what restore_batch inserts, to find out whether
-- "EventLog" takes it.
-- $1 the rows' places.
WITH gone AS MATERIALIZED (
    SELECT a.* FROM {partition} a WHERE a.ctid = ANY ($1)
)
INSERT INTO "EventLog" ({names}) OVERRIDING SYSTEM VALUE
{rows}
