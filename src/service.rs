//! The six operations, and what operators do with runs, holds and restored logs.

use std::time::Duration;

use crate::database::Pool;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::IsolationLevel;
use tracing::warn;
use uuid::Uuid;

use crate::error::{Error, Result, chain};
use crate::host::{HostFinding, findings};
use crate::maintenance::{Deadline, Engine, Plan, Settings, Steps, dry_run, dry_run_restore, run, verify};
use crate::model::{
    ArchiveFilter, ArchivePosition, BacklogReport, Cursor, DryRunReport, EventPosition, LegalHold, LoggedEvent,
    MaintenancePause, MaintenanceRequest, MaintenanceRun, Month, Page, PageRequest, ReleaseRequest,
    RestoreDryRunReport, RestoreRequest, RestoreTarget, RunPosition, Scope, SnapshotPosition, StatePosition, Step,
    StepEvent, StepReport, StepRequest, StreamEvent, StreamId, StreamSnapshot, StreamState, Trigger, Verification,
    VerificationRequest,
};
use crate::store::backlog::{self, Standing};
use crate::store::session::{self, Limits};
use crate::store::stream_identity::{self, FoundStream};
use crate::store::{
    event_log, events, holds, host, leases, maintenance_pause, maintenance_runs, roles, rollback, snapshots, verification,
};

/// Longest that a statement of a reader may take: below the 5 s within which a caller hears that the database is down.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// Restored logs that one transaction releases.
const RELEASE_ROWS: u32 = 50_000;

/// Snapshots and archive of a backend's payment streams.
///
/// Works on any number of streams and events in constant memory; safe to share between tasks and to run several times
/// at once on one database.
#[derive(Debug, Clone)]
pub struct SnapshotService {
    pool: Pool,
    settings: Settings,
}

impl SnapshotService {
    /// A service on a migrated database.
    pub fn new(pool: Pool, settings: Settings) -> Self {
        Self { pool, settings }
    }

    /// Takes this month's snapshot of every stream that has none yet; others stay as they are (domain rules 3 and 4).
    /// `now` is the run's start.
    ///
    /// A run that is open is finished first. Works until `deadline`; calling again continues.
    ///
    /// # Errors
    ///
    /// [`Error::UnderWay`](crate::Error::UnderWay) while somebody else works, [`Error::Paused`](crate::Error::Paused),
    /// [`Error::ReadOnlyDatabase`](crate::Error::ReadOnlyDatabase), [`Error::CutoffInFuture`](crate::Error::CutoffInFuture),
    /// [`Error::Unavailable`](crate::Error::Unavailable), [`Error::Busy`](crate::Error::Busy) and the like. Batches before
    /// the error are kept; calling again continues.
    pub async fn create_monthly_snapshots(&self, now: DateTime<Utc>, deadline: &Deadline) -> Result<MaintenanceRun> {
        self.run(Scope::Snapshots, Trigger::Api.request(), now, deadline).await
    }

    /// Moves logs older than the retention to the archive (domain rules 1 and 5 to 7). `now` is the run's start.
    ///
    /// A run that is open is finished first. Works until `deadline`; calling again continues.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotsIncomplete`](crate::Error::SnapshotsIncomplete) while a stream lacks its snapshot of the month;
    /// [`Error::ArchiveColumnsDiffer`](crate::Error::ArchiveColumnsDiffer) before the first row moves;
    /// [`Error::TooManyRows`](crate::Error::TooManyRows); else as
    /// [`create_monthly_snapshots`](Self::create_monthly_snapshots).
    pub async fn archive_old_logs(&self, now: DateTime<Utc>, deadline: &Deadline) -> Result<MaintenanceRun> {
        self.run(Scope::Archive, Trigger::Api.request(), now, deadline).await
    }

    /// Both, as one run: snapshots, then the archive. `now` is the run's start.
    ///
    /// A run that is open is finished first; a period that was run already is not run again, and its run is returned.
    /// Works until `deadline`; calling again continues.
    ///
    /// # Errors
    ///
    /// As [`archive_old_logs`](Self::archive_old_logs).
    pub async fn run_maintenance(
        &self,
        request: MaintenanceRequest,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        self.run(Scope::Maintenance, request, now, deadline).await
    }

