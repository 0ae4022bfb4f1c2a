use chrono::{DateTime, NaiveDateTime, Utc};
use seal::Mismatch;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::decode::{bigint, decode, decode_json};
use super::event_log;
use super::moving::MAX_KEPT_FINDINGS;
use super::page;
use super::statement::Statement;
use crate::error::{Error, HostFinding, Result};
use crate::model::{
    ConflictDetail, Cursor, HeldBack, HeldBackReason, MAX_REPORTED_IDS, MaintenanceRequest, MaintenanceRun, Month,
    Page, PageRequest, Phase, RestoreTarget, RunPosition, RunStatus, Scope, StoredHeldBack,
};

const COLUMNS: &str = include_str!("sql/maintenance_run_columns.sql");

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

/// What a slice continues from.
#[derive(Debug)]
pub(crate) struct RunState {
    /// `Stream.id` up to which snapshots were taken; none at first.
    pub(crate) last_stream: Option<String>,
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
    let sql = r#"SELECT "lastStreamId", "batchRows" FROM "MaintenanceRun" WHERE id = $1"#;
    let row = client.query_typed_one(sql, &[(&id, Type::UUID)]).await?;
    Ok(RunState {
        last_stream: row.try_get("lastStreamId")?,
        batch_rows: row.try_get::<_, Option<i32>>("batchRows")?.map(i32::unsigned_abs),
    })
}

/// Keeps rows of `month` whose hash is not theirs with the run, up to a thousand. Called when the run's row is locked, so that workers
/// that commit one after the other count what the others have kept. Returns whether there is room for more.
pub(crate) async fn insert_mismatches(
    client: &impl GenericClient,
    run: Uuid,
    month: Month,
    mismatches: &[Mismatch],
) -> Result<bool> {
    let each = |text: fn(&Mismatch) -> &str| mismatches.iter().map(text).collect::<Vec<_>>();
    let row = Statement::new(include_str!("sql/insert_mismatches.sql"))
        .bind("run", &run, Type::UUID)
        .bind("month", &month.to_string(), Type::TEXT)
        .bind("ids", &each(|one| &one.id), Type::TEXT_ARRAY)
        .bind("entry_hashes", &each(|one| &one.entry_hash), Type::TEXT_ARRAY)
        .bind("computed_hashes", &each(|one| &one.computed), Type::TEXT_ARRAY)
        .bind("most_kept", &bigint(MAX_KEPT_FINDINGS as u64), Type::INT8)
        .query_one(client)
        .await?;
    Ok(row.try_get("has_room")?)
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
            r#"SELECT "rowsPerSecond" FROM "MaintenanceRun" r
               WHERE "rowsPerSecond" > 0 AND (SELECT sum("logsArchived") FROM "RunMonth" WHERE "runId" = r.id) >= 10000
               ORDER BY "startedAt" DESC LIMIT 1"#,
            &[],
        )
        .await?;
    row.map(|row| Ok(row.try_get("rowsPerSecond")?)).transpose()
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
    let stored: Vec<StoredHeldBack> = decode_json(row, "heldBack")?;
    let mut held_back: Vec<HeldBack> = stored.into_iter().map(HeldBack::from).collect();
    let on_hold = number("onHold")?;
    if on_hold > 0 {
        held_back.push(HeldBack::rows(HeldBackReason::LegalHold, on_hold));
    }
    let conflict = held_back.iter().find(|held| held.reason == HeldBackReason::Conflict);
    let conflicts = conflict.map_or(0, |held| held.rows) + number("conflicts")?;
    let of_archive: Vec<String> = conflict.map(|held| held.ids.clone()).unwrap_or_default();
    let details: Vec<Vec<ConflictDetail>> = decode_json(row, "conflictDetails")?;
    let conflict_details: Vec<_> = details.into_iter().flatten().take(MAX_REPORTED_IDS).collect();
    let of_restore = conflict_details.iter().map(|detail| detail.log_id.clone());
    let conflict_ids = of_archive.into_iter().chain(of_restore).take(MAX_REPORTED_IDS).collect();
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
        completed_by_host: number("completedByHost")?,
        links_missing: number("linksMissing")?,
        logs_restored: restored,
        conflicts,
        conflict_ids,
        conflict_details,
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
