//! Who may work on a run, and on a month. A claim gives a fresh fencing token, and a commit under a former one fails. All rows enter and
//! leave the archive under the lease of their month; the functions that move them take it. Refused: advisory locks, which poolers lose,
//! and a lease by name, which a process that was presumed dead still has.

use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::decode::{bigint, decode};
use super::maintenance_runs::NewRun;
use super::run_months::MonthProgress;
use super::seals::ADVANCED;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{HeldBack, Month, Phase, RunStatus, Scope, StopReason, StoredHeldBack};

/// The lease of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunLease {
    pub(crate) run: Uuid,
    token: Uuid,
}

impl RunLease {
    fn parse(row: &tokio_postgres::Row) -> Result<Self> {
        Ok(Self { run: row.try_get("id")?, token: row.try_get("token")? })
    }
}

/// The lease of a month, for a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MonthLease {
    pub(crate) run: Uuid,
    pub(crate) month: Month,
    token: Uuid,
}

/// Which run to claim, and for whom.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Claim<'a> {
    /// This run; `None` for whichever is open.
    pub(crate) run: Option<Uuid>,
    /// The restore that is open, or else the run of another scope.
    pub(crate) is_restore: bool,
    /// Whether the run is to pass over its guard rails from now on.
    pub(crate) force: bool,
    /// The execution of the state machine that owns the run.
    pub(crate) execution: Option<&'a str>,
    /// Whether other slices of the execution go on: each of them works on a month.
    pub(crate) joins: bool,
}

/// Claims a run, unless somebody else owns it or maintenance is paused. The leases of its months are revoked, but for a slice that joins.
pub(crate) async fn claim_run(
    client: &impl GenericClient,
    lease_seconds: f64,
    claim: Claim<'_>,
) -> Result<Option<RunLease>> {
    let row = Statement::new(include_str!("sql/claim_run.sql"))
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("run", &claim.run, Type::UUID)
        .bind("is_restore", &claim.is_restore, Type::BOOL)
        .bind("force", &claim.force, Type::BOOL)
        .bind("execution", &claim.execution, Type::TEXT)
        .bind("joins", &claim.joins, Type::BOOL)
        .query_opt(client)
        .await?;
    let Some(lease) = row.map(|row| RunLease::parse(&row)).transpose()? else { return Ok(None) };
    if !claim.joins {
        revoke_months(client, &[lease.run]).await?;
    }
    Ok(Some(lease))
}

/// Starts a run and claims it, unless there is no room for it.
pub(crate) async fn insert_run(
    client: &impl GenericClient,
    lease_seconds: f64,
    run: &NewRun,
    execution: Option<&str>,
) -> Result<Option<RunLease>> {
    let phase = match run.scope {
        Scope::Maintenance | Scope::Snapshots => Phase::Snapshots,
        Scope::Archive => Phase::Archive,
        Scope::Restore | Scope::Rollback => Phase::Restore,
    };
    let target = run.target.as_ref().map(serde_json::to_value).transpose().map_err(Error::Serialize)?;
    let row = Statement::new(include_str!("sql/insert_run.sql"))
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("trigger", &run.request.trigger.kind().as_str(), Type::TEXT)
        .bind("scope", &run.scope.as_str(), Type::TEXT)
        .bind("period", &run.request.trigger.period().map(|period| period.to_string()), Type::TEXT)
        .bind("snapshot_month", &run.snapshot_month.to_string(), Type::TEXT)
        .bind("cutoff", &run.cutoff.naive_utc(), Type::TIMESTAMP)
        .bind("refresh", &run.request.refresh, Type::BOOL)
        .bind("force", &run.request.force, Type::BOOL)
        .bind("started_at", &run.started_at.naive_utc(), Type::TIMESTAMP)
        .bind("phase", &phase.as_str(), Type::TEXT)
        .bind("target", &target, Type::JSONB)
        .bind("execution", &execution, Type::TEXT)
        .query_opt(client)
        .await?;
    row.map(|row| RunLease::parse(&row)).transpose()
}