    /// Works on one step of an execution of the state machine until `deadline`. Returns how far it is; nothing of the step
    /// that records a failure.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such run; else as [`archive_old_logs`](Self::archive_old_logs).
    pub async fn run_step(
        &self,
        event: &StepEvent,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<Option<StepReport>> {
        let steps = Steps { engine: self.engine(now, deadline), execution: &event.execution };
        let (report, request) = match &event.step {
            Step::Fail { error } => return steps.fail(&error.message()).await.map(|()| None),
            Step::TakeSnapshots { request } => (steps.take_snapshots(*request).await, *request),
            Step::PlanArchive { run_id } => (steps.plan_archive(*run_id).await, StepRequest::continuing(*run_id)),
            Step::ArchiveMonth { run_id, month } => {
                (steps.archive_month(*run_id, *month).await, StepRequest::continuing(*run_id))
            }
            Step::Finish { run_id } => (steps.finish(*run_id).await, StepRequest::continuing(*run_id)),
        };
        match report {
            // No error: the state machine looks again later.
            Err(error @ (Error::UnderWay { .. } | Error::Paused { .. })) => {
                tracing::info!(%error, "snapshot maintenance: the step waits");
                Ok(Some(StepReport::of(request).waiting()))
            }
            report => report.map(Some),
        }
    }

    /// What [`run_maintenance`](Self::run_maintenance) would do at `now`; `refresh` as there. Writes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`](crate::Error::Busy) when counting takes longer than until `deadline`, and the like.
    pub async fn dry_run(&self, refresh: bool, now: DateTime<Utc>, deadline: &Deadline) -> Result<DryRunReport> {
        let plan = Plan::starting_at(now, self.settings.retention_months);
        dry_run(&self.pool, &self.settings, &plan, refresh, deadline).await
    }

    /// Recomputes the archive's ledger, its rows' hashes and links, and tells what is not as it was archived. Changes no row.
    /// `request.stream` may be any of a stream's ids (domain rule 8).
    ///
    /// Works until `deadline`; calling again within a day continues.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) and the like. What was looked at before the error is kept.
    pub async fn verify_archive(
        &self,
        mut request: VerificationRequest,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<Verification> {
        let mut contract_ids = None;
        if let Some(stream) = request.stream {
            let found = self.get_stream(&StreamId::new(stream)?).await?;
            request.stream = Some(found.contract_id);
            contract_ids = Some(found.contract_ids);
        }
        verify(self.engine(now, deadline), &request, contract_ids.as_deref()).await
    }

    /// The verification that started last, or none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn get_last_verification(&self) -> Result<Option<Verification>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), verification::find_last_verification(&**client)).await
    }

    /// How far maintenance is behind, by the database's clock. Verifications are those that last got further within the
    /// day that ends at `day_end`. A look at indexes and estimates, whatever there is; reads only.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of centuries fit")]
    pub async fn get_backlog(&self, day_end: DateTime<Utc>) -> Result<BacklogReport> {
        let client = self.pool.get().await?;
        let limits = self.settings.limits();
        let standing = backlog::get_standing(&**client, day_end - TimeDelta::days(1), day_end);
        let Standing { now, last_success, breaks } = session::read(&client, &limits, standing).await?;
        let cutoff = Plan::starting_at(now.and_utc(), self.settings.retention_months).cutoff.naive_utc();
        let seconds = |time: TimeDelta| time.num_milliseconds().max(0) as f64 / 1000.0;
        let look = async {
            let oldest = session::read(&client, &limits, backlog::find_oldest_due(&**client, cutoff)).await?;
            // The planner never expects nothing.
            let Some(oldest) = oldest else { return Ok((0, 0.0)) };
            let rows = session::read(&client, &limits, event_log::estimate_due_rows(&**client, cutoff)).await?;
            Ok((rows, seconds(cutoff - oldest)))
        };
        let (backlog_rows, backlog_age_seconds) = match look.await {
            Ok((rows, age)) => (Some(rows), Some(age)),
            // When maintenance last succeeded is worth knowing without it.
            Err(error @ Error::Busy(_)) => {
                warn!(error = chain(&error), "the backlog is not known");
                (None, None)
            }
            Err(error) => return Err(error),
        };
        let hours_since_last_success = seconds(now - last_success) / 3600.0;
        Ok(BacklogReport { hours_since_last_success, backlog_rows, backlog_age_seconds, verification_breaks: breaks })
    }

    /// All runs, newest first.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn list_maintenance_runs(
        &self,
        page: &PageRequest<RunPosition>,
    ) -> Result<Page<MaintenanceRun, RunPosition>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_runs::list_runs(&**client, page)).await
    }

    /// A run, or none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn get_maintenance_run(&self, id: Uuid) -> Result<Option<MaintenanceRun>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_runs::find_run(&**client, id)).await
    }

    /// The run that is under way or waits to be continued, or none. Beside a restore, the other one.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn get_open_maintenance_run(&self) -> Result<Option<MaintenanceRun>> {
        Ok(self.list_open_maintenance_runs().await?.into_iter().next())
    }

    /// The runs that are under way or wait to be continued: one restore at most, and before it one of another scope.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn list_open_maintenance_runs(&self) -> Result<Vec<MaintenanceRun>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_runs::list_open_runs(&**client)).await
    }

    /// The last month that the schedule has run, or none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn get_last_scheduled_period(&self) -> Result<Option<Month>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_runs::find_last_period(&**client)).await
    }

    /// The pause that holds, or none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn get_maintenance_pause(&self) -> Result<Option<MaintenancePause>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_pause::find_pause(&**client)).await
    }

    /// Pauses maintenance: a run that is under way stops after its batch, and none goes on or starts, whatever triggers it,
    /// until it is resumed. Returns the pause; one that holds already stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) and the like.
    pub async fn pause_maintenance(&self, reason: &str, by: &str) -> Result<Option<MaintenancePause>> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.read_limits()).await?;
        maintenance_pause::insert_pause(&transaction, reason, by).await?;
        let pause = maintenance_pause::find_pause(&transaction).await?;
        transaction.commit().await?;
        Ok(pause)
    }

    /// Ends the pause, and returns it, or none when there was none. The next trigger continues the open run.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) and the like.
    pub async fn resume_maintenance(&self) -> Result<Option<MaintenancePause>> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.read_limits()).await?;
        let pause = maintenance_pause::delete_pause(&transaction).await?;
        transaction.commit().await?;
        Ok(pause)
    }

    /// Ends every open run for good, and returns them. Whoever works on one commits nothing more; what was committed stays.
    /// A period whose run was cancelled is not run again by the schedule.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) and the like.
    pub async fn cancel_maintenance(&self) -> Result<Vec<MaintenanceRun>> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.read_limits()).await?;
        let mut runs = Vec::new();
        for id in leases::cancel_open_runs(&transaction).await? {
            runs.extend(maintenance_runs::find_run(&transaction, id).await?);
        }
        transaction.commit().await?;
        Ok(runs)
    }

    /// A stream's snapshot of `month`, or none. `stream` is any of its ids (domain rule 8).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) and the like.
    pub async fn get_snapshot(&self, stream: &StreamId, month: Month) -> Result<Option<StreamSnapshot>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), snapshots::find_snapshot(&**client, stream, month)).await
    }

    /// A stream's snapshots, newest month first. A stream that is not known has none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn get_stream_snapshots(
        &self,
        stream: &StreamId,
        page: &PageRequest<SnapshotPosition>,
    ) -> Result<Page<StreamSnapshot, SnapshotPosition>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), snapshots::list_snapshots(&**client, stream, page)).await
    }

    /// A stream's archived logs, newest first. A stream that is not known has none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn get_archived_logs(
        &self,
        stream: &StreamId,
        filter: &ArchiveFilter,
        page: &PageRequest<ArchivePosition>,
    ) -> Result<Page<LoggedEvent, ArchivePosition>> {
        let client = self.pool.get().await?;
        let read = events::list_archived_logs(&**client, stream, filter, page);
        session::read(&client, &self.read_limits(), read).await
    }

    /// A stream's events, wherever they are, newest first: one that is archived between two pages is on one of them. A
    /// stream that is not known has none.
    ///
    /// # Errors
    ///
    /// [`Error::HostRefuses`] when row security hides logs from the role; else as [`get_snapshot`](Self::get_snapshot).
    pub async fn get_stream_events(
        &self,
        stream: &StreamId,
        filter: &ArchiveFilter,
        page: &PageRequest<EventPosition>,
    ) -> Result<Page<StreamEvent, EventPosition>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), events::list_events(&**client, stream, filter, page)).await
    }

    /// What a stream's state at a past time follows from: the newest snapshot taken at or before `at`, and a page of the
    /// events up to `at` that it does not have.
    ///
    /// # Errors
    ///
    /// [`Error::NoSnapshotBefore`] when no snapshot is that old; [`Error::HostRefuses`] when row security hides logs from the role; [`Error::InvalidInput`] when the page's cursor is of
    /// another `at`, or its snapshot was retaken; else as [`get_snapshot`](Self::get_snapshot).
    pub async fn get_stream_state(
        &self,
        stream: &StreamId,
        at: DateTime<Utc>,
        page: &PageRequest<StatePosition>,
    ) -> Result<StreamState> {
        let position = page.after();
        if position.is_some_and(|position| position.at != at) {
            return Err(Cursor::<StatePosition>::refused());
        }
        let mut client = self.pool.get().await?;
        let transaction = session::begin_read(&mut client, &self.read_limits(), IsolationLevel::RepeatableRead).await?;
        let wanted = position.map_or(at, |position| position.snapshot_at);
        let nearest = snapshots::find_nearest_snapshot(&transaction, stream, wanted).await?;
        let Some((month, _)) = nearest.filter(|(_, taken_at)| *taken_at <= at) else {
            return Err(Error::NoSnapshotBefore { at, oldest: nearest });
        };
        let snapshot = snapshots::find_snapshot(&transaction, stream, month).await?;
        let snapshot = snapshot.ok_or(Error::NotFound { what: "Snapshot" })?;
        if position.is_some_and(|position| position.snapshot_at != snapshot.created_at) {
            return Err(Cursor::<StatePosition>::refused());
        }
        let events = events::list_events_since(&transaction, &snapshot, stream, at, page).await?;
        transaction.commit().await?;
        let boundary = snapshot.boundary;
        Ok(StreamState { at, snapshot, boundary, events: events.items, next_cursor: events.next_cursor })
    }

    /// Moves archived logs back to `EventLog`, whole; they stay there until they are released. `now` is the run's start.
    ///
    /// A log that `EventLog` does not take stays in the archive: the run names it and the constraint, and moves the others.
    /// Another restore that is open is finished first; other runs go on beside it. Works until `deadline`; calling again
    /// continues.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when no run is the one that is named; [`Error::NotRestorable`] before the first row moves;
    /// [`Error::RestoreRefused`]; else as [`create_monthly_snapshots`](Self::create_monthly_snapshots).
    pub async fn restore(
        &self,
        request: &RestoreRequest,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        if let Some(stream) = &request.stream {
            self.observe(stream).await?;
        }
        let target = self.target(request).await?;
        run::run(self.engine(now, deadline), Scope::Restore, Some(target), Trigger::Cli.request()).await
    }

    /// What [`restore`](Self::restore) would do now. Writes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when counting takes longer than until `deadline`, and the like.
    pub async fn dry_run_restore(&self, request: &RestoreRequest, deadline: &Deadline) -> Result<RestoreDryRunReport> {
        dry_run_restore(&self.pool, &self.settings, self.target(request).await?, deadline).await
    }

    async fn target(&self, request: &RestoreRequest) -> Result<RestoreTarget> {
        if let Some(run) = request.run
            && self.get_maintenance_run(run).await?.is_none()
        {
            return Err(Error::NotFound { what: "Run" });
        }
        let mut target =
            RestoreTarget { from: request.from, to: request.to, run: request.run, ..RestoreTarget::default() };
        if let Some(stream) = &request.stream {
            let found = self.get_stream(stream).await?;
            target.contract_ids = found.special_contract_ids();
            target.stream = Some(found.contract_id);
        }
        Ok(target)
    }

    async fn get_stream(&self, stream: &StreamId) -> Result<FoundStream> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), stream_identity::get_stream(&**client, stream)).await
    }

    /// Records the ids that the stream has now.
    async fn observe(&self, stream: &StreamId) -> Result<()> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.patient_limits()).await?;
        stream_identity::observe_stream(&transaction, stream).await?;
        Ok(transaction.commit().await?)
    }

    /// Places a legal hold on a stream, named by any of its ids, known or not: its logs, under every contract id that it ever had
    /// or will have, are neither archived nor restored until it is released. A stream may have several, each for a reason. Returns
    /// the hold that is in force for `reason`, with a warning when nothing has such an id, and whether it is this one: one that was
    /// placed before stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] and the like; [`Error::Busy`] when a batch that is under way does not end soon.
    pub async fn hold_stream(&self, stream: &StreamId, reason: &str, by: &str) -> Result<(LegalHold, bool)> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.patient_limits()).await?;
        stream_identity::observe_stream(&transaction, stream).await?;
        let found = stream_identity::get_stream(&transaction, stream).await?;
        let is_known = stream_identity::is_known(&transaction, stream).await?;
        let is_new = holds::insert_hold(&transaction, &found, reason, by).await?;
        let holds = holds::list_holds_of(&transaction, &found).await?;
        transaction.commit().await?;
        // One that was in the way and was released just now.
        let hold = holds.into_iter().find(|hold| hold.reason == reason);
        let mut hold = hold.ok_or_else(|| Error::Busy("the hold was released meanwhile".into()))?;
        if !is_known {
            let warning =
                format!("no stream, log or snapshot has the id {stream}: if it is mistyped, release this hold");
            warn!(%stream, hold = %hold.id, "{warning}");
            hold.warning = Some(warning);
        }
        Ok((hold, is_new))
    }

    /// Ends the legal hold on a stream and returns it, or none when there was none; `hold` says which, where there are several.
    /// Who ended it and why is kept.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when there are several and none is named; as [`hold_stream`](Self::hold_stream).
    pub async fn release_hold(
        &self,
        stream: &StreamId,
        hold: Option<Uuid>,
        reason: &str,
        by: &str,
    ) -> Result<Option<LegalHold>> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.patient_limits()).await?;
        stream_identity::observe_stream(&transaction, stream).await?;
        let found = stream_identity::get_stream(&transaction, stream).await?;
        let mut holds = holds::list_holds_of(&transaction, &found).await?;
        holds.retain(|one| hold.is_none_or(|id| id == one.id));
        if holds.len() > 1 {
            let each: Vec<_> = holds.iter().map(|hold| format!("{} ({})", hold.id, hold.reason)).collect();
            return Err(Error::invalid("id", format!("must name one of the stream's holds: {}", each.join(", "))));
        }
        let Some(hold) = holds.pop() else {
            transaction.commit().await?;
            return Ok(None);
        };
        let released = holds::release_hold(&transaction, hold.id, reason, by).await?;
        transaction.commit().await?;
        Ok(released.then_some(hold))
    }

    /// The legal holds in force, oldest first.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn list_legal_holds(&self) -> Result<Vec<LegalHold>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), holds::list_holds(&**client)).await
    }

    /// How many logs were restored and not released.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn count_restored_logs(&self) -> Result<u64> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), holds::count_restored(&**client)).await
    }

    /// Lets restored logs be archived again, and returns how many. Calling again continues.
    ///
    /// # Errors
    ///
    /// As [`hold_stream`](Self::hold_stream).
    pub async fn release_restored_logs(&self, request: &ReleaseRequest) -> Result<u64> {
        let contract_ids = match &request.stream {
            Some(stream) => {
                self.observe(stream).await?;
                Some(self.get_stream(stream).await?.contract_ids)
            }
            None => None,
        };
        let mut client = self.pool.get().await?;
        let mut released = 0;
        loop {
            let transaction = session::begin(&mut client, &self.patient_limits()).await?;
            let rows = holds::delete_restored(&transaction, contract_ids.as_deref(), request.run, RELEASE_ROWS).await?;
            transaction.commit().await?;
            released += rows;
            if rows < u64::from(RELEASE_ROWS) {
                return Ok(released);
            }
        }
    }

    /// What of the host's database maintenance cannot work with, leaves alone, or tells of, refusals first; and what of the
    /// service's own is not there. Works on any database, before the first migration, too.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn inspect_host(&self) -> Result<Vec<HostFinding>> {
        let mut client = self.pool.get().await?;
        let transaction =
            session::begin_read(&mut client, &self.patient_limits(), IsolationLevel::RepeatableRead).await?;
        let facts = host::look(&transaction).await?;
        let mut found = findings(&facts, self.settings.host_limits());
        if facts.log.is_some() {
            found.extend(host::list_second_archives(&transaction).await?);
            found.extend(host::list_not_migrated(&transaction).await?);
        }
        transaction.commit().await?;
        Ok(found)
    }

    /// Whether the database has what the migrations make, so that there is something to roll back.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn is_installed(&self) -> Result<bool> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), rollback::is_installed(&**client)).await
    }

    /// The first step of a rollback: moves all archived logs back to `EventLog`. All are there when the run is at
    /// [`Phase::Vacuum`](crate::Phase::Vacuum); it stays open, so that nothing else runs, until its tables are dropped or it is
    /// cancelled. `now` is the run's start.
    ///
    /// Works until `deadline`; calling again continues.
    ///
    /// # Errors
    ///
    /// [`Error::RollbackRefused`] while another run is open, a stream is on hold, there are snapshots and `drop_snapshots` is
    /// not set, or a log has another in its way; else as [`restore`](Self::restore).
    pub async fn restore_all(
        &self,
        drop_snapshots: bool,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        let refused = |reason: String| Err(Error::RollbackRefused { reason });
        if let Some(hold) = self.list_legal_holds().await?.first() {
            return refused(format!(
                "stream {} is under legal hold by {}: {}",
                hold.stream_id, hold.held_by, hold.reason
            ));
        }
        let client = self.pool.get().await?;
        let has_snapshots = session::read(&client, &self.read_limits(), snapshots::has_snapshots(&**client)).await?;
        drop(client);
        if has_snapshots && !drop_snapshots {
            return refused("there are snapshots: with --drop-snapshots they are written to a file and dropped".into());
        }
        let client = self.pool.get().await?;
        let list = verification::list_foreign_partitions(&**client);
        let foreign = session::read(&client, &self.read_limits(), list).await?;
        drop(client);
        if let Some((name, bounds)) = foreign.first() {
            return refused(format!(
                "the partition {name} ({bounds}) of the archive is not of one month: move its rows"
            ));
        }
        let target = Some(RestoreTarget::default());
        run::run(self.engine(now, deadline), Scope::Rollback, target, Trigger::Cli.request()).await
    }

    /// The second step: gives each snapshot to `write`, as a line of JSON, in order of month and stream. Returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] with what `write` said; [`Error::Unavailable`] and the like.
    pub async fn write_snapshots(&self, write: impl FnMut(&str) -> std::io::Result<()>) -> Result<u64> {
        self.write_lines(rollback::SNAPSHOT_LINES, write).await
    }

    /// The same with what else is nowhere but in the tables that are dropped: legal holds, what maintenance has found, with the
    /// logs that it dropped as duplicates, and the ids of streams that are gone.
    ///
    /// # Errors
    ///
    /// As [`write_snapshots`](Self::write_snapshots).
    pub async fn write_records(&self, write: impl FnMut(&str) -> std::io::Result<()>) -> Result<u64> {
        self.write_lines(rollback::RECORD_LINES, write).await
    }

    async fn write_lines(&self, lines: &str, write: impl FnMut(&str) -> std::io::Result<()>) -> Result<u64> {
        let mut client = self.pool.get().await?;
        // As long as it takes: an operator waits for it.
        let limits = Limits { statement: Duration::ZERO, lock: self.settings.lock_timeout };
        let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
        rollback::write_lines(&transaction, lines, write).await
    }

    /// The last step: drops all that the migrations made, as one transaction, once the archive is empty and `snapshots` were
    /// written. Returns what owners of the host's tables must do so that nothing of the service is left there, each
    /// with the SQL.
    ///
    /// # Errors
    ///
    /// [`Error::RollbackRefused`] when there is anything left to do, or something else depends on what is dropped;
    /// [`Error::Busy`] while somebody reads it. Nothing is dropped then.
    pub async fn drop_all(&self, rollback: Uuid, snapshots: u64) -> Result<Vec<String>> {
        let mut client = self.pool.get().await?;
        let limits = Limits { statement: Duration::ZERO, lock: self.patient_limits().lock };
        let transaction = session::begin(&mut client, &limits).await?;
        rollback::lock_all(&transaction).await?;
        let left = rollback::get_remainder(&transaction, rollback).await?;
        let refused = |reason: &str| Err(Error::RollbackRefused { reason: reason.into() });
        if !left.is_ready {
            return refused("the rollback is not the open run any more, maintenance is paused, or a stream is on hold");
        }
        if left.has_archived_rows {
            return refused(
                "the archive got rows since: give this rollback up with `snapshots cancel` and run it again",
            );
        }
        if left.snapshots != snapshots {
            return refused("there are other snapshots than were written: run it again");
        }
        let warnings = roles::revoke_from_host(&transaction).await?;
        rollback::drop_all(&transaction).await?;
        transaction.commit().await?;
        Ok(warnings)
    }

    async fn run(
        &self,
        scope: Scope,
        request: MaintenanceRequest,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        run::run(self.engine(now, deadline), scope, None, request).await
    }

    fn engine<'a>(&'a self, now: DateTime<Utc>, deadline: &'a Deadline) -> Engine<'a> {
        Engine::new(&self.pool, &self.settings, now, deadline)
    }

    /// Limits of what waits for the batch that is under way.
    fn patient_limits(&self) -> Limits {
        let Settings { statement_timeout, lock_timeout, .. } = self.settings;
        Limits { statement: 2 * statement_timeout + lock_timeout, lock: statement_timeout + lock_timeout }
    }

    fn read_limits(&self) -> Limits {
        Limits { statement: self.settings.statement_timeout.min(READ_TIMEOUT), lock: self.settings.lock_timeout }
    }
}
