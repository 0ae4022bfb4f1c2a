use std::collections::BTreeSet;
use std::pin::pin;

use chrono::NaiveDateTime;
use futures_util::TryStreamExt;
use seal::{Places, RowForm, SealedRow, SealedRows, Texts, removal_digest};
use serde::Deserialize;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};
use tracing::debug;
use uuid::Uuid;

use super::archive_columns::{MirroredColumns, quote, quote_literal};
use super::decode::{decode, decode_json, unreadable};
use super::event_log::LogPosition;
use super::former::FormerArchive;
use super::holds::{self, HELD_STREAMS};
use super::leases::MonthLease;
use super::partitions::{list_partitions, partition_name};
use super::row_texts::{read_texts, texts_of};
use super::seals::{self, Seal, SealChain, SealedHashers};
use super::statement::Statement;
use super::stream_identity::has_contract_id;
use crate::error::{Error, HostFinding, Result, Retry};
use crate::model::{ConflictDetail, MAX_REPORTED_IDS, Month, RestorableMonth, RestoreTarget};

/// SQL that is true when the archived row `a` matches what is restored, by the names that [`Matching`] binds. All rows of a seal have
/// its "archivedAt".
fn matches(target: &RestoreTarget) -> String {
    let of_stream = match target.contract_ids() {
        Some(contract_ids) => has_contract_id("a", ":contract_ids", &contract_ids),
        None => ":contract_ids::text[] IS NULL".into(),
    };
    format!("{of_stream} AND {MATCHES}")
}

/// The same without the contract ids.
const MATCHES: &str = r#"(:from IS NULL OR a."createdAt" >= :from)
    AND (:to IS NULL OR a."createdAt" < :to)
    AND (:of_run IS NULL OR a."archivedAt" IN (
        SELECT s."archivedAt" FROM "ArchiveSeal" s WHERE s.month = :month AND s."runId" = :of_run AND s.kind <> 'restored'))"#;

/// The look-up of a row of `EventLog` with the same event as the archived row `w`.
const SAME_EVENT: &str = r#"SELECT true AS yes FROM "EventLog" e
    WHERE e."txHash" = w."txHash" AND e."eventIndex" = w."eventIndex" LIMIT 1"#;

/// Pages of a partition that one batch reads at most, some 400 MB: where rows have left, there may be many without any.
const MAX_PAGES: u64 = 50_000;

/// How often rows that `EventLog` refuses are looked for in one batch: the host may write others that are in the way meanwhile.
const MAX_SEARCHES: u32 = 5;

/// Tables of the service that a batch writes: what they refuse is no matter of the rows.
const OWN_TABLES: [&str; 4] = ["ArchiveMonth", "ArchiveSeal", "ArchiveRemoval", "RestoredLog"];

/// The parameters of [`MATCHES`].
struct Matching {
    contract_ids: Option<Vec<String>>,
    from: Option<NaiveDateTime>,
    to: Option<NaiveDateTime>,
    run: Option<Uuid>,
    month: String,
}

impl Matching {
    fn new(target: &RestoreTarget, month: Month) -> Self {
        Self {
            contract_ids: target.contract_ids().map(|ids| ids.into_iter().map(|contract_id| contract_id.id).collect()),
            from: target.from.map(|time| time.naive_utc()),
            to: target.to.map(|time| time.naive_utc()),
            run: target.run,
            month: month.to_string(),
        }
    }

    fn bind<'a>(&'a self, statement: Statement<'a>) -> Statement<'a> {
        statement
            .bind("contract_ids", &self.contract_ids, Type::TEXT_ARRAY)
            .bind("from", &self.from, Type::TIMESTAMP)
            .bind("to", &self.to, Type::TIMESTAMP)
            .bind("of_run", &self.run, Type::UUID)
            .bind("month", &self.month, Type::TEXT)
    }
}

/// Months of the archive in which rows can match, oldest first.
pub(crate) async fn list_months(transaction: &Transaction<'_>, target: &RestoreTarget) -> Result<Vec<Month>> {
    let mut months = list_partitions(transaction).await?;
    months.retain(|month| target.overlaps(*month));
    if let Some(run) = target.run {
        let sql = r#"SELECT DISTINCT month FROM "ArchiveSeal" WHERE "runId" = $1 AND kind <> 'restored'"#;
        let rows = transaction.query_typed(sql, &[(&run, Type::UUID)]).await?;
        let of_run: BTreeSet<Month> = rows.iter().map(|row| decode(row, "month")).collect::<Result<_>>()?;
        months.retain(|month| of_run.contains(month));
    }
    Ok(months)
}