/// What the owner of a run records of it, beside its months.
#[derive(Debug, Clone)]
pub(crate) enum Change<'a> {
    /// That it works.
    Alive,
    Phase(Phase),
    StreamsEstimated(u64),
    /// How many streams were seen, and the `Stream.id` up to which snapshots were taken; `None` at the start.
    StreamsSeen {
        streams: u64,
        last_stream: Option<&'a str>,
    },
    /// The snapshots of all these streams are taken; the phase that follows, if one does.
    SnapshotsComplete {
        streams: u64,
        next: Option<Phase>,
    },
    /// How many snapshots were written, and how many of these lack amounts.
    Snapshots {
        created: u64,
        unparsed: u64,
    },
    RowsEstimated(u64),
    /// All months are archived, but for due rows that stay.
    Archived(&'a [HeldBack]),
    /// Why the run waits between two batches; `None` when it goes on.
    WaitingFor(Option<&'a str>),
    /// How many rows a batch was cut down to.
    BatchRows(u32),
}

impl Change<'_> {
    fn sql(&self) -> &'static str {
        match self {
            Self::Alive => "",
            Self::Phase(_) => ", phase = :phase",
            Self::StreamsEstimated(_) => r#", "streamsEstimated" = :number"#,
            Self::StreamsSeen { .. } => r#", streams = :number, "lastStreamId" = :text"#,
            Self::SnapshotsComplete { .. } => ", streams = :number, phase = COALESCE(:phase, phase)",
            Self::Snapshots { .. } => {
                r#", "snapshotsCreated" = "snapshotsCreated" + :number, "unparsedAmounts" = "unparsedAmounts" + :other"#
            }
            Self::RowsEstimated(_) => r#", "rowsEstimated" = :number"#,
            Self::Archived(_) => r#", "heldBack" = :held_back, phase = :phase"#,
            Self::WaitingFor(_) => r#", "waitingFor" = :text"#,
            Self::BatchRows(_) => r#", "batchRows" = :number::integer"#,
        }
    }

    fn phase(&self) -> Option<Phase> {
        match self {
            Self::Phase(phase) => Some(*phase),
            Self::SnapshotsComplete { next, .. } => *next,
            Self::Archived(_) => Some(Phase::Vacuum),
            _ => None,
        }
    }

    fn numbers(&self) -> (u64, u64) {
        match self {
            Self::StreamsEstimated(number) | Self::RowsEstimated(number) => (*number, 0),
            Self::StreamsSeen { streams, .. } | Self::SnapshotsComplete { streams, .. } => (*streams, 0),
            Self::Snapshots { created, unparsed } => (*created, *unparsed),
            Self::BatchRows(rows) => ((*rows).into(), 0),
            _ => (0, 0),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::StreamsSeen { last_stream: text, .. } | Self::WaitingFor(text) => *text,
            _ => None,
        }
    }

    fn held_back(&self) -> Result<Option<Value>> {
        let Self::Archived(held) = self else { return Ok(None) };
        let held: Vec<_> = held.iter().map(StoredHeldBack::from).collect();
        serde_json::to_value(held).map(Some).map_err(Error::Serialize)
    }
}

/// Renews the lease of a run and records `change`. Returns whether maintenance is paused.
///
/// # Errors
///
/// [`Error::LeaseLost`].
pub(crate) async fn renew_run(
    client: &impl GenericClient,
    lease: &RunLease,
    lease_seconds: f64,
    change: &Change<'_>,
) -> Result<bool> {
    let (first, second) = change.numbers();
    let row = Statement::new(include_str!("sql/renew_run.sql"))
        .fragment("changes", change.sql())
        .bind("run", &lease.run, Type::UUID)
        .bind("token", &lease.token, Type::UUID)
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("phase", &change.phase().map(Phase::as_str), Type::TEXT)
        .bind("number", &bigint(first), Type::INT8)
        .bind("other", &bigint(second), Type::INT8)
        .bind("text", &change.text(), Type::TEXT)
        .bind("held_back", &change.held_back()?, Type::JSONB)
        .query_opt(client)
        .await?;
    let row = row.ok_or(Error::LeaseLost { run: lease.run })?;
    Ok(row.try_get("paused")?)
}

/// What [`claim_month`] found.
#[derive(Debug)]
pub(crate) enum MonthClaim {
    /// A month, and how far it is.
    Claimed(MonthLease, MonthProgress),
    /// Nothing, but other runs hold months that have work.
    Held,
    /// Nothing.
    None,
}

/// Claims the next month of a run that has work, or `only` this one.
pub(crate) async fn claim_month(
    client: &impl GenericClient,
    owner: &RunLease,
    lease_seconds: f64,
    only: Option<Month>,
) -> Result<MonthClaim> {
    let row = Statement::new(include_str!("sql/claim_month.sql"))
        .bind("run", &owner.run, Type::UUID)
        .bind("run_token", &owner.token, Type::UUID)
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("month", &only.map(|month| month.to_string()), Type::TEXT)
        .query_one(client)
        .await?;
    Ok(match decode(&row, "month")? {
        Some(month) => {
            let lease = MonthLease { run: owner.run, month, token: row.try_get("token")? };
            MonthClaim::Claimed(lease, MonthProgress::parse(&row)?)
        }
        None if row.try_get("is_held")? => MonthClaim::Held,
        None => MonthClaim::None,
    })
}

/// Renews the lease of a month and that of its run, and advances the month's chain of seals. Returns whether maintenance is paused.
///
/// # Errors
///
/// [`Error::LeaseLost`].
pub(crate) async fn renew_month(
    client: &impl GenericClient,
    lease: &MonthLease,
    lease_seconds: f64,
    rows_per_second: Option<f64>,
) -> Result<bool> {
    let row = Statement::new(include_str!("sql/renew_month.sql"))
        .fragment("advanced", ADVANCED)
        .bind("run", &lease.run, Type::UUID)
        .bind("month", &lease.month.to_string(), Type::TEXT)
        .bind("token", &lease.token, Type::UUID)
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("rows_per_second", &rows_per_second, Type::FLOAT8)
        .query_opt(client)
        .await?;
    let row = row.ok_or(Error::LeaseLost { run: lease.run })?;
    Ok(row.try_get("paused")?)
}

