use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::decode::{bigint, decode, decode_json};
use super::event_log::LogPosition;
use super::leases::MonthLease;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{ConflictDetail, Month};

/// How often a month is begun again: most locks are short, and who writes old rows without end is not waited for.
const MAX_PASSES: i32 = 4;

/// How far a run is with a month. Counts are of the present pass.
#[derive(Debug, Default, Clone)]
pub(crate) struct MonthProgress {
    /// The last row looked at.
    pub(crate) after: Option<LogPosition>,
    /// Where in its partition the last row is that a restore looked at.
    pub(crate) place: Option<String>,
    /// Rows moved.
    pub(crate) moved: u64,
    /// Whether all rows were looked at.
    pub(crate) done: bool,
    /// Rows that a restore left, under legal hold.
    pub(crate) on_hold: u64,
    /// Rows that a restore left, because `EventLog` does not take them.
    pub(crate) conflicts: u64,
    /// Why these stay, the first hundred.
    pub(crate) conflict_details: Vec<ConflictDetail>,
}

impl MonthProgress {
    pub(super) fn parse(row: &Row) -> Result<Self> {
        let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
        let id = row.try_get("afterId")?;
        let created_at: Option<NaiveDateTime> = row.try_get("afterCreatedAt")?;
        Ok(Self {
            after: created_at.map(|created_at| LogPosition { created_at, id }),
            place: row.try_get("place")?,
            moved: number("moved")?,
            done: row.try_get("done")?,
            on_hold: number("onHold")?,
            conflicts: number("conflicts")?,
            conflict_details: decode_json(row, "conflictDetails")?,
        })
    }
}

/// Notes the months that a run works on; as `done` where no row is to be looked at. A month that the run has already stays as it is.
pub(crate) async fn plan_months(client: &impl GenericClient, run: Uuid, months: &[Month], done: bool) -> Result<()> {
    Statement::new(include_str!("sql/plan_months.sql"))
        .bind("run", &run, Type::UUID)
        .bind("months", &texts(months), Type::TEXT_ARRAY)
        .bind("done", &done, Type::BOOL)
        .execute(client)
        .await?;
    Ok(())
}

/// Begins those of `months` again in which trying once more can help. Returns whether there are any.
pub(crate) async fn begin_again(client: &impl GenericClient, run: Uuid, months: &[Month]) -> Result<bool> {
    let rows = Statement::new(include_str!("sql/begin_again.sql"))
        .bind("run", &run, Type::UUID)
        .bind("months", &texts(months), Type::TEXT_ARRAY)
        .bind("most_passes", &MAX_PASSES, Type::INT4)
        .query(client)
        .await?;
    Ok(!rows.is_empty())
}

/// Begins the months of a rollback again that have rows left: somebody has seen to these, or hears of them again.
pub(crate) async fn begin_rollback_again(client: &impl GenericClient, run: Uuid) -> Result<()> {
    client
        .execute_typed(
            r#"UPDATE "RunMonth"
               SET done = false, moved = 0, "afterCreatedAt" = NULL, "afterId" = NULL, place = NULL, "onHold" = 0, conflicts = 0,
                   "conflictDetails" = '[]'
               WHERE "runId" = $1 AND "onHold" + conflicts > 0"#,
            &[(&run, Type::UUID)],
        )
        .await?;
    Ok(())
}

/// Months of a run that are not done, oldest first.
pub(crate) async fn list_months_left(client: &impl GenericClient, run: Uuid) -> Result<Vec<Month>> {
    let sql = r#"SELECT month FROM "RunMonth" WHERE "runId" = $1 AND NOT done ORDER BY month"#;
    let rows = client.query_typed(sql, &[(&run, Type::UUID)]).await?;
    rows.iter().map(|row| decode(row, "month")).collect()
}

