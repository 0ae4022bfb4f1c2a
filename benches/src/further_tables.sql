-- Makes 500 further tables of a host: each with keys, a check and indexes, most with a foreign key to the one before, every
-- fifth with a trigger. One statement, so that it may commit: all tables at once would need more locks than there are.
DO $$
BEGIN
    CREATE FUNCTION touch_row() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW."updatedAt" := now(); RETURN NEW; END';
    FOR i IN 1..500 LOOP
        EXECUTE format(
            'CREATE TABLE %I (
                 id          TEXT PRIMARY KEY,
                 name        TEXT NOT NULL UNIQUE,
                 "parentId"  TEXT,
                 amount      BIGINT NOT NULL DEFAULT 0 CHECK (amount >= 0),
                 status      "StreamStatus" NOT NULL DEFAULT ''ACTIVE'',
                 note        JSONB,
                 "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
                 "updatedAt" TIMESTAMP(3)
             )', 'Further' || i
        );
        EXECUTE format('CREATE INDEX ON %I ("parentId")', 'Further' || i);
        EXECUTE format('CREATE INDEX ON %I ("createdAt" DESC)', 'Further' || i);
        IF i % 10 > 0 AND i > 1 THEN
            EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY ("parentId") REFERENCES %I', 'Further' || i, 'Further' || i - 1);
        END IF;
        IF i % 5 = 0 THEN
            EXECUTE format(
                'CREATE TRIGGER touch BEFORE UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION touch_row()', 'Further' || i
            );
        END IF;
        IF i % 25 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END
$$
