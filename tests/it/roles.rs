//! What logins with the service's database roles can do, and what not.

use chrono::Utc;
use local_postgres::{Options, Server};
use snapshot_service::database::migrate;
use snapshot_service::{
    ArchiveFilter, Deadline, Error, MaintenanceRequest, PageRequest, Phase, ReleaseRequest, RestoreRequest, RunStatus,
    Trigger, VerificationRequest,
};
use tokio_postgres::error::SqlState;

use crate::lambda::{HTTP_FUNCTIONS, with_history};
use crate::support::database::HOST_SCHEMA;
use crate::support::lambda::{sample_event, start_function};
use crate::support::{TestDatabase, read_archive, stream, time};

const LEGACY_TABLES: &str = include_str!("fixtures/legacy-tables.sql");
const NOW: &str = "2026-05-31T02:00:00Z";
const READ: &str = "IN ROLE snapshot_service_read";
pub(crate) const MAINTAIN: &str = "IN ROLE snapshot_service_maintain";

/// The database as a new login sees it.
pub(crate) async fn login(database: &TestDatabase, name: &str, options: &str) -> TestDatabase {
    let role: String = database.value(&format!("SELECT '{name}_' || current_database()")).await;
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret' {options}")).await;
    TestDatabase::adopt(url_of(&database.url, &role)).await
}

/// The same place for another login.
fn url_of(url: &str, login: &str) -> String {
    let (_, place) = url.split_once('@').unwrap();
    format!("postgres://{login}:secret@{place}")
}

/// A server of the test's own, which has none of the service's roles, with the login `migrator`.
async fn server_without_roles(options: &str) -> (Server, TestDatabase) {
    let server = tokio::task::spawn_blocking(|| Server::start_ephemeral(&Options::default())).await.unwrap().unwrap();
    let postgres = TestDatabase::adopt(server.url("postgres")).await;
    postgres.execute(&format!("CREATE ROLE migrator LOGIN PASSWORD 'secret' {options}")).await;
    (server, postgres)
}

/// Stream 42 with `rows` events over six months, all due, without hashes.
async fn insert_events(database: &TestDatabase, rows: u32) {
    database.insert_stream("s2", Some("42"), "1000").await;
    database.insert_events(rows, "2025-07-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "createdAt" = "createdAt" + ledger % 180 * interval '1 day'"#).await;
    database.remember_events().await;
}

/// Checks that the login may not do any of `statements`.
async fn assert_refused(login: &TestDatabase, statements: &[String]) {
    for sql in statements {
        let error = login.client().await.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
    }
}

/// All tables of the schema as SQL writes them, with their last column.
async fn list_tables(database: &TestDatabase) -> Vec<(String, String)> {
    let tables: Vec<String> = database
        .value(
            r"SELECT array_agg(oid::regclass || ' ' || (
                  SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                  ORDER BY attnum DESC LIMIT 1
              )) FROM pg_class c WHERE relnamespace IN ('public'::regnamespace, 'snapshot_service'::regnamespace) AND relkind IN ('r', 'p')",
        )
        .await;
    tables
        .iter()
        .filter_map(|table| table.split_once(' '))
        .map(|(table, column)| (table.into(), column.into()))
        .collect()
}

