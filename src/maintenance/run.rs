use deadpool_postgres::Pool;
use tokio_postgres::Client;
use tracing::{debug, info, warn};

use super::{Deadline, Plan, Settings};
use crate::error::Result;
use crate::model::{ArchiveReport, HeldBack, MAX_REPORTED_IDS, MaintenanceReport, Month, SnapshotReport};
use crate::store::archive_columns::MirroredColumns;
use crate::store::event_log::{self, BatchRequest, Due, MovedBatch, Position, SettledTwins};
use crate::store::snapshots::{SnapshotBatch, insert_snapshot_batch};
use crate::store::stream_identities::remember_stream_ids;
use crate::store::{partitions, session};

/// Snapshots, then the archive.
///
/// # Errors
///
/// Those of the two parts; nothing is written while the archive lacks columns of `EventLog`.
pub(crate) async fn maintain(
    pool: &Pool,
    settings: &Settings,
    plan: &Plan,
    deadline: &Deadline,
) -> Result<MaintenanceReport> {
    check_columns(pool, settings).await?;
    let snapshots = create_snapshots(pool, settings, plan, deadline).await?;
    // The batch that each call is good for was spent on snapshots already.
    let no_time_left = !snapshots.complete || (snapshots.snapshots_created > 0 && deadline.has_come());
    let archive = if no_time_left { empty_report(plan) } else { archive(pool, settings, plan, deadline).await? };
    let SnapshotReport { snapshot_month, snapshots_created, unparsed_amounts, .. } = snapshots;
    Ok(MaintenanceReport { snapshot_month, snapshots_created, unparsed_amounts, archive })
}

/// Takes the month's snapshot of every stream that has none, batch by batch. Each batch is a transaction of its own and
/// takes only what is missing: a run that is killed is continued by the next.
pub(crate) async fn create_snapshots(
    pool: &Pool,
    settings: &Settings,
    plan: &Plan,
    deadline: &Deadline,
) -> Result<SnapshotReport> {
    let mut client = pool.get().await?;
    let mut report = SnapshotReport {
        snapshot_month: plan.snapshot_month,
        snapshots_created: 0,
        unparsed_amounts: 0,
        complete: false,
    };
    // The last stream of the batch before; None when there is no further one.
    let mut after = Some(String::new());
    let mut remembered = Some(String::new());
    loop {
        let transaction = session::begin(&mut client, &settings.limits()).await?;
        if let Some(stream) = &remembered {
            remembered = remember_stream_ids(&transaction, stream, settings.batch_rows).await?;
        }
        let mut batch = SnapshotBatch::default();
        if let Some(stream) = &after {
            let now = plan.now.naive_utc();
            batch = insert_snapshot_batch(&transaction, plan.snapshot_month, stream, settings.batch_rows, now).await?;
        }
        transaction.commit().await?;
        record_snapshots(&mut report, &batch);
        after = batch.last_stream;
        if after.is_none() && remembered.is_none() {
            report.complete = true;
            break;
        }
        if deadline.has_come() {
            break;
        }
    }
    let SnapshotReport { snapshot_month, snapshots_created, complete, .. } = &report;
    info!(%snapshot_month, snapshots_created, complete, "snapshot maintenance: snapshots");
    Ok(report)
}

fn record_snapshots(report: &mut SnapshotReport, batch: &SnapshotBatch) {
    debug!(created = batch.created, last = batch.last_stream, "snapshot maintenance: snapshot batch");
    report.snapshots_created += batch.created;
    report.unparsed_amounts += batch.unparsed;
    if batch.unparsed > 0 {
        warn!(
            streams = batch.unparsed,
            such_as = ?batch.unparsed_streams,
            "snapshot maintenance: amounts that are not an integer of at most 39 digits; their snapshots have none",
        );
    }
}

