use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use chrono::Utc;
use snapshot_service::{Deadline, Error, MaintenanceRequest, MaintenanceRun, SnapshotService, Trigger};

use crate::{Result, database, print_json, progress, stop_on_signal};

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

/// Runs maintenance and prints its run as JSON; Ctrl-C stops it after its batch.
pub(crate) async fn maintain(options: Options) -> Result<ExitCode> {
    let database = database::open("maintain").await?;
    let mut settings = database.config.settings.clone();
    settings.workers = options.workers.map_or(settings.workers, usize::from);
    let service = SnapshotService::new(database.pool.clone(), settings);
    let deadline = options.budget.map_or_else(Deadline::never, Deadline::after).or_when(stop_on_signal()?);
    if options.dry_run {
        print_json(&service.dry_run(options.refresh, Utc::now(), &deadline).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = MaintenanceRequest { trigger: Trigger::Cli, refresh: options.refresh, force: options.force };
    let run = watch(&service, false, Box::pin(service.run_maintenance(request, Utc::now(), &deadline))).await;
    finish(&service, run).await
}

/// Does `work`, on a restore or on another run, and shows meanwhile how far it is.
pub(crate) async fn watch<T>(
    service: &SnapshotService,
    is_restore: bool,
    work: Pin<Box<impl Future<Output = T>>>,
) -> T {
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
) -> Result<ExitCode> {
    match run {
        Ok(run) => {
            print_json(&run)?;
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