/// What no login with one of the roles may do to any table.
fn definitions(table: &str) -> Vec<String> {
    vec![
        format!("TRUNCATE {table}"),
        format!("ALTER TABLE {table} ADD mine TEXT"),
        format!("ALTER TABLE {table} RENAME TO mine"),
        format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
        format!("CREATE INDEX ON {table} ((1))"),
        format!(
            "CREATE TRIGGER mine BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
        format!("CREATE RULE mine AS ON INSERT TO {table} DO INSTEAD NOTHING"),
        format!("DROP TABLE {table}"),
    ]
}

fn writes(table: &str, column: &str) -> Vec<String> {
    vec![
        format!("INSERT INTO {table} DEFAULT VALUES"),
        format!("UPDATE {table} SET {column} = {column}"),
        format!("DELETE FROM {table}"),
    ]
}

fn locks(table: &str) -> Vec<String> {
    // As a statement of its own it is refused for another reason.
    let lock = |mode| format!("DO $$ BEGIN LOCK TABLE {table} IN {mode} MODE; END $$");
    vec![
        format!("SELECT FROM {table} FOR UPDATE"),
        format!("SELECT FROM {table} FOR SHARE"),
        lock("ROW EXCLUSIVE"),
        lock("SHARE"),
        lock("ACCESS EXCLUSIVE"),
    ]
}

/// What no login with one of the roles may do at all.
fn creations() -> Vec<String> {
    [
        "CREATE TABLE mine (id TEXT)",
        r#"CREATE VIEW mine AS SELECT id FROM "EventLog""#,
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE SEQUENCE mine",
        "CREATE TYPE mine AS ENUM ()",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "GRANT snapshot_service_maintain TO CURRENT_USER",
        r#"DROP VIEW "StreamHistory""#,
        "DROP FUNCTION stream_archive_create_partition(timestamp)",
        "ALTER FUNCTION stream_archive_index_partition(timestamp) SET search_path = pg_temp",
        r#"CREATE TABLE mine PARTITION OF "StreamArchive" FOR VALUES FROM ('2001-01-01') TO ('2001-02-01')"#,
    ]
    .map(String::from)
    .into()
}

#[tokio::test]
async fn a_reader_reads_all_there_is_and_writes_nothing() {
    let database = TestDatabase::migrated().await;
    insert_events(&database, 200).await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    let (owner, forever) = (database.service(), Deadline::never());
    let run =
        owner.run_maintenance(Trigger::Schedule { period: "2026-05".parse().unwrap() }.request(), time(NOW), &forever);
    let run = run.await.unwrap();
    owner.verify_archive(VerificationRequest::default(), Utc::now(), &forever).await.unwrap();
    owner.hold_stream(&stream("43"), "case 7", "ann").await.unwrap();
    owner.pause_maintenance("a drill", "ann").await.unwrap();

    let reader = login(&database, "reader", READ).await;
    let service = reader.service();
    let month = "2026-05".parse().unwrap();
    for id in ["s2", "42"] {
        assert_eq!(service.get_snapshot(&stream(id), month).await.unwrap().unwrap().stream_id, "s2");
        let page = PageRequest::new(10, None).unwrap();
        assert_eq!(service.get_stream_snapshots(&stream(id), &page).await.unwrap().items.len(), 1);
        assert_eq!(read_archive(&service, id, &ArchiveFilter::default(), 70).await.len(), 200);
        let page = PageRequest::new(1000, None).unwrap();
        let events = service.list_stream_events(&stream(id), &ArchiveFilter::default(), &page).await.unwrap();
        assert_eq!(events.items.len(), 201);
        let page = PageRequest::new(10, None).unwrap();
        let state = service.get_stream_state(&stream(id), time("2026-06-01T00:00:00Z"), &page).await.unwrap();
        assert_eq!(state.snapshot.stream_id, "s2");
    }
    assert_eq!(service.list_maintenance_runs(&PageRequest::new(10, None).unwrap()).await.unwrap().items.len(), 1);
    assert_eq!(service.find_maintenance_run(run.id).await.unwrap().unwrap().logs_archived, 200);
    assert!(service.find_open_maintenance_run().await.unwrap().is_none());
    assert_eq!(service.find_last_scheduled_period().await.unwrap(), Some(month));
    assert!(service.find_last_verification().await.unwrap().unwrap().complete);
    assert_eq!(service.find_maintenance_pause().await.unwrap().unwrap().reason, "a drill");
    assert_eq!(service.list_legal_holds().await.unwrap().len(), 1);
    assert_eq!(service.count_restored_logs().await.unwrap(), 0);
    assert!(service.is_installed().await.unwrap());
    assert_eq!(reader.count(r#""StreamHistory""#).await, 201);

    let tables = list_tables(&database).await;
    assert!(tables.len() > 20, "{tables:?}");
    for (table, column) in &tables {
        assert_refused(&reader, &definitions(table)).await;
        assert_refused(&reader, &writes(table, column)).await;
        assert_refused(&reader, &locks(table)).await;
    }
    assert_refused(&reader, &creations()).await;
    for route in ["create", "index", "analyze"] {
        assert_refused(&reader, &[format!("SELECT stream_archive_{route}_partition('2025-07-01')")]).await;
    }
    // Of "Stream" the two ids only.
    assert_refused(&reader, &[r#"SELECT sender FROM "Stream""#.into()]).await;
    let error = service.resume_maintenance().await.unwrap_err();
    assert_eq!(error.code(), "not_permitted");
    let error = service.hold_stream(&stream("42"), "case 8", "ann").await.unwrap_err();
    assert_eq!(error.code(), "not_permitted");
    assert_eq!(list_tables(&database).await, tables, "nothing is new and nothing is gone");
}

#[tokio::test]
async fn a_maintainer_maintains_verifies_holds_and_restores() {
    let database = TestDatabase::migrated().await;
    insert_events(&database, 900).await;
    let maintainer = login(&database, "maintainer", MAINTAIN).await;
    let service = maintainer.service_with_batches_of(40);
    let (now, forever) = (time(NOW), Deadline::never());
    assert_eq!(service.dry_run(false, now, &forever).await.unwrap().logs_due, 900);
    let run = service.run_maintenance(Trigger::Api.request(), now, &forever).await.unwrap();
    assert_eq!((run.status, run.phase), (RunStatus::Succeeded, Phase::Done));
    assert_eq!((run.snapshots_created, run.logs_archived), (1, 900));
    database.assert_nothing_lost_or_doubled().await;
    let partitions =
        r#"pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid WHERE i.inhparent = '"StreamArchive"'::regclass"#;
    assert_eq!(database.count(partitions).await, 6);
    let whole = "p.relowner = (SELECT relowner FROM pg_class WHERE relname = 'StreamArchive') AND p.reltuples > 100
                 AND (SELECT count(*) FROM pg_index x WHERE x.indrelid = p.oid) = 4";
    assert_eq!(database.count(&format!("{partitions} AND {whole}")).await, 6, "the owner's, indexed and analysed");

    let verification = service.verify_archive(VerificationRequest::default(), Utc::now(), &forever).await.unwrap();
    assert_eq!((verification.complete, verification.break_count, verification.rows_done), (true, 0, 900));
    let (hold, _) = service.hold_stream(&stream("s2"), "case 7", "ann").await.unwrap();
    let everything = RestoreRequest::new(Some(stream("42")), None, None, None).unwrap();
    let dry = service.dry_run_restore(&everything, &forever).await.unwrap();
    assert_eq!((dry.logs_to_restore, dry.on_hold), (0, 900));
    service.release_hold(&stream("42"), Some(hold.id), "closed", "bob").await.unwrap().unwrap();
    let run = service.restore(Trigger::Cli, &everything, now, &forever).await.unwrap();
    assert_eq!((run.status, run.logs_restored), (RunStatus::Succeeded, 900));
    database.assert_nothing_lost_or_doubled().await;
    assert_eq!(service.release_restored_logs(&ReleaseRequest::default()).await.unwrap(), 900);

    // Rows whose hashes are not theirs, and are chained from month to month; a slice that stops, and snapshots that are retaken.
    database
        .execute(
            r#"UPDATE "EventLog" e SET entry_hash = 'h' || id, parent_hash = 'h' || before
               FROM (SELECT id AS row, lag(id) OVER (ORDER BY "createdAt", id) AS before FROM "EventLog") chain WHERE row = id;
               UPDATE "EventLog" SET parent_hash = 'gone' WHERE id = 'e000007'; DROP TABLE remembered"#,
        )
        .await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    database.remember_events().await;
    let again = MaintenanceRequest { refresh: true, force: true, ..Trigger::Cli.request() };
    service.pause_maintenance("a drill", "ann").await.unwrap();
    assert_eq!(service.run_maintenance(again, now, &forever).await.unwrap_err().code(), "maintenance_paused");
    service.resume_maintenance().await.unwrap().unwrap();
    let later = time("2026-05-31T03:00:00Z");
    let at_once = Deadline::after(std::time::Duration::ZERO);
    assert!(!service.run_maintenance(again, later, &at_once).await.unwrap().complete);
    service.cancel_maintenance().await.unwrap().pop().unwrap();
    let run = service.run_maintenance(again, later, &forever).await.unwrap();
    assert_eq!((run.status, run.logs_archived), (RunStatus::SucceededWithFindings, 900));
    assert_eq!(database.count(r#""ArchiveSeal" WHERE NOT "linksChecked""#).await, 0);
    assert_eq!(database.count(r#""MaintenanceFinding" WHERE kind = 'link_missing'"#).await, 1);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_maintainer_finds_out_which_logs_the_host_takes_no_more() {
    let database = TestDatabase::migrated().await;
    insert_events(&database, 90).await;
    let maintainer = login(&database, "maintainer", MAINTAIN).await;
    let service = maintainer.service_with_batches_of(40);
    let (now, forever) = (time(NOW), Deadline::never());
    service.run_maintenance(Trigger::Api.request(), now, &forever).await.unwrap();
    database
        .execute(
            r#"ALTER TABLE "EventLog" ADD CONSTRAINT most CHECK (ledger <> 9);
               CREATE FUNCTION let_go() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
               CREATE TRIGGER let_go AFTER INSERT ON "EventLog" FOR EACH ROW EXECUTE FUNCTION let_go()"#,
        )
        .await;
    let everything = RestoreRequest::new(Some(stream("42")), None, None, None).unwrap();
    let run = service.restore(Trigger::Cli, &everything, now, &forever).await.unwrap();
    assert_eq!((run.logs_restored, run.conflicts, run.complete), (89, 1, true));
    assert_eq!(run.conflict_details[0].constraint.as_deref(), Some("most"));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_maintainer_archives_what_the_former_service_has_copied_and_drops_what_came_twice() {
    let database = TestDatabase::of_host().await;
    database.execute(LEGACY_TABLES).await;
    database
        .execute(
            r#"ALTER TABLE "EventLog" ADD number BIGSERIAL;
               INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", metadata, "createdAt")
               SELECT 'a' || i, 'withdraw', '42', 'tx-' || i / 3, i % 3, i, 'then', '{}', timestamp '2025-06-28' + i * interval '1 hour'
               FROM generate_series(1, 120) i;
               INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", metadata, "createdAt")
               SELECT id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", metadata, "createdAt" FROM "EventLog""#,
        )
        .await;
    assert_eq!(migrate(&database.pool).await.unwrap().role_warnings, [""; 0]);
    database.remember_events().await;
    let maintainer = login(&database, "maintainer", MAINTAIN).await;
    let service = maintainer.service_with_batches_of(7);
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.status, run.logs_archived), (RunStatus::Succeeded, 120));
    database.assert_nothing_lost_or_doubled().await;

    // Ingested again.
    database
        .execute(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", metadata, number, "createdAt")
               SELECT 'b' || id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", metadata, number, '2025-09-01'
               FROM snapshot_service."StreamArchive""#,
        )
        .await;
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(run.duplicates_dropped, 120);

    // One that has no number yet gets one of the host's.
    database.execute(r#"UPDATE snapshot_service."StreamArchive" SET number = NULL WHERE id = 'a7'"#).await;
    let one = RestoreRequest::new(None, Some(time("2025-06-28T07:00:00Z")), Some(time("2025-06-28T08:00:00Z")), None);
    let run = service.restore(Trigger::Cli, &one.unwrap(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.status, run.logs_restored), (RunStatus::Succeeded, 1));
    assert_eq!(database.count(r#""EventLog" WHERE id = 'a7' AND number > 120"#).await, 1);
}

#[tokio::test]
async fn a_maintainer_touches_no_stream_and_defines_nothing() {
    let database = TestDatabase::migrated().await;
    insert_events(&database, 100).await;
    database.service().run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    let maintainer = login(&database, "maintainer", MAINTAIN).await;
    let tables = list_tables(&database).await;
    for (table, _) in &tables {
        assert_refused(&maintainer, &definitions(table)).await;
    }
    assert_refused(&maintainer, &creations()).await;
    assert_refused(&maintainer, &writes(r#""Stream""#, "id")).await;
    assert_refused(&maintainer, &locks(r#""Stream""#)).await;
    // What is written for good, and what is not its own.
    for table in ["ArchiveSeal", "ArchiveRemoval", "MaintenanceFinding"] {
        assert_refused(&maintainer, &writes(&format!(r#""{table}""#), "month")[1..]).await;
    }
    for table in ["StreamSnapshot", "StreamIdentity", "MaintenanceRun", "ArchiveMonth", "LegalHold", "StreamArchive"] {
        assert_refused(&maintainer, &[format!(r#"DELETE FROM "{table}""#)]).await;
    }
    assert_refused(&maintainer, &[r#"UPDATE "EventLog" SET metadata = metadata"#.into()]).await;
    assert_refused(&maintainer, &writes("snapshot_service_migrations", "name")).await;
    let error = maintainer.service().drop_all(uuid::Uuid::nil(), 1).await.unwrap_err();
    assert_eq!(error.code(), "not_permitted");
    assert_eq!(list_tables(&database).await, tables, "nothing is new and nothing is gone");
}

#[tokio::test]
async fn the_route_to_partitions_leads_nowhere_else() {
    let database = TestDatabase::migrated().await;
    database.execute(r#"CREATE TABLE snapshot_service."StreamArchive_1999_01" (LIKE "StreamArchive")"#).await;
    let maintainer = login(&database, "maintainer", MAINTAIN).await;
    let client = maintainer.client().await;
    for route in ["create", "index", "analyze"] {
        for month in ["NULL", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'10000-01-01'", "'294276-12-31'"] {
            let sql = format!("SELECT stream_archive_{route}_partition({month})");
            let error = client.batch_execute(&sql).await.expect_err(&sql);
            assert_eq!(error.code(), Some(&SqlState::INVALID_PARAMETER_VALUE), "{sql}: {error:?}");
        }
    }
    // A table that is no partition, and a month that has none.
    for month in ["1999-01-01", "1999-02-01"] {
        for route in ["index", "analyze"] {
            let sql = format!("SELECT stream_archive_{route}_partition('{month}')");
            let error = client.batch_execute(&sql).await.expect_err(&sql);
            assert_eq!(error.code(), Some(&SqlState::INVALID_PARAMETER_VALUE), "{sql}: {error:?}");
        }
    }
    client.batch_execute("SELECT stream_archive_create_partition('1999-01-01')").await.unwrap();
    assert_eq!(database.count(r#"pg_index WHERE indrelid = '"StreamArchive_1999_01"'::regclass"#).await, 0);
    assert_eq!(database.count(r#"pg_inherits WHERE inhrelid = '"StreamArchive_1999_01"'::regclass"#).await, 0);

    // The caller's own tables and settings are not looked at.
    client
        .batch_execute(
            r#"CREATE TEMP TABLE "StreamArchive" ("createdAt" TIMESTAMP, mine TEXT) PARTITION BY RANGE ("createdAt");
               CREATE TEMP TABLE pg_inherits (inhparent oid, inhrelid oid);
               SET search_path = pg_temp, snapshot_service;
               SELECT stream_archive_create_partition('1999-03-31 12:00:00'), stream_archive_create_partition('9999-12-31');
               SELECT stream_archive_index_partition('1999-03-01'), stream_archive_analyze_partition('1999-03-01')"#,
        )
        .await
        .unwrap();
    let made: Vec<String> = database
        .value(
            r#"SELECT array_agg(inhrelid::regclass || ' ' || pg_get_expr(relpartbound, c.oid) ORDER BY 1)
               FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'snapshot_service."StreamArchive"'::regclass"#,
        )
        .await;
    let bounds = "FOR VALUES FROM ('1999-03-01 00:00:00') TO ('1999-04-01 00:00:00')";
    let last = "FOR VALUES FROM ('9999-12-01 00:00:00') TO ('10000-01-01 00:00:00')";
    assert_eq!(made, [format!(r#""StreamArchive_1999_03" {bounds}"#), format!(r#""StreamArchive_9999_12" {last}"#)]);
}

#[tokio::test]
async fn each_function_does_its_work_with_the_login_that_it_needs_and_says_what_another_lacks() {
    let database = with_history().await;
    let reader = login(&database, "reader", READ).await;
    let maintainer = login(&database, "maintainer", MAINTAIN).await;
    let nobody = login(&database, "nobody", "").await;
    for &name in HTTP_FUNCTIONS {
        let (able, unable) = if name == "trigger-maintenance" { (&maintainer, &reader) } else { (&reader, &nobody) };
        let mut function = start_function(name, &[("DATABASE_URL", &able.url)]).await;
        let outcome = function.invoke(&sample_event(name)).await;
        assert_eq!(outcome.status(), 200, "{name}: {outcome:?}");
        let mut function = start_function(name, &[("DATABASE_URL", &unable.url)]).await;
        let outcome = function.invoke(&sample_event(name)).await;
        assert_eq!((outcome.status(), &outcome.body()["code"]), (503, &"not_permitted".into()), "{name}: {outcome:?}");
    }
    let mut function = start_function("run-maintenance", &[("DATABASE_URL", &maintainer.url)]).await;
    let outcome = function.invoke(&sample_event("run-maintenance")).await;
    assert_eq!(outcome.payload["status"], "succeeded", "{outcome:?}");
    let mut function = start_function("report-metrics", &[("DATABASE_URL", &reader.url)]).await;
    let outcome = function.invoke(&sample_event("report-metrics")).await;
    assert!(!outcome.failed && outcome.payload["backlogRows"].is_number(), "{outcome:?}");
}

#[tokio::test]
async fn a_maintainer_is_granted_the_columns_that_reference_logs_and_nothing_else_of_their_tables() {
    let database = TestDatabase::of_host().await;
    database
        .execute(
            r#"CREATE SCHEMA app; REVOKE ALL ON SCHEMA app FROM PUBLIC;
               CREATE TABLE app."Notice" (id TEXT PRIMARY KEY, "logId" TEXT REFERENCES "EventLog", secret TEXT, "txHash" TEXT, "eventIndex" INTEGER,
                   FOREIGN KEY ("txHash", "eventIndex") REFERENCES "EventLog" ("txHash", "eventIndex"));
               CREATE TABLE "Payout" (id TEXT PRIMARY KEY, log TEXT REFERENCES "EventLog" ON DELETE CASCADE) PARTITION BY HASH (id);
               CREATE TABLE "Payout_0" PARTITION OF "Payout" FOR VALUES WITH (MODULUS 1, REMAINDER 0)"#,
        )
        .await;
    assert_eq!(migrate(&database.pool).await.unwrap().role_warnings, [""; 0]);
    let maintainer = login(&database, "maintainer", MAINTAIN).await;
    for allowed in [r#"SELECT "logId", "txHash", "eventIndex" FROM app."Notice""#, r#"SELECT log FROM "Payout""#] {
        maintainer.execute(allowed).await;
    }
    assert_refused(
        &maintainer,
        &[r#"SELECT secret FROM app."Notice""#, r#"SELECT id FROM "Payout""#, r#"SELECT log FROM "Payout_0""#]
            .map(String::from),
    )
    .await;
    let reader = login(&database, "reader", READ).await;
    assert_refused(&reader, &[r#"SELECT "logId" FROM app."Notice""#.into(), r#"SELECT log FROM "Payout""#.into()])
        .await;
    let before = grants(&database).await;
    migrate(&database.pool).await.unwrap();
    assert_eq!(grants(&database).await, before);

    // One that is missing is found, with the grant.
    database.execute(r#"REVOKE SELECT (log) ON "Payout" FROM snapshot_service_maintain"#).await;
    let found = maintainer.service().inspect_host().await.unwrap();
    let missing: Vec<_> = found.iter().filter(|found| found.code == "grant_missing").collect();
    assert_eq!((missing.len(), missing[0].object.as_str()), (1, r#"public."Payout""#), "{found:?}");
    database.execute(missing[0].cure.as_ref().unwrap()).await;
    let found = maintainer.service().inspect_host().await.unwrap();
    assert!(found.iter().all(|found| found.code != "grant_missing"), "{found:?}");

    // So is a schema in which nothing can be named.
    database.execute("REVOKE USAGE ON SCHEMA app FROM snapshot_service_maintain").await;
    let found = maintainer.service().inspect_host().await.unwrap();
    for finding in found.iter().filter(|found| found.code == "grant_missing") {
        database.execute(finding.cure.as_ref().unwrap()).await;
    }
    let found = maintainer.service().inspect_host().await.unwrap();
    assert!(found.iter().all(|found| found.code != "grant_missing"), "{found:?}");
}

/// What the roles and everybody else have been granted, as text.
async fn grants(database: &TestDatabase) -> String {
    database
        .value(
            r"SELECT COALESCE(string_agg(line, E'\n' ORDER BY line), '') FROM (
                  SELECT name || ' ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END || ' ' || privilege_type AS line
                  FROM (
                      SELECT oid::regclass::text AS name, relacl AS acl, relowner AS owner FROM pg_class
                      WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service'))
                      UNION ALL
                      SELECT oid::regprocedure::text, COALESCE(proacl, acldefault('f', proowner)), proowner FROM pg_proc
                      WHERE pronamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service'))
                      UNION ALL
                      SELECT attrelid::regclass || '.' || attname, attacl, 0 FROM pg_attribute WHERE NOT attisdropped
                      UNION ALL SELECT 'schema ' || nspname, nspacl, nspowner FROM pg_namespace WHERE nspname IN ('public', 'snapshot_service')
                  ) object CROSS JOIN aclexplode(acl)
                  WHERE grantee <> owner
              ) lines",
        )
        .await
}

#[tokio::test]
async fn each_migration_grants_what_is_missing_and_revokes_what_is_too_much() {
    let database = TestDatabase::migrated().await;
    insert_events(&database, 50).await;
    database.service().run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    database
        .execute(r#"CREATE TABLE "Other" (id TEXT); GRANT ALL ON "Other" TO snapshot_service_read, snapshot_service_maintain"#)
        .await;
    let before = grants(&database).await;
    assert_eq!(migrate(&database.pool).await.unwrap().role_warnings, [""; 0]);
    assert_eq!(grants(&database).await, before, "nothing was missing, also of the partitions made since");

    database
        .execute(
            r#"REVOKE ALL ON ALL TABLES IN SCHEMA public, snapshot_service FROM snapshot_service_read, snapshot_service_maintain;
               REVOKE ALL ON SCHEMA snapshot_service FROM snapshot_service_read;
               REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public, snapshot_service FROM snapshot_service_read, snapshot_service_maintain;
               GRANT ALL ON "Other" TO snapshot_service_read, snapshot_service_maintain;
               GRANT INSERT, UPDATE ON "Stream" TO snapshot_service_maintain WITH GRANT OPTION;
               GRANT SELECT, UPDATE (sender) ON "Stream" TO snapshot_service_read;
               GRANT TRIGGER ON "EventLog" TO snapshot_service_maintain;
               GRANT DELETE ON "ArchiveSeal" TO snapshot_service_maintain;
               GRANT EXECUTE ON FUNCTION stream_archive_index_partition TO snapshot_service_read, PUBLIC;
               GRANT CREATE ON SCHEMA public TO snapshot_service_maintain"#,
        )
        .await;
    assert_ne!(grants(&database).await, before);
    assert_eq!(migrate(&database.pool).await.unwrap().role_warnings, [""; 0]);
    assert_eq!(grants(&database).await, before);

    // Columns that are made anew, and the view with them.
    database
        .execute(
            r#"ALTER TABLE "EventLog" DROP "ledgerClosedAt", ALTER ledger TYPE BIGINT;
               ALTER TABLE "EventLog" ADD "ledgerClosedAt" TEXT;
               ALTER TABLE "Stream" DROP "streamId"; ALTER TABLE "Stream" ADD "streamId" TEXT"#,
        )
        .await;
    assert_ne!(grants(&database).await, before);
    assert_eq!(migrate(&database.pool).await.unwrap().role_warnings, [""; 0]);
    assert_eq!(grants(&database).await, before);
}

#[tokio::test]
async fn what_makes_grants_mean_something_else_is_reported() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s2", Some("42"), "1").await;
    database
        .execute(r#"ALTER TABLE "Stream" ENABLE ROW LEVEL SECURITY; GRANT CREATE ON SCHEMA public TO PUBLIC"#)
        .await;
    let maintainer = login(&database, "maintainer", MAINTAIN).await;
    assert_eq!(maintainer.count(r#""Stream""#).await, 0);
    let warnings = migrate(&database.pool).await.unwrap().role_warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for warning in warnings {
        let (_, sql) = warning.split_once(": ").unwrap();
        database.execute(sql).await;
    }
    assert_eq!(maintainer.count(r#""Stream""#).await, 1);
    assert_eq!(migrate(&database.pool).await.unwrap().role_warnings, [""; 0]);
}

#[tokio::test]
async fn a_schema_that_postgresql_itself_left_open_to_everybody_is_reported() {
    let database = TestDatabase::empty().await;
    database.execute(HOST_SCHEMA).await;
    let is_open = "SELECT has_schema_privilege('snapshot_service_read', 'public', 'CREATE')";
    let mut warnings = migrate(&database.pool).await.unwrap().role_warnings;
    // Up to PostgreSQL 14.
    if database.value("SELECT current_setting('server_version_num')::int < 150000").await {
        assert!(database.value::<bool>(is_open).await);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let (text, sql) = warnings[0].split_once(": ").unwrap();
        assert!(text.starts_with("everybody can make tables in the schema public; its owner, "), "{text}");
        database.execute(sql).await;
        warnings = migrate(&database.pool).await.unwrap().role_warnings;
    }
    assert_eq!(warnings, [""; 0]);
    assert!(!database.value::<bool>(is_open).await);
}

#[tokio::test]
async fn an_owner_with_createrole_migrates_all_by_itself() {
    let (server, postgres) = server_without_roles("CREATEROLE").await;
    postgres.execute("CREATE DATABASE app OWNER migrator").await;
    let owner = TestDatabase::adopt(url_of(&server.url("app"), "migrator")).await;
    owner.execute(HOST_SCHEMA).await;
    let report = migrate(&owner.pool).await.unwrap();
    assert_eq!((report.applied.len(), report.role_warnings.len()), (7, 0), "{report:?}");
    let login_or_more =
        "pg_roles WHERE rolname LIKE 'snapshot\\_service\\_%' AND (rolcanlogin OR rolcreaterole OR rolsuper)";
    assert_eq!(owner.count(login_or_more).await, 0);
    insert_events(&owner, 300).await;
    let maintainer = login(&owner, "maintainer", MAINTAIN).await;
    let service = maintainer.service_with_batches_of(50);
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.status, run.logs_archived), (RunStatus::Succeeded, 300));
    let reader = login(&owner, "reader", READ).await;
    assert_eq!(read_archive(&reader.service(), "s2", &ArchiveFilter::default(), 1000).await.len(), 300);
    owner.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn what_is_not_the_migrating_logins_to_do_is_named_with_its_sql() {
    let (server, postgres) = server_without_roles("").await;
    postgres.execute("CREATE ROLE host LOGIN PASSWORD 'secret'").await;
    postgres.execute("CREATE DATABASE app OWNER host").await;
    let host = TestDatabase::adopt(url_of(&server.url("app"), "host")).await;
    host.execute(HOST_SCHEMA).await;
    host.execute(
        r#"REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE, CREATE ON SCHEMA public TO migrator;
           GRANT SELECT ON "Stream" TO migrator"#,
    )
    .await;
    insert_events(&host, 100).await;
    host.execute("DROP TABLE remembered").await;
    let before = grants(&host).await;

    let migrator = TestDatabase::adopt(url_of(&server.url("app"), "migrator")).await;
    let Err(Error::HostRefuses { finding }) = migrate(&migrator.pool).await else { panic!("there is no schema") };
    assert_eq!(finding.code, "no_schema");
    let superuser = TestDatabase::adopt(server.url("app")).await;
    superuser.execute(finding.cure.unwrap().split_once(": ").unwrap().1).await;
    let report = migrate(&migrator.pool).await.unwrap();
    assert_eq!((report.applied.len(), report.role_warnings.len()), (7, 1), "{report:?}");
    let sql = |warning: &str| warning.split_once(": ").unwrap().1.to_owned();
    postgres.execute(&sql(&report.role_warnings[0])).await;

    let warnings = migrate(&migrator.pool).await.unwrap().role_warnings;
    assert_eq!(warnings.len(), 6, "the schema and both tables, for either role: {warnings:?}");
    for warning in &warnings {
        assert!(warning.contains(" must run: GRANT "), "{warning}");
        host.execute(&sql(warning)).await;
    }
    assert_eq!(migrate(&migrator.pool).await.unwrap().role_warnings, [""; 0]);
    postgres.execute("CREATE ROLE maintainer LOGIN PASSWORD 'secret' IN ROLE snapshot_service_maintain").await;
    let maintainer = TestDatabase::adopt(url_of(&server.url("app"), "maintainer")).await;
    let (service, forever) = (maintainer.service(), Deadline::never());
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &forever).await.unwrap();
    assert_eq!((run.status, run.logs_archived), (RunStatus::Succeeded, 100));

    // A rollback moves rows as a maintainer does, and drops what is its own. What the host has granted is the host's.
    let service = migrator.service();
    let error = service.restore_all(Trigger::Cli, true, time(NOW), &forever).await.unwrap_err();
    assert_eq!(error.code(), "not_permitted");
    postgres.execute("GRANT snapshot_service_maintain TO migrator").await;
    let run = service.restore_all(Trigger::Cli, true, time(NOW), &forever).await.unwrap();
    assert_eq!(run.logs_restored, 100);
    let warnings = service.drop_all(run.id, 1).await.unwrap();
    assert_eq!(warnings.len(), 6, "{warnings:?}");
    for warning in &warnings {
        assert!(warning.contains(" must run: REVOKE "), "{warning}");
        host.execute(&sql(warning)).await;
    }
    assert_eq!(grants(&host).await, before);
    assert_eq!(host.count(r#""EventLog""#).await, 100);
}

#[tokio::test]
async fn databases_of_a_cluster_are_migrated_at_once() {
    let (server, postgres) = server_without_roles("CREATEROLE").await;
    let mut databases = Vec::new();
    for index in 0..6 {
        postgres.execute(&format!("CREATE DATABASE app{index} OWNER migrator")).await;
        let database = TestDatabase::adopt(url_of(&server.url(&format!("app{index}")), "migrator")).await;
        database.execute(HOST_SCHEMA).await;
        databases.push(database);
    }
    // And each twice.
    let pools = databases.iter().chain(&databases).map(|database| migrate(&database.pool));
    for report in futures_util::future::join_all(pools).await {
        let report = report.unwrap();
        assert_eq!(report.role_warnings, [""; 0], "{report:?}");
    }
    let first = grants(&databases[0]).await;
    assert!(first.contains("snapshot_service_maintain"), "{first}");
    for database in &databases {
        assert_eq!(grants(database).await, first);
    }
}
