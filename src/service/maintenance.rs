use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::IsolationLevel;
use tracing::warn;

use super::SnapshotService;
use crate::error::{Error, HostFinding, Result, chain};
use crate::host::findings;
use crate::maintenance::{Deadline, Plan, Steps, dry_run, run, verify};
use crate::model::{
    BacklogReport, DryRunReport, MaintenancePause, MaintenanceRequest, MaintenanceRun, Scope, Step, StepEvent,
    StepReport, StepRequest, StreamId, Trigger, Verification, VerificationRequest,
};
use crate::store::backlog::{self, Standing};
use crate::store::{event_log, host, leases, maintenance_pause, maintenance_runs, session};

impl SnapshotService {
    /// Takes this month's snapshot of every stream that has none yet; others stay as they are (domain rules 3 and 4).
    /// `trigger` is who asks, `now` the run's start.
    ///
    /// A run that is open is finished first. Works until `deadline`; calling again continues.
    ///
    /// # Errors
    ///
    /// [`Error::UnderWay`](crate::Error::UnderWay) while somebody else works, [`Error::Paused`](crate::Error::Paused),
    /// [`Error::ReadOnlyDatabase`](crate::Error::ReadOnlyDatabase), [`Error::CutoffInFuture`](crate::Error::CutoffInFuture),
    /// [`Error::Unavailable`](crate::Error::Unavailable), [`Error::Busy`](crate::Error::Busy) and the like. Batches before
    /// the error are kept; calling again continues.
    pub async fn create_monthly_snapshots(
        &self,
        trigger: Trigger,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        self.run(Scope::Snapshots, trigger.request(), now, deadline).await
    }

    /// Moves logs older than the retention to the archive (domain rules 1 and 5 to 7). `trigger` is who asks, `now` the run's start.
    ///
    /// A run that is open is finished first. Works until `deadline`; calling again continues.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotsIncomplete`](crate::Error::SnapshotsIncomplete) while a stream lacks its snapshot of the month;
    /// [`Error::ArchiveColumnsDiffer`](crate::Error::ArchiveColumnsDiffer) before the first row moves;
    /// [`Error::TooManyRows`](crate::Error::TooManyRows); else as
    /// [`create_monthly_snapshots`](Self::create_monthly_snapshots).
    pub async fn archive_old_logs(
        &self,
        trigger: Trigger,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        self.run(Scope::Archive, trigger.request(), now, deadline).await
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
                Ok(Some(StepReport::to(request).waiting()))
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
        dry_run(self.engine(now, deadline), refresh).await
    }

    /// Recomputes the archive's seals, its rows' hashes and links, and tells what is not as it was archived. Changes no row.
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
            Err(error @ Error::Busy { .. }) => {
                warn!(error = chain(&error), "the backlog is not known");
                (None, None)
            }
            Err(error) => return Err(error),
        };
        let hours_since_last_success = seconds(now - last_success) / 3600.0;
        Ok(BacklogReport { hours_since_last_success, backlog_rows, backlog_age_seconds, verification_breaks: breaks })
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

    async fn run(
        &self,
        scope: Scope,
        request: MaintenanceRequest,
        now: DateTime<Utc>,
        deadline: &Deadline,
    ) -> Result<MaintenanceRun> {
        run::run(self.engine(now, deadline), scope, None, request).await
    }
}
