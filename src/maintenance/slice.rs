use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::join;
use seal::Mismatch;
use tokio::time::Instant;
use tokio_postgres::{GenericClient, Transaction};
use tracing::{info, warn};

use super::Settings;
use super::batch_size::{Attempt, BatchSize};
use super::engine::{Engine, Halt, Work};
use crate::error::{Error, HostFinding, Result, chain};
use crate::model::{MaintenanceRun, SliceOutcome, SliceReport, StopReason};
use crate::store::host::SeenHost;
use crate::store::leases::{Change, MonthLease, RunLease, renew_month, renew_run};
use crate::store::maintenance_runs::{RunState, add_host_findings, find_run, get_run_state, insert_mismatches};
use crate::store::run_months::{ArchivedCounts, MonthProgress, record_archived, record_restored};
use crate::store::session::{self, Connection, Limits};

/// What a statement that cannot be cut into batches gets beyond the deadline, of the margin that an invocation keeps.
const LONG_STATEMENT_GRACE: Duration = Duration::from_secs(5);

/// Batches after which a slice reports, though it goes on: a metric's line holds no more values, and what a slice that
/// is killed has not reported nobody counts.
const MAX_REPORTED_TIMES: usize = 100;

/// Lines about what single batches found that a slice logs.
const MAX_LOGGED: u32 = 20;

/// Does one batch: `$batch`, a `Result` of what it has done and how many rows it has seen, which may take `$rows` rows. A batch that takes
/// too long is tried with fewer rows, and one that lost against another transaction, again. A macro, for the compiler cannot tell that the
/// future of a function that takes an async closure is `Send`.
macro_rules! attempt {
    ($slice:expr, $size:expr, |$rows:ident| $batch:expr) => {{
        let mut attempt = $size.attempt();
        loop {
            let $rows = attempt.rows();
            match $batch.await {
                Ok((done, seen)) => {
                    $slice.succeed(attempt, seen);
                    break done;
                }
                Err(error) => $slice.retry(&mut attempt, error).await?,
            }
        }
    }};
}
pub(super) use attempt;

/// What a transaction has done with a month.
#[derive(Debug, Clone, Copy)]
pub(super) struct MonthWork<'a> {
    pub(super) change: MonthChange<'a>,
    /// How fast the slice moves rows; `None` while it moves none.
    pub(super) rows_per_second: Option<f64>,
    /// Rows whose entry hash is not that of their contents.
    pub(super) mismatches: &'a [Mismatch],
}

impl MonthWork<'_> {
    /// No row was moved.
    pub(super) const PREPARED: Self = Self { change: MonthChange::Alive, rows_per_second: None, mismatches: &[] };
}

