use snapshot_service::database::migrate;
use snapshot_service::{ArchiveFilter, Deadline, PageRequest, Trigger};

use crate::support::{TestDatabase, read_archive, stream, time};

const LEGACY_TABLES: &str = include_str!("fixtures/legacy-tables.sql");
const NOW: &str = "2026-05-31T02:00:00Z";

/// A database that the former service has served: two streams, one of which is gone, two snapshots, three archived logs.
async fn served_by_the_former_service() -> TestDatabase {
    let database = TestDatabase::of_host().await;
    database.execute(LEGACY_TABLES).await;
    database.insert_stream("s1", Some("42"), "1").await;
    database
        .execute(
            r#"INSERT INTO "StreamSnapshot" (id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount", status, "snapshotMonth")
               VALUES ('snap1', 's1', 'a', 'b', 'c', 9007199254740993, 9223372036854775807, 'ACTIVE', '2025-11'),
                      ('snap2', 's1', 'a', 'b', 'c', 1, 2, 'PAUSED', '2025-12');
               INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, amount, metadata, "createdAt", "archivedAt")
               VALUES ('a1', 'create', '42', 'tx-a1', 7, 'then', 'GSENDER', 9007199254740993, '{"a":1}', '2025-06-30 23:59:59.999', '2025-12-01'),
                      ('a2', 'withdraw', '42', 'tx-a2', 7, 'then', 'GSENDER', 9007199254740993, '{"a":1}', '2025-07-01 00:00:00', '2025-12-01'),
                      ('a3', 'cancel', '42', 'tx-a3', 7, 'then', NULL, NULL, NULL, '2025-07-15 12:00:00', '2025-12-01');
               CREATE TABLE snapshots_before AS SELECT id, to_jsonb(t) AS row FROM "StreamSnapshot" t;
               CREATE TABLE archive_before AS SELECT id, to_jsonb(a) AS row FROM "StreamArchive" a"#,
        )
        .await;
    database
}

async fn assert_all_adopted(database: &TestDatabase) {
    let kept = r#"snapshots_before b JOIN "StreamSnapshot" t USING (id) WHERE to_jsonb(t) - '{state,eventIds}'::text[] = b.row AND t.state IS NULL AND t."eventIds" IS NULL"#;
    assert_eq!(database.count(kept).await, 2);
    let kept = r#"archive_before b JOIN "StreamArchive" a USING (id)
                  WHERE to_jsonb(a) - '{eventIndex,parent_hash,entry_hash}'::text[] = b.row"#;
    assert_eq!(database.count(kept).await, 3);
    assert_eq!(database.count("pg_class WHERE relname = 'StreamArchive_adopted'").await, 0);
}

#[tokio::test]
async fn tables_of_the_former_service_are_adopted_with_every_row() {
    let database = served_by_the_former_service().await;
    migrate(&database.pool).await.unwrap();
    assert_all_adopted(&database).await;
    migrate(&database.pool).await.unwrap();
    assert_all_adopted(&database).await;

    let service = database.service();
    let page = service.get_stream_snapshots(&stream("42"), &PageRequest::first()).await.unwrap();
    let months: Vec<String> = page.items.iter().map(|snapshot| snapshot.snapshot_month.to_string()).collect();
    assert_eq!(months, ["2025-12", "2025-11"]);
    assert_eq!(page.items[1].total_amount.as_deref(), Some("9223372036854775807"));
    let logs = read_archive(&service, "s1", &ArchiveFilter::default(), 2).await;
    assert_eq!(logs.iter().map(|log| log.id.as_str()).collect::<Vec<_>>(), ["a3", "a2", "a1"]);
    assert_eq!(logs[0].event_index, None, "the former service dropped it");
}

