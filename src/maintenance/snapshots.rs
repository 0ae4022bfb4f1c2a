use futures_util::future::join_all;
use tokio_postgres::Client;
use tracing::{debug, info, warn};

use super::batch_size::BatchSize;
use super::slice::Slice;
use super::throttle::wait_while_busy;
use crate::error::Result;
use crate::model::{MaintenanceRun, Phase, Scope, StopReason};
use crate::store::maintenance_runs::{Progress, estimate_streams};
use crate::store::session;
use crate::store::snapshots::{
    SnapshotBatch, SnapshotRequest, StreamCounts, count_streams, find_stream_after, insert_snapshot_batch,
    may_be_complete,
};

/// Most streams of a batch: it takes a quarter of a second, which makes the cost of its transaction disappear, and a few ten
/// thousand streams are enough for all workers.
const MAX_STREAMS: u32 = 5_000;

/// Takes the month's snapshot of every stream that has none, or of every stream when the run is to retake them, several pages
/// of streams at a time. Ends when none is missing; returns why it stopped, if that was before.
pub(super) async fn take_snapshots(slice: &Slice<'_>) -> Result<Option<StopReason>> {
    let run = &slice.run;
    let client = slice.pool.get().await?;
    let limits = slice.settings.limits();
    let mut after = slice.state.last_stream.clone();
    let mut streams = run.streams;
    if after.is_empty() {
        let may_be = session::read(&client, &limits, may_be_complete(&**client, run.snapshot_month)).await?;
        if may_be {
            match is_complete(slice, &client).await? {
                Completeness::Complete => return Ok(None),
                Completeness::Unknown(stop) => return Ok(Some(stop)),
                Completeness::Incomplete => {}
            }
        }
        let estimate = session::read(&client, &limits, estimate_streams(&**client)).await?;
        slice.record(&Progress { streams_estimated: Some(estimate), ..Progress::default() }).await?;
    }
    drop(client);
    let mut sizes: Vec<_> = (0..slice.settings.workers.max(1)).map(|_| slice.batch_size_up_to(MAX_STREAMS)).collect();
    loop {
        let client = slice.pool.get().await?;
        if let Some(stop) = wait_while_busy(slice, &client).await? {
            return Ok(Some(stop));
        }
        let pages = divide(slice, &client, after.clone(), &mut sizes).await?;
        drop(client);
        // All of them: one that fails does not cut off the others' batches.
        let results = join_all(pages.into_iter().map(|page| page.take(slice))).await;
        let mut seen = 0;
        let mut is_end = false;
        for result in results {
            let taken = match result? {
                Ok(taken) => taken,
                // What the others have taken is there, and found when the position comes to it.
                Err(stop) => return Ok(Some(stop)),
            };
            seen += taken.seen;
            after = taken.last_stream.unwrap_or(after);
            is_end = taken.is_end;
        }
        streams += seen;
        let progress = Progress { streams: Some(streams), last_stream: Some(after.clone()), ..Progress::default() };
        slice.record(&progress).await?;
        if is_end {
            let client = slice.pool.get().await?;
            match is_complete(slice, &client).await? {
                Completeness::Complete => return Ok(None),
                Completeness::Unknown(stop) => return Ok(Some(stop)),
                // Streams were added meanwhile: behind the last one, as their ids usually are, ...
                Completeness::Incomplete if seen > 0 => {}
                // ... or before it.
                Completeness::Incomplete => {
                    (after, streams) = (String::new(), 0);
                    slice
                        .record(&Progress { streams: Some(0), last_stream: Some(after.clone()), ..Progress::default() })
                        .await?;
                }
            }
        }
        if let Some(stop) = slice.stop() {
            return Ok(Some(stop));
        }
    }
}

/// The streams that one worker takes at a time.
struct PageOfStreams<'s> {
    after: String,
    /// The last of them; `None` at the end of all pages, where nothing says how many follow.
    upto: Option<String>,
    size: &'s mut BatchSize,
}

/// How far a worker came with its page.
struct Taken {
    seen: u64,
    /// `None` when there was no stream.
    last_stream: Option<String>,
    /// Whether no stream follows.
    is_end: bool,
}

