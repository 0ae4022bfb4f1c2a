use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{GenericClient, IsolationLevel};
use tracing::{debug, info, warn};

use super::engine::{Halt, Work};
use super::month::{self, ClaimedMonth, index_partitions, note_months};
use super::slice::{MonthChange, MonthWork, Slice, attempt};
use super::throttle::wait_while_busy;
use crate::error::{Error, HostFinding, Result};
use crate::model::{ConflictDetail, MAX_REPORTED_IDS, Month, Phase, RestoreTarget, Scope, StopReason};
use crate::store::archive_columns::MirroredColumns;
use crate::store::event_log::{self, LogPosition};
use crate::store::leases::Change;
use crate::store::restore::{self, RestoreBatch, RestoredBatch};
use crate::store::run_months::{self, MonthProgress};
use crate::store::session::Connection;
use crate::store::session::{self, Limits};
use crate::store::{former, host, maintenance_runs, row_texts};

/// Before all places of a table.
const FIRST_PLACE: &str = "(0,0)";
/// How long months are counted whatever the deadline: most restores are counted in less, and a slice is to move rows.
const COUNTING_GRACE: Duration = Duration::from_secs(3);

struct Restoring<'a> {
    slice: &'a Slice<'a>,
    target: RestoreTarget,
    started: Instant,
    /// Rows that this slice has moved.
    rows: AtomicU64,
}

/// Moves the archived logs that the run is about back to `EventLog`, month by month.
pub(super) async fn restore(slice: &Slice<'_>) -> Work {
    let target = slice.run.target.clone().unwrap_or_default();
    let restoring = Restoring { slice, target, started: Instant::now(), rows: AtomicU64::new(0) };
    let result = restoring.restore().await;
    let (run, rows) = (slice.run.id, restoring.rows.load(Ordering::Relaxed));
    let stopped = if let Err(Halt::Stop(reason)) = &result { Some(reason) } else { None };
    info!(%run, rows, ?stopped, "snapshot maintenance: restore");
    result
}

/// Counts the rows month by month, and refuses to move the first of them when one could not go back whole.
async fn count_rows(slice: &Slice<'_>, client: &mut Connection, target: &RestoreTarget, months: &[Month]) -> Work {
    // As long as it takes: it would take as long again the next time.
    let limits = Limits { statement: Duration::ZERO, lock: slice.engine.settings.lock_timeout };
    let started = Instant::now();
    let counted = run_months::list_rows_to_restore(&**client, slice.run.id);
    let counted = session::read(&*client, &limits, counted).await?;
    let mut rows: u64 = counted.values().sum();
    for month in months.iter().filter(|month| !counted.contains_key(month)) {
        match slice.check_time().and_then(|()| slice.check()) {
            Err(Halt::Stop(StopReason::Deadline)) if started.elapsed() <= COUNTING_GRACE => {}
            checked => checked?,
        }
        let columns = session::read(&*client, &limits, MirroredColumns::load(&**client)).await?;
        let form = session::read(&*client, &limits, row_texts::load_form(&**client)).await?;
        let count = restore::check_month(&**client, &columns, &form, target, *month);
        let of_month = slice.keep_lease_while(None, session::read(&*client, &limits, count)).await?;
        let transaction = session::begin_volatile(client, &slice.engine.settings.limits()).await?;
        run_months::record_rows_to_restore(&transaction, slice.run.id, *month, of_month).await?;
        slice.commit(transaction, &Change::Alive).await?;
        rows += of_month;
    }
    Ok(slice.record(&Change::RowsEstimated(rows)).await?)
}

/// Refuses to go on with a rollback that has left rows in the archive.
async fn check_rollback(slice: &Slice<'_>, client: &Connection) -> Result<()> {
    let find = maintenance_runs::find_run(&**client, slice.run.id);
    let run = session::read(client, &slice.engine.settings.limits(), find).await?;
    let run = run.ok_or(Error::LeaseLost { run: slice.run.id })?;
    if run.conflicts > 0 {
        let conflicts = run.conflicts;
        let is_in_the_way = |detail: &&ConflictDetail| ["same_id", "same_event"].contains(&detail.reason.as_str());
        let refused: Vec<_> = run.conflict_details.iter().filter(|detail| !is_in_the_way(detail)).collect();
        let what = if refused.is_empty() {
            let such_as = run.conflict_ids.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
            format!("{conflicts} archived logs have others in their way in \"EventLog\" (such as {such_as})")
        } else {
            let such_as = refused.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("{conflicts} archived logs are not taken by \"EventLog\" (such as {such_as})")
        };
        let reason = format!("{what}: see to them and go on, or give the rollback up with `snapshots cancel`");
        return Err(Error::RollbackRefused { reason });
    }
    if !run.held_back.is_empty() {
        return Err(Error::RollbackRefused {
            reason: "archived logs are under legal hold: release it, or `snapshots cancel`".into(),
        });
    }
    Ok(())
}

