use chrono::{DateTime, Utc};
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use super::SnapshotService;
use crate::error::{Error, Result};
use crate::model::{
    ArchiveFilter, ArchivePosition, ArchivedMonth, Cursor, EventPosition, LoggedEvent, MaintenancePause,
    MaintenanceRun, Month, Page, PageRequest, RunPosition, SnapshotPosition, StatePosition, StreamEvent, StreamId,
    StreamSnapshot, StreamState, Verification,
};
use crate::store::stream_identity::{self, FoundStream};
use crate::store::{events, maintenance_pause, maintenance_runs, seals, session, snapshots, verification};

impl SnapshotService {
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
    /// [`Error::RowsHidden`] when row security hides logs from the role; else as [`get_snapshot`](Self::get_snapshot).
    pub async fn list_stream_events(
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
    /// [`Error::NoSnapshotBefore`] when no snapshot is that old; [`Error::RowsHidden`] when row security hides logs from the role; [`Error::InvalidInput`] when the page's cursor is of
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
            let oldest = nearest.map(|(month, taken_at)| (month.to_string(), taken_at));
            return Err(Error::NoSnapshotBefore { at, oldest });
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
    pub async fn find_maintenance_run(&self, id: Uuid) -> Result<Option<MaintenanceRun>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_runs::find_run(&**client, id)).await
    }

    /// The run that is under way or waits to be continued, or none. Beside a restore, the other one.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn find_open_maintenance_run(&self) -> Result<Option<MaintenanceRun>> {
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
    pub async fn find_last_scheduled_period(&self) -> Result<Option<Month>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_runs::find_last_period(&**client)).await
    }

    /// The pause that holds, or none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn find_maintenance_pause(&self) -> Result<Option<MaintenancePause>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), maintenance_pause::find_pause(&**client)).await
    }

    /// The months of the archive, oldest first. By what is recorded: no log is counted.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn list_archived_months(&self) -> Result<Vec<ArchivedMonth>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), seals::list_archived_months(&**client)).await
    }

    /// The verification that started last, or none.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn find_last_verification(&self) -> Result<Option<Verification>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), verification::find_last_verification(&**client)).await
    }

    pub(super) async fn get_stream(&self, stream: &StreamId) -> Result<FoundStream> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), stream_identity::get_stream(&**client, stream)).await
    }
}
