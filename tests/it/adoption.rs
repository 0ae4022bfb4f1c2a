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

/// Checks that all is copied, and that the former tables are as they were.
async fn assert_all_adopted(database: &TestDatabase) {
    let kept = r#"snapshots_before b JOIN snapshot_service."StreamSnapshot" t USING (id)
                  WHERE to_jsonb(t) - '{state,eventIds}'::text[] = b.row AND t.state IS NULL AND t."eventIds" IS NULL"#;
    assert_eq!(database.count(kept).await, 2);
    let kept = r#"archive_before b JOIN snapshot_service."StreamArchive" a USING (id)
                  WHERE to_jsonb(a) - '{eventIndex,parent_hash,entry_hash}'::text[] = b.row"#;
    assert_eq!(database.count(kept).await, 3);
    assert_former_tables_untouched(database).await;
    database.assert_seals_agree().await;
}

async fn assert_former_tables_untouched(database: &TestDatabase) {
    let kept = r#"snapshots_before b JOIN public."StreamSnapshot" t USING (id) WHERE to_jsonb(t) = b.row"#;
    assert_eq!(database.count(kept).await, 2);
    let kept = r#"archive_before b JOIN public."StreamArchive" a USING (id) WHERE to_jsonb(a) = b.row"#;
    assert_eq!(database.count(kept).await, 3);
}

