//! The steps of the state machine, one by one: what their slices do to each other, and to other triggers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use snapshot_service::{Deadline, Error, Result, Settings, SnapshotService, StepReport, Trigger};

use crate::runs::{Gate, small};
use crate::support::{TestDatabase, time};

const NOW: &str = "2026-05-31T02:00:00Z";

/// Ten due logs in each of three months, and one stream.
async fn with_due_logs() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1000").await;
    database.insert_months("2025-11-01", 3, 10).await;
    database.remember_events().await;
    database
}

/// An execution that asks for one step after the other.
struct Execution {
    service: SnapshotService,
    name: &'static str,
}

impl Execution {
    fn of(database: &TestDatabase, name: &'static str, settings: Settings) -> Self {
        Self { service: database.service_with(settings), name }
    }

    async fn ask(&self, step: &str, more: Value, deadline: Deadline) -> Result<StepReport> {
        let mut event = json!({"step": step, "execution": self.name});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let event = serde_json::from_value(event).unwrap();
        let now: DateTime<Utc> = time(NOW);
        self.service.run_step(&event, now, &deadline).await.map(Option::unwrap)
    }

    async fn step(&self, step: &str, more: Value) -> StepReport {
        self.ask(step, more, Deadline::never()).await.unwrap()
    }

    /// Takes the snapshots and plans the months; returns the run.
    async fn begin(&self) -> Value {
        let snapshots = self.step("take-snapshots", json!({"request": {}})).await;
        assert!(snapshots.complete && !snapshots.ended);
        let run = json!(snapshots.run_id.unwrap());
        let plan = self.step("plan-archive", json!({"runId": run})).await;
        assert_eq!(json!(plan.months), json!(["2025-11", "2025-12", "2026-01"]));
        run
    }
}

#[tokio::test]
async fn a_month_that_was_planned_and_never_begun_is_not_overlooked() {
    let database = with_due_logs().await;
    let execution = Execution::of(&database, "e", small());
    let run = execution.begin().await;
    for month in ["2025-12", "2026-01"] {
        execution.step("archive-month", json!({"runId": run, "month": month})).await;
    }
    // Its execution is gone.
    database.execute(r#"UPDATE "MaintenanceRun" SET "leaseExpiresAt" = '2026-01-01'"#).await;
    let ended =
        database.service().run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((json!(ended.id), ended.complete, ended.logs_archived), (run, true, 30));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_slice_that_was_given_up_and_goes_on_commits_nothing() {
    let database = with_due_logs().await;
    let execution = Execution::of(&database, "e", small());
    let run = execution.begin().await;
    let month = json!({"runId": run, "month": "2025-12"});
    let gate = Gate::before(&database, "e1-3").await;
    let given_up = execution.ask("archive-month", month.clone(), Deadline::never());
    let next = async {
        gate.reached().await;
        // It has the month from here on, and waits for the batch of the other to end.
        let next = execution.ask("archive-month", month.clone(), Deadline::never());
        let open = async {
            let attempts = r#"SELECT attempts = 4 FROM "MaintenanceRun""#;
            while !database.value::<bool>(attempts).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            gate.open().await;
        };
        futures_util::join!(next, open).0
    };
    let (given_up, next) = futures_util::join!(given_up, next);
    assert!(matches!(given_up, Err(Error::LeaseLost { .. })), "{given_up:?}");
    assert!(next.unwrap().complete);
    for month in ["2025-11", "2026-01"] {
        execution.step("archive-month", json!({"runId": run, "month": month})).await;
    }
    assert!(execution.step("plan-archive", json!({"runId": run})).await.ended);
    assert!(execution.step("finish", json!({"runId": run})).await.complete);
    assert_eq!(database.value::<i64>(r#"SELECT sum("logsArchived")::bigint FROM "RunMonth""#).await, 30);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn other_triggers_wait_for_an_execution_and_an_execution_for_them() {
    let database = with_due_logs().await;
    let execution = Execution::of(&database, "e", small());
    let run = execution.begin().await;
    let other = Execution::of(&database, "e2", small());
    let command = database.service_with(small());
    for _ in 0..2 {
        let refused = command.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await;
        assert!(matches!(refused, Err(Error::UnderWay { .. })), "{refused:?}");
        let report = other.step("take-snapshots", json!({"request": {"period": "2026-05"}})).await;
        assert!(report.waiting && !report.complete);
        assert_eq!(report.request.period.unwrap().to_string(), "2026-05", "it asks for the same again");
        // Between two slices, too.
        execution.step("archive-month", json!({"runId": run, "month": "2025-12"})).await;
    }
    // What is not of maintenance is not an execution's.
    execution.step("finish", json!({"runId": run})).await;
    let rollback = command.restore_all(Trigger::Cli, true, time(NOW), &Deadline::never()).await.unwrap();
    let refused = other.ask("take-snapshots", json!({"request": {"runId": rollback.id}}), Deadline::never()).await;
    assert_eq!(refused.unwrap_err().code(), "invalid_input");
    assert!(other.step("take-snapshots", json!({"request": {}})).await.waiting);
}

#[tokio::test]
async fn a_slice_that_comes_after_its_execution_has_failed_does_not_hide_that() {
    let database = with_due_logs().await;
    let execution = Execution::of(&database, "e", small());
    let run = execution.begin().await;
    let event = json!({"step": "fail", "execution": "e", "error": {"Error": "too_many_rows"}});
    let event = serde_json::from_value(event).unwrap();
    assert_eq!(execution.service.run_step(&event, time(NOW), &Deadline::never()).await.unwrap(), None);
    let late = execution.step("archive-month", json!({"runId": run, "month": "2025-12"})).await;
    assert!(late.waiting && !late.complete);
    let state: String = database.value(r#"SELECT status || ' ' || error FROM "MaintenanceRun""#).await;
    assert_eq!(state, "failed too_many_rows");
    // Another execution begins it again as a whole.
    let next = Execution::of(&database, "e2", small());
    let request = json!({"request": {"runId": run}});
    assert!(next.step("take-snapshots", request).await.complete);
    assert!(next.step("finish", json!({"runId": run})).await.complete);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_pause_is_told_as_one_and_gives_the_lease_back() {
    let database = with_due_logs().await;
    let execution = Execution::of(&database, "e", small());
    database.insert_stream("s2", Some("43"), "1").await;
    let first = execution.ask("take-snapshots", json!({"request": {}}), Deadline::after(Duration::ZERO)).await.unwrap();
    let run = json!(first.run_id.unwrap());
    database.service().pause_maintenance("failover", "test").await.unwrap();
    assert!(execution.step("plan-archive", json!({"runId": run})).await.waiting);
    assert!(execution.step("finish", json!({"runId": run})).await.waiting);
    database.service().resume_maintenance().await.unwrap();
    assert!(execution.step("finish", json!({"runId": run})).await.complete);
    database.assert_nothing_lost_or_doubled().await;
}
