use std::pin::pin;

use chrono::{DateTime, NaiveDateTime, Utc};
use futures_util::TryStreamExt;
use seal::{
    Digest, EntryHash, LinkTracker, Mismatch, Places, RowForm, RowHasher, SealDifference, SealHeader, SealedLeaves,
    SealedRows, removal_digest, sha256,
};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row, RowStream};
use uuid::Uuid;

use super::archive_columns::{list_archive_columns, list_typed_columns_of};
use super::decode::{bigint, decode, decode_json};
use super::event_log::LogPosition;
use super::host;
use super::partitions::{has_partition, partition_name};
use super::row_texts::{names_of, read_texts, texts_of};
use super::seals::{FIRST_TEXT, IN_ORDER, REMOVAL};
use super::statement::Statement;
use super::stream_identity::{has_contract_id, texts};
use crate::error::{Error, Result};
use crate::model::{
    Break, ContractId, Finding, MAX_REPORTED_BREAKS, Month, Verification, VerificationRequest, VerificationStatus,
};

/// Most rows or seals that one statement names.
pub(crate) const MAX_NAMED: usize = 1_000;
/// Most rows of a seal that the program sorts: what it keeps of each is some hundred bytes. Only rows of one instant make a larger seal.
const MAX_SORTED: usize = 100_000;

const COLUMNS: &str = r#"SELECT id, month, "streamId", "isFull", status, "rowsTotal", "rowsDone", "sealsDone", breaks,
    "breakCount", findings, "findingCount", "completedByHost", "startedAt", "updatedAt", "finishedAt" FROM "ArchiveVerification""#;

