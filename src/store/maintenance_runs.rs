use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::decode::{decode, decode_json};
use super::event_log::{self, Position};
use super::moving::MAX_KEPT_FINDINGS;
use super::page;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::host::HostFinding;
use crate::model::{
    ConflictDetail, Cursor, HeldBack, HeldBackReason, MAX_REPORTED_IDS, MaintenanceRequest, MaintenanceRun, Month,
    Page, PageRequest, Phase, RestoreTarget, RunPosition, RunStatus, Scope, StopReason, StoredHeldBack,
};

const COLUMNS: &str = include_str!("sql/maintenance_run_columns.sql");

/// A run whose lease was just taken, and the name under which it is held.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) run_id: Uuid,
    pub(crate) holder: String,
    /// The one month that was taken, and the name under which that is held; none who has the whole run.
    pub(crate) month: Option<(Month, String)>,
}

impl Taken {
    fn parse(row: &Row) -> Result<Self> {
        Ok(Self { run_id: row.try_get("id")?, holder: row.try_get("holder")?, month: None })
    }
}

/// Takes the lease of the open run that is in the way of one of `scope` or is what it asks for, unless somebody else holds it or maintenance is paused. Slices of one `execution` of
/// the state machine follow each other: the last one has it.
pub(crate) async fn take_over_run(
    client: &impl GenericClient,
    lease_seconds: f64,
    scope: Scope,
    force: bool,
    execution: Option<&str>,
) -> Result<Option<Taken>> {
    let is_restore = scope == Scope::Restore;
    let row = Statement::new(include_str!("sql/take_over_run.sql"))
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("force", &force, Type::BOOL)
        .bind("execution", &execution, Type::TEXT)
        .bind("is_restore", &is_restore, Type::BOOL)
        .query_opt(client)
        .await?;
    row.map(|row| Taken::parse(&row)).transpose()
}

/// Takes one month of an open run, unless somebody else than `execution` holds the run or maintenance is paused. Slices
/// of the execution that have other months go on.
pub(crate) async fn take_month(
    client: &impl GenericClient,
    lease_seconds: f64,
    run_id: Uuid,
    execution: &str,
    month: Month,
) -> Result<Option<Taken>> {
    let row = Statement::new(include_str!("sql/take_month.sql"))
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("run", &run_id, Type::UUID)
        .bind("execution", &execution, Type::TEXT)
        .bind("month", &month.to_string(), Type::TEXT)
        .query_opt(client)
        .await?;
    let taken = |row: Row| {
        Ok(Taken { run_id, holder: row.try_get("holder")?, month: Some((month, row.try_get("monthHolder")?)) })
    };
    row.map(taken).transpose()
}

/// Ends `execution`'s work on the open run with an error: the next trigger continues it. Returns the run's id, or none
/// when the execution has none.
pub(crate) async fn fail_execution(client: &impl GenericClient, execution: &str, error: &str) -> Result<Option<Uuid>> {
    let row = client
        .query_typed_opt(
            r#"UPDATE "MaintenanceRun"
               SET status = 'failed', "stopReason" = 'error', error = $2, "waitingFor" = NULL,
                   "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC', "leaseHolder" = NULL, "leaseExpiresAt" = NULL
               WHERE "finishedAt" IS NULL AND starts_with("leaseHolder", $1 || ' ') RETURNING id"#,
            &[(&execution, Type::TEXT), (&error, Type::TEXT)],
        )
        .await?;
    row.map(|row| Ok(row.try_get("id")?)).transpose()
}

/// What a run is about, fixed when it starts.
#[derive(Debug)]
pub(crate) struct NewRun {
    pub(crate) request: MaintenanceRequest,
    pub(crate) scope: Scope,
    /// Of a restore or rollback.
    pub(crate) target: Option<RestoreTarget>,
    pub(crate) snapshot_month: Month,
    pub(crate) cutoff: DateTime<Utc>,
    pub(crate) started_at: DateTime<Utc>,
}

/// Starts a run and takes its lease, unless there is no room for it.
pub(crate) async fn insert_run(
    client: &impl GenericClient,
    lease_seconds: f64,
    run: &NewRun,
    execution: Option<&str>,
) -> Result<Option<Taken>> {
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
    row.map(|row| Taken::parse(&row)).transpose()
}

