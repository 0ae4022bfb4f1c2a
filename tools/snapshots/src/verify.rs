use std::process::ExitCode;
use std::time::Duration;

use chrono::Utc;
use snapshot_service::{Deadline, Month, SnapshotService, VerificationRequest, VerificationStatus};

use crate::maintain::INCOMPLETE;
use crate::{Result, database, print_json, progress, stop_on_signal};

/// The exit code of a verification that found something that is not as it was archived.
const BREAKS: u8 = 4;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this month of the archive, as YYYY-MM
    #[arg(long)]
    month: Option<Month>,
    /// Only the batches that have rows of this stream, by any of its ids, and the stream's own links; a batch that lost all
    /// of them is found without this option
    #[arg(long)]
    stream: Option<String>,
    /// The rows of EventLog, too: their hashes and links
    #[arg(long)]
    full: bool,
    /// Stop after this time, such as 90s, 10m or 1h30m; running again within a day continues
    #[arg(long, value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
    /// Batches recomputed at the same time, each on a connection of its own
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=32))]
    workers: Option<u8>,
}

/// Verifies the archive and prints what was found as JSON; Ctrl-C stops it, and running it again continues.
pub(crate) async fn verify(options: Options) -> Result<ExitCode> {
    let database = database::open("verify").await?;
    let mut settings = database.config.settings.clone();
    settings.workers = options.workers.map_or(settings.workers, usize::from);
    let service = SnapshotService::new(database.pool.clone(), settings);
    let deadline = options.budget.map_or_else(Deadline::never, Deadline::after).or_when(stop_on_signal()?);
    let Options { month, stream, full, .. } = options;
    let verification = tokio::select! {
        verification = service.verify_archive(VerificationRequest { month, stream, full }, Utc::now(), &deadline) => verification,
        never = progress::show_verification(&service) => match never {},
    };
    progress::clear();
    let verification = verification?;
    print_json(&verification)?;
    Ok(match verification.status {
        VerificationStatus::Passed => ExitCode::SUCCESS,
        VerificationStatus::Failed => ExitCode::from(BREAKS),
        VerificationStatus::Running | VerificationStatus::Interrupted => ExitCode::from(INCOMPLETE),
    })
}
