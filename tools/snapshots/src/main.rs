//! `snapshots`: the operator's command line of snapshot-service, and its local server.

mod database;
mod demo;
mod doctor;
mod lines_file;
mod maintain;
mod operate;
mod progress;
mod schedule;
mod serve;
mod undo;
mod verify;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use snapshot_service::database::migrate_with_renames;
use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Monthly snapshots and an event archive for payment streams.
///
/// Works on the database that DATABASE_URL names; without it on a private PostgreSQL whose data is under
/// .local/postgres in the current folder, with demo data.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API on http://localhost and run the monthly schedule, until Ctrl-C
    Serve {
        /// Port on 127.0.0.1
        #[arg(long, default_value_t = 3000)]
        port: u16,
        /// Do not run maintenance on the 1st of each month at 02:00 UTC
        #[arg(long)]
        no_schedule: bool,
    },
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
    Doctor(doctor::Options),
    /// Tell how the last run of maintenance fares, and whether maintenance is paused
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
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
        Command::Serve { .. } => runtime::Builder::new_multi_thread(),
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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(|| progress::LogWriter)
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(arguments.command).await {
        Ok(code) => code,
        Err(error) => {
            let mut message = format!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                message = format!("{message}: {error}");
                cause = error.source();
            }
            // The terminal may be gone; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve { port, no_schedule } => serve::serve(port, !no_schedule).await?,
        Command::Migrate { rename } => {
            let database = database::open("migrate").await?;
            print_json(&migrate_with_renames(&database.pool, &rename).await?)?;
        }
        Command::Maintain(options) => return maintain::maintain(options).await,
        Command::Verify(options) => return verify::verify(options).await,
        Command::Doctor(options) => return doctor::doctor(options).await,
        Command::Status { json } => operate::status(json).await?,
        Command::Pause { reason } => operate::pause(&reason).await?,
        Command::Resume => operate::resume().await?,
        Command::Cancel => operate::cancel().await?,
        Command::Restore(options) => return undo::restore(options).await,
        Command::Release(options) => undo::release(options).await?,
        Command::Hold(options) => undo::hold(options).await?,
        Command::Rollback(options) => return undo::rollback(options).await,
        Command::DemoData { streams, events } => {
            let database = database::open_without_demo("demo-data").await?;
            demo::add(&database, streams, events).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
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

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(value)?)?)
}
