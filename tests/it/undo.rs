//! Restoring, holding and rolling back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use snapshot_service::database::migrate;
use snapshot_service::{
    ArchiveFilter, Deadline, Error, HeldBackReason, MaintenanceRun, PageRequest, Phase, ReleaseRequest, RestoreRequest,
    RunStatus, Scope, Settings, SnapshotService, StopReason, Tier, Trigger,
};

use crate::support::{TestDatabase, is_of, stream, time};

const LEGACY_TABLES: &str = include_str!("fixtures/legacy-tables.sql");
const NOW: &str = "2026-05-31T02:00:00Z";

fn of_stream(id: &str) -> RestoreRequest {
    RestoreRequest::new(Some(stream(id)), None, None, None).unwrap()
}

fn between(from: Option<&str>, to: Option<&str>) -> RestoreRequest {
    RestoreRequest::new(None, from.map(time), to.map(time), None).unwrap()
}

fn everything() -> RestoreRequest {
    between(Some("2000-01-01T00:00:00Z"), None)
}

async fn archive(database: &TestDatabase) -> MaintenanceRun {
    let service = database.service_with_batches_of(40);
    service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap()
}

async fn restore(service: &SnapshotService, request: &RestoreRequest) -> MaintenanceRun {
    service.restore(Trigger::Cli, request, time(NOW), &Deadline::never()).await.unwrap()
}

/// `rows` events of the streams 41, 42 and 43 over six months, hashed and with a chain's head that stays.
async fn with_events(rows: u32) -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s2", Some("42"), "1").await;
    insert_events(&database, rows).await;
    database.remember_events().await;
    database
}

async fn insert_events(database: &TestDatabase, rows: u32) {
    database.insert_events(rows, "2025-07-01 00:00:00").await;
    database
        .execute(
            r#"UPDATE "EventLog" SET "streamId" = (41 + ledger % 3)::text, parent_hash = 'p' || ledger, entry_hash = 'h' || ledger,
                   "createdAt" = timestamp '2025-07-01' + ledger % 180 * interval '1 day' + ledger * interval '1 ms'"#,
        )
        .await;
    database.insert_event("newest", "41", "2026-05-30 00:00:00").await;
}

