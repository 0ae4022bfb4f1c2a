//! The built Lambda binaries as black boxes.

use std::time::Duration;

use serde_json::{Value, json};
use snapshot_service::{Deadline, Trigger, VerificationRequest};

use crate::support::lambda::{FUNCTIONS, sample_event, start_function};
use crate::support::{TestDatabase, time};
use runtime_api::Function;

/// Those behind the API.
pub(crate) const HTTP_FUNCTIONS: &[&str] = FUNCTIONS.split_at(9).0;
/// Those that read what a stream has.
const READERS: [&str; 5] =
    ["list-snapshots", "get-snapshot", "list-archived-logs", "list-stream-events", "get-stream-state"];

/// What the sample events ask for: stream 42, its snapshot of May 2026, its archived withdrawals.
pub(crate) async fn with_history() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1000").await;
    database.insert_events(5, "2026-01-10 00:00:00").await;
    database
        .service()
        .run_maintenance(Trigger::Api.request(), time("2026-05-31T02:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    let (everything, now) = (VerificationRequest::default(), time("2026-06-01T02:00:00Z"));
    database.service().verify_archive(everything, now, &Deadline::never()).await.unwrap();
    database.execute(r#"UPDATE "MaintenanceRun" SET id = '6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e'"#).await;
    database
}

async fn start(name: &str, database: &TestDatabase) -> Function {
    start_function(name, &[("DATABASE_URL", &database.url)]).await
}

#[tokio::test]
async fn each_http_function_answers_its_sample_event_in_the_envelope() {
    let database = with_history().await;
    for &name in HTTP_FUNCTIONS {
        let outcome = start(name, &database).await.invoke(&sample_event(name)).await;
        assert_eq!(outcome.status(), 200, "{name}: {outcome:?}");
        assert_eq!(outcome.payload["headers"]["content-type"], "application/json");
        let body = outcome.body();
        assert_eq!(body["success"], true, "{name}");
        match name {
            "list-snapshots" => {
                assert_eq!(body["data"].as_array().unwrap().len(), 1);
                assert_eq!(body["nextCursor"], Value::Null);
            }
            "get-snapshot" => {
                assert_eq!(body["data"]["totalAmount"], "1000");
                assert!(body.get("nextCursor").is_none(), "only lists have one");
            }
            "list-archived-logs" => assert_eq!(body["data"].as_array().unwrap().len(), 5),
            "list-stream-events" => {
                assert_eq!(body["data"].as_array().unwrap().len(), 5);
                assert_eq!(body["data"][0]["tier"], "archived");
            }
            "get-stream-state" => {
                let data = &body["data"];
                assert_eq!(data["at"], "2026-06-01T00:00:00.000Z");
                assert_eq!((&data["snapshot"]["snapshotMonth"], &data["events"]), (&json!("2026-05"), &json!([])));
                assert_eq!(body["nextCursor"], Value::Null);
            }
            "list-maintenance-runs" => {
                assert_eq!(body["data"].as_array().unwrap().len(), 2);
                assert_eq!(body["nextCursor"], Value::Null);
            }
            "get-verification" => {
                assert_eq!((&body["data"]["status"], &body["data"]["rowsDone"]), (&json!("passed"), &json!(5)));
            }
            "get-maintenance-run" => {
                assert_eq!((&body["data"]["status"], &body["data"]["percent"]), (&json!("succeeded"), &json!(100.0)));
            }
            _ => assert_eq!((&body["data"]["complete"], &body["data"]["snapshotsCreated"]), (&json!(true), &json!(1))),
        }
    }
}

#[tokio::test]
async fn maintenance_runs_for_every_form_of_schedule_and_says_so_in_the_log() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1000").await;
    database.insert_events(5, "2026-01-10 00:00:00").await;
    let mut function = start("run-maintenance", &database).await;
    function.set_timeout(Duration::from_mins(15)).await;
    let rule = json!({
        "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "aws.events", "account": "1",
        "time": "2026-06-01T02:00:00Z", "region": "eu-west-1", "resources": [], "detail": {},
    });
    for (event, trigger, archived) in
        [(rule.to_string(), "schedule", 5), (rule.to_string(), "schedule", 5), ("{}".into(), "api", 0)]
    {
        let outcome = function.invoke(&event).await;
        assert!(!outcome.failed, "{outcome:?}");
        assert_eq!((&outcome.payload["logsArchived"], &outcome.payload["complete"]), (&json!(archived), &json!(true)));
        assert_eq!(outcome.payload["trigger"], trigger);
    }
    assert_eq!(database.count(r#""MaintenanceRun""#).await, 2, "a period is run once, however often it is delivered");
    assert_eq!(function.invoke(&sample_event("run-maintenance")).await.payload["period"], "2026-06");
    let log = function.log();
    for line in log.lines() {
        serde_json::from_str::<Value>(line).expect("each line is JSON");
    }
    let run = function.invoke(&rule.to_string()).await.payload["id"].as_str().unwrap().to_owned();
    for phase in ["begins", "snapshots are complete", "archive", "vacuumed", "ends"] {
        let says = |line: &&str| line.contains(&format!("snapshot maintenance: {phase}\"")) && line.contains(&run);
        assert_eq!(log.lines().filter(says).count(), 1, "{phase}: {log}");
    }
}

#[tokio::test]
async fn the_migrate_function_brings_a_hosts_database_up_to_date() {
    let database = TestDatabase::of_host().await;
    let mut function = start("migrate", &database).await;
    let outcome = function.invoke(&sample_event("migrate")).await;
    assert_eq!(outcome.payload["applied"].as_array().unwrap().len(), 7, "{outcome:?}");
    let outcome = function.invoke(&sample_event("migrate")).await;
    assert_eq!(
        outcome.payload,
        json!({"applied": [], "lost": [], "archiveColumnsChanged": [], "logsSealed": 0, "formerTables": [], "roleWarnings": [], "findings": []})
    );
}

#[tokio::test]
async fn an_invocation_about_to_be_stopped_answers_what_it_did_and_the_next_continues() {
    let database = TestDatabase::migrated().await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    let variables = [("DATABASE_URL", database.url.as_str()), ("BATCH_ROWS", "10"), ("WORKERS", "1")];
    let mut scheduled = start_function("run-maintenance", &variables).await;
    let mut requested = start_function("trigger-maintenance", &variables).await;
    for function in [&scheduled, &requested] {
        // Less than the margin: one batch, then stop.
        function.set_timeout(Duration::from_secs(2)).await;
    }
    let first = scheduled.invoke(&sample_event("run-maintenance")).await;
    assert_eq!((&first.payload["logsArchived"], &first.payload["complete"]), (&json!(10), &json!(false)));
    assert_eq!((&first.payload["status"], &first.payload["stopReason"]), (&json!("interrupted"), &json!("deadline")));
    // First the indexes that the loaded partition lacks, then the next batch.
    for archived in [10, 20] {
        let second = requested.invoke(&sample_event("trigger-maintenance")).await;
        assert_eq!(second.status(), 202);
        let run = &second.body()["data"];
        assert_eq!((&run["logsArchived"], &run["complete"]), (&json!(archived), &json!(false)));
        assert_eq!((&run["id"], &run["cutoff"]), (&first.payload["id"], &first.payload["cutoff"]));
    }
    scheduled.set_timeout(Duration::from_mins(1)).await;
    let last = scheduled.invoke(&sample_event("run-maintenance")).await;
    assert_eq!((&last.payload["logsArchived"], &last.payload["complete"]), (&json!(30), &json!(true)));
    assert_eq!((&last.payload["id"], &last.payload["attempts"]), (&first.payload["id"], &json!(4)));
}

#[tokio::test]
async fn memory_does_not_grow_with_the_number_of_rows() {
    let mut peaks = Vec::new();
    for rows in [1_000, 76_000] {
        let database = TestDatabase::migrated().await;
        database.insert_events(rows, "2026-01-01 00:00:00").await;
        let mut function =
            start_function("run-maintenance", &[("DATABASE_URL", &database.url), ("BATCH_ROWS", "1000")]).await;
        function.set_timeout(Duration::from_mins(15)).await;
        assert_eq!(function.invoke("{}").await.payload["logsArchived"], rows);
        peaks.push(function.peak_memory_kb());
    }
    assert!(peaks[1] < peaks[0] + 4_096, "{peaks:?} kB");
}

#[tokio::test]
async fn bad_input_is_a_400_that_names_the_field() {
    let database = with_history().await;
    let mut list = start("list-archived-logs", &database).await;
    let mut get = start("get-snapshot", &database).await;
    let sample: Value = serde_json::from_str(&sample_event("list-archived-logs")).unwrap();
    let foreign = snapshot_service::Cursor::new(
        vec!["s9".to_owned(), "99".to_owned()],
        snapshot_service::ArchivePosition { created_at: time("2026-01-01T00:00:00Z").naive_utc(), id: "e".into() },
    );
    for (field, query) in [
        ("limit", "limit=0".to_owned()),
        ("limit", "limit=1001".into()),
        ("from", "from=yesterday".into()),
        ("to", "to=2026-01-31".into()),
        ("from", "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z".into()),
        ("cursor", format!("cursor={}", foreign.encode())),
        ("cursor", "cursor=eyJ".into()),
        ("eventType", "eventType=".into()),
    ] {
        let mut event = sample.clone();
        event["rawQueryString"] = query.clone().into();
        let outcome = list.invoke(&event.to_string()).await;
        assert_eq!(outcome.status(), 400, "{query}: {outcome:?}");
        let body = outcome.body();
        assert_eq!((&body["success"], &body["code"]), (&json!(false), &json!("invalid_input")));
        assert_eq!(body["requestId"], "invocation-1");
        assert!(body["error"].as_str().unwrap().starts_with(&format!("{field} must ")), "{body}");
    }
    let mut state = start("get-stream-state", &database).await;
    let sample: Value = serde_json::from_str(&sample_event("get-stream-state")).unwrap();
    for (field, query) in [
        ("at", String::new()),
        ("at", "at=".into()),
        ("at", "at=yesterday".into()),
        ("at", "at=2026-06-01".into()),
        ("limit", "at=2026-06-01T00:00:00Z&limit=0".into()),
        ("cursor", format!("at=2026-06-01T00:00:00Z&cursor={}", foreign.encode())),
    ] {
        let mut event = sample.clone();
        event["rawQueryString"] = query.clone().into();
        let outcome = state.invoke(&event.to_string()).await;
        assert_eq!(outcome.status(), 400, "{query}: {outcome:?}");
        assert!(outcome.body()["error"].as_str().unwrap().starts_with(&format!("{field} must ")), "{outcome:?}");
    }
    let sample: Value = serde_json::from_str(&sample_event("get-snapshot")).unwrap();
    for (field, stream, month) in [
        ("month", "42", "2026-13"),
        ("month", "42", "2026-1"),
        ("streamId", "", "2026-05"),
        ("streamId", "a\0b", "2026-05"),
        ("streamId", &"x".repeat(201), "2026-05"),
    ] {
        let mut event = sample.clone();
        event["pathParameters"] = json!({"streamId": stream, "month": month});
        let outcome = get.invoke(&event.to_string()).await;
        assert_eq!(outcome.status(), 400, "{stream} {month}: {outcome:?}");
        assert!(outcome.body()["error"].as_str().unwrap().starts_with(&format!("{field} must ")), "{outcome:?}");
    }
    let mut event = sample;
    event["pathParameters"] = json!({"streamId": "42", "month": "2020-01"});
    let outcome = get.invoke(&event.to_string()).await;
    assert_eq!(outcome.status(), 404);
    assert_eq!(
        outcome.body(),
        json!({"success": false, "error": "Snapshot not found", "code": "not_found", "requestId": "invocation-1"})
    );
}

#[tokio::test]
async fn with_the_database_down_each_http_function_answers_503_and_when_to_retry() {
    // Nobody listens on the first; on the second somebody does who never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for address in [closed, silent.local_addr().unwrap()] {
        let url = format!("postgres://user:hunter2@{address}/db?sslmode=disable");
        for &name in HTTP_FUNCTIONS {
            let mut function = start_function(name, &[("DATABASE_URL", &url)]).await;
            let outcome = function.invoke(&sample_event(name)).await;
            assert_eq!(outcome.status(), 503, "{name} {outcome:?}");
            assert_eq!(outcome.payload["headers"]["retry-after"], "5");
            assert_eq!(outcome.body()["code"], "database_unavailable");
            assert!(!function.log().contains("hunter2"));
        }
        let mut function = start_function("run-maintenance", &[("DATABASE_URL", &url)]).await;
        let outcome = function.invoke("{}").await;
        assert!(outcome.failed);
        assert_eq!(outcome.payload["errorType"], "database_unavailable", "{outcome:?}");
    }
}

#[tokio::test]
async fn no_response_passes_what_lambda_can_hand_on() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(100, "2026-01-10 00:00:00").await;
    // 100 MB, much of it escaped: read as a whole it would be far too much.
    database.execute(r#"UPDATE "EventLog" SET metadata = repeat('"m', 500000)"#).await;
    database.execute(r#"ALTER TABLE "Stream" ADD notes TEXT; UPDATE "Stream" SET notes = repeat('n', 6000000)"#).await;
    database
        .service()
        .run_maintenance(Trigger::Api.request(), time("2026-05-31T02:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    for name in ["list-archived-logs", "list-stream-events"] {
        let mut event: Value = serde_json::from_str(&sample_event(name)).unwrap();
        event["rawQueryString"] = "limit=1000".into();
        let outcome = start(name, &database).await.invoke(&event.to_string()).await;
        assert_eq!(outcome.status(), 200, "{name}");
        assert!(outcome.payload.to_string().len() < 6_000_000);
        assert!(outcome.body()["nextCursor"].is_string());
    }

    for name in ["get-snapshot", "list-snapshots", "get-stream-state"] {
        let outcome = start(name, &database).await.invoke(&sample_event(name)).await;
        assert_eq!((outcome.status(), &outcome.body()["code"]), (500, &json!("response_too_large")), "{name}");
    }
}

#[tokio::test]
async fn a_function_recovers_when_its_connection_was_cut_between_two_events() {
    let database = with_history().await;
    let mut function = start("get-snapshot", &database).await;
    for _ in 0..3 {
        assert_eq!(function.invoke(&sample_event("get-snapshot")).await.status(), 200);
        database
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE application_name = 'snapshot-service/get-snapshot' AND datname = current_database()",
            )
            .await;
    }
}

#[tokio::test]
async fn no_answer_contains_what_the_database_said() {
    let database = with_history().await;
    database.execute(r#"ALTER TABLE "StreamSnapshot" RENAME sender TO renamed; ALTER TABLE "StreamArchive" RENAME sender TO renamed"#).await;
    for name in READERS {
        let mut function = start(name, &database).await;
        let outcome = function.invoke(&sample_event(name)).await;
        assert_eq!(outcome.status(), 500, "{outcome:?}");
        assert_eq!(
            (&outcome.body()["error"], &outcome.body()["code"]),
            (&json!("internal error"), &json!("internal_error"))
        );
        assert!(function.log().contains("does not exist"), "the log says why");
    }
}

#[tokio::test]
async fn a_stored_value_that_cannot_be_read_is_not_the_callers_fault() {
    let database = with_history().await;
    database
        .execute(
            r#"ALTER TABLE "StreamSnapshot" DROP CONSTRAINT "StreamSnapshot_snapshotMonth_check";
               UPDATE "StreamSnapshot" SET "snapshotMonth" = 'May';
               ALTER TABLE "MaintenanceRun" DROP CONSTRAINT "MaintenanceRun_status_check";
               UPDATE "MaintenanceRun" SET status = 'fine';
               UPDATE "ArchiveVerification" SET breaks = '{}'"#,
        )
        .await;
    for (name, column) in [
        ("list-snapshots", "snapshotMonth"),
        ("get-maintenance-run", "status"),
        ("list-maintenance-runs", "status"),
        ("get-verification", "breaks"),
    ] {
        let mut function = start(name, &database).await;
        let outcome = function.invoke(&sample_event(name)).await;
        let body = outcome.body();
        assert_eq!((outcome.status(), &body["code"]), (500, &json!("internal_error")), "{name}: {body}");
        assert_eq!(body["error"], "internal error");
        assert!(function.log().contains(&format!("a stored value cannot be read: {column}")), "the log says which");
    }
}

#[tokio::test]
async fn a_malformed_event_fails_its_invocation_only() {
    let database = with_history().await;
    for name in FUNCTIONS {
        let mut function = start(name, &database).await;
        for malformed in ["not JSON", "[]", r#"{"what": "is this"}"#, "null"] {
            let outcome = function.invoke(malformed).await;
            assert!(outcome.failed, "{name} took {malformed}: {outcome:?}");
        }
        let outcome = function.invoke(&sample_event(name)).await;
        assert!(!outcome.failed, "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_bad_configuration_stops_the_start_with_a_line_that_names_the_variable() {
    for (variable, value) in [
        ("DATABASE_URL", "mysql://db"),
        ("RETENTION_MONTHS", "0"),
        ("BATCH_ROWS", "many"),
        ("STATEMENT_TIMEOUT_SECONDS", "8s"),
        ("LOCK_TIMEOUT_SECONDS", "-1"),
        ("MAINTENANCE_BUDGET_SECONDS", "0"),
        ("AWS_LAMBDA_LOG_LEVEL", "loud"),
    ] {
        let variables = [("DATABASE_URL", "postgres://u@localhost/db"), (variable, value)];
        let mut function = start_function("get-snapshot", &variables).await;
        assert_eq!(function.exit_code().await, Some(78), "{variable}");
        let log = function.log();
        assert!(log.lines().count() == 1 && log.contains(&format!("{variable}: ")), "{log}");
    }
}

#[tokio::test]
async fn a_function_names_the_request_and_sends_no_answer_that_the_caller_has() {
    let database = with_history().await;
    let event = |name: &str, header: &str, value: &str| {
        let mut event: Value = serde_json::from_str(&sample_event(name)).unwrap();
        event["headers"][header] = value.into();
        event
    };
    let mut get = start("get-snapshot", &database).await;
    let outcome = get.invoke(&event("get-snapshot", "x-request-id", "my-own").to_string()).await;
    let headers = &outcome.payload["headers"];
    assert_eq!((outcome.status(), &headers["x-request-id"]), (200, &json!("my-own")));
    assert_eq!(headers["cache-control"], "private, max-age=3600");
    let tag = headers["etag"].as_str().unwrap().to_owned();
    let outcome = get.invoke(&event("get-snapshot", "if-none-match", &tag).to_string()).await;
    assert_eq!((outcome.status(), &outcome.payload["headers"]["etag"]), (304, &json!(tag)));
    assert!(outcome.payload["body"].as_str().is_none_or(str::is_empty), "{outcome:?}");

    let mut list = start("list-archived-logs", &database).await;
    let mut page = event("list-archived-logs", "x-request-id", "two words");
    page["rawQueryString"] = "limit=2".into();
    page["queryStringParameters"] = json!({"limit": "2"});
    let outcome = list.invoke(&page.to_string()).await;
    let link = format!("<?limit=2&cursor={}>; rel=\"next\"", outcome.body()["nextCursor"].as_str().unwrap());
    assert_eq!(outcome.payload["headers"]["link"], link);
    assert_ne!(
        outcome.payload["headers"]["x-request-id"], "two words",
        "it could not be told from other text in a log"
    );

    let mut trigger = start("trigger-maintenance", &database).await;
    for (media_type, status) in [("text/plain", 415), ("application/json; charset=utf-8", 200)] {
        let mut event = event("trigger-maintenance", "content-type", media_type);
        event["body"] = r#"{"dryRun": true}"#.into();
        let outcome = trigger.invoke(&event.to_string()).await;
        assert_eq!(outcome.status(), status, "{outcome:?}");
    }
}
