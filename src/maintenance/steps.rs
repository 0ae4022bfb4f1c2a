//! A run in the hands of an execution of the state machine: the same work as [`super::run`], cut so that months can be
//! archived by several functions at a time. The execution owns the run; its slices follow each other, but for those of
//! months, which join it. Its last step is an ordinary slice, which does what the others may have left.

use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::engine::{Engine, Halt, Work};
use super::run::{self, Start};
use super::slice::Slice;
use super::{archive, snapshots};
use crate::error::{Error, Result};
use crate::model::{
    MaintenanceRun, Month, Phase, RunStatus, Scope, SliceOutcome, SliceReport, StepReport, StepRequest, StopReason,
};
use crate::store::leases::{self, Claim, SliceEnd};
use crate::store::{maintenance_runs, session};

/// One invocation of an execution: what it works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps<'a> {
    pub(crate) engine: Engine<'a>,
    /// The execution's name.
    pub(crate) execution: &'a str,
}

/// What became of the run that a step is about.
enum StepRun<'a> {
    /// The step's slice of it.
    Claimed(Box<Slice<'a>>),
    Ended(Box<MaintenanceRun>),
}

impl<'a> Steps<'a> {
    /// Takes the snapshots of the run that is asked for; another one that is open is finished first. Ended when there is
    /// nothing to do: the period was run, or the run has ended.
    pub(crate) async fn take_snapshots(self, request: StepRequest) -> Result<StepReport> {
        let report = StepReport::to(request);
        let slice = if let Some(id) = request.run_id {
            match self.claim(id, false).await? {
                StepRun::Claimed(slice) => slice,
                StepRun::Ended(run) => return Ok(report.about(run.id).ended()),
            }
        } else {
            let wanted = run::wanted(self.engine, Scope::Maintenance, None, request.maintenance());
            match run::start(self.engine, &wanted, Some(&self.owner())).await? {
                Start::Wanted(slice) => slice,
                Start::Ended(run) => return Ok(report.about(run.id).ended()),
                Start::Other(run) => return Ok(report.about(run.id)),
            }
        };
        // From here on it is about this run: when it is cancelled, none is begun in its place.
        let report = StepReport::to(StepRequest::continuing(slice.run.id)).about(slice.run.id);
        if slice.run.phase != Phase::Snapshots {
            return Ok(report.completed());
        }
        let taken = slice.reported(Box::pin(snapshots::take_snapshots(&slice))).await;
        Ok(if self.ended(&slice, taken).await?.is_some() { report.completed() } else { report })
    }

    /// Finds the months that are left to archive. Ended when there are none.
    pub(crate) async fn plan_archive(self, id: Uuid) -> Result<StepReport> {
        let report = StepReport::to(StepRequest::continuing(id)).about(id);
        let StepRun::Claimed(slice) = self.claim(id, false).await? else { return Ok(report.ended()) };
        match slice.run.phase {
            Phase::Archive => {}
            Phase::Snapshots => return Err(Error::SnapshotsIncomplete { month: slice.run.snapshot_month.to_string() }),
            // The last step is left.
            _ => return Ok(report.ended()),
        }
        let planned = slice.reported(Box::pin(archive::plan(&slice))).await;
        Ok(match self.ended(&slice, planned).await? {
            None => report,
            Some(months) if months.is_empty() => report.ended(),
            Some(months) => {
                info!(run = %id, months = months.len(), "snapshot maintenance: months are planned");
                StepReport { months, ..report.completed() }
            }
        })
    }

    /// Archives one month of the run, beside slices that archive others.
    pub(crate) async fn archive_month(self, id: Uuid, month: Month) -> Result<StepReport> {
        let report = StepReport::to(StepRequest::continuing(id)).about(id);
        let StepRun::Claimed(slice) = self.claim(id, true).await? else { return Ok(report.completed()) };
        if slice.run.phase != Phase::Archive {
            return Ok(report.completed());
        }
        match slice.reported(Box::pin(archive::archive_month(&slice, month))).await {
            Ok(()) => Ok(report.completed()),
            Err(Halt::Stop(_)) => Ok(report),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    /// Does what is left of the run. Complete when it has ended.
    pub(crate) async fn finish(self, id: Uuid) -> Result<StepReport> {
        let report = StepReport::to(StepRequest::continuing(id)).about(id);
        let run = match self.claim(id, false).await? {
            StepRun::Claimed(slice) => Box::pin(run::work(&slice)).await?,
            StepRun::Ended(run) => *run,
        };
        Ok(if run.finished_at.is_some() { report.completed() } else { report })
    }

    /// What a step has done; `None` when it stopped before. One that an operator paused gives the lease back.
    async fn ended<T>(self, slice: &Slice<'_>, result: Work<T>) -> Result<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(Halt::Failed(error)) => Err(error),
            Err(Halt::Stop(stop_reason)) => {
                if stop_reason == StopReason::Paused {
                    let (status, stop_reason) = (RunStatus::Interrupted, Some(stop_reason));
                    run::release(slice, &SliceEnd { status, stop_reason, error: None }).await?;
                }
                Ok(None)
            }
        }
    }

    /// Records that the execution failed, and why; the next trigger continues its run.
    pub(crate) async fn fail(self, error: &str) -> Result<()> {
        let began = Instant::now();
        let mut client = self.engine.connect().await?;
        let transaction = session::begin(&mut client, &self.engine.settings.limits()).await?;
        let run = leases::fail_execution(&transaction, &self.owner(), error).await?;
        transaction.commit().await?;
        if let (Some(run), Some(on_slice)) = (run, self.engine.settings.on_slice) {
            let outcome = SliceOutcome { time: began.elapsed(), failed: true };
            on_slice(&SliceReport { outcome: Some(outcome), ..SliceReport::empty(run) });
        }
        warn!(?run, execution = self.execution, error, "snapshot maintenance: the execution failed");
        Ok(())
    }

    /// The name under which the execution owns its run.
    fn owner(self) -> String {
        format!("execution {}", self.execution)
    }

    /// Claims an open run; `joins` the other slices of the execution to work on a month.
    async fn claim(self, id: Uuid, joins: bool) -> Result<StepRun<'a>> {
        let engine = self.engine;
        let limits = engine.settings.limits();
        let mut client = engine.connect().await?;
        loop {
            let run = session::read(&client, &limits, maintenance_runs::find_run(&**client, id)).await?;
            let run = run.ok_or(Error::NotFound { what: "Run" })?;
            if run.scope != Scope::Maintenance {
                return Err(Error::invalid("runId", "must be of a run of scope maintenance"));
            }
            if run.finished_at.is_some() {
                return Ok(StepRun::Ended(Box::new(run)));
            }
            let transaction = session::begin(&mut client, &limits).await?;
            let owner = self.owner();
            let claim = Claim { run: Some(id), execution: Some(&owner), joins, ..Claim::default() };
            if let Some(lease) = leases::claim_run(&transaction, engine.settings.lease.as_secs_f64(), claim).await? {
                let host = run::meet_host(&transaction, engine.settings, id).await?;
                let mut slice = Slice::load(&transaction, engine, lease, host).await?;
                transaction.commit().await?;
                slice.keeps_lease = true;
                slice.log();
                return Ok(StepRun::Claimed(Box::new(slice)));
            }
            drop(transaction);
            run::check_free(engine, Scope::Maintenance).await?;
        }
    }
}
