-- A stream and its contract ids, a row each; one without any where it has none.
-- Parameters: stream (any of its ids).
-- Columns: contract_id (that it has, or had last), names, owned_id, since, until.
-- \set stream '''42'''
SELECT ids.contract_id, ids.names, n.id AS owned_id, n.since, n.until
FROM stream_identity_look_up(:stream) ids
LEFT JOIN LATERAL unnest(ids.contract_ids, ids.contract_ids_from, ids.contract_ids_until) n (id, since, until) ON true
ORDER BY n.id, n.since NULLS FIRST
