use std::path::PathBuf;
use std::time::Duration;

use local_postgres::Server;
use runtime_api::Function;

use crate::pairs::{Pairs, in_turn};
use crate::{Result, data, report};

const STARTS: usize = 40;
/// How many rows `EventLog` has while the memory of `run-maintenance` is measured.
const ROWS: [u32; 3] = [100_000, 1_000_000, 5_000_000];

/// A binary that was built beside this one.
pub(crate) fn binary(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

/// In MB.
#[expect(clippy::cast_precision_loss, reason = "a size in MB needs no more")]
pub(crate) fn size(name: &str) -> Result<f64> {
    Ok(std::fs::metadata(binary(name))?.len() as f64 / 1e6)
}

/// Milliseconds from spawn to the first poll of `get-snapshot`, and of a function that does nothing.
pub(crate) async fn first_poll(server: &Server) -> Result<Pairs> {
    let url = server.url("postgres");
    let start = async |name| {
        let function = Function::start(binary(name), name, &[("DATABASE_URL", &url)]).await;
        Ok([function.time_to_first_poll().await.as_secs_f64() * 1e3])
    };
    let [pairs] = in_turn(STARTS, async || start("get-snapshot").await, async || start("bare-function").await).await?;
    Ok(pairs)
}

/// Of the function `run-maintenance`, in MB, at each of [`ROWS`].
pub(crate) async fn peak_memory(server: &Server) -> Result<Vec<f64>> {
    let mut peaks = Vec::new();
    for rows in ROWS {
        report::say(&format!("memory at {rows} rows"));
        data::create(server, "memory", data::HOST_SCHEMA, 20_000, rows).await?;
        let url = server.url("memory");
        let mut function =
            Function::start(binary("run-maintenance"), "run-maintenance", &[("DATABASE_URL", &url)]).await;
        function.set_timeout(Duration::from_mins(15)).await;
        let outcome = function.invoke("{}").await;
        if outcome.payload["complete"] != true {
            return Err(format!("maintenance did not end: {outcome:?}").into());
        }
        peaks.push(report::megabytes(function.peak_memory_kb()));
        data::drop(server, "memory").await?;
    }
    Ok(peaks)
}
