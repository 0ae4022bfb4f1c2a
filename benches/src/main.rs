//! `make bench`: the service's figures, each a ratio of two measurements of this very run, or a number of its own.
//!
//! Prints them, and writes them to `benches/RESULTS.md` with the machine's description. With the argument `footprint`, what
//! each function weighs and how fast it starts, instead.

mod data;
mod footprint;
mod functions;
mod maintenance;
mod report;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use local_postgres::{Options, Server};

use report::{Figure, Report};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
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

async fn run() -> Result<bool> {
    // Durable, as a real one is: fsync is on.
    let settings = ["shared_buffers = 512MB", "max_wal_size = 4GB", "max_connections = 50"];
    let options = Options { settings: settings.map(String::from).to_vec(), ..Options::default() };
    let folder = std::env::temp_dir().join(format!("snapshot-service-bench-{}", std::process::id()));
    let server = Server::start(&folder, &options)?;
    let result = if std::env::args().any(|argument| argument == "footprint") {
        footprint::measure(&server).await.map(|()| true)
    } else {
        measure(&server, &settings).await.map(|report| report.all_reached())
    };
    drop(server);
    // Its supervisor is still taking it down.
    while std::fs::remove_dir_all(&folder).is_err() && folder.exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    result
}

async fn measure(server: &Server, settings: &[&str]) -> Result<Report> {
    let mut report = Report::new(server, settings).await?;
    data::create_templates(server).await?;

    for (name, invocation, query) in functions::warm(server).await? {
        report.add(Figure::below(
            &format!("warm `{name}` through the Runtime API, against the bare query on the same driver, median"),
            invocation.as_secs_f64() / query.as_secs_f64(),
            1.5,
            format!("{invocation:.2?} against {query:.2?}"),
        ))?;
    }
    let (ours, bare) = functions::first_poll(server).await?;
    report.add(Figure::below(
        "spawn to first Runtime API poll, `get-snapshot`, against a bare lambda_runtime binary, median",
        ours.as_secs_f64() / bare.as_secs_f64(),
        3.0,
        format!("{ours:.2?} against {bare:.2?}"),
    ))?;
    let (ours, plain) = maintenance::snapshots(server).await?;
    report.add(Figure::at_least(
        "snapshots of 100k streams, against one plain INSERT ... SELECT",
        plain.as_secs_f64() / ours.as_secs_f64(),
        0.9,
        format!("{ours:.2?} against {plain:.2?}"),
    ))?;
    let idle = maintenance::nothing_to_do(server).await?;
    report.add(Figure::below(
        "a second maintenance run with nothing to do, 1M-row EventLog, 20k streams",
        idle.as_secs_f64(),
        0.1,
        format!("{idle:.1?}"),
    ))?;
    let archive = maintenance::archive(server).await?;
    report.add(Figure::at_least(
        "archiving 1M-row EventLog (750k due), against plain SQL on one connection",
        archive.ours / archive.plain,
        1.8,
        format!("{:.0} rows/s, with indexes, ANALYZE and VACUUM, against {:.0} rows/s", archive.ours, archive.plain),
    ))?;
    report.add(Figure::at_least(
        "the same with seals and hash checks, against without",
        archive.proved_share,
        0.7,
        format!(
            "{:.0} rows/s against {:.0} rows/s; the ratio is the median of the pairs'",
            archive.ours, archive.unproved
        ),
    ))?;
    let (ours, bare) = maintenance::verify(server).await?;
    report.add(Figure::at_least(
        "verification of 750k archived rows, against one sequential scan that computes one sha256 per row",
        ours / bare,
        0.7,
        format!("{ours:.0} rows/s against {bare:.0} rows/s"),
    ))?;
    let peaks = maintenance::peak_memory(server).await?;
    let (least, most) = (peaks.iter().min().copied().unwrap_or(0), peaks.iter().max().copied().unwrap_or(0));
    report.add(Figure::below(
        "peak memory of the maintenance process at 100k, 1M and 5M rows, in MB",
        report::megabytes(most),
        40.0,
        format!(
            "{} MB; the largest is {:.2} times the smallest",
            peaks.map(|peak| format!("{:.1}", report::megabytes(peak))).join(", "),
            report::megabytes(most) / report::megabytes(least)
        ),
    ))?;
    let (full, empty) = maintenance::archive_into_full(server).await?;
    report.add(Figure::at_least(
        "the same with 10M rows already archived, against an empty archive",
        full / empty,
        0.9,
        format!("{full:.0} rows/s against {empty:.0} rows/s"),
    ))?;
    Ok(report)
}