/// Counts the rows of `month` that match.
///
/// # Errors
///
/// [`Error::NotRestorable`] when one of them has a value that `EventLog` has no column for.
pub(crate) async fn check_month(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    form: &RowForm,
    target: &RestoreTarget,
    month: Month,
) -> Result<u64> {
    let statement = format!(
        r"SELECT count(*) AS rows, {} AS lost_columns FROM {} a WHERE {}",
        columns_with("IS NOT NULL", &columns.list_archive_only(form)),
        partition_name(month),
        matches(target)
    );
    let matching = Matching::new(target, month);
    let row = matching.bind(Statement::new(statement)).query_one(client).await?;
    let lost: Vec<String> = row.try_get("lost_columns")?;
    if !lost.is_empty() {
        return Err(lost_values(&lost));
    }
    Ok(row.try_get::<_, i64>("rows")?.unsigned_abs())
}

fn lost_values(columns: &[String]) -> Error {
    let say = |name: &String| {
        let quoted = quote(name);
        format!(
            "{quoted} is not a column of \"EventLog\" and has values (if the host has renamed it: `snapshots migrate --rename \
             {name}=<its present name>`; else add it again)"
        )
    };
    Error::NotRestorable { columns: columns.iter().map(say).collect() }
}

/// SQL for the names of those of `columns` that meet `condition` in one of the rows that are grouped.
fn columns_with(condition: &str, columns: &[&str]) -> String {
    let names = columns
        .iter()
        .map(|name| format!("CASE WHEN bool_or({} {condition}) THEN {} END", quote(name), quote_literal(name)));
    format!("array_remove(ARRAY[{}]::text[], NULL)", names.collect::<Vec<_>>().join(", "))
}

/// Counts what [`restore_batch`] would do with the rows of `month`.
pub(crate) async fn count_month(
    client: &impl GenericClient,
    target: &RestoreTarget,
    month: Month,
) -> Result<RestorableMonth> {
    let columns = MirroredColumns::load(client).await?;
    let has_key = columns.have_event_index();
    let key = if has_key { r#", a."txHash", a."eventIndex""# } else { "" };
    let same_event = if has_key { SAME_EVENT } else { "SELECT NULL AS yes" };
    let statement = format!(
        r#"SELECT count(*) AS rows, count(*) FILTER (WHERE w.on_hold) AS on_hold,
                  count(*) FILTER (WHERE NOT w.on_hold AND (same_id.yes IS NOT NULL OR same_event.yes IS NOT NULL)) AS in_the_way
           FROM (
               SELECT a.id{key}, (a."streamId"::text IN ({HELD_STREAMS})) IS TRUE AS on_hold
               FROM {} a WHERE {}
           ) w
           LEFT JOIN LATERAL (SELECT true AS yes FROM "EventLog" e WHERE e.id = w.id LIMIT 1) same_id ON true
           LEFT JOIN LATERAL ({same_event}) same_event ON true"#,
        partition_name(month),
        matches(target)
    );
    let matching = Matching::new(target, month);
    let row = matching.bind(Statement::new(statement)).query_one(client).await?;
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    let (on_hold, in_the_way) = (number("on_hold")?, number("in_the_way")?);
    Ok(RestorableMonth { month, rows: number("rows")? - on_hold - in_the_way, on_hold, in_the_way })
}

/// Which rows the next batch may take.
#[derive(Debug)]
pub(crate) struct RestoreBatch<'a> {
    pub(crate) target: &'a RestoreTarget,
    /// Of the month whose rows move.
    pub(crate) lease: &'a MonthLease,
    /// The last row looked at, where those of one stream are restored.
    pub(crate) after: &'a LogPosition,
    /// Where the last row was that was looked at, else.
    pub(crate) after_place: &'a str,
    pub(crate) limit: i64,
    /// Whether the rows are to stay in `EventLog` until they are released.
    pub(crate) hold: bool,
    /// The former service's archive: rows that it still has leave the archive, and are not put into `EventLog`.
    pub(crate) former: Option<FormerArchive>,
}

