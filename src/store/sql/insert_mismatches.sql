-- Keeps rows whose entry hash is not that of their contents with their run, as far as there is room.
-- :run and :month are the batch's; :ids, :entry_hashes and :computed_hashes have an element for each row; :most_kept is how many a run keeps.
-- One row: has_room, whether there is room for more.
-- \set run 'gen_random_uuid()'
-- \set month '''2026-01'''
-- \set ids '''{}''::text[]'
-- \set entry_hashes '''{}''::text[]'
-- \set computed_hashes '''{}''::text[]'
-- \set most_kept 1000
WITH kept AS (
    SELECT count(*) AS rows FROM "MaintenanceFinding" WHERE "runId" = :run AND kind = 'hash_mismatch'
),
added AS (
    INSERT INTO "MaintenanceFinding" ("runId", kind, "logId", month, detail)
    SELECT :run, 'hash_mismatch', id, :month, json_build_object('entryHash', entry_hash, 'computedHash', computed_hash)
    FROM unnest(:ids, :entry_hashes, :computed_hashes) WITH ORDINALITY named (id, entry_hash, computed_hash, place)
    WHERE place <= :most_kept - (SELECT rows FROM kept)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT rows FROM kept) + (SELECT count(*) FROM added) < :most_kept AS has_room