/// How far a month is. Kept as JSON in the run.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MonthProgress {
    /// Who has the month, where several slices work on one run.
    pub(crate) holder: Option<String>,
    /// The last row looked at.
    pub(crate) after: Option<Position>,
    /// Where in its partition the last row is that a restore looked at.
    pub(crate) place: Option<String>,
    /// Rows that a restore is about, once they are counted.
    pub(crate) checked: Option<u64>,
    /// Rows moved since the month was last begun at its start.
    pub(crate) moved: u64,
    /// How often it was begun again, because rows were left that nothing holds.
    pub(crate) passes: u32,
    /// Whether all of its rows were looked at.
    pub(crate) done: bool,
    /// Rows that a restore left, under legal hold.
    pub(crate) on_hold: u64,
    /// Rows that a restore left, because `EventLog` does not take them.
    pub(crate) conflicts: u64,
    /// Their ids, the first hundred.
    pub(crate) conflict_ids: Vec<String>,
    /// Why these stay, where a restore left them.
    pub(crate) conflict_details: Vec<ConflictDetail>,
}

/// What a slice continues from.
#[derive(Debug)]
pub(crate) struct RunState {
    /// `Stream.id` up to which snapshots were taken; none at first.
    pub(crate) last_stream: Option<String>,
    pub(crate) months: BTreeMap<Month, MonthProgress>,
    /// Rows that a batch was cut down to.
    pub(crate) batch_rows: Option<u32>,
}

/// Notes what of the host's a slice of the run has met, besides what earlier ones have.
pub(crate) async fn add_host_findings(client: &impl GenericClient, id: Uuid, findings: &[HostFinding]) -> Result<()> {
    let findings = serde_json::to_value(findings).map_err(Error::Serialize)?;
    client
        .execute_typed(
            r#"UPDATE "MaintenanceRun"
               SET "hostFindings" = $2 || COALESCE((
                   SELECT jsonb_agg(earlier)
                   FROM jsonb_array_elements("hostFindings") earlier
                   WHERE NOT EXISTS (
                       SELECT FROM jsonb_array_elements($2) now
                       WHERE now ->> 'code' = earlier ->> 'code' AND now ->> 'object' = earlier ->> 'object'
                   )
               ), '[]')
               WHERE id = $1"#,
            &[(&id, Type::UUID), (&findings, Type::JSONB)],
        )
        .await?;
    Ok(())
}

/// Where the run's last slice stopped.
pub(crate) async fn get_run_state(client: &impl GenericClient, id: Uuid) -> Result<RunState> {
    let sql = r#"SELECT "lastStreamId", months, "batchRows" FROM "MaintenanceRun" WHERE id = $1"#;
    let row = client.query_typed_one(sql, &[(&id, Type::UUID)]).await?;
    Ok(RunState {
        last_stream: row.try_get("lastStreamId")?,
        months: parse_months(&row)?,
        batch_rows: row.try_get::<_, Option<i32>>("batchRows")?.map(i32::unsigned_abs),
    })
}

fn parse_months(row: &Row) -> Result<BTreeMap<Month, MonthProgress>> {
    decode_json(row, "months")
}

/// `Stream.id` up to which snapshots were taken; none at the start.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct LastStream(pub(crate) Option<String>);

/// What a transaction has brought about. `None` means: as before.
#[derive(Debug, Default, Clone)]
pub(crate) struct Progress {
    pub(crate) phase: Option<Phase>,
    pub(crate) streams: Option<u64>,
    pub(crate) streams_estimated: Option<u64>,
    /// Added.
    pub(crate) snapshots_created: u64,
    /// Added.
    pub(crate) unparsed_amounts: u64,
    pub(crate) rows_estimated: Option<u64>,
    /// Added.
    pub(crate) logs_archived: u64,
    /// Added.
    pub(crate) already_archived: u64,
    /// Added.
    pub(crate) duplicates_dropped: u64,
    /// Added.
    pub(crate) hash_mismatches: u64,
    /// Added.
    pub(crate) logs_restored: u64,
    /// How far a month is.
    pub(crate) month: Option<(Month, MonthProgress)>,
    /// Due rows that stayed, by the look at the end.
    pub(crate) held_back: Option<Vec<HeldBack>>,
    /// Rows whose entry hash is not that of their contents, to be kept: month; id and both hashes.
    pub(crate) mismatches: Vec<(Month, serde_json::Value)>,
    pub(crate) current_month: Option<Month>,
    pub(crate) rows_per_second: Option<f64>,
    /// Empty for nothing.
    pub(crate) waiting_for: Option<String>,
    pub(crate) last_stream: Option<LastStream>,
    /// That a batch was cut down to.
    pub(crate) batch_rows: Option<u32>,
}

