use chrono::{DateTime, Utc};
use serde_json::value::to_raw_value;
use tokio_postgres::{GenericClient, IsolationLevel};
use tracing::{info, warn};
use uuid::Uuid;

use super::engine::{Engine, Halt, Work};
use super::slice::Slice;
use super::vacuum::vacuum;
use super::{Plan, Settings, archive, restore, snapshots};
use crate::error::{Error, HostFinding, Result, chain};
use crate::host::findings;
use crate::model::{
    MaintenancePause, MaintenanceRequest, MaintenanceRun, Month, Phase, RestoreTarget, RunStatus, Scope, StopReason,
};
use crate::store::host::SeenHost;
use crate::store::leases::{self, Claim, SliceEnd};
use crate::store::maintenance_runs::{self, NewRun};
use crate::store::session::Connection;
use crate::store::snapshots::count_streams;
use crate::store::{former, host, maintenance_pause, server, session};

/// Works on maintenance until the engine's deadline: on the run that is open, if one is, then on one that starts now and does
/// what is asked for. Returns the last of them as it then is. Restores are apart from other runs: neither waits for the other.
///
/// # Errors
///
/// [`Error::UnderWay`] when somebody else works on it; [`Error::Paused`]; the guard rails'; and what goes wrong on the
/// way, which leaves the run to be continued.
pub(crate) async fn run(
    engine: Engine<'_>,
    scope: Scope,
    target: Option<RestoreTarget>,
    request: MaintenanceRequest,
) -> Result<MaintenanceRun> {
    match start(engine, &wanted(engine, scope, target, request), None).await? {
        Start::Wanted(slice) => {
            let result = Box::pin(work(&slice)).await;
            if let Err(Error::NotRestorable { .. } | Error::RestoreRefused { .. }) = result {
                // It would be refused again, and nothing else would run meanwhile.
                give_up(engine, slice.run.id).await?;
            }
            result
        }
        Start::Ended(run) | Start::Other(run) => Ok(run),
    }
}

/// A run that starts now.
pub(super) fn wanted(
    engine: Engine<'_>,
    scope: Scope,
    target: Option<RestoreTarget>,
    request: MaintenanceRequest,
) -> NewRun {
    let Plan { now, snapshot_month, cutoff } = Plan::starting_at(engine.called_at, engine.settings.retention_months);
    NewRun { request, scope, target, snapshot_month, cutoff, started_at: now }
}

/// What is there to be worked on.
pub(super) enum Start<'a> {
    /// What was asked for.
    Wanted(Box<Slice<'a>>),
    /// It has been done already.
    Ended(MaintenanceRun),
    /// The run that goes first is not finished: there was no time, or it was paused or cancelled.
    Other(MaintenanceRun),
}

