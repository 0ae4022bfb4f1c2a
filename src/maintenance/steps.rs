//! A run in the hands of an execution of the state machine: the same work as [`super::run`], cut so that months can be
//! archived by several functions at a time. The execution has the lease; its slices follow each other, but for those of
//! months, which share it. Its last step is an ordinary slice, which does what the others may have left.

use crate::database::Pool;
use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::run::{self, Start};
use super::slice::{Begun, Slice};
use super::{Deadline, Plan, Settings, archive, snapshots};
use crate::error::{Error, Result};
use crate::model::{
    MaintenanceRun, Month, Phase, RunStatus, Scope, SliceOutcome, SliceReport, StepReport, StepRequest, StopReason,
};
use crate::store::maintenance_runs::{self, NewRun, SliceEnd};
use crate::store::session;

/// One invocation of an execution: what it works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) settings: &'a Settings,
    /// The execution's name.
    pub(crate) execution: &'a str,
    pub(crate) now: DateTime<Utc>,
    pub(crate) deadline: &'a Deadline,
}

impl<'a> Steps<'a> {
    /// Takes the snapshots of the run that is asked for; another one that is open is finished first. Ended when there is
    /// nothing to do: the period was run, or the run has ended.
    pub(crate) async fn take_snapshots(self, request: StepRequest) -> Result<StepReport> {
        let report = StepReport::of(request);
        let slice = if let Some(id) = request.run_id {
            match self.take(id, None).await? {
                Ok(begun) => Box::new(self.slice(begun)),
                Err(run) => return Ok(report.about(run.id).ended()),
            }
        } else {
            let wanted = self.wanted(request);
            match run::start(self.pool, self.settings, &wanted, Some(&self.holder()), self.deadline).await? {
                Start::Wanted(slice) => slice,
                Start::Ended(run) => return Ok(report.about(run.id).ended()),
                Start::Other(run) => return Ok(report.about(run.id)),
            }
        };
        // From here on it is about this run: when it is cancelled, none is begun in its place.
        let report = StepReport::of(StepRequest::continuing(slice.run.id)).about(slice.run.id);
        if slice.run.phase != Phase::Snapshots {
            return Ok(report.completed());
        }
        let stopped = slice.reported(Box::pin(snapshots::take_snapshots(&slice))).await?;
        self.after(&slice, stopped, report).await
    }

    /// Finds the months that are left to archive. Ended when there are none.
    pub(crate) async fn plan_archive(self, id: Uuid) -> Result<StepReport> {
        let report = StepReport::of(StepRequest::continuing(id)).about(id);
        let slice = match self.take(id, None).await? {
            Ok(begun) => self.slice(begun),
            Err(_) => return Ok(report.ended()),
        };
        match slice.run.phase {
            Phase::Archive => {}
            Phase::Snapshots => return Err(Error::SnapshotsIncomplete { month: slice.run.snapshot_month }),
            // The last step is left.
            _ => return Ok(report.ended()),
        }
        match slice.reported(Box::pin(archive::plan(&slice))).await? {
            Ok(months) if months.is_empty() => Ok(report.ended()),
            Ok(months) => {
                info!(run = %id, months = months.len(), "snapshot maintenance: months are planned");
                Ok(StepReport { months, ..report.completed() })
            }
            Err(stop) => self.after(&slice, Some(stop), report).await,
        }
    }

    /// Archives one month of the run, beside slices that archive others.
    pub(crate) async fn archive_month(self, id: Uuid, month: Month) -> Result<StepReport> {
        let report = StepReport::of(StepRequest::continuing(id)).about(id);
        let slice = match self.take(id, Some(month)).await? {
            Ok(begun) => self.slice(begun),
            Err(_) => return Ok(report.completed()),
        };
        if slice.run.phase != Phase::Archive {
            return Ok(report.completed());
        }
        let stopped = slice.reported(Box::pin(archive::archive_one(&slice, month))).await?;
        Ok(if stopped.is_none() { report.completed() } else { report })
    }

