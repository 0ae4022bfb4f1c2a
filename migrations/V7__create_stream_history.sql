-- "StreamHistory": every event once, wherever it is: tier (hot, archived) and the columns of "StreamArchive", which are those
-- of "EventLog", "archivedAt" (NULL while hot), and what the host has dropped since (NULL while hot).

-- Makes the view and the function beneath it as the columns are now; changes nothing when they are so already. Called by each
-- `migrate`, after the archive was given the columns of "EventLog". Types and collations are the archive's, which are
-- PostgreSQL's own: the view must not depend on one of the host's.
-- A view depends on the columns that it names, so the host could not drop or alter one of "EventLog". The text of a function
-- depends on nothing. The planner puts the text in the function's place, so that conditions reach the indexes of both tables;
-- that is why the function has no settings, names the schema, and returns records. It reads as whoever reads the view.
CREATE OR REPLACE FUNCTION stream_history_refresh() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    mirror regclass := '"StreamArchive"';
    hot text;
    archived text;
    wanted text;
    body text;
    replace_view text;
    grants text;
BEGIN
    SELECT
        string_agg(
            CASE
                WHEN e.attname IS NULL THEN 'NULL::' || format_type(a.atttypid, a.atttypmod)
                -- An instant, in UTC whatever the reader's time zone.
                WHEN a.attname = 'createdAt' AND e.atttypid <> a.atttypid
                    THEN format('(e.%I::timestamptz AT TIME ZONE ''UTC'')', a.attname)
                WHEN e.atttypid <> a.atttypid
                    THEN format('e.%I::%s', a.attname, format_type(a.atttypid, a.atttypmod))
                    || CASE WHEN a.attcollation <> 0 THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END
                WHEN e.attcollation <> a.attcollation
                    THEN format('e.%I COLLATE %s', a.attname, a.attcollation::regcollation)
                -- As it is: a condition reaches the host's indexes.
                ELSE format('e.%I', a.attname)
            END || format(' AS %I', a.attname),
            ', ' ORDER BY a.attnum),
        string_agg(format('a.%I', a.attname), ', ' ORDER BY a.attnum),
        string_agg(
            format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
            || CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END,
            ', ' ORDER BY a.attnum)
    INTO hot, archived, wanted
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attribute e
        ON e.attrelid = '"EventLog"'::regclass AND e.attname = a.attname AND e.attnum > 0 AND NOT e.attisdropped
        -- One of the host's own is another thing.
        AND e.attname <> 'archivedAt'
    -- A host's column of the name "tier" is left out: the view has one.
    WHERE a.attrelid = mirror AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'tier';

    -- An archived event that the host has written again is shown as the hot one. Each archived row is looked up by itself: NOT
    -- EXISTS could be planned as a scan of the whole of "EventLog", and IS NULL as if hardly any row passed.
    body := format(
        $body$
SELECT h.*
FROM (
    SELECT 'hot'::text AS tier, %3$s FROM %1$s."EventLog" e
    UNION ALL
    SELECT 'archived'::text, %4$s FROM %2$I."StreamArchive" a
) h
WHERE h.tier = 'hot' OR h.id IS DISTINCT FROM (SELECT e.id FROM %1$s."EventLog" e WHERE e.id = h.id LIMIT 1)
$body$,
        (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = '"EventLog"'::regclass), current_schema, hot, archived
    );
    wanted := 'tier text, ' || wanted;
    IF body = (SELECT prosrc FROM pg_proc WHERE oid = to_regprocedure('stream_history()'))
        AND wanted = (
            SELECT string_agg(
                format('%I %s', v.attname, format_type(v.atttypid, v.atttypmod))
                || CASE WHEN v.attcollation <> t.typcollation THEN ' COLLATE ' || v.attcollation::regcollation ELSE '' END,
                ', ' ORDER BY v.attnum)
            FROM pg_attribute v
            JOIN pg_type t ON t.oid = v.atttypid
            WHERE v.attrelid = to_regclass('"StreamHistory"') AND v.attnum > 0
        )
    THEN
        RETURN;
    END IF;

    EXECUTE format(
        'CREATE OR REPLACE FUNCTION stream_history() RETURNS SETOF record LANGUAGE sql STABLE PARALLEL SAFE AS %L', body);
    replace_view := format('CREATE OR REPLACE VIEW "StreamHistory" AS SELECT h.* FROM stream_history() h (%s)', wanted);
    BEGIN
        -- New columns come last, so whoever may read the view still may.
        EXECUTE replace_view;
    EXCEPTION WHEN invalid_table_definition THEN
        -- A column has another type, and the view must be made anew.
        SELECT string_agg(
            format(
                'GRANT %s ON "StreamHistory" TO %s%s',
                privilege_type,
                CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END),
            '; ')
        INTO grants
        FROM pg_class
        CROSS JOIN aclexplode(relacl)
        WHERE oid = '"StreamHistory"'::regclass AND grantee <> relowner;
        DROP VIEW "StreamHistory";
        EXECUTE replace_view;
        IF grants IS NOT NULL THEN
            EXECUTE grants;
        END IF;
    END;
    COMMENT ON VIEW "StreamHistory" IS 'Every event once: hot in "EventLog" or archived in "StreamArchive"';
END
$$;
