use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::database::Pool;
use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_postgres::{GenericClient, Transaction};
use tracing::{info, warn};

use super::batch_size::{Attempt, BatchSize};
use super::{Deadline, Settings};
use crate::error::{Error, Result, chain};
use crate::host::HostFinding;
use crate::model::{MaintenanceRun, SliceOutcome, SliceReport, StopReason};
use crate::store::maintenance_runs::{Progress, RunState, Taken, add_host_findings, insert_mismatches, renew_lease};
use crate::store::session::{self, Limits};

/// What a statement that cannot be cut into batches gets beyond the deadline, of the margin that an invocation keeps.
const LONG_STATEMENT_GRACE: Duration = Duration::from_secs(5);

/// Batches after which a slice reports, though it goes on: a metric's line holds no more values, and what a slice that
/// is killed has not reported nobody counts.
const MAX_REPORTED_TIMES: usize = 100;

/// Lines about what single batches found that a slice logs.
const MAX_LOGGED: u32 = 20;

/// A run whose lease was just taken.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) run: MaintenanceRun,
    pub(super) state: RunState,
    pub(super) lease: Taken,
}

impl Begun {
    /// Tells who works on what from now on.
    pub(super) fn log(&self) {
        let MaintenanceRun { id, attempts, snapshot_month, cutoff, phase, .. } = &self.run;
        info!(
            run = %id, attempt = attempts, holder = self.lease.holder, %snapshot_month, %cutoff, phase = phase.as_str(),
            "snapshot maintenance: begins",
        );
    }
}

/// One holder's work on a run, from taking the lease to giving it back. Who has it may work on the run: all that is
/// committed is committed by [`Slice::commit`], which fails once the lease is somebody else's.
#[derive(Debug)]
pub(super) struct Slice<'a> {
    pub(super) pool: &'a Pool,
    pub(super) settings: &'a Settings,
    pub(super) deadline: &'a Deadline,
    /// The run as it was when the lease was taken.
    pub(super) run: MaintenanceRun,
    /// Where its last slice stopped.
    pub(super) state: RunState,
    /// It is a slice of an execution of the state machine, which has the lease until its last slice ends.
    pub(super) keeps_lease: bool,
    lease: Taken,
    /// When it began, by the caller's clock and by one that only goes forward.
    clock: (DateTime<Utc>, Instant),
    /// Each call does something, so that repeated calls always end: it stops only after that.
    has_worked: AtomicBool,
    is_paused: AtomicBool,
    /// One of several workers failed.
    has_failed: AtomicBool,
    /// Whether the run may keep more details of what it finds.
    has_room_for_findings: AtomicBool,
    /// Lines about single batches that were logged.
    logged: AtomicU32,
    began: Instant,
    /// What is done and not reported yet.
    unreported: Mutex<SliceReport>,
}

impl<'a> Slice<'a> {
    pub(super) fn new(
        pool: &'a Pool,
        settings: &'a Settings,
        deadline: &'a Deadline,
        clock: (DateTime<Utc>, Instant),
        begun: Begun,
    ) -> Self {
        let Begun { run, state, lease } = begun;
        let flag = || AtomicBool::new(false);
        let unreported = Mutex::new(SliceReport::of(run.id));
        Self {
            pool,
            settings,
            deadline,
            run,
            state,
            keeps_lease: false,
            lease,
            clock,
            has_worked: flag(),
            is_paused: flag(),
            has_failed: flag(),
            has_room_for_findings: AtomicBool::new(true),
            logged: AtomicU32::new(0),
            began: Instant::now(),
            unreported,
        }
    }

    /// What the caller's clock says now.
    pub(super) fn now(&self) -> DateTime<Utc> {
        let (now, since) = self.clock;
        now + since.elapsed()
    }

    /// The call that this slice is of has done something already.
    pub(super) fn set_worked(&self) {
        self.has_worked.store(true, Ordering::Relaxed);
    }

