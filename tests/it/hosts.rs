use snapshot_service::database::migrate;
use snapshot_service::{ArchiveFilter, Deadline, RestoreRequest, RunStatus, Trigger};

use crate::support::{TestDatabase, read_archive, stream, time};

const NOW: &str = "2026-05-31T02:00:00Z";

#[tokio::test]
async fn a_host_older_than_the_hashes_is_served() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "EventLog" DROP "eventIndex", DROP parent_hash, DROP entry_hash"#).await;
    migrate(&database.pool).await.unwrap();
    database.insert_event("e1", "42", "2026-01-15 10:00:00").await;
    database.remember_events().await;
    let report = database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_archived, report.held_back.len()), (1, 0));
    database.assert_nothing_lost_or_doubled().await;
    let logs = read_archive(&database.service(), "42", &ArchiveFilter::default(), 10).await;
    assert_eq!((logs[0].event_index, &logs[0].parent_hash, &logs[0].entry_hash), (None, &None, &None));

    // The host catches up.
    database
        .execute(
            r#"ALTER TABLE "EventLog" ADD "eventIndex" INTEGER NOT NULL DEFAULT 0, ADD parent_hash TEXT, ADD entry_hash TEXT;
               DROP TABLE remembered"#,
        )
        .await;
    database.insert_event("e2", "42", "2026-01-16 10:00:00").await;
    database.insert_event("newest", "42", "2026-05-30 10:00:00").await;
    assert_eq!(
        database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err().code(),
        "archive_columns_differ"
    );
    migrate(&database.pool).await.unwrap();
    let report = database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(report.logs_archived, 1);
    assert_eq!(database.count(r#""StreamArchive" WHERE "eventIndex" = 0"#).await, 1);
}

#[tokio::test]
async fn columns_that_the_host_added_are_archived_and_leave_under_their_own_names() {
    let database = TestDatabase::of_host().await;
    database
        .execute(
            r#"CREATE TYPE "Network" AS ENUM ('MAINNET', 'TESTNET');
               ALTER TABLE "EventLog"
                   ADD network "Network" NOT NULL DEFAULT 'TESTNET',
                   ADD "Odd ""name" TEXT[] DEFAULT '{a,"b c"}',
                   ADD fee NUMERIC(40, 2) DEFAULT 12345678901234567890.10,
                   ADD raw JSON DEFAULT '{"b": 1,  "a": 1}',
                   ADD "seenAt" TIMESTAMPTZ DEFAULT '2026-01-01T00:00:00+02',
                   ADD code TEXT COLLATE "C" DEFAULT 'x'"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    database.insert_event("e1", "42", "2026-01-15 10:00:00").await;
    database.insert_event("e2", "42", "2026-01-15 10:00:00").await;
    database.remember_events().await;
    database.execute(r#"CREATE TABLE copies AS SELECT * FROM "EventLog""#).await;
    let service = database.service();
    assert_eq!(service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap().logs_archived, 2);
    database.assert_nothing_lost_or_doubled().await;

    // Copies are compared in these columns too, whatever their type.
    database.execute(r#"INSERT INTO "EventLog" SELECT * FROM copies"#).await;
    database.execute(r#"UPDATE "EventLog" SET raw = '{"b": 2}' WHERE id = 'e2'"#).await;
    let report = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.already_archived, report.conflicts), (1, 1));

    let logs = read_archive(&service, "42", &ArchiveFilter::default(), 10).await;
    let json = serde_json::to_value(&logs[1]).unwrap();
    assert_eq!(json["network"], "TESTNET");
    assert_eq!(json["Odd \"name"], serde_json::json!(["a", "b c"]));
    assert_eq!(json["fee"], "12345678901234567890.10");
    assert_eq!(json["seenAt"], "2025-12-31T22:00:00.000Z");
    assert_eq!(json["id"], "e1");
    assert_eq!(json.as_object().unwrap().len(), 15 + 6);
}

/// Columns of types and with collations that are not PostgreSQL's own, each with values that are easily mangled.
const OWN_TYPES: &str = r#"
    CREATE SCHEMA kinds;
    CREATE TYPE "Network" AS ENUM ('MAIN NET', 'test,net', 'quo"ted');
    CREATE TYPE kinds."Kind" AS ENUM ('create', 'withdraw', 'cancel');
    CREATE DOMAIN kinds.fee AS NUMERIC(40, 2) CHECK (VALUE >= 0);
    CREATE DOMAIN tags AS TEXT[];
    CREATE DOMAIN ledger_number AS INTEGER CHECK (VALUE > 0);
    CREATE TYPE pair AS (a INTEGER, b TEXT);
    CREATE TYPE span AS RANGE (subtype = INTEGER);
    CREATE COLLATION german FROM "C";
    CREATE FUNCTION own_default() RETURNS TEXT LANGUAGE sql AS $$ SELECT 'own' $$;
    ALTER TABLE "EventLog"
        ALTER "eventType" TYPE kinds."Kind" USING "eventType"::kinds."Kind",
        ALTER ledger TYPE ledger_number,
        ADD network "Network" NOT NULL DEFAULT 'test,net',
        ADD networks "Network"[] DEFAULT '{MAIN NET,"quo\"ted",NULL}',
        ADD fee kinds.fee DEFAULT 12345678901234567890.10,
        ADD tags tags DEFAULT '{a,"b c"}',
        ADD pair pair DEFAULT '(1,"b c")',
        ADD span span DEFAULT '[1,5)',
        ADD name TEXT COLLATE german DEFAULT 'x',
        ADD code TEXT COLLATE "C" DEFAULT own_default(),
        ADD short VARCHAR(10) DEFAULT 'short',
        ADD fixed CHAR(5) DEFAULT 'ab',
        ADD bits BIT(3) DEFAULT '101'"#;

/// What of the service's own depends on something that is not PostgreSQL's own nor the service's.
const DEPENDENCIES: &str = r#"
    WITH ours (classid, objid) AS (
        SELECT 'pg_class'::regclass::oid, oid FROM pg_class
        WHERE relname ~ '^(StreamArchive|StreamHistory|StreamIdentity|MaintenanceRun|MaintenancePause|MaintenanceFinding|Archive|RestoredLog|LegalHold|snapshot_service)'
        UNION SELECT 'pg_proc'::regclass, oid FROM pg_proc
        WHERE proname ~ '^(stream_archive|stream_history|archive_|snapshot_service)'
        UNION SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE ev_class = to_regclass('"StreamHistory"')
        UNION SELECT 'pg_type'::regclass, t.oid FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid OR (c.reltype = t.typelem AND c.reltype <> 0)
        WHERE c.relname ~ '^(StreamArchive|StreamHistory)'
        UNION SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid WHERE c.relname ~ '^(StreamArchive|Maintenance)'
        UNION SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE c.relname ~ '^(Stream(Archive|Identity)|Maintenance|Archive|RestoredLog|LegalHold|snapshot_service)'
    )
    SELECT COALESCE(string_agg(DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) || ' on '
        || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid), '; '), '')
    FROM pg_depend d JOIN ours USING (classid, objid)
    WHERE (d.refclassid, d.refobjid) NOT IN (SELECT classid, objid FROM ours)
      AND d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_language'::regclass)
      -- What initdb made.
      AND d.refobjid >= 16384"#;

#[tokio::test]
async fn nothing_of_ours_depends_on_the_hosts_types_and_its_migrations_run_unedited() {
    let database = TestDatabase::of_host().await;
    database.execute(OWN_TYPES).await;
    migrate(&database.pool).await.unwrap();
    let second = migrate(&database.pool).await.unwrap();
    assert_eq!(second.archive_columns_changed, [""; 0], "the migration and the alignment agree");
    assert_eq!(database.value::<String>(DEPENDENCIES).await, "");
    let types: String = database
        .value(
            r#"SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
               WHERE attrelid = '"StreamArchive"'::regclass AND attname IN ('eventType', 'ledger', 'network', 'networks', 'fee', 'tags', 'pair', 'span', 'short', 'fixed')"#,
        )
        .await;
    assert_eq!(
        types,
        "eventType text, ledger integer, network text, networks text[], fee text, tags text, pair text, span text, short character varying(10), fixed character(5)"
    );

    database.insert_stream("s1", Some("42"), "1").await;
    for day in 1..=9 {
        database.insert_event(&format!("e{day}"), "42", &format!("2026-01-0{day} 00:00:00")).await;
    }
    database
        .execute(r#"UPDATE "EventLog" SET networks = '{}', tags = NULL, network = 'MAIN NET' WHERE id = 'e3'"#)
        .await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    database.execute(r#"CREATE TABLE remembered AS SELECT id, e::text AS event FROM "EventLog" e; CREATE TABLE copies (LIKE "EventLog"); INSERT INTO copies SELECT * FROM "EventLog""#).await;
    let (service, forever) = (database.service(), Deadline::never());
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &forever).await.unwrap();
    assert_eq!((run.status, run.logs_archived), (RunStatus::Succeeded, 9));
    database.assert_seals_agree().await;

    // Copies are compared across the types.
    database.execute(r#"INSERT INTO "EventLog" SELECT * FROM copies WHERE id = 'e1'"#).await;
    let report = service.archive_old_logs(Trigger::Api, time(NOW), &forever).await.unwrap();
    assert_eq!((report.already_archived, report.conflicts), (1, 0), "{report:?}");
    assert_eq!(
        database.count(r#""StreamHistory" WHERE network IN ('test,net', 'MAIN NET') AND networks IS NOT NULL"#).await,
        10
    );

    let some = RestoreRequest::new(None, Some(time("2026-01-03T00:00:00Z")), Some(time("2026-01-05T00:00:00Z")), None)
        .unwrap();
    let run = service.restore(Trigger::Cli, &some, time(NOW), &forever).await.unwrap();
    assert_eq!((run.status, run.logs_restored), (RunStatus::Succeeded, 2), "{run:?}");
    assert_eq!(database.count(r#"remembered r JOIN "EventLog" e USING (id) WHERE e::text = r.event"#).await, 3);

    // The host's migrations, as ORMs write them: values removed, labels renamed, types swapped and dropped.
    database
        .execute(
            r#"BEGIN;
               DELETE FROM "EventLog" WHERE network = 'quo"ted';
               CREATE TYPE "Network_new" AS ENUM ('MAIN NET', 'test,net');
               ALTER TABLE "EventLog" ALTER network DROP DEFAULT, ALTER networks DROP DEFAULT,
                   ALTER networks TYPE "Network_new"[] USING NULL;
               ALTER TABLE copies ALTER network TYPE TEXT, ALTER networks TYPE TEXT[];
               ALTER TABLE "EventLog" ALTER network TYPE "Network_new" USING network::text::"Network_new";
               ALTER TYPE "Network" RENAME TO "Network_old";
               ALTER TYPE "Network_new" RENAME TO "Network";
               DROP TYPE "Network_old";
               COMMIT;
               ALTER TYPE "Network" RENAME VALUE 'MAIN NET' TO 'MAINNET';
               ALTER TYPE kinds."Kind" RENAME TO "EventKind";
               DROP TABLE copies;
               ALTER TABLE "EventLog" ALTER span DROP DEFAULT, ALTER fee TYPE NUMERIC(42, 2), ALTER tags TYPE TEXT[], ALTER name TYPE TEXT COLLATE "default",
                   ALTER span TYPE TEXT, ALTER ledger TYPE INTEGER, ALTER code SET DEFAULT 'y', DROP pair;
               DROP DOMAIN kinds.fee; DROP DOMAIN tags; DROP DOMAIN ledger_number; DROP TYPE pair; DROP TYPE span; DROP COLLATION german;
               DROP FUNCTION own_default();
               ALTER TABLE "EventLog" ALTER "eventType" TYPE TEXT; DROP TYPE kinds."EventKind"; DROP SCHEMA kinds"#,
        )
        .await;
    database.assert_seals_agree().await;
    assert_eq!(read_archive(&service, "42", &ArchiveFilter::default(), 10).await.len(), 7);
    migrate(&database.pool).await.unwrap();
    assert_eq!(database.value::<String>(DEPENDENCIES).await, "");
    database.assert_seals_agree().await;
    database.execute(r#"UPDATE "EventLog" SET network = 'test,net'"#).await;
    let run = service.run_maintenance(Trigger::Api.request(), time("2026-06-30T02:00:00Z"), &forever).await.unwrap();
    assert_eq!(run.status, RunStatus::Succeeded, "{run:?}");
    // The column that is gone had a value, which needs a place.
    // So does the label that is gone.
    database.execute(r#"ALTER TABLE "EventLog" ADD pair TEXT, ALTER networks TYPE TEXT[]"#).await;
    migrate(&database.pool).await.unwrap();
    let one = RestoreRequest::new(
        Some(stream("42")),
        Some(time("2026-01-06T00:00:00Z")),
        Some(time("2026-01-07T00:00:00Z")),
        None,
    );
    let run = service.restore(Trigger::Cli, &one.unwrap(), time("2026-06-30T04:00:00Z"), &forever).await.unwrap();
    assert_eq!((run.status, run.logs_restored), (RunStatus::Succeeded, 1), "{run:?}");
    let back = r#""EventLog" WHERE id = 'e6' AND network = 'test,net' AND pair = '(1,"b c")' AND fee = 12345678901234567890.10 AND tags = '{a,b c}' AND fixed = 'ab' AND bits = '101'"#;
    assert_eq!(database.count(back).await, 1);
}

#[tokio::test]
async fn a_length_that_the_host_has_cut_keeps_an_archived_value_from_being_cut_on_its_way_back() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "EventLog" ADD code VARCHAR(20) DEFAULT 'twelve letters'"#).await;
    migrate(&database.pool).await.unwrap();
    database.insert_event("e1", "42", "2026-01-15 10:00:00").await;
    let (service, forever) = (database.service(), Deadline::never());
    assert_eq!(service.archive_old_logs(Trigger::Api, time(NOW), &forever).await.unwrap().logs_archived, 1);
    database.execute(r#"ALTER TABLE "EventLog" ALTER code TYPE VARCHAR(5), ALTER code DROP DEFAULT"#).await;
    assert_eq!(migrate(&database.pool).await.unwrap_err().code(), "archive_column_not_convertible");
    assert_eq!(database.count(r#""StreamArchive" WHERE code = 'twelve letters'"#).await, 1);
}

#[tokio::test]
async fn what_the_former_service_has_copied_is_archived_whole_across_the_types() {
    let database = TestDatabase::of_host().await;
    database.execute(include_str!("fixtures/legacy-tables.sql")).await;
    database.execute(OWN_TYPES).await;
    database.insert_event("e1", "42", "2026-01-15 10:00:00").await;
    database.insert_event("newest", "42", "2026-05-30 10:00:00").await;
    database
        .execute(
            r#"INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, amount, metadata, "createdAt")
               SELECT id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, amount, metadata, "createdAt"
               FROM "EventLog" WHERE id = 'e1'"#,
        )
        .await;
    database.remember_events().await;
    migrate(&database.pool).await.unwrap();
    let report = database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_archived, report.conflicts), (1, 0), "{report:?}");
    let filled = r#"snapshot_service."StreamArchive" WHERE network = 'test,net' AND networks[2] = 'quo"ted' AND fee = '12345678901234567890.10'"#;
    assert_eq!(database.count(filled).await, 1);
    database.assert_seals_agree().await;
}
