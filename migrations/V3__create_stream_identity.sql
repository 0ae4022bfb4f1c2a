-- "StreamIdentity": which ids each stream was seen with, and when, so that every one of them finds the stream's history, also
-- after the "Stream" row is gone (domain rule 8). A row is added when a Stream.id is first seen, and when it is seen with
-- another contract id than before; only ends, and what a row of "Stream" says of itself, change later.
CREATE TABLE IF NOT EXISTS "StreamIdentity" (
    stream         BIGINT NOT NULL,                          -- our number of the stream: the host's ids may change
    number         BIGINT GENERATED ALWAYS AS IDENTITY,      -- in the order in which rows were added
    id             TEXT NOT NULL,                            -- Stream.id
    "streamId"     TEXT NOT NULL,                            -- the contract id that it was seen with
    "isLast"       BOOLEAN NOT NULL DEFAULT true,            -- whether the Stream.id was last seen with this contract id
    "rowCreatedAt" TIMESTAMP,                                -- "createdAt" of the "Stream" row (UTC): tells a row from the next of its id
    "ownedFrom"    TIMESTAMP,                                -- since when (UTC) the contract id names this stream; NULL: always
    "ownedUntil"   TIMESTAMP,                                -- when another stream took the contract id over; NULL: none has
    "idFrom"       TIMESTAMP,                                -- the same of the Stream.id
    "idUntil"      TIMESTAMP,
    "firstSeenAt"  TIMESTAMP(3) NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    PRIMARY KEY (stream, number)
);
CREATE INDEX IF NOT EXISTS "StreamIdentity_id_idx" ON "StreamIdentity" (id);
CREATE INDEX IF NOT EXISTS "StreamIdentity_streamId_idx" ON "StreamIdentity" ("streamId");

-- The functions below name the host's table in their bodies only, which are strings: nothing depends on it.

-- Rows of "Stream" come from stream_identity_rows, of the next migration.

-- Which recorded stream a row of "Stream" is; NULL when it is a new one.
-- A row is known by its Stream.id, unless it is newer than the recorded row of that id: then the id was given to another row.
-- One under a new Stream.id is the stream indexed again if it has the stream's last contract id, and the row that had it is gone.
CREATE OR REPLACE FUNCTION stream_identity_of(row_id text, contract text, created timestamp) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
#variable_conflict use_variable
DECLARE
    known record;
    newest record;
BEGIN
    SELECT k.stream, k."streamId", k."rowCreatedAt" INTO known
    FROM "StreamIdentity" k WHERE k.id = row_id AND k."isLast";
    IF FOUND AND (known."streamId" = contract OR NOT COALESCE(created > known."rowCreatedAt", false)) THEN
        RETURN known.stream;
    END IF;
    SELECT k.stream INTO known
    FROM "StreamIdentity" k WHERE k."streamId" = contract AND k."ownedUntil" IS NULL
    ORDER BY k.number DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT k.id, k."streamId", k."rowCreatedAt" INTO newest
    FROM "StreamIdentity" k WHERE k.stream = known.stream
    ORDER BY k.number DESC LIMIT 1;
    IF newest."streamId" = contract AND NOT EXISTS (
        SELECT FROM stream_identity_rows(ARRAY[newest.id], '{}') s
        WHERE s.id <> row_id AND (s.contract = contract OR NOT COALESCE(s.created > newest."rowCreatedAt", false))
    ) THEN
        RETURN known.stream;
    END IF;
    RETURN NULL;
END
$$;

-- From when on an id names the stream that took it over: from its row's "createdAt", but not while the first owner is known to
-- have had it: since first_from, and where a snapshot under one of first_ids has (or may have) the contract id first_contract.
CREATE OR REPLACE FUNCTION stream_identity_turn(
    first_ids text[], first_contract text, first_from timestamp, created timestamp
) RETURNS timestamp
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
#variable_conflict use_variable
DECLARE
    contract_json text := to_json(first_contract);
    last_snapshot timestamp;