/// Moves the logs created before the cutoff to the archive, month by month and batch by batch, oldest first. A batch is
/// one transaction: killed at any point, each event is in exactly one of the two tables, and the next run continues.
pub(crate) async fn archive(
    pool: &Pool,
    settings: &Settings,
    plan: &Plan,
    deadline: &Deadline,
) -> Result<ArchiveReport> {
    let mut client = pool.get().await?;
    let limits = settings.limits();
    let columns = session::read(&client, &limits, MirroredColumns::load(&**client)).await?;
    let cutoff = plan.cutoff.naive_utc();
    let has_hashes = session::read(&client, &limits, event_log::has_due_hashes(&**client, &columns, cutoff)).await?;
    let due = Due { cutoff, has_hashes };
    let adopted = session::read(&client, &limits, partitions::list_adopted_partitions(&**client)).await?;
    let mut report = empty_report(plan);
    let mut after = Position::first();
    let mut partition = None;
    let mut batches = 0_u64;
    let mut in_use = 0;
    let mut chain_head = None;
    while batches == 0 || !deadline.has_come() {
        let find = event_log::find_next_due(&**client, &columns, due, &after);
        let next = session::read(&client, &limits, find).await?;
        chain_head = next.chain_head;
        let Some(created_at) = next.created_at else {
            report.complete = true;
            break;
        };
        let month = Month::of(created_at.and_utc());
        if partition != Some(month) {
            let transaction = session::begin(&mut client, &limits).await?;
            partitions::create_partition(&transaction, month).await?;
            transaction.commit().await?;
            partition = Some(month);
        }
        let request = BatchRequest { due, month, after: &after, limit: settings.batch_rows, now: plan.now.naive_utc() };
        let (batch, settled) = archive_batch(&mut client, settings, &adopted, &request).await?;
        debug!(%month, moved = batch.moved, dropped = settled.dropped, "snapshot maintenance: archive batch");
        in_use += batch.in_use;
        record_logs(&mut report, &batch, settled);
        batches += 1;
        after = match batch.last {
            Some(last) if batch.seen == u64::from(settings.batch_rows) => last,
            // What is left of the month is locked or came too late: the next run's.
            _ => Position::before(month.end()),
        };
    }
    report.held_back.extend(chain_head.map(HeldBack::chain_head));
    report.held_back.extend((in_use > 0).then(|| HeldBack::in_use(in_use)));
    let ArchiveReport { logs_archived, already_archived, conflicts, held_back, complete, .. } = &report;
    info!(
        %cutoff, logs_archived, already_archived, conflicts, ?held_back, complete,
        "snapshot maintenance: archive",
    );
    Ok(report)
}

/// Moves one batch, and settles what the archive has of it already, as one transaction.
async fn archive_batch(
    client: &mut Client,
    settings: &Settings,
    adopted: &[String],
    request: &BatchRequest<'_>,
) -> Result<(MovedBatch, SettledTwins)> {
    let transaction = session::begin(client, &settings.limits()).await?;
    event_log::lock_columns(&transaction).await?;
    // Under the lock and for each batch: a column that the host adds between two batches is not dropped in silence.
    let columns = MirroredColumns::load(&transaction).await?;
    let moved = event_log::move_due_batch(&transaction, &columns, adopted, request).await?;
    let settled = if moved.twins.is_empty() {
        SettledTwins::default()
    } else {
        event_log::settle_twins(&transaction, &columns, &moved.twins).await?
    };
    transaction.commit().await?;
    Ok((moved, settled))
}

/// Refuses to start while the archive cannot hold what `EventLog` has.
async fn check_columns(pool: &Pool, settings: &Settings) -> Result<()> {
    let client = pool.get().await?;
    session::read(&client, &settings.limits(), MirroredColumns::load(&**client)).await.map(drop)
}

fn record_logs(report: &mut ArchiveReport, batch: &MovedBatch, settled: SettledTwins) {
    report.logs_archived += batch.moved;
    report.already_archived += settled.dropped;
    if !settled.conflicts.is_empty() {
        let conflicts = settled.conflicts.len();
        warn!(conflicts, such_as = ?settled.conflicts.iter().take(10).collect::<Vec<_>>(),
            "snapshot maintenance: logs whose archived copy differs stay in EventLog");
        report.conflicts += conflicts as u64;
        let room = MAX_REPORTED_IDS - report.conflict_ids.len();
        report.conflict_ids.extend(settled.conflicts.into_iter().take(room));
    }
}

fn empty_report(plan: &Plan) -> ArchiveReport {
    ArchiveReport {
        cutoff: plan.cutoff,
        logs_archived: 0,
        already_archived: 0,
        conflicts: 0,
        conflict_ids: Vec::new(),
        held_back: Vec::new(),
        complete: false,
    }
}
