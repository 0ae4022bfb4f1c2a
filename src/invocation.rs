//! Invocations that do not come over HTTP: what they accept, what they do, and how Lambda hears that they failed.

use std::time::Duration;

use crate::database::Pool;
use chrono::{DateTime, Utc};
use lambda_runtime::Diagnostic;
use serde::Serialize;
use serde_json::Value;

use crate::database::{self, MigrationReport};
use crate::error::{Error, Result, chain};
use crate::maintenance::Deadline;
use crate::metrics;
use crate::model::{BacklogReport, MaintenanceRun, Month, StepEvent, StepReport, Trigger};
use crate::service::SnapshotService;

/// How soon a scheduled run looks again whether another one has ended.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// What an invocation of `run-maintenance` answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum MaintenanceAnswer {
    /// To a schedule, or to somebody by hand: the run as it then is.
    Run(Box<MaintenanceRun>),
    /// To the state machine; `null` where it asks for nothing.
    Step(Option<StepReport>),
}

/// Works on what `event` asks for: maintenance as a whole, or one step of the state machine.
///
/// # Errors
///
/// [`Error::UnknownEvent`], and those of [`SnapshotService::run_maintenance`].
pub async fn run_maintenance(
    service: &SnapshotService,
    event: Value,
    deadline_ms: u64,
    now: DateTime<Utc>,
) -> Result<MaintenanceAnswer> {
    let deadline = Deadline::before_invocation_ends(deadline_ms, now);
    let run = async {
        if event.get("step").is_some() {
            let event: StepEvent = serde_json::from_value(event).map_err(Error::UnknownStep)?;
            return service.run_step(&event, now, &deadline).await.map(MaintenanceAnswer::Step);
        }
        let run = run_whole_maintenance(service, &event, &deadline, now).await?;
        Ok(MaintenanceAnswer::Run(Box::new(run)))
    };
    run.await.inspect_err(|error| log("snapshot maintenance failed", error))
}

/// Runs maintenance for a schedule's `event`. Schedules deliver at least once: a period that was run already is not run again, and
/// one that is under way is left to its owner; its run is returned as it is. Another run is waited for.
async fn run_whole_maintenance(
    service: &SnapshotService,
    event: &Value,
    deadline: &Deadline,
    now: DateTime<Utc>,
) -> Result<MaintenanceRun> {
    let trigger = match check_event(event)? {
        Sender::Schedule => Trigger::Schedule { period: period(event, now) },
        Sender::Person => Trigger::Api,
    };
    loop {
        match service.run_maintenance(trigger.request(), now, deadline).await {
            // A duplicate delivery: the first one is at it.
            Err(Error::UnderWay { run, period, .. })
                if period.is_some() && period == trigger.period().map(|period| period.to_string()) =>
            {
                tracing::info!(%run, "snapshot maintenance: is under way already");
                return service.find_maintenance_run(run).await?.ok_or(Error::NotFound { what: "Run" });
            }
            // Another run is in the way of this period's: it would be skipped if nobody waited.
            Err(Error::UnderWay { run, .. }) if trigger.period().is_some() && deadline.has_come().is_none() => {
                tracing::info!(%run, "snapshot maintenance: waits for the run that is under way");
                deadline.sleep(RETRY_INTERVAL).await;
            }
            // An older run went first and was cancelled: this period's is still to come.
            Ok(run) if run.finished_at.is_some() && run.period != trigger.period() && trigger.period().is_some() => {
                tracing::info!(run = %run.id, "snapshot maintenance: goes on with the run of its period");
            }
            result => return result,
        }
    }
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

/// Emits how far maintenance is behind, for a schedule's `event`. What verifications have found is counted by the day
/// that ends with the event's time, so that each day is counted once.
///
/// # Errors
///
/// [`Error::UnknownEvent`], and those of [`SnapshotService::get_backlog`].
pub async fn report_metrics(service: &SnapshotService, event: Value, now: DateTime<Utc>) -> Result<BacklogReport> {
    let report = async {
        check_event(&event)?;
        let report = service.get_backlog(time(&event, now)).await?;
        metrics::emit_backlog(&report);
        Ok(report)
    };
    report.await.inspect_err(|error| log("metrics are not reported", error))
}

/// Who sent an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// EventBridge Scheduler or a scheduled rule.
    Schedule,
    /// Somebody by hand, with `{}`.
    Person,
}

/// Checks that `event` is `{}` or was sent by EventBridge Scheduler or a scheduled rule. It carries no instructions:
/// an activation looks at what is and brings it to what should be. Whoever sends something else expects something else.
fn check_event(event: &Value) -> Result<Sender> {
    let source = event.get("source").and_then(Value::as_str);
    let by_hand = event.as_object().is_some_and(serde_json::Map::is_empty);
    match source {
        Some("aws.scheduler" | "aws.events") => Ok(Sender::Schedule),
        _ if by_hand => Ok(Sender::Person),
        _ => Err(Error::UnknownEvent),
    }
}

/// The month that a schedule fired for.
fn period(event: &Value, now: DateTime<Utc>) -> Month {
    Month::containing(time(event, now))
}

/// The event's time, which every delivery of it repeats; `now` where it says none, or one to come.
fn time(event: &Value, now: DateTime<Utc>) -> DateTime<Utc> {
    let time = event.get("time").and_then(Value::as_str).and_then(|time| DateTime::parse_from_rfc3339(time).ok());
    time.map_or(now, |time| time.to_utc().min(now))
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
        assert_eq!(check_event(&json!({})).expect("by hand"), Sender::Person);
        for event in [
            json!({"source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": "{}"}),
            json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}),
        ] {
            assert_eq!(check_event(&event).expect("a schedule's"), Sender::Schedule, "{event}");
        }
    }

    #[test]
    fn every_delivery_of_a_schedule_is_for_the_month_that_it_fired_in() {
        let now = "2026-06-02T05:00:00Z".parse().expect("a time");
        for (event, month) in [
            (json!({"time": "2026-06-01T02:00:00Z"}), "2026-06"),
            (json!({"time": "2026-05-01T02:00:00Z"}), "2026-05"),
            (json!({"time": "2026-06-01T01:00:00+02:00"}), "2026-05"),
            (json!({"time": "2099-01-01T02:00:00Z"}), "2026-06"),
            (json!({"time": "soon"}), "2026-06"),
            (json!({}), "2026-06"),
        ] {
            assert_eq!(period(&event, now).to_string(), month, "{event}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for event in [json!(null), json!([]), json!("{}"), json!({"month": "2026-01"}), json!({"source": "aws.s3"})] {
            assert_eq!(check_event(&event).expect_err("refused").code(), "unknown_event", "{event}");
        }
    }
}
