-- All that the stream is called that a caller names by any of its ids (domain rule 8). Continued by the statement that reads.
-- $1 the id as given. Columns: those of stream_identity_look_up.
WITH ids AS MATERIALIZED (
    SELECT * FROM stream_identity_look_up($1)
)
