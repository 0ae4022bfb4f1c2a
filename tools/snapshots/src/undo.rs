use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;
use snapshot_service::{
    Deadline, LegalHold, Phase, ReleaseRequest, RestoreDryRunReport, RestoreRequest, SnapshotService, StreamId, Trigger,
};
use uuid::Uuid;

use crate::lines_file::LinesFile;
use crate::maintain::{finish, watch};
use crate::operate;
use crate::output::{Output, confirm, count, table};
use crate::reading::{instant, stream_id};
use crate::{Result, stop_on_signal};

#[derive(clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    target: Target,
    /// Count what would be restored, by month; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Stop after this time, such as 90s, 10m or 1h30m; running again continues
    #[arg(long, value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
}

/// Logs that match all that is named.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Target {
    /// Logs of this stream, by any of its ids
    #[arg(long, value_parser = stream_id)]
    stream: Option<StreamId>,
    /// Logs created at this time or later, such as 2026-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<DateTime<Utc>>,
    /// Logs created before this time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<DateTime<Utc>>,
    /// Logs that this run archived
    #[arg(long)]
    run: Option<Uuid>,
}

/// Moves archived logs back and prints the run; Ctrl-C stops it after its batch.
pub(crate) async fn restore(options: Restore, output: Output) -> Result<ExitCode> {
    let Target { stream, from, to, run } = options.target;
    let request = RestoreRequest::new(stream, from, to, run)?;
    if !options.dry_run {
        confirm("Move these logs back to \"EventLog\"? --dry-run counts them.", options.yes)?;
    }
    let (_database, service) = operate::open("restore").await?;
    let deadline = deadline(options.budget)?;
    if options.dry_run {
        let report = service.dry_run_restore(&request, &deadline).await?;
        output.print(&report, || describe_dry_run(&report))?;
        return Ok(ExitCode::SUCCESS);
    }
    let work = Box::pin(service.restore(Trigger::Cli, &request, Utc::now(), &deadline));
    let run = watch(&service, true, output, work).await;
    finish(&service, run, output).await
}

fn describe_dry_run(report: &RestoreDryRunReport) -> String {
    let mut lines = vec![format!("{} logs would be moved back to \"EventLog\"", count(report.logs_to_restore))];
    if !report.months.is_empty() {
        let rows = report
            .months
            .iter()
            .map(|month| [month.month.to_string(), count(month.rows), count(month.on_hold), count(month.in_the_way)]);
        lines.extend([String::new(), table(["MONTH", "LOGS", "ON HOLD", "IN THE WAY"], rows), String::new()]);
    }
    lines.push("Nothing was written.".into());
    lines.join("\n")
}

fn deadline(budget: Option<Duration>) -> Result<Deadline> {
    Ok(budget.map_or_else(Deadline::never, Deadline::after).or_when(stop_on_signal()?))
}

#[derive(clap::Args)]
pub(crate) struct Hold {
    /// The stream, by any of its ids
    #[arg(long, value_parser = stream_id)]
    stream: StreamId,
    /// Why, for whoever asks
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

/// A hold, and whether it was placed just now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlacedHold {
    #[serde(flatten)]
    hold: LegalHold,
    is_new: bool,
}

pub(crate) async fn hold(options: Hold, output: Output) -> Result<()> {
    let (_database, service) = operate::open("hold").await?;
    let (hold, is_new) = service.hold_stream(&options.stream, &options.reason, &operate::user()).await?;
    let already = if is_new { "" } else { " (it was held for that already)" };
    let mut text = format!("{}{already}", operate::describe_hold(&hold));
    if let Some(warning) = &hold.warning {
        text = format!("{text}\nwarning: {warning}");
    }
    output.print(&PlacedHold { hold, is_new }, || text)
}

#[derive(clap::Args)]
pub(crate) struct Release {
    /// End the legal hold of the stream instead
    #[arg(long, requires = "stream", requires = "reason", conflicts_with = "run")]
    hold: bool,
    /// Only logs of this stream, by any of its ids
    #[arg(long, value_parser = stream_id)]
    stream: Option<StreamId>,
    /// Only logs that this restore moved back
    #[arg(long)]
    run: Option<Uuid>,
    /// Why the hold ends
    #[arg(long, requires = "hold", value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Which hold, where the stream has several; `snapshots status` has their ids
    #[arg(long, requires = "hold")]
    id: Option<Uuid>,
}

/// What a release has ended.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Released {
    /// The legal hold, if one was to be ended and was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<LegalHold>,
    /// Restored logs that may be archived again.
    logs_released: u64,
}