/// A page for each worker, one behind the other, from `after` on; fewer where fewer streams are left.
async fn divide<'s>(
    slice: &Slice<'_>,
    client: &Client,
    mut after: String,
    sizes: &'s mut [BatchSize],
) -> Result<Vec<PageOfStreams<'s>>> {
    let workers = sizes.len();
    let mut pages = Vec::with_capacity(workers);
    for (worker, size) in sizes.iter_mut().enumerate() {
        let upto = if worker + 1 < workers {
            session::read(client, &slice.settings.limits(), find_stream_after(client, &after, size.rows())).await?
        } else {
            None
        };
        pages.push(PageOfStreams { after, upto: upto.clone(), size });
        match upto {
            Some(upto) => after = upto,
            None => break,
        }
    }
    Ok(pages)
}

impl PageOfStreams<'_> {
    /// Takes the page's snapshots, on a connection of its own. In more than one batch only when one took too long.
    async fn take(self, slice: &Slice<'_>) -> Result<std::result::Result<Taken, StopReason>> {
        let Self { mut after, upto, size } = self;
        let mut client = slice.pool.get().await?;
        let mut seen = 0;
        let mut last_stream = None;
        loop {
            let mut attempt = size.attempt();
            let batch = loop {
                match take_batch(slice, &mut client, &after, upto.as_deref(), attempt.rows()).await {
                    Ok(batch) => break batch,
                    Err(error) => {
                        if let Some(stop) = slice.retry(&mut attempt, error).await? {
                            return Ok(Err(stop));
                        }
                    }
                }
            };
            let full = slice.succeed(attempt, batch.seen);
            warn_of_unparsed(&slice.run, &batch);
            seen += batch.seen;
            last_stream = batch.last_stream.or(last_stream);
            match (&upto, &last_stream) {
                (Some(upto), Some(last)) if full && last != upto => after.clone_from(last),
                _ => return Ok(Ok(Taken { seen, last_stream, is_end: upto.is_none() && !full })),
            }
        }
    }
}

/// Takes the snapshots of at most `limit` streams after `after`, up to `upto`, as one transaction.
async fn take_batch(
    slice: &Slice<'_>,
    client: &mut Client,
    after: &str,
    upto: Option<&str>,
    limit: u32,
) -> Result<SnapshotBatch> {
    let run = &slice.run;
    let request = SnapshotRequest {
        month: run.snapshot_month,
        after,
        upto,
        limit,
        started_at: run.started_at.naive_utc(),
        taken_at: slice.now().naive_utc(),
        refresh: run.refresh,
    };
    let transaction = session::begin(client, &slice.settings.limits()).await?;
    let batch = insert_snapshot_batch(&transaction, &request).await?;
    if batch.seen == 0 {
        return Ok(batch);
    }
    let progress =
        Progress { snapshots_created: batch.created, unparsed_amounts: batch.unparsed, ..Progress::default() };
    slice.commit(transaction, &progress).await?;
    debug!(run = %run.id, seen = batch.seen, created = batch.created, "snapshot maintenance: snapshot batch");
    Ok(batch)
}

/// Whether every stream has its snapshot and its ids are remembered.
enum Completeness {
    Complete,
    Incomplete,
    /// There was no time to count.
    Unknown(StopReason),
}

/// Counts the streams without snapshot. When there is none, the phase ends with the number of streams.
async fn is_complete(slice: &Slice<'_>, client: &Client) -> Result<Completeness> {
    let run = &slice.run;
    let since = run.refresh.then(|| run.started_at.naive_utc());
    // Over all streams at once, so not bounded as a batch is.
    let count = count_streams(client, run.snapshot_month, since);
    let counts = match slice.keep_lease_while(session::read(client, &slice.long_limits(), count)).await {
        Err(error) if error.retry().is_some() => {
            return slice.deadline.has_come().map(Completeness::Unknown).ok_or(error);
        }
        counts => counts?,
    };
    let StreamCounts { streams, without_snapshot, unremembered } = counts;
    if without_snapshot > 0 || unremembered > 0 {
        return Ok(Completeness::Incomplete);
    }
    info!(run = %run.id, month = %run.snapshot_month, streams, "snapshot maintenance: snapshots are complete");
    let phase = (run.scope == Scope::Maintenance).then_some(Phase::Archive);
    slice.record(&Progress { streams: Some(streams), phase, ..Progress::default() }).await?;
    Ok(Completeness::Complete)
}

fn warn_of_unparsed(run: &MaintenanceRun, batch: &SnapshotBatch) {
    if batch.unparsed > 0 {
        warn!(
            run = %run.id,
            streams = batch.unparsed,
            such_as = ?batch.unparsed_streams,
            "snapshot maintenance: amounts that are not an integer of at most 39 digits; their snapshots have none",
        );
    }
}
