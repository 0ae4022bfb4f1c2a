use std::collections::HashSet;

use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::archive_columns::{list_archive_columns, list_typed_columns_of, quote};
use super::decode::{bigint, decode, decode_json};
use super::event_log::LogPosition;
use super::host;
use super::partitions::{has_partition, partition_name};
use super::row_form::RowForm;
use super::seals::{digest_removals, digest_rows};
use super::statement::{Parameter, Statement};
use super::stream_identity::{has_contract_id, texts};
use crate::error::{Error, Result};
use crate::model::{
    Break, ContractId, MAX_REPORTED_BREAKS, Month, Verification, VerificationRequest, VerificationStatus,
};

/// Most rows or seals that one statement names.
pub(crate) const MAX_NAMED: i64 = 1_000;
/// Most links that are followed one by one; where more lead out of a month, all are looked up at once.
const MAX_FOLLOWED: i64 = 1_000;

const COLUMNS: &str = r#"SELECT id, month, "streamId", "isFull", status, "rowsTotal", "rowsDone", "sealsDone", breaks,
    "breakCount", "startedAt", "updatedAt", "finishedAt" FROM "ArchiveVerification""#;

/// A part of a verification: what one or a few statements look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// What the archive consists of.
    Partitions,
    /// A seal of a month's chain.
    Seal(Month, i32),
    /// What no single seal of the month shows, and its links.
    Month(Month),
    /// The rows of `EventLog` behind this one.
    Logs(Option<LogPosition>),
    /// The links of `EventLog`.
    LogLinks,
}

impl Task {
    fn kind(&self) -> &'static str {
        match self {
            Self::Partitions => "partitions",
            Self::Seal(..) => "seal",
            Self::Month(_) => "month",
            Self::Logs(_) => "logs",
            Self::LogLinks => "log_links",
        }
    }

    fn parse(row: &Row) -> Result<Self> {
        Ok(match row.try_get("kind")? {
            "partitions" => Self::Partitions,
            "seal" => Self::Seal(decode(row, "month")?, row.try_get("sequence")?),
            "month" => Self::Month(decode(row, "month")?),
            "logs" => {
                let (created_at, id) =
                    (row.try_get::<_, Option<NaiveDateTime>>("afterCreatedAt")?, row.try_get("afterId")?);
                Self::Logs(created_at.map(|created_at| LogPosition { created_at, id }))
            }
            _ => Self::LogLinks,
        })
    }
}

/// A task under its lease.
#[derive(Debug)]
pub(crate) struct ClaimedTask {
    pub(crate) task: Task,
    place: i32,
    token: Uuid,
}

/// What looking at a task has shown.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) rows: u64,
    pub(crate) seals: u64,
    /// How many breaks there are.
    pub(crate) break_count: u64,
    /// The first of them.
    pub(crate) breaks: Vec<Break>,
}

impl Outcome {
    /// With `breaks`, which are all.
    pub(crate) fn new(rows: u64, seals: u64, breaks: Vec<Break>) -> Self {
        Self { rows, seals, break_count: breaks.len() as u64, breaks }
    }
}