/// What is recorded of a month.
#[derive(Debug, Clone, Copy)]
pub(super) enum MonthChange<'a> {
    /// That somebody works on it.
    Alive,
    /// How far it is, and what the batch has added to the counts.
    Archived(&'a MonthProgress, ArchivedCounts),
    /// How far it is, and how many logs the batch restored.
    Restored(&'a MonthProgress, u64),
}

/// One owner's work on a run, from the claim to the release. Who has it may work on the run: [`Slice::commit`] and
/// [`Slice::commit_month`] commit all that is committed, and fail once the lease is somebody else's.
#[derive(Debug)]
pub(super) struct Slice<'a> {
    pub(super) engine: Engine<'a>,
    /// The run as it was when it was claimed.
    pub(super) run: MaintenanceRun,
    /// Where its last slice stopped.
    pub(super) state: RunState,
    /// The host as it was when the run was claimed.
    pub(super) host: SeenHost,
    /// It is a slice of an execution of the state machine, which owns the run until its last slice ends.
    pub(super) keeps_lease: bool,
    pub(super) lease: RunLease,
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
    /// A slice of the run that `lease` is of.
    pub(super) async fn load(
        client: &impl GenericClient,
        engine: Engine<'a>,
        lease: RunLease,
        host: SeenHost,
    ) -> Result<Self> {
        let run = find_run(client, lease.run).await?.ok_or(Error::LeaseLost { run: lease.run })?;
        let state = get_run_state(client, lease.run).await?;
        let flag = || AtomicBool::new(false);
        let unreported = Mutex::new(SliceReport::empty(run.id));
        Ok(Self {
            engine,
            run,
            state,
            host,
            keeps_lease: false,
            lease,
            has_worked: flag(),
            is_paused: flag(),
            has_failed: flag(),
            has_room_for_findings: AtomicBool::new(true),
            logged: AtomicU32::new(0),
            began: Instant::now(),
            unreported,
        })
    }

    /// Tells who works on what from now on.
    pub(super) fn log(&self) {
        let MaintenanceRun { id, attempts, snapshot_month, cutoff, phase, .. } = &self.run;
        info!(
            run = %id, attempt = attempts, %snapshot_month, %cutoff, phase = phase.as_str(),
            "snapshot maintenance: begins",
        );
    }

    /// The call that this slice is of has done something already.
    pub(super) fn set_worked(&self) {
        self.has_worked.store(true, Ordering::Relaxed);
    }

    /// The batch sizes to begin with.
    pub(super) fn batch_size(&self) -> BatchSize {
        BatchSize::new(self.engine.settings, self.state.batch_rows)
    }

    /// The same, for batches that are never larger than `max_rows`.
    pub(super) fn batch_size_up_to(&self, max_rows: u32) -> BatchSize {
        let batch_rows = self.engine.settings.batch_rows.min(max_rows);
        BatchSize::new(&Settings { batch_rows, ..self.engine.settings.clone() }, self.state.batch_rows)
    }

    /// Does all the `work` of the slice, and reports how it ended.
    pub(super) async fn reported<T>(&self, work: impl Future<Output = Work<T>>) -> Work<T> {
        let result = work.await;
        if let Err(Halt::Failed(error)) = &result
            && let Some(finding) = error.finding()
            && let Err(error) = self.note(finding).await
        {
            // It is the run's error, too.
            warn!(run = %self.run.id, error = chain(&error), "snapshot maintenance: what refuses is not noted");
        }
        // Who lost the lease leaves the run to another owner, and an execution says itself when it gives up.
        let failed = !self.keeps_lease
            && matches!(&result, Err(Halt::Failed(error)) if !matches!(error, Error::LeaseLost { .. }));
        let mut unreported = self.unreported();
        unreported.outcome = Some(SliceOutcome { time: self.began.elapsed(), failed });
        self.report(&mut unreported);
        result
    }

    /// Notes a finding among what the run has met: a trigger is found out only by what it does.
    pub(super) async fn note(&self, finding: &HostFinding) -> Result<()> {
        self.note_on(&mut *self.engine.connect().await?, finding).await
    }

    /// [`Slice::note`] on a connection that is at hand.
    pub(super) async fn note_on(&self, client: &mut Connection, finding: &HostFinding) -> Result<()> {
        let transaction = session::begin(client, &self.engine.settings.limits()).await?;
        add_host_findings(&transaction, self.run.id, std::slice::from_ref(finding)).await?;
        Ok(transaction.commit().await?)
    }

    fn report(&self, unreported: &mut SliceReport) {
        let report = std::mem::replace(unreported, SliceReport::empty(self.run.id));
        if let Some(on_slice) = self.engine.settings.on_slice {
            on_slice(&report);
        }
    }

    fn unreported(&self) -> std::sync::MutexGuard<'_, SliceReport> {
        // Counts are whole at any time.
        self.unreported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch failed: returns when it is to be tried again.
    ///
    /// # Errors
    ///
    /// `error`, when trying again does not help, or the reason to stop instead.
    pub(super) async fn retry(&self, attempt: &mut Attempt<'_>, error: Error) -> Work {
        if error.retry().is_some() {
            self.check_time()?;
        }
        let (rows, cause) = (attempt.rows(), chain(&error));
        let is_smaller = attempt.fail(error).await?;
        let next_rows = attempt.rows();
        warn!(run = %self.run.id, rows, next_rows, cause, "snapshot maintenance: a batch is tried again");
        if is_smaller {
            // The next slice need not find out again; and this one is alive.
            self.record(&Change::BatchRows(next_rows)).await?;
        }
        Ok(())
    }

    /// A batch is done with `seen` rows.
    pub(super) fn succeed(&self, attempt: Attempt<'_>, seen: u64) {
        if seen > 0 {
            let mut unreported = self.unreported();
            unreported.batch_times.push(attempt.elapsed());
            if unreported.batch_times.len() == MAX_REPORTED_TIMES {
                self.report(&mut unreported);
            }
        }
        attempt.succeed(seen);
    }

    /// Commits `transaction` together with the change that it made, and renews the lease.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`], and then nothing is committed.
    pub(super) async fn commit(&self, transaction: Transaction<'_>, change: &Change<'_>) -> Result<()> {
        let paused = renew_run(&transaction, &self.lease, self.lease_seconds(), change).await?;
        transaction.commit().await?;
        self.is_paused.store(paused, Ordering::Relaxed);
        if let Change::Snapshots { created, unparsed } = change {
            self.set_worked();
            let mut unreported = self.unreported();
            unreported.snapshots_created += created;
            unreported.unparsed_amounts += unparsed;
        }
        Ok(())
    }

    /// Records `change`, which comes with no other, and renews the lease.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`].
    pub(super) async fn record(&self, change: &Change<'_>) -> Result<()> {
        self.record_on(&mut *self.engine.connect().await?, change).await
    }

    /// [`Slice::record`] on a connection that is at hand.
    pub(super) async fn record_on(&self, client: &mut Connection, change: &Change<'_>) -> Result<()> {
        // A crash may lose it: the next slice finds it out again.
        let transaction = session::begin_volatile(client, &self.engine.settings.limits()).await?;
        self.commit(transaction, change).await
    }

    /// Commits `transaction`, which has worked on a month, and renews the month's lease and the run's.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`], and then nothing is committed.
    pub(super) async fn commit_month(
        &self,
        transaction: Transaction<'_>,
        lease: &MonthLease,
        done: &MonthWork<'_>,
    ) -> Result<()> {
        let renewed = renew_month(&transaction, lease, self.lease_seconds(), done.rows_per_second);
        let recorded = async {
            match done.change {
                MonthChange::Alive => Ok(()),
                MonthChange::Archived(progress, counts) => record_archived(&transaction, lease, progress, counts).await,
                MonthChange::Restored(progress, rows) => record_restored(&transaction, lease, progress, rows).await,
            }
        };
        // Pipelined.
        let (paused, recorded) = join!(renewed, recorded);
        let paused = paused?;
        recorded?;
        if !done.mismatches.is_empty() {
            let has_room = insert_mismatches(&transaction, self.run.id, lease.month, done.mismatches).await?;
            self.has_room_for_findings.store(has_room, Ordering::Relaxed);
        }
        transaction.commit().await?;
        self.is_paused.store(paused, Ordering::Relaxed);
        match done.change {
            MonthChange::Alive => {}
            // To find out that a month has no more rows is no work.
            MonthChange::Archived(progress, counts) if progress.done && counts == ArchivedCounts::default() => {}
            _ => self.set_worked(),
        }
        let mut unreported = self.unreported();
        if let MonthChange::Archived(_, counts) = done.change {
            unreported.logs_archived += counts.logs_archived;
            unreported.hash_mismatches += counts.hash_mismatches;
        }
        unreported.rows_per_second = done.rows_per_second.or(unreported.rows_per_second);
        Ok(())
    }

    /// Counts logs that were archived though their parent is nowhere, for what the slice reports.
    pub(super) fn count_missing_links(&self, missing: u64) {
        self.unreported().links_missing += missing;
    }

    pub(super) fn lease_seconds(&self) -> f64 {
        self.engine.settings.lease.as_secs_f64()
    }

    /// Does `work`, which may take longer than the lease lasts, and renews the lease meanwhile; that of `month`, too.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`Error::LeaseLost`].
    pub(super) async fn keep_lease_while<T>(
        &self,
        month: Option<&MonthLease>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        // Side by side: a renewal may wait for the run's row, which a commit of the work holds.
        tokio::select! {
            result = work => result,
            error = self.renew_for_ever(month) => Err(error),
        }
    }

    /// Renews the lease time and again, until it is lost.
    async fn renew_for_ever(&self, month: Option<&MonthLease>) -> Error {
        loop {
            tokio::time::sleep(self.engine.settings.lease / 3).await;
            match self.renew(month).await {
                Err(error @ Error::LeaseLost { .. }) => return error,
                // There is time to try again before the lease expires; the work's own commit decides.
                Err(error) => {
                    warn!(run = %self.run.id, error = chain(&error), "snapshot maintenance: lease not renewed");
                }
                Ok(()) => {}
            }
        }
    }

    /// Renews the lease of the run, and of `month`.
    pub(super) async fn renew(&self, month: Option<&MonthLease>) -> Result<()> {
        let Some(lease) = month else { return self.record(&Change::Alive).await };
        let mut client = self.engine.connect().await?;
        let transaction = session::begin_volatile(&mut client, &self.engine.settings.limits()).await?;
        let paused = renew_month(&transaction, lease, self.lease_seconds(), None).await?;
        transaction.commit().await?;
        self.is_paused.store(paused, Ordering::Relaxed);
        Ok(())
    }

    /// Limits of a statement that cannot be cut into batches: it may take what is left of the slice, and wait until the
    /// last batch of an owner that is dead has ended. Who waits so shuts out no reader.
    pub(super) fn long_limits(&self) -> Limits {
        // Zero is no limit to PostgreSQL.
        let statement = self.engine.deadline.remaining().map_or(Duration::ZERO, |left| left + LONG_STATEMENT_GRACE);
        Limits { statement, lock: self.engine.settings.lock_timeout + self.engine.settings.statement_timeout }
    }

    /// Halts when there is a reason to stop.
    pub(super) fn check(&self) -> Work {
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(Halt::Stop(StopReason::Error));
        }
        if self.is_paused.load(Ordering::Relaxed) {
            return Err(Halt::Stop(StopReason::Paused));
        }
        if self.has_worked.load(Ordering::Relaxed) { self.check_time() } else { Ok(()) }
    }

    /// Halts when the time is over, though nothing may be done yet.
    pub(super) fn check_time(&self) -> Work {
        self.engine.deadline.has_come().map_or(Ok(()), |stop| Err(Halt::Stop(stop)))
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
