use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use super::SnapshotService;
use crate::error::{Error, Result};
use crate::maintenance::{Deadline, dry_run_restore, run};
use crate::model::{MaintenanceRun, RestoreDryRunReport, RestoreRequest, RestoreTarget, Scope, Trigger};
use crate::store::rollback::{self, Lines};
use crate::store::session::{self, Limits};
use crate::store::{roles, snapshots, verification};

impl SnapshotService {
    /// Moves archived logs back to `EventLog`, whole; they stay there until they are released. `trigger` is who asks, `now` the run's start.
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
        trigger: Trigger,
        request: &RestoreRequest,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        if let Some(stream) = &request.stream {
            self.observe(stream).await?;
        }
        let target = self.target(request).await?;
        run::run(self.engine(now, deadline), Scope::Restore, Some(target), trigger.request()).await
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
            && self.find_maintenance_run(run).await?.is_none()
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
    /// cancelled. `trigger` is who asks, `now` the run's start.
    ///
    /// Works until `deadline`; calling again continues.
    ///
    /// # Errors
    ///
    /// [`Error::RollbackRefused`] while another run is open, a stream is on hold, there are snapshots and `drop_snapshots` is
    /// not set, or a log has another in its way; else as [`restore`](Self::restore).
    pub async fn restore_all(
        &self,
        trigger: Trigger,
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
        if has_snapshots && !drop_snapshots {
            return refused("there are snapshots: with --drop-snapshots they are written to a file and dropped".into());
        }
        let list = verification::list_foreign_partitions(&**client);
        let foreign = session::read(&client, &self.read_limits(), list).await?;
        drop(client);
        if let Some((name, bounds)) = foreign.first() {
            return refused(format!(
                "the partition {name} ({bounds}) of the archive is not of one month: move its rows"
            ));
        }
        let target = Some(RestoreTarget::default());
        run::run(self.engine(now, deadline), Scope::Rollback, target, trigger.request()).await
    }

    /// The second step: gives each snapshot to `write`, as a line of JSON, in order of month and stream. Returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] with what `write` said; [`Error::Unavailable`] and the like.
    pub async fn write_snapshots(&self, write: impl FnMut(&str) -> std::io::Result<()>) -> Result<u64> {
        self.write_lines(&rollback::SNAPSHOT_LINES, write).await
    }

    /// The same with what else is nowhere but in the tables that are dropped: legal holds, what maintenance has found, with the
    /// logs that it dropped as duplicates, and the ids of streams that are gone.
    ///
    /// # Errors
    ///
    /// As [`write_snapshots`](Self::write_snapshots).
    pub async fn write_records(&self, write: impl FnMut(&str) -> std::io::Result<()>) -> Result<u64> {
        self.write_lines(&rollback::RECORD_LINES, write).await
    }

    async fn write_lines(&self, lines: &Lines, write: impl FnMut(&str) -> std::io::Result<()>) -> Result<u64> {
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
}