/// Continues the last verification of the same kind, if it stopped within the last day, or starts one with these `tasks`.
pub(crate) async fn begin_verification(
    client: &impl GenericClient,
    request: &VerificationRequest,
    tasks: &[Task],
    rows_total: u64,
    now: DateTime<Utc>,
) -> Result<Uuid> {
    let month = request.month.map(|month| month.to_string());
    let row = Statement::new(include_str!("sql/begin_verification.sql"))
        .bind("month", &month, Type::TEXT)
        .bind("stream", &request.stream, Type::TEXT)
        .bind("is_full", &request.full, Type::BOOL)
        .bind("rows_total", &bigint(rows_total), Type::INT8)
        .bind("now", &now.naive_utc(), Type::TIMESTAMP)
        .query_one(client)
        .await?;
    let id = row.try_get("id")?;
    if row.try_get("is_new")? {
        let kinds: Vec<_> = tasks.iter().map(Task::kind).collect();
        let (months, sequences): (Vec<_>, Vec<_>) = tasks
            .iter()
            .map(|task| match task {
                Task::Seal(month, sequence) => (Some(month.to_string()), Some(*sequence)),
                Task::Month(month) => (Some(month.to_string()), None),
                _ => (None, None),
            })
            .unzip();
        client
            .execute_typed(
                r#"INSERT INTO "VerificationTask" ("verificationId", place, kind, month, sequence)
                   SELECT $1, place, kind, month, sequence
                   FROM unnest($2, $3, $4) WITH ORDINALITY task (kind, month, sequence, place)"#,
                &[
                    (&id, Type::UUID),
                    (&kinds, Type::TEXT_ARRAY),
                    (&months, Type::TEXT_ARRAY),
                    (&sequences, Type::INT4_ARRAY),
                ],
            )
            .await?;
    }
    Ok(id)
}

/// Claims the next task of a verification.
pub(crate) async fn claim_task(
    client: &impl GenericClient,
    verification: Uuid,
    lease_seconds: f64,
) -> Result<Option<ClaimedTask>> {
    let row = Statement::new(include_str!("sql/claim_task.sql"))
        .bind("verification", &verification, Type::UUID)
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .query_opt(client)
        .await?;
    row.map(|row| {
        Ok(ClaimedTask { task: Task::parse(&row)?, place: row.try_get("place")?, token: row.try_get("token")? })
    })
    .transpose()
}

/// Records what looking at a task has shown; `left` is what is left of it.
///
/// # Errors
///
/// [`Error::LeaseLost`] when another call has the task.
pub(crate) async fn record_task(
    client: &impl GenericClient,
    verification: Uuid,
    claimed: &ClaimedTask,
    left: Option<&LogPosition>,
    outcome: &Outcome,
    lease_seconds: f64,
) -> Result<()> {
    let breaks = serde_json::to_value(outcome.breaks.iter().take(MAX_REPORTED_BREAKS).collect::<Vec<_>>());
    let recorded = Statement::new(include_str!("sql/record_task.sql"))
        .bind("verification", &verification, Type::UUID)
        .bind("place", &claimed.place, Type::INT4)
        .bind("token", &claimed.token, Type::UUID)
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .bind("done", &left.is_none(), Type::BOOL)
        .bind("after_created_at", &left.map(|left| left.created_at), Type::TIMESTAMP)
        .bind("after_id", &left.and_then(|left| left.id.as_ref()), Type::TEXT)
        .bind("rows", &bigint(outcome.rows), Type::INT8)
        .bind("seals", &bigint(outcome.seals), Type::INT8)
        .bind("break_count", &bigint(outcome.break_count), Type::INT8)
        .bind("breaks", &breaks.map_err(Error::Serialize)?, Type::JSONB)
        .bind("most_breaks", &bigint(MAX_REPORTED_BREAKS as u64), Type::INT8)
        .execute(client)
        .await?;
    if recorded == 0 { Err(Error::LeaseLost { run: verification }) } else { Ok(()) }
}

/// Renews the lease of a task, and says that its verification is alive.
///
/// # Errors
///
/// [`Error::LeaseLost`].
pub(crate) async fn renew_task(
    client: &impl GenericClient,
    verification: Uuid,
    claimed: &ClaimedTask,
    lease_seconds: f64,
) -> Result<()> {
    const SQL: &str = r#"WITH task AS (
            UPDATE "VerificationTask"
            SET "leaseExpiresAt" = clock_timestamp() AT TIME ZONE 'UTC' + :lease_seconds * interval '1 second'
            WHERE "verificationId" = :verification AND place = :place AND token = :token AND NOT done
            RETURNING 1
        )
        UPDATE "ArchiveVerification" SET "updatedAt" = clock_timestamp() AT TIME ZONE 'UTC'
        FROM task WHERE id = :verification"#;
    let renewed = Statement::new(SQL)
        .bind("verification", &verification, Type::UUID)
        .bind("place", &claimed.place, Type::INT4)
        .bind("token", &claimed.token, Type::UUID)
        .bind("lease_seconds", &lease_seconds, Type::FLOAT8)
        .execute(client)
        .await?;
    if renewed == 0 { Err(Error::LeaseLost { run: verification }) } else { Ok(()) }
}