BEGIN
    -- As text: a state may hold what jsonb cannot.
    SELECT max(t."createdAt") INTO last_snapshot
    FROM "StreamSnapshot" t
    WHERE t."streamId" = ANY (first_ids)
      AND (
          t.state IS NULL
          OR strpos(t.state::text, '"streamId":' || contract_json) > 0
          OR strpos(t.state::text, '"streamId": ' || contract_json) > 0
      );
    RETURN COALESCE(
        GREATEST(
            -- Not infinity, nor another time that cannot be.
            CASE WHEN created >= '0001-01-01' AND created < '10000-01-01' THEN created END,
            first_from,
            last_snapshot + interval '1 microsecond'
        ),
        statement_timestamp() AT TIME ZONE 'UTC'
    );
END
$$;

-- Records the ids that these rows of "Stream" have now. The lock lets each caller see what the one before it has recorded.
CREATE OR REPLACE FUNCTION stream_identity_observe(row_ids text[]) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    live record;
    known record;
    owner record;
    its_stream bigint;
    owned_from timestamp;
    id_from timestamp;
BEGIN
    IF cardinality(row_ids) = 0 THEN
        RETURN;
    END IF;
    LOCK TABLE "StreamIdentity" IN SHARE ROW EXCLUSIVE MODE;

    -- Nearly all of them: streams of which neither id was ever seen.
    INSERT INTO "StreamIdentity" (stream, id, "streamId", "rowCreatedAt")
    SELECT
        (SELECT COALESCE(max(stream), 0) FROM "StreamIdentity") + row_number() OVER (ORDER BY s.created, s.id),
        s.id, s.contract, s.created
    FROM (
        SELECT s.*, count(*) OVER (PARTITION BY s.id) + count(*) OVER (PARTITION BY s.contract) AS copies
        FROM stream_identity_rows(row_ids, '{}') s
        WHERE s.contract IS NOT NULL
    ) s
    WHERE s.copies = 2
      AND NOT EXISTS (SELECT FROM "StreamIdentity" k WHERE k.id = s.id)
      AND NOT EXISTS (SELECT FROM "StreamIdentity" k WHERE k."streamId" = s.contract);

    FOR live IN
        SELECT s.*
        FROM stream_identity_rows(row_ids, '{}') s
        WHERE s.contract IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM "StreamIdentity" k
              WHERE k.id = s.id AND k."isLast" AND k."streamId" = s.contract
                AND k."rowCreatedAt" IS NOT DISTINCT FROM s.created
          )
        ORDER BY s.created, s.id
    LOOP
        SELECT * INTO known FROM "StreamIdentity" k WHERE k.id = live.id AND k."isLast";
        IF known."streamId" = live.contract THEN
            UPDATE "StreamIdentity" k SET "rowCreatedAt" = live.created
            WHERE k.stream = known.stream AND k.number = known.number;
            CONTINUE;
        END IF;
        its_stream := COALESCE(
            stream_identity_of(live.id, live.contract, live.created),
            (SELECT COALESCE(max(k.stream), 0) + 1 FROM "StreamIdentity" k)
        );

        owned_from := NULL;
        SELECT * INTO owner
        FROM "StreamIdentity" k WHERE k."streamId" = live.contract AND k."ownedUntil" IS NULL
        ORDER BY k.number DESC LIMIT 1;
        IF owner.stream = its_stream THEN
            owned_from := owner."ownedFrom";
        ELSIF owner.stream IS NOT NULL THEN
            owned_from := stream_identity_turn(
                ARRAY(SELECT k.id FROM "StreamIdentity" k WHERE k.stream = owner.stream),
                live.contract, owner."ownedFrom", live.created);
            UPDATE "StreamIdentity" k SET "ownedUntil" = owned_from
            WHERE k.stream = owner.stream AND k."streamId" = live.contract AND k."ownedUntil" IS NULL;
        END IF;

        id_from := NULL;
        IF known.stream = its_stream THEN
            id_from := known."idFrom";
        ELSIF known.stream IS NOT NULL THEN
            id_from := stream_identity_turn(ARRAY[live.id], known."streamId", known."idFrom", live.created);
            UPDATE "StreamIdentity" k SET "idUntil" = id_from
            WHERE k.stream = known.stream AND k.id = live.id AND k."idUntil" IS NULL;
        END IF;
        UPDATE "StreamIdentity" k SET "isLast" = false
        WHERE k.stream = known.stream AND k.number = known.number;

        INSERT INTO "StreamIdentity" (stream, id, "streamId", "rowCreatedAt", "ownedFrom", "idFrom")
        VALUES (its_stream, live.id, live.contract, live.created, owned_from, id_from);
    END LOOP;