/// What [`restore_batch`] did.
#[derive(Debug)]
pub(crate) struct RestoredBatch {
    /// Rows looked at.
    pub(crate) seen: u64,
    /// Whether the month has no more.
    pub(crate) is_end: bool,
    /// Rows that are now in `EventLog`.
    pub(crate) moved: u64,
    /// Rows left out because their stream is under legal hold.
    pub(crate) on_hold: u64,
    /// Rows left out because `EventLog` has a row in their way or does not take them.
    pub(crate) conflicts: u64,
    /// The first of them, and why.
    pub(crate) conflict_details: Vec<ConflictDetail>,
    /// The last row looked at.
    pub(crate) last: Option<LogPosition>,
    /// The last place looked at.
    pub(crate) last_place: Option<String>,
}

/// Moves the next archived rows of a month that match back to `EventLog`, but those that it does not take.
///
/// # Errors
///
/// [`Error::NotRestorable`] when a row would not go back whole; [`Error::RestoreRefused`] when one did not.
pub(crate) async fn restore_batch(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    form: &RowForm,
    request: &RestoreBatch<'_>,
) -> Result<RestoredBatch> {
    // Rows are looked up by key and by place, whatever the statistics say; and places come in order. What a deferred
    // constraint refuses is found out here, and not at the commit.
    client.batch_execute("SET LOCAL enable_seqscan = off; SET CONSTRAINTS ALL IMMEDIATE").await?;
    let on_hold = holds::lock_legal_holds(client).await?;
    let chain = seals::get_chain(client, request.lease).await?;
    let hooks = InsertHooks::load(client).await?;
    if !hooks.rules.is_empty() {
        // They do something else than insert, or are none that a statement like the batch's can have.
        return Err(Error::RestoreRefused { rows: 0, by: hooks.rules });
    }
    let matching = Matching::new(request.target, request.lease.month);
    let mut batch = Batch { columns, form, request, matching, on_hold, refused_places: Vec::new() };
    let mut refused: Vec<Refused> = Vec::new();
    let mut searches = 0;
    let forms = seals::list_sealed_forms(client, request.lease.month, form).await?;
    let (told, removed) = loop {
        batch.refused_places = refused.iter().map(|row| row.place.clone()).collect();
        client.batch_execute("SAVEPOINT batch").await?;
        let removed = Removed::new(form.columns(), forms.hashers(form.columns()));
        let error = match take_out(client, batch.restore(!hooks.after.is_empty()), removed).await? {
            Ok(taken) => break taken,
            Err(error) => error,
        };
        if !is_of_rows(&error) {
            return Err(error.into());
        }
        if searches == MAX_SEARCHES {
            return Err(Error::Busy { retry: Some(Retry::Smaller), source: error.into() });
        }
        searches += 1;
        client.batch_execute("ROLLBACK TO SAVEPOINT batch").await?;
        let found = find_refused(client, &batch).await?;
        debug!(month = %request.lease.month, rows = found.len(), "restore: rows that EventLog does not take");
        if found.is_empty() && searches > 1 {
            // Each by itself is taken, and all at once are not.
            let by = [hooks.before, hooks.after].concat();
            return if by.is_empty() { Err(error.into()) } else { Err(Error::RestoreRefused { rows: 0, by }) };
        }
        refused.extend(found);
    };
    if !told.lost_columns.is_empty() {
        return Err(lost_values(&told.lost_columns));
    }
    removed.seal(client, &chain, request.lease.run, form).await?;
    let restored = parse(&told, request, &refused);
    if restored.moved != told.removed {
        let by = if hooks.before.is_empty() { hooks.after } else { hooks.before };
        return Err(Error::RestoreRefused { rows: told.removed.abs_diff(restored.moved), by });
    }
    if told.kept != told.removed {
        return Err(HostFinding::restored_logs_refused(told.removed.abs_diff(told.kept)).into());
    }
    if !hooks.after.is_empty() {
        let altered = count_altered(client, columns, &told).await?;
        if altered > 0 {
            return Err(Error::RestoreRefused { rows: altered, by: hooks.after });
        }
    }
    Ok(restored)
}

