//! `make bench`: the service's figures, each a ratio of two measurements of this very run, or a number of its own.
//!
//! `benchmarks`: takes [`figures::NAMES`], prints them, and writes them to `benches/RESULTS.md` with the machine's description.
//! `benchmarks NAME...`: takes and prints those alone. Some can be had so only: [`figures::FURTHER_NAMES`].
//! `--events N` makes databases with N events in place of 1M, and 10N in place of 10M, to try a figure: what the figure then
//! says of itself is untrue.
//! `benchmarks footprint`: what each function weighs and how fast it starts, instead.

mod data;
mod figures;
mod footprint;
mod functions;
mod maintenance;
mod pairs;
mod processes;
mod reads;
mod report;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use local_postgres::{Options, Server};

use report::Report;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

// As the functions have it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(all_reached) if all_reached => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            report::say(&format!("error: {error:?}"));
            ExitCode::FAILURE
        }
    }
}

/// What is asked for on the command line.
struct Arguments {
    footprint: bool,
    names: Vec<String>,
    events: Option<u32>,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let mut parsed = Self { footprint: false, names: Vec::new(), events: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "footprint" => parsed.footprint = true,
                "--events" => parsed.events = Some(arguments.next().ok_or("--events needs a number")?.parse()?),
                name if figures::is_known(name) => parsed.names.push(argument),
                name => {
                    let known = [&figures::NAMES[..], &figures::FURTHER_NAMES].concat().join(", ");
                    return Err(format!("no figure is called {name}: there are {known}, and footprint").into());
                }
            }
        }
        Ok(parsed)
    }
}

async fn run() -> Result<bool> {
    let arguments = Arguments::parse()?;
    // Durable, as a real one is: fsync is on.
    let settings = ["shared_buffers = 512MB", "max_wal_size = 4GB", "max_connections = 50"];
    let options = Options { settings: settings.map(String::from).to_vec(), ..Options::default() };
    let folder = std::env::temp_dir().join(format!("snapshot-service-bench-{}", std::process::id()));
    let server = Server::start(&folder, &options)?;
    let result = if arguments.footprint {
        footprint::measure(&server).await.map(|()| true)
    } else {
        measure(&server, &settings, arguments).await.map(|report| report.all_reached())
    };
    drop(server);
    // Its supervisor is still taking it down.
    while std::fs::remove_dir_all(&folder).is_err() && folder.exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    result
}

async fn measure(server: &Server, settings: &[&str], arguments: Arguments) -> Result<Report> {
    // The file is of one whole run.
    let is_kept = arguments.names.is_empty() && arguments.events.is_none();
    let mut report = Report::new(server, settings, is_kept).await?;
    let names = if arguments.names.is_empty() { figures::NAMES.map(String::from).into() } else { arguments.names };
    let events = arguments.events.unwrap_or(1_000_000);
    if names.iter().any(|name| !figures::WITHOUT_MILLION.contains(&name.as_str())) {
        data::create_million(server, events).await?;
    }
    for name in &names {
        for figure in figures::measure(server, name, events).await? {
            report.add(figure)?;
        }
    }
    Ok(report)
}
