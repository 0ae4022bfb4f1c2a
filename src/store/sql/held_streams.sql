-- Contract-level ids of the streams under legal hold, which events carry. Part of other statements.
SELECT h."streamId" FROM "LegalHold" h WHERE h."releasedAt" IS NULL
-- A hold may have been placed by Stream.id, before the other id was known.
UNION
SELECT s."streamId" FROM "LegalHold" h JOIN "Stream" s ON s.id = h."streamId"
WHERE h."releasedAt" IS NULL AND s."streamId" IS NOT NULL
UNION
SELECT i."streamId" FROM "LegalHold" h JOIN "StreamIdentity" i ON i.id = h."streamId"
WHERE h."releasedAt" IS NULL AND i."streamId" IS NOT NULL