    /// Does what is left of the run. Complete when it has ended.
    pub(crate) async fn finish(self, id: Uuid) -> Result<StepReport> {
        let report = StepReport::of(StepRequest::continuing(id)).about(id);
        let run = match self.take(id, None).await? {
            Ok(begun) => {
                let slice = self.slice(begun);
                slice.reported(Box::pin(run::work(&slice))).await?
            }
            Err(run) => run,
        };
        Ok(if run.finished_at.is_some() { report.completed() } else { report })
    }

    /// How far a step is that stopped for this reason, if for any. One that an operator paused gives the lease back.
    async fn after(self, slice: &Slice<'_>, stopped: Option<StopReason>, report: StepReport) -> Result<StepReport> {
        if stopped == Some(StopReason::Paused) {
            let end = SliceEnd { status: RunStatus::Interrupted, stop_reason: stopped, error: None };
            run::release(slice, &end).await?;
        }
        Ok(if stopped.is_none() { report.completed() } else { report })
    }

    /// Records that the execution failed, and why; the next trigger continues its run.
    pub(crate) async fn fail(self, error: &str) -> Result<()> {
        let began = Instant::now();
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.settings.limits()).await?;
        let run = maintenance_runs::fail_execution(&transaction, &self.holder(), error).await?;
        transaction.commit().await?;
        if let (Some(run), Some(on_slice)) = (run, self.settings.on_slice) {
            let outcome = SliceOutcome { time: began.elapsed(), failed: true };
            on_slice(&SliceReport { outcome: Some(outcome), ..SliceReport::of(run) });
        }
        warn!(?run, execution = self.execution, error, "snapshot maintenance: the execution failed");
        Ok(())
    }

    /// The beginning of the names under which the execution holds a lease.
    fn holder(self) -> String {
        format!("execution {}", self.execution)
    }

    fn wanted(self, request: StepRequest) -> NewRun {
        let Plan { snapshot_month, cutoff, .. } = Plan::starting_at(self.now, self.settings.retention_months);
        NewRun {
            request: request.maintenance(),
            scope: Scope::Maintenance,
            target: None,
            snapshot_month,
            cutoff,
            started_at: self.now,
        }
    }

    fn slice(self, begun: Begun) -> Slice<'a> {
        let mut slice = Slice::new(self.pool, self.settings, self.deadline, (self.now, Instant::now()), begun);
        slice.keeps_lease = true;
        slice
    }

    /// Takes an open run, or one `month` of it; returns the run when it has ended.
    async fn take(self, id: Uuid, month: Option<Month>) -> Result<std::result::Result<Begun, MaintenanceRun>> {
        let mut client = self.pool.get().await?;
        let limits = self.settings.limits();
        loop {
            let run = session::read(&client, &limits, maintenance_runs::find_run(&**client, id)).await?;
            let run = run.ok_or(Error::NotFound { what: "Run" })?;
            if run.scope != Scope::Maintenance {
                return Err(Error::invalid("runId", "must be of a run of scope maintenance"));
            }
            if run.finished_at.is_some() {
                return Ok(Err(run));
            }
            let transaction = session::begin(&mut client, &limits).await?;
            let lease_seconds = self.settings.lease.as_secs_f64();
            let holder = self.holder();
            let lease = if let Some(month) = month {
                maintenance_runs::take_month(&transaction, lease_seconds, id, &holder, month).await?
            } else {
                let (scope, force) = (Scope::Maintenance, false);
                maintenance_runs::take_over_run(&transaction, lease_seconds, scope, force, Some(&holder)).await?
            };
            if let Some(lease) = lease.filter(|lease| lease.run_id == id) {
                run::meet_host(&transaction, self.settings, id).await?;
                let begun = run::load(&transaction, lease).await?;
                transaction.commit().await?;
                begun.log();
                return Ok(Ok(begun));
            }
            drop(transaction);
            run::check_free(self.pool, self.settings, Scope::Maintenance).await?;
        }
    }
}
