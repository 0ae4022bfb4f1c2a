use crate::database::Pool;
use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_postgres::{GenericClient, IsolationLevel};
use tracing::{info, warn};
use uuid::Uuid;

use super::slice::{Begun, Slice};
use super::vacuum::vacuum;
use super::{Deadline, Plan, Settings, archive, restore, snapshots};
use crate::error::{Error, Result, chain};
use crate::host::{HostFinding, findings};
use crate::model::{MaintenanceRequest, MaintenanceRun, Month, Phase, RestoreTarget, RunStatus, Scope, StopReason};
use crate::store::maintenance_runs::{self, NewRun, SliceEnd, Taken};
use crate::store::session::Connection;
use crate::store::snapshots::count_streams;
use crate::store::{former, host, maintenance_pause, server, session};

/// Works on maintenance until `deadline`: on the run that is open, if one is, then on one that starts at `now` and does
/// what is asked for. Returns the last of them as it then is. Restores are apart from other runs: neither waits for the other.
///
/// # Errors
///
/// [`Error::UnderWay`] when somebody else works on it; [`Error::Paused`]; the guard rails'; and what goes wrong on the
/// way, which leaves the run to be continued.
pub(crate) async fn run(
    pool: &Pool,
    settings: &Settings,
    scope: Scope,
    target: Option<RestoreTarget>,
    request: MaintenanceRequest,
    now: DateTime<Utc>,
    deadline: &Deadline,
) -> Result<MaintenanceRun> {
    let Plan { snapshot_month, cutoff, .. } = Plan::starting_at(now, settings.retention_months);
    let wanted = NewRun { request, scope, target, snapshot_month, cutoff, started_at: now };
    match start(pool, settings, &wanted, None, deadline).await? {
        Start::Wanted(slice) => {
            let id = slice.run.id;
            let result = slice.reported(Box::pin(work(&slice))).await;
            if let Err(Error::NotRestorable { .. } | Error::RestoreRefused { .. }) = result {
                // It would be refused again, and nothing else would run meanwhile.
                give_up(pool, settings, id).await?;
            }
            result
        }
        Start::Ended(run) | Start::Other(run) => Ok(run),
    }
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

/// Takes the lease of the run that is wanted, or starts it; another one that is open is finished first.
pub(super) async fn start<'a>(
    pool: &'a Pool,
    settings: &'a Settings,
    wanted: &NewRun,
    execution: Option<&str>,
    deadline: &'a Deadline,
) -> Result<Start<'a>> {
    check_guard_rails(pool, settings, wanted.cutoff).await?;
    let clock = (wanted.started_at, Instant::now());
    let mut is_first = true;
    loop {
        let Some(begun) = begin(pool, settings, wanted, execution).await? else {
            if let Some(run) = find_finished(pool, settings, wanted).await? {
                return Ok(Start::Ended(run));
            }
            // What was in the way ended just now.
            continue;
        };
        let is_wanted = does(&begun.run, wanted);
        let mut slice = Slice::new(pool, settings, deadline, clock, begun);
        slice.keeps_lease = execution.is_some() && is_wanted;
        if !is_first {
            slice.set_worked();
        }
        is_first = false;
        if is_wanted {
            return Ok(Start::Wanted(Box::new(slice)));
        }
        let (id, scope, month) = (slice.run.id, slice.run.scope, slice.run.snapshot_month);
        match slice.reported(Box::pin(work(&slice))).await {
            Ok(run) if !run.complete => return Ok(Start::Other(run)),
            // An older run was finished first; now for what was asked for.
            Ok(_) => {}
            Err(error @ (Error::LeaseLost { .. } | Error::Unavailable(_))) => return Err(error),
            // It would be refused again, and nothing else would run meanwhile.
            Err(error @ (Error::NotRestorable { .. } | Error::RestoreRefused { .. })) => {
                give_up(pool, settings, id).await?;
                warn!(run = %id, error = chain(&error), "snapshot maintenance: somebody's restore is given up");
            }
            // What keeps another run from its end must not keep this month's snapshots from being taken: a month that is
            // missed cannot be made up for. All that the other run has left to archive is due to a later one.
            Err(error)
                if scope != Scope::Rollback && (month < wanted.snapshot_month || wanted.scope.takes_snapshots()) =>
            {
                warn!(run = %id, %month, error = chain(&error), "snapshot maintenance: the run that went first is given up");
                give_up(pool, settings, id).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn give_up(pool: &Pool, settings: &Settings, run: Uuid) -> Result<()> {
    let mut client = pool.get().await?;
    let transaction = session::begin(&mut client, &settings.limits()).await?;
    let given_up = maintenance_runs::give_up_run(&transaction, run).await?;
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

async fn check_guard_rails(pool: &Pool, settings: &Settings, cutoff: DateTime<Utc>) -> Result<()> {
    if settings.retention_months == 0 {
        return Err(Error::RetentionTooShort { months: settings.retention_months });
    }
    let client = pool.get().await?;
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
        return Err(Error::HostRefuses { finding: Box::new(finding) });
    }
    Ok(())
}

/// Takes the open run, or starts the one that is wanted; none when neither can be. What another trigger does at the same
/// time is decided by the table's constraints; each statement sees what the others have committed.
async fn begin(pool: &Pool, settings: &Settings, wanted: &NewRun, execution: Option<&str>) -> Result<Option<Begun>> {
    if let Some(run) = find_ended_period(pool, settings, wanted).await? {
        info!(run = %run.id, "snapshot maintenance: the period's run has ended already");
        return Ok(None);
    }
    let mut client = pool.get().await?;
    let grown = list_grown(&mut client, settings).await;
    let lease_seconds = settings.lease.as_secs_f64();
    let transaction = session::begin(&mut client, &settings.limits()).await?;
    let force = wanted.request.force;
    let mut taken =
        maintenance_runs::take_over_run(&transaction, lease_seconds, wanted.scope, force, execution).await?;
    if taken.is_none() {
        // Before there is a run that could not go on.
        if wanted.scope == Scope::Archive
            && maintenance_runs::find_excluding_run(&transaction, wanted.scope).await?.is_none()
        {
            check_snapshots(&transaction, wanted.snapshot_month).await?;
        }
        taken = maintenance_runs::insert_run(&transaction, lease_seconds, wanted, execution).await?;
    }
    let Some(lease) = taken else { return Ok(None) };
    meet_host(&transaction, settings, lease.run_id).await?;
    maintenance_runs::add_host_findings(&transaction, lease.run_id, &grown).await?;
    let begun = load(&transaction, lease).await?;
    check_rollback(&begun.run, wanted)?;
    transaction.commit().await?;
    begun.log();
    Ok(Some(begun))
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
pub(super) async fn meet_host(client: &impl GenericClient, settings: &Settings, run: Uuid) -> Result<()> {
    let findings = findings(&host::look(client).await?, settings.host_limits());
    for finding in &findings {
        finding.log(Some(run));
    }
    maintenance_runs::add_host_findings(client, run, &findings).await
}

/// The run whose lease was just taken, as it is.
pub(super) async fn load(client: &impl GenericClient, lease: Taken) -> Result<Begun> {
    let run = maintenance_runs::find_run(client, lease.run_id).await?;
    let run = run.ok_or(Error::LeaseLost { run: lease.run_id })?;
    let state = maintenance_runs::get_run_state(client, lease.run_id).await?;
    Ok(Begun { run, state, lease })
}

/// Keeps a rollback and other runs apart: what the one brings back the others would archive.
fn check_rollback(run: &MaintenanceRun, wanted: &NewRun) -> Result<()> {
    if run.scope == wanted.scope || ![run.scope, wanted.scope].contains(&Scope::Rollback) {
        return Ok(());
    }
    if run.scope == Scope::Rollback {
        return Err(Error::UnderWay { run: Box::new(run.clone()) });
    }
    Err(rollback_refused(run))
}

fn rollback_refused(open: &MaintenanceRun) -> Error {
    let (id, scope) = (open.id, open.scope.as_str());
    let reason = format!("run {id} ({scope}) is open: finish it first, or end it with `snapshots cancel`");
    Error::RollbackRefused { reason }
}

/// Why no run could be begun: the run of the period if it has ended, or an error; none when there is no reason any more.
async fn find_finished(pool: &Pool, settings: &Settings, wanted: &NewRun) -> Result<Option<MaintenanceRun>> {
    if let Some(run) = find_ended_period(pool, settings, wanted).await? {
        return Ok(Some(run));
    }
    check_free(pool, settings, wanted.scope).await?;
    Ok(None)
}

/// Why no lease of a run of `scope` is to be had, if there is a reason.
pub(super) async fn check_free(pool: &Pool, settings: &Settings, scope: Scope) -> Result<()> {
    let client = pool.get().await?;
    let limits = settings.limits();
    if let Some(pause) = session::read(&client, &limits, maintenance_pause::find_pause(&**client)).await? {
        return Err(Error::Paused { pause });
    }
    let find = maintenance_runs::find_excluding_run(&**client, scope);
    if let Some(run) = session::read(&client, &limits, find).await? {
        let waits_for_its_end = scope != Scope::Rollback || run.scope == scope || run.status == RunStatus::Running;
        return Err(if waits_for_its_end { Error::UnderWay { run: Box::new(run) } } else { rollback_refused(&run) });
    }
    Ok(())
}

/// The run of the wanted period, if it has ended.
async fn find_ended_period(pool: &Pool, settings: &Settings, wanted: &NewRun) -> Result<Option<MaintenanceRun>> {
    let Some(period) = wanted.request.trigger.period() else { return Ok(None) };
    let client = pool.get().await?;
    let find = maintenance_runs::find_run_of_period(&**client, period);
    Ok(session::read(&client, &settings.limits(), find).await?.filter(|run| run.finished_at.is_some()))
}

/// Does what can be done of a run in one slice, and gives the lease back unless its execution keeps it.
pub(super) async fn work(slice: &Slice<'_>) -> Result<MaintenanceRun> {
    let result = do_phases(slice).await;
    let end = match &result {
        // It stays open until its tables are dropped: nothing else may run until then.
        Ok(None) if slice.run.scope == Scope::Rollback => {
            Some(SliceEnd { status: RunStatus::Interrupted, stop_reason: None, error: None })
        }
        Ok(None) => Some(SliceEnd { status: RunStatus::Succeeded, stop_reason: None, error: None }),
        // The next slice of the execution follows; or the execution says that it failed.
        Ok(Some(StopReason::Deadline)) | Err(_) if slice.keeps_lease => None,
        Ok(stop_reason) => Some(SliceEnd { status: RunStatus::Interrupted, stop_reason: *stop_reason, error: None }),
        Err(Error::LeaseLost { .. }) => None,
        Err(error) => Some(SliceEnd {
            status: RunStatus::Failed,
            stop_reason: Some(StopReason::Error),
            error: Some(error.to_string()),
        }),
    };
    let released = match &end {
        Some(end) => release(slice, end).await,
        None => Ok(()),
    };
    match (result, released) {
        (Ok(_), Err(error)) => return Err(error),
        (Err(error), released) => {
            // The log has its chain where it is handled, and here the run that it is of.
            warn!(run = %slice.run.id, code = error.code(), "snapshot maintenance: the slice ends with an error");
            if let Err(error) = released {
                // The lease will expire.
                warn!(run = %slice.run.id, error = chain(&error), "snapshot maintenance: the lease is not given back");
            }
            let cancelled = match error {
                Error::LeaseLost { .. } => {
                    find(slice).await?.filter(|run| run.stop_reason == Some(StopReason::Cancelled))
                }
                _ => None,
            };
            return cancelled.ok_or(error);
        }
        (Ok(_), Ok(())) => {}
    }
    let run = find(slice).await?.ok_or(Error::LeaseLost { run: slice.run.id })?;
    info!(
        run = %run.id, status = run.status.as_str(), stop_reason = run.stop_reason.map(StopReason::as_str),
        snapshots_created = run.snapshots_created, logs_archived = run.logs_archived,
        already_archived = run.already_archived, logs_restored = run.logs_restored, conflicts = run.conflicts, held_back = ?run.held_back,
        complete = run.complete, "snapshot maintenance: ends",
    );
    Ok(run)
}

pub(super) async fn release(slice: &Slice<'_>, end: &SliceEnd) -> Result<()> {
    let mut client = slice.pool.get().await?;
    let transaction = session::begin(&mut client, &slice.settings.limits()).await?;
    maintenance_runs::release_lease(&transaction, slice.lease(), end).await?;
    Ok(transaction.commit().await?)
}

async fn find(slice: &Slice<'_>) -> Result<Option<MaintenanceRun>> {
    let client = slice.pool.get().await?;
    session::read(&client, &slice.settings.limits(), maintenance_runs::find_run(&**client, slice.run.id)).await
}

/// Goes through the phases that are left. Returns why it stopped, if that was before the end.
async fn do_phases(slice: &Slice<'_>) -> Result<Option<StopReason>> {
    let scope = slice.run.scope;
    if let Some(stop) = slice.stop() {
        return Ok(Some(stop));
    }
    let mut phase = slice.run.phase;
    if phase == Phase::Snapshots {
        let stop = snapshots::take_snapshots(slice).await?;
        if stop.is_some() || scope == Scope::Snapshots {
            return Ok(stop);
        }
        phase = Phase::Archive;
        // The batch that each call is good for may be spent.
        if let Some(stop) = slice.stop() {
            return Ok(Some(stop));
        }
    }
    if phase == Phase::Restore
        && let Some(stop) = restore::restore(slice).await?
    {
        return Ok(Some(stop));
    }
    if matches!(scope, Scope::Restore | Scope::Rollback) {
        return vacuum(slice).await.map(|()| None);
    }
    archive::archive(slice).await
}

/// Refuses to archive before the month's snapshots are complete.
async fn check_snapshots(client: &impl GenericClient, month: Month) -> Result<()> {
    let counts = count_streams(client, month, None).await?;
    if counts.without_snapshot > 0 { Err(Error::SnapshotsIncomplete { month }) } else { Ok(()) }
}