/// What restore_batch.sql says of a batch.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    seen: u64,
    is_end: bool,
    last_place: Option<String>,
    last_created_at: Option<NaiveDateTime>,
    last_id: Option<String>,
    removed: u64,
    kept: u64,
    restored: u64,
    restored_ids: Vec<String>,
    restored_digests: Vec<String>,
    on_hold: u64,
    conflicts: u64,
    conflict_ids: Vec<String>,
    conflict_places: Vec<String>,
    conflict_obstacles: Vec<String>,
    conflict_columns: Vec<String>,
    lost_columns: Vec<String>,
}

/// Where the summary of a batch is among the columns; the texts of a row are behind it.
const SUMMARY: usize = 0;

/// Runs the statement of a batch. What the database refuses is the inner error.
async fn take_out(
    client: &impl GenericClient,
    statement: Statement<'_>,
    mut removed: Removed,
) -> Result<std::result::Result<(Summary, Removed), tokio_postgres::Error>> {
    let mut rows = match statement.query_stream(client).await {
        Ok(rows) => pin!(rows),
        Err(error) => return Ok(Err(error)),
    };
    let mut summary = None;
    loop {
        let row = match rows.try_next().await {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        };
        match row.try_get::<_, Option<&str>>(SUMMARY)? {
            None => removed.add(&read_texts(&row, SUMMARY + 1)?),
            Some(told) => summary = Some(serde_json::from_str(told).map_err(|error| unreadable("summary", error))?),
        }
    }
    let summary = summary.ok_or_else(|| unreadable("summary", "the batch has none"))?;
    Ok(Ok((summary, removed)))
}

/// The rows of a batch that left the archive.
struct Removed {
    hashers: SealedHashers,
    places: Places,
    /// Where "archivedAt" is among the texts.
    archived_at: usize,
    /// Each with the digest that it was sealed with, and when it was archived.
    rows: Vec<(SealedRow, String)>,
}

impl Removed {
    fn new(selected: &[String], hashers: SealedHashers) -> Self {
        let archived_at = selected.iter().position(|column| column == "archivedAt").unwrap_or_default();
        Self { hashers, places: Places::new(selected), archived_at, rows: Vec::new() }
    }

    fn add(&mut self, texts: &Texts<'_>) {
        let archived_at = texts[self.archived_at].unwrap_or_default();
        let digest = self.hashers.hash(archived_at, texts);
        self.rows.push((self.places.sealed_row(texts, digest), archived_at.to_owned()));
    }

    /// Seals that the rows left, and keeps the digests that they were sealed with, so that their seals still verify.
    async fn seal(mut self, client: &impl GenericClient, chain: &SealChain, run: Uuid, form: &RowForm) -> Result<()> {
        self.rows.sort_unstable();
        let mut sealed = SealedRows::default();
        for (row, archived_at) in &self.rows {
            let digest = removal_digest(archived_at, &row.id, &row.created_at, &row.digest);
            sealed.push(&SealedRow { digest, ..row.clone() });
        }
        Seal::restoring(chain, run, form).insert(client, &sealed, &Vec::new()).await?;
        let each = |text: fn(&(SealedRow, String)) -> &str| self.rows.iter().map(text).collect::<Vec<_>>();
        let digests: Vec<_> = self.rows.iter().map(|(row, _)| row.digest.as_slice()).collect();
        Statement::new(include_str!("sql/insert_removals.sql"))
            .bind("month", &chain.month.to_string(), Type::TEXT)
            .bind("sequence", &chain.sequence, Type::INT4)
            .bind("archived_at", &each(|(_, archived_at)| archived_at), Type::TEXT_ARRAY)
            .bind("ids", &each(|(row, _)| &row.id), Type::TEXT_ARRAY)
            .bind("created_at", &each(|(row, _)| &row.created_at), Type::TEXT_ARRAY)
            .bind("digests", &digests, Type::BYTEA_ARRAY)
            .execute(client)
            .await?;
        Ok(())
    }
}

/// What of the host's own acts on rows that are inserted into `EventLog`, each with its table.
#[derive(Debug, Default)]
struct InsertHooks {
    rules: Vec<String>,
    /// Triggers that fire before the insertion, or instead.
    before: Vec<String>,
    /// Triggers that fire after it.
    after: Vec<String>,
}

