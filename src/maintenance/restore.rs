use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{GenericClient, IsolationLevel};
use tracing::{debug, info, warn};

use super::archive::{analyze, prepare_partitions};
use super::slice::Slice;
use super::throttle::wait_while_busy;
use crate::error::{Error, Result};
use crate::host::HostFinding;
use crate::model::{ConflictDetail, MAX_REPORTED_IDS, Month, Phase, RestoreTarget, Scope, StopReason};
use crate::store::archive_columns::MirroredColumns;
use crate::store::event_log::{self, Position};
use crate::store::maintenance_runs::{self, MonthProgress, Progress};
use crate::store::restore::{self, RestoreBatch, RestoredBatch};
use crate::store::row_form::RowForm;
use crate::store::session::Connection;
use crate::store::session::{self, Limits};
use crate::store::{former, host};

/// Before all places of a table.
const FIRST_PLACE: &str = "(0,0)";
/// How long months are counted whatever the deadline: most restores are counted in less, and a slice is to move rows.
const COUNTING_GRACE: Duration = Duration::from_secs(3);

struct Restoring<'a> {
    slice: &'a Slice<'a>,
    target: RestoreTarget,
    started: Instant,
    rows: u64,
}

/// Moves the archived logs that the run is about back to `EventLog`, month by month. Returns why it stopped, if that was
/// before all were moved.
pub(super) async fn restore(slice: &Slice<'_>) -> Result<Option<StopReason>> {
    let mut client = slice.pool.get().await?;
    // Before the first lock: not everything that may be in the log's place can be locked.
    session::read(&client, &slice.settings.limits(), check_host(&**client)).await?;
    if let Some(stop) = prepare_partitions(slice, &mut client).await? {
        return Ok(Some(stop));
    }
    let target = slice.run.target.clone().unwrap_or_default();
    let limits = slice.settings.limits();
    let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
    let months = restore::list_months(&transaction, &target).await?;
    transaction.commit().await?;
    if slice.run.rows_estimated.is_none()
        && let Some(stop) = check(slice, &client, &target, &months).await?
    {
        return Ok(Some(stop));
    }
    let mut restoring = Restoring { slice, target, started: Instant::now(), rows: 0 };
    let mut stopped = None;
    for month in months {
        stopped = slice.stop();
        if stopped.is_none() {
            stopped = restoring.restore_month(&mut client, month).await?;
        }
        if stopped.is_some() {
            break;
        }
    }
    if stopped.is_none() && slice.run.scope == Scope::Rollback {
        check_rollback(slice, &client).await?;
    }
    if stopped.is_none() {
        slice.record(&Progress { phase: Some(Phase::Vacuum), ..Progress::default() }).await?;
    }
    info!(run = %slice.run.id, rows = restoring.rows, ?stopped, "snapshot maintenance: restore");
    Ok(stopped)
}

/// Counts the rows month by month, and refuses to move the first of them when one could not go back whole.
async fn check(
    slice: &Slice<'_>,
    client: &Connection,
    target: &RestoreTarget,
    months: &[Month],
) -> Result<Option<StopReason>> {
    // As long as it takes: it would take as long again the next time.
    let limits = Limits { statement: Duration::ZERO, lock: slice.settings.lock_timeout };
    let started = Instant::now();
    let mut rows = 0;
    for month in months {
        if let Some(checked) = slice.state.months.get(month).and_then(|progress| progress.checked) {
            rows += checked;
            continue;
        }
        if let Some(stop) = slice.deadline.has_come().or(slice.stop())
            && (stop != StopReason::Deadline || started.elapsed() > COUNTING_GRACE)
        {
            return Ok(Some(stop));
        }
        let columns = session::read(client, &limits, MirroredColumns::load(&**client)).await?;
        let form = session::read(client, &limits, RowForm::load(&**client)).await?;
        let count = restore::check_month(&**client, &columns, &form, target, *month);
        let checked = slice.keep_lease_while(session::read(client, &limits, count)).await?;
        let progress = MonthProgress { checked: Some(checked), ..MonthProgress::default() };
        slice.record(&Progress { month: Some((*month, progress)), ..Progress::default() }).await?;
        rows += checked;
    }
    slice.record(&Progress { rows_estimated: Some(rows), ..Progress::default() }).await?;
    Ok(None)
}