/// Renews the lease and records `progress`. Returns whether maintenance is paused, or `None` when the lease is lost.
pub(crate) async fn renew_lease(
    client: &impl GenericClient,
    lease: &Taken,
    lease_seconds: f64,
    progress: &Progress,
) -> Result<Option<bool>> {
    let number = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    let months = progress.month.as_ref().map(|(month, progress)| BTreeMap::from([(*month, progress)]));
    let months = months.map(serde_json::to_value).transpose().map_err(Error::Serialize)?;
    let held_back = progress.held_back.as_ref().map(|held| held.iter().map(StoredHeldBack::from).collect::<Vec<_>>());
    let held_back = held_back.map(serde_json::to_value).transpose().map_err(Error::Serialize)?;
    let last_stream = progress.last_stream.as_ref().map(serde_json::to_string).transpose().map_err(Error::Serialize)?;
    let row = Statement::new(include_str!("sql/renew_lease.sql"))
        .bind("run", &lease.run_id, Type::UUID)
        .bind("holder", &lease.holder, Type::TEXT)
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("phase", &progress.phase.map(Phase::as_str), Type::TEXT)
        .bind("streams", &number(progress.streams), Type::INT8)
        .bind("streams_estimated", &number(progress.streams_estimated), Type::INT8)
        .bind("snapshots_created", &number(Some(progress.snapshots_created)), Type::INT8)
        .bind("unparsed_amounts", &number(Some(progress.unparsed_amounts)), Type::INT8)
        .bind("rows_estimated", &number(progress.rows_estimated), Type::INT8)
        .bind("logs_archived", &number(Some(progress.logs_archived)), Type::INT8)
        .bind("already_archived", &number(Some(progress.already_archived)), Type::INT8)
        .bind("months", &months, Type::JSONB)
        .bind("held_back", &held_back, Type::JSONB)
        .bind("current_month", &progress.current_month.map(|month| month.to_string()), Type::TEXT)
        .bind("rows_per_second", &progress.rows_per_second, Type::FLOAT8)
        .bind("waiting_for", &progress.waiting_for, Type::TEXT)
        .bind("last_stream", &last_stream, Type::TEXT)
        .bind("batch_rows", &progress.batch_rows.map(|rows| i32::try_from(rows).unwrap_or(i32::MAX)), Type::INT4)
        .bind("duplicates_dropped", &number(Some(progress.duplicates_dropped)), Type::INT8)
        .bind("hash_mismatches", &number(Some(progress.hash_mismatches)), Type::INT8)
        .bind("logs_restored", &number(Some(progress.logs_restored)), Type::INT8)
        .bind("month", &lease.month.as_ref().map(|(month, _)| month.to_string()), Type::TEXT)
        .bind("month_holder", &lease.month.as_ref().map(|(_, holder)| holder), Type::TEXT)
        .query_opt(client)
        .await?;
    row.map(|row| Ok(row.try_get("paused")?)).transpose()
}

