//! Invocations that do not come over HTTP: what they accept, what they do, and how Lambda hears that they failed.

use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use lambda_runtime::Diagnostic;
use serde_json::Value;

use crate::database::{self, MigrationReport};
use crate::error::{Error, Result, chain};
use crate::maintenance::Deadline;
use crate::model::MaintenanceReport;
use crate::service::SnapshotService;

/// Runs maintenance for a schedule's `event`, until shortly before the invocation is stopped at `deadline_ms`
/// (milliseconds since the epoch).
///
/// # Errors
///
/// [`Error::UnknownEvent`], and those of [`SnapshotService::run_maintenance`].
pub async fn run_maintenance(
    service: &SnapshotService,
    event: Value,
    deadline_ms: u64,
    now: DateTime<Utc>,
) -> Result<MaintenanceReport> {
    let run = async {
        check_event(&event)?;
        service.run_maintenance(now, &Deadline::before_invocation_ends(deadline_ms, now)).await
    };
    run.await.inspect_err(|error| log("snapshot maintenance failed", error))
}

/// Migrates for a deployment's `event`.
///
/// # Errors
///
/// [`Error::UnknownEvent`], and those of [`database::migrate`].
pub async fn migrate(pool: &Pool, event: Value) -> Result<MigrationReport> {
    let run = async {
        check_event(&event)?;
        database::migrate(pool).await
    };
    run.await.inspect_err(|error| log("migration failed", error))
}

/// Checks that `event` is `{}` or was sent by EventBridge Scheduler or a scheduled rule. It carries no instructions:
/// an activation looks at what is and brings it to what should be. Whoever sends something else expects something else.
fn check_event(event: &Value) -> Result<()> {
    let source = event.get("source").and_then(Value::as_str);
    let by_hand = event.as_object().is_some_and(serde_json::Map::is_empty);
    if by_hand || matches!(source, Some("aws.scheduler" | "aws.events")) { Ok(()) } else { Err(Error::UnknownEvent) }
}

fn log(what: &str, error: &Error) {
    tracing::error!(code = error.code(), error = chain(error), "{what}");
}

/// The error's type is its stable code, which a state machine's Retry and Catch can name; the blanket conversions would
/// report a Rust type.
impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self { error_type: error.code().to_owned(), error_message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schedules_events_and_the_empty_one_are_accepted() {
        for event in [
            json!({}),
            json!({"source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": "{}"}),
            json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}),
        ] {
            assert!(check_event(&event).is_ok(), "{event}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for event in [json!(null), json!([]), json!("{}"), json!({"month": "2026-01"}), json!({"source": "aws.s3"})] {
            assert_eq!(check_event(&event).expect_err("refused").code(), "unknown_event", "{event}");
        }
    }
}
