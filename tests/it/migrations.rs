use std::time::Duration;

use chrono::Utc;
use local_postgres::{Options, Server};
use snapshot_service::database::{connect_pool, migrate};
use snapshot_service::{Deadline, Error, PageRequest, RestoreRequest, RunStatus, Trigger, VerificationRequest};
use tokio::time::Instant;

use crate::support::database::HOST_SCHEMA;
use crate::support::{TestDatabase, stream, time};

#[tokio::test]
async fn migrating_twice_changes_nothing_the_second_time() {
    let database = TestDatabase::of_host().await;
    let first = migrate(&database.pool).await.unwrap();
    assert_eq!(first.applied.len(), 7);
    let second = migrate(&database.pool).await.unwrap();
    assert_eq!((second.applied.len(), second.archive_columns_changed.len()), (0, 0));
}

#[tokio::test]
async fn eight_migrations_at_once_apply_each_step_once() {
    let database = TestDatabase::of_host().await;
    let all = futures_util::future::join_all((0..8).map(|_| migrate(&database.pool))).await;
    let applied: usize = all.into_iter().map(|report| report.unwrap().applied.len()).sum();
    assert_eq!(applied, 7);
    assert_eq!(database.count("snapshot_service_migrations").await, 7);
}

#[tokio::test]
async fn a_database_without_the_hosts_tables_is_named_as_such() {
    let database = TestDatabase::empty().await;
    let error = migrate(&database.pool).await.unwrap_err();
    assert!(matches!(error, Error::HostTableMissing { table: "Stream" }), "{error:?}");
    assert_eq!(database.count("pg_class WHERE relname LIKE 'Stream%'").await, 0, "nothing is made there");
    database.execute(HOST_SCHEMA).await;
    migrate(&database.pool).await.unwrap();
}

#[tokio::test]
async fn maintenance_before_the_first_migration_says_what_to_run() {
    let database = TestDatabase::of_host().await;
    let error = database
        .service()
        .run_maintenance(Trigger::Api.request(), time("2026-05-31T02:00:00Z"), &Deadline::never())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "not_migrated");
    assert!(error.to_string().contains("snapshots migrate"), "{error}");
}

#[tokio::test]
async fn a_month_of_another_form_cannot_be_stored() {
    let database = TestDatabase::migrated().await;
    let client = database.client().await;
    for month in ["2026-13", "2026-1", "2026-00", "26-01", "2026-01-01"] {
        let sql = r#"INSERT INTO "StreamSnapshot" (id, "streamId", sender, receiver, status, "snapshotMonth")
                     VALUES ('x', 's', 'a', 'b', 'ACTIVE', $1)"#;
        let error = client.execute(sql, &[&month]).await.unwrap_err();
        assert_eq!(error.as_db_error().unwrap().constraint(), Some("StreamSnapshot_snapshotMonth_check"), "{month}");
    }
}

#[tokio::test]
async fn the_archive_has_every_column_of_the_log_by_name_and_type() {
    let database = TestDatabase::migrated().await;
    let columns = |table: &str| {
        format!(
            "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
             WHERE attrelid = '\"{table}\"'::regclass AND attnum > 0 AND NOT attisdropped"
        )
    };
    let log: String = database.value(&columns("EventLog")).await;
    let archive: String = database.value(&columns("StreamArchive")).await;
    let log = log.replace("createdAt timestamp(3)", "createdAt timestamp");
    assert_eq!(archive, format!("{log}, archivedAt timestamp(3) without time zone"));
}

