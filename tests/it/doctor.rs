//! What the service finds in the host's database, before it touches it.

use std::time::Duration;

use local_postgres::{Options, Server};
use snapshot_service::database::migrate;
use snapshot_service::{Deadline, FindingEffect, HostFinding, RunStatus, Settings, Trigger};
use tokio::time::Instant;

use crate::support::{TestDatabase, time};

const NOW: &str = "2026-05-31T02:00:00Z";

/// What `doctor` finds: effect, code and object of each.
async fn inspect(database: &TestDatabase) -> Vec<(FindingEffect, String, String)> {
    let found = database.service().inspect_host().await.unwrap();
    found.into_iter().map(|found| (found.effect, found.code, found.object)).collect()
}

fn found(effect: FindingEffect, code: &str, object: &str) -> (FindingEffect, String, String) {
    (effect, code.into(), object.into())
}

/// The database as a new login sees it, which may maintain.
async fn maintainer(database: &TestDatabase) -> TestDatabase {
    let role: String = database.value("SELECT 'doctor_' || current_database()").await;
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret' IN ROLE snapshot_service_maintain")).await;
    let (_, place) = database.url.split_once('@').unwrap();
    TestDatabase::adopt(format!("postgres://{role}:secret@{place}")).await
}

#[tokio::test]
async fn a_host_that_is_as_it_should_be_gives_no_cause_for_a_finding() {
    let database = TestDatabase::migrated().await;
    assert_eq!(inspect(&database).await, []);
    assert_eq!(inspect(&maintainer(&database).await).await, []);
}

#[tokio::test]
async fn before_the_first_migration_and_before_the_hosts_own_there_is_something_to_say() {
    let database = TestDatabase::empty().await;
    // Before version 15 PostgreSQL itself leaves it open.
    database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let missing = |effect, table| found(effect, "host_table_missing", table);
    let both = [missing(FindingEffect::RefusesBoth, "Stream"), missing(FindingEffect::RefusesArchive, "EventLog")];
    assert_eq!(inspect(&database).await, both);
    let database = TestDatabase::of_host().await;
    assert_eq!(inspect(&database).await, [found(FindingEffect::RefusesBoth, "not_migrated", "the database")]);
    database.migrate().await;
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT"#).await;
    assert_eq!(inspect(&database).await, [found(FindingEffect::RefusesArchive, "not_migrated", "\"StreamArchive\"")]);
}