END
$$;

-- The stream that is called `name`, by either kind of id, with all that it was and is called: by what is recorded, and by rows
-- of "Stream" that are not recorded yet, as if they were. A name that nothing has stands for both ids of a stream.
-- id and contract_id are those that the stream has, or had last; names are all, of both kinds. Each id comes with the time (UTC)
-- from which and until which it names this stream, NULL for always; one may come twice.
CREATE OR REPLACE FUNCTION stream_identity_look_up(
    name text,
    OUT id text, OUT contract_id text, OUT names text[],
    OUT ids text[], OUT ids_from timestamp[], OUT ids_until timestamp[],
    OUT contract_ids text[], OUT contract_ids_from timestamp[], OUT contract_ids_until timestamp[]
)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
#variable_conflict use_variable
DECLARE
    live record;
    known record;
    owner record;
    its_stream bigint;
    is_its boolean;
    row_ids text[] := '{}';
    place integer;
BEGIN
    -- Every reader asks this first: none gives a part of what there is for the whole.
    IF row_security_active('"StreamSnapshot"') OR row_security_active('"StreamArchive"') OR row_security_active('"StreamIdentity"') THEN
        RAISE EXCEPTION 'row security is in force on the service''s own tables' USING ERRCODE = 'SR001';
    END IF;
    -- Nearly all streams have one record, whose ids no other record has, and a row of "Stream" that says the same, or none any
    -- more. All that follows would say this of them, and takes three times as long.
    SELECT k.* INTO known
    FROM "StreamIdentity" k
    WHERE (k.id = name OR k."streamId" = name) AND NOT EXISTS (
        SELECT FROM "StreamIdentity" o
        WHERE (o.stream = k.stream OR o.id IN (k.id, k."streamId") OR o."streamId" IN (k.id, k."streamId"))
          AND o.number <> k.number
    );
    IF FOUND THEN
        names := CASE
            WHEN known.id = known."streamId" THEN ARRAY[name]
            ELSE ARRAY[LEAST(known.id, known."streamId"), GREATEST(known.id, known."streamId")]
        END;
        IF NOT EXISTS (
            SELECT FROM stream_identity_rows(names, names) s
            WHERE (s.id, s.contract) IS DISTINCT FROM (known.id, known."streamId")
        ) THEN
            id := known.id;
            contract_id := known."streamId";
            ids := ARRAY[id];
            ids_from := ARRAY[known."idFrom"];
            ids_until := ARRAY[known."idUntil"];
            contract_ids := ARRAY[contract_id];
            contract_ids_from := ARRAY[known."ownedFrom"];
            contract_ids_until := ARRAY[known."ownedUntil"];
            RETURN;
        END IF;
    END IF;

    id := name;
    contract_id := name;
    SELECT s.* INTO live FROM stream_identity_rows(ARRAY[name], ARRAY[name]) s
    ORDER BY s.id = name DESC, s.created DESC, s.id LIMIT 1;
    IF FOUND THEN
        its_stream := stream_identity_of(live.id, live.contract, live.created);
        row_ids := ARRAY[live.id];
    ELSE
        SELECT k.stream INTO its_stream FROM "StreamIdentity" k WHERE k.id = name AND k."isLast";
        IF NOT FOUND THEN
            SELECT k.stream INTO its_stream
            FROM "StreamIdentity" k WHERE k."streamId" = name AND k."ownedUntil" IS NULL
            ORDER BY k.number DESC LIMIT 1;
        END IF;
    END IF;
    IF its_stream IS NOT NULL THEN
        SELECT k.id, k."streamId" INTO id, contract_id
        FROM "StreamIdentity" k WHERE k.stream = its_stream
        ORDER BY k.number DESC LIMIT 1;
    END IF;
    SELECT COALESCE(array_agg(n.id), '{}'), COALESCE(array_agg(n."idFrom"), '{}'), COALESCE(array_agg(n."idUntil"), '{}')
    INTO ids, ids_from, ids_until
    FROM (SELECT DISTINCT k.id, k."idFrom", k."idUntil" FROM "StreamIdentity" k WHERE k.stream = its_stream) n;
    SELECT
        COALESCE(array_agg(n."streamId"), '{}'), COALESCE(array_agg(n."ownedFrom"), '{}'),
        COALESCE(array_agg(n."ownedUntil"), '{}')
    INTO contract_ids, contract_ids_from, contract_ids_until
    FROM (
        SELECT DISTINCT k."streamId", k."ownedFrom", k."ownedUntil" FROM "StreamIdentity" k WHERE k.stream = its_stream
    ) n;

    -- What rows that nobody has recorded add to it, or take from it.
    FOR live IN
        SELECT s.* FROM stream_identity_rows(row_ids || ids, contract_ids) s
        ORDER BY s.created, s.id
    LOOP
        SELECT * INTO known FROM "StreamIdentity" k WHERE k.id = live.id AND k."isLast";
        CONTINUE WHEN known."streamId" = live.contract;
        is_its := stream_identity_of(live.id, live.contract, live.created) IS NOT DISTINCT FROM its_stream;

        SELECT min(n.number) INTO place
        FROM unnest(ids, ids_until) WITH ORDINALITY n (id, until, number) WHERE n.id = live.id AND n.until IS NULL;
        IF is_its AND place IS NULL THEN
            ids := array_append(ids, live.id);
            ids_from := array_append(ids_from, CASE
                WHEN known.stream IS NOT NULL
                THEN stream_identity_turn(ARRAY[live.id], known."streamId", known."idFrom", live.created)
            END);
            ids_until := array_append(ids_until, NULL);
        ELSIF NOT is_its AND place IS NOT NULL THEN
            ids_until[place] := stream_identity_turn(ARRAY[live.id], known."streamId", ids_from[place], live.created);
        END IF;

        SELECT min(n.number) INTO place
        FROM unnest(contract_ids, contract_ids_until) WITH ORDINALITY n (id, until, number)
        WHERE n.id = live.contract AND n.until IS NULL;
        IF is_its AND place IS NULL AND live.contract IS NOT NULL THEN
            SELECT k.stream, k."ownedFrom" INTO owner
            FROM "StreamIdentity" k WHERE k."streamId" = live.contract AND k."ownedUntil" IS NULL
            ORDER BY k.number DESC LIMIT 1;
            contract_ids := array_append(contract_ids, live.contract);
            contract_ids_from := array_append(contract_ids_from, CASE
                WHEN owner.stream IS NOT NULL
                THEN stream_identity_turn(
                    ARRAY(SELECT k.id FROM "StreamIdentity" k WHERE k.stream = owner.stream),
                    live.contract, owner."ownedFrom", live.created)
            END);
            contract_ids_until := array_append(contract_ids_until, NULL);
        ELSIF NOT is_its AND place IS NOT NULL THEN
            contract_ids_until[place] :=
                stream_identity_turn(ids, live.contract, contract_ids_from[place], live.created);
        END IF;

        IF is_its THEN
            id := live.id;
            contract_id := COALESCE(live.contract, contract_id);
        END IF;
    END LOOP;

    IF ids = '{}' THEN
        ids := ARRAY[name];
        ids_from := ARRAY[NULL::timestamp];
        ids_until := ids_from;
    END IF;
    -- Without a contract id its Stream.id stands for that, too, unless another stream has that.
    IF contract_ids = '{}' THEN
        IF NOT EXISTS (SELECT FROM stream_identity_rows('{}', ARRAY[contract_id]))
            AND NOT EXISTS (SELECT FROM "StreamIdentity" k WHERE k."streamId" = contract_id)
        THEN
            contract_ids := ARRAY[contract_id];
            contract_ids_from := ARRAY[NULL::timestamp];
            contract_ids_until := contract_ids_from;
        END IF;
    END IF;
    names := ARRAY(SELECT DISTINCT unnest(ids || contract_ids || ARRAY[id, contract_id]) ORDER BY 1);
END
$$;
