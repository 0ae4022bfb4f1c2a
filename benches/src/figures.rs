//! The figures by name: what each one measures, and its target.

use std::time::Duration;

use local_postgres::Server;

use crate::report::{self, Figure};
use crate::{Result, functions, maintenance};

/// Their names, in the order in which they are measured.
pub(crate) const NAMES: [&str; 11] =
    ["warm", "start", "snapshots", "idle", "archive", "partitioned", "hashes", "verify", "memory", "look", "filled"];

/// Measures what is called `name`.
pub(crate) async fn measure(server: &Server, name: &str) -> Result<Vec<Figure>> {
    match name {
        "warm" => warm(server).await,
        "start" => start(server).await,
        "snapshots" => snapshots(server).await,
        "idle" => idle(server).await,
        "archive" => archive(server).await,
        "partitioned" => partitioned(server).await,
        "hashes" => hashes(server).await,
        "verify" => verify(server).await,
        "memory" => memory(server).await,
        "look" => look(server).await,
        "filled" => filled(server).await,
        _ => Err(format!("no figure is called {name}: there are {}", NAMES.join(", ")).into()),
    }
}

async fn warm(server: &Server) -> Result<Vec<Figure>> {
    let figures = functions::warm(server).await?.map(|(name, invocation, query)| {
        Figure::below(
            &format!("warm `{name}` through the Runtime API, against the bare query on the same driver, median"),
            invocation.as_secs_f64() / query.as_secs_f64(),
            1.5,
            format!("{invocation:.2?} against {query:.2?}"),
        )
    });
    Ok(figures.into())
}

async fn start(server: &Server) -> Result<Vec<Figure>> {
    let (ours, bare) = functions::first_poll(server).await?;
    Ok(vec![Figure::below(
        "spawn to first Runtime API poll, `get-snapshot`, against a bare lambda_runtime binary, median",
        ours.as_secs_f64() / bare.as_secs_f64(),
        3.0,
        format!("{ours:.2?} against {bare:.2?}"),
    )])
}

async fn snapshots(server: &Server) -> Result<Vec<Figure>> {
    let (ours, plain) = maintenance::snapshots(server).await?;
    Ok(vec![Figure::at_least(
        "snapshots of 100k streams, against one plain INSERT ... SELECT",
        plain.as_secs_f64() / ours.as_secs_f64(),
        0.9,
        format!("{ours:.2?} against {plain:.2?}"),
    )])
}

async fn idle(server: &Server) -> Result<Vec<Figure>> {
    let idle = maintenance::nothing_to_do(server).await?;
    Ok(vec![Figure::below(
        "a second maintenance run with nothing to do, 1M-row EventLog, 20k streams",
        idle.as_secs_f64(),
        0.1,
        format!("{idle:.1?}"),
    )])
}

async fn archive(server: &Server) -> Result<Vec<Figure>> {
    let archive = maintenance::archive(server).await?;
    Ok(vec![
        Figure::at_least(
            "archiving 1M-row EventLog (750k due), against plain SQL on one connection",
            archive.ours / archive.plain,
            1.8,
            format!(
                "{:.0} rows/s, with indexes, ANALYZE and VACUUM, against {:.0} rows/s",
                archive.ours, archive.plain
            ),
        ),
        Figure::at_least(
            "the same with seals and hash checks, against without",
            archive.proved_share,
            0.7,
            format!(
                "{:.0} rows/s against {:.0} rows/s; the ratio is the median of the pairs'",
                archive.ours, archive.unproved
            ),
        ),
    ])
}

async fn partitioned(server: &Server) -> Result<Vec<Figure>> {
    let pair = maintenance::archive_partitioned(server).await?;
    Ok(vec![time_of_pair(
        "archiving 1M-row EventLog (750k due) partitioned by month, against an ordinary one, ratio of times",
        1.3,
        &pair,
    )])
}

async fn hashes(server: &Server) -> Result<Vec<Figure>> {
    let pair = maintenance::archive_wrong_hashes(server).await?;
    Ok(vec![time_of_pair(
        "archiving 1M-row EventLog (750k due) whose hashes are all wrong, against right ones, ratio of times",
        1.1,
        &pair,
    )])
}

fn time_of_pair(name: &str, most: f64, pair: &maintenance::Pair) -> Figure {
    let [ours, other] = [pair.one, pair.other].map(Duration::from_secs_f64);
    let detail = format!("{ours:.2?} against {other:.2?}; the ratio is the median of the pairs'");
    Figure::below(name, pair.ratio, most, detail)
}

async fn verify(server: &Server) -> Result<Vec<Figure>> {
    let (ours, bare) = maintenance::verify(server).await?;
    Ok(vec![Figure::at_least(
        "verification of 750k archived rows, against one sequential scan that computes one sha256 per row",
        ours / bare,
        0.7,
        format!("{ours:.0} rows/s against {bare:.0} rows/s"),
    )])
}

async fn memory(server: &Server) -> Result<Vec<Figure>> {
    let peaks = maintenance::peak_memory(server).await?;
    let (least, most) = (peaks.iter().min().copied().unwrap_or(0), peaks.iter().max().copied().unwrap_or(0));
    Ok(vec![Figure::below(
        "peak memory of the maintenance process at 100k, 1M and 5M rows, in MB",
        report::megabytes(most),
        40.0,
        format!(
            "{} MB; the largest is {:.2} times the smallest",
            peaks.map(|peak| format!("{:.1}", report::megabytes(peak))).join(", "),
            report::megabytes(most) / report::megabytes(least)
        ),
    )])
}

async fn look(server: &Server) -> Result<Vec<Figure>> {
    let took = maintenance::host_look(server).await?;
    Ok(vec![Figure::below(
        "one look at the catalogue of a host with 500 further tables, median, in ms",
        took.as_secs_f64() * 1e3,
        20.0,
        format!("{took:.1?}"),
    )])
}

async fn filled(server: &Server) -> Result<Vec<Figure>> {
    let (full, empty) = maintenance::archive_into_full(server).await?;
    Ok(vec![Figure::at_least(
        "the same with 10M rows already archived, against an empty archive",
        full / empty,
        0.9,
        format!("{full:.0} rows/s against {empty:.0} rows/s"),
    )])
}
