//! Restoring, holding and rolling back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use snapshot_service::database::migrate;
use snapshot_service::{
    ArchiveFilter, Deadline, Error, HeldBackReason, MaintenanceRun, PageRequest, Phase, ReleaseRequest, RestoreRequest,
    RunStatus, Scope, Settings, SnapshotService, StopReason, Tier, Trigger,
};

use crate::support::{TestDatabase, stream, time};

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
    service.restore(request, time(NOW), &Deadline::never()).await.unwrap()
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

/// Checks that each month's ledger tells of its rows as they are: those that are there and those that have left are those that
/// came, and each entry follows the one before.
async fn assert_ledger_agrees(database: &TestDatabase) {
    let unequal = r#"(
        SELECT s.month, s.sequence,
               s.rows <> (
                   SELECT count(*) FROM "StreamArchive" a
                   WHERE to_char(a."createdAt", 'YYYY-MM') = s.month AND a."archivedAt" <= s."archivedAt"
                     AND (s."archivedAfter" IS NULL OR a."archivedAt" > s."archivedAfter")
               ) + (
                   SELECT count(*) FROM "ArchiveRemoval" r
                   WHERE r.month = s.month AND r."archivedAt" <= s."archivedAt"
                     AND (s."archivedAfter" IS NULL OR r."archivedAt" > s."archivedAfter")
               ) AS is_wrong
        FROM "ArchiveSeal" s WHERE kind <> 'restored'
        UNION ALL
        SELECT s.month, s.sequence,
               s.rows <> (SELECT count(*) FROM "ArchiveRemoval" r WHERE r.month = s.month AND r.sequence = s.sequence)
        FROM "ArchiveSeal" s WHERE kind = 'restored'
    ) counted WHERE is_wrong"#;
    assert_eq!(database.count(unequal).await, 0);
    // The leaves of what came: each removed row's digest is among those of the entry that it was in.
    let strange = r#""ArchiveRemoval" r WHERE NOT EXISTS (
        SELECT FROM "ArchiveSeal" s
        CROSS JOIN LATERAL generate_series(1, octet_length(s.leaves), 8) place
        WHERE s.month = r.month AND s.kind <> 'restored' AND r."archivedAt" <= s."archivedAt"
          AND (s."archivedAfter" IS NULL OR r."archivedAt" > s."archivedAfter")
          AND substr(s.leaves, place, 8) = substr(r.digest, 1, 8))"#;
    assert_eq!(database.count(strange).await, 0);
    // Each entry of rows that left is over their digests.
    let forged = r#""ArchiveSeal" s
        LEFT JOIN "ArchiveSeal" p ON p.month = s.month AND p.sequence = s.sequence - 1
        WHERE s.kind = 'restored' AND s.digest <> sha256(p.digest || archive_seal_header(
            s.month, s.sequence, s.kind, s."runId", s.rows, s."firstCreatedAt", s."firstId", s."lastCreatedAt", s."lastId",
            s."archivedAfter", s."archivedAt", s."maxLedger", s.columns
        ) || (SELECT string_agg(r.digest, '' ORDER BY r."createdAt", r.id COLLATE "C") FROM "ArchiveRemoval" r
              WHERE r.month = s.month AND r.sequence = s.sequence))"#;
    assert_eq!(database.count(forged).await, 0);
    let heads = r#""ArchiveMonth" m WHERE m.digest <> (
        SELECT digest FROM "ArchiveSeal" s WHERE s.month = m.month AND s.sequence = m.entries)"#;
    assert_eq!(database.count(heads).await, 0);
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
    assert_ledger_agrees(&database).await;
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
    assert_ledger_agrees(&database).await;
    assert_eq!(restore(&service, &everything()).await.logs_restored, 600);
    database.assert_nothing_lost_or_doubled().await;
    assert_ledger_agrees(&database).await;
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
        assert_ledger_agrees(&database).await;
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
    let error = database.service().restore(&unknown, time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "not_found");
}