/// Gives a task back that is not done.
pub(crate) async fn release_task(client: &impl GenericClient, verification: Uuid, claimed: &ClaimedTask) -> Result<()> {
    let sql = r#"UPDATE "VerificationTask" SET token = NULL, "leaseExpiresAt" = NULL
                 WHERE "verificationId" = $1 AND place = $2 AND token = $3"#;
    client
        .execute_typed(sql, &[(&verification, Type::UUID), (&claimed.place, Type::INT4), (&claimed.token, Type::UUID)])
        .await?;
    Ok(())
}

/// Ends a verification, or interrupts it if tasks are left.
pub(crate) async fn end_verification(client: &impl GenericClient, verification: Uuid) -> Result<()> {
    Statement::new(include_str!("sql/end_verification.sql"))
        .bind("verification", &verification, Type::UUID)
        .execute(client)
        .await?;
    Ok(())
}

/// The verification with this id.
pub(crate) async fn get_verification(client: &impl GenericClient, id: Uuid) -> Result<Verification> {
    parse(&client.query_typed_one(&format!("{COLUMNS} WHERE id = $1"), &[(&id, Type::UUID)]).await?)
}

/// The verification that started last.
pub(crate) async fn find_last_verification(client: &impl GenericClient) -> Result<Option<Verification>> {
    let row = client.query_typed_opt(&format!(r#"{COLUMNS} ORDER BY "startedAt" DESC LIMIT 1"#), &[]).await?;
    row.map(|row| parse(&row)).transpose()
}

fn parse(row: &Row) -> Result<Verification> {
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    let time = |name: &str| -> Result<DateTime<Utc>> { Ok(row.try_get::<_, NaiveDateTime>(name)?.and_utc()) };
    let status: VerificationStatus = decode(row, "status")?;
    let mut breaks: Vec<Break> = decode_json(row, "breaks")?;
    // Workers find them in any order.
    breaks.sort_by_key(|found| (found.month.is_none(), found.month, found.sequence.is_none(), found.sequence));
    Ok(Verification {
        id: row.try_get("id")?,
        month: decode(row, "month")?,
        stream_id: row.try_get("streamId")?,
        full: row.try_get("isFull")?,
        status,
        complete: matches!(status, VerificationStatus::Passed | VerificationStatus::Failed),
        seals_done: number("sealsDone")?,
        rows_done: number("rowsDone")?,
        rows_total: number("rowsTotal")?,
        break_count: number("breakCount")?,
        breaks,
        started_at: time("startedAt")?,
        updated_at: time("updatedAt")?,
        finished_at: row.try_get::<_, Option<NaiveDateTime>>("finishedAt")?.map(|time| time.and_utc()),
    })
}

/// Months with seals or a partition, oldest first.
pub(crate) async fn list_months(client: &impl GenericClient) -> Result<Vec<Month>> {
    let rows = client
        .query_typed(
            r#"SELECT month FROM "ArchiveMonth"
               UNION
               SELECT replace(right(p.relname, 7), '_', '-')
               FROM pg_inherits i
               JOIN pg_class p ON p.oid = i.inhrelid
               WHERE i.inhparent = '"StreamArchive"'::regclass AND p.relname ~ '^StreamArchive_[0-9]{4}_[0-9]{2}$'
               ORDER BY month"#,
            &[],
        )
        .await?;
    rows.iter().map(|row| decode(row, "month")).collect()
}

/// The seals of a month, or those that seal rows of `stream`; and how many rows they seal.
pub(crate) async fn list_seals(
    client: &impl GenericClient,
    month: Month,
    stream: Option<&[ContractId]>,
) -> Result<(Vec<i32>, u64)> {
    const SQL: &str = r#"SELECT sequence, CASE WHEN kind = 'restored' THEN 0 ELSE rows END AS rows
        FROM "ArchiveSeal" s
        WHERE month = :month AND :has_rows
        ORDER BY sequence"#;
    const HAS_ROWS: &str = r#"EXISTS (
        SELECT FROM "StreamArchive" a
        WHERE a."createdAt" >= :start AND a."createdAt" < :end AND :of_stream
          AND a."archivedAt" > COALESCE(s."archivedAfter", '-infinity') AND a."archivedAt" <= s."archivedAt")"#;
    let rows = Statement::new(SQL)
        .fragment("has_rows", if stream.is_some() { HAS_ROWS } else { "true" })
        .fragment("of_stream", is_of_stream("a", stream))
        .bind("month", &month.to_string(), Type::TEXT)
        .bind("start", &month.start(), Type::TIMESTAMP)
        .bind("end", &month.end(), Type::TIMESTAMP)
        .bind("contract_ids", &stream.map(texts), Type::TEXT_ARRAY)
        .query(client)
        .await?;
    let mut total = 0;
    let mut seals = Vec::with_capacity(rows.len());
    for row in rows {
        seals.push(row.try_get("sequence")?);
        total += row.try_get::<_, i64>("rows")?.unsigned_abs();
    }
    Ok((seals, total))
}

/// The rows of a month: its partition, or nothing where that is gone.
async fn rows_of(client: &impl GenericClient, month: Month) -> Result<String> {
    if has_partition(client, month).await? {
        return Ok(partition_name(month));
    }
    Ok(r#"(SELECT * FROM "StreamArchive" WHERE false)"#.into())
}

/// What recomputing a seal has shown.
#[derive(Debug)]
pub(crate) struct RecomputedSeal {
    /// Whether its digest is that of the seal and its rows.
    pub(crate) is_right: bool,
    /// Whether its leaves are those of its rows.
    pub(crate) leaves_right: bool,
    /// Rows looked at.
    pub(crate) rows: u64,
    /// Rows whose entry hash is not that of their contents: id, the hash, that of the contents. The first of them.
    pub(crate) mismatches: Vec<(String, String, String)>,
    pub(crate) mismatch_count: u64,
    /// Rows with values in columns that the seal does not cover, which are no mismatches. The first of them.
    pub(crate) excess_ids: Vec<String>,
    pub(crate) excess_count: u64,
}

/// A statement that recomputes a seal.
struct SealStatement {
    statement: Statement<'static>,
    missing_columns: Vec<String>,
}

impl SealStatement {
    /// `sql` for the seal `sequence` of `month`; `None` when it is gone.
    async fn load(client: &impl GenericClient, sql: &'static str, month: Month, sequence: i32) -> Result<Option<Self>> {
        const NO_ROWS: &str = "SELECT NULL::text AS id, NULL::timestamp AS \"createdAt\", NULL::bigint AS ledger, \
             NULL::bytea AS proof, false AS has_excess WHERE false";
        const RESTORED: &str = r#"SELECT id, "createdAt", NULL::bigint AS ledger, digest FROM "ArchiveRemoval"
            WHERE month = :month AND sequence = :sequence"#;
        const REMOVED: &str = r#"SELECT id, "createdAt", NULL::bigint AS ledger, digest FROM "ArchiveRemoval"
            WHERE month = :month
              AND "archivedAt" > COALESCE((SELECT "archivedAfter" FROM seal), '-infinity')
              AND "archivedAt" <= (SELECT "archivedAt" FROM seal)"#;
        const LEFT: &str = r#"(SELECT * FROM "ArchiveRemoval" WHERE month = :month AND sequence = :sequence) removal"#;
        let row = client
            .query_typed_opt(
                r#"SELECT kind, columns, "presentColumns" FROM "ArchiveSeal" WHERE month = $1 AND sequence = $2"#,
                &[(&month.to_string(), Type::TEXT), (&sequence, Type::INT4)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let statement = Statement::new(sql)
            .fragment("digest_rows", digest_rows("sealed"))
            .fragment("digest_removals", digest_removals(LEFT));
        if row.try_get::<_, &str>("kind")? == "restored" {
            let statement = statement.fragment("present", NO_ROWS).fragment("removed", RESTORED);
            return Ok(Some(Self { statement, missing_columns: Vec::new() }));
        }
        let statement = statement.fragment("removed", REMOVED);
        let form = RowForm::renamed(row.try_get("columns")?, row.try_get("presentColumns")?);
        let archive = list_archive_columns(client).await?;
        let missing_columns: Vec<_> =
            form.present_columns().filter(|column| !archive.contains(column)).cloned().collect();
        if !missing_columns.is_empty() {
            return Ok(Some(Self { statement: statement.fragment("present", NO_ROWS), missing_columns }));
        }
        let excess = archive.iter().filter(|column| !form.present_columns().any(|sealed| sealed == *column));
        let excess: Vec<_> = excess.map(|column| format!("{} IS NOT NULL", quote(column))).collect();
        let has_excess = if excess.is_empty() { "false".into() } else { format!("({})", excess.join(" OR ")) };
        let statement = statement
            .fragment("present", include_str!("sql/verify_seal_present.sql"))
            .fragment("proof_columns", form.proof_columns(""))
            .fragment("has_excess", has_excess)
            .fragment("partition", rows_of(client, month).await?);
        Ok(Some(Self { statement, missing_columns }))
    }
}

/// Recomputes a seal of a month; `None` when it is gone.
///
/// # Errors
///
/// [`Error::ArchiveColumnsDiffer`] when the archive has lost columns that the seal covers.
pub(crate) async fn recompute_seal(
    client: &impl GenericClient,
    month: Month,
    sequence: i32,
) -> Result<Option<RecomputedSeal>> {
    let sql = include_str!("sql/verify_seal.sql");
    let Some(SealStatement { statement, missing_columns }) = SealStatement::load(client, sql, month, sequence).await?
    else {
        return Ok(None);
    };
    if !missing_columns.is_empty() {
        let columns = missing_columns.iter().map(|column| format!("{column} is missing")).collect();
        return Err(Error::ArchiveColumnsDiffer { columns });
    }
    let row = statement
        .bind("month", &month.to_string(), Type::TEXT)
        .bind("sequence", &sequence, Type::INT4)
        .bind("limit", &MAX_NAMED, Type::INT8)
        .query_opt(client)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(RecomputedSeal {
        is_right: row.try_get("is_right")?,
        leaves_right: row.try_get("leaves_right")?,
        rows: row.try_get::<_, i64>("rows")?.unsigned_abs(),
        mismatches: decode_json(&row, "mismatches")?,
        mismatch_count: row.try_get::<_, i64>("mismatch_count")?.unsigned_abs(),
        excess_ids: row.try_get("excess_ids")?,
        excess_count: row.try_get::<_, i64>("excess_count")?.unsigned_abs(),
    }))
}

/// Where a seal and its rows differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SealDifference {
    /// Rows that the seal has, by their place in it, from 1, and that are not there as they were. The first of them.
    pub(crate) sealed: Vec<i64>,
    /// Rows that the seal has not: where they are among the rows, from 1, and their ids. The first of them.
    pub(crate) present: Vec<(i64, String)>,
    /// How many differences that makes: a row in the place of another is one.
    pub(crate) count: u64,
    /// Rows whose entry hash is not that of their contents, among those that are as they were archived.
    pub(crate) mismatch_count: u64,
}

/// Compares a seal with its rows, one by one.
pub(crate) async fn diff_seal(client: &impl GenericClient, month: Month, sequence: i32) -> Result<SealDifference> {
    let sql = include_str!("sql/diff_seal.sql");
    let Some(SealStatement { statement, .. }) = SealStatement::load(client, sql, month, sequence).await? else {
        return Ok(SealDifference::default());
    };
    let month = month.to_string();
    let seal: [Parameter<'_>; 2] = [("month", &month, Type::TEXT), ("sequence", &sequence, Type::INT4)];
    let leaves = r#"SELECT leaves FROM "ArchiveSeal" WHERE month = :month AND sequence = :sequence"#;
    let leaves = Statement::new(leaves).bind_all(seal.clone()).query_one(client).await?;
    let leaves: Vec<u8> = leaves.try_get("leaves")?;
    let row = statement
        .bind_all(seal)
        .bind("leaves", &leaves, Type::BYTEA)
        .bind("limit", &MAX_NAMED, Type::INT8)
        .query_one(client)
        .await?;
    let places: Vec<i64> = row.try_get("present_places")?;
    let ids: Vec<String> = row.try_get("present_ids")?;
    Ok(SealDifference {
        sealed: row.try_get("sealed_places")?,
        present: places.into_iter().zip(ids).collect(),
        count: row.try_get::<_, i64>("differences")?.unsigned_abs(),
        mismatch_count: row.try_get::<_, i64>("mismatch_count")?.unsigned_abs(),
    })
}

/// What no single seal of a month shows: of each kind the first, and how many.
#[derive(Debug)]
pub(crate) struct MonthCheck {
    /// Sequences without seal.
    pub(crate) missing: Vec<i32>,
    /// Seals after the last that the end of the chain knows.
    pub(crate) beyond: Vec<i32>,
    /// Whether the end of the chain is the last seal.
    pub(crate) is_end_right: bool,
    /// Rows that no seal seals.
    pub(crate) unsealed_ids: Vec<String>,
    /// Rows that are said to have left without a seal that says so.
    pub(crate) unexplained_ids: Vec<String>,
    /// How many all of these are.
    pub(crate) count: u64,
}

/// Checks a month's chain as a whole.
pub(crate) async fn check_month(client: &impl GenericClient, month: Month) -> Result<MonthCheck> {
    let row = Statement::new(include_str!("sql/check_month.sql"))
        .fragment("partition", rows_of(client, month).await?)
        .bind("month", &month.to_string(), Type::TEXT)
        .bind("limit", &MAX_NAMED, Type::INT8)
        .query_one(client)
        .await?;
    let mut count = 0;
    for name in ["missing_count", "beyond_count", "unsealed_count", "unexplained_count"] {
        count += row.try_get::<_, i64>(name)?.unsigned_abs();
    }
    Ok(MonthCheck {
        missing: row.try_get("missing")?,
        beyond: row.try_get("beyond")?,
        is_end_right: row.try_get("end_right")?,
        unsealed_ids: row.try_get("unsealed_ids")?,
        unexplained_ids: row.try_get("unexplained_ids")?,
        count,
    })
}

/// Partitions of the archive that are not what the service makes for a month: name and bounds.
pub(crate) async fn list_foreign_partitions(client: &impl GenericClient) -> Result<Vec<(String, String)>> {
    let rows = Statement::new(include_str!("sql/list_foreign_partitions.sql")).query(client).await?;
    rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("bounds")?))).collect()
}