#[tokio::test]
async fn a_type_that_would_alter_archived_values_is_refused_by_name() {
    let database = TestDatabase::migrated().await;
    database.insert_events(3, "2026-01-01 00:00:00").await;
    database.service().archive_old_logs(Trigger::Api, time("2026-05-31T02:00:00Z"), &Deadline::never()).await.unwrap();
    database.execute(r#"ALTER TABLE "EventLog" ALTER ledger TYPE BOOLEAN USING true"#).await;
    let error = migrate(&database.pool).await.unwrap_err();
    assert!(matches!(&error, Error::ArchiveColumnNotConvertible { column, .. } if column == "ledger"), "{error:?}");
    assert_eq!(database.count(r#""StreamArchive" WHERE ledger IN (1, 2, 3)"#).await, 3);
}

#[tokio::test]
async fn a_release_refuses_a_database_with_migrations_of_a_later_one() {
    let database = TestDatabase::migrated().await;
    database
        .execute(
            "INSERT INTO snapshot_service_migrations (version, name, applied_on, checksum)
             SELECT 999, 'of_a_later_release', applied_on, '1' FROM snapshot_service_migrations LIMIT 1",
        )
        .await;
    let error = migrate(&database.pool).await.unwrap_err();
    assert!(matches!(error, Error::Migration(_)), "{error:?}");
}

const LEGACY_TABLES: &str = include_str!("fixtures/legacy-tables.sql");
const NOW: &str = "2026-05-31T02:00:00Z";

#[tokio::test]
async fn limits_that_the_database_sets_by_default_are_not_the_migrations() {
    let database = TestDatabase::of_host().await;
    database.execute(LEGACY_TABLES).await;
    database
        .execute(
            r#"INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", metadata, "createdAt")
               SELECT 'a' || i, 'withdraw', '42', 'tx-' || i, i, 'then', repeat('m', 100), timestamp '2025-01-01' + i * interval '1 minute'
               FROM generate_series(1, 300000) i"#,
        )
        .await;
    let name: String = database.value("SELECT current_database()").await;
    // As long as it takes to begin, and hardly longer.
    for limit in ["statement_timeout = 25", "lock_timeout = 1", "idle_in_transaction_session_timeout = 1"] {
        database.execute(&format!("ALTER DATABASE {name} SET {limit}")).await;
    }
    let version: i32 = database.value("SELECT current_setting('server_version_num')::integer").await;
    if version >= 170_000 {
        database.execute(&format!("ALTER DATABASE {name} SET transaction_timeout = 50")).await;
    }
    let pool = connect_pool(&database.url.parse().unwrap(), "limited", 1).await.unwrap();
    let limited = pool.get().await.unwrap().batch_execute("SELECT pg_sleep(1)").await;
    assert!(limited.is_err(), "the limits are in force");
    let report = migrate(&pool).await.unwrap();
    assert_eq!((report.applied.len(), report.logs_sealed), (7, 300_000));
    assert_eq!(database.count(r#"snapshot_service."StreamArchive""#).await, 300_000);
    let left: String = pool.get().await.unwrap().query_one("SHOW statement_timeout", &[]).await.unwrap().get(0);
    assert_eq!(left, "25ms", "nothing stays set in the session");
}

#[tokio::test]
async fn who_waits_for_another_migration_hears_for_whom_and_not_for_ever() {
    let database = TestDatabase::migrated().await;
    let pool = connect_pool(&database.url.parse().unwrap(), "migrate on a laptop", 1).await.unwrap();
    let stuck = pool.get().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('snapshot-service migrate snapshot_service, public, pg_temp', 0))";
    stuck.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
    let began = Instant::now();
    let error = migrate(&database.pool).await.unwrap_err();
    assert_eq!(error.code(), "migration_under_way");
    let text = error.to_string();
    assert!(text.contains("snapshot-service/migrate on a laptop (process ") && text.contains("since 20"), "{text}");
    assert!(text.contains("pg_terminate_backend"), "{text}");
    assert!((20..30).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    // One that ends in time is waited for.
    let waiting = tokio::spawn({
        let pool = database.pool.clone();
        async move { migrate(&pool).await }
    });
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!waiting.is_finished());
    // Its connection is cut.
    drop(stuck);
    drop(pool);
    assert_eq!(waiting.await.unwrap().unwrap().applied.len(), 0);
}

/// Archived logs of three months, two snapshots, a hold and a restored log.
async fn with_history() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1000").await;
    database.insert_stream("s2", Some("43"), "1000").await;
    database.insert_months("2025-10-01", 3, 40).await;
    let (service, forever) = (database.service(), Deadline::never());
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &forever).await.unwrap();
    assert_eq!((run.logs_archived, run.snapshots_created), (120, 2));
    let (from, to) = (time("2025-10-01T00:00:00Z"), time("2025-10-01T05:30:00Z"));
    let restore = RestoreRequest::new(None, Some(from), Some(to), None).unwrap();
    assert_eq!(service.restore(Trigger::Cli, &restore, time(NOW), &forever).await.unwrap().logs_restored, 5);
    service.hold_stream(&stream("77"), "case 7", "ann").await.unwrap();
    database
}

/// Whether everything works: nothing is left to migrate, and a run archives and restores.
async fn assert_works(database: &TestDatabase) {
    let again = migrate(&database.pool).await.unwrap();
    assert_eq!((again.applied.len(), again.lost.len()), (0, 0), "{again:?}");
    let (service, forever) = (database.service(), Deadline::never());
    assert!(service.inspect_host().await.unwrap().is_empty());
    database.insert_event("late", "42", "2025-11-15 00:00:00").await;
    let run = service.run_maintenance(Trigger::Api.request(), time("2026-06-30T02:00:00Z"), &forever).await.unwrap();
    assert_eq!((run.status, run.snapshots_created), (RunStatus::Succeeded, 2), "{run:?}");
    assert!(run.logs_archived >= 1, "{run:?}");
    let late = RestoreRequest::new(None, Some(time("2025-11-15T00:00:00Z")), Some(time("2025-11-15T00:00:01Z")), None);
    let run = service.restore(Trigger::Cli, &late.unwrap(), time("2026-06-30T03:00:00Z"), &forever).await.unwrap();
    assert_eq!((run.status, run.logs_restored), (RunStatus::Succeeded, 1), "{run:?}");
    assert_eq!(database.count(r#""EventLog" WHERE id = 'late'"#).await, 1);
    for id in ["s1", "42"] {
        assert!(!service.get_stream_snapshots(&stream(id), &PageRequest::first()).await.unwrap().items.is_empty());
    }
    assert!(database.count(r#""StreamHistory" WHERE id = 'late'"#).await == 1);
}

/// The months that a verification finds rows missing from.
async fn months_with_breaks(database: &TestDatabase) -> Vec<String> {
    let everything = VerificationRequest::default();
    let verification = database.service().verify_archive(everything, Utc::now(), &Deadline::never()).await.unwrap();
    let mut months: Vec<String> =
        verification.breaks.iter().filter_map(|found| found.month).map(|month| month.to_string()).collect();
    months.sort_unstable();
    months.dedup();
    months
}

#[tokio::test]
async fn what_was_dropped_is_made_anew_and_what_was_lost_is_said_by_the_ledgers_counts() {
    let database = with_history().await;
    database.execute(r#"DROP TABLE "StreamArchive_2025_11""#).await;
    let report = migrate(&database.pool).await.unwrap();
    assert_eq!(report.applied.len(), 0, "no table of the service's own is missing");
    assert_eq!(report.lost, ["2025-11 of the archive was gone with 40 logs, by the seals: restore them from a backup"]);
    assert_eq!(months_with_breaks(&database).await, ["2025-11"]);
    assert_works(&database).await;

    let database = with_history().await;
    database.execute(r#"DROP TABLE "StreamArchive", "StreamSnapshot", "LegalHold""#).await;
    let found = database.service().inspect_host().await.unwrap();
    assert_eq!(found[0].code, "not_migrated");
    assert!(found[0].message.contains("StreamArchive"), "{found:?}");
    let report = migrate(&database.pool).await.unwrap();
    assert_eq!(report.applied.len(), 7);
    assert_eq!(
        report.lost,
        [
            "the table \"LegalHold\" was gone, and how many rows it had is not known: no stream is on hold any more: place the holds again before the next run",
            "the table \"StreamArchive\" was gone with 115 logs, by the seals: restore them from a backup",
            "the table \"StreamSnapshot\" was gone with 2 snapshots at most, by the runs' counts: restore them from a backup",
            "2025-10 of the archive was gone with 35 logs, by the seals: restore them from a backup",
            "2025-11 of the archive was gone with 40 logs, by the seals: restore them from a backup",
            "2025-12 of the archive was gone with 40 logs, by the seals: restore them from a backup",
        ]
    );
    assert_eq!(months_with_breaks(&database).await, ["2025-10", "2025-11", "2025-12"]);
    assert_works(&database).await;

    // The seals with it: the runs have counted, too.
    let database = with_history().await;
    database.execute(r#"DROP TABLE "StreamArchive", "ArchiveSeal""#).await;
    let report = migrate(&database.pool).await.unwrap();
    assert_eq!(
        report.lost[1],
        "the table \"StreamArchive\" was gone with 115 logs, by the runs' counts: restore them from a backup"
    );
    assert_works(&database).await;
    assert_eq!(months_with_breaks(&database).await, [""; 0]);
}

#[tokio::test]
async fn any_half_of_the_service_that_somebody_left_is_completed() {
    for dropped in [
        "DROP FUNCTION stream_archive_create_partition, stream_history CASCADE",
        r#"DROP VIEW "StreamHistory""#,
        "DROP TABLE snapshot_service_migrations",
        "DELETE FROM snapshot_service_migrations WHERE version > 4",
        r#"DROP TABLE "MaintenanceRun", "MaintenancePause""#,
        r#"DROP TABLE "ArchiveMonth" CASCADE"#,
        r#"DROP TABLE "ArchiveSeal""#,
        r#"DROP TABLE "ArchiveSeal", "ArchiveMonth", "ArchiveRemoval""#,
        r#"DROP TABLE "StreamIdentity", "RestoredLog", "ArchiveVerification", "MaintenanceFinding""#,
        // An ORM that knows the former service makes its tables anew.
        r#"DROP TABLE "StreamArchive", "StreamSnapshot"; {legacy}"#,
        // Functions without tables.
        r#"DROP TABLE "StreamSnapshot", "StreamArchive", "StreamIdentity", "MaintenanceRun", "MaintenancePause", "MaintenanceFinding",
           "ArchiveSeal", "ArchiveMonth", "ArchiveRemoval", "ArchiveVerification", "RestoredLog", "LegalHold", snapshot_service_migrations"#,
    ] {
        let database = with_history().await;
        database.execute(&dropped.replace("{legacy}", LEGACY_TABLES)).await;
        migrate(&database.pool).await.unwrap_or_else(|error| panic!("{dropped}: {error:?}"));
        assert_works(&database).await;
    }
}

#[tokio::test]
async fn an_archive_whose_seals_were_dropped_is_sealed_anew_and_a_later_change_is_found() {
    let database = with_history().await;
    let rows = database.count(r#""StreamArchive""#).await;
    database.execute(r#"DROP TABLE "ArchiveSeal""#).await;
    let report = migrate(&database.pool).await.unwrap();
    assert_eq!(report.logs_sealed, rows.unsigned_abs());
    assert_eq!(months_with_breaks(&database).await, [""; 0]);
    assert_works(&database).await;
    assert_eq!(months_with_breaks(&database).await, [""; 0]);
    database.execute(r#"UPDATE "StreamArchive" SET ledger = ledger + 1 WHERE "createdAt" < '2025-11-01'"#).await;
    assert_eq!(months_with_breaks(&database).await, ["2025-10"]);
}

#[tokio::test]
async fn a_ledger_whose_heads_were_dropped_goes_on_and_still_verifies() {
    let database = with_history().await;
    let heads: String = database.value(r#"SELECT string_agg(m::text, ' ' ORDER BY month) FROM "ArchiveMonth" m"#).await;
    database.execute(r#"DROP TABLE "ArchiveMonth" CASCADE"#).await;
    migrate(&database.pool).await.unwrap();
    assert_eq!(
        database.value::<String>(r#"SELECT string_agg(m::text, ' ' ORDER BY month) FROM "ArchiveMonth" m"#).await,
        heads
    );
    assert_eq!(database.count("pg_constraint WHERE conname = 'ArchiveSeal_month_fkey'").await, 1);
    database.assert_seals_agree().await;
}

#[tokio::test]
async fn where_all_tables_are_published_logs_are_archived_restored_and_rolled_back() {
    let options = Options { settings: vec!["wal_level = logical".into()], files: Vec::new() };
    let server = tokio::task::spawn_blocking(move || Server::start_ephemeral(&options)).await.unwrap().unwrap();
    let database = TestDatabase::adopt_host(server.url("postgres")).await;
    database.execute("CREATE PUBLICATION everything FOR ALL TABLES").await;
    database.execute(LEGACY_TABLES).await;
    database.insert_stream("s1", Some("42"), "1000").await;
    database.insert_months("2025-10-01", 3, 40).await;
    // The former service has copied a month without where in their transactions its events are, and deleted nothing.
    database
        .execute(
            r#"INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt"
               FROM "EventLog" WHERE "createdAt" < '2025-11-01'"#,
        )
        .await;
    database.remember_events().await;
    let report = migrate(&database.pool).await.unwrap();
    let codes: Vec<_> = report.findings.iter().map(|found| found.code.as_str()).collect();
    assert_eq!(codes, ["published"]);
    let (service, forever) = (database.service(), Deadline::never());
    let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &forever).await.unwrap();
    assert_eq!((run.status, run.logs_archived, run.already_archived), (RunStatus::Succeeded, 120, 0));
    assert_eq!(run.findings, report.findings, "the run says what it met");
    let all = RestoreRequest::new(Some(stream("42")), None, None, None).unwrap();
    let run = service.restore(Trigger::Cli, &all, time(NOW), &forever).await.unwrap();
    assert_eq!((run.status, run.logs_restored), (RunStatus::Succeeded, 120));
    database.assert_nothing_lost_or_doubled().await;
    database.execute(r#"DROP TABLE public."StreamArchive""#).await;
    let run = service.restore_all(Trigger::Cli, true, time(NOW), &forever).await.unwrap();
    service.drop_all(run.id, 1).await.unwrap();
    assert_eq!(database.count(r#""EventLog""#).await, 120);
    assert_eq!(database.count("pg_publication WHERE puballtables").await, 1, "the host's publication is as it was");
}
