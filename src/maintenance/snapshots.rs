use tracing::{debug, info, warn};

use super::slice::Slice;
use super::throttle::wait_while_busy;
use crate::error::Result;
use crate::model::{MaintenanceRun, Phase, Scope, StopReason};
use crate::store::maintenance_runs::{Progress, estimate_streams};
use crate::store::session;
use crate::store::snapshots::{
    SnapshotBatch, SnapshotRequest, StreamCounts, count_streams, insert_snapshot_batch, may_be_complete,
};

/// Takes the month's snapshot of every stream that has none, or of every stream when the run is to retake them. Ends when
/// none is missing; returns why it stopped, if that was before.
pub(super) async fn take_snapshots(slice: &Slice<'_>) -> Result<Option<StopReason>> {
    let run = &slice.run;
    let mut client = slice.pool.get().await?;
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
    let mut size = slice.batch_size();
    loop {
        if let Some(stop) = wait_while_busy(slice, &client).await? {
            return Ok(Some(stop));
        }
        let mut attempt = size.attempt();
        let batch = loop {
            match take_batch(slice, &mut client, &after, attempt.rows(), streams).await {
                Ok(batch) => break batch,
                Err(error) => {
                    if let Some(stop) = slice.retry(&mut attempt, error).await? {
                        return Ok(Some(stop));
                    }
                }
            }
        };
        let full = attempt.succeed(batch.seen);
        warn_of_unparsed(run, &batch);
        streams += batch.seen;
        after = batch.last_stream.unwrap_or(after);
        if !full {
            match is_complete(slice, &client).await? {
                Completeness::Complete => return Ok(None),
                Completeness::Unknown(stop) => return Ok(Some(stop)),
                // Streams were added meanwhile: behind the last one, as their ids usually are, ...
                Completeness::Incomplete if batch.seen > 0 => {}
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

/// Takes the snapshots of at most `limit` streams after `after`, as one transaction.
async fn take_batch(
    slice: &Slice<'_>,
    client: &mut tokio_postgres::Client,
    after: &str,
    limit: u32,
    streams: u64,
) -> Result<SnapshotBatch> {
    let run = &slice.run;
    let request = SnapshotRequest {
        month: run.snapshot_month,
        after,
        limit,
        started_at: run.started_at.naive_utc(),
        refresh: run.refresh,
    };
    // What a crash of the server undoes is taken again. The run's end is not volatile: then all is on the disk.
    let transaction = session::begin_volatile(client, &slice.settings.limits()).await?;
    let batch = insert_snapshot_batch(&transaction, &request).await?;
    if batch.seen == 0 {
        return Ok(batch);
    }
    let progress = Progress {
        streams: Some(streams + batch.seen),
        last_stream: batch.last_stream.clone(),
        snapshots_created: batch.created,
        unparsed_amounts: batch.unparsed,
        ..Progress::default()
    };
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
async fn is_complete(slice: &Slice<'_>, client: &tokio_postgres::Client) -> Result<Completeness> {
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