/// Rows whose parent is nowhere.
#[derive(Debug, Default)]
pub(crate) struct Unlinked {
    pub(crate) count: u64,
    /// The first of them: id and `parent_hash`.
    pub(crate) named: Vec<(String, String)>,
}

/// Rows of a month of the archive, or of `EventLog`, whose parent is no row of either table.
pub(crate) async fn list_unlinked(
    client: &impl GenericClient,
    month: Option<Month>,
    stream: Option<&[ContractId]>,
) -> Result<Unlinked> {
    let archive = RowForm::load(client).await?;
    let columns = list_typed_columns_of(client, "EventLog").await?;
    let log = RowForm::new(columns.into_iter().map(|(name, _)| name).collect());
    if !archive.has_entry_hashes() || !log.has_entry_hashes() {
        return Ok(Unlinked::default());
    }
    let rows = match month {
        Some(month) => rows_of(client, month).await?,
        None => r#""EventLog""#.into(),
    };
    let unlinked = find_unlinked(client, &rows, stream, MAX_FOLLOWED + 1).await?;
    if unlinked.is_empty() {
        return Ok(Unlinked::default());
    }
    // A parent that row security hides is not missing.
    let is_filtered = r#"SELECT row_security_active('"EventLog"'::regclass) AS is_filtered"#;
    let is_filtered = client.query_typed_one(is_filtered, &[]).await?.try_get("is_filtered")?;
    host::refuse_hidden_logs(client, is_filtered).await?;
    if unlinked.len() > usize::try_from(MAX_FOLLOWED).unwrap_or(usize::MAX) {
        return count_unlinked(client, month, &rows, stream).await;
    }
    let named = follow(client, month, unlinked).await?;
    Ok(Unlinked { count: named.len() as u64, named })
}