#[tokio::test]
async fn whatever_the_host_has_is_found_by_name_with_a_cure_that_helps() {
    use FindingEffect::{Holds, RefusesArchive, Warns};
    let log = r#"public."EventLog""#;
    for (sql, effect, code, object) in [
        (r#"DROP INDEX "EventLog_createdAt_idx""#, Warns, "no_time_index", log),
        (
            r#"DROP INDEX "EventLog_streamId_idx"; DROP INDEX "EventLog_streamId_createdAt_idx""#,
            Warns,
            "no_stream_index",
            log,
        ),
        // One that covers some rows, or begins with another column, is of no use.
        (
            r#"DROP INDEX "EventLog_createdAt_idx"; CREATE INDEX ON "EventLog" ("createdAt") WHERE ledger > 5;
               CREATE INDEX ON "EventLog" (ledger, "createdAt")"#,
            Warns,
            "no_time_index",
            log,
        ),
        (
            r#"ALTER TABLE "EventLog" ADD tier TEXT"#,
            Warns,
            "column_name_taken",
            r#"column "tier" of public."EventLog""#,
        ),
        (
            r#"ALTER TABLE "EventLog" ADD "archivedAt" TEXT"#,
            RefusesArchive,
            "column_name_taken",
            r#"column "archivedAt" of public."EventLog""#,
        ),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", Warns, "open_schema", "public"),
        (
            r#"CREATE FUNCTION fires() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
               CREATE EVENT TRIGGER "On ddl" ON ddl_command_end EXECUTE FUNCTION fires()"#,
            Warns,
            "event_trigger",
            r#"event trigger "On ddl""#,
        ),
        (
            r#"CREATE TABLE "Notice" ("logId" TEXT REFERENCES "EventLog"); CREATE INDEX ON "Notice" ("logId")"#,
            Holds,
            "referenced",
            r#"constraint "Notice_logId_fkey" of public."Notice""#,
        ),
        (
            r#"CREATE TABLE old_events AS SELECT * FROM "EventLog" LIMIT 0; ALTER TABLE old_events ALTER ledger TYPE TEXT;
               INSERT INTO old_events (id) VALUES ('x')"#,
            Warns,
            "second_archive",
            "public.old_events",
        ),
        (
            r#"CREATE SCHEMA attic; CREATE TABLE attic."Log" (LIKE "EventLog") PARTITION BY RANGE ("createdAt");
               CREATE TABLE attic.log_1 PARTITION OF attic."Log" DEFAULT; INSERT INTO attic."Log" SELECT * FROM "EventLog""#,
            Warns,
            "second_archive",
            r#"attic."Log""#,
        ),
        (
            r#"ALTER TABLE "EventLog" DROP CONSTRAINT "EventLog_pkey"; CREATE UNIQUE INDEX ON "EventLog" (id);
               CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'delete')"#,
            RefusesArchive,
            "no_replica_identity",
            r#""EventLog""#,
        ),
    ] {
        let database = TestDatabase::migrated().await;
        database.insert_event("e1", "42", "2026-05-30 00:00:00").await;
        database.execute(sql).await;
        migrate(&database.pool).await.unwrap();
        let all = database.service().inspect_host().await.unwrap();
        let is_it = |one: &&HostFinding| one.code == code && one.object == object && one.effect == effect;
        let one = all.iter().find(is_it).unwrap_or_else(|| panic!("{sql}: {all:?}"));
        assert!(all.iter().all(|other| other == one || other.code == "published"), "{sql}: {all:?}");
        let Some(cure) = &one.cure else { continue };
        if cure.ends_with(';') && !cure.contains("...") && !cure.contains(" or ") {
            // An index is built concurrently, in no transaction.
            database.execute(cure).await;
            let left = database.service().inspect_host().await.unwrap();
            assert!(left.iter().all(|left| left.code != code), "{cure}: {left:?}");
        }
    }
}

#[tokio::test]
async fn tables_that_only_resemble_the_log_are_no_second_archive() {
    let database = TestDatabase::migrated().await;
    database.insert_events(20, "2026-01-10 00:00:00").await;
    database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    database
        .execute(
            r#"CREATE TABLE empty (LIKE "EventLog");
               CREATE TABLE other AS SELECT id, "eventType", "streamId", "txHash", ledger FROM "StreamArchive";
               CREATE VIEW seen AS SELECT * FROM "StreamArchive";
               CREATE TABLE dropped AS SELECT * FROM "StreamArchive"; ALTER TABLE dropped DROP "createdAt";
               ALTER TABLE "StreamArchive" DETACH PARTITION "StreamArchive_2026_01""#,
        )
        .await;
    assert_eq!(inspect(&database).await, []);
}

#[tokio::test]
async fn a_run_stores_what_it_met_and_keeps_what_was_mended_since() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(50, "2026-01-10 00:00:00").await;
    database.execute(r#"DROP INDEX "EventLog_createdAt_idx""#).await;
    let service = database.service_with_batches_of(10);
    let at_once = Deadline::after(Duration::ZERO);
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &at_once).await.unwrap();
    let codes = |run: &snapshot_service::MaintenanceRun| -> Vec<String> {
        run.findings.iter().map(|found| found.code.clone()).collect()
    };
    assert_eq!((run.complete, codes(&run)), (false, vec!["no_time_index".into()]));
    database
        .execute(
            r#"CREATE INDEX ON "EventLog" ("createdAt"); CREATE PUBLICATION deletions FOR TABLE "EventLog" WITH (publish = 'delete')"#,
        )
        .await;
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.complete, codes(&run)), (true, vec!["published".into(), "no_time_index".into()]));
    let stored = service.find_maintenance_run(run.id).await.unwrap().unwrap();
    assert_eq!(stored.findings, run.findings);
    let json = serde_json::to_value(&stored).unwrap();
    assert_eq!(json["findings"][0]["effect"], "warns");
    assert_eq!(json["findings"][0]["object"], "deletions");
}

