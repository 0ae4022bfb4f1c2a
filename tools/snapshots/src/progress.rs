use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use snapshot_service::{MaintenanceRun, Phase, Scope, SnapshotService, Verification};
use tokio::time::Instant;

/// How often a terminal is brought up to date.
const BAR_INTERVAL: Duration = Duration::from_millis(250);
/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The bars on the terminal: what is written to it goes above them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Standard error, for the log.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Shows how far the open restore is, or the open run of another scope, for ever: as a bar on a terminal, as lines elsewhere.
pub(crate) async fn show(service: &SnapshotService, is_restore: bool) -> Infallible {
    show_with(async || {
        // Not being able to look is no reason to stop the work.
        let runs = service.list_open_maintenance_runs().await.ok()?;
        let run = runs.into_iter().find(|run| (run.scope == Scope::Restore) == is_restore)?;
        let (position, length) = position(&run);
        Some(Shown { position, length, message: message(&run), line: describe(&run) })
    })
    .await
}

/// The same of the last verification.
pub(crate) async fn show_verification(service: &SnapshotService) -> Infallible {
    show_with(async || {
        let verification = service.find_last_verification().await.ok().flatten()?;
        let Verification { rows_done: position, rows_total: length, break_count, .. } = verification;
        let message = format!("rows verified, {break_count} breaks");
        let line = format!("snapshot maintenance: {position}/{length} {message}");
        Some(Shown { position, length, message, line })
    })
    .await
}

/// How far something is.
struct Shown {
    position: u64,
    length: u64,
    message: String,
    /// All of it, where there is no bar.
    line: String,
}

async fn show_with(look: impl AsyncFn() -> Option<Shown>) -> Infallible {
    let terminal = io::stderr().is_terminal();
    let bar = terminal.then(|| BARS.add(ProgressBar::no_length().with_style(style())));
    let mut last_line = Instant::now();
    loop {
        tokio::time::sleep(BAR_INTERVAL).await;
        let Some(Shown { position, length, message, line }) = look().await else { continue };
        if let Some(bar) = &bar {
            bar.set_length(length.max(position));
            bar.set_position(position);
            bar.set_message(message);
        } else if last_line.elapsed() >= LINE_INTERVAL {
            last_line = Instant::now();
            print_line(&line);
        }
    }
}

/// Takes the bar away.
pub(crate) fn clear() {
    // The terminal may be gone.
    let _ = BARS.clear();
}

/// Writes a line for people.
pub(crate) fn print_line(line: &str) {
    // As above.
    let _ = writeln!(LogWriter, "{line}");
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} {msg}");
    style.expect("the template is constant")
}

fn position(run: &MaintenanceRun) -> (u64, u64) {
    match run.phase {
        Phase::Snapshots => (run.streams, run.streams_estimated.unwrap_or(run.streams)),
        _ => (run.rows(), run.rows_estimated.unwrap_or(0)),
    }
}

/// What the bar does not say.
fn message(run: &MaintenanceRun) -> String {
    if let Some(reason) = &run.waiting_for {
        return format!("waiting: {reason}");
    }
    match run.phase {
        Phase::Snapshots => format!("streams, {} snapshots written", run.snapshots_created),
        Phase::Archive | Phase::Restore => {
            let month = run.current_month.map(|month| format!(" of {month}")).unwrap_or_default();
            let rate = run.rows_per_second.map(|rate| format!(", {rate:.0} rows/s")).unwrap_or_default();
            let left = run.remaining_seconds.map(|left| format!(", {} left", duration(left))).unwrap_or_default();
            format!("rows{month}{rate}{left}")
        }
        Phase::Vacuum => "rows, vacuuming".into(),
        Phase::Done => "rows".into(),
    }
}

/// A run as one line.
pub(crate) fn describe(run: &MaintenanceRun) -> String {
    let (position, length) = position(run);
    let (phase, percent) = (run.phase.as_str(), run.percent);
    format!("snapshot maintenance: {phase} {percent} %, {position}/{length} {}", message(run))
}

/// A time span in words.
pub(crate) fn duration(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
