//! The functions' log lines: each has the ids of the invocation that it is of.

use std::time::Duration;

use serde_json::Value;

use crate::support::TestDatabase;
use crate::support::lambda::{FUNCTIONS, sample_event, start_function};

const TRACE: &str = "Root=1-6512f0aa-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1";

/// Checks that each line has its time, its level and the ids, and returns how many there are.
fn assert_traced(log: &str, trace_id: &str, what: &str) -> usize {
    for line in log.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["xrayTraceId"], trace_id, "{what}: {line}");
        assert_eq!(parsed["requestId"], "invocation-1", "{what}: {line}");
        // Without both, Lambda takes it for INFO.
        assert!(chrono::DateTime::parse_from_rfc3339(parsed["timestamp"].as_str().unwrap()).is_ok(), "{line}");
        assert!(["FATAL", "ERROR", "WARN", "INFO", "DEBUG"].contains(&parsed["level"].as_str().unwrap()), "{line}");
    }
    log.lines().count()
}

#[tokio::test]
async fn each_line_of_each_function_has_its_trace_and_its_request() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "many").await;
    database.insert_events(50, "2026-01-10 00:00:00").await;
    for name in FUNCTIONS {
        let mut function =
            start_function(name, &[("DATABASE_URL", &database.url), ("AWS_LAMBDA_LOG_LEVEL", "DEBUG")]).await;
        for trace_id in [TRACE, "Root=1-00000000-000000000000000000000002"] {
            function.set_trace_id(trace_id).await;
            for event in [&sample_event(name), "not JSON"] {
                let outcome = function.invoke(event).await;
                let lines = assert_traced(&outcome.log, trace_id, name);
                // `migrate` has nothing to say.
                assert!(lines > 0 || name == "migrate", "{name}: {event} {outcome:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_ids_are_there_whatever_the_level() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("postgres://user@{nobody}/db?sslmode=disable");
    for level in ["ERROR", "WARN", "DEBUG"] {
        let variables = [("DATABASE_URL", url.as_str()), ("AWS_LAMBDA_LOG_LEVEL", level)];
        let mut function = start_function("run-maintenance", &variables).await;
        function.set_trace_id(TRACE).await;
        let outcome = function.invoke("{}").await;
        assert!(assert_traced(&outcome.log, TRACE, level) > 0);
        assert!(
            outcome.log.contains(r#""level":"ERROR","fields":{"message":"snapshot maintenance failed""#),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_line_of_a_connections_task_has_the_ids_of_the_event_that_is_being_handled() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_events(50, "2026-01-10 00:00:00").await;
    let patient = [("LOCK_TIMEOUT_SECONDS", "60"), ("STATEMENT_TIMEOUT_SECONDS", "60")];
    let variables = [&[("DATABASE_URL", database.url.as_str())], patient.as_slice()].concat();
    let mut function = start_function("run-maintenance", &variables).await;
    function.set_timeout(Duration::from_mins(15)).await;
    // Both workers' connections are opened under the first trace. Under the second, one waits, and the other is cut.
    assert!(!function.invoke("{}").await.failed);
    let mut holder = database.client().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute(r#"LOCK TABLE "MaintenanceRun""#).await.unwrap();
    function.set_trace_id(TRACE).await;
    function.invoke_without_waiting("{}");
    let of_function = "pg_stat_activity WHERE application_name = 'snapshot-service/run-maintenance'
                       AND datname = current_database()";
    while database.count(&format!("{of_function} AND wait_event_type = 'Lock'")).await == 0 {
        tokio::task::yield_now().await;
    }
    database.execute(&format!("SELECT pg_terminate_backend(pid) FROM {of_function} AND state = 'idle'")).await;
    while !function.log().contains("a connection to the database is lost") {
        tokio::task::yield_now().await;
    }
    lock.rollback().await.unwrap();
    let outcome = function.outcome().await;
    assert!(!outcome.failed && outcome.log.contains("a connection to the database is lost"), "{outcome:?}");
    assert_traced(&outcome.log, TRACE, "of a task");
}