/// SQL that ends the lease of a row of "ArchiveMonth".
const NO_LEASE: &str = r#""runId" = NULL, "leaseHolder" = NULL, token = NULL, "leaseExpiresAt" = NULL"#;

/// Gives the lease of a month back.
pub(crate) async fn release_month(client: &impl GenericClient, lease: &MonthLease) -> Result<()> {
    let sql = format!(r#"UPDATE "ArchiveMonth" SET {NO_LEASE} WHERE month = $1 AND token = $2"#);
    client.execute_typed(&sql, &[(&lease.month.to_string(), Type::TEXT), (&lease.token, Type::UUID)]).await?;
    Ok(())
}

/// Revokes the leases of all months of `runs`. By a statement of its own after the runs' rows are locked: it sees each claim that came
/// before.
async fn revoke_months(client: &impl GenericClient, runs: &[Uuid]) -> Result<()> {
    let sql = format!(r#"UPDATE "ArchiveMonth" SET {NO_LEASE} WHERE "runId" = ANY ($1)"#);
    client.execute_typed(&sql, &[(&runs, Type::UUID_ARRAY)]).await?;
    Ok(())
}

/// How a slice ended.
#[derive(Debug)]
pub(crate) struct SliceEnd {
    pub(crate) status: RunStatus,
    pub(crate) stop_reason: Option<StopReason>,
    pub(crate) error: Option<String>,
}

/// Ends a slice, and gives its leases back. Changes nothing when the lease is lost.
pub(crate) async fn release_run(client: &impl GenericClient, lease: &RunLease, end: &SliceEnd) -> Result<()> {
    let released = Statement::new(include_str!("sql/release_run.sql"))
        .bind("run", &lease.run, Type::UUID)
        .bind("token", &lease.token, Type::UUID)
        .bind("status", &end.status.as_str(), Type::TEXT)
        .bind("stop_reason", &end.stop_reason.map(StopReason::as_str), Type::TEXT)
        .bind("error", &end.error, Type::TEXT)
        .bind("is_finished", &(end.status == RunStatus::Succeeded), Type::BOOL)
        .execute(client)
        .await?;
    if released > 0 { revoke_months(client, &[lease.run]).await } else { Ok(()) }
}

/// Ends `execution`'s work on the open run with an error: the next trigger continues it. Returns the run's id, or none
/// when the execution owns none.
pub(crate) async fn fail_execution(client: &impl GenericClient, execution: &str, error: &str) -> Result<Option<Uuid>> {
    let row = client
        .query_typed_opt(
            r#"UPDATE "MaintenanceRun"
               SET status = 'failed', "stopReason" = 'error', error = $2, "waitingFor" = NULL,
                   "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
                   "leaseHolder" = NULL, token = NULL, "leaseExpiresAt" = NULL
               WHERE "finishedAt" IS NULL AND "leaseHolder" = $1 RETURNING id"#,
            &[(&execution, Type::TEXT), (&error, Type::TEXT)],
        )
        .await?;
    let run = row.map(|row| row.try_get("id")).transpose()?;
    revoke_months(client, run.as_slice()).await?;
    Ok(run)
}

/// Ends the open runs for good: whoever works on them can commit nothing more. Returns their ids.
pub(crate) async fn cancel_open_runs(client: &impl GenericClient) -> Result<Vec<Uuid>> {
    let rows = client
        .query_typed(
            r#"UPDATE "MaintenanceRun"
               SET "finishedAt" = clock_timestamp() AT TIME ZONE 'UTC', "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
                   status = 'interrupted', "stopReason" = 'cancelled', "waitingFor" = NULL,
                   "leaseHolder" = NULL, token = NULL, "leaseExpiresAt" = NULL
               WHERE "finishedAt" IS NULL RETURNING id"#,
            &[],
        )
        .await?;
    let runs = rows.iter().map(|row| Ok(row.try_get("id")?)).collect::<Result<Vec<_>>>()?;
    revoke_months(client, &runs).await?;
    Ok(runs)
}

/// Ends an open run that nobody owns, so that a later one can start. What it has not done, the later one will.
pub(crate) async fn give_up_run(client: &impl GenericClient, id: Uuid) -> Result<bool> {
    let rows = client
        .execute_typed(
            r#"UPDATE "MaintenanceRun"
               SET "finishedAt" = clock_timestamp() AT TIME ZONE 'UTC',
                   error = concat_ws('; ', error, 'given up, so that other runs can start')
               WHERE id = $1 AND "finishedAt" IS NULL AND token IS NULL"#,
            &[(&id, Type::UUID)],
        )
        .await?;
    Ok(rows > 0)
}
