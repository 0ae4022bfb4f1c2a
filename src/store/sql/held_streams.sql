-- Contract ids under legal hold, which events carry. Part of other statements. Column: streamId, never NULL.
-- A hold covers every contract id of each stream that ever had the held id, as is recorded or as "Stream" has it now. It errs on
-- the side of holding: when an id was taken over does not matter.
-- Looked up by arrays: planned as nothing but look-ups, which without a hold are none.
WITH hold AS MATERIALIZED (
    SELECT DISTINCT "streamId" AS name FROM "LegalHold" WHERE "releasedAt" IS NULL
),
live AS MATERIALIZED (
    SELECT s.id, s.contract
    FROM stream_identity_rows(ARRAY(SELECT name FROM hold), ARRAY(SELECT name FROM hold)) s
    WHERE EXISTS (SELECT FROM hold)
),
seen AS MATERIALIZED (
    SELECT stream FROM "StreamIdentity"
    WHERE id = ANY (ARRAY(SELECT name FROM hold UNION SELECT id FROM live))
    UNION
    SELECT stream FROM "StreamIdentity"
    WHERE "streamId" = ANY (ARRAY(SELECT name FROM hold UNION SELECT contract FROM live))
),
pair AS MATERIALIZED (
    SELECT id, "streamId" FROM "StreamIdentity" WHERE stream = ANY (ARRAY(SELECT stream FROM seen))
)
-- A hold may be on an id that nothing has yet.
SELECT name AS "streamId" FROM hold
UNION SELECT contract FROM live WHERE contract IS NOT NULL
UNION SELECT "streamId" FROM pair
-- Contract ids of today.
UNION
SELECT s.contract FROM stream_identity_rows(ARRAY(SELECT id FROM pair), '{}') s
WHERE EXISTS (SELECT FROM hold) AND s.contract IS NOT NULL
