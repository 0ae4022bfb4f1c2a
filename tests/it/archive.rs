use std::time::Duration;

use snapshot_service::{Deadline, Error, HeldBackReason, MaintenanceRun, Settings, SnapshotService, Trigger};

use crate::support::{TestDatabase, time};

const NOW: &str = "2026-05-31T02:00:00Z";

async fn archive(database: &TestDatabase) -> MaintenanceRun {
    database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap()
}

#[tokio::test]
async fn logs_older_than_three_calendar_months_are_archived_and_no_others() {
    let database = TestDatabase::migrated().await;
    // 31 May less three months is 28 February, at the same time of day.
    for (id, created_at) in [
        ("ancient", "2001-02-03 04:05:06"),
        ("before", "2026-02-28 01:59:59.999"),
        ("at", "2026-02-28 02:00:00"),
        ("after", "2026-02-28 02:00:00.001"),
        ("march", "2026-03-03 00:00:00"),
    ] {
        database.insert_event(id, "42", created_at).await;
    }
    database.remember_events().await;
    let report = archive(&database).await;
    assert_eq!(report.cutoff, time("2026-02-28T02:00:00Z"));
    assert_eq!((report.logs_archived, report.complete, report.held_back.len()), (2, true, 0));
    let archived: Vec<String> = database.value(r#"SELECT array_agg(id ORDER BY id) FROM "StreamArchive""#).await;
    assert_eq!(archived, ["ancient", "before"]);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn an_archived_log_keeps_every_column_and_gains_the_time_it_was_archived() {
    let database = TestDatabase::migrated().await;
    database.insert_event("e1", "42", "2026-01-15 10:20:30.123").await;
    database
        .execute(r#"UPDATE "EventLog" SET "eventIndex" = 3, parent_hash = 'p', entry_hash = 'h', receiver = 'r'"#)
        .await;
    database.insert_event("newest", "42", "2026-05-01 00:00:00").await;
    let before: String = database.value(r#"SELECT row_to_json(e)::text FROM "EventLog" e WHERE id = 'e1'"#).await;
    archive(&database).await;
    let columns = r#"id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", sender, receiver,
                     amount, metadata, parent_hash, entry_hash, "createdAt""#;
    let after = format!(r#"SELECT row_to_json(a)::text FROM (SELECT {columns} FROM "StreamArchive") a"#);
    assert_eq!(database.value::<String>(&after).await, before);
    assert_eq!(database.count(r#""StreamArchive" WHERE "archivedAt" = '2026-05-31 02:00:00'"#).await, 1);
}

#[tokio::test]
async fn each_month_gets_a_partition_with_its_own_key_and_indexes() {
    let database = TestDatabase::migrated().await;
    for (id, created_at) in [
        ("first", "2025-12-01 00:00:00"),
        ("last", "2025-12-31 23:59:59.999"),
        ("next", "2026-01-01 00:00:00"),
        ("leap", "2024-02-29 23:59:59.999"),
    ] {
        database.insert_event(id, "42", created_at).await;
    }
    archive(&database).await;
    let partitions: Vec<String> = database
        .value(
            "SELECT array_agg(c.relname::text ORDER BY c.relname) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
                WHERE inhparent = '\"StreamArchive\"'::regclass",
        )
        .await;
    assert_eq!(partitions, ["StreamArchive_2024_02", "StreamArchive_2025_12", "StreamArchive_2026_01"]);
    assert_eq!(database.count(r#""StreamArchive_2025_12""#).await, 2);
    let indexes: Vec<String> = database
        .value(
            "SELECT array_agg(regexp_replace(indexdef, '^.* USING ', '') ORDER BY indexdef) FROM pg_indexes
                WHERE tablename = 'StreamArchive_2025_12'",
        )
        .await;
    assert_eq!(
        indexes,
        [
            r#"brin ("archivedAt") WITH (pages_per_range='32')"#,
            r#"btree ("streamId", "createdAt" DESC)"#,
            r#"btree ("txHash", "eventIndex")"#,
            r#"btree (id, "createdAt")"#
        ]
    );
    assert_eq!(database.count("pg_indexes WHERE tablename = 'StreamArchive'").await, 0, "none belongs to the parent");
}

#[tokio::test]
async fn archiving_in_small_batches_moves_ties_and_month_edges_once_each() {
    let database = TestDatabase::migrated().await;
    database.insert_events(500, "2025-12-31 20:00:00").await;
    database
        .execute(r#"UPDATE "EventLog" SET "createdAt" = '2026-01-01 00:00:00' WHERE ledger BETWEEN 200 AND 260"#)
        .await;
    database.remember_events().await;
    let service = database.service_with_batches_of(7);
    let report = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(report.logs_archived, 500);
    database.assert_nothing_lost_or_doubled().await;
    assert_eq!(archive(&database).await.logs_archived, 0, "running again finds nothing to do");
}

#[tokio::test]
async fn a_deadline_stops_between_batches_and_running_again_continues() {
    let database = TestDatabase::migrated().await;
    database.insert_events(10, "2026-01-31 23:55:00").await;
    database.remember_events().await;
    let service = database.service_with(Settings { batch_rows: 4, workers: 1, ..Settings::default() });
    let mut moved = Vec::new();
    loop {
        let report = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::after(Duration::ZERO)).await.unwrap();
        moved.push(report.logs_archived);
        database.assert_nothing_lost_or_doubled().await;
        if report.complete {
            break;
        }
    }
    assert_eq!(moved, [4, 4, 8, 8, 10, 10], "each call is good for one batch or one partition's indexes");
}

#[tokio::test]
async fn maintenance_reports_its_two_parts_as_one_and_the_deadline_covers_both() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_stream("s2", Some("43"), "x").await;
    database.insert_events(3, "2026-01-10 00:00:00").await;
    let service = database.service();
    let mut parts = Vec::new();
    let last = loop {
        let deadline = Deadline::after(Duration::ZERO);
        let run = service.run_maintenance(Trigger::Api.request(), time(NOW), &deadline).await.unwrap();
        parts.push((run.snapshots_created, run.logs_archived, run.complete));
        if run.complete {
            break run;
        }
    };
    assert_eq!(
        parts,
        [(2, 0, false), (2, 3, false), (2, 3, false), (2, 3, true)],
        "snapshots, a batch, indexes, the end"
    );

    let mut json = serde_json::to_value(&last).unwrap();
    for volatile in ["id", "updatedAt", "finishedAt", "rowsPerSecond", "rowsEstimated", "streamsEstimated"] {
        assert!(json.as_object_mut().unwrap().remove(volatile).is_some_and(|value| !value.is_null()), "{volatile}");
    }
    assert_eq!(
        json,
        serde_json::json!({
            "trigger": "api", "scope": "maintenance", "period": null, "target": null, "refresh": false, "force": false,
            "phase": "done", "status": "succeeded", "complete": true, "percent": 100.0,
            "snapshotMonth": "2026-05", "streams": 2, "snapshotsCreated": 2, "snapshotsExisting": 0, "unparsedAmounts": 1,
            "cutoff": "2026-02-28T02:00:00.000Z", "logsArchived": 3, "alreadyArchived": 0, "duplicatesDropped": 0,
            "hashMismatches": 0, "completedByHost": 0, "linksMissing": 0, "logsRestored": 0, "conflicts": 0,
            "conflictIds": [], "conflictDetails": [], "heldBack": [], "findings": [], "currentMonth": "2026-01",
            "remainingSeconds": null,
            "waitingFor": null, "stopReason": null, "error": null, "attempts": 4,
            "startedAt": "2026-05-31T02:00:00.000Z",
        })
    );
}

#[tokio::test]
async fn insert_and_delete_are_one_transaction() {
    let database = TestDatabase::migrated().await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    database.remember_events().await;
    database
        .service_with_batches_of(10)
        .archive_old_logs(Trigger::Api, time(NOW), &Deadline::after(Duration::ZERO))
        .await
        .unwrap();
    database
        .execute(
            r#"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   IF NEW.id = 'e000025' THEN RAISE 'disk full' USING ERRCODE = 'disk_full'; END IF; RETURN NEW;
               END $$;
               CREATE TRIGGER refuse BEFORE INSERT ON "StreamArchive_2026_01" FOR EACH ROW EXECUTE FUNCTION refuse()"#,
        )
        .await;
    let service = database.service_with_batches_of(10);
    let error = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "database_unavailable", "{error:?}");
    assert_eq!(database.count(r#""StreamArchive""#).await, 20, "the batches before are kept, the failing one is not");
    database.assert_nothing_lost_or_doubled().await;

    database.execute(r#"DROP TRIGGER refuse ON "StreamArchive_2026_01""#).await;
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, run.attempts, run.complete), (30, 3, true), "the run goes on where it failed");
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_row_inserted_while_archiving_is_not_lost() {
    let database = TestDatabase::migrated().await;
    database.insert_events(3_000, "2026-01-01 00:00:00").await;
    database.remember_events().await;
    let events = database.all_events_sql().await;
    let writer = async {
        for index in 0..150 {
            let created_at = format!("2026-01-{:02} 00:00:30", 1 + index % 3);
            database.insert_event(&format!("late-{index}"), "42", &created_at).await;
            database
                .execute(&format!("INSERT INTO remembered SELECT * FROM ({events}) e WHERE id = 'late-{index}'"))
                .await;
        }
    };
    let service = database.service_with_batches_of(50);
    let deadline = Deadline::never();
    let (report, ()) = tokio::join!(service.archive_old_logs(Trigger::Api, time(NOW), &deadline), writer);
    let report = report.unwrap();
    database.assert_nothing_lost_or_doubled().await;
    let rest = archive(&database).await;
    assert_eq!(report.logs_archived + rest.logs_archived, 3_150);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_row_updated_while_archiving_is_archived_as_updated() {
    let database = TestDatabase::migrated().await;
    database.insert_events(200, "2026-01-01 00:00:00").await;
    let mut connection = database.client().await;
    let update = connection.transaction().await.unwrap();
    update.batch_execute(r#"UPDATE "EventLog" SET metadata = 'updated' WHERE id = 'e000100'"#).await.unwrap();

    let report = archive(&database).await;
    assert_eq!(report.logs_archived, 199);
    assert_eq!(report.held_back.len(), 1);
    assert_eq!((report.held_back[0].reason, report.held_back[0].rows), (HeldBackReason::InUse, 1));
    assert!(report.complete, "a row that is in use is the next run's, not waited for");

    update.commit().await.unwrap();
    assert_eq!(archive(&database).await.logs_archived, 1);
    assert_eq!(database.count(r#""StreamArchive" WHERE id = 'e000100' AND metadata = 'updated'"#).await, 1);
    assert_eq!(database.count(r#""EventLog""#).await, 0);
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_loses_nothing() {
    let database = TestDatabase::migrated().await;
    database.insert_events(3_000, "2026-01-01 00:00:00").await;
    database.remember_events().await;
    let deadline = Deadline::never();
    let mut failures = 0;
    for _ in 0..5 {
        // A lease that the next one can take at once.
        let settings = Settings { batch_rows: 20, lease: Duration::from_millis(1), ..Settings::default() };
        let service = database.service_with(settings);
        let cut = async {
            // In mid-run: after its first batch.
            let before = database.count(r#""StreamArchive""#).await;
            while database.count(r#""StreamArchive""#).await == before && before < 3_000 {
                tokio::task::yield_now().await;
            }
            database
                .execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                          WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                .await;
        };
        let (result, ()) = tokio::join!(service.archive_old_logs(Trigger::Api, time(NOW), &deadline), cut);
        if let Err(error) = result {
            assert_eq!(error.code(), "database_unavailable", "{error:?}");
            failures += 1;
        }
        database.assert_nothing_lost_or_doubled().await;
    }
    assert!(failures > 0, "no connection was cut while it was used");
    archive(&database).await;
    assert_eq!(database.count(r#""StreamArchive""#).await, 3_000);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_row_that_is_archived_already_with_less_is_dropped_and_kept_on_record() {
    let database = TestDatabase::migrated().await;
    database.insert_event("e1", "42", "2026-01-15 10:00:00").await;
    database.insert_event("e2", "42", "2026-01-16 10:00:00").await;
    archive(&database).await;
    // As the former service archived: the columns that it knew. Then the host ingests the event again.
    database.execute(r#"UPDATE "StreamArchive" SET "eventIndex" = NULL, parent_hash = NULL, entry_hash = NULL"#).await;
    database.insert_event("e1", "42", "2026-01-15 10:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "eventIndex" = 5, parent_hash = 'parent', entry_hash = 'entry'"#).await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;

    let report = archive(&database).await;
    assert_eq!((report.logs_archived, report.already_archived, report.conflicts), (0, 1, 0));
    assert_eq!(database.count(r#""EventLog" WHERE id = 'e1'"#).await, 0);
    let on_record = r#""MaintenanceFinding" WHERE kind = 'duplicate_dropped' AND "logId" = 'e1' AND "entryHash" = 'entry'
                       AND detail #>> '{row,eventIndex}' = '5' AND detail #>> '{row,parent_hash}' = 'parent'"#;
    assert_eq!(database.count(on_record).await, 1);
    assert_eq!(database.count(r#""StreamArchive""#).await, 2);
}

#[tokio::test]
async fn a_copy_that_differs_in_any_column_stays_and_is_reported() {
    let changes = [
        r#""eventType" = 'other'"#,
        r#""streamId" = 'other'"#,
        r#""txHash" = 'other'"#,
        r#""eventIndex" = 9"#,
        "ledger = 8",
        r#""ledgerClosedAt" = 'other'"#,
        "sender = NULL",
        "receiver = 'other'",
        "amount = 1",
        "metadata = NULL",
        "entry_hash = 'other'",
        r#""createdAt" = '2026-01-15 10:00:00.001'"#,
    ];
    let database = TestDatabase::migrated().await;
    for index in 0..changes.len() {
        database.insert_event(&format!("e{index:02}"), "42", "2026-01-15 10:00:00").await;
    }
    database.execute(r#"UPDATE "EventLog" SET "eventIndex" = 1, entry_hash = id"#).await;
    database.execute(r#"CREATE TABLE copies AS SELECT * FROM "EventLog""#).await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    archive(&database).await;
    database.execute(r#"INSERT INTO "EventLog" SELECT * FROM copies"#).await;
    for (index, change) in changes.iter().enumerate() {
        database.execute(&format!(r#"UPDATE "EventLog" SET {change} WHERE id = 'e{index:02}'"#)).await;
    }
    database.insert_event("other", "42", "2026-01-15 12:00:00").await;
    let before: String =
        database.value(r#"SELECT jsonb_agg(e ORDER BY id)::text FROM "EventLog" e WHERE id LIKE 'e%'"#).await;

    for batch_rows in [1, 5, 20_000] {
        let service = database.service_with_batches_of(batch_rows);
        let report = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
        assert_eq!(report.conflicts, 12, "in batches of {batch_rows}");
        assert_eq!((report.conflict_ids.len(), report.already_archived, report.held_back.len()), (12, 0, 1));
        let held = &report.held_back[0];
        assert_eq!((held.reason, held.rows, held.ids.len()), (HeldBackReason::Conflict, 12, 12));
        assert!(report.complete);
        let after: String =
            database.value(r#"SELECT jsonb_agg(e ORDER BY id)::text FROM "EventLog" e WHERE id LIKE 'e%'"#).await;
        assert_eq!(after, before);
    }
    assert_eq!(database.count(r#""StreamArchive" WHERE id = 'other'"#).await, 1, "conflicts hold up nobody else");
}

#[tokio::test]
async fn a_run_killed_between_copying_and_deleting_by_the_former_service_does_not_fail_later_runs() {
    let database = TestDatabase::migrated().await;
    database.insert_events(2_000, "2026-01-01 00:00:00").await;
    database.remember_events().await;
    database.execute(r#"CREATE TABLE copies AS SELECT * FROM "EventLog" WHERE ledger <= 1200"#).await;
    archive(&database).await;
    database.execute(r#"INSERT INTO "EventLog" SELECT * FROM copies"#).await;
    let service = database.service_with_batches_of(500);
    let report = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_archived, report.already_archived, report.conflicts), (0, 1_200, 0));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn the_newest_row_of_a_hash_chain_is_never_archived() {
    let database = TestDatabase::migrated().await;
    database.insert_events(10, "2026-01-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET entry_hash = 'h' || ledger, parent_hash = 'h' || ledger - 1"#).await;
    for batch_rows in [3, 20_000] {
        let service = database.service_with_batches_of(batch_rows);
        let report = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
        assert!(report.complete);
        assert_eq!(report.held_back.len(), 1, "{report:?}");
        assert_eq!(report.held_back[0].reason, HeldBackReason::ChainHead);
        assert_eq!(report.held_back[0].ids, ["e000010"]);
    }
    assert_eq!(database.count(r#""EventLog" WHERE id = 'e000010'"#).await, 1);
    assert_eq!(database.count(r#""StreamArchive""#).await, 9);

    // The next event takes its hash as parent; then the former head may go.
    database.insert_event("next", "42", "2026-05-30 00:00:00").await;
    let report = archive(&database).await;
    assert_eq!((report.logs_archived, report.held_back.len()), (1, 0));
}

#[tokio::test]
async fn a_row_that_becomes_the_chains_head_while_archiving_stays() {
    let database = TestDatabase::migrated().await;
    database.insert_events(1_000, "2026-01-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET entry_hash = 'h' || ledger, parent_hash = 'h' || ledger - 1"#).await;
    let writer = async {
        // Each newer than all, and due.
        for index in 1_001..1_100 {
            let id = format!("e{index:06}");
            database
                .execute(&format!(
                    r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", entry_hash, parent_hash, "createdAt")
                       SELECT '{id}', 'create', '42', '{id}', {index}, 'then', 'h{index}', head.entry_hash,
                              head."createdAt" + interval '1 minute'
                       FROM (SELECT entry_hash, "createdAt" FROM "EventLog" ORDER BY "createdAt" DESC LIMIT 1) head"#
                ))
                .await;
        }
    };
    let service = database.service_with_batches_of(10);
    let deadline = Deadline::never();
    let (report, ()) = tokio::join!(service.archive_old_logs(Trigger::Api, time(NOW), &deadline), writer);
    report.unwrap();
    archive(&database).await;
    let log: Vec<String> = database.value(r#"SELECT array_agg(id) FROM "EventLog""#).await;
    assert_eq!(log, ["e001099"]);
    let linked = r#""StreamArchive" WHERE parent_hash = 'h' || ledger - 1"#;
    assert_eq!(database.count(linked).await, 1_098, "no event took another parent than the one before it");
}

#[tokio::test]
async fn a_table_locked_by_somebody_else_is_not_waited_for_without_end() {
    let database = TestDatabase::migrated().await;
    database.insert_events(5, "2026-01-01 00:00:00").await;
    let mut connection = database.client().await;
    let lock = connection.transaction().await.unwrap();
    lock.batch_execute(r#"LOCK TABLE "EventLog" IN SHARE MODE"#).await.unwrap();
    let settings = Settings { batch_rows: 8, lock_timeout: Duration::from_millis(50), ..Settings::default() };
    let service = SnapshotService::new(database.pool.clone(), settings);
    let error = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "database_busy", "{error:?}");
    lock.rollback().await.unwrap();
    assert_eq!(archive(&database).await.logs_archived, 5);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_and_leaves_nothing_half_done() {
    let database = TestDatabase::migrated().await;
    database.insert_events(5, "2026-01-01 00:00:00").await;
    database.remember_events().await;
    database
        .execute(
            r#"CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN OLD; END $$;
               CREATE TRIGGER dawdle BEFORE DELETE ON "EventLog" FOR EACH ROW WHEN (OLD.id = 'e000003') EXECUTE FUNCTION dawdle()"#,
        )
        .await;
    let settings = Settings { batch_rows: 8, statement_timeout: Duration::from_millis(200), ..Settings::default() };
    let service = SnapshotService::new(database.pool.clone(), settings);
    let error = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "database_busy", "{error:?}");
    assert_eq!(database.count(r#""EventLog""#).await, 3, "smaller batches get as far as the row that is the matter");
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn under_ties_the_chains_head_is_the_row_that_no_other_has_as_parent() {
    let database = TestDatabase::migrated().await;
    database.insert_events(4, "2026-01-01 00:00:00").await;
    // Logged within one millisecond, and not in the order of their ids.
    database
        .execute(
            r#"UPDATE "EventLog" SET "createdAt" = '2026-01-05 00:00:00';
               UPDATE "EventLog" SET entry_hash = 'h2', parent_hash = 'h1' WHERE id = 'e000004';
               UPDATE "EventLog" SET entry_hash = 'h3', parent_hash = 'h2' WHERE id = 'e000002';
               UPDATE "EventLog" SET entry_hash = 'h1' WHERE id = 'e000003'"#,
        )
        .await;
    let report = archive(&database).await;
    assert_eq!(report.logs_archived, 3);
    assert_eq!(report.held_back[0].ids, ["e000002"]);
}

#[tokio::test]
async fn a_log_without_hashes_needs_no_head() {
    let database = TestDatabase::migrated().await;
    database.insert_events(10, "2026-01-01 00:00:00").await;
    let report = archive(&database).await;
    assert_eq!((report.logs_archived, report.held_back.len()), (10, 0));
}

#[tokio::test]
async fn while_older_rows_have_hashes_a_newest_row_without_one_stays_too() {
    let database = TestDatabase::migrated().await;
    database.insert_events(10, "2026-01-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET entry_hash = 'h' WHERE id = 'e000001'"#).await;
    let service = database.service_with_batches_of(2);
    let report = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(report.logs_archived, 9);
    assert_eq!(report.held_back[0].ids, ["e000010"]);
}

#[tokio::test]
async fn a_column_that_the_archive_lacks_stops_maintenance_before_the_first_row_moves() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(5, "2026-01-01 00:00:00").await;
    database
        .execute(r#"ALTER TABLE "EventLog" ADD "networkId" TEXT DEFAULT 'testnet', ALTER ledger TYPE BIGINT"#)
        .await;
    let service = database.service();
    for error in [
        service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap_err(),
        service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::ArchiveColumnsDiffer { .. }), "{error:?}");
        let message = error.to_string();
        for named in ["\"networkId\" is missing", "ledger is integer instead of bigint", "snapshots migrate"] {
            assert!(message.contains(named), "{message}");
        }
    }
    assert_eq!(database.count(r#""StreamArchive""#).await, 0);
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 1, "the month's snapshots are not given up for it");
    assert_eq!(database.count(r#""EventLog""#).await, 5);

    let report = snapshot_service::database::migrate(&database.pool).await.unwrap();
    assert_eq!(report.archive_columns_changed.len(), 2);
    assert_eq!(archive(&database).await.logs_archived, 5);
    assert_eq!(database.count(r#""StreamArchive" WHERE "networkId" = 'testnet'"#).await, 5);
}

#[tokio::test]
async fn a_run_with_nothing_due_is_complete_and_still_names_a_column_that_the_archive_lacks() {
    let database = TestDatabase::migrated().await;
    database.insert_events(5, "2026-05-30 00:00:00").await;
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, run.rows_estimated, run.complete), (0, Some(0), true));
    assert_eq!(run.held_back, []);
    database.execute(r#"ALTER TABLE "EventLog" ADD "networkId" TEXT"#).await;
    let error = database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err();
    assert!(matches!(error, Error::ArchiveColumnsDiffer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_column_added_between_two_batches_is_not_dropped_in_silence() {
    let database = TestDatabase::migrated().await;
    database.insert_events(4_000, "2026-01-01 00:00:00").await;
    let alter = async {
        // After the first batch has been committed.
        while database.count(r#""StreamArchive""#).await == 0 {
            tokio::task::yield_now().await;
        }
        database.execute(r#"ALTER TABLE "EventLog" ADD extra TEXT DEFAULT 'kept'"#).await;
    };
    let service = database.service_with_batches_of(10);
    let deadline = Deadline::never();
    let (result, ()) = tokio::join!(service.archive_old_logs(Trigger::Api, time(NOW), &deadline), alter);
    assert!(matches!(result.unwrap_err(), Error::ArchiveColumnsDiffer { .. }));
    let archived = database.count(r#""StreamArchive""#).await;
    assert_eq!(database.count(r#""EventLog" WHERE extra = 'kept'"#).await, 4_000 - archived);
}

#[tokio::test]
async fn the_time_zones_of_session_and_server_change_nothing() {
    let mut results = Vec::new();
    for zone in ["UTC", "Pacific/Kiritimati", "America/St_Johns"] {
        let database = TestDatabase::migrated().await;
        let name: String = database.value("SELECT current_database()").await;
        database
            .execute(&format!(
                "ALTER DATABASE {name} SET TimeZone = '{zone}'; ALTER DATABASE {name} SET DateStyle = 'SQL, DMY'"
            ))
            .await;
        let pool = snapshot_service::database::connect_pool(&database.url.parse().unwrap(), "zoned", 2).await.unwrap();
        let service = snapshot_service::SnapshotService::new(pool, snapshot_service::Settings::default());
        database.insert_stream("s1", Some("42"), "1").await;
        database
            .execute(
                r#"ALTER TABLE "Stream" ADD "seenAt" TIMESTAMPTZ; UPDATE "Stream" SET "seenAt" = '2026-01-01T00:00:00Z',
                   "createdAt" = '2026-01-01 00:00:00'"#,
            )
            .await;
        for (id, created_at) in
            [("before", "2026-02-28 01:59:59.999"), ("at", "2026-02-28 02:00:00"), ("edge", "2025-12-31 23:59:59.999")]
        {
            database.insert_event(id, "42", created_at).await;
        }
        let report = service
            .run_maintenance(Trigger::Api.request(), time("2026-05-31T02:00:00Z"), &Deadline::never())
            .await
            .unwrap();
        database.stop_the_clock().await;
        let snapshot = service.get_snapshot(&crate::support::stream("42"), "2026-05".parse().unwrap()).await.unwrap();
        let mut snapshot = snapshot.unwrap();
        snapshot.id.clear();
        let logs = crate::support::read_archive(&service, "s1", &snapshot_service::ArchiveFilter::default(), 1).await;
        assert_eq!(report.logs_archived, 2, "{zone}");
        let stored: String = database.value(r#"SELECT state::text || "createdAt" FROM "StreamSnapshot""#).await;
        let report = (report.snapshot_month, report.cutoff, report.started_at, report.snapshots_created);
        results.push(format!("{report:?} {}", serde_json::to_string(&(snapshot, logs, stored)).unwrap()));
        let partitions: i64 =
            database.count("pg_class WHERE relname IN ('StreamArchive_2025_12', 'StreamArchive_2026_02')").await;
        assert_eq!(partitions, 2, "{zone}");
    }
    assert!(results.iter().all(|result| *result == results[0]), "{results:#?}");
}