/// Looks all links up as one statement, however many they are.
async fn count_unlinked(
    client: &impl GenericClient,
    month: Option<Month>,
    rows: &str,
    stream: Option<&[ContractId]>,
) -> Result<Unlinked> {
    let statement = Statement::new(include_str!("sql/count_unlinked.sql"));
    let statement = match month {
        Some(month) => statement
            .fragment("unverifiable", include_str!("sql/list_unverifiable.sql"))
            .fragment("before", rows_of(client, month.previous()).await?),
        None => statement.fragment("unverifiable", "SELECT NULL::text WHERE false"),
    };
    let row = statement
        .fragment("rows", rows)
        .fragment("of_stream", is_of_stream("r", stream))
        .bind("contract_ids", &stream.map(texts), Type::TEXT_ARRAY)
        .bind("limit", &MAX_NAMED, Type::INT8)
        .query_one(client)
        .await?;
    let (ids, parents): (Vec<String>, Vec<String>) = (row.try_get("ids")?, row.try_get("parents")?);
    Ok(Unlinked {
        count: row.try_get::<_, i64>("count")?.unsigned_abs(),
        named: ids.into_iter().zip(parents).collect(),
    })
}

/// Leaves of `unlinked` those whose parent is nowhere. Looks where parents usually are first: in the month before, then in
/// `EventLog`, then in all the archive.
async fn follow(
    client: &impl GenericClient,
    month: Option<Month>,
    mut unlinked: Vec<(String, String)>,
) -> Result<Vec<(String, String)>> {
    if let Some(month) = month {
        let before = Statement::new("SELECT entry_hash FROM :before p WHERE entry_hash = ANY (:hashes)")
            .fragment("before", rows_of(client, month.previous()).await?);
        remove_found(client, before, &mut unlinked).await?;
    }
    let hot = Statement::new(r#"SELECT entry_hash FROM "EventLog" WHERE entry_hash = ANY (:hashes)"#);
    remove_found(client, hot, &mut unlinked).await?;
    let dropped = r#"SELECT "entryHash" FROM "MaintenanceFinding"
        WHERE kind = 'duplicate_dropped' AND "entryHash" = ANY (:hashes)"#;
    remove_found(client, Statement::new(dropped), &mut unlinked).await?;
    if let Some(month) = month.filter(|_| !unlinked.is_empty()) {
        let unverifiable = Statement::new(include_str!("sql/find_unverifiable.sql"))
            .fragment("rows", rows_of(client, month).await?)
            .fragment("before", rows_of(client, month.previous()).await?);
        remove_found(client, unverifiable, &mut unlinked).await?;
    }
    let archived = Statement::new(r#"SELECT entry_hash FROM "StreamArchive" WHERE entry_hash = ANY (:hashes)"#);
    remove_found(client, archived, &mut unlinked).await?;
    Ok(unlinked)
}

/// Removes from `unlinked` those whose parent's hash `statement` finds among `:hashes`.
async fn remove_found(
    client: &impl GenericClient,
    statement: Statement<'_>,
    unlinked: &mut Vec<(String, String)>,
) -> Result<()> {
    if unlinked.is_empty() {
        return Ok(());
    }
    let hashes: Vec<&str> = unlinked.iter().map(|(_, parent)| parent.as_str()).collect();
    let rows = statement.bind("hashes", &hashes, Type::TEXT_ARRAY).query(client).await?;
    let found: HashSet<String> = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<_>>()?;
    unlinked.retain(|(_, parent)| !found.contains(parent));
    Ok(())
}

async fn find_unlinked(
    client: &impl GenericClient,
    rows: &str,
    stream: Option<&[ContractId]>,
    limit: i64,
) -> Result<Vec<(String, String)>> {
    let rows = Statement::new(include_str!("sql/find_unlinked.sql"))
        .fragment("rows", rows)
        .fragment("of_stream", is_of_stream("r", stream))
        .bind("contract_ids", &stream.map(texts), Type::TEXT_ARRAY)
        .bind("limit", &limit, Type::INT8)
        .query(client)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("parent_hash")?))).collect()
}