#[tokio::test]
async fn restored_logs_are_byte_for_byte_what_they_were_and_stay_until_they_are_released() {
    let database = with_events(600).await;
    let service = database.service_with_batches_of(30);
    assert_eq!(archive(&database).await.logs_archived, 600);
    let run = restore(&service, &everything()).await;
    assert_eq!((run.scope, run.status, run.phase), (Scope::Restore, RunStatus::Succeeded, Phase::Done));
    assert_eq!((run.logs_restored, run.rows_estimated, run.conflicts), (600, Some(600), 0));
    assert_eq!((database.count(r#""StreamArchive""#).await, database.count(r#""EventLog""#).await), (0, 601));
    database.assert_nothing_lost_or_doubled().await;
    assert_eq!(database.count(r#""ArchiveRemoval""#).await, 600);

    // Held back until they are released.
    let held = archive(&database).await;
    assert_eq!((held.logs_archived, held.held_back.len(), held.held_back[0].rows), (0, 1, 600));
    assert_eq!(held.held_back[0].reason, HeldBackReason::Restored);
    assert_eq!(service.count_restored_logs().await.unwrap(), 600);
    let of_42 = ReleaseRequest { stream: Some(stream("s2")), run: None };
    assert_eq!(service.release_restored_logs(&of_42).await.unwrap(), 200);
    let of_another = ReleaseRequest { stream: None, run: Some(held.id) };
    assert_eq!(service.release_restored_logs(&of_another).await.unwrap(), 0);
    assert_eq!(archive(&database).await.logs_archived, 200);
    let of_the_run = ReleaseRequest { stream: None, run: Some(run.id) };
    assert_eq!(service.release_restored_logs(&of_the_run).await.unwrap(), 400);
    assert_eq!(service.release_restored_logs(&ReleaseRequest::default()).await.unwrap(), 0);
    assert_eq!(archive(&database).await.logs_archived, 400);

    // And round again.
    database.assert_nothing_lost_or_doubled().await;
    assert_eq!(restore(&service, &everything()).await.logs_restored, 600);
    database.assert_nothing_lost_or_doubled().await;
    assert_eq!(database.count(r#""MaintenanceFinding" WHERE kind = 'hash_mismatch'"#).await, 1_200, "once each way in");
}

#[tokio::test]
async fn what_is_restored_is_what_matches_all_that_is_named() {
    let of_run = |run| RestoreRequest::new(None, None, None, Some(run)).unwrap();
    let requests = |first, second| {
        let (from, to) = (Some(time("2025-07-10T00:00:00Z")), Some(time("2025-08-20T00:00:00Z")));
        [
            (of_stream("s2"), r#""streamId" = '42'"#),
            (of_stream("42"), r#""streamId" = '42'"#),
            (of_stream("nobody"), "false"),
            (of_run(first), r#""createdAt" < '2025-08-15'"#),
            (of_run(second), r#""createdAt" >= '2025-08-15'"#),
            (
                between(Some("2025-08-01T00:00:00Z"), Some("2025-09-05T00:00:00.066Z")),
                r#""createdAt" >= '2025-08-01' AND "createdAt" < '2025-09-05 00:00:00.066'"#,
            ),
            (between(None, Some("2025-07-03T00:00:00Z")), r#""createdAt" < '2025-07-03'"#),
            (
                RestoreRequest::new(Some(stream("43")), from, to, Some(first)).unwrap(),
                r#""streamId" = '43' AND "createdAt" >= '2025-07-10' AND "createdAt" < '2025-08-15'"#,
            ),
        ]
    };
    for index in 0..8 {
        let database = with_events(360).await;
        let service = database.service_with_batches_of(25);
        let earlier = time("2025-11-15T00:00:00Z");
        let first = service.run_maintenance(Trigger::Cli.request(), earlier, &Deadline::never()).await.unwrap();
        let second = archive(&database).await;
        assert_eq!((first.logs_archived, second.logs_archived), (90, 270));
        let (request, condition) = &requests(first.id, second.id)[index];

        let wanted = database.count(&format!(r#""StreamArchive" WHERE {condition}"#)).await.unsigned_abs();
        let report = service.dry_run_restore(request, &Deadline::never()).await.unwrap();
        assert_eq!((report.logs_to_restore, report.on_hold, report.in_the_way), (wanted, 0, 0), "{condition}");
        assert_eq!(report.months.iter().map(|month| month.rows).sum::<u64>(), wanted);
        assert_eq!(database.count(r#""EventLog""#).await, 1, "a dry run writes nothing");
        let run = restore(&service, request).await;
        assert_eq!((run.logs_restored, run.complete), (wanted, true), "{condition}");
        assert_eq!(run.target, Some(report.target));
        assert_eq!(database.count(&format!(r#""EventLog" WHERE id <> 'newest' AND NOT ({condition})"#)).await, 0);
        database.assert_nothing_lost_or_doubled().await;
        database.assert_seals_agree().await;
    }
}

#[tokio::test]
async fn a_restore_names_something_and_a_run_that_there_was() {
    let error = RestoreRequest::new(None, None, None, None).unwrap_err();
    assert!(error.to_string().contains("must name a stream, a time or a run"), "{error}");
    let error = RestoreRequest::new(None, Some(time("2026-01-01T00:00:00.000001Z")), None, None).unwrap_err();
    assert!(error.to_string().starts_with("from must be in whole milliseconds"), "{error}");
    let database = TestDatabase::migrated().await;
    let unknown = RestoreRequest::new(None, None, None, Some(uuid::Uuid::nil())).unwrap();
    let error = database.service().restore(Trigger::Cli, &unknown, time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "not_found");
}

#[tokio::test]
async fn logs_of_the_former_service_go_back_with_what_it_dropped_filled_in() {
    let database = TestDatabase::of_host().await;
    database.execute(LEGACY_TABLES).await;
    database
        .execute(
            r#"INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", amount, metadata, "createdAt")
               SELECT 'a' || i, 'withdraw', '42', 'tx-' || i / 3, i, 'then', i, '{"a": 1}', timestamp '2025-06-28' + i * interval '1 hour'
               FROM generate_series(1, 120) i;
               CREATE TABLE archived AS SELECT id, to_jsonb(a) - 'archivedAt' AS row FROM "StreamArchive" a;
               INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", "createdAt")
               VALUES ('newest', 'create', '42', 'tx-9', 4, 1, 'then', '2026-05-30')"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    let service = database.service_with_batches_of(7);
    let run = restore(&service, &of_stream("42")).await;
    assert_eq!((run.logs_restored, run.conflicts), (120, 0));
    let whole = r#"archived b JOIN "EventLog" e USING (id)
                   WHERE to_jsonb(e) - '{eventIndex,parent_hash,entry_hash}'::text[] = b.row AND e.entry_hash IS NULL"#;
    assert_eq!(database.count(whole).await, 120);
    let numbers: Vec<i32> = database
        .value(r#"SELECT array_agg("eventIndex" ORDER BY "createdAt", id) FROM "EventLog" WHERE "txHash" IN ('tx-9', 'tx-10')"#)
        .await;
    assert_eq!(numbers, [5, 6, 7, 0, 1, 2, 4], "after all that is known of the transaction, in order");
    database.assert_seals_agree().await;
    service.release_restored_logs(&ReleaseRequest::default()).await.unwrap();
    assert_eq!(archive(&database).await.logs_archived, 120);
    database.assert_seals_agree().await;
}

#[tokio::test]
async fn columns_of_the_hosts_own_go_back_whole_and_one_that_is_new_gets_its_default() {
    let database = TestDatabase::of_host().await;
    database
        .execute(
            r#"CREATE TYPE "Network" AS ENUM ('MAINNET', 'TESTNET');
               ALTER TABLE "EventLog"
                   ADD network "Network" NOT NULL DEFAULT 'TESTNET',
                   ADD "Odd ""name's" TEXT[] DEFAULT '{a,"b c",NULL}',
                   ADD fee NUMERIC(40, 2) DEFAULT 12345678901234567890.10,
                   ADD raw JSON DEFAULT '{"b": 1,  "a": 1}',
                   ADD number BIGINT GENERATED ALWAYS AS IDENTITY,
                   ADD twice BIGINT GENERATED ALWAYS AS (amount * 2) STORED"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    insert_events(&database, 60).await;
    database.remember_events().await;
    archive(&database).await;
    let service = database.service_with_batches_of(9);
    assert_eq!(restore(&service, &everything()).await.logs_restored, 60);
    database.assert_nothing_lost_or_doubled().await;
    service.release_restored_logs(&ReleaseRequest::default()).await.unwrap();
    archive(&database).await;

    // Rows that were sealed without a column leave as they were sealed.
    database.execute(r#"ALTER TABLE "EventLog" ADD kind TEXT NOT NULL DEFAULT 'none'"#).await;
    let error = service.restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "archive_columns_differ");
    service.cancel_maintenance().await.unwrap();
    migrate(&database.pool).await.unwrap();
    database.insert_event("later", "42", "2025-07-02 00:00:00").await;
    archive(&database).await;
    assert_eq!(restore(&service, &everything()).await.logs_restored, 61);
    assert_eq!(database.count(r#""EventLog" WHERE kind = 'none'"#).await, 62);
    database.assert_seals_agree().await;
    database.execute(r#"ALTER TABLE "EventLog" DROP kind; DELETE FROM "EventLog" WHERE id = 'later'"#).await;
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn logs_of_a_host_without_hashes_go_back_also_after_it_has_got_them() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "EventLog" DROP "eventIndex", DROP parent_hash, DROP entry_hash"#).await;
    migrate(&database.pool).await.unwrap();
    for index in 0..40 {
        let (id, created_at) = (format!("e{index}"), format!("2025-07-{:02} 00:00:00", 1 + index % 28));
        database.insert_event(&id, "42", &created_at).await;
    }
    database.remember_events().await;
    let service = database.service_with_batches_of(9);
    assert_eq!(archive(&database).await.logs_archived, 40);
    assert_eq!(service.dry_run_restore(&everything(), &Deadline::never()).await.unwrap().logs_to_restore, 40);
    assert_eq!(restore(&service, &everything()).await.logs_restored, 40);
    database.assert_nothing_lost_or_doubled().await;
    service.release_restored_logs(&ReleaseRequest::default()).await.unwrap();
    archive(&database).await;

    let new = r#"ADD "eventIndex" INTEGER NOT NULL DEFAULT 0, ADD parent_hash TEXT, ADD entry_hash TEXT"#;
    database.execute(&format!(r#"ALTER TABLE "EventLog" {new}, ADD UNIQUE ("txHash", "eventIndex")"#)).await;
    migrate(&database.pool).await.unwrap();
    assert_eq!(restore(&service, &of_stream("42")).await.logs_restored, 40);
    database.assert_seals_agree().await;
    assert_eq!(database.count(r#""EventLog" WHERE "eventIndex" = 0 AND entry_hash IS NULL"#).await, 40);
    database.execute(r#"ALTER TABLE "EventLog" DROP "eventIndex", DROP parent_hash, DROP entry_hash"#).await;
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_log_that_would_not_go_back_whole_is_refused_by_the_columns_name_before_anything_moves() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT, ADD gone TEXT"#).await;
    migrate(&database.pool).await.unwrap();
    insert_events(&database, 60).await;
    database.execute(r#"UPDATE "EventLog" SET note = 'kept' WHERE ledger = 50"#).await;
    archive(&database).await;
    database.execute(r#"ALTER TABLE "EventLog" DROP note, DROP gone"#).await;
    let service = database.service_with_batches_of(10);
    let error = service.restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "not_restorable");
    assert!(error.to_string().contains(r#""note" is not a column of "EventLog" and has values"#), "{error}");
    assert!(!error.to_string().contains("gone"), "{error}");
    assert_eq!(database.count(r#""EventLog""#).await, 1);
    assert!(service.find_open_maintenance_run().await.unwrap().is_none(), "it is in nobody's way");
    // The others are whole.
    assert_eq!(restore(&service, &between(None, Some("2025-08-01T00:00:00Z"))).await.logs_restored, 30);

    database.execute(r#"UPDATE "StreamArchive" SET note = NULL; UPDATE "StreamArchive" SET sender = NULL"#).await;
    database
        .execute(r#"UPDATE "EventLog" SET sender = 'someone'; ALTER TABLE "EventLog" ALTER sender SET NOT NULL"#)
        .await;
    // A value that is missing is a matter of the rows that lack it.
    let run = restore(&service, &everything()).await;
    assert_eq!((run.logs_restored, run.conflicts, run.complete), (0, 30, true));
    let detail = &run.conflict_details[0];
    assert_eq!((detail.constraint.as_deref(), detail.reason.as_str()), (Some("sender"), "not_null_violation"));
    assert_eq!(database.count(r#""EventLog""#).await, 31);
}

#[tokio::test]
async fn logs_with_others_in_their_way_stay_in_the_archive_and_are_named() {
    let database = with_events(120).await;
    archive(&database).await;
    // One has its id again, another its event under another id.
    database.insert_event("e000007", "41", "2026-05-01 00:00:00").await;
    database
        .execute(
            r#"INSERT INTO "EventLog" SELECT (e).* FROM (
                   SELECT jsonb_populate_record(NULL::"EventLog", to_jsonb(a) || '{"id": "again"}') AS e
                   FROM "StreamArchive" a WHERE id = 'e000008'
               ) copied"#,
        )
        .await;
    let service = database.service_with_batches_of(11);
    let report = service.dry_run_restore(&everything(), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_to_restore, report.in_the_way), (118, 2));
    let run = restore(&service, &everything()).await;
    assert_eq!((run.logs_restored, run.conflicts, run.complete), (118, 2, true));
    assert_eq!(run.conflict_ids, ["e000007", "e000008"]);
    let left: Vec<String> = database.value(r#"SELECT array_agg(id ORDER BY id) FROM "StreamArchive""#).await;
    assert_eq!(left, ["e000007", "e000008"]);
    database.assert_seals_agree().await;
    database.execute(r#"DELETE FROM "EventLog" WHERE id IN ('e000007', 'again')"#).await;
    assert_eq!(restore(&service, &of_stream("42")).await.logs_restored, 1);
    assert_eq!(restore(&service, &of_stream("43")).await.logs_restored, 1);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_stream_on_hold_is_neither_archived_nor_restored_until_it_is_released() {
    let database = with_events(90).await;
    let service = database.service_with_batches_of(10);
    // By either id, and also a stream that nobody knows.
    let (hold, is_new) = service.hold_stream(&stream("s2"), "case 7", "ann").await.unwrap();
    assert_eq!(
        (hold.stream_id.as_str(), hold.reason.as_str(), hold.held_by.as_str(), is_new),
        ("42", "case 7", "ann", true)
    );
    let (again, is_new) = service.hold_stream(&stream("42"), "case 7", "bob").await.unwrap();
    assert_eq!((again, is_new), (hold, false));
    service.hold_stream(&stream("unknown"), "case 9", "ann").await.unwrap();
    let run = archive(&database).await;
    assert_eq!(
        (run.logs_archived, run.held_back[0].reason, run.held_back[0].rows),
        (60, HeldBackReason::LegalHold, 30)
    );

    let released = service.release_hold(&stream("s2"), None, "closed", "bob").await.unwrap().unwrap();
    assert_eq!(released.stream_id, "42");
    assert!(service.release_hold(&stream("42"), None, "closed", "bob").await.unwrap().is_none());
    let holds = service.list_legal_holds().await.unwrap();
    assert_eq!(holds.iter().map(|hold| hold.stream_id.as_str()).collect::<Vec<_>>(), ["unknown"]);
    let kept = r#""LegalHold" WHERE reason = 'case 7' AND "heldBy" = 'ann' AND "releaseReason" = 'closed'
                  AND "releasedBy" = 'bob' AND "releasedAt" >= "heldAt""#;
    assert_eq!(database.count(kept).await, 1);
    assert_eq!(archive(&database).await.logs_archived, 30);

    service.hold_stream(&stream("42"), "case 10", "ann").await.unwrap();
    let report = service.dry_run_restore(&everything(), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_to_restore, report.on_hold), (60, 30));
    let run = restore(&service, &everything()).await;
    assert_eq!((run.logs_restored, run.complete), (60, true));
    assert_eq!((run.held_back[0].reason, run.held_back[0].rows), (HeldBackReason::LegalHold, 30));
    assert_eq!(database.count(r#""StreamArchive" WHERE "streamId" <> '42'"#).await, 0);
    assert_eq!(restore(&service, &of_stream("42")).await.logs_restored, 0);
    service.release_hold(&stream("42"), None, "closed", "ann").await.unwrap();
    assert_eq!(restore(&service, &of_stream("42")).await.logs_restored, 30);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_stream_is_on_hold_until_the_last_of_its_holds_ends_and_by_whichever_id_it_was_placed() {
    let database = with_events(60).await;
    let service = database.service();
    // Placed before the host knows the contract-level id.
    database.execute(r#"UPDATE "Stream" SET "streamId" = NULL WHERE id = 's2'"#).await;
    let (hold, _) = service.hold_stream(&stream("s2"), "case 7", "ann").await.unwrap();
    assert_eq!(hold.stream_id, "s2");
    database.execute(r#"UPDATE "Stream" SET "streamId" = '42' WHERE id = 's2'"#).await;
    let (second, is_new) = service.hold_stream(&stream("42"), "case 8", "bob").await.unwrap();
    assert!(is_new);
    let on_hold = |run: &MaintenanceRun| {
        run.held_back.iter().find(|held| held.reason == HeldBackReason::LegalHold).map(|held| held.rows)
    };
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, on_hold(&run)), (40, Some(20)));

    let error = service.release_hold(&stream("42"), None, "closed", "ann").await.unwrap_err().to_string();
    assert!(error.contains("must name one of the stream's holds") && error.contains("(case 8)"), "{error}");
    let released = service.release_hold(&stream("42"), Some(second.id), "closed", "bob").await.unwrap();
    assert_eq!(released.unwrap().reason, "case 8");
    assert_eq!(on_hold(&archive(&database).await), Some(20));
    let released = service.release_hold(&stream("42"), None, "closed", "ann").await.unwrap();
    assert_eq!(released.unwrap().id, hold.id);
    assert_eq!(archive(&database).await.logs_archived, 20);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn held_and_restored_logs_are_not_counted_as_due() {
    let database = with_events(90).await;
    archive(&database).await;
    restore(&database.service(), &of_stream("42")).await;
    database.service().hold_stream(&stream("43"), "case 7", "ann").await.unwrap();
    for number in 0..9 {
        database.insert_event(&format!("more{number}"), &(41 + number % 3).to_string(), "2025-08-01 00:00:00").await;
    }
    let service = database.service_with(Settings { max_archive_rows: Some(6), ..Settings::default() });
    let report = service.dry_run(false, time(NOW), &Deadline::never()).await.unwrap();
    let held: Vec<_> = report.held_back.iter().map(|held| (held.reason, held.rows)).collect();
    assert_eq!(report.logs_due, 6);
    assert_eq!(held, [(HeldBackReason::LegalHold, 3), (HeldBackReason::Restored, 30)]);
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.logs_archived, run.complete), (6, true));
}

#[tokio::test]
async fn a_restore_goes_on_over_slices_and_is_paused_and_cancelled_like_any_run() {
    let database = with_events(120).await;
    archive(&database).await;
    let settings = Settings { batch_rows: 10, workers: 1, ..Settings::default() };
    let service = database.service_with(settings);
    let at_once = Deadline::after(Duration::ZERO);
    let first = service.restore(Trigger::Cli, &of_stream("42"), time(NOW), &at_once).await.unwrap();
    assert_eq!((first.status, first.stop_reason), (RunStatus::Interrupted, Some(StopReason::Deadline)));
    assert_eq!((first.logs_restored, first.phase, first.percent), (10, Phase::Restore, 25.0));
    service.pause_maintenance("a drill", "ann").await.unwrap();
    let paused = service.restore(Trigger::Cli, &of_stream("42"), time(NOW), &at_once).await.unwrap_err();
    assert_eq!(paused.code(), "maintenance_paused");
    service.resume_maintenance().await.unwrap();
    // Maintenance goes its own way; the next restore goes on with it, whatever it is.
    let apart = service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert!(apart.complete && apart.id != first.id);
    let second = service.restore(Trigger::Cli, &of_stream("41"), time(NOW), &at_once).await.unwrap();
    assert_eq!((second.id, second.attempts, second.complete), (first.id, 2, false));
    // One that is about something else finishes it first.
    let other = restore(&service, &of_stream("43")).await;
    assert_ne!(other.id, first.id);
    assert_eq!(other.logs_restored, 40);
    let finished = service.find_maintenance_run(first.id).await.unwrap().unwrap();
    assert_eq!((finished.complete, finished.logs_restored), (true, 40));

    let last = service.restore(Trigger::Cli, &of_stream("41"), time(NOW), &at_once).await.unwrap();
    service.cancel_maintenance().await.unwrap();
    let cancelled = service.find_maintenance_run(last.id).await.unwrap().unwrap();
    assert_eq!((cancelled.stop_reason, cancelled.logs_restored), (Some(StopReason::Cancelled), 10));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_host_that_swallows_rows_loses_none() {
    let database = with_events(30).await;
    archive(&database).await;
    database
        .execute(
            r#"CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
               CREATE TRIGGER swallow BEFORE INSERT ON "EventLog" FOR EACH ROW WHEN (NEW.ledger = 20) EXECUTE FUNCTION swallow()"#,
        )
        .await;
    let error =
        database.service().restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "restore_refused");
    database.assert_nothing_lost_or_doubled().await;
    assert_eq!(database.count(r#""StreamArchive" WHERE ledger = 20"#).await, 1);

    // Nor does one that alters them; and nothing else waits for what is refused again.
    database
        .execute(
            r"CREATE OR REPLACE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN NEW.metadata := 'mine'; RETURN NEW; END $$",
        )
        .await;
    let error =
        database.service().restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "restore_refused");
    database.assert_nothing_lost_or_doubled().await;
    assert!(archive(&database).await.complete);
    database.execute(r#"DROP TRIGGER swallow ON "EventLog""#).await;
    restore(&database.service(), &everything()).await;
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_timeline_read_while_events_are_restored_has_neither_gaps_nor_doubles() {
    const ROWS: usize = 3_000;
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(3_000, "2025-09-28 00:00:00").await;
    archive(&database).await;
    let database = Arc::new(database);
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (database, done) = (Arc::clone(&database), Arc::clone(&done));
        async move {
            let service = database.service();
            let view = r#"SELECT count(*) || ' ' || count(DISTINCT id) FROM "StreamHistory""#;
            let (mut reads, mut mixed) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let mut request = PageRequest::new(700, None).unwrap();
                let mut tiers = Vec::new();
                let mut ids = std::collections::BTreeSet::new();
                loop {
                    let page =
                        service.list_stream_events(&stream("s1"), &ArchiveFilter::default(), &request).await.unwrap();
                    tiers.extend(page.items.iter().map(|entry| entry.tier));
                    ids.extend(page.items.into_iter().map(|entry| entry.event.id));
                    let Some(cursor) = page.next_cursor else { break };
                    request = PageRequest::new(700, Some(cursor)).unwrap();
                }
                assert_eq!((tiers.len(), ids.len()), (ROWS, ROWS));
                assert_eq!(database.value::<String>(view).await, format!("{ROWS} {ROWS}"));
                reads += 1;
                mixed += i32::from(tiers.contains(&Tier::Hot) && tiers.contains(&Tier::Archived));
            }
            (reads, mixed)
        }
    });
    let service = database.service_with_batches_of(40);
    let run = restore(&service, &of_stream("42")).await;
    done.store(true, Ordering::Relaxed);
    let (reads, mixed) = reader.await.unwrap();
    assert_eq!(run.logs_restored, 3_000);
    assert!(reads > 3 && mixed > 3, "only {reads} reads, {mixed} of them in the middle");
}

/// What there is in the schema, as text.
async fn catalog(database: &TestDatabase) -> String {
    database
        .value(
            r"SELECT string_agg(thing, E'\n' ORDER BY thing) FROM (
                   SELECT 'relation ' || relname || ' ' || relkind::text || ' ' || COALESCE(pg_get_indexdef(CASE WHEN relkind IN ('i', 'I') THEN oid END), '')
                       AS thing
                   FROM pg_class WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service'))
                   UNION ALL
                   SELECT 'column ' || attrelid::regclass || ' ' || attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
                   WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service')))
                   UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE pronamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service'))
                   UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service'))
                   UNION ALL SELECT 'constraint ' || conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service'))
                   UNION ALL
                   SELECT 'grant ' || relname || ' ' || grantee::regrole || ' ' || privilege_type FROM pg_class CROSS JOIN aclexplode(relacl)
                   WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service')) AND grantee <> relowner
                   UNION ALL
                   SELECT 'grant ' || attrelid::regclass || ' ' || attname || ' ' || attacl::text FROM pg_attribute
                   WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service'))) AND attacl IS NOT NULL AND NOT attisdropped
                   UNION ALL SELECT 'grant ' || nspname || ' ' || nspacl::text FROM pg_namespace
                   UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger
                   UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast)'
               ) things",
        )
        .await
}

const EVENTS: &str = r#"SELECT string_agg(row_to_json(e)::text, E'\n' ORDER BY id) FROM "EventLog" e"#;

#[tokio::test]
async fn after_a_rollback_the_database_is_what_it_was_before_the_first_migration() {
    let database = TestDatabase::of_host().await;
    database.insert_stream("s2", Some("42"), "340282366920938463463374607431768211455").await;
    database.insert_stream("s3", Some("43"), "x").await;
    insert_events(&database, 200).await;
    let (things, events) = (catalog(&database).await, database.value::<String>(EVENTS).await);
    migrate(&database.pool).await.unwrap();
    let service = database.service_with_batches_of(15);
    archive(&database).await;
    restore(&service, &of_stream("42")).await;
    service.hold_stream(&stream("42"), "case 7", "ann").await.unwrap();
    service.release_hold(&stream("42"), None, "closed", "bob").await.unwrap();
    assert!(service.is_installed().await.unwrap());

    let at_once = Deadline::after(Duration::ZERO);
    let mut slices = 0;
    let run = loop {
        let run = service.restore_all(Trigger::Cli, true, time(NOW), &at_once).await.unwrap();
        slices += 1;
        if run.phase == Phase::Vacuum {
            break run;
        }
        // Nothing else runs meanwhile, and nothing is dropped.
        let other = service.run_maintenance(Trigger::Api.request(), time(NOW), &at_once).await.unwrap_err();
        assert!(matches!(other, Error::UnderWay { progress, .. } if is_of(&progress, Scope::Rollback)));
        if database.count(r#""StreamArchive""#).await > 0 {
            assert_eq!(service.drop_all(run.id, 2).await.unwrap_err().code(), "rollback_refused");
        }
    };
    assert!(slices > 5, "{slices}");
    assert_eq!((run.logs_restored, database.value::<String>(EVENTS).await == events), (133, true));
    let mut lines = Vec::new();
    let written = service.write_snapshots(|line| {
        lines.push(line.to_owned());
        Ok(())
    });
    assert_eq!((written.await.unwrap(), lines.len()), (2, 2));
    let mut records = Vec::new();
    let written = service.write_records(|line| {
        records.push(serde_json::from_str::<serde_json::Value>(line).unwrap());
        Ok(())
    });
    assert_eq!(written.await.unwrap(), records.len() as u64);
    let hold = &records[0];
    assert_eq!(
        (&hold["table"], &hold["row"]["reason"], &hold["row"]["releaseReason"]),
        (&"LegalHold".into(), &"case 7".into(), &"closed".into())
    );
    for time in ["heldAt", "releasedAt"] {
        assert!(hold["row"][time].as_str().unwrap().ends_with('Z'), "{hold}");
    }
    let is_identity =
        |record: &&serde_json::Value| record["table"] == "StreamIdentity" && record["row"]["streamId"] == "42";
    let identity = records.iter().find(is_identity).unwrap();
    assert!(identity["row"]["stream"].is_string() && identity["row"]["number"].is_string(), "{identity}");
    assert!(identity["row"]["firstSeenAt"].as_str().unwrap().ends_with('Z'), "{identity}");
    let snapshot: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&snapshot["streamId"], &snapshot["snapshotMonth"]), (&"s2".into(), &"2026-05".into()), "{snapshot}");
    assert_eq!(snapshot["totalAmount"], "340282366920938463463374607431768211455", "{snapshot}");
    assert!(snapshot["createdAt"].as_str().unwrap().ends_with('Z'), "{snapshot}");
    assert_eq!(service.drop_all(run.id, 1).await.unwrap_err().code(), "rollback_refused", "a snapshot is missing");
    database.execute(r#"CREATE VIEW of_the_host AS SELECT id FROM "StreamArchive""#).await;
    let error = service.drop_all(run.id, 2).await.unwrap_err();
    assert!(error.to_string().contains("something else depends"), "{error}");
    database.execute("DROP VIEW of_the_host").await;
    service.drop_all(run.id, 2).await.unwrap();
    assert_eq!(catalog(&database).await, things);
    assert_eq!(database.value::<String>(EVENTS).await, events);
    assert!(!service.is_installed().await.unwrap());

    // And from the start.
    migrate(&database.pool).await.unwrap();
    assert_eq!(archive(&database).await.logs_archived, 200);
}

#[tokio::test]
async fn a_rollback_is_refused_while_anything_would_be_lost_or_is_under_way() {
    let database = with_events(60).await;
    let service = database.service_with(Settings { batch_rows: 10, workers: 1, ..Settings::default() });
    let at_once = Deadline::after(Duration::ZERO);
    let roll_back = async |drop_snapshots: bool| {
        service.restore_all(Trigger::Cli, drop_snapshots, time(NOW), &Deadline::never()).await
    };
    let open = service.run_maintenance(Trigger::Api.request(), time(NOW), &at_once).await.unwrap();
    assert!(!open.complete);
    let error = roll_back(true).await.unwrap_err();
    assert!(error.to_string().contains(&format!("run {} (maintenance) is open", open.id)), "{error}");
    archive(&database).await;
    let error = roll_back(false).await.unwrap_err();
    assert!(error.to_string().contains("there are snapshots"), "{error}");
    service.hold_stream(&stream("42"), "case 7", "ann").await.unwrap();
    let error = roll_back(true).await.unwrap_err();
    assert!(error.to_string().contains("stream 42 is under legal hold by ann: case 7"), "{error}");
    service.release_hold(&stream("42"), None, "closed", "ann").await.unwrap();
    service.pause_maintenance("a drill", "ann").await.unwrap();
    assert_eq!(roll_back(true).await.unwrap_err().code(), "maintenance_paused");
    service.resume_maintenance().await.unwrap();
    assert_eq!(database.count(r#""EventLog""#).await, 1, "nothing has moved");

    database.insert_event("e000007", "41", "2026-05-01 00:00:00").await;
    let error = roll_back(true).await.unwrap_err();
    assert!(
        error.to_string().contains("1 archived logs have others in their way in \"EventLog\" (such as e000007)"),
        "{error}"
    );
    assert_eq!(database.count(r#""StreamArchive""#).await, 1);
    database.execute(r#"DELETE FROM "EventLog" WHERE id = 'e000007'"#).await;
    let run = roll_back(true).await.unwrap();
    assert_eq!((run.phase, run.logs_restored, run.conflicts), (Phase::Vacuum, 60, 0));
    database.assert_nothing_lost_or_doubled().await;
    // Cancelled, all goes on as before.
    service.cancel_maintenance().await.unwrap();
    assert_eq!(service.drop_all(run.id, 1).await.unwrap_err().code(), "rollback_refused");
    assert_eq!(archive(&database).await.logs_archived, 60);
    database.assert_nothing_lost_or_doubled().await;
}