/// Keeps `progress.mismatches` with the run, up to a thousand. Called when the run's row is locked, so that workers that commit one
/// after the other count what the others have kept. Returns whether there is room for more.
pub(crate) async fn insert_mismatches(client: &impl GenericClient, run: Uuid, progress: &Progress) -> Result<bool> {
    let named = progress.mismatches.iter().map(|(month, row)| serde_json::json!({"month": month, "row": row}));
    let named = serde_json::Value::Array(named.collect());
    let row = client
        .query_typed_one(
            r#"WITH kept AS (
                   SELECT count(*) AS rows FROM "MaintenanceFinding" WHERE "runId" = $1 AND kind = 'hash_mismatch'
               ),
               added AS (
                   INSERT INTO "MaintenanceFinding" ("runId", kind, "logId", month, detail)
                   SELECT $1, 'hash_mismatch', one #>> '{row,id}', one ->> 'month', json_build_object(
                       'entryHash', one #> '{row,entryHash}', 'computedHash', one #> '{row,computedHash}')
                   FROM jsonb_array_elements($2) WITH ORDINALITY named (one, place)
                   WHERE place <= $3 - (SELECT rows FROM kept)
                   ON CONFLICT DO NOTHING
                   RETURNING 1
               )
               SELECT (SELECT rows FROM kept) + (SELECT count(*) FROM added) < $3 AS has_room"#,
            &[(&run, Type::UUID), (&named, Type::JSONB), (&MAX_KEPT_FINDINGS, Type::INT8)],
        )
        .await?;
    Ok(row.try_get("has_room")?)
}

/// How a slice ended.
#[derive(Debug)]
pub(crate) struct SliceEnd {
    pub(crate) status: RunStatus,
    pub(crate) stop_reason: Option<StopReason>,
    pub(crate) error: Option<String>,
}

/// Ends a slice and gives the lease back. Changes nothing when the lease is lost.
pub(crate) async fn release_lease(client: &impl GenericClient, lease: &Taken, end: &SliceEnd) -> Result<()> {
    Statement::new(include_str!("sql/release_lease.sql"))
        .bind("run", &lease.run_id, Type::UUID)
        .bind("holder", &lease.holder, Type::TEXT)
        .bind("status", &end.status.as_str(), Type::TEXT)
        .bind("stop_reason", &end.stop_reason.map(StopReason::as_str), Type::TEXT)
        .bind("error", &end.error, Type::TEXT)
        .bind("is_finished", &(end.status == RunStatus::Succeeded), Type::BOOL)
        .execute(client)
        .await?;
    Ok(())
}

/// Ends the open runs for good: whoever works on them can commit nothing more. Returns their ids.
pub(crate) async fn cancel_open_runs(client: &impl GenericClient) -> Result<Vec<Uuid>> {
    let rows = client
        .query_typed(
            r#"UPDATE "MaintenanceRun"
               SET "finishedAt" = clock_timestamp() AT TIME ZONE 'UTC', "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC',
                   status = 'interrupted', "stopReason" = 'cancelled', "waitingFor" = NULL,
                   "leaseHolder" = NULL, "leaseExpiresAt" = NULL
               WHERE "finishedAt" IS NULL RETURNING id"#,
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// The runs that are not finished: a restore, and before it one of another scope.
pub(crate) async fn list_open_runs(client: &impl GenericClient) -> Result<Vec<MaintenanceRun>> {
    let sql = format!(r#"{COLUMNS} WHERE "finishedAt" IS NULL ORDER BY scope = 'restore'"#);
    client.query_typed(&sql, &[]).await?.iter().map(parse).collect()
}

/// An open run beside which none of `scope` may start.
pub(crate) async fn find_excluding_run(client: &impl GenericClient, scope: Scope) -> Result<Option<MaintenanceRun>> {
    Ok(list_open_runs(client).await?.into_iter().find(|run| run.scope.excludes(scope)))
}

/// Whether somebody works on another run than `id`.
pub(crate) async fn is_another_run_held(client: &impl GenericClient, id: Uuid) -> Result<bool> {
    let row = client
        .query_typed_one(
            r#"SELECT EXISTS (
                   SELECT FROM "MaintenanceRun"
                   WHERE id <> $1 AND "finishedAt" IS NULL AND "leaseExpiresAt" > clock_timestamp() AT TIME ZONE 'UTC'
               ) AS held"#,
            &[(&id, Type::UUID)],
        )
        .await?;
    Ok(row.try_get("held")?)
}

/// The scheduled run of `period`.
pub(crate) async fn find_run_of_period(client: &impl GenericClient, period: Month) -> Result<Option<MaintenanceRun>> {
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&period.to_string(), Type::TEXT)];
    let row = client.query_typed_opt(&format!("{COLUMNS} WHERE period = $1"), &parameters).await?;
    row.map(|row| parse(&row)).transpose()
}

