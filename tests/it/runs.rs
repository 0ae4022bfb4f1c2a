//! Runs: who works on them, when they stop, how they go on, and what they tell.

use std::time::Duration;

use serde_json::{Value, json};
use snapshot_service::{
    Deadline, Error, MaintenanceRequest, MaintenanceRun, PageRequest, Phase, RunStatus, Scope, Settings,
    SnapshotService, StopReason, Trigger, TriggerKind,
};
use tokio_util::sync::CancellationToken;

use crate::support::{TestDatabase, stream, time};

const NOW: &str = "2026-05-31T02:00:00Z";
const NEXT_MONTH: &str = "2026-06-01T02:00:00Z";

fn schedule(period: &str) -> MaintenanceRequest {
    Trigger::Schedule { period: period.parse().unwrap() }.request()
}

async fn run(service: &SnapshotService, request: MaintenanceRequest, now: &str) -> MaintenanceRun {
    service.run_maintenance(request, time(now), &Deadline::never()).await.unwrap()
}

/// One slice that has time for nothing but the one batch that each call is good for.
async fn run_one_batch(service: &SnapshotService, request: MaintenanceRequest, now: &str) -> MaintenanceRun {
    service.run_maintenance(request, time(now), &Deadline::after(Duration::ZERO)).await.unwrap()
}

/// Batches of ten, one worker, and patience with locks.
pub(crate) fn small() -> Settings {
    Settings {
        batch_rows: 10,
        workers: 1,
        lock_timeout: Duration::from_mins(1),
        statement_timeout: Duration::from_mins(1),
        ..Settings::default()
    }
}

/// The same, with a lease that has expired as soon as it is looked at.
fn short_lease() -> Settings {
    Settings { lease: Duration::from_millis(1), ..small() }
}