impl InsertHooks {
    async fn load(client: &impl GenericClient) -> Result<Self> {
        let mut hooks = Self::default();
        for row in client.query_typed(include_str!("sql/list_insert_hooks.sql"), &[]).await? {
            let names = match (row.try_get("is_rule")?, row.try_get("is_after")?) {
                (true, _) => &mut hooks.rules,
                (false, true) => &mut hooks.after,
                (false, false) => &mut hooks.before,
            };
            names.push(row.try_get("name")?);
        }
        Ok(hooks)
    }
}

/// The statements about one batch.
struct Batch<'a> {
    columns: &'a MirroredColumns,
    form: &'a RowForm,
    request: &'a RestoreBatch<'a>,
    matching: Matching,
    /// Streams under legal hold.
    on_hold: Vec<String>,
    /// Places of rows that `EventLog` was found not to take.
    refused_places: Vec<String>,
}

impl Batch<'_> {
    /// The batch; `digests` of what was inserted, too.
    fn restore(&self, digests: bool) -> Statement<'_> {
        let Self { columns, form, request, .. } = self;
        let is_end = if request.target.contract_ids().is_some() {
            "true".into()
        } else {
            format!(
                "pg_relation_size('{}'::regclass) <= {}::bigint * current_setting('block_size')::bigint",
                partition_name(request.lease.month),
                end_page(request.after_place)
            )
        };
        let kept = if request.hold {
            r#"INSERT INTO "RestoredLog" AS r (id, "streamId", "runId") SELECT id::text, "streamId", :run FROM gone
               ON CONFLICT (id) DO UPDATE SET "streamId" = EXCLUDED."streamId", "runId" = EXCLUDED."runId" RETURNING id"#
        } else {
            "SELECT id FROM gone g WHERE :is_gone_returned"
        };
        let lost = columns_with("IS NOT NULL", &columns.list_archive_only(form));
        self.look(include_str!("sql/restore_batch.sql"))
            .fragment("texts", texts_of(form.columns(), ""))
            .fragment("no_texts", ", NULL::text".repeat(form.columns().len()))
            .bind("run", &request.lease.run, Type::UUID)
            .fragment("is_end", is_end)
            .fragment("is_same", columns.is_restored())
            .fragment("kept", kept)
            .fragment("digested", if digests { "" } else { " WHERE false" })
            .fragment("most_conflicts", MAX_REPORTED_IDS.to_string())
            .fragment("lost_columns", lost)
    }

    /// A statement with restore_candidates.sql.
    fn look(&self, sql: &'static str) -> Statement<'_> {
        let Self { columns, request, .. } = self;
        let has_key = columns.have_event_index();
        let after = if let Some(contract_ids) = request.target.contract_ids() {
            // One scan of the index yields the rows in order; of a stream that has several, the month's are sorted.
            let of_stream = if contract_ids.len() == 1 { ":contract_ids[1]" } else { "ANY (:contract_ids)" };
            format!(
                r#"a."streamId" = {of_stream} AND a."createdAt" >= :after_created_at
                AND (:after_id IS NULL OR (a."createdAt", a.id) > (:after_created_at, CAST(CAST(:after_id AS text) AS {})))
                ORDER BY a."createdAt", a.id"#,
                columns.archived_id_type()
            )
        } else {
            format!("a.ctid > :after_place::text::tid AND a.ctid < '({},0)'::tid", end_page(request.after_place))
        };
        let copy = r#"CASE WHEN w."eventIndex" IS NULL THEN 1 ELSE row_number() OVER (
            PARTITION BY w."txHash", w."eventIndex", w.obstacle IS NULL ORDER BY w."createdAt", w.id) END"#;
        let lacking = columns.list_indispensable().into_iter();
        let lacking = lacking.map(|name| format!("WHEN a.{} IS NULL THEN {}", quote(name), quote_literal(name)));
        let lacking = lacking.collect::<Vec<_>>().join(" ");
        let lacking = if lacking.is_empty() { "NULL::text".into() } else { format!("CASE {lacking} END") };
        let statement = self
            .insert(Statement::new(sql))
            .fragment("candidates", include_str!("sql/restore_candidates.sql"))
            .fragment("lacking", lacking)
            .fragment("key", if has_key { r#", a."txHash", a."eventIndex""# } else { "" })
            .fragment("copy", if has_key { copy } else { "1" })
            .fragment("same_event", if has_key { SAME_EVENT } else { "SELECT NULL AS yes" })
            .fragment("after", after)
            .fragment("matches", matches(request.target))
            .fragment("is_returned", is_returned(request.former.as_ref(), "a"))
            .bind("after_place", &request.after_place, Type::TEXT)
            .bind("after_created_at", &request.after.created_at, Type::TIMESTAMP)
            .bind("after_id", &request.after.id, Type::TEXT)
            .bind("limit", &request.limit, Type::INT8)
            .bind("held", &self.on_hold, Type::TEXT_ARRAY)
            .bind("refused_places", &self.refused_places, Type::TEXT_ARRAY);
        self.matching.bind(statement)
    }

    /// A statement that inserts the rows `gone`.
    fn insert<'s>(&self, statement: Statement<'s>) -> Statement<'s> {
        let Self { columns, request, .. } = self;
        let rows = if columns.require_event_index() {
            let next = r#"known.last + row_number() OVER (PARTITION BY g."txHash" ORDER BY g."createdAt", g.id)"#;
            format!(
                "SELECT {} FROM gone g WHERE g.\"eventIndex\" IS NOT NULL AND :is_gone_returned UNION ALL\n{}",
                columns.restored_values(r#"g."eventIndex""#),
                Statement::new(include_str!("sql/number_events.sql"))
                    .fragment("numbered_values", columns.restored_values(next))
                    .fragment("is_gone_returned", is_returned(request.former.as_ref(), "g"))
                    .text()
            )
        } else {
            format!("SELECT {} FROM gone g WHERE :is_gone_returned", columns.restored_values(r#"g."eventIndex""#))
        };
        statement
            .fragment("partition", partition_name(request.lease.month))
            .fragment("names", columns.restored_names())
            .fragment("rows", rows)
            .fragment("is_gone_returned", is_returned(request.former.as_ref(), "g"))
    }
}

/// SQL that is true when the archived row is to be put into `EventLog`.
fn is_returned(former: Option<&FormerArchive>, row: &str) -> String {
    former.map_or("true".into(), |former| {
        format!("NOT EXISTS (SELECT FROM {} f WHERE f.id = {row}.id::text)", former.name)
    })
}

/// A row of the batch that `EventLog` does not take.
#[derive(Debug)]
struct Refused {
    /// Where it is in its partition.
    place: String,
    constraint: Option<String>,
    reason: String,
}

/// Classes of errors that say nothing about rows, whoever raises them: of transactions, of what the server has and can, and of its
/// operators.
const NOT_OF_ROWS: [&str; 6] = ["40", "53", "55", "57", "58", "XX"];

/// Whether `error` is about what rows have in them, so that others may go; not whether another transaction was faster.
fn is_of_rows(error: &tokio_postgres::Error) -> bool {
    let Some(refused) = error.as_db_error() else { return false };
    // 22 data exceptions, 23 integrity constraint violations, 44 WITH CHECK OPTION, P0 what functions of triggers raise.
    let code = refused.code().code();
    let class = code.get(..2).unwrap_or_default();
    let is_data = ["22", "23", "44", "P0"].contains(&class);
    let is_of_function =
        refused.where_().is_some_and(|place| place.contains("function ")) && !NOT_OF_ROWS.contains(&class);
    (is_data || is_of_function) && !refused.table().is_some_and(|table| OWN_TABLES.contains(&table))
}

/// The rows of the batch that `EventLog` does not take, found out by trying; nothing stays of that. The transaction has
/// the savepoint `batch`.
async fn find_refused(client: &impl GenericClient, batch: &Batch<'_>) -> Result<Vec<Refused>> {
    const SET: &str = "SELECT set_config('snapshot_service.insertion', $1, true), \
                       set_config('snapshot_service.places', $2::text[]::text, true)";
    let list = batch.look(include_str!("sql/list_restorable_rows.sql"));
    let places: Vec<String> = list.query_one(client).await?.try_get("places")?;
    // The parameter is that of EXECUTE.
    let insertion = Statement::new(include_str!("sql/insert_places.sql")).fragment("places", "$1");
    let insertion = batch.insert(insertion).text();
    client.query_typed_one(SET, &[(&insertion, Type::TEXT), (&places, Type::TEXT_ARRAY)]).await?;
    client.batch_execute(include_str!("sql/find_refused_rows.sql")).await?;
    let found = client.query_typed_one("SELECT current_setting('snapshot_service.refused')::json AS rows", &[]).await?;
    client.batch_execute("ROLLBACK TO SAVEPOINT batch").await?;
    let rows: Vec<[String; 5]> = decode_json(&found, "rows")?;
    let parse = |[place, state, constraint, column, function]: [String; 5]| {
        let constraint = [constraint, column, function].into_iter().find(|name| !name.is_empty());
        let reason = condition(&state, constraint.is_some()).to_owned();
        Refused { place, constraint, reason }
    };
    Ok(rows.into_iter().map(parse).collect())
}

/// PostgreSQL's name of what a SQLSTATE stands for.
fn condition(state: &str, has_constraint: bool) -> &'static str {
    match state {
        // PostgreSQL has no code of its own for it.
        "23514" if !has_constraint => "no_partition",
        "23001" => "restrict_violation",
        "23502" => "not_null_violation",
        "23503" => "foreign_key_violation",
        "23505" => "unique_violation",
        "23514" => "check_violation",
        "23P01" => "exclusion_violation",
        "22001" => "string_data_right_truncation",
        "22003" => "numeric_value_out_of_range",
        "22007" => "invalid_datetime_format",
        "22008" => "datetime_field_overflow",
        "22012" => "division_by_zero",
        "22P02" => "invalid_text_representation",
        "44000" => "with_check_option_violation",
        "P0001" => "raise_exception",
        "P0004" => "assert_failure",
        state if state.starts_with("23") => "integrity_constraint_violation",
        _ => "data_exception",
    }
}

/// How many of the rows that the batch inserted are not in `EventLog` as they were inserted: what fires after the
/// insertion is not in what that returns.
async fn count_altered(client: &impl GenericClient, columns: &MirroredColumns, told: &Summary) -> Result<u64> {
    let (ids, digests) = (&told.restored_ids, &told.restored_digests);
    let sql = format!(
        r#"SELECT count(*) AS rows FROM unnest($1, $2) inserted (id, digest)
           WHERE NOT EXISTS (
               SELECT FROM "EventLog" e WHERE e.id::text = inserted.id AND md5(ROW({})::text) = inserted.digest
           )"#,
        columns.restored_names_of("e.")
    );
    let row = client.query_typed_one(&sql, &[(ids, Type::TEXT_ARRAY), (digests, Type::TEXT_ARRAY)]).await?;
    Ok(row.try_get::<_, i64>("rows")?.unsigned_abs())
}

/// The page at which a batch after `place`, written as `(page,row)`, ends.
fn end_page(place: &str) -> u64 {
    let page = place.trim_start_matches('(').split(',').next().and_then(|page| page.parse().ok());
    page.unwrap_or(0) + MAX_PAGES
}

fn parse(told: &Summary, request: &RestoreBatch<'_>, refused: &[Refused]) -> RestoredBatch {
    let last = told.last_created_at.map(|created_at| LogPosition { created_at, id: told.last_id.clone() });
    let is_full = i64::try_from(told.seen) == Ok(request.limit);
    // Nothing is left before the stretch's end: rows of a page are numbered up to less than this.
    let stretch_end = || format!("({},65535)", end_page(request.after_place) - 1);
    let last_place = if is_full { told.last_place.clone() } else { Some(stretch_end()) };
    RestoredBatch {
        seen: told.seen,
        is_end: told.is_end && !is_full,
        moved: told.restored,
        on_hold: told.on_hold,
        conflicts: told.conflicts,
        conflict_details: list_conflicts(told, refused),
        last,
        last_place,
    }
}

/// Why the first rows that were left out were.
fn list_conflicts(told: &Summary, refused: &[Refused]) -> Vec<ConflictDetail> {
    let detail = |(index, log_id): (usize, &String)| {
        let (obstacle, column) = (&told.conflict_obstacles[index], &told.conflict_columns[index]);
        let (constraint, reason) = match refused.iter().find(|row| row.place == told.conflict_places[index]) {
            Some(refused) if obstacle == "refused" => (refused.constraint.clone(), refused.reason.clone()),
            _ => ((!column.is_empty()).then(|| column.clone()), obstacle.clone()),
        };
        ConflictDetail { log_id: log_id.clone(), constraint, reason }
    };
    told.conflict_ids.iter().enumerate().map(detail).collect()
}