    /// The batch sizes to begin with.
    pub(super) fn batch_size(&self) -> BatchSize {
        BatchSize::new(self.settings, self.state.batch_rows)
    }

    /// The same, for batches that are never larger than `max_rows`.
    pub(super) fn batch_size_up_to(&self, max_rows: u32) -> BatchSize {
        let batch_rows = self.settings.batch_rows.min(max_rows);
        BatchSize::new(&Settings { batch_rows, ..self.settings.clone() }, self.state.batch_rows)
    }

    /// A batch is done with `seen` rows. Returns whether it was full, so that there may be more.
    pub(super) fn succeed(&self, attempt: Attempt<'_>, seen: u64) -> bool {
        if seen > 0 {
            let mut unreported = self.unreported();
            unreported.batch_times.push(attempt.elapsed());
            if unreported.batch_times.len() == MAX_REPORTED_TIMES {
                self.report(&mut unreported);
            }
        }
        attempt.succeed(seen)
    }

    /// Does all the `work` of the slice, and reports how it ended.
    ///
    /// # Errors
    ///
    /// Those of `work`.
    pub(super) async fn reported<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let result = work.await;
        if let Err(Error::HostRefuses { finding }) = &result
            && let Err(error) = self.note(finding).await
        {
            // It is the run's error, too.
            warn!(run = %self.run.id, error = chain(&error), "snapshot maintenance: what refuses is not noted");
        }
        // Who lost the lease leaves the run to another holder, and an execution says itself when it gives up.
        let failed = !self.keeps_lease && matches!(&result, Err(error) if !matches!(error, Error::LeaseLost { .. }));
        let mut unreported = self.unreported();
        unreported.outcome = Some(SliceOutcome { time: self.began.elapsed(), failed });
        self.report(&mut unreported);
        result
    }

    /// Notes a finding among what the run has met: a trigger is found out only by what it does.
    pub(super) async fn note(&self, finding: &HostFinding) -> Result<()> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.settings.limits()).await?;
        add_host_findings(&transaction, self.run.id, std::slice::from_ref(finding)).await?;
        Ok(transaction.commit().await?)
    }

    fn report(&self, unreported: &mut SliceReport) {
        let report = std::mem::replace(unreported, SliceReport::of(self.run.id));
        if let Some(on_slice) = self.settings.on_slice {
            on_slice(&report);
        }
    }

    fn unreported(&self) -> std::sync::MutexGuard<'_, SliceReport> {
        // Counts are whole at any time.
        self.unreported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch failed: returns when it is to be tried again, or why to stop instead.
    ///
    /// # Errors
    ///
    /// `error`, when trying again does not help; [`Error::LeaseLost`].
    pub(super) async fn retry(&self, attempt: &mut Attempt<'_>, error: Error) -> Result<Option<StopReason>> {
        if error.retry().is_some()
            && let Some(stop) = self.deadline.has_come()
        {
            return Ok(Some(stop));
        }
        let (rows, cause) = (attempt.rows(), chain(&error));
        let is_smaller = attempt.fail(error).await?;
        warn!(run = %self.run.id, rows, next_rows = attempt.rows(), cause, "snapshot maintenance: a batch is tried again");
        if is_smaller {
            // The next slice need not find out again; and this one is alive.
            self.record(&Progress { batch_rows: Some(attempt.rows()), ..Progress::default() }).await?;
        }
        Ok(None)
    }

    pub(super) fn lease(&self) -> &Taken {
        &self.lease
    }

    /// Commits `transaction` together with the progress that it made, and renews the lease.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`], and then nothing is committed.
    pub(super) async fn commit(&self, transaction: Transaction<'_>, progress: &Progress) -> Result<()> {
        self.commit_preparation(transaction, progress).await?;
        self.set_worked();
        Ok(())
    }

    /// The same for what alone is not yet work done.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`], and then nothing is committed.
    pub(super) async fn commit_preparation(&self, transaction: Transaction<'_>, progress: &Progress) -> Result<()> {
        self.renew(&transaction, progress).await?;
        if !progress.mismatches.is_empty() {
            let has_room = insert_mismatches(&transaction, self.run.id, progress).await?;
            self.has_room_for_findings.store(has_room, Ordering::Relaxed);
        }
        transaction.commit().await?;
        let mut unreported = self.unreported();
        unreported.snapshots_created += progress.snapshots_created;
        unreported.unparsed_amounts += progress.unparsed_amounts;
        unreported.logs_archived += progress.logs_archived;
        unreported.hash_mismatches += progress.hash_mismatches;
        unreported.rows_per_second = progress.rows_per_second.or(unreported.rows_per_second);
        Ok(())
    }

    /// Records `progress` that comes with no other change, and renews the lease.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`].
    pub(super) async fn record(&self, progress: &Progress) -> Result<()> {
        let mut client = self.pool.get().await?;
        // What a crash undoes of it is found out again.
        let transaction = session::begin_volatile(&mut client, &self.settings.limits()).await?;
        self.commit_preparation(transaction, progress).await
    }

    async fn renew(&self, client: &impl GenericClient, progress: &Progress) -> Result<()> {
        let renewed = renew_lease(client, &self.lease, self.settings.lease.as_secs_f64(), progress).await?;
        let paused = renewed.ok_or(Error::LeaseLost { run: self.run.id })?;
        self.is_paused.store(paused, Ordering::Relaxed);
        Ok(())
    }

    /// Does `work`, which may take longer than the lease lasts, and renews the lease meanwhile.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`Error::LeaseLost`].
    pub(super) async fn keep_lease_while<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        // Side by side: a renewal may wait for the run's row, which a commit of the work holds.
        tokio::select! {
            result = work => result,
            error = self.renew_for_ever() => Err(error),
        }
    }

    /// Renews the lease time and again, until it is lost.
    async fn renew_for_ever(&self) -> Error {
        loop {
            tokio::time::sleep(self.settings.lease / 3).await;
            match self.record(&Progress::default()).await {
                Err(error @ Error::LeaseLost { .. }) => return error,
                // There is time to try again before the lease expires; the work's own commit decides.
                Err(error) => {
                    warn!(run = %self.run.id, error = chain(&error), "snapshot maintenance: lease not renewed");
                }
                Ok(()) => {}
            }
        }
    }

    /// Limits of a statement that cannot be cut into batches: it may take what is left of the slice, and wait until the
    /// last batch of a holder that is dead has ended. Who waits so shuts out no reader.
    pub(super) fn long_limits(&self) -> Limits {
        // Zero is no limit to PostgreSQL.
        let statement = self.deadline.remaining().map_or(Duration::ZERO, |left| left + LONG_STATEMENT_GRACE);
        Limits { statement, lock: self.settings.lock_timeout + self.settings.statement_timeout }
    }

    /// Why to stop; `None` while there is time.
    pub(super) fn stop(&self) -> Option<StopReason> {
        if self.has_failed.load(Ordering::Relaxed) {
            return Some(StopReason::Error);
        }
        if self.is_paused.load(Ordering::Relaxed) {
            return Some(StopReason::Paused);
        }
        self.deadline.has_come().filter(|_| self.has_worked.load(Ordering::Relaxed))
    }

    /// Whether the run may keep more details of what it finds.
    pub(super) fn has_room_for_findings(&self) -> bool {
        self.has_room_for_findings.load(Ordering::Relaxed)
    }

    /// Whether one more line about what a batch found may be logged: a log must not grow with the rows.
    pub(super) fn may_log(&self) -> bool {
        self.logged.fetch_add(1, Ordering::Relaxed) < MAX_LOGGED
    }

    /// Makes the other workers stop after their batch.
    pub(super) fn fail(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }
}
