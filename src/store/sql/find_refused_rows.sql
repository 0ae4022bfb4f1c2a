-- Finds out which rows of the archive "EventLog" does not take, by inserting them: many at once, and by halves where that fails.
-- So one row in very many costs a few attempts, and rows that are all refused cost one each. What it inserts is undone by the
-- caller, who rolls back to a savepoint.
-- DO takes no parameters and returns nothing, so settings of the transaction do. Read: snapshot_service.insertion, the statement
-- insert_places; snapshot_service.places, the rows' places as tid[]. Written: snapshot_service.refused, a JSON array of arrays:
-- the row's place, SQLSTATE, and the name of the constraint, of the column, and of the function that raised it, or an empty text.
-- In psql: SELECT set_config('snapshot_service.insertion', ..., true), set_config('snapshot_service.places', '{}', true); within a transaction.
DO $$
DECLARE
    -- So many rows at once: an attempt that fails is cheap, and one that succeeds costs what its rows cost.
    most constant integer := 1024;
    insertion constant text := current_setting('snapshot_service.insertion');
    places constant tid[] := current_setting('snapshot_service.places')::tid[];
    refused text[] := '{}';
    first integer := 1;
    size integer := most;
    -- Up to here one row at least is refused.
    failing_until integer := 0;
    state text;
    constraint_text text;
    column_text text;
    context text;
BEGIN
    WHILE first <= cardinality(places) LOOP
        BEGIN
            EXECUTE insertion USING places[first:first + size - 1];
            first := first + size;
            size := CASE
                WHEN first <= failing_until THEN GREATEST((failing_until - first + 1) / 2, 1)
                ELSE LEAST(size * 2, most)
            END;
        EXCEPTION
            -- But what says nothing about rows, as store::restore has it.
            WHEN OTHERS OR assert_failure THEN
                IF left(SQLSTATE, 2) IN ('40', '53', '55', '57', '58', 'XX') THEN
                    RAISE;
                END IF;
                GET STACKED DIAGNOSTICS
                    state = RETURNED_SQLSTATE, constraint_text = CONSTRAINT_NAME, column_text = COLUMN_NAME,
                    context = PG_EXCEPTION_CONTEXT;
                size := LEAST(size, cardinality(places) - first + 1);
                IF size > 1 THEN
                    failing_until := first + size - 1;
                    size := size / 2;
                ELSE
                    refused := refused || to_json(ARRAY[
                        places[first]::text, state, constraint_text, column_text,
                        COALESCE(substring(context FROM 'PL/pgSQL function ([^ (]+)\('), '')
                    ])::text;
                    first := first + 1;
                    failing_until := 0;
                END IF;
        END;
    END LOOP;
    PERFORM set_config('snapshot_service.refused', '[' || array_to_string(refused, ',') || ']', true);
END
$$