/// The run with this id.
pub(crate) async fn find_run(client: &impl GenericClient, id: Uuid) -> Result<Option<MaintenanceRun>> {
    let row = client.query_typed_opt(&format!("{COLUMNS} WHERE id = $1"), &[(&id, Type::UUID)]).await?;
    row.map(|row| parse(&row)).transpose()
}

/// A page of the runs, newest first.
pub(crate) async fn list_runs(
    client: &impl GenericClient,
    request: &PageRequest<RunPosition>,
) -> Result<Page<MaintenanceRun, RunPosition>> {
    let (started_at, id) = request.after().map(|after| (after.started_at, after.run_id)).unzip();
    let statement = format!(
        r#"{COLUMNS} WHERE $1 IS NULL OR ("startedAt", id) < ($1, $2) ORDER BY "startedAt" DESC, id DESC LIMIT $3"#
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&started_at, Type::TIMESTAMP), (&id, Type::UUID), (&request.rows_to_read(), Type::INT8)];
    let rows = client.query_typed_raw(&statement, parameters).await?;
    let parse = |row: &Row| {
        let run = parse(row)?;
        let position = RunPosition { started_at: run.started_at.naive_utc(), run_id: run.id };
        Ok((run, Cursor::without_stream(position)))
    };
    page::collect(rows, request, parse, |run| format!("run {}", run.id)).await
}

/// Rows per second of the last run that archived enough to tell.
pub(crate) async fn find_last_rate(client: &impl GenericClient) -> Result<Option<f64>> {
    let row = client
        .query_typed_opt(
            r#"SELECT "rowsPerSecond" FROM "MaintenanceRun" WHERE "rowsPerSecond" > 0 AND "logsArchived" >= 10000 ORDER BY "startedAt" DESC LIMIT 1"#,
            &[],
        )
        .await?;
    row.map(|row| Ok(row.try_get("rowsPerSecond")?)).transpose()
}

/// Ends an open run that nobody holds, so that a later one can start. What it has not done, the later one will.
pub(crate) async fn give_up_run(client: &impl GenericClient, id: Uuid) -> Result<bool> {
    let rows = client
        .execute_typed(
            r#"UPDATE "MaintenanceRun"
               SET "finishedAt" = clock_timestamp() AT TIME ZONE 'UTC',
                   error = concat_ws('; ', error, 'given up, so that other runs can start')
               WHERE id = $1 AND "finishedAt" IS NULL AND "leaseHolder" IS NULL"#,
            &[(&id, Type::UUID)],
        )
        .await?;
    Ok(rows > 0)
}