/// A part of a verification: what one or a few statements look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// What the archive consists of.
    Partitions,
    /// A seal of a month's chain.
    Seal(Month, i32),
    /// What no single seal of the month shows.
    Month(Month),
    /// The links of the month's rows. It is done unless a seal opens it, whose rows have parents elsewhere.
    Links(Month),
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
            Self::Links(_) => "links",
            Self::Logs(_) => "logs",
            Self::LogLinks => "log_links",
        }
    }

    fn parse(row: &Row) -> Result<Self> {
        Ok(match row.try_get("kind")? {
            "partitions" => Self::Partitions,
            "seal" => Self::Seal(decode(row, "month")?, row.try_get("sequence")?),
            "month" => Self::Month(decode(row, "month")?),
            "links" => Self::Links(decode(row, "month")?),
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
    /// How much there is of the host's that was not right when it was archived, or is not in `EventLog`.
    pub(crate) finding_count: u64,
    /// The first of it.
    pub(crate) findings: Vec<Finding>,
    /// Rows whose hash is that of what they were before the host completed them.
    pub(crate) completed_by_host: u64,
    /// A month whose links are to be looked at.
    pub(crate) opens_links: Option<Month>,
}

impl Outcome {
    /// With `breaks`, which are all.
    pub(crate) fn new(rows: u64, seals: u64, breaks: Vec<Break>) -> Self {
        Self { rows, seals, break_count: breaks.len() as u64, breaks, ..Self::default() }
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
                Task::Month(month) | Task::Links(month) => (Some(month.to_string()), None),
                _ => (None, None),
            })
            .unzip();
        client
            .execute_typed(
                // Of a stream, only some seals are looked at: its links are looked at in any case.
                r#"INSERT INTO "VerificationTask" ("verificationId", place, kind, month, sequence, done)
                   SELECT $1, place, kind, month, sequence, kind = 'links' AND $5
                   FROM unnest($2, $3, $4) WITH ORDINALITY task (kind, month, sequence, place)"#,
                &[
                    (&id, Type::UUID),
                    (&kinds, Type::TEXT_ARRAY),
                    (&months, Type::TEXT_ARRAY),
                    (&sequences, Type::INT4_ARRAY),
                    (&request.stream.is_none(), Type::BOOL),
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
    let findings = serde_json::to_value(outcome.findings.iter().take(MAX_REPORTED_BREAKS).collect::<Vec<_>>());
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
        .bind("finding_count", &bigint(outcome.finding_count), Type::INT8)
        .bind("findings", &findings.map_err(Error::Serialize)?, Type::JSONB)
        .bind("completed_by_host", &bigint(outcome.completed_by_host), Type::INT8)
        .bind("opens_links", &outcome.opens_links.map(|month| month.to_string()), Type::TEXT)
        .bind("most_kept", &bigint(MAX_REPORTED_BREAKS as u64), Type::INT8)
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
    let mut findings: Vec<Finding> = decode_json(row, "findings")?;
    // Workers find them in any order.
    breaks.sort_by_key(|found| (found.month.is_none(), found.month, found.sequence.is_none(), found.sequence));
    findings.sort_by_key(|found| (found.month.is_none(), found.month));
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
        finding_count: number("findingCount")?,
        findings,
        completed_by_host: number("completedByHost")?,
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
pub(super) async fn rows_of(client: &impl GenericClient, month: Month) -> Result<String> {
    if has_partition(client, month).await? {
        return Ok(partition_name(month));
    }
    Ok(r#"(SELECT * FROM "StreamArchive" WHERE false)"#.into())
}

/// What recomputing a seal has shown.
#[derive(Debug, Default)]
pub(crate) struct RecomputedSeal {
    /// Whether its digest is that of the seal and its rows.
    pub(crate) is_right: bool,
    /// Whether its leaves are those of its rows.
    pub(crate) leaves_right: bool,
    /// Where its rows are not those that were sealed, if its digest is wrong.
    pub(crate) difference: SealDifference,
    /// Rows looked at.
    pub(crate) rows: u64,
    /// Rows that are as they were archived, and whose entry hash is not that of their contents.
    pub(crate) mismatches: Mismatches,
    /// Rows that are as they were archived, and whose hash is that of what they were before the host completed them.
    pub(crate) completed_by_host: u64,
    /// Parents that are not among its rows, one for each row.
    pub(crate) unlinked: Vec<String>,
    /// Rows with values in columns that the seal does not cover. The first of them.
    pub(crate) excess_ids: Vec<String>,
    pub(crate) excess_count: u64,
}

/// Rows whose entry hash is not that of their contents.
#[derive(Debug, Default)]
pub(crate) struct Mismatches {
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) named: Vec<Mismatch>,
}

impl Mismatches {
    fn add(&mut self, id: &str, entry_hash: Option<&str>, computed: &str) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            let (entry_hash, computed) = (entry_hash.unwrap_or_default().to_owned(), computed.to_owned());
            self.named.push(Mismatch { id: id.to_owned(), entry_hash, computed });
        }
    }
}

/// A seal as the database has it.
struct StoredSeal {
    header: SealHeader,
    form: RowForm,
    digest: Vec<u8>,
    leaves: Vec<u8>,
    /// Of the seal before; `None` when that is gone.
    previous: Option<Vec<u8>>,
}

impl StoredSeal {
    async fn find(client: &impl GenericClient, month: Month, sequence: i32) -> Result<Option<Self>> {
        let row = Statement::new(include_str!("sql/find_seal.sql"))
            .bind("month", &month.to_string(), Type::TEXT)
            .bind("sequence", &sequence, Type::INT4)
            .query_opt(client)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let columns: Vec<String> = row.try_get("columns")?;
        let previous = row.try_get("previous")?;
        Ok(Some(Self {
            header: SealHeader {
                month: row.try_get("month")?,
                sequence: row.try_get("sequence")?,
                kind: row.try_get("kind")?,
                run: row.try_get("runId")?,
                rows: row.try_get("rows")?,
                first_created_at: row.try_get("firstCreatedAt")?,
                first_id: row.try_get("firstId")?,
                last_created_at: row.try_get("lastCreatedAt")?,
                last_id: row.try_get("lastId")?,
                archived_after: row.try_get("archivedAfter")?,
                archived_at: row.try_get("archivedAt")?,
                min_ledger: row.try_get("minLedger")?,
                max_ledger: row.try_get("maxLedger")?,
                columns: columns.clone(),
            },
            form: RowForm::renamed(columns, row.try_get("presentColumns")?),
            digest: row.try_get("digest")?,
            leaves: row.try_get("leaves")?,
            previous: if sequence == 1 { Some(sha256(&[month.to_string().as_bytes()]).into()) } else { previous },
        }))
    }

    fn is_of_restore(&self) -> bool {
        self.header.kind == "restored"
    }

    /// Goes through the rows of the seal, those that are there, and those that have left it since; in `order`.
    async fn each_row(
        &self,
        client: &impl GenericClient,
        month: Month,
        columns: &[String],
        order: &'static str,
        mut visit: impl FnMut(&SeenRow<'_>),
    ) -> Result<()> {
        if self.is_of_restore() {
            let mut rows = pin!(self.list_removals(client).await?);
            while let Some(row) = rows.try_next().await? {
                let text = |name: &str| -> Result<&str> { Ok(row.try_get(name)?) };
                let (id, created_at, digest) = (text("id")?, text("createdAt")?, row.try_get("digest")?);
                visit(&SeenRow::gone(created_at, id, removal_digest(text("archivedAt")?, id, created_at, digest)));
            }
            return Ok(());
        }
        let mut hasher = RowHasher::new(&self.form, columns);
        let places = Places::new(columns);
        let mut rows = pin!(self.list_rows(client, month, columns, order).await?);
        while let Some(row) = rows.try_next().await? {
            let texts = read_texts(&row, FIRST_TEXT)?;
            let id = places.id(&texts);
            if let Some(removal) = row.try_get::<_, Option<&[u8]>>(REMOVAL)? {
                // Of another length only when somebody changed it.
                visit(&SeenRow::gone(places.created_at(&texts), id, removal.try_into().unwrap_or_default()));
                continue;
            }
            let (digest, state) = hasher.hash(&texts);
            visit(&SeenRow {
                created_at: places.created_at(&texts),
                id,
                digest,
                state,
                parent_hash: places.parent_hash(&texts),
                entry_hash: places.entry_hash(&texts),
                has_excess: hasher.has_excess(&texts),
            });
        }
        Ok(())
    }

    async fn list_rows(
        &self,
        client: &impl GenericClient,
        month: Month,
        columns: &[String],
        order: &'static str,
    ) -> Result<RowStream> {
        let text_of_removed = |column: &String| match column.as_str() {
            "id" => ", r.id",
            "createdAt" => r#", r."createdAt"::text"#,
            _ => ", NULL::text",
        };
        let removed = format!(
            r#"UNION ALL SELECT r.digest, r."createdAt", r.id{} FROM "ArchiveRemoval" r WHERE r.month = :month
               AND r."archivedAt" > COALESCE(CAST(:archived_after AS timestamp), '-infinity')
               AND r."archivedAt" <= CAST(:archived_at AS timestamp)"#,
            columns.iter().map(text_of_removed).collect::<String>()
        );
        let rows = Statement::new(include_str!("sql/list_sealed_rows.sql"))
            .fragment("texts", texts_of(columns, "a."))
            .fragment("names", names_of(columns.len()))
            .fragment("partition", rows_of(client, month).await?)
            .fragment("removed", removed)
            .fragment("order", order)
            .bind("month", &self.header.month, Type::TEXT)
            .bind("archived_after", &self.header.archived_after, Type::TEXT)
            .bind("archived_at", &self.header.archived_at, Type::TEXT)
            .query_stream(client)
            .await?;
        Ok(rows)
    }

    async fn list_removals(&self, client: &impl GenericClient) -> Result<RowStream> {
        let rows = Statement::new(include_str!("sql/list_removals.sql"))
            .bind("month", &self.header.month, Type::TEXT)
            .bind("sequence", &self.header.sequence, Type::INT4)
            .query_stream(client)
            .await?;
        Ok(rows)
    }
}

/// A row of a seal.
struct SeenRow<'a> {
    created_at: &'a str,
    id: &'a str,
    digest: Digest,
    state: EntryHash,
    parent_hash: Option<&'a str>,
    entry_hash: Option<&'a str>,
    /// Whether it has a value in a column that the seal does not cover.
    has_excess: bool,
}

impl<'a> SeenRow<'a> {
    /// A row that has left the archive.
    fn gone(created_at: &'a str, id: &'a str, digest: Digest) -> Self {
        let state = EntryHash::Absent;
        Self { created_at, id, digest, state, parent_hash: None, entry_hash: None, has_excess: false }
    }
}

impl RecomputedSeal {
    /// Counts what is odd about a row that is as it was archived.
    fn count(&mut self, row: &SeenRow<'_>) {
        if row.has_excess {
            self.excess_count += 1;
            if self.excess_ids.len() < MAX_NAMED {
                self.excess_ids.push(row.id.to_owned());
            }
            return;
        }
        match &row.state {
            EntryHash::Absent | EntryHash::Right => {}
            EntryHash::CompletedByHost => self.completed_by_host += 1,
            EntryHash::Wrong { computed } => self.mismatches.add(row.id, row.entry_hash, computed),
        }
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
    let Some(seal) = StoredSeal::find(client, month, sequence).await? else { return Ok(None) };
    let columns = list_archive_columns(client).await?;
    let missing: Vec<_> = seal.form.present_columns().filter(|column| !columns.contains(column)).collect();
    if !seal.is_of_restore() && !missing.is_empty() {
        let columns = missing.iter().map(|column| format!("{column} is missing")).collect();
        return Err(Error::ArchiveColumnsDiffer { columns });
    }
    let mut told = RecomputedSeal::default();
    let (mut rows, mut unsorted, mut links) = (SealedRows::default(), Vec::new(), LinkTracker::default());
    // The program sorts as many as it can keep. They come in order, or nearly so.
    let is_sorted = seal.is_of_restore() || seal.header.rows > bigint(MAX_SORTED as u64);
    let look = |row: &SeenRow<'_>| {
        told.count(row);
        links.add(row.parent_hash, row.entry_hash);
        if is_sorted {
            rows.push_digest(&row.digest);
        } else if unsorted.len() <= MAX_SORTED {
            unsorted.push((row.created_at.to_owned(), row.id.to_owned(), row.digest));
        }
    };
    seal.each_row(client, month, &columns, if is_sorted { IN_ORDER } else { "" }, look).await?;
    if unsorted.len() > MAX_SORTED {
        // Rows were added.
        seal.each_row(client, month, &columns, IN_ORDER, |row| rows.push_digest(&row.digest)).await?;
    } else {
        unsorted.sort_unstable();
        for (_, _, digest) in &unsorted {
            rows.push_digest(digest);
        }
    }
    let is_after = |previous: &Vec<u8>| seal.header.digest(previous, &rows.digest())[..] == seal.digest[..];
    told.is_right = seal.previous.as_ref().is_some_and(is_after);
    if !told.is_right {
        // Once more, to tell which rows are not what was archived.
        told = RecomputedSeal::default();
        let mut leaves = SealedLeaves::new(&seal.leaves, MAX_NAMED);
        let compare = |row: &SeenRow<'_>| {
            if leaves.add(row.id, &row.digest) || row.has_excess {
                told.count(row);
            }
        };
        seal.each_row(client, month, &columns, IN_ORDER, compare).await?;
        told.difference = leaves.finish();
    }
    told.unlinked = links.unlinked();
    told.rows = rows.count();
    told.leaves_right = rows.leaves() == seal.leaves;
    Ok(Some(told))
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
        .bind("limit", &bigint(MAX_NAMED as u64), Type::INT8)
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

/// SQL that is true of the row `alias` of the stream that the verification is limited to, if it is; its contract ids are
/// `:contract_ids`.
pub(super) fn is_of_stream(alias: &str, stream: Option<&[ContractId]>) -> String {
    stream.map_or("true".into(), |contract_ids| has_contract_id(alias, ":contract_ids", contract_ids))
}

/// A batch of the rows of `EventLog`, recomputed.
#[derive(Debug, Default)]
pub(crate) struct RecomputedLogs {
    pub(crate) rows: u64,
    /// The last of them; `None` when there was none.
    pub(crate) last: Option<LogPosition>,
    pub(crate) mismatches: Mismatches,
    pub(crate) completed_by_host: u64,
}

/// Recomputes the entry hashes of the next rows of `EventLog`.
pub(crate) async fn recompute_logs(
    client: &impl GenericClient,
    after: &LogPosition,
    stream: Option<&[ContractId]>,
    limit: i64,
) -> Result<RecomputedLogs> {
    host::refuse_hidden_logs(client, host::are_logs_filtered(client).await?).await?;
    let columns = list_typed_columns_of(client, "EventLog").await?;
    let id_type = columns.iter().find(|(name, _)| name == "id").map_or("text", |(_, id_type)| id_type).to_owned();
    let columns: Vec<_> = columns.into_iter().map(|(name, _)| name).collect();
    let rows = Statement::new(include_str!("sql/list_logs.sql"))
        .fragment("id_type", id_type)
        .fragment("texts", texts_of(&columns, "e."))
        .fragment("of_stream", is_of_stream("e", stream))
        .bind("after_created_at", &after.created_at, Type::TIMESTAMP)
        .bind("after_id", &after.id, Type::TEXT)
        .bind("contract_ids", &stream.map(texts), Type::TEXT_ARRAY)
        .bind("limit", &limit, Type::INT8)
        .query_stream(client)
        .await?;
    let mut rows = pin!(rows);
    let mut hasher = RowHasher::new(&RowForm::new(columns.clone()), &columns);
    let places = Places::new(&columns);
    let mut told = RecomputedLogs::default();
    let mut last = None;
    while let Some(row) = rows.try_next().await? {
        let texts = read_texts(&row, FIRST_LOG_TEXT)?;
        match hasher.check_entry_hash(&texts) {
            EntryHash::Absent | EntryHash::Right => {}
            EntryHash::CompletedByHost => told.completed_by_host += 1,
            EntryHash::Wrong { computed } => {
                told.mismatches.add(row.try_get("id")?, places.entry_hash(&texts), &computed);
            }
        }
        told.rows += 1;
        last = Some(row);
    }
    if let Some(row) = last {
        told.last = Some(LogPosition { created_at: row.try_get("created_at")?, id: row.try_get("id")? });
    }
    Ok(told)
}

/// Where the texts of list_logs.sql begin.
const FIRST_LOG_TEXT: usize = 2;
