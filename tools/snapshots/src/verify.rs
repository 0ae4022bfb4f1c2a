use std::process::ExitCode;
use std::time::Duration;

use chrono::Utc;
use snapshot_service::{Deadline, Month, SnapshotService, Verification, VerificationRequest, VerificationStatus};

use crate::maintain::INCOMPLETE;
use crate::output::{Output, count};
use crate::{Result, database, progress, stop_on_signal};

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

/// Most breaks, and most findings, that are named one by one; as JSON there are a thousand of each.
const MAX_NAMED: usize = 20;

/// Verifies the archive and prints what was found; Ctrl-C stops it, and running it again continues.
pub(crate) async fn verify(options: Options, output: Output) -> Result<ExitCode> {
    let database = database::open("verify").await?;
    let mut settings = database.config.settings.clone();
    settings.workers = options.workers.map_or(settings.workers, usize::from);
    let service = SnapshotService::new(database.pool.clone(), settings);
    let deadline = options.budget.map_or_else(Deadline::never, Deadline::after).or_when(stop_on_signal()?);
    let Options { month, stream, full, .. } = options;
    let work = service.verify_archive(VerificationRequest { month, stream, full }, Utc::now(), &deadline);
    let verification = if output.is_quiet() {
        work.await
    } else {
        tokio::select! {
            verification = work => verification,
            never = progress::show_verification(&service) => match never {},
        }
    };
    progress::clear();
    let verification = verification?;
    output.print(&verification, || describe(&verification))?;
    Ok(match verification.status {
        VerificationStatus::Passed => ExitCode::SUCCESS,
        VerificationStatus::Failed => ExitCode::from(BREAKS),
        VerificationStatus::Running | VerificationStatus::Interrupted => ExitCode::from(INCOMPLETE),
    })
}

/// What was looked at, what was found, and the verdict last.
fn describe(verification: &Verification) -> String {
    let Verification { rows_done, seals_done, break_count, breaks, finding_count, findings, completed_by_host, .. } =
        verification;
    let mut lines = vec![format!("{} rows and {} seals recomputed", count(*rows_done), count(*seals_done))];
    if *completed_by_host > 0 {
        lines.push(format!(
            "{} rows were completed by the host after they were hashed: no finding",
            count(*completed_by_host)
        ));
    }
    let mut name = |kind: &str, number: u64, messages: Vec<String>| {
        if number == 0 {
            return;
        }
        let named = messages.len().min(MAX_NAMED);
        lines.push(format!("\n{} {kind}:", count(number)));
        lines.extend(messages.into_iter().take(named).map(|message| format!("  {message}")));
        let more = number - named as u64;
        if more > 0 {
            lines.push(format!("  and {} more; --output json names a thousand", count(more)));
        }
    };
    name(
        "findings about the host's hash chain",
        *finding_count,
        findings.iter().map(|found| found.message.clone()).collect(),
    );
    name("breaks", *break_count, breaks.iter().map(|found| found.message.clone()).collect());
    lines.push(String::new());
    lines.push(
        match verification.status {
            VerificationStatus::Passed if *finding_count == 0 => "all is as it was archived",
            VerificationStatus::Passed => "all is as it was archived; the findings are about what the host had written",
            VerificationStatus::Failed => {
                "the archive is not what was archived: see docs/RUNBOOK.md, \"VerificationBreaks\""
            }
            VerificationStatus::Running | VerificationStatus::Interrupted => {
                "not everything was looked at: run it again within a day, and it goes on"
            }
        }
        .into(),
    );
    lines.join("\n")
}
