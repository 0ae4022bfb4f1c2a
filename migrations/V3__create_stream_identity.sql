-- "StreamIdentity": both ids of every stream seen, so that either finds its history also after the "Stream" row is gone.
-- Filled here for streams whose snapshots were adopted without a state; each snapshot run adds the rest.
CREATE TABLE IF NOT EXISTS "StreamIdentity" (
    id         TEXT PRIMARY KEY,   -- Stream.id
    "streamId" TEXT NOT NULL       -- Stream."streamId"; not unique: a host may index a contract's stream anew
);

INSERT INTO "StreamIdentity" (id, "streamId")
SELECT id, "streamId" FROM "Stream" WHERE "streamId" IS NOT NULL
ON CONFLICT DO NOTHING;

CREATE INDEX IF NOT EXISTS "StreamIdentity_streamId_idx" ON "StreamIdentity" ("streamId");