impl Restoring<'_> {
    async fn restore(&self) -> Work {
        let slice = self.slice;
        let limits = slice.engine.settings.limits();
        let mut client = slice.engine.connect().await?;
        // Before the first lock: not everything that may be in the log's place can be locked.
        session::read(&client, &limits, check_host(&**client)).await?;
        let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
        let months = restore::list_months(&transaction, &self.target).await?;
        transaction.commit().await?;
        note_months(slice, &mut client, &months, false).await?;
        index_partitions(slice, &mut client).await?;
        if slice.run.rows_estimated.is_none() {
            count_rows(slice, &mut client, &self.target, &months).await?;
        }
        if slice.run.scope == Scope::Rollback {
            let transaction = session::begin(&mut client, &limits).await?;
            run_months::begin_rollback_again(&transaction, slice.run.id).await?;
            slice.commit(transaction, &Change::Alive).await?;
        }
        while let Some(mut month) = month::claim(slice, &mut client, None).await? {
            self.restore_month(&mut client, &mut month).await?;
            month.release(&mut client).await?;
        }
        if slice.run.scope == Scope::Rollback {
            check_rollback(slice, &client).await?;
        }
        Ok(slice.record(&Change::Phase(Phase::Vacuum)).await?)
    }

    /// Moves the rows of a month. Begins again at its start until nothing is left to move: an operator may have rewritten the
    /// partition, and the rows are in other places.
    async fn restore_month(&self, client: &mut Connection, month: &mut ClaimedMonth<'_>) -> Work {
        let slice = self.slice;
        let mut size = slice.batch_size();
        let mut moved = 0;
        while !month.progress.done {
            wait_while_busy(slice, client, Some(&month.lease)).await?;
            moved += attempt!(slice, size, |rows| self.restore_batch(client, month, rows));
            slice.check()?;
        }
        if moved > 0 {
            month.analyze(client).await?;
        }
        Ok(())
    }

    /// Moves one batch as one transaction. Returns how many rows it has moved, and how many it has seen.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
    async fn restore_batch(
        &self,
        client: &mut Connection,
        month: &mut ClaimedMonth<'_>,
        limit: u32,
    ) -> Result<(u64, u64)> {
        let run = &self.slice.run;
        let transaction = session::begin(client, &self.slice.engine.settings.limits()).await?;
        event_log::lock_columns(&transaction).await?;
        check_host(&transaction).await?;
        // Under the lock and for each batch: a column that the host drops between two batches is not lost in silence.
        let columns = MirroredColumns::load(&transaction).await?;
        let form = row_texts::load_form(&transaction).await?;
        let start = LogPosition::before(month.month().start());
        let request = RestoreBatch {
            target: &self.target,
            lease: &month.lease,
            after: month.progress.after.as_ref().unwrap_or(&start),
            after_place: month.progress.place.as_deref().unwrap_or(FIRST_PLACE),
            limit: limit.into(),
            hold: run.scope == Scope::Restore,
            // A rollback leaves to it what it still has.
            former: if run.scope == Scope::Rollback { former::find_archive(&transaction).await? } else { None },
        };
        let batch = restore::restore_batch(&transaction, &columns, &form, &request).await?;
        let next = after(&month.progress, &batch);
        let rows = self.rows.load(Ordering::Relaxed) + batch.moved;
        let rate = rows as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let done = MonthWork {
            change: MonthChange::Restored(&next, batch.moved),
            rows_per_second: (rows > 0).then_some(rate),
            mismatches: &[],
        };
        month.commit(transaction, &done).await?;
        self.rows.store(rows, Ordering::Relaxed);
        month.progress = next;
        debug!(run = %run.id, month = %month.month(), rows = batch.moved, seen = batch.seen, "snapshot maintenance: restore batch");
        if batch.conflicts > 0 && self.slice.may_log() {
            let such_as: Vec<_> = batch.conflict_details.iter().take(10).map(ToString::to_string).collect();
            warn!(
                run = %run.id, conflicts = batch.conflicts, ?such_as,
                "snapshot maintenance: logs that EventLog does not take stay in the archive"
            );
        }
        Ok((batch.moved, batch.seen))
    }
}

/// Refuses to restore into a log that cannot be worked with, naming the object and the cure (domain rule 10).
async fn check_host(client: &impl GenericClient) -> Result<()> {
    let refusal = HostFinding::refusing_restore(&host::look(client).await?);
    refusal.map_or(Ok(()), |finding| Err(finding.into()))
}

/// How far a month is after a batch.
fn after(progress: &MonthProgress, batch: &RestoredBatch) -> MonthProgress {
    let mut next = progress.clone();
    next.moved += batch.moved;
    next.on_hold += batch.on_hold;
    next.conflicts += batch.conflicts;
    let room = MAX_REPORTED_IDS.saturating_sub(next.conflict_details.len());
    next.conflict_details.extend(batch.conflict_details.iter().take(room).cloned());
    next.after = batch.last.clone().or(next.after);
    next.place = batch.last_place.clone().or(next.place);
    if !batch.is_end {
        return next;
    }
    if next.moved > 0 { MonthProgress::default() } else { MonthProgress { done: true, ..next } }
}
