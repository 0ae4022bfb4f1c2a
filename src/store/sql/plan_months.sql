-- Notes the months that a run works on. A month that the run has already stays as it is.
-- :run is the run, :months are the months, :done whether their rows are not to be looked at.
-- \set run 'gen_random_uuid()'
-- \set months '''{2026-01}''::text[]'
-- \set done false
WITH planned AS (
    INSERT INTO "RunMonth" ("runId", month, done) SELECT :run, unnest(:months), :done ON CONFLICT DO NOTHING
)
INSERT INTO "ArchiveMonth" (month, digest)
SELECT month, sha256(convert_to(month, 'UTF8')) FROM unnest(:months) planned (month)
ON CONFLICT DO NOTHING