/// The last period whose run has ended.
pub(crate) async fn find_last_period(client: &impl GenericClient) -> Result<Option<Month>> {
    let row = client
        .query_typed_one(r#"SELECT max(period) AS period FROM "MaintenanceRun" WHERE "finishedAt" IS NOT NULL"#, &[])
        .await?;
    decode(&row, "period")
}

/// How many streams there are, by the planner's estimate.
pub(crate) async fn estimate_streams(client: &impl GenericClient) -> Result<u64> {
    event_log::estimate_rows(client, r#"SELECT FROM "Stream""#).await
}

#[expect(clippy::cast_precision_loss, reason = "a share of a hundred needs no more")]
fn parse(row: &Row) -> Result<MaintenanceRun> {
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    let optional =
        |name: &str| -> Result<Option<u64>> { Ok(row.try_get::<_, Option<i64>>(name)?.map(i64::unsigned_abs)) };
    let time = |name: &str| -> Result<DateTime<Utc>> { Ok(row.try_get::<_, NaiveDateTime>(name)?.and_utc()) };
    let phase: Phase = decode(row, "phase")?;
    let status: RunStatus = decode(row, "status")?;
    let (streams, created) = (number("streams")?, number("snapshotsCreated")?);
    let (archived, dropped) = (number("logsArchived")?, number("alreadyArchived")?);
    let (duplicates, restored) = (number("duplicatesDropped")?, number("logsRestored")?);
    let rows = archived + dropped + duplicates + restored;
    let (streams_estimated, rows_estimated) = (optional("streamsEstimated")?, optional("rowsEstimated")?);
    let rows_per_second: Option<f64> = row.try_get("rowsPerSecond")?;
    let (done, whole) = match phase {
        Phase::Snapshots => (streams, streams_estimated.unwrap_or(0)),
        Phase::Archive | Phase::Restore => (rows, rows_estimated.unwrap_or(0)),
        Phase::Vacuum | Phase::Done => (1, 1),
    };
    // By an estimate that the work may pass: it is never all done before its phase is.
    let percent = match phase {
        Phase::Done | Phase::Vacuum => 100.0,
        _ if whole == 0 => 0.0,
        _ => (done as f64 / whole as f64 * 1000.0).round().min(990.0) / 10.0,
    };
    let is_moving = matches!(phase, Phase::Archive | Phase::Restore);
    let left = is_moving.then(|| rows_estimated.unwrap_or(0).saturating_sub(rows));
    let months = parse_months(row)?;
    let stored: Vec<StoredHeldBack> = decode_json(row, "heldBack")?;
    let mut held_back: Vec<HeldBack> = stored.into_iter().map(HeldBack::from).collect();
    let on_hold = months.values().map(|month| month.on_hold).sum();
    if on_hold > 0 {
        held_back.push(HeldBack::rows(HeldBackReason::LegalHold, on_hold));
    }
    let conflict = held_back.iter().find(|held| held.reason == HeldBackReason::Conflict);
    let conflicts = conflict.map_or(0, |held| held.rows) + months.values().map(|month| month.conflicts).sum::<u64>();
    let of_archive: Vec<String> = conflict.map(|held| held.ids.clone()).unwrap_or_default();
    let of_restore = months.values().flat_map(|month| month.conflict_ids.iter().cloned());
    let conflict_ids = of_archive.into_iter().chain(of_restore);
    let conflict_details = months.values().flat_map(|month| month.conflict_details.iter().cloned());
    Ok(MaintenanceRun {
        id: row.try_get("id")?,
        trigger: decode(row, "trigger")?,
        scope: decode(row, "scope")?,
        period: decode(row, "period")?,
        target: decode_json(row, "target")?,
        snapshot_month: decode(row, "snapshotMonth")?,
        cutoff: time("cutoff")?,
        refresh: row.try_get("refresh")?,
        force: row.try_get("force")?,
        phase,
        status,
        complete: matches!(status, RunStatus::Succeeded | RunStatus::SucceededWithFindings),
        percent,
        streams,
        streams_estimated,
        snapshots_created: created,
        snapshots_existing: streams.saturating_sub(created),
        unparsed_amounts: number("unparsedAmounts")?,
        rows_estimated,
        logs_archived: archived,
        already_archived: dropped,
        duplicates_dropped: duplicates,
        hash_mismatches: number("hashMismatches")?,
        logs_restored: restored,
        conflicts,
        conflict_ids: conflict_ids.take(MAX_REPORTED_IDS).collect(),
        conflict_details: conflict_details.take(MAX_REPORTED_IDS).collect(),
        held_back,
        findings: decode_json(row, "hostFindings")?,
        current_month: decode(row, "currentMonth")?,
        rows_per_second,
        remaining_seconds: left.zip(rows_per_second.filter(|rate| *rate > 0.0)).map(|(left, rate)| seconds(left, rate)),
        waiting_for: row.try_get("waitingFor")?,
        stop_reason: decode(row, "stopReason")?,
        error: row.try_get("error")?,
        attempts: row.try_get("attempts")?,
        started_at: time("startedAt")?,
        updated_at: time("updatedAt")?,
        finished_at: row.try_get::<_, Option<NaiveDateTime>>("finishedAt")?.map(|time| time.and_utc()),
    })
}

/// How long `rows` take at `rows_per_second`, in whole seconds.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; a cast from f64 saturates"
)]
pub(crate) fn seconds(rows: u64, rows_per_second: f64) -> u64 {
    (rows as f64 / rows_per_second).ceil() as u64
}