#[tokio::test]
async fn tables_of_the_former_service_are_copied_with_every_row_and_stay_as_they_are() {
    let database = served_by_the_former_service().await;
    let report = migrate(&database.pool).await.unwrap();
    assert_all_adopted(&database).await;
    let copied: Vec<_> =
        report.former_tables.iter().map(|table| (table.rows, table.copied, table.may_be_dropped)).collect();
    assert_eq!(copied, [(2, 2, true), (3, 3, true)]);
    let report = migrate(&database.pool).await.unwrap();
    assert!(report.former_tables.iter().all(|table| table.copied == 0 && table.may_be_dropped), "{report:?}");
    assert_eq!(report.findings, []);
    assert_all_adopted(&database).await;

    database.execute(r#"DROP TABLE public."StreamSnapshot", public."StreamArchive""#).await;
    assert_eq!(migrate(&database.pool).await.unwrap().former_tables, []);
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
async fn what_the_former_service_left_with_impossible_times_is_left_out_by_name_and_is_in_no_ones_way() {
    let database = served_by_the_former_service().await;
    database
        .execute(
            r#"INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'odd' || number, 'create', '42', 'tx-odd' || number, 1, 'x', time
               FROM unnest('{-infinity,infinity,0044-03-15 BC,10000-01-01}'::timestamp[]) WITH ORDINALITY t (time, number);
               INSERT INTO "StreamSnapshot" (id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount", status, "snapshotMonth", "createdAt")
               VALUES ('odd', 's1', 'a', 'b', 'c', 1, 2, 'PAUSED', '2026-01', 'infinity'), ('odd2', 's1', 'a', 'b', 'c', 1, 2, 'PAUSED', 'May', now())"#,
        )
        .await;
    let report = migrate(&database.pool).await.unwrap();
    let left_out: Vec<_> =
        report.former_tables.iter().map(|table| (table.left_out.clone(), table.may_be_dropped)).collect();
    let odd = ["odd1", "odd2", "odd3", "odd4"].map(String::from).to_vec();
    assert_eq!(left_out, [(vec!["odd".into(), "odd2".into()], false), (odd, false)]);
    let findings: Vec<_> = report.findings.iter().map(|found| (found.code.as_str(), found.object.as_str())).collect();
    let named = [r#"public."StreamSnapshot""#, r#"public."StreamArchive""#].map(|table| ("time_out_of_range", table));
    assert_eq!(findings, named);
    assert_eq!(database.count(r#"snapshot_service."StreamArchive""#).await, 3);
    let service = database.service();
    let page = service.get_stream_snapshots(&stream("42"), &PageRequest::first()).await.unwrap();
    assert_eq!(page.items.len(), 2);
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.complete);
    assert_eq!(run.findings, []);
}

#[tokio::test]
async fn originals_that_the_former_service_has_copied_are_archived_whole_and_held_where_the_copy_differs() {
    let database = served_by_the_former_service().await;
    // The former service crashed before it deleted these: one as it was, one changed since, one with another time.
    database.insert_event("a2", "42", "2025-07-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "eventIndex" = 4, entry_hash = 'h'"#).await;
    database.insert_event("a3", "42", "2025-07-15 12:00:00").await;
    database.insert_event("a1", "42", "2025-08-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "eventType" = 'create' WHERE id = 'a1'"#).await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    let report = migrate(&database.pool).await.unwrap();
    assert_eq!(report.logs_sealed, 0, "all of them are in EventLog");
    let archive = &report.former_tables[1];
    assert_eq!((archive.differing.as_slice(), archive.may_be_dropped), (["a1".into(), "a3".into()].as_slice(), false));

    let service = database.service();
    let dry = service.dry_run(false, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((dry.logs_due, dry.held_back.len()), (1, 1));
    let report = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_archived, report.already_archived, report.conflicts), (1, 0, 2));
    assert_eq!(report.conflict_ids, ["a3", "a1"]);
    let whole = r#"snapshot_service."StreamArchive" WHERE id = 'a2' AND "eventIndex" = 4 AND entry_hash = 'h'"#;
    assert_eq!(database.count(whole).await, 1);
    assert_eq!(database.count(r#""EventLog" WHERE id IN ('a1', 'a3', 'newest')"#).await, 3);
    assert_eq!(database.count(r#"snapshot_service."StreamArchive""#).await, 1);
    let archive = migrate(&database.pool).await.unwrap().former_tables.remove(1);
    assert_eq!((archive.copied, archive.differing), (0, vec!["a1".into(), "a3".into()]), "those are held");
    assert_former_tables_untouched(&database).await;
    database.assert_seals_agree().await;
}

#[tokio::test]
async fn many_originals_and_copies_are_settled_within_the_default_time_limits() {
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
    assert_eq!(migrate(&database.pool).await.unwrap().logs_sealed, 15_000);
    let report = database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_archived, report.already_archived, report.conflicts), (25_000, 0, 0));
    assert_eq!(database.count(r#""EventLog""#).await, 1);
    let whole = r#"snapshot_service."StreamArchive" WHERE entry_hash = 'h' || id AND parent_hash = 'p' || id AND "eventIndex" = ledger % 3"#;
    assert_eq!(database.count(whole).await, 25_000);
    assert_eq!(database.count(r#"snapshot_service."StreamArchive""#).await, 40_000);
    assert!(migrate(&database.pool).await.unwrap().former_tables.iter().all(|table| table.may_be_dropped));
    database.assert_seals_agree().await;
}

#[tokio::test]
async fn a_former_table_that_grows_is_told_by_the_run_and_copied_by_the_next_migrate() {
    let database = served_by_the_former_service().await;
    migrate(&database.pool).await.unwrap();
    // Into months that are sealed, one that is not, and one that this service archives meanwhile.
    database.insert_event("hot", "42", "2025-07-20 00:00:00").await;
    let more = |id: &str, time: &str| {
        format!(
            r#"INSERT INTO public."StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt", "archivedAt")
               VALUES ('{id}', 'create', '42', 'tx-{id}', 1, 'x', '{time}', '2025-12-02')"#
        )
    };
    let snapshot = r#"INSERT INTO public."StreamSnapshot" (id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount", status, "snapshotMonth")
                      VALUES ('snap3', 's1', 'a', 'b', 'c', 1, 2, 'PAUSED', '2026-01')"#;
    for sql in [more("late1", "2025-06-30"), more("late2", "2025-07-02"), more("late3", "2025-09-01"), snapshot.into()]
    {
        database.execute(&sql).await;
    }
    let service = database.service();
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.complete, run.logs_archived), (true, 1));
    let told: Vec<_> = run.findings.iter().map(|found| (found.code.as_str(), found.object.as_str())).collect();
    let tables = [r#"public."StreamSnapshot""#, r#"public."StreamArchive""#].map(|table| ("former_table_grew", table));
    assert_eq!(told, tables, "{run:?}");
    let report = migrate(&database.pool).await.unwrap();
    let copied: Vec<_> = report.former_tables.iter().map(|table| (table.copied, table.may_be_dropped)).collect();
    assert_eq!(copied, [(1, true), (3, true)], "{report:?}");
    let logs = read_archive(&service, "42", &ArchiveFilter::default(), 10).await;
    let ids: Vec<_> = logs.iter().map(|log| log.id.as_str()).collect();
    assert_eq!(ids, ["late3", "hot", "a3", "late2", "a2", "a1", "late1"]);
    database.assert_seals_agree().await;
}

#[tokio::test]
async fn a_rollback_leaves_to_the_former_archive_what_it_still_has() {
    for is_there in [true, false] {
        let database = served_by_the_former_service().await;
        database.insert_event("mine", "42", "2025-07-20 00:00:00").await;
        migrate(&database.pool).await.unwrap();
        let service = database.service();
        service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err();
        service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
        if !is_there {
            database.execute(r#"DROP TABLE public."StreamArchive""#).await;
        }
        let run = service.restore_all(Trigger::Cli, true, time(NOW), &Deadline::never()).await.unwrap();
        database.assert_seals_agree().await;
        service.drop_all(run.id, service_snapshots(&database).await).await.unwrap();
        let hot = if is_there { 1 } else { 4 };
        assert_eq!(database.count(r#""EventLog""#).await, hot);
        assert_eq!(database.count("pg_namespace WHERE nspname = 'snapshot_service'").await, 0);
        if is_there {
            assert_former_tables_untouched(&database).await;
        }
    }
}

async fn service_snapshots(database: &TestDatabase) -> u64 {
    database.count(r#"snapshot_service."StreamSnapshot""#).await.unsigned_abs()
}

#[tokio::test]
async fn two_that_migrate_at_once_copy_each_row_once() {
    let database = served_by_the_former_service().await;
    let (one, two) = futures_util::join!(migrate(&database.pool), migrate(&database.pool));
    let copied: u64 = [one.unwrap(), two.unwrap()].iter().map(|report| report.logs_sealed).sum();
    assert_eq!(copied, 3);
    assert_all_adopted(&database).await;
}

#[tokio::test]
async fn adoption_does_not_depend_on_the_time_zone() {
    let database = served_by_the_former_service().await;
    let name: String = database.value("SELECT current_database()").await;
    database.execute(&format!("ALTER DATABASE {name} SET TimeZone = 'Pacific/Kiritimati'")).await;
    let pool = snapshot_service::database::connect_pool(&database.url.parse().unwrap(), "zoned", 1).await.unwrap();
    migrate(&pool).await.unwrap();
    assert_all_adopted(&database).await;
    assert_eq!(database.count(r#"snapshot_service."StreamArchive_2025_06""#).await, 1);
    assert_eq!(database.count(r#"snapshot_service."StreamArchive_2025_07""#).await, 2);
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
    assert_eq!(error.code(), "archive_columns_differ");
    assert!(error.to_string().contains("note is a column of public.\"StreamArchive\""), "{error}");
    assert_eq!(database.count(r#"public."StreamArchive" WHERE note = 'kept'"#).await, 3);
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT"#).await;
    migrate(&database.pool).await.unwrap();
    assert_eq!(database.count(r#"snapshot_service."StreamArchive" WHERE note = 'kept'"#).await, 3);
}
