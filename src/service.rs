//! The six operations.

use std::time::Duration;

use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;

use crate::error::Result;
use crate::maintenance::{Deadline, Plan, Settings, run};
use crate::model::{
    ArchiveFilter, ArchivePosition, ArchiveReport, ArchivedLog, MaintenanceReport, Month, Page, PageRequest,
    SnapshotPosition, SnapshotReport, StreamId, StreamSnapshot,
};
use crate::store::session::{self, Limits};
use crate::store::{archived_logs, snapshots};

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
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable), [`Error::Busy`](crate::Error::Busy) and the like. Batches
    /// before the error are kept; running again continues.
    pub async fn create_monthly_snapshots(&self, now: DateTime<Utc>, deadline: &Deadline) -> Result<SnapshotReport> {
        run::create_snapshots(&self.pool, &self.settings, &self.plan(now), deadline).await
    }

    /// Moves logs older than the retention to the archive (domain rules 1 and 5 to 7). `now` is the run's start.
    ///
    /// # Errors
    ///
    /// [`Error::ArchiveColumnsDiffer`](crate::Error::ArchiveColumnsDiffer) before the first row moves; else as
    /// [`create_monthly_snapshots`](Self::create_monthly_snapshots).
    pub async fn archive_old_logs(&self, now: DateTime<Utc>, deadline: &Deadline) -> Result<ArchiveReport> {
        run::archive(&self.pool, &self.settings, &self.plan(now), deadline).await
    }

    /// Both, as one report: snapshots, then the archive. `now` is the run's start.
    ///
    /// # Errors
    ///
    /// As [`archive_old_logs`](Self::archive_old_logs).
    pub async fn run_maintenance(&self, now: DateTime<Utc>, deadline: &Deadline) -> Result<MaintenanceReport> {
        run::maintain(&self.pool, &self.settings, &self.plan(now), deadline).await
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
    ) -> Result<Page<ArchivedLog, ArchivePosition>> {
        let client = self.pool.get().await?;
        let read = archived_logs::list_archived_logs(&**client, stream, filter, page);
        session::read(&client, &self.read_limits(), read).await
    }

    fn plan(&self, now: DateTime<Utc>) -> Plan {
        Plan::starting_at(now, self.settings.retention_months)
    }

    fn read_limits(&self) -> Limits {
        Limits { statement: self.settings.statement_timeout.min(READ_TIMEOUT), lock: self.settings.lock_timeout }
    }
}
