//! CloudWatch's metrics, as lines of its embedded metric format on stdout: what a function logs in that form CloudWatch
//! counts. All are of one namespace, the stack's, without dimensions, as the template's alarms look for them.
//! `docs/reference/metrics.md` has the list. Lines have the run and the invocation's ids beside the metrics.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use metrics::{Unit, counter, describe_counter, histogram};
use metrics_cloudwatch_embedded::{Builder, Collector};

use crate::logging;
use crate::maintenance::Settings;
use crate::model::{BacklogReport, SliceReport};

const SNAPSHOTS_CREATED: &str = "SnapshotsCreated";
const LOGS_ARCHIVED: &str = "LogsArchived";
const ROWS_PER_SECOND: &str = "RowsPerSecond";
const BACKLOG_ROWS: &str = "BacklogRows";
const BACKLOG_AGE: &str = "BacklogAge";
const UNPARSED_AMOUNTS: &str = "UnparsedAmounts";
const HOST_FINDINGS: &str = "HostFindings";
const VERIFICATION_BREAKS: &str = "VerificationBreaks";
const SLICE_TIME: &str = "SliceTime";
const BATCH_TIME: &str = "BatchTime";
const RUNS_FAILED: &str = "RunsFailed";
/// CloudWatch has no unit for it.
const HOURS_SINCE_LAST_SUCCESS: &str = "HoursSinceLastSuccess";

const UNITS: [(&str, Unit); 11] = [
    (SNAPSHOTS_CREATED, Unit::Count),
    (LOGS_ARCHIVED, Unit::Count),
    (ROWS_PER_SECOND, Unit::CountPerSecond),
    (BACKLOG_ROWS, Unit::Count),
    (BACKLOG_AGE, Unit::Seconds),
    (UNPARSED_AMOUNTS, Unit::Count),
    (HOST_FINDINGS, Unit::Count),
    (VERIFICATION_BREAKS, Unit::Count),
    (SLICE_TIME, Unit::Milliseconds),
    (BATCH_TIME, Unit::Milliseconds),
    (RUNS_FAILED, Unit::Count),
];

/// The crate writes what its global recorder has gathered; here that is gathered and written at once. There are
/// counters, and histograms, which are lists of values; no gauges: one that was set once is on all later lines.
static COLLECTOR: OnceLock<&'static Collector> = OnceLock::new();

/// Emits metrics in `namespace` from here on; before, there are none. To be called once.
pub fn init(namespace: &str) {
    match Builder::new().cloudwatch_namespace(namespace.to_owned()).emit_zeros(true).init() {
        Ok(collector) => {
            COLLECTOR.get_or_init(|| collector);
        }
        Err(error) => tracing::error!(%error, "there will be no metrics"),
    }
    for (name, unit) in UNITS {
        describe_counter!(name, unit, "");
    }
}

/// `settings` with which maintenance emits what each slice has done, in `namespace`.
#[must_use]
pub fn reporting_slices(mut settings: Settings, namespace: &str) -> Settings {
    init(namespace);
    settings.on_slice = Some(emit_slice);
    settings
}

fn emit_slice(report: &SliceReport) {
    let Some(collector) = COLLECTOR.get() else { return };
    counter!(SNAPSHOTS_CREATED).increment(report.snapshots_created);
    counter!(UNPARSED_AMOUNTS).increment(report.unparsed_amounts);
    counter!(LOGS_ARCHIVED).increment(report.logs_archived);
    counter!(HOST_FINDINGS).increment(report.hash_mismatches + report.links_missing);
    for time in &report.batch_times {
        histogram!(BATCH_TIME).record(milliseconds(*time));
    }
    if let Some(rate) = report.rows_per_second {
        histogram!(ROWS_PER_SECOND).record(rate);
    }
    if let Some(outcome) = report.outcome {
        histogram!(SLICE_TIME).record(milliseconds(outcome.time));
        counter!(RUNS_FAILED).increment(outcome.failed.into());
    }
    collector.set_property("run", report.run.to_string());
    write(collector);
}

/// Emits how far maintenance is behind.
#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more")]
pub fn emit_backlog(report: &BacklogReport) {
    let Some(collector) = COLLECTOR.get() else { return };
    histogram!(HOURS_SINCE_LAST_SUCCESS).record(report.hours_since_last_success);
    if let Some(rows) = report.backlog_rows {
        histogram!(BACKLOG_ROWS).record(rows as f64);
    }
    if let Some(age) = report.backlog_age_seconds {
        histogram!(BACKLOG_AGE).record(age);
    }
    counter!(VERIFICATION_BREAKS).increment(report.verification_breaks);
    write(collector);
}

fn write(collector: &Collector) {
    for (name, id) in logging::current_invocation().unwrap_or_default().ids() {
        match id {
            Some(id) => collector.set_property(name, id),
            None => collector.remove_property(name),
        };
    }
    // Lambda leaves out lines below the function's log level, and takes one that says none, or not when, for INFO.
    // Metrics are wanted at every level.
    collector.set_property("level", "FATAL");
    collector.set_property("timestamp", Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true));
    // As a whole, so that no other line gets in between.
    if let Err(error) = collector.flush(io::stdout().lock()) {
        tracing::error!(%error, "metrics are lost");
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
