//! The figures by name: what each one measures, what it must reach, and what it aims at.

use local_postgres::Server;

use crate::pairs::{Pairs, Spread};
use crate::report::{Figure, Goal};
use crate::{Result, functions, maintenance, reads};

/// Those of a whole run, in the order in which they are measured.
pub(crate) const NAMES: [&str; 11] =
    ["archive", "proof", "verify", "snapshots", "filled", "idle", "large", "reads", "memory", "start", "size"];

/// Those of cases that were slow once.
pub(crate) const FURTHER_NAMES: [&str; 2] = ["partitioned", "hashes"];

/// Those that need no template of 1M events.
pub(crate) const WITHOUT_MILLION: [&str; 5] = ["snapshots", "reads", "memory", "start", "size"];

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || FURTHER_NAMES.contains(&name)
}

/// Measures what is called `name`, with `events` in place of 1M.
pub(crate) async fn measure(server: &Server, name: &str, events: u32) -> Result<Vec<Figure>> {
    let figures = match name {
        "archive" => return archive(server).await,
        "reads" => return reads(server, events).await,
        "proof" => rates(
            "archiving a 1M-row log with proof, against without",
            &maintenance::prove(server).await?,
            Goal::AtLeast(0.9),
        ),
        "verify" => rates(
            "verification of 750k archived rows, against one sequential scan with one sha256 a row",
            &maintenance::verify(server).await?,
            Goal::AtLeast(1.3),
        )
        .aim(1.8),
        "snapshots" => rates(
            "snapshots of 100k streams, against one plain `INSERT ... SELECT` into an indexed table",
            &maintenance::snapshots(server).await?,
            Goal::AtLeast(1.0),
        ),
        "filled" => rates(
            "archiving a 1M-row log into an archive of 10M rows, against into an empty one",
            &maintenance::archive_into_full(server, events).await?,
            Goal::AtLeast(0.95),
        ),
        "idle" => idle(server).await?,
        "large" => rates(
            "archiving a log of 10M rows (7.5M due), against one of 1M",
            &maintenance::archive_large(server, events).await?,
            Goal::AtLeast(0.9),
        ),
        "memory" => memory(server).await?,
        "start" => start(server).await?,
        "size" => size()?,
        "partitioned" => rates(
            "archiving a 1M-row log partitioned by month, against an ordinary one",
            &maintenance::archive_partitioned(server, events).await?,
            Goal::AtLeast(0.77),
        ),
        "hashes" => rates(
            "archiving a 1M-row log whose hashes are all wrong, against right ones",
            &maintenance::archive_wrong_hashes(server).await?,
            Goal::AtLeast(0.9),
        ),
        _ => return Err(format!("no figure is called {name}").into()),
    };
    Ok(vec![figures])
}

/// A ratio of rows per second.
fn rates(name: &str, pairs: &Pairs, goal: Goal) -> Figure {
    let measured = format!("{:.0} rows/s against {:.0} rows/s", pairs.ours(), pairs.reference());
    Figure::new(name, pairs.ratio(), goal, measured)
}

async fn archive(server: &Server) -> Result<Vec<Figure>> {
    let [speed, processor] = maintenance::archive(server).await?;
    let speed = rates(
        "archiving a 1M-row log with right hashes (750k due), with proof, indexes, ANALYZE and VACUUM, against plain SQL by key",
        &speed,
        Goal::AtLeast(1.5),
    )
    .aim(2.0);
    let processor = Figure::new(
        "the server's processor time per archived row, in all its processes, against the same reference",
        processor.ratio(),
        Goal::AtMost(1.0),
        format!("{:.1} µs a row against {:.1} µs a row", processor.ours(), processor.reference()),
    )
    .aim(0.9);
    Ok(vec![speed, processor])
}

async fn idle(server: &Server) -> Result<Figure> {
    let times = maintenance::nothing_to_do(server).await?;
    let name = "a run with nothing to do, 1M-row log and 20k streams, in ms";
    Ok(Figure::new(name, times, Goal::AtMost(60.0), format!("{:.1} ms", times.median)).aim(30.0))
}

async fn reads(server: &Server, events: u32) -> Result<Vec<Figure>> {
    let [snapshot, page] = reads::server_time(server, events).await?;
    let figure =
        |name, time: &reads::ServerTime, goal| Figure::new(name, time.total, Goal::AtMost(goal), time.detail());
    Ok(vec![
        figure("the server's time for one snapshot, in ms", &snapshot, 0.55),
        figure("the server's time for a page of 50 events, hot and archived, in ms", &page, 1.6),
    ])
}

async fn memory(server: &Server) -> Result<Figure> {
    let peaks = functions::peak_memory(server).await?;
    let measured = peaks.iter().map(|peak| format!("{peak:.1}")).collect::<Vec<_>>().join(", ");
    // None of them may have more.
    let peaks = Spread::of(peaks);
    let most = Spread { median: peaks.highest, ..peaks };
    let name = "peak memory of `run-maintenance` at 100k, 1M and 5M rows, the largest, in MB";
    Ok(Figure::new(name, most, Goal::AtMost(40.0), format!("{measured} MB")))
}

async fn start(server: &Server) -> Result<Figure> {
    let pairs = functions::first_poll(server).await?;
    let name = "spawn to first Runtime API poll of `get-snapshot`, against a bare lambda_runtime binary";
    let measured = format!("{:.2} ms against {:.2} ms", pairs.ours(), pairs.reference());
    Ok(Figure::new(name, pairs.ratio(), Goal::AtMost(3.0), measured))
}

/// It is loaded at each cold start, while a reader waits.
fn size() -> Result<Figure> {
    let size = functions::size("get-snapshot")?;
    Ok(Figure::new("size of `get-snapshot`, in MB", Spread::of(vec![size]), Goal::AtMost(6.0), format!("{size:.2} MB")))
}
