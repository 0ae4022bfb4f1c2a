//! The six operations, and what operators do with runs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::maintenance::{Deadline, Plan, Settings, dry_run, run, verify};
use crate::model::{
    ArchiveFilter, ArchivePosition, Cursor, DryRunReport, EventPosition, LoggedEvent, MaintenancePause,
    MaintenanceRequest, MaintenanceRun, Month, Page, PageRequest, RunPosition, Scope, SnapshotPosition, StatePosition,
    StreamEvent, StreamId, StreamSnapshot, StreamState, Trigger, Verification, VerificationRequest,
};
use crate::store::session::{self, Limits};
use crate::store::{events, maintenance_pause, maintenance_runs, snapshots, stream_ids, verification};

/// Longest that a statement of a reader may take: below the 5 s within which a caller hears that the database is down.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

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
    /// `request.stream` may be either of a stream's ids (domain rule 8).
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
        if let Some(stream) = &request.stream {
            let client = self.pool.get().await?;
            let stream = StreamId::new(stream.clone())?;
            let find = stream_ids::get_stream_ids(&**client, &stream);
            request.stream = Some(session::read(&client, &self.read_limits(), find).await?.contract_id);
        }
        verify(&self.pool, &self.settings, &request, now, deadline).await
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

    /// The run that is under way or waits to be continued, or none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn get_open_maintenance_run(&self) -> Result<Option<MaintenanceRun>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_runs::find_open_run(&**client)).await
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

    /// Ends the open run for good, and returns it, or none when none was open. Whoever works on it commits nothing more;
    /// what was committed stays. A period whose run was cancelled is not run again by the schedule.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) and the like.
    pub async fn cancel_maintenance(&self) -> Result<Option<MaintenanceRun>> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.read_limits()).await?;
        let Some(id) = maintenance_runs::cancel_open_run(&transaction).await? else { return Ok(None) };
        let run = maintenance_runs::find_run(&transaction, id).await?;
        transaction.commit().await?;
        Ok(run)
    }

    /// A stream's snapshot of `month`, or none. `stream` is either of its ids (domain rule 8).
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
    /// As [`get_snapshot`](Self::get_snapshot).
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
    /// events since then and up to `at`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSnapshotBefore`] when no snapshot is that old; [`Error::InvalidInput`] when the page's cursor is of
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
        Ok(StreamState { at, snapshot, events: events.items, next_cursor: events.next_cursor })
    }

    async fn run(
        &self,
        scope: Scope,
        request: MaintenanceRequest,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        run::run(&self.pool, &self.settings, scope, request, now, deadline).await
    }

    fn read_limits(&self) -> Limits {
        Limits { statement: self.settings.statement_timeout.min(READ_TIMEOUT), lock: self.settings.lock_timeout }
    }
}
