//! The state machine, run by moto's engine with the real binaries on a real PostgreSQL.

use std::time::Duration;

use aws_sdk_sfn::types::ExecutionStatus;
use chrono::Utc;
use runtime_api::Outcome;
use serde_json::{Value, json};
use snapshot_service::{Deadline, Trigger};

use crate::support::lambda::{sample_event, start_function};
use crate::support::step_functions::{Fate, StateMachine};
use crate::support::{TestDatabase, time};

/// What an invocation keeps of its time: given no more, it does one batch.
const ONE_BATCH: Duration = Duration::from_secs(10);

/// Twelve streams, and eight due logs in each of four months.
async fn with_due_logs() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    for stream in 0..12 {
        database.insert_stream(&format!("s{stream:02}"), Some(&format!("4{stream:02}")), "1000").await;
    }
    database.insert_months("2026-01-01", 4, 8).await;
    database.remember_events().await;
    database
}

async fn deploy(database: &TestDatabase) -> StateMachine {
    let variables = [("DATABASE_URL", database.url.as_str()), ("BATCH_ROWS", "5"), ("WORKERS", "1")];
    StateMachine::deploy(&variables, ONE_BATCH).await
}

async fn wait_until(database: &TestDatabase, condition: &str) {
    while !database.value::<bool>(&format!("SELECT {condition}")).await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The one run that there is, as it is told of.
async fn run(database: &TestDatabase) -> Value {
    let run: String = database
        .value(
            r#"SELECT jsonb_build_object('id', id, 'status', status, 'period', period, 'error', error,
                          'snapshots', "snapshotsCreated", 'logs', (SELECT COALESCE(sum("logsArchived"), 0) FROM "RunMonth"), 'holder', "leaseHolder")::text
               FROM "MaintenanceRun""#,
        )
        .await;
    serde_json::from_str(&run).unwrap()
}