/// Refuses to go on with a rollback that has left rows in the archive.
async fn check_rollback(slice: &Slice<'_>, client: &Connection) -> Result<()> {
    let find = maintenance_runs::find_run(&**client, slice.run.id);
    let run = session::read(client, &slice.settings.limits(), find).await?;
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
    /// Moves the rows of `month`. Begins again at its start until nothing is left to move: an operator may have rewritten the
    /// partition, and the rows are in other places.
    async fn restore_month(&mut self, client: &mut Connection, month: Month) -> Result<Option<StopReason>> {
        let slice = self.slice;
        let mut progress = slice.state.months.get(&month).cloned().unwrap_or_default();
        if slice.run.scope == Scope::Rollback && progress.on_hold + progress.conflicts > 0 {
            // Somebody has seen to them, or will hear of them again.
            progress = MonthProgress::default();
        }
        let mut size = slice.batch_size();
        let mut moved = 0;
        while !progress.done {
            if let Some(stop) = wait_while_busy(slice, client).await? {
                return Ok(Some(stop));
            }
            let mut attempt = size.attempt();
            let batch = loop {
                match self.restore_batch(client, month, &mut progress, attempt.rows()).await {
                    Ok(batch) => break batch,
                    Err(error) => {
                        if let Some(stop) = slice.retry(&mut attempt, error).await? {
                            return Ok(Some(stop));
                        }
                    }
                }
            };
            slice.succeed(attempt, batch.seen);
            moved += batch.moved;
            if let Some(stop) = slice.stop() {
                return Ok(Some(stop));
            }
        }
        if moved > 0 {
            analyze(slice, client, month).await?;
        }
        Ok(None)
    }

    /// Moves one batch as one transaction.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
    async fn restore_batch(
        &mut self,
        client: &mut Connection,
        month: Month,
        progress: &mut MonthProgress,
        limit: u32,
    ) -> Result<RestoredBatch> {
        let run = &self.slice.run;
        let transaction = session::begin(client, &self.slice.settings.limits()).await?;
        event_log::lock_columns(&transaction).await?;
        check_host(&transaction).await?;
        // Under the lock and for each batch: a column that the host drops between two batches is not lost in silence.
        let columns = MirroredColumns::load(&transaction).await?;
        let form = RowForm::load(&transaction).await?;
        let request = RestoreBatch {
            target: &self.target,
            month,
            after: &progress.after.clone().unwrap_or_else(|| Position::before(month.start())),
            after_place: progress.place.as_deref().unwrap_or(FIRST_PLACE),
            limit: limit.into(),
            run: run.id,
            hold: run.scope == Scope::Restore,
            // A rollback leaves to it what it still has.
            former: if run.scope == Scope::Rollback { former::find_archive(&transaction).await? } else { None },
        };
        let batch = restore::restore_batch(&transaction, &columns, &form, &request).await?;
        let next = after(progress, &batch);
        let rows = self.rows + batch.moved;
        let rate = rows as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let made = Progress {
            logs_restored: batch.moved,
            month: Some((month, next.clone())),
            current_month: Some(month),
            rows_per_second: (rows > 0).then_some(rate),
            ..Progress::default()
        };
        self.slice.commit(transaction, &made).await?;
        (self.rows, *progress) = (rows, next);
        debug!(run = %run.id, %month, rows = batch.moved, seen = batch.seen, "snapshot maintenance: restore batch");
        if batch.conflicts > 0 && self.slice.may_log() {
            let such_as: Vec<_> = batch.conflict_details.iter().take(10).map(ToString::to_string).collect();
            warn!(
                run = %run.id, conflicts = batch.conflicts, ?such_as,
                "snapshot maintenance: logs that EventLog does not take stay in the archive"
            );
        }
        Ok(batch)
    }
}

/// Refuses to restore into a log that cannot be worked with, naming the object and the cure (domain rule 10).
async fn check_host(client: &impl GenericClient) -> Result<()> {
    let refusal = HostFinding::of_restore(&host::look(client).await?);
    refusal.map_or(Ok(()), |finding| Err(Error::HostRefuses { finding: Box::new(finding) }))
}

/// How far a month is after a batch.
fn after(progress: &MonthProgress, batch: &RestoredBatch) -> MonthProgress {
    let mut next = progress.clone();
    next.moved += batch.moved;
    next.on_hold += batch.on_hold;
    next.conflicts += batch.conflicts;
    let room = MAX_REPORTED_IDS.saturating_sub(next.conflict_ids.len());
    let details = batch.conflict_details.iter().take(room);
    next.conflict_ids.extend(details.clone().map(|detail| detail.log_id.clone()));
    next.conflict_details.extend(details.cloned());
    next.after = batch.last.clone().or(next.after);
    next.place = batch.last_place.clone().or(next.place);
    if !batch.is_end {
        return next;
    }
    if next.moved > 0 { MonthProgress::default() } else { MonthProgress { done: true, ..next } }
}
