use snapshot_service::database::migrate;
use snapshot_service::{Deadline, Error, Trigger};

use crate::support::database::HOST_SCHEMA;
use crate::support::{TestDatabase, time};

#[tokio::test]
async fn migrating_twice_changes_nothing_the_second_time() {
    let database = TestDatabase::of_host().await;
    let first = migrate(&database.pool).await.unwrap();
    assert_eq!(first.applied.len(), 9);
    let second = migrate(&database.pool).await.unwrap();
    assert_eq!((second.applied.len(), second.archive_columns_changed.len()), (0, 0));
}

#[tokio::test]
async fn eight_migrations_at_once_apply_each_step_once() {
    let database = TestDatabase::of_host().await;
    let all = futures_util::future::join_all((0..8).map(|_| migrate(&database.pool))).await;
    let applied: usize = all.into_iter().map(|report| report.unwrap().applied.len()).sum();
    assert_eq!(applied, 9);
    assert_eq!(database.count("snapshot_service_migrations").await, 9);
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
    let client = database.pool.get().await.unwrap();
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
    assert_eq!(archive, format!("{log}, archivedAt timestamp(3) without time zone"));
}

#[tokio::test]
async fn a_type_that_would_alter_archived_values_is_refused_by_name() {
    let database = TestDatabase::migrated().await;
    database.insert_events(3, "2026-01-01 00:00:00").await;
    database.service().archive_old_logs(time("2026-05-31T02:00:00Z"), &Deadline::never()).await.unwrap();
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