/// SQL that is true of the row `alias` of the stream that the verification is limited to, if it is; its contract ids are
/// `:contract_ids`.
fn is_of_stream(alias: &str, stream: Option<&[ContractId]>) -> String {
    stream.map_or("true".into(), |contract_ids| has_contract_id(alias, ":contract_ids", contract_ids))
}

/// A batch of the rows of `EventLog`, recomputed.
#[derive(Debug)]
pub(crate) struct RecomputedLogs {
    pub(crate) rows: u64,
    /// The last of them; `None` when there was none.
    pub(crate) last: Option<LogPosition>,
    /// As of [`RecomputedSeal`].
    pub(crate) mismatches: Vec<(String, String, String)>,
    pub(crate) mismatch_count: u64,
}

/// Recomputes the entry hashes of the next rows of `EventLog`.
pub(crate) async fn recompute_logs(
    client: &impl GenericClient,
    after: &LogPosition,
    stream: Option<&[ContractId]>,
    limit: i64,
) -> Result<RecomputedLogs> {
    let columns = list_typed_columns_of(client, "EventLog").await?;
    let id_type = columns.iter().find(|(name, _)| name == "id").map_or("text", |(_, id_type)| id_type).to_owned();
    let form = RowForm::new(columns.into_iter().map(|(name, _)| name).collect());
    let row = Statement::new(include_str!("sql/recompute_logs.sql"))
        .fragment("id_type", id_type)
        .fragment("entry_hash", form.entry_hash(""))
        .fragment("content_hash", form.content_hash(""))
        .fragment("of_stream", is_of_stream("e", stream))
        .bind("after_created_at", &after.created_at, Type::TIMESTAMP)
        .bind("after_id", &after.id, Type::TEXT)
        .bind("contract_ids", &stream.map(texts), Type::TEXT_ARRAY)
        .bind("limit", &limit, Type::INT8)
        .bind("named", &MAX_NAMED, Type::INT8)
        .query_one(client)
        .await?;
    host::refuse_hidden_logs(client, row.try_get("is_filtered")?).await?;
    let created_at: Option<NaiveDateTime> = row.try_get("last_created_at")?;
    Ok(RecomputedLogs {
        rows: row.try_get::<_, i64>("rows")?.unsigned_abs(),
        last: match created_at {
            Some(created_at) => Some(LogPosition { created_at, id: row.try_get("last_id")? }),
            None => None,
        },
        mismatches: decode_json(&row, "mismatches")?,
        mismatch_count: row.try_get::<_, i64>("mismatch_count")?.unsigned_abs(),
    })
}