/// How many rows a restore is about, by month, as far as they are counted.
pub(crate) async fn list_rows_to_restore(client: &impl GenericClient, run: Uuid) -> Result<BTreeMap<Month, u64>> {
    let sql =
        r#"SELECT month, "rowsToRestore" AS rows FROM "RunMonth" WHERE "runId" = $1 AND "rowsToRestore" IS NOT NULL"#;
    let rows = client.query_typed(sql, &[(&run, Type::UUID)]).await?;
    rows.iter().map(|row| Ok((decode(row, "month")?, row.try_get::<_, i64>("rows")?.unsigned_abs()))).collect()
}

/// Records how many rows of `month` a restore is about.
pub(crate) async fn record_rows_to_restore(
    client: &impl GenericClient,
    run: Uuid,
    month: Month,
    rows: u64,
) -> Result<()> {
    let sql = r#"UPDATE "RunMonth" SET "rowsToRestore" = $3 WHERE "runId" = $1 AND month = $2"#;
    client
        .execute_typed(sql, &[(&run, Type::UUID), (&month.to_string(), Type::TEXT), (&bigint(rows), Type::INT8)])
        .await?;
    Ok(())
}

/// What a batch that archived has added to the counts of its run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArchivedCounts {
    pub(crate) logs_archived: u64,
    pub(crate) already_archived: u64,
    pub(crate) duplicates_dropped: u64,
    pub(crate) hash_mismatches: u64,
    pub(crate) completed_by_host: u64,
}

/// Records a batch that archived logs of a month, and how far the month is.
pub(crate) async fn record_archived(
    client: &impl GenericClient,
    lease: &MonthLease,
    progress: &MonthProgress,
    counts: ArchivedCounts,
) -> Result<()> {
    let (created_at, id) = position(progress);
    Statement::new(include_str!("sql/record_archived.sql"))
        .bind("run", &lease.run, Type::UUID)
        .bind("month", &lease.month.to_string(), Type::TEXT)
        .bind("after_created_at", &created_at, Type::TIMESTAMP)
        .bind("after_id", &id, Type::TEXT)
        .bind("moved", &bigint(progress.moved), Type::INT8)
        .bind("done", &progress.done, Type::BOOL)
        .bind("logs_archived", &bigint(counts.logs_archived), Type::INT8)
        .bind("already_archived", &bigint(counts.already_archived), Type::INT8)
        .bind("duplicates_dropped", &bigint(counts.duplicates_dropped), Type::INT8)
        .bind("hash_mismatches", &bigint(counts.hash_mismatches), Type::INT8)
        .bind("completed_by_host", &bigint(counts.completed_by_host), Type::INT8)
        .execute(client)
        .await?;
    Ok(())
}

/// Records a batch that restored logs of a month, and how far the month is.
pub(crate) async fn record_restored(
    client: &impl GenericClient,
    lease: &MonthLease,
    progress: &MonthProgress,
    logs_restored: u64,
) -> Result<()> {
    let (created_at, id) = position(progress);
    let details = serde_json::to_value(&progress.conflict_details).map_err(Error::Serialize)?;
    Statement::new(include_str!("sql/record_restored.sql"))
        .bind("run", &lease.run, Type::UUID)
        .bind("month", &lease.month.to_string(), Type::TEXT)
        .bind("after_created_at", &created_at, Type::TIMESTAMP)
        .bind("after_id", &id, Type::TEXT)
        .bind("place", &progress.place, Type::TEXT)
        .bind("moved", &bigint(progress.moved), Type::INT8)
        .bind("done", &progress.done, Type::BOOL)
        .bind("on_hold", &bigint(progress.on_hold), Type::INT8)
        .bind("conflicts", &bigint(progress.conflicts), Type::INT8)
        .bind("conflict_details", &details, Type::JSONB)
        .bind("logs_restored", &bigint(logs_restored), Type::INT8)
        .execute(client)
        .await?;
    Ok(())
}

fn position(progress: &MonthProgress) -> (Option<NaiveDateTime>, Option<&str>) {
    progress.after.as_ref().map_or((None, None), |after| (Some(after.created_at), after.id.as_deref()))
}

fn texts(months: &[Month]) -> Vec<String> {
    months.iter().map(Month::to_string).collect()
}
