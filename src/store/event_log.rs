use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::archive_columns::MirroredColumns;
use super::holds::HELD_STREAMS;
use super::statement::Statement;
use crate::error::Result;

/// SQL that is true when the row `e` was not restored, or was released since.
pub(super) const IS_NOT_RESTORED: &str = r#"NOT EXISTS (SELECT FROM "RestoredLog" r WHERE r.id = e.id::text)"#;

/// What is due: fixed when a run starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// Rows created before this instant (UTC) are due.
    pub(crate) cutoff: NaiveDateTime,
    /// Whether `EventLog` has hashes, so that its newest row must stay (domain rule 7).
    pub(crate) has_hashes: bool,
}

/// A place in `EventLog`'s order by (`createdAt`, `id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogPosition {
    pub(crate) created_at: NaiveDateTime,
    /// `None` is before all ids: the empty text is one as any other.
    pub(crate) id: Option<String>,
}

impl LogPosition {
    /// Before all rows created at or after `created_at`.
    pub(crate) fn before(created_at: NaiveDateTime) -> Self {
        Self { created_at, id: None }
    }
}

/// Before all rows: the year 1 is older than anything that a host's clock has ever said.
pub(crate) fn first_instant() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or_default().and_time(NaiveTime::MIN)
}

/// Keeps the definition of `EventLog` as it is until the transaction ends; rows can still be written. What a deferred constraint
/// or trigger refuses is found out by the statement that it refuses, and not at the commit.
pub(crate) async fn lock_columns(client: &impl GenericClient) -> Result<()> {
    client.batch_execute(r#"SET CONSTRAINTS ALL IMMEDIATE; LOCK TABLE "EventLog" IN ROW EXCLUSIVE MODE"#).await?;
    Ok(())
}

/// Whether the newest row of `EventLog` is due and any row has a hash. Looks at the rows only in the first case: as long
/// as the newest row is not due, no hash matters.
pub(crate) async fn has_due_hashes(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    cutoff: NaiveDateTime,
) -> Result<bool> {
    if !columns.have_hashes() {
        return Ok(false);
    }
    let row = client
        .query_typed_one(
            r#"SELECT CASE WHEN (SELECT max("createdAt") FROM "EventLog" WHERE "createdAt" < '10000-01-01') < $1
                           THEN EXISTS (SELECT FROM "EventLog" WHERE entry_hash IS NOT NULL) ELSE false END AS has_hashes"#,
            &[(&cutoff, Type::TIMESTAMP)],
        )
        .await?;
    Ok(row.try_get("has_hashes")?)
}

/// Whether any row of `EventLog` is due, or has no time that a clock could have said. Also true under row security, which may hide such rows.
/// Quick where `createdAt` has an index.
pub(crate) async fn is_any_left(client: &impl GenericClient, cutoff: NaiveDateTime) -> Result<bool> {
    let row = client
        .query_typed_one(
            r#"SELECT row_security_active('"EventLog"'::regclass)
                   OR EXISTS (SELECT FROM "EventLog" WHERE "createdAt" < $1)
                   OR EXISTS (SELECT FROM "EventLog" WHERE "createdAt" >= '10000-01-01')
                   OR EXISTS (SELECT FROM "EventLog" WHERE "createdAt" IS NULL) AS is_any_left"#,
            &[(&cutoff, Type::TIMESTAMP)],
        )
        .await?;
    Ok(row.try_get("is_any_left")?)
}

/// When the oldest due row from `after` on was created, without the one that stays as the chain's head.
pub(crate) async fn find_next_due(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    due: Due,
    after: NaiveDateTime,
) -> Result<Option<NaiveDateTime>> {
    let row = Statement::new(include_str!("sql/find_next_due.sql"))
        .fragment("chain_head", chain_head(columns))
        .bind("cutoff", &due.cutoff, Type::TIMESTAMP)
        .bind("has_hashes", &due.has_hashes, Type::BOOL)
        .bind("after", &after, Type::TIMESTAMP)
        .query_one(client)
        .await?;
    Ok(row.try_get("created_at")?)
}

/// How many rows are due, by the planner's estimate: known at once, however many there are.
pub(crate) async fn estimate_due_rows(client: &impl GenericClient, cutoff: NaiveDateTime) -> Result<u64> {
    estimate_rows(client, &format!(r#"SELECT FROM "EventLog" WHERE "createdAt" < '{cutoff}'"#)).await
}

/// How many rows `EventLog` has, by the planner's estimate.
pub(crate) async fn estimate_log_rows(client: &impl GenericClient) -> Result<u64> {
    estimate_rows(client, r#"SELECT FROM "EventLog""#).await
}

/// How many rows `select` has, by the planner's estimate.
pub(super) async fn estimate_rows(client: &impl GenericClient, select: &str) -> Result<u64> {
    let row = client.query_typed_one(&format!("EXPLAIN (FORMAT JSON) {select}"), &[]).await?;
    let plan: serde_json::Value = row.try_get(0)?;
    Ok(plan[0]["Plan"]["Plan Rows"].as_u64().unwrap_or(0))
}

/// Whether more than `max_rows` rows are due and not held. Looks at no more than that.
pub(crate) async fn are_more_due_than(
    client: &impl GenericClient,
    cutoff: NaiveDateTime,
    kept_types: &[String],
    max_rows: u64,
) -> Result<bool> {
    const SQL: &str = r#"SELECT count(*) > :max_rows AS more FROM (
        SELECT FROM "EventLog" e
        WHERE e."createdAt" >= '0001-01-01' AND e."createdAt" < :cutoff AND (e."streamId"::text IN (:held_streams)) IS NOT TRUE
          AND (e."eventType"::text = ANY (:kept_types)) IS NOT TRUE AND :is_not_restored
        LIMIT :max_rows + 1
    ) due"#;
    let max_rows = i64::try_from(max_rows).unwrap_or(i64::MAX - 1);
    let row = Statement::new(SQL)
        .fragment("held_streams", HELD_STREAMS)
        .fragment("is_not_restored", IS_NOT_RESTORED)
        .bind("cutoff", &cutoff, Type::TIMESTAMP)
        .bind("kept_types", &kept_types, Type::TEXT_ARRAY)
        .bind("max_rows", &max_rows, Type::INT8)
        .query_one(client)
        .await?;
    Ok(row.try_get("more")?)
}

/// `EventLog` as SQL writes it, if this session's role may [`vacuum`] it. Else PostgreSQL would pass over the table with a warning
/// that nobody sees.
pub(crate) async fn find_vacuumable(client: &impl GenericClient) -> Result<Option<String>> {
    let row = client.query_typed_opt(include_str!("sql/find_vacuumable.sql"), &[]).await?;
    row.map(|row| Ok(row.try_get("name")?)).transpose()
}

/// Frees the place of rows that `table` had and brings the statistics up to date, unless somebody else does so now.
pub(crate) async fn vacuum(client: &impl GenericClient, table: &str) -> Result<()> {
    Ok(client.batch_execute(&format!("VACUUM (ANALYZE, SKIP_LOCKED) {table}")).await?)
}

/// The look-up of the chain's head; a host without hashes has none.
pub(super) fn chain_head(columns: &MirroredColumns) -> &'static str {
    const NONE: &str = r#"SELECT id FROM "EventLog" WHERE false"#;
    if columns.have_hashes() { include_str!("sql/chain_head.sql") } else { NONE }
}