#[tokio::test]
async fn what_the_former_service_left_with_impossible_times_stays_aside_and_is_in_no_ones_way() {
    let database = served_by_the_former_service().await;
    database
        .execute(
            r#"INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'odd' || number, 'create', '42', 'tx-odd' || number, 1, 'x', time
               FROM unnest('{-infinity,infinity,0044-03-15 BC,10000-01-01}'::timestamp[]) WITH ORDINALITY t (time, number);
               INSERT INTO "StreamSnapshot" (id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount", status, "snapshotMonth", "createdAt")
               VALUES ('odd', 's1', 'a', 'b', 'c', 1, 2, 'PAUSED', '2026-01', 'infinity')"#,
        )
        .await;
    let report = migrate(&database.pool).await.unwrap();
    let aside = report.findings.iter().find(|found| found.code == "time_out_of_range").unwrap();
    assert!(aside.object.contains("StreamArchive_adopted"), "{aside:?}");
    assert_eq!(database.count(r#""StreamArchive_adopted""#).await, 4);
    assert_eq!(database.count(r#""StreamArchive""#).await, 3);
    let service = database.service();
    let page = service.get_stream_snapshots(&stream("42"), &PageRequest::first()).await.unwrap();
    assert_eq!(page.items.len(), 2);
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.complete);
}

#[tokio::test]
async fn an_adopted_table_is_of_the_same_form_as_a_new_one() {
    let adopted = served_by_the_former_service().await;
    migrate(&adopted.pool).await.unwrap();
    let new = TestDatabase::migrated().await;
    let columns =
        "SELECT string_agg(table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' ||
                   COALESCE(column_default, ''), ', ' ORDER BY table_name, column_name) FROM information_schema.columns
                   WHERE table_name IN ('StreamSnapshot', 'StreamArchive')";
    assert_eq!(adopted.value::<String>(columns).await, new.value::<String>(columns).await);
    let indexes =
        "SELECT string_agg(indexdef, ', ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'StreamSnapshot'";
    assert_eq!(adopted.value::<String>(indexes).await, new.value::<String>(indexes).await);
    let checks = "SELECT string_agg(conname || pg_get_constraintdef(oid), ', ' ORDER BY conname) FROM pg_constraint
                  WHERE conrelid = '\"StreamSnapshot\"'::regclass";
    assert_eq!(adopted.value::<String>(checks).await, new.value::<String>(checks).await);
}

#[tokio::test]
async fn originals_of_adopted_rows_that_are_still_there_are_settled_by_the_next_run() {
    let database = served_by_the_former_service().await;
    // The former service crashed before it deleted these: one as it was, one changed since, one with another time.
    database.insert_event("a2", "42", "2025-07-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "eventIndex" = 4, entry_hash = 'h'"#).await;
    database.insert_event("a3", "42", "2025-07-15 12:00:00").await;
    database.insert_event("a1", "42", "2025-08-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "eventType" = 'create' WHERE id = 'a1'"#).await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    migrate(&database.pool).await.unwrap();
    assert_all_adopted(&database).await;

    let service = database.service();
    let report = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_archived, report.already_archived, report.conflicts), (0, 1, 2));
    assert_eq!(report.conflict_ids, ["a3", "a1"]);
    let filled = r#""StreamArchive" WHERE id = 'a2' AND "eventIndex" = 4 AND entry_hash = 'h'"#;
    assert_eq!(database.count(filled).await, 1);
    assert_eq!(database.count(r#""EventLog" WHERE id IN ('a1', 'a3', 'newest')"#).await, 3);
    assert_eq!(database.count(r#""StreamArchive""#).await, 3, "none is there twice");
}

#[tokio::test]
async fn whole_batches_of_originals_are_settled_within_the_default_time_limits() {
    let database = TestDatabase::of_host().await;
    database.execute(LEGACY_TABLES).await;
    database.insert_events(40_000, "2025-06-01 00:00:00").await;
    database
        .execute(
            r#"UPDATE "EventLog" SET parent_hash = 'p' || id, entry_hash = 'h' || id;
               INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, receiver, amount, metadata, "createdAt")
               SELECT id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, receiver, amount, metadata, "createdAt"
               FROM "EventLog";
               DELETE FROM "EventLog" WHERE ledger > 25000"#,
        )
        .await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    migrate(&database.pool).await.unwrap();
    let report = database.service().archive_old_logs(time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_archived, report.already_archived, report.conflicts), (0, 25_000, 0));
    assert_eq!(database.count(r#""EventLog""#).await, 1);
    let filled =
        r#""StreamArchive" WHERE entry_hash = 'h' || id AND parent_hash = 'p' || id AND "eventIndex" = ledger % 3"#;
    assert_eq!(database.count(filled).await, 25_000);
    assert_eq!(database.count(r#""StreamArchive""#).await, 40_000);
}

#[tokio::test]
async fn adoption_does_not_depend_on_the_time_zone() {
    let database = served_by_the_former_service().await;
    let name: String = database.value("SELECT current_database()").await;
    database.execute(&format!("ALTER DATABASE {name} SET TimeZone = 'Pacific/Kiritimati'")).await;
    let pool = snapshot_service::database::connect_pool(&database.url.parse().unwrap(), "zoned", 1).await.unwrap();
    migrate(&pool).await.unwrap();
    assert_all_adopted(&database).await;
    assert_eq!(database.count(r#""StreamArchive_2025_06""#).await, 1);
    assert_eq!(database.count(r#""StreamArchive_2025_07""#).await, 2);
}

#[tokio::test]
async fn an_adopted_streams_history_is_found_by_either_id_after_the_stream_is_gone() {
    let database = served_by_the_former_service().await;
    migrate(&database.pool).await.unwrap();
    // Gone before any snapshot of ours knew both of its ids.
    database.execute(r#"DELETE FROM "Stream""#).await;
    let service = database.service();
    for id in ["s1", "42"] {
        let snapshots = service.get_stream_snapshots(&stream(id), &PageRequest::first()).await.unwrap();
        assert_eq!(snapshots.items.len(), 2, "{id}");
        assert_eq!(read_archive(&service, id, &ArchiveFilter::default(), 10).await.len(), 3, "{id}");
    }
}

#[tokio::test]
async fn a_former_archive_with_a_column_that_has_no_place_stops_the_migration_and_loses_nothing() {
    let database = served_by_the_former_service().await;
    database.execute(r#"ALTER TABLE "StreamArchive" ADD note TEXT DEFAULT 'kept'"#).await;
    let error = migrate(&database.pool).await.unwrap_err();
    assert_eq!(error.code(), "internal_error");
    assert_eq!(database.count(r#""StreamArchive" WHERE note = 'kept'"#).await, 3);
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT"#).await;
    migrate(&database.pool).await.unwrap();
    assert_eq!(database.count(r#""StreamArchive" WHERE note = 'kept'"#).await, 3);
}