async fn wait_until(database: &TestDatabase, condition: &str) {
    while !database.value::<bool>(&format!("SELECT {condition}")).await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Holds up the move of one row until it is opened.
pub(crate) struct Gate {
    keeper: tokio_postgres::Client,
}

impl Gate {
    pub(crate) async fn before(database: &TestDatabase, id: &str) -> Self {
        let (keeper, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        keeper
            .batch_execute(&format!(
                r#"SELECT pg_advisory_lock(1);
                   CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS $$
                   BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN OLD; END $$;
                   CREATE TRIGGER gate BEFORE DELETE ON "EventLog" FOR EACH ROW WHEN (OLD.id = '{id}')
                   EXECUTE FUNCTION pass_gate()"#
            ))
            .await
            .unwrap();
        Self { keeper }
    }

    /// Until somebody stands before it.
    pub(crate) async fn reached(&self) {
        let waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while self.keeper.query_opt(waiting, &[]).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn open(&self) {
        self.keeper.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    }
}

/// Starts a run in batches of ten and drops it in the middle of one.
async fn kill_in_the_sixth_batch(database: &TestDatabase, service: &SnapshotService) {
    let gate = Gate::before(database, "e000055").await;
    let deadline = Deadline::never();
    tokio::select! {
        _ = service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline) => panic!("it passed the gate"),
        () = gate.reached() => {}
    }
    gate.open().await;
}

#[tokio::test]
async fn month_and_cutoff_are_fixed_when_a_run_starts_and_kept_for_every_later_slice() {
    let database = TestDatabase::migrated().await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    database.insert_event("late", "42", "2026-03-01 01:00:00").await;
    let service = database.service_with(small());
    let first = run_one_batch(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((first.status, first.stop_reason), (RunStatus::Interrupted, Some(StopReason::Deadline)));
    assert_eq!((first.trigger, first.scope, first.period), (TriggerKind::Cli, Scope::Maintenance, None));

    // A day later, in another month: the run goes on as it was begun.
    let second = run_one_batch(&service, Trigger::Api.request(), NEXT_MONTH).await;
    assert_eq!((second.id, second.attempts), (first.id, 2));
    assert_eq!((second.snapshot_month, second.cutoff), (first.snapshot_month, first.cutoff));
    assert_eq!(second.trigger, TriggerKind::Cli, "what started it");

    // And is finished before the one that was asked for starts.
    let last = run(&service, Trigger::Api.request(), NEXT_MONTH).await;
    assert_eq!((last.snapshot_month.to_string().as_str(), last.complete, last.logs_archived), ("2026-06", true, 1));
    let older = service.find_maintenance_run(first.id).await.unwrap().unwrap();
    assert_eq!((older.status, older.logs_archived, older.phase), (RunStatus::Succeeded, 30, Phase::Done));
}

#[tokio::test]
async fn progress_is_never_lost_by_more_than_one_batch() {
    let database = TestDatabase::migrated().await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    database.remember_events().await;
    let service = database.service_with(small());
    kill_in_the_sixth_batch(&database, &service).await;
    assert_eq!(database.count(r#""StreamArchive""#).await, 50);
    assert_eq!(database.value::<i64>(r#"SELECT sum("logsArchived")::bigint FROM "RunMonth""#).await, 50);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_second_trigger_hears_of_the_run_that_is_under_way() {
    let database = TestDatabase::migrated().await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    let gate = Gate::before(&database, "e000055").await;
    let service = database.service_with(small());
    let deadline = Deadline::never();
    let second = async {
        gate.reached().await;
        let refused = service.run_maintenance(Trigger::Api.request(), time(NOW), &deadline).await.unwrap_err();
        gate.open().await;
        refused
    };
    let (first, refused) = tokio::join!(service.run_maintenance(schedule("2026-05"), time(NOW), &deadline), second);
    let first = first.unwrap();
    let Error::UnderWay { run, period, progress } = refused else { panic!("{refused:?}") };
    assert_eq!((run, period.as_deref()), (first.id, Some("2026-05")));
    let run: Value = serde_json::from_str(progress.get()).unwrap();
    assert_eq!((&run["id"], &run["logsArchived"], &run["status"]), (&json!(first.id), &json!(50), &json!("running")));
    assert_eq!((&run["phase"], run["rowsEstimated"].is_number()), (&json!("archive"), true));
    assert!(first.complete);
    assert!(service.find_open_maintenance_run().await.unwrap().is_none());
}

#[tokio::test]
async fn of_eight_triggers_at_once_one_works_and_each_row_moves_once() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(2_000, "2024-01-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "createdAt" = "createdAt" + ledger % 20 * interval '1 month'"#).await;
    database.remember_events().await;
    for triggers in [2, 8] {
        let service = database.service_with_batches_of(50);
        let deadline = Deadline::never();
        let runs = (0..triggers).map(|_| service.run_maintenance(Trigger::Api.request(), time(NOW), &deadline));
        let results = futures_util::future::join_all(runs).await;
        for result in &results {
            match result {
                Ok(run) => assert!(run.complete),
                Err(error) => assert!(matches!(error, Error::UnderWay { .. }), "{error:?}"),
            }
        }
        assert!(results.iter().any(Result::is_ok));
        database.assert_nothing_lost_or_doubled().await;
    }
    assert_eq!(database.count(r#""EventLog""#).await, 0);
    assert_eq!(database.count("pg_inherits WHERE inhparent = '\"StreamArchive\"'::regclass").await, 20);
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 1);
    let moved: i64 = database.value(r#"SELECT sum("logsArchived")::bigint FROM "RunMonth""#).await;
    assert_eq!(moved, 2_000, "the runs' counters say what happened");
}

#[tokio::test]
async fn a_dead_owners_run_is_taken_over_when_its_lease_has_expired() {
    let database = TestDatabase::migrated().await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    database.remember_events().await;
    let service = database.service_with(small());
    kill_in_the_sixth_batch(&database, &service).await;
    let deadline = Deadline::never();
    let error = service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await.unwrap_err();
    assert!(matches!(error, Error::UnderWay { .. }), "its owner may be alive: {error:?}");

    database
        .execute(r#"UPDATE "MaintenanceRun" SET "leaseExpiresAt" = now() AT TIME ZONE 'UTC' - interval '1 second'"#)
        .await;
    let open = service.find_open_maintenance_run().await.unwrap().unwrap();
    assert_eq!((open.status, open.stop_reason), (RunStatus::Interrupted, Some(StopReason::LeaseExpired)));
    let continued = run(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((continued.id, continued.attempts, continued.complete), (open.id, 2, true));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_month_that_another_run_holds_is_waited_for_and_the_others_are_archived_meanwhile() {
    let database = TestDatabase::migrated().await;
    database.insert_months("2025-11-01", 3, 10).await;
    database.remember_events().await;
    // Somebody's restore has a month, and a dead one's lease on another has expired.
    database
        .execute(
            r#"INSERT INTO "MaintenanceRun" (trigger, scope, "snapshotMonth", cutoff, phase, status, "startedAt", "updatedAt",
                   "leaseHolder", token, "leaseExpiresAt")
               VALUES ('cli', 'restore', '2026-05', '2026-02-28', 'restore', 'running', now(), now(), 'somebody',
                   gen_random_uuid(), now() AT TIME ZONE 'UTC' + interval '1 hour');
               INSERT INTO "ArchiveMonth" (month, digest, "runId", "leaseHolder", token, "leaseExpiresAt")
               SELECT month, sha256(convert_to(month, 'UTF8')), id, 'somebody', gen_random_uuid(), now() AT TIME ZONE 'UTC' + lease
               FROM "MaintenanceRun",
                    (VALUES ('2026-01', interval '1 hour'), ('2025-12', interval '-1 second')) held (month, lease)"#,
        )
        .await;
    let service = database.service();
    let (request, deadline) = (Trigger::Cli.request(), Deadline::never());
    let restore = async {
        wait_until(&database, r#"EXISTS (SELECT FROM "MaintenanceRun" WHERE "waitingFor" LIKE 'another run%')"#).await;
        assert_eq!(database.count(r#""StreamArchive""#).await, 20, "of the other months");
        database.execute(r#"UPDATE "ArchiveMonth" SET "runId" = NULL, token = NULL WHERE month = '2026-01'"#).await;
    };
    let (run, ()) = tokio::join!(service.run_maintenance(request, time(NOW), &deadline), restore);
    let run = run.unwrap();
    assert_eq!((run.complete, run.logs_archived, run.waiting_for), (true, 30, None));
    database.assert_nothing_lost_or_doubled().await;
    let leases = r#""ArchiveMonth" WHERE token IS NOT NULL OR "runId" IS NOT NULL OR "leaseExpiresAt" > now()"#;
    assert_eq!(database.count(leases).await, 0, "each is given back");
}

#[tokio::test]
async fn cancelling_a_run_revokes_the_leases_of_its_months() {
    let database = TestDatabase::migrated().await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    database.remember_events().await;
    let gate = Gate::before(&database, "e000055").await;
    let service = database.service_with(small());
    let (request, deadline) = (Trigger::Cli.request(), Deadline::never());
    let cancel = async {
        gate.reached().await;
        // The batch is under way, and does not keep the lease from being revoked.
        let cancelled = service.cancel_maintenance().await.unwrap();
        assert_eq!(database.count(r#""ArchiveMonth" WHERE token IS NOT NULL"#).await, 0);
        gate.open().await;
        cancelled.len()
    };
    let (ended, cancelled) = tokio::join!(service.run_maintenance(request, time(NOW), &deadline), cancel);
    assert_eq!((ended.unwrap().stop_reason, cancelled), (Some(StopReason::Cancelled), 1));
    assert_eq!(database.count(r#""StreamArchive""#).await, 50, "the batch under way was not committed");
    database.assert_nothing_lost_or_doubled().await;
    assert!(run(&database.service(), Trigger::Cli.request(), NOW).await.complete);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn an_owner_whose_lease_was_stolen_while_it_slept_commits_nothing_more() {
    let database = TestDatabase::migrated().await;
    // The month's partition has its indexes: to build them the thief would wait for the sleeper's transaction.
    database.insert_event("first", "42", "2026-01-01 00:00:00").await;
    run(&database.service(), Trigger::Cli.request(), NOW).await;
    database.execute(r#"DELETE FROM "StreamArchive"; TRUNCATE "ArchiveMonth", "ArchiveSeal""#).await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    database.remember_events().await;
    let gate = Gate::before(&database, "e000055").await;
    let service = database.service_with(short_lease());
    let deadline = Deadline::never();
    let thief = async {
        gate.reached().await;
        let thief = database.service_with(small());
        // The thief waits for the head of the month's ledger, which the sleeper has locked.
        let wake = async {
            while database.count(r#""MaintenanceRun" WHERE attempts = 2"#).await == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            gate.open().await;
        };
        let (run, ()) = tokio::join!(thief.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline), wake);
        run.unwrap()
    };
    let (sleeper, thief) = tokio::join!(service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline), thief);
    let error = sleeper.unwrap_err();
    assert!(matches!(error, Error::LeaseLost { .. }), "{error:?}");
    assert_eq!((thief.complete, thief.logs_archived), (true, 100));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_duplicate_delivery_for_a_finished_period_returns_its_run_and_does_nothing() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    let service = database.service();
    let first = run(&service, schedule("2026-05"), NOW).await;
    assert_eq!((first.trigger, first.snapshots_created), (TriggerKind::Schedule, 1));
    database.insert_stream("s2", Some("43"), "1").await;
    database.insert_event("e1", "42", "2026-01-01 00:00:00").await;
    let duplicate = run(&service, schedule("2026-05"), "2026-05-31T02:10:00Z").await;
    assert_eq!(duplicate, first);
    assert_eq!((database.count(r#""StreamSnapshot""#).await, database.count(r#""EventLog""#).await), (1, 1));

    // A period that was missed is run when next invoked, with what is then.
    let missed = run(&service, schedule("2026-04"), NEXT_MONTH).await;
    assert_ne!(missed.id, first.id);
    assert_eq!(
        (missed.snapshot_month.to_string().as_str(), missed.snapshots_created, missed.logs_archived),
        ("2026-06", 2, 1)
    );
}

#[tokio::test]
async fn a_schedule_finishes_what_was_left_open_and_then_runs_its_own_period() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    let service = database.service_with(small());
    let left = run_one_batch(&service, schedule("2026-05"), NOW).await;
    assert!(!left.complete);
    let own = run(&service, schedule("2026-06"), NEXT_MONTH).await;
    assert_eq!((own.complete, own.period.unwrap().to_string().as_str()), (true, "2026-06"));
    let runs = service.list_maintenance_runs(&PageRequest::first()).await.unwrap().items;
    let periods: Vec<String> = runs.iter().map(|run| run.period.unwrap().to_string()).collect();
    assert_eq!(periods, ["2026-06", "2026-05"], "newest first");
    assert!(runs.iter().all(|run| run.complete));
    assert_eq!(service.find_last_scheduled_period().await.unwrap().unwrap().to_string(), "2026-06");
}

#[tokio::test]
async fn archiving_starts_only_when_the_months_snapshots_are_complete() {
    let database = TestDatabase::migrated().await;
    for index in 0..25 {
        database.insert_stream(&format!("s{index:02}"), None, "1").await;
    }
    database.insert_events(5, "2026-01-10 00:00:00").await;
    let service = database.service_with(small());
    let error = service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err();
    assert!(matches!(error, Error::SnapshotsIncomplete { .. }), "{error:?}");
    assert_eq!(database.count(r#""MaintenanceRun""#).await, 0, "no run is left that could not go on");

    database
        .execute(
            r#"CREATE FUNCTION add_behind() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO "Stream" (id, "txHash", sender, receiver, amount) VALUES ('a-new', 'a-new', 's', 'r', '1')
        ON CONFLICT DO NOTHING; RETURN NEW; END $$;
        CREATE TRIGGER add_behind AFTER INSERT ON "StreamSnapshot" FOR EACH ROW WHEN (NEW."streamId" = 's20')
        EXECUTE FUNCTION add_behind()"#,
        )
        .await;
    let mut slices = Vec::new();
    loop {
        let run = run_one_batch(&service, Trigger::Cli.request(), NOW).await;
        assert!(run.logs_archived == 0 || run.snapshots_created == 26, "{run:?}");
        slices.push(run.snapshots_created);
        if run.complete {
            assert_eq!((run.streams, run.snapshots_created, run.snapshots_existing), (26, 26, 0));
            break;
        }
    }
    assert_eq!(slices[..3], [10, 20, 25]);
    let again = run(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((again.streams, again.snapshots_created, again.snapshots_existing), (26, 0, 26));
}

#[tokio::test]
async fn a_refresh_retakes_this_months_snapshots_and_no_others() {
    let database = TestDatabase::migrated().await;
    for index in 0..25 {
        database.insert_stream(&format!("s{index:02}"), Some(&format!("{index}")), "1").await;
    }
    let service = database.service_with(small());
    run(&service, Trigger::Cli.request(), "2026-04-01T02:00:00Z").await;
    run(&service, Trigger::Cli.request(), "2026-05-01T02:00:00Z").await;
    database.execute(r#"UPDATE "Stream" SET amount = '200', status = 'PAUSED'"#).await;
    let plain = run(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((plain.snapshots_created, plain.snapshots_existing), (0, 25));

    let request = MaintenanceRequest { refresh: true, ..Trigger::Cli.request() };
    let first = run_one_batch(&service, request, NOW).await;
    assert_eq!((first.snapshots_created, first.complete), (10, false));
    let refreshed = run(&service, request, NOW).await;
    assert_eq!((refreshed.id, refreshed.snapshots_created, refreshed.snapshots_existing), (first.id, 25, 0));
    let retaken = r#""StreamSnapshot" WHERE "totalAmount" = 200 AND "amountPerSecond" = 2 AND status = 'PAUSED'
                     AND state ->> 'amount' = '200' AND "snapshotMonth" = '2026-05' AND "createdAt" >= '2026-05-31 02:00:00'"#;
    assert_eq!(database.count(retaken).await, 25);
    assert_eq!(database.count(r#""StreamSnapshot" WHERE "totalAmount" = 1 AND "snapshotMonth" = '2026-04'"#).await, 25);
    let snapshot = service.get_snapshot(&stream("7"), "2026-05".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(snapshot.status.as_deref(), Some("PAUSED"));
}

#[tokio::test]
async fn a_pause_stops_the_run_after_its_batch_and_holds_for_every_trigger_until_resumed() {
    let database = TestDatabase::migrated().await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    database.remember_events().await;
    let gate = Gate::before(&database, "e000055").await;
    let service = database.service_with(small());
    let deadline = Deadline::never();
    let pause = async {
        gate.reached().await;
        let pause = service.pause_maintenance("the host migrates", "ops").await.unwrap().unwrap();
        gate.open().await;
        pause
    };
    let (paused, pause) = tokio::join!(service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline), pause);
    let paused = paused.unwrap();
    assert_eq!((paused.status, paused.stop_reason), (RunStatus::Interrupted, Some(StopReason::Paused)));
    assert_eq!((paused.logs_archived, paused.complete), (60, false), "the batch under way was finished");
    for request in [Trigger::Cli.request(), Trigger::Api.request(), schedule("2026-05")] {
        let error = service.run_maintenance(request, time(NOW), &deadline).await.unwrap_err();
        assert!(matches!(&error, Error::Paused { since, .. } if *since == pause.paused_at), "{error:?}");
        assert!(error.to_string().contains("by ops: the host migrates"), "{error}");
    }
    assert_eq!(service.find_maintenance_pause().await.unwrap().as_ref(), Some(&pause));
    // The first one's reason stands.
    assert_eq!(service.pause_maintenance("again", "me").await.unwrap().as_ref(), Some(&pause));

    assert_eq!(service.resume_maintenance().await.unwrap(), Some(pause));
    assert_eq!(service.resume_maintenance().await.unwrap(), None);
    let resumed = run(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((resumed.id, resumed.logs_archived, resumed.complete), (paused.id, 100, true));
    database.assert_nothing_lost_or_doubled().await;

    // A pause may also come before any run.
    service.pause_maintenance("closed", "ops").await.unwrap();
    let error = service.create_monthly_snapshots(Trigger::Api, time(NOW), &deadline).await.unwrap_err();
    assert_eq!(error.code(), "maintenance_paused");
    assert_eq!(database.count(r#""MaintenanceRun""#).await, 1);
    let done = service.find_maintenance_run(resumed.id).await.unwrap().unwrap();
    assert!(done.complete, "a run that is done is not touched by a pause");
}

#[tokio::test]
async fn a_cancelled_run_commits_nothing_more_and_is_not_continued() {
    let database = TestDatabase::migrated().await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    database.remember_events().await;
    let gate = Gate::before(&database, "e000055").await;
    let service = database.service_with(small());
    assert!(service.cancel_maintenance().await.unwrap().is_empty(), "there is none");
    let deadline = Deadline::never();
    let cancel = async {
        gate.reached().await;
        let cancelled = service.cancel_maintenance().await.unwrap().pop().unwrap();
        gate.open().await;
        cancelled
    };
    let (run_of_may, cancelled) =
        tokio::join!(service.run_maintenance(schedule("2026-05"), time(NOW), &deadline), cancel);
    let run_of_may = run_of_may.unwrap();
    assert_eq!(run_of_may, cancelled);
    assert_eq!((run_of_may.status, run_of_may.stop_reason), (RunStatus::Interrupted, Some(StopReason::Cancelled)));
    assert_eq!((run_of_may.logs_archived, run_of_may.complete, run_of_may.finished_at.is_some()), (50, false, true));
    assert_eq!(database.count(r#""StreamArchive""#).await, 50);
    database.assert_nothing_lost_or_doubled().await;

    assert_eq!(run(&service, schedule("2026-05"), NOW).await, cancelled, "its period is not run again");
    let next = run(&service, Trigger::Cli.request(), NOW).await;
    assert_ne!(next.id, cancelled.id);
    assert_eq!(next.logs_archived, 50);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_signal_stops_a_run_after_its_batch() {
    let database = TestDatabase::migrated().await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    let gate = Gate::before(&database, "e000055").await;
    let stop = CancellationToken::new();
    let deadline = Deadline::never().or_when(stop.clone());
    let service = database.service_with(small());
    let signal = async {
        gate.reached().await;
        stop.cancel();
        gate.open().await;
    };
    let (stopped, ()) = tokio::join!(service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline), signal);
    let stopped = stopped.unwrap();
    assert_eq!((stopped.stop_reason, stopped.logs_archived), (Some(StopReason::Signal), 60));
}

#[tokio::test]
async fn a_run_that_failed_says_why_and_the_next_trigger_continues_it() {
    let database = TestDatabase::migrated().await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    database.execute(r#"ALTER TABLE "EventLog" ADD extra TEXT DEFAULT 'x'"#).await;
    let service = database.service_with(small());
    let deadline = Deadline::never();
    let error = service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await.unwrap_err();
    let failed = service.find_open_maintenance_run().await.unwrap().unwrap();
    assert_eq!((failed.status, failed.stop_reason), (RunStatus::Failed, Some(StopReason::Error)));
    assert_eq!(failed.error, Some(error.to_string()));
    snapshot_service::database::migrate(&database.pool).await.unwrap();
    let continued = run(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((continued.id, continued.attempts, continued.error, continued.logs_archived), (failed.id, 2, None, 30));
}

#[tokio::test]
async fn guard_rails_refuse_before_anything_is_written() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    let deadline = Deadline::never();
    let short = database.service_with(Settings { retention_months: 0, ..Settings::default() });
    let error = short.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await.unwrap_err();
    assert_eq!(error.code(), "retention_too_short");
    let service = database.service();
    let in_future = service.run_maintenance(Trigger::Cli.request(), time("2999-01-01T00:00:00Z"), &deadline);
    assert_eq!(in_future.await.unwrap_err().code(), "cutoff_in_future");

    let name: String = database.value("SELECT current_database()").await;
    database.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let pool = snapshot_service::database::connect_pool(&database.url.parse().unwrap(), "readonly", 2).await.unwrap();
    let read_only = SnapshotService::new(pool, Settings::default());
    let error = read_only.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await.unwrap_err();
    assert_eq!(error.code(), "database_read_only");
    assert_eq!(database.count(r#""MaintenanceRun""#).await, 0);
    assert_eq!((database.count(r#""StreamSnapshot""#).await, database.count(r#""StreamArchive""#).await), (0, 0));
}

#[tokio::test]
async fn more_rows_than_the_limit_are_archived_only_with_force() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    let limited = |max_archive_rows| database.service_with(Settings { max_archive_rows, ..small() });
    let deadline = Deadline::never();
    let service = limited(Some(29));
    let error = service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await.unwrap_err();
    assert_eq!(error.code(), "too_many_rows");
    assert_eq!(database.count(r#""StreamArchive""#).await, 0);
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 1, "the month's snapshots are not given up for it");
    let forced = run(&service, MaintenanceRequest { force: true, ..Trigger::Cli.request() }, NOW).await;
    assert_eq!((forced.logs_archived, forced.force), (30, true));

    database.insert_events(30, "2026-02-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET id = 'f' || id, "txHash" = 'f' || "txHash""#).await;
    assert_eq!(
        run(&limited(Some(30)), Trigger::Cli.request(), NOW).await.logs_archived,
        30,
        "the limit itself is allowed"
    );
}

#[tokio::test]
async fn a_run_waits_while_too_many_sessions_are_active_and_says_so() {
    let database = TestDatabase::migrated().await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    let pool =
        snapshot_service::database::connect_pool(&database.url.parse().unwrap(), "maintenance", 4).await.unwrap();
    let service = SnapshotService::new(pool, Settings { max_active_sessions: Some(2), ..small() });
    // Sessions of others: whatever the other tests do on this server counts too.
    let busy = || async {
        let (client, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("SELECT pg_sleep(2)").await.unwrap();
    };
    let deadline = Deadline::never();
    let seen = async {
        wait_until(
            &database,
            r#"EXISTS (SELECT FROM "MaintenanceRun" WHERE "waitingFor" LIKE '%sessions are active, more than 2')"#,
        )
        .await;
        service.find_open_maintenance_run().await.unwrap().unwrap()
    };
    let work = async {
        wait_until(&database, "(SELECT count(*) >= 3 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(2)')").await;
        service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await.unwrap()
    };
    let (run, waiting, ..) = tokio::join!(work, seen, busy(), busy(), busy());
    assert_eq!(waiting.logs_archived, 0);
    assert!(waiting.waiting_for.unwrap().ends_with("sessions are active, more than 2"));
    assert_eq!((run.complete, run.logs_archived, run.waiting_for), (true, 30, None));
}

#[tokio::test]
async fn a_dry_run_counts_by_month_and_event_type_and_writes_nothing() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(20, "2026-01-31 23:49:00").await;
    database.execute(r#"UPDATE "EventLog" SET "eventType" = 'create' WHERE ledger % 4 = 0"#).await;
    database.execute(r#"UPDATE "EventLog" SET entry_hash = id"#).await;
    let service = database.service();
    let report = service.dry_run(false, time(NOW), &Deadline::never()).await.unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "dryRun": true, "snapshotMonth": "2026-05", "snapshotsDue": 1, "cutoff": "2026-02-28T02:00:00.000Z",
            "logsDue": 19, "estimatedSeconds": 1,
            "months": [
                {"month": "2026-01", "rows": 10, "eventTypes": {"create": 2, "withdraw": 8}},
                {"month": "2026-02", "rows": 9, "eventTypes": {"create": 2, "withdraw": 7}},
            ],
            "heldBack": [{"reason": "chain_head", "rows": 1, "ids": ["e000020"],
                "message": "the newest row stays: the host takes its entry_hash as the next event's parent_hash"}],
        })
    );
    for table in ["MaintenanceRun", "StreamSnapshot", "StreamArchive"] {
        assert_eq!(database.count(&format!("{table:?}")).await, 0, "{table}");
    }
    assert_eq!(run(&service, Trigger::Cli.request(), NOW).await.logs_archived, 19, "as it said");
    let later = time("2026-05-31T03:00:00Z");
    assert_eq!(service.dry_run(true, later, &Deadline::never()).await.unwrap().snapshots_due, 1, "to be retaken");
    assert_eq!(service.dry_run(false, later, &Deadline::never()).await.unwrap().snapshots_due, 0);
}

#[tokio::test]
async fn a_partition_is_loaded_bare_and_a_run_that_finds_indexes_missing_builds_them_first() {
    let database = TestDatabase::migrated().await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    let service = database.service_with(small());
    let indexes = "pg_indexes WHERE tablename = 'StreamArchive_2026_01'";
    let first = run_one_batch(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((first.logs_archived, database.count(indexes).await), (10, 0));
    let second = run_one_batch(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((second.logs_archived, database.count(indexes).await), (10, 4));
    assert!(run(&service, Trigger::Cli.request(), NOW).await.complete);
    assert!(
        database.value::<f32>("SELECT reltuples FROM pg_class WHERE relname = 'StreamArchive_2026_01'").await > 0.0,
        "analysed"
    );
}

#[tokio::test]
async fn readers_see_each_event_exactly_once_at_every_instant_while_months_are_loaded() {
    let database = TestDatabase::migrated().await;
    database.insert_events(6_000, "2026-01-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "createdAt" = "createdAt" - ledger % 4 * interval '1 month'"#).await;
    let service = database.service_with_batches_of(50);
    let deadline = Deadline::never();
    let done = CancellationToken::new();
    let reader = async {
        let mut reads = 0;
        while !done.is_cancelled() {
            let seen: String = database
                .value(
                    r#"SELECT count(*) || ' ' || count(DISTINCT id) FROM
                       (SELECT id FROM "EventLog" UNION ALL SELECT id FROM "StreamArchive") e"#,
                )
                .await;
            assert_eq!(seen, "6000 6000");
            reads += 1;
        }
        reads
    };
    let work = async {
        let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await.unwrap();
        done.cancel();
        run
    };
    let (run, reads) = tokio::join!(work, reader);
    assert_eq!(run.logs_archived, 6_000);
    assert!(reads > 5, "it was looked at {reads} times");
}

#[tokio::test]
async fn runs_are_listed_newest_first_page_by_page() {
    let database = TestDatabase::migrated().await;
    let service = database.service();
    for day in 1..=7 {
        run(&service, Trigger::Cli.request(), &format!("2026-05-{day:02}T02:00:00Z")).await;
    }
    let mut request = PageRequest::new(3, None).unwrap();
    let mut days = Vec::new();
    loop {
        let page = service.list_maintenance_runs(&request).await.unwrap();
        days.extend(page.items.iter().map(|run| run.started_at.format("%d").to_string()));
        let Some(cursor) = page.next_cursor else { break };
        request = PageRequest::new(3, Some(cursor)).unwrap();
    }
    assert_eq!(days, ["07", "06", "05", "04", "03", "02", "01"]);
}

#[tokio::test]
async fn after_archiving_the_log_is_vacuumed_and_analysed() {
    let database = TestDatabase::migrated().await;
    database.insert_events(3_000, "2026-01-01 00:00:00").await;
    run(&database.service(), Trigger::Cli.request(), NOW).await;
    wait_until(&database, "vacuum_count > 0 AND analyze_count > 0 FROM pg_stat_user_tables WHERE relname = 'EventLog'")
        .await;
}

#[tokio::test]
async fn an_older_run_that_cannot_end_does_not_keep_the_next_months_snapshots_from_being_taken() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    let service = database.service_with(Settings { max_archive_rows: Some(10), ..small() });
    let deadline = Deadline::never();
    for (period, now) in [("2026-05", NOW), ("2026-06", NEXT_MONTH)] {
        let error = service.run_maintenance(schedule(period), time(now), &deadline).await.unwrap_err();
        assert_eq!(error.code(), "too_many_rows");
    }
    assert_eq!(database.count(r#""StreamSnapshot" WHERE "snapshotMonth" IN ('2026-05', '2026-06')"#).await, 2);
    let runs = service.list_maintenance_runs(&PageRequest::first()).await.unwrap().items;
    let ended: Vec<bool> = runs.iter().map(|run| run.finished_at.is_some()).collect();
    assert_eq!(ended, [false, true], "the older one is given up");
    assert_eq!((runs[1].status, runs[1].complete), (RunStatus::Failed, false));

    let force = MaintenanceRequest { force: true, ..Trigger::Cli.request() };
    let last = run(&service, force, NEXT_MONTH).await;
    assert_eq!((last.id, last.logs_archived), (runs[0].id, 30));
}

#[tokio::test]
async fn an_older_run_that_ends_after_the_deadline_leaves_the_one_asked_for_to_the_next_slice() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    let service = database.service_with(small());
    let older = run_one_batch(&service, schedule("2026-05"), NOW).await;
    assert!(!older.complete);
    let own = run_one_batch(&service, schedule("2026-06"), NEXT_MONTH).await;
    assert_eq!((own.period.unwrap().to_string().as_str(), own.complete, own.snapshots_created), ("2026-06", false, 0));
    assert_eq!(own.stop_reason, Some(StopReason::Deadline));
    assert!(service.find_maintenance_run(older.id).await.unwrap().unwrap().complete);
    assert_eq!(run(&service, schedule("2026-06"), NEXT_MONTH).await.snapshots_created, 1);
}

#[tokio::test]
async fn what_stayed_is_counted_once_over_all_slices_and_the_retry() {
    let database = TestDatabase::migrated().await;
    database.insert_events(60, "2026-01-31 23:30:00").await;
    database.execute(r#"CREATE TABLE copies AS SELECT * FROM "EventLog" WHERE ledger IN (3, 33, 55)"#).await;
    run(&database.service(), Trigger::Cli.request(), NOW).await;
    // Three that differ from what is archived, in both months, and others to move.
    database
        .execute(
            r#"INSERT INTO "EventLog" SELECT * FROM copies; UPDATE "EventLog" SET metadata = 'other';
               UPDATE "StreamArchive" SET id = 'x' || id WHERE ledger > 40 AND ledger <> 55;
               INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'n' || i, 'create', '42', 'n' || i, i, 'then', timestamp '2026-01-31 23:30:00' + i * interval '1 minute'
               FROM generate_series(1, 60) i"#,
        )
        .await;
    let mut holder = database.client().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute(r#"SELECT FROM "EventLog" WHERE id IN ('n5', 'n50') FOR UPDATE"#).await.unwrap();
    let service = database.service_with(small());
    let mut slices = 0;
    let last = loop {
        let run = run_one_batch(&service, Trigger::Cli.request(), NOW).await;
        slices += 1;
        if run.complete {
            break run;
        }
    };
    assert!(slices >= 6, "{slices} slices");
    assert_eq!((last.logs_archived, last.conflicts, last.held_back[0].rows), (58, 3, 2), "{last:?}");
    let mut ids = last.conflict_ids;
    ids.sort();
    assert_eq!(ids, ["e000003", "e000033", "e000055"]);
    lock.rollback().await.unwrap();
    let next = run(&service, Trigger::Cli.request(), NOW).await;
    assert_eq!((next.logs_archived, next.conflicts, next.held_back.len()), (2, 3, 1));
}

#[tokio::test]
async fn the_first_snapshots_of_many_streams_do_not_run_into_the_time_limit() {
    let database = TestDatabase::migrated().await;
    database
        .execute(
            r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount)
               SELECT 'c' || md5(i::text), i::text, 't' || i, 's', 'r', '1' FROM generate_series(1, 20000) i"#,
        )
        .await;
    // One batch, with neither table analysed: its look-ups must not walk over what it writes.
    let settings = Settings { batch_rows: 20_000, ..Settings::default() };
    let run = run(&database.service_with(settings), Trigger::Cli.request(), NOW).await;
    assert_eq!((run.snapshots_created, run.streams), (20_000, 20_000));
    let cut_down = database.value::<Option<i32>>(r#"SELECT "batchRows" FROM "MaintenanceRun""#).await;
    assert_eq!(cut_down, None, "no batch timed out");
}