#[tokio::test]
async fn limits_that_the_role_cannot_see_are_refused_before_anything_is_written() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    let login = maintainer(&database).await;
    for settings in [
        Settings { max_active_sessions: Some(50), ..Settings::default() },
        Settings { max_replica_lag: Some(Duration::from_secs(10)), ..Settings::default() },
    ] {
        let service = login.service_with(settings);
        let error = service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap_err();
        assert!(error.finding().is_some(), "{error:?}");
        assert_eq!(error.code(), "limits_hidden");
        assert!(error.to_string().contains("GRANT pg_monitor TO "), "{error}");
        assert_eq!(database.count(r#""MaintenanceRun""#).await, 0);
        assert_eq!(service.inspect_host().await.unwrap()[0].code, "limits_hidden");
    }
    let role: String = login.value("SELECT current_user::text").await;
    database.execute(&format!("GRANT pg_read_all_stats TO {role}")).await;
    let service = login.service_with(Settings { max_active_sessions: Some(50), ..Settings::default() });
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.status, run.findings.len()), (RunStatus::Succeeded, 0));
}

#[tokio::test]
async fn a_logical_consumer_is_no_replica_and_a_standby_that_has_gone_is_said() {
    let settings = ["wal_level = logical", "wal_receiver_status_interval = 1"].map(String::from).into();
    let options = Options { settings, files: Vec::new() };
    let server = tokio::task::spawn_blocking(move || Server::start_ephemeral(&options)).await.unwrap().unwrap();
    let database = TestDatabase::adopt_host(server.url("postgres")).await;
    database.migrate().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(2_000, "2026-01-10 00:00:00").await;
    database
        .execute(
            r"CREATE TABLE beats (i INTEGER PRIMARY KEY); CREATE PUBLICATION beats FOR TABLE beats;
               SELECT pg_create_physical_replication_slot('standby', true)",
        )
        .await;
    // In a transaction that has written, there is no logical slot to be made.
    database.execute("SELECT pg_create_logical_replication_slot('consumer', 'pgoutput')").await;
    database.execute("CREATE DATABASE consumer").await;
    let consumer = TestDatabase::adopt(server.url("consumer")).await;
    let url = &database.url;
    consumer
        .execute(&format!(
            "CREATE TABLE beats (i INTEGER PRIMARY KEY);
             CREATE SUBSCRIPTION consumer CONNECTION '{url}' PUBLICATION beats WITH (create_slot = false, slot_name = 'consumer', copy_data = false)"
        ))
        .await;
    // Any replica with a lag that can be measured would pass this limit.
    let service = database.service_with(Settings { max_replica_lag: Some(Duration::ZERO), ..Settings::default() });
    let began = Instant::now();
    let mut beat = 0;
    while database.count("pg_stat_replication WHERE replay_lag > '0'").await == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "the consumer has no lag");
        beat += 1;
        database.execute(&format!("INSERT INTO beats VALUES ({beat})")).await;
    }
    let deadline = Deadline::after(Duration::from_secs(20));
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &deadline).await.unwrap();
    assert_eq!((run.status, run.logs_archived), (RunStatus::Succeeded, 2_000), "{run:?}");
    let gone: Vec<_> = run.findings.iter().filter(|found| found.code == "standby_gone").collect();
    assert_eq!((gone.len(), gone[0].object.as_str(), gone[0].effect), (1, "standby", FindingEffect::Warns));
    database.execute(gone[0].cure.as_ref().unwrap().split_once(" or ").unwrap().1).await;
    assert_eq!(service.inspect_host().await.unwrap(), []);
    consumer.execute("ALTER SUBSCRIPTION consumer DISABLE").await;
}

#[tokio::test]
async fn the_look_is_quick_among_many_tables() {
    let database = TestDatabase::migrated().await;
    database
        .execute(
            r#"DO $$ BEGIN FOR i IN 1..500 LOOP
                   EXECUTE format('CREATE TABLE table_%s (id TEXT PRIMARY KEY, "logId" TEXT, a TEXT, b TEXT, "createdAt" TIMESTAMP)', i);
               END LOOP; END $$; ANALYZE"#,
        )
        .await;
    let service = database.service();
    service.inspect_host().await.unwrap();
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(service.inspect_host().await.unwrap(), []);
        times.push(began.elapsed());
    }
    // All of `doctor`, of which the look is a part; the best of several, because other tests run meanwhile.
    assert!(times.iter().min().unwrap() < &Duration::from_millis(150), "{times:?}");
}
