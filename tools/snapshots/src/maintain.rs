use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use chrono::Utc;
use snapshot_service::{
    Deadline, DryRunReport, Error, HeldBack, MaintenanceRequest, MaintenanceRun, SnapshotService, Trigger,
};

use crate::output::{Output, count, table, time};
use crate::{Result, database, operate, progress, stop_on_signal};

/// The exit code of a run that is not complete: running again continues.
pub(crate) const INCOMPLETE: u8 = 3;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Count what would be done, by month and event type; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Retake this month's snapshots
    #[arg(long)]
    refresh: bool,
    /// Archive more rows than MAX_ARCHIVE_ROWS
    #[arg(long)]
    force: bool,
    /// Stop after this time, such as 90s, 10m or 1h30m; running again continues
    #[arg(long, value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
    /// Months archived at the same time, each on a connection of its own
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=32))]
    workers: Option<u8>,
}

/// Runs maintenance and prints its run; Ctrl-C stops it after its batch.
pub(crate) async fn maintain(options: Options, output: Output) -> Result<ExitCode> {
    let database = database::open("maintain").await?;
    let mut settings = database.config.settings.clone();
    settings.workers = options.workers.map_or(settings.workers, usize::from);
    let service = SnapshotService::new(database.pool.clone(), settings);
    let deadline = options.budget.map_or_else(Deadline::never, Deadline::after).or_when(stop_on_signal()?);
    if options.dry_run {
        let report = service.dry_run(options.refresh, Utc::now(), &deadline).await?;
        output.print(&report, || describe_dry_run(&report))?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = MaintenanceRequest { trigger: Trigger::Cli, refresh: options.refresh, force: options.force };
    let work = Box::pin(service.run_maintenance(request, Utc::now(), &deadline));
    let run = watch(&service, false, output, work).await;
    finish(&service, run, output).await
}

/// What a run would do, in words and a table of months.
fn describe_dry_run(report: &DryRunReport) -> String {
    let DryRunReport { snapshot_month, snapshots_due, cutoff, logs_due, months, held_back, estimated_seconds, .. } =
        report;
    let mut lines = vec![
        format!("{} snapshots of {snapshot_month} would be taken", count(*snapshots_due)),
        format!("{} logs from before {} would be archived", count(*logs_due), time(*cutoff)),
    ];
    if !months.is_empty() {
        let rows = months.iter().map(|due| {
            let types: Vec<_> = due.event_types.iter().map(|(kind, rows)| format!("{kind} {}", count(*rows))).collect();
            [due.month.to_string(), count(due.rows), types.join(", ")]
        });
        lines.extend([String::new(), table(["MONTH", "LOGS", "OF THESE"], rows), String::new()]);
        lines.push(format!("That takes about {}.", progress::duration(*estimated_seconds)));
    }
    lines.extend(held_back.iter().map(|held| describe_held_back(held, "would stay")));
    lines.push("Nothing was written.".into());
    lines.join("\n")
}

/// Logs that stay, and why.
pub(crate) fn describe_held_back(held: &HeldBack, stay: &str) -> String {
    format!("{} logs {stay}: {}", count(held.rows), held.message)
}

/// Does `work`, on a restore or on another run, and shows meanwhile how far it is.
pub(crate) async fn watch<T>(
    service: &SnapshotService,
    is_restore: bool,
    output: Output,
    work: Pin<Box<impl Future<Output = T>>>,
) -> T {
    if output.is_quiet() {
        return work.await;
    }
    let done = tokio::select! {
        done = work => done,
        never = progress::show(service, is_restore) => match never {},
    };
    progress::clear();
    done
}

/// Prints a run, or why there was none, and tells the exit code.
pub(crate) async fn finish(
    service: &SnapshotService,
    run: std::result::Result<MaintenanceRun, Error>,
    output: Output,
) -> Result<ExitCode> {
    match run {
        Ok(run) => {
            output.print(&run, || operate::summary(&run))?;
            Ok(if run.complete { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
        }
        Err(error @ (Error::UnderWay { .. } | Error::Paused { .. })) => {
            progress::print_line(&error.to_string());
            if let Error::UnderWay { run, .. } = error
                && let Some(run) = service.find_maintenance_run(run).await?
            {
                progress::print_line(&progress::describe(&run));
            }
            Ok(ExitCode::from(INCOMPLETE))
        }
        Err(error) => Err(error.into()),
    }
}