pub(crate) async fn release(options: Release, output: Output) -> Result<()> {
    let (_database, service) = operate::open("release").await?;
    if let Release { hold: true, stream: Some(stream), reason: Some(reason), .. } = &options {
        let hold = service.release_hold(stream, options.id, reason, &operate::user()).await?;
        let text = hold.as_ref().map_or_else(
            || format!("stream {stream} was not on such a hold"),
            |hold| format!("released: {}", operate::describe_hold(hold)),
        );
        return output.print(&Released { hold, logs_released: 0 }, || text);
    }
    let request = ReleaseRequest { stream: options.stream, run: options.run };
    let rows = service.release_restored_logs(&request).await?;
    output.print(&Released { hold: None, logs_released: rows }, || {
        format!("{rows} restored logs released: the next maintenance archives those that are due")
    })
}

#[derive(clap::Args)]
pub(crate) struct Rollback {
    /// Write the snapshots to a file, and drop them too
    #[arg(long)]
    drop_snapshots: bool,
    /// Where the snapshots are written, a line of JSON each
    #[arg(long, default_value = "StreamSnapshot.jsonl", requires = "drop_snapshots")]
    snapshots_file: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Where legal holds, findings and other records are written that would be gone, a line of JSON each
    #[arg(long, default_value = "SnapshotServiceRecords.jsonl")]
    records_file: PathBuf,
    /// Stop after this time, such as 90s, 10m or 1h30m; running again continues
    #[arg(long, value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
}

/// What a rollback has done.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct RolledBack {
    /// Whether there was anything to roll back.
    was_installed: bool,
    logs_restored: u64,
    snapshots_written: u64,
    records_written: u64,
    /// What somebody else must do.
    warnings: Vec<String>,
}

/// Moves every archived log back and drops what the migrations made; Ctrl-C stops it after its batch.
pub(crate) async fn rollback(options: Rollback, output: Output) -> Result<ExitCode> {
    let (_database, service) = operate::open("rollback").await?;
    if !service.is_installed().await? {
        output.print(&RolledBack::default(), || "there is nothing to roll back".into())?;
        return Ok(ExitCode::SUCCESS);
    }
    confirm("Move every archived log back to \"EventLog\", and drop the service's tables?", options.yes)?;
    let deadline = deadline(options.budget)?;
    let restore_all = service.restore_all(Trigger::Cli, options.drop_snapshots, Utc::now(), &deadline);
    let run = match watch(&service, false, output, Box::pin(restore_all)).await {
        Ok(run) if run.phase == Phase::Vacuum && run.finished_at.is_none() => run,
        other => return finish(&service, other, output).await,
    };
    let files = Files { service: &service, run: run.id, deadline: &deadline, output };
    let written = async {
        let snapshots =
            if options.drop_snapshots { files.write(&options.snapshots_file, Lines::Snapshots).await? } else { 0 };
        Ok((snapshots, files.write(&options.records_file, Lines::Records).await?))
    };
    let written: Result<_> = written.await;
    if deadline.has_come().is_some() {
        return finish(&service, Ok(run), output).await;
    }
    let (snapshots, records) = written?;
    let warnings = service.drop_all(run.id, snapshots).await?;
    let done = RolledBack {
        was_installed: true,
        logs_restored: run.logs_restored,
        snapshots_written: snapshots,
        records_written: records,
        warnings,
    };
    output.print(&done, || {
        let mut lines =
            vec![format!("{} logs are back in \"EventLog\"; the service's tables are dropped", run.logs_restored)];
        for (number, of, path) in
            [(snapshots, "snapshots", &options.snapshots_file), (records, "records", &options.records_file)]
        {
            if number > 0 {
                lines.push(format!("{number} {of} are in {}", path.display()));
            }
        }
        lines.extend(done.warnings.iter().cloned());
        lines.join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

enum Lines {
    Snapshots,
    Records,
}

/// What a rollback writes before it drops anything.
struct Files<'a> {
    service: &'a SnapshotService,
    run: Uuid,
    deadline: &'a Deadline,
    output: Output,
}

impl Files<'_> {
    /// Writes all `lines` to the file at `path`, which appears when it is whole. One that is there already must be the same.
    async fn write(&self, path: &Path, lines: Lines) -> Result<u64> {
        let mut file = LinesFile::open(path, self.run)?;
        let write = |line: &str| {
            if self.deadline.has_come().is_some() {
                return Err(std::io::Error::other("stopped"));
            }
            file.write(line)
        };
        let (written, of) = match lines {
            Lines::Snapshots => (self.service.write_snapshots(write).await?, "snapshots"),
            Lines::Records => (self.service.write_records(write).await?, "records"),
        };
        file.finish()?;
        if written > 0 {
            self.output.say(&format!("{written} {of} are written to {}", path.display()));
        }
        Ok(written)
    }
}