/// Claims the run that is wanted, or starts it; another one that is open is finished first.
pub(super) async fn start<'a>(engine: Engine<'a>, wanted: &NewRun, execution: Option<&str>) -> Result<Start<'a>> {
    check_guard_rails(engine, wanted.cutoff).await?;
    let mut is_first = true;
    loop {
        let Some(mut slice) = begin(engine, wanted, execution).await? else {
            if let Some(run) = find_finished(engine, wanted).await? {
                return Ok(Start::Ended(run));
            }
            // What was in the way ended just now.
            continue;
        };
        let is_wanted = does(&slice.run, wanted);
        slice.keeps_lease = execution.is_some() && is_wanted;
        if !is_first {
            slice.set_worked();
        }
        is_first = false;
        if is_wanted {
            return Ok(Start::Wanted(Box::new(slice)));
        }
        let (id, scope, month) = (slice.run.id, slice.run.scope, slice.run.snapshot_month);
        match Box::pin(work(&slice)).await {
            Ok(run) if !run.complete => return Ok(Start::Other(run)),
            // An older run was finished first; now for what was asked for.
            Ok(_) => {}
            Err(error @ (Error::LeaseLost { .. } | Error::Unavailable { .. })) => return Err(error),
            // It would be refused again, and nothing else would run meanwhile.
            Err(error @ (Error::NotRestorable { .. } | Error::RestoreRefused { .. })) => {
                give_up(engine, id).await?;
                warn!(run = %id, error = chain(&error), "snapshot maintenance: somebody's restore is given up");
            }
            // What keeps another run from its end must not keep this month's snapshots from being taken: a month that is
            // missed cannot be made up for. All that the other run has left to archive is due to a later one.
            Err(error)
                if scope != Scope::Rollback && (month < wanted.snapshot_month || wanted.scope.takes_snapshots()) =>
            {
                warn!(run = %id, %month, error = chain(&error), "snapshot maintenance: the run that went first is given up");
                give_up(engine, id).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn give_up(engine: Engine<'_>, run: Uuid) -> Result<()> {
    let mut client = engine.connect().await?;
    let transaction = session::begin(&mut client, &engine.settings.limits()).await?;
    let given_up = leases::give_up_run(&transaction, run).await?;
    transaction.commit().await?;
    // Somebody has taken it meanwhile, or it was not released.
    if given_up { Ok(()) } else { Err(Error::LeaseLost { run }) }
}

/// Whether a run, once it is complete, has done what is wanted.
fn does(run: &MaintenanceRun, wanted: &NewRun) -> bool {
    if wanted.target.is_some() {
        return run.scope == wanted.scope && run.target == wanted.target;
    }
    // One that has left its snapshots behind takes none of streams that are new, and whatever it is at may fail.
    let is_past = wanted.scope == Scope::Snapshots && run.phase != Phase::Snapshots;
    run.does(wanted.scope, &wanted.request, wanted.snapshot_month) && !is_past
}

async fn check_guard_rails(engine: Engine<'_>, cutoff: DateTime<Utc>) -> Result<()> {
    let settings = engine.settings;
    if settings.retention_months == 0 {
        return Err(Error::RetentionTooShort { months: settings.retention_months });
    }
    let client = engine.connect().await?;
    let state = session::read(&client, &settings.limits(), server::get_server_state(&**client)).await?;
    if state.is_read_only {
        return Err(Error::ReadOnlyDatabase);
    }
    if cutoff.naive_utc() > state.now {
        return Err(Error::CutoffInFuture { cutoff });
    }
    if !state.sees_statistics
        && let Some(finding) = HostFinding::limits_hidden(&state.role, settings.host_limits())
    {
        return Err(finding.into());
    }
    Ok(())
}

/// Claims the open run, or starts the one that is wanted; none when neither can be. What another trigger does at the same
/// time is decided by the table's constraints; each statement sees what the others have committed.
async fn begin<'a>(engine: Engine<'a>, wanted: &NewRun, execution: Option<&str>) -> Result<Option<Slice<'a>>> {
    if let Some(run) = find_ended_period(engine, wanted).await? {
        info!(run = %run.id, "snapshot maintenance: the period's run has ended already");
        return Ok(None);
    }
    let settings = engine.settings;
    let mut client = engine.connect().await?;
    let grown = list_grown(&mut client, settings).await;
    let lease_seconds = settings.lease.as_secs_f64();
    let transaction = session::begin(&mut client, &settings.limits()).await?;
    let claim = Claim {
        is_restore: wanted.scope == Scope::Restore,
        force: wanted.request.force,
        execution,
        ..Claim::default()
    };
    let mut lease = leases::claim_run(&transaction, lease_seconds, claim).await?;
    if lease.is_none() {
        // Before there is a run that could not go on.
        if wanted.scope == Scope::Archive
            && maintenance_runs::find_excluding_run(&transaction, wanted.scope).await?.is_none()
        {
            check_snapshots(&transaction, wanted.snapshot_month).await?;
        }
        lease = leases::insert_run(&transaction, lease_seconds, wanted, execution).await?;
    }
    let Some(lease) = lease else { return Ok(None) };
    let host = meet_host(&transaction, settings, lease.run).await?;
    maintenance_runs::add_host_findings(&transaction, lease.run, &grown).await?;
    let slice = Slice::load(&transaction, engine, lease, host).await?;
    check_rollback(&slice.run, wanted)?;
    transaction.commit().await?;
    slice.log();
    Ok(Some(slice))
}

/// Tells of tables of the former service that have grown. That it cannot be told keeps no run from its work.
async fn list_grown(client: &mut Connection, settings: &Settings) -> Vec<HostFinding> {
    let list = async {
        let transaction = session::begin_read(client, &settings.limits(), IsolationLevel::RepeatableRead).await?;
        former::list_grown(&transaction).await
    };
    let grown = list.await.unwrap_or_else(|error| {
        warn!(
            error = chain(&error),
            "snapshot maintenance: whether the former service's tables have grown is not known"
        );
        Vec::new()
    });
    let findings: Vec<_> = grown.iter().map(|(table, rows)| HostFinding::former_table_grew(table, *rows)).collect();
    for finding in &findings {
        finding.log(None);
    }
    findings
}

/// Looks at what the host has in its database, logs what of it refuses, holds or warns, and notes it in the run.
pub(super) async fn meet_host(client: &impl GenericClient, settings: &Settings, run: Uuid) -> Result<SeenHost> {
    let host = host::see(client).await?;
    let findings = findings(&host.facts, settings.host_limits());
    for finding in &findings {
        finding.log(Some(run));
    }
    maintenance_runs::add_host_findings(client, run, &findings).await?;
    Ok(host)
}

/// Keeps a rollback and other runs apart: what the one brings back the others would archive.
fn check_rollback(run: &MaintenanceRun, wanted: &NewRun) -> Result<()> {
    if run.scope == wanted.scope || ![run.scope, wanted.scope].contains(&Scope::Rollback) {
        return Ok(());
    }
    if run.scope == Scope::Rollback {
        return Err(under_way(run));
    }
    Err(rollback_refused(run))
}

fn under_way(run: &MaintenanceRun) -> Error {
    match to_raw_value(run) {
        Ok(progress) => Error::UnderWay { run: run.id, period: run.period.map(|period| period.to_string()), progress },
        Err(error) => Error::Serialize(error),
    }
}

fn rollback_refused(open: &MaintenanceRun) -> Error {
    let (id, scope) = (open.id, open.scope.as_str());
    let reason = format!("run {id} ({scope}) is open: finish it first, or end it with `snapshots cancel`");
    Error::RollbackRefused { reason }
}

/// Why no run could be begun: the run of the period if it has ended, or an error; none when there is no reason any more.
async fn find_finished(engine: Engine<'_>, wanted: &NewRun) -> Result<Option<MaintenanceRun>> {
    if let Some(run) = find_ended_period(engine, wanted).await? {
        return Ok(Some(run));
    }
    check_free(engine, wanted.scope).await?;
    Ok(None)
}

/// Why no lease of a run of `scope` is to be had, if there is a reason.
pub(super) async fn check_free(engine: Engine<'_>, scope: Scope) -> Result<()> {
    let client = engine.connect().await?;
    let limits = engine.settings.limits();
    if let Some(pause) = session::read(&client, &limits, maintenance_pause::find_pause(&**client)).await? {
        let MaintenancePause { reason, paused_by, paused_at } = pause;
        return Err(Error::Paused { since: paused_at, by: paused_by, reason });
    }
    let find = maintenance_runs::find_excluding_run(&**client, scope);
    if let Some(run) = session::read(&client, &limits, find).await? {
        let waits_for_its_end = scope != Scope::Rollback || run.scope == scope || run.status == RunStatus::Running;
        return Err(if waits_for_its_end { under_way(&run) } else { rollback_refused(&run) });
    }
    Ok(())
}

/// The run of the wanted period, if it has ended.
async fn find_ended_period(engine: Engine<'_>, wanted: &NewRun) -> Result<Option<MaintenanceRun>> {
    let Some(period) = wanted.request.trigger.period() else { return Ok(None) };
    let client = engine.connect().await?;
    let find = maintenance_runs::find_run_of_period(&**client, period);
    Ok(session::read(&client, &engine.settings.limits(), find).await?.filter(|run| run.finished_at.is_some()))
}

/// Does what can be done of a run in one slice, and gives the lease back unless its execution keeps it.
pub(super) async fn work(slice: &Slice<'_>) -> Result<MaintenanceRun> {
    let result = slice.reported(do_phases(slice)).await;
    let released = match slice_end(slice, &result) {
        Some(end) => release(slice, &end).await,
        None => Ok(()),
    };
    if let Err(Halt::Failed(error)) = result {
        // The log has its chain where it is handled, and here the run that it is of.
        warn!(run = %slice.run.id, code = error.code(), "snapshot maintenance: the slice ends with an error");
        if let Err(error) = released {
            // The lease will expire.
            warn!(run = %slice.run.id, error = chain(&error), "snapshot maintenance: the lease is not given back");
        }
        let cancelled = match error {
            Error::LeaseLost { .. } => find(slice).await?.filter(|run| run.stop_reason == Some(StopReason::Cancelled)),
            _ => None,
        };
        return cancelled.ok_or(error);
    }
    released?;
    let run = find(slice).await?.ok_or(Error::LeaseLost { run: slice.run.id })?;
    info!(
        run = %run.id, status = run.status.as_str(), stop_reason = run.stop_reason.map(StopReason::as_str),
        snapshots_created = run.snapshots_created, logs_archived = run.logs_archived,
        already_archived = run.already_archived, logs_restored = run.logs_restored, conflicts = run.conflicts, held_back = ?run.held_back,
        complete = run.complete, "snapshot maintenance: ends",
    );
    Ok(run)
}

/// How the slice leaves its run; `None` when it is not to say so.
fn slice_end(slice: &Slice<'_>, result: &Work) -> Option<SliceEnd> {
    let (status, stop_reason, error) = match result {
        // It stays open until its tables are dropped: nothing else may run until then.
        Ok(()) if slice.run.scope == Scope::Rollback => (RunStatus::Interrupted, None, None),
        Ok(()) => (RunStatus::Succeeded, None, None),
        // The next slice of the execution follows; or the execution says that it failed.
        Err(Halt::Stop(StopReason::Deadline) | Halt::Failed(_)) if slice.keeps_lease => return None,
        Err(Halt::Stop(reason)) => (RunStatus::Interrupted, Some(*reason), None),
        // Of a run that is lost this says nothing: it is somebody else's.
        Err(Halt::Failed(error)) => (RunStatus::Failed, Some(StopReason::Error), Some(error.to_string())),
    };
    Some(SliceEnd { status, stop_reason, error })
}

pub(super) async fn release(slice: &Slice<'_>, end: &SliceEnd) -> Result<()> {
    let mut client = slice.engine.connect().await?;
    let transaction = session::begin(&mut client, &slice.engine.settings.limits()).await?;
    leases::release_run(&transaction, &slice.lease, end).await?;
    Ok(transaction.commit().await?)
}

async fn find(slice: &Slice<'_>) -> Result<Option<MaintenanceRun>> {
    let client = slice.engine.connect().await?;
    session::read(&client, &slice.engine.settings.limits(), maintenance_runs::find_run(&**client, slice.run.id)).await
}

/// Goes through the phases that are left.
async fn do_phases(slice: &Slice<'_>) -> Work {
    let scope = slice.run.scope;
    slice.check()?;
    match slice.run.phase {
        Phase::Snapshots => {
            snapshots::take_snapshots(slice).await?;
            if scope == Scope::Snapshots {
                return Ok(());
            }
            // The batch that each call is good for may be spent.
            slice.check()?;
        }
        Phase::Restore => restore::restore(slice).await?,
        _ => {}
    }
    match scope {
        Scope::Restore | Scope::Rollback => Ok(vacuum(slice).await?),
        _ => archive::archive(slice).await,
    }
}

/// Refuses to archive before the month's snapshots are complete.
async fn check_snapshots(client: &impl GenericClient, month: Month) -> Result<()> {
    let counts = count_streams(client, month, None).await?;
    if counts.without_snapshot > 0 { Err(Error::SnapshotsIncomplete { month: month.to_string() }) } else { Ok(()) }
}