async fn assert_all_done(database: &TestDatabase) {
    let run = run(database).await;
    assert_eq!((&run["status"], &run["holder"]), (&json!("succeeded"), &Value::Null), "{run}");
    assert_eq!((&run["snapshots"], &run["logs"]), (&json!(12), &json!(32)));
    assert_eq!(database.count(r#""EventLog""#).await, 0);
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 12);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_schedule_runs_slice_by_slice_with_several_months_at_a_time_and_once_however_often_it_is_delivered() {
    let database = with_due_logs().await;
    let machine = deploy(&database).await;
    let scheduled = json!({"scheduledTime": "2026-11-01T02:00:00Z"});
    let deliveries = [machine.start(None, &scheduled).await, machine.start(None, &scheduled).await];
    for delivery in &deliveries {
        machine.succeeds(delivery).await;
    }
    let execution = machine.execution("scheduled-2026-11");
    machine.succeeds(&execution).await;
    assert_all_done(&database).await;
    assert_eq!(run(&database).await["period"], "2026-11");
    assert_eq!(machine.executions().await.len(), 3, "one execution and its two deliveries");
    // Twelve streams in batches of five, and eight logs of a month.
    assert!(machine.events("take-snapshots").await.len() >= 3);
    assert!(machine.events("archive-month").await.len() >= 8);
    assert_eq!(machine.most_months_at_once(), 2, "two meet, and no third comes");

    // Delivered again when all is over; and by somebody who names it otherwise.
    machine.succeeds(&machine.start(None, &scheduled).await).await;
    machine.succeeds(&machine.start(Some("by-hand"), &json!({"period": "2026-11"})).await).await;
    assert_eq!(database.count(r#""MaintenanceRun""#).await, 1);
    assert_eq!(machine.events("plan-archive").await.len(), 2, "the months, and that none is left");
}

#[tokio::test]
async fn slices_that_fail_or_are_killed_are_repeated_and_lose_nothing() {
    let database = with_due_logs().await;
    let machine = deploy(&database).await;
    for step in ["take-snapshots", "plan-archive", "archive-month", "finish"] {
        machine.destine(step, &[Fate::HasNoDatabase, Fate::IsKilled, Fate::Works, Fate::IsKilled]).await;
    }
    machine.succeeds(&machine.start(None, &json!({})).await).await;
    assert_all_done(&database).await;
}

#[tokio::test]
async fn an_execution_leaves_a_period_that_another_one_runs_to_it_and_waits_for_its_end() {
    let database = with_due_logs().await;
    let machine = deploy(&database).await;
    // It has begun the run, and waits to be continued.
    machine.destine("take-snapshots", &[Fate::Works, Fate::HasNoDatabase]).await;
    let first = machine.start(Some("first"), &json!({"period": "2026-11"})).await;
    wait_until(&database, r#"EXISTS (SELECT FROM "MaintenanceRun")"#).await;
    machine.succeeds(&machine.start(Some("second"), &json!({"period": "2026-11"})).await).await;
    assert_all_done(&database).await;
    assert_eq!(database.count(r#""MaintenanceRun""#).await, 1);
    machine.succeeds(&first).await;
    for step in ["plan-archive", "archive-month", "finish"] {
        let events = machine.events(step).await;
        assert!(events.iter().all(|event| event["execution"] == "first"), "{events:?}");
    }
}

#[tokio::test]
async fn a_paused_execution_goes_on_when_maintenance_is_resumed() {
    let database = with_due_logs().await;
    let machine = deploy(&database).await;
    let execution = machine.start(None, &json!({})).await;
    wait_until(&database, r#"EXISTS (SELECT FROM "StreamArchive")"#).await;
    database.service().pause_maintenance("failover", "test").await.unwrap();
    while !machine.log().await.contains("the step waits") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    database.service().resume_maintenance().await.unwrap();
    machine.succeeds(&execution).await;
    assert_all_done(&database).await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_is_not_begun_anew_by_its_execution() {
    let database = with_due_logs().await;
    let machine = deploy(&database).await;
    let execution = machine.start(None, &json!({})).await;
    wait_until(&database, r#"EXISTS (SELECT FROM "StreamSnapshot")"#).await;
    database.service().cancel_maintenance().await.unwrap();
    machine.succeeds(&execution).await;
    let runs: String =
        database.value(r#"SELECT string_agg(status || ' ' || "stopReason", ', ') FROM "MaintenanceRun""#).await;
    assert_eq!(runs, "interrupted cancelled");
}

#[tokio::test]
async fn an_older_run_that_cannot_be_finished_does_not_keep_the_months_snapshots_from_being_taken() {
    let database = with_due_logs().await;
    database.execute(r#"ALTER TABLE "EventLog" ADD COLUMN memo text DEFAULT 'm'"#).await;
    let may = Trigger::Schedule { period: "2026-05".parse().unwrap() }.request();
    let older = database.service().run_maintenance(may, time("2026-05-01T02:00:00Z"), &Deadline::never()).await;
    assert_eq!(older.unwrap_err().code(), "archive_columns_differ");
    database.execute(r#"DELETE FROM "StreamSnapshot""#).await;

    let machine = deploy(&database).await;
    let end = machine.end_of(&machine.start(None, &json!({"period": "2026-11"})).await).await;
    assert_eq!(end, (ExecutionStatus::Failed, Some("archive_columns_differ".into())));
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 12);
    let runs: String = database
        .value(
            r#"SELECT string_agg(period || ' ' || status || ' ' || ("finishedAt" IS NULL), ', ' ORDER BY period)
               FROM "MaintenanceRun""#,
        )
        .await;
    assert_eq!(runs, "2026-05 failed false, 2026-11 failed true", "the older one is given up");
}

#[tokio::test]
async fn an_error_that_does_not_pass_marks_the_run_and_the_next_execution_continues_it() {
    let database = with_due_logs().await;
    database.execute(r#"ALTER TABLE "EventLog" ADD COLUMN memo text DEFAULT 'm'"#).await;
    let machine = deploy(&database).await;
    let first = machine.start(Some("scheduled-2026-11"), &json!({"period": "2026-11"})).await;
    let end = machine.end_of(&first).await;
    assert_eq!(end, (ExecutionStatus::Failed, Some("archive_columns_differ".into())));
    let failed = run(&database).await;
    assert_eq!((&failed["status"], &failed["holder"]), (&json!("failed"), &Value::Null));
    let error = failed["error"].as_str().unwrap();
    assert!(error.starts_with("archive_columns_differ: ") && error.contains("memo"), "{error}");
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 12, "what was done stays");
    // The step whose error is caught is not yet the run's failure.
    assert_eq!(machine.log().await.matches(r#""RunsFailed":1"#).count(), 1);

    snapshot_service::database::migrate(&database.pool).await.unwrap();
    database.execute("DROP TABLE remembered").await;
    database.remember_events().await;
    machine.succeeds(&machine.start(None, &json!({"runId": failed["id"]})).await).await;
    assert_all_done(&database).await;
}

#[tokio::test]
async fn a_request_works_its_own_slice_and_an_execution_the_rest() {
    let database = with_due_logs().await;
    let machine = deploy(&database).await;
    let answer = post(&database, &machine, &machine.arn).await;
    assert_eq!(answer.status(), 202);
    let run = answer.body()["data"].clone();
    assert_eq!((&run["complete"], &run["stopReason"]), (&json!(false), &json!("deadline")));
    let id = run["id"].as_str().unwrap();
    assert_eq!(answer.payload["headers"]["location"], format!("/api/v1/snapshots/maintenance/{id}"));
    machine.succeeds(&machine.execution(&format!("run-{id}-1"))).await;
    assert_all_done(&database).await;
    assert_eq!(database.count(r#""MaintenanceRun""#).await, 1);
}

#[tokio::test]
async fn a_request_that_finds_an_older_run_open_gets_its_own_after_it() {
    let database = with_due_logs().await;
    let machine = deploy(&database).await;
    let small = database.service_with_batches_of(5);
    let (then, one_batch) = (time("2026-05-01T02:00:00Z"), Deadline::after(Duration::ZERO));
    let older = small.run_maintenance(Trigger::Cli.request(), then, &one_batch).await.unwrap();
    let answer = post(&database, &machine, &machine.arn).await;
    let run = answer.body()["data"].clone();
    assert_eq!((answer.status(), &run["id"], &run["attempts"]), (202, &json!(older.id), &json!(2)));
    machine.succeeds(&machine.execution(&format!("run-{}-2", older.id))).await;
    assert_eq!(database.count(r#""MaintenanceRun" WHERE status = 'succeeded'"#).await, 2);
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 24, "of both months");
    assert_eq!(database.count(r#""EventLog""#).await, 0);
    database.assert_nothing_lost_or_doubled().await;
}

/// What `trigger-maintenance` answers in time for one batch, with this state machine.
async fn post(database: &TestDatabase, machine: &StateMachine, arn: &str) -> Outcome {
    let mut variables = vec![
        ("DATABASE_URL", database.url.as_str()),
        ("BATCH_ROWS", "5"),
        ("WORKERS", "1"),
        ("STATE_MACHINE_ARN", arn),
    ];
    variables.extend(machine.moto.variables());
    let mut function = start_function("trigger-maintenance", &variables).await;
    function.set_timeout(ONE_BATCH).await;
    function.invoke(&sample_event("trigger-maintenance")).await
}

#[tokio::test]
async fn a_request_whose_run_cannot_be_handed_on_says_so() {
    let database = with_due_logs().await;
    let machine = deploy(&database).await;
    let answer = post(&database, &machine, "arn:aws:states:eu-west-1:123456789012:stateMachine:gone").await;
    assert_eq!(answer.status(), 503);
    let body = answer.body();
    assert_eq!(body["code"], "not_continued");
    assert!(body["error"].as_str().unwrap().contains("ask again"), "{body}");
    // Asked again, it goes on, as anybody may.
    let run = run(&database).await;
    assert_eq!((&run["status"], &run["holder"]), (&json!("interrupted"), &Value::Null), "{run}");
    database.service().run_maintenance(Trigger::Cli.request(), Utc::now(), &Deadline::never()).await.unwrap();
    assert_all_done(&database).await;
}

#[tokio::test]
async fn a_step_that_is_unknown_is_refused() {
    let database = TestDatabase::migrated().await;
    let mut function = start_function("run-maintenance", &[("DATABASE_URL", &database.url)]).await;
    for step in [json!({"step": "clean-up", "execution": "e"}), json!({"step": "plan-archive", "execution": "e"})] {
        let outcome = function.invoke(&step.to_string()).await;
        assert_eq!((outcome.failed, &outcome.payload["errorType"]), (true, &json!("unknown_event")), "{outcome:?}");
    }
}
