//! `snapshots`: the operator's command line of snapshot-service, and its local server.

mod database;
mod demo;
mod doctor;
mod lines_file;
mod maintain;
mod operate;
mod output;
mod progress;
mod reading;
mod schedule;
mod serve;
mod undo;
mod verify;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use snapshot_service::database::{MigrationReport, migrate_with_renames};
use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

use output::{Output, write_out};

/// Monthly snapshots and an event archive for payment streams.
///
/// Works on the database that DATABASE_URL names. Without it `serve` and `demo-data` make a private PostgreSQL, whose data is under
/// .local/postgres in the current folder; other commands work on that one if it is there.
///
/// Exit codes: 0 done, 1 failed, 2 a wrong command line, 3 incomplete (run it again, and it goes on), 4 breaks (of verify), 130 stopped by
/// the second Ctrl-C.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API on http://localhost and run the monthly schedule, until Ctrl-C
    Serve(serve::Options),
    /// Bring the service's tables up to date
    Migrate {
        /// A column of "EventLog" that the host has renamed, as former=present; may be given several times
        #[arg(long, value_name = "FORMER=PRESENT", value_parser = renamed)]
        rename: Vec<(String, String)>,
    },
    /// Take this month's snapshots and archive old logs, now; exit code 0: complete, 3: incomplete, 1: failed
    Maintain(maintain::Options),
    /// Prove that the archive is what was archived; exit code 0: it is, 4: it is not, 3: incomplete, 1: failed
    Verify(verify::Options),
    /// Look at the host's database and say what of it keeps maintenance from its work; exit code 0: nothing, 1: something does
    Doctor,
    /// Tell in one look how maintenance fares: the last run and the next, what is due, whether it is paused, what is held
    Status(operate::StatusOptions),
    /// List the runs of maintenance, newest first
    Runs(reading::PageOptions),
    /// Tell of one run
    Run {
        /// Its id; `snapshots runs` has them
        id: Uuid,
    },
    /// List the months of the archive with their seals
    Months,
    /// List the legal holds in force
    Holds,
    /// List a stream's snapshots, newest month first
    List(reading::List),
    /// Show a stream's snapshot of one month
    Get(reading::Get),
    /// List a stream's archived logs, newest first
    Archive(reading::Events),
    /// List a stream's events, hot and archived, newest first
    Events(reading::Events),
    /// Show what a stream's state at a past time follows from: the last snapshot before it, and the events since
    State(reading::State),
    /// Stop maintenance after its batch, and let none go on or start until it is resumed
    Pause {
        /// Why, for whoever asks
        #[arg(long, default_value = "no reason given")]
        reason: String,
    },
    /// End the pause; the next trigger continues the open run
    Resume,
    /// End every open run for good; what they have done stays
    Cancel,
    /// Move archived logs back to "EventLog"; exit codes as maintain
    Restore(undo::Restore),
    /// Let restored logs be archived again, or end a legal hold
    Release(undo::Release),
    /// Keep a stream's logs where they are until the hold is released
    Hold(undo::Hold),
    /// Move every archived log back and drop what the migrations made; exit codes as maintain
    Rollback(undo::Rollback),
    /// Add made-up streams and events to the private database, or to empty host tables in DATABASE_URL's
    DemoData {
        /// How many streams
        #[arg(long, default_value_t = demo::DEFAULT_STREAMS, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        streams: u32,
        /// How many events, over the last twelve months
        #[arg(long, default_value_t = demo::DEFAULT_EVENTS, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
        events: u32,
    },
    /// Write a shell's completions: snapshots completions bash > ~/.local/share/bash-completion/completions/snapshots
    Completions {
        /// Which shell
        shell: Shell,
    },
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A column's former and its present name.
fn renamed(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((former, present)) if !former.is_empty() && !present.is_empty() => Ok((former.into(), present.into())),
        _ => Err("must be FORMER=PRESENT, two names of a column".into()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // As the functions have it: rows are worked on by the thread that reads them. To hand them to another thread costs time. Only the
    // requests to a server have nothing to do with each other.
    let mut runtime = match arguments.command {
        Command::Serve(_) => runtime::Builder::new_multi_thread(),
        _ => runtime::Builder::new_current_thread(),
    };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(execute(arguments)),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(arguments: Arguments) -> ExitCode {
    let output = arguments.output;
    let level = if output.is_quiet() { "warn" } else { "info" };
    let named = EnvFilter::try_from_default_env().ok().filter(|_| !output.is_quiet());
    let filter = named.unwrap_or_else(|| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_writer(|| progress::LogWriter)
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(output::has_colours(&std::io::stderr()))
        .init();
    match run(arguments.command, output).await {
        Ok(code) => code,
        Err(error) if output::is_end_of_reading(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = format!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                message = format!("{message}: {error}");
                cause = error.source();
            }
            if let Some(advice) = advice(&*error) {
                message = format!("{message}; {advice}");
            }
            // The terminal may be gone; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

/// What to do next about an error that does not say so itself.
fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match error.downcast_ref::<snapshot_service::Error>()?.code() {
        "database_unavailable" => Some("look whether the server runs, and whether DATABASE_URL names it"),
        "database_busy" => Some("try again; `snapshots status` tells who is at work"),
        "lease_lost" => Some("`snapshots status` tells who has it"),
        "snapshots_incomplete" => Some("`snapshots maintain` takes them"),
        "not_found" => Some("look at how it is written; `snapshots runs` and `snapshots list` have what there is"),
        "internal_error" => Some("this should not be: try again with RUST_LOG=debug, and report what it says"),
        _ => None,
    }
}

async fn run(command: Command, output: Output) -> Result<ExitCode> {
    match command {
        Command::Serve(options) => serve::serve(options, output).await?,
        Command::Migrate { rename } => {
            let database = database::open("migrate").await?;
            let report = migrate_with_renames(&database.pool, &rename).await?;
            output.print(&report, || describe_migration(&report))?;
        }
        Command::Maintain(options) => return maintain::maintain(options, output).await,
        Command::Verify(options) => return verify::verify(options, output).await,
        Command::Doctor => return doctor::doctor(output).await,
        Command::Status(options) => operate::status(options, output).await?,
        Command::Runs(options) => operate::runs(options, output).await?,
        Command::Run { id } => operate::run(id, output).await?,
        Command::Months => operate::months(output).await?,
        Command::Holds => operate::holds(output).await?,
        Command::List(options) => reading::list(options, output).await?,
        Command::Get(options) => reading::get(options, output).await?,
        Command::Archive(options) => reading::archive(options, output).await?,
        Command::Events(options) => reading::events(options, output).await?,
        Command::State(options) => reading::state(options, output).await?,
        Command::Pause { reason } => operate::pause(&reason, output).await?,
        Command::Resume => operate::resume(output).await?,
        Command::Cancel => operate::cancel(output).await?,
        Command::Restore(options) => return undo::restore(options, output).await,
        Command::Release(options) => undo::release(options, output).await?,
        Command::Hold(options) => undo::hold(options, output).await?,
        Command::Rollback(options) => return undo::rollback(options, output).await,
        Command::DemoData { streams, events } => {
            let database = database::open_or_make("demo-data").await?;
            demo::add(&database, streams, events).await?;
            output.print(&serde_json::json!({"streams": streams, "events": events}), || {
                format!("added {streams} streams and {events} events")
            })?;
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "snapshots", &mut script);
            write_out(&String::from_utf8(script)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `migrate` changed, and what somebody is to do or to know.
fn describe_migration(report: &MigrationReport) -> String {
    let mut lines = Vec::new();
    match report.applied.len() {
        0 => lines.push("all migrations were applied before".into()),
        1 => lines.push("applied 1 migration".into()),
        number => lines.push(format!("applied {number} migrations")),
    }
    if !report.archive_columns_changed.is_empty() {
        lines.push(format!(
            "the archive has new columns, or types of columns: {}",
            report.archive_columns_changed.join(", ")
        ));
    }
    if report.logs_sealed > 0 {
        lines.push(format!("sealed {} archived logs", output::count(report.logs_sealed)));
    }
    lines.extend(report.former_tables.iter().map(|former| {
        let may = if former.may_be_dropped { "it may be dropped when nothing reads it" } else { "it must stay" };
        format!(
            "{} of the former service: {} rows, {} of them copied now; {may}",
            former.table, former.rows, former.copied
        )
    }));
    lines.extend(report.lost.iter().map(|lost| format!("lost: {lost}")));
    lines.extend(report.role_warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.extend(report.findings.iter().map(|finding| format!("{}: {finding}", finding.code)));
    lines.join("\n")
}

/// A token that is cancelled by Ctrl-C or SIGTERM: work ends with the batch under way. The second time the process ends at
/// once, which loses nothing either.
fn stop_on_signal() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let cancelled = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(130);
            }
            cancelled.cancel();
        }
    });
    Ok(stop)
}
