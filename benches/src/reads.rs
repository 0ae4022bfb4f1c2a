use std::path::Path;

use local_postgres::Server;
use snapshot_service::{ArchiveFilter, Month, PageRequest, Settings, SnapshotService, StreamId};

use crate::data::{self, NOW};
use crate::maintenance::maintain;
use crate::pairs::Spread;
use crate::{Result, report};

const READS: usize = 200;
/// The first reads of a connection fill its caches.
const WARM_UP: usize = 20;
const PAGE: u16 = 50;
/// One that has events, by its contract-level id.
const STREAM: &str = "41650000777";
/// Goes to the server after each read, so that its log tells them apart.
const END_OF_READ: &str = "SELECT 'end of a read'";

/// What the server says of a read, in this order.
const PHASES: [&str; 5] = ["begin", "parse", "plan", "execute", "commit"];

/// The server's time for a read, in milliseconds.
pub(crate) struct ServerTime {
    pub(crate) total: Spread,
    pub(crate) phases: [f64; PHASES.len()],
}

impl ServerTime {
    /// Of reads with those milliseconds in each phase.
    fn of(reads: &[[f64; PHASES.len()]]) -> Self {
        let phase = |index: usize| Spread::of(reads.iter().map(|phases| phases[index]).collect()).median;
        let total = Spread::of(reads.iter().map(|phases| phases.iter().sum()).collect());
        Self { total, phases: std::array::from_fn(phase) }
    }

    pub(crate) fn detail(&self) -> String {
        let phases: Vec<_> = PHASES.iter().zip(self.phases).map(|(name, time)| format!("{name} {time:.2}")).collect();
        format!("medians of {READS} reads, in ms: {}", phases.join(", "))
    }
}

/// The server's time for a stream's snapshot, and for a page of its events, of both tables.
pub(crate) async fn server_time(server: &Server, events: u32) -> Result<[ServerTime; 2]> {
    report::say("making data to read");
    // Each stream has 100 events, a quarter of them hot: the page has of both, and does not end the stream.
    data::create_with_snapshots(server, "reads", data::HOST_SCHEMA, events / 100, events).await?;
    maintain(server, "reads", true).await?;
    for statement in ["VACUUM ANALYZE", "ALTER DATABASE reads SET log_min_duration_statement = 0", "CHECKPOINT"] {
        data::execute(server, "reads", statement).await?;
    }
    let pool = data::pool(server, "reads", 1).await?;
    let service = SnapshotService::new(pool.clone(), Settings::default());
    let (stream, month, page) =
        (StreamId::new(STREAM)?, Month::containing(NOW.parse()?), PageRequest::new(PAGE, None)?);

    let snapshot = time_reads(server, &pool, async || {
        service.get_snapshot(&stream, month).await?.ok_or("there is no snapshot")?;
        Ok(())
    });
    let snapshot = snapshot.await?;
    let events = time_reads(server, &pool, async || {
        let events = service.list_stream_events(&stream, &ArchiveFilter::default(), &page).await?.items;
        let archived = events.iter().filter(|event| event.event.archived_at.is_some()).count();
        if events.len() != usize::from(PAGE) || archived == 0 || archived == events.len() {
            return Err(format!("{archived} of {} events of the page are archived", events.len()).into());
        }
        Ok(())
    });
    let events = events.await?;
    pool.close();
    data::drop(server, "reads").await?;
    Ok([snapshot, events])
}

/// Reads by the only connection of `pool`, and what the server's log says that took it.
async fn time_reads(
    server: &Server,
    pool: &snapshot_service::database::Pool,
    read: impl AsyncFn() -> Result<()>,
) -> Result<ServerTime> {
    let folder: String =
        data::connect(&server.url("postgres")).await?.query_one("SHOW data_directory", &[]).await?.get(0);
    let file = Path::new(&folder).with_file_name("log");
    let logged_before = usize::try_from(std::fs::metadata(&file)?.len())?;
    for _ in 0..WARM_UP + READS {
        read().await?;
        pool.get().await?.batch_execute(END_OF_READ).await?;
    }
    let log = std::fs::read(&file)?;
    let reads = durations_of_reads(&String::from_utf8_lossy(&log[logged_before..]));
    if reads.len() != WARM_UP + READS {
        return Err(format!("the server's log has {} reads", reads.len()).into());
    }
    Ok(ServerTime::of(&reads[WARM_UP..]))
}

/// Milliseconds of each phase of each read in a server's log.
fn durations_of_reads(log: &str) -> Vec<[f64; PHASES.len()]> {
    let durations = log.lines().filter_map(|line| {
        let (milliseconds, what) = line.split_once("LOG:  duration: ")?.1.split_once(" ms  ")?;
        Some((milliseconds.parse::<f64>().ok()?, what))
    });
    let (mut reads, mut current) = (Vec::new(), [0.0; PHASES.len()]);
    for (milliseconds, what) in durations {
        if what.ends_with(END_OF_READ) {
            reads.push(std::mem::take(&mut current));
            continue;
        }
        // A statement is planned when its parameters are bound.
        let phase = match what.split([' ', ':']).next() {
            Some("parse") => 1,
            Some("bind") => 2,
            Some("execute") => 3,
            _ if what.ends_with("COMMIT") => 4,
            _ => 0,
        };
        current[phase] += milliseconds;
    }
    reads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_the_phases_of_each_read() {
        let log = "2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 0.500 ms  statement: BEGIN; SET LOCAL jit = off
2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 0.250 ms  parse <unnamed>: SELECT
\t    1
2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 1.000 ms  bind <unnamed>: SELECT
2026-05-31 02:00:00.000 UTC [7] DETAIL:  parameters: $1 = '1'
2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 2.000 ms  execute <unnamed>: SELECT
2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 4.000 ms  bind <unnamed>: SELECT
2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 0.125 ms  statement: COMMIT
2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 9.000 ms  statement: SELECT 'end of a read'
2026-05-31 02:00:00.000 UTC [8] LOG:  checkpoint starting: time
2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 3.000 ms  execute s1: SELECT
2026-05-31 02:00:00.000 UTC [7] LOG:  duration: 9.000 ms  statement: SELECT 'end of a read'
";
        assert_eq!(durations_of_reads(log), [[0.5, 0.25, 5.0, 2.0, 0.125], [0.0, 0.0, 0.0, 3.0, 0.0]]);
    }
}
