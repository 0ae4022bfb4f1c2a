use std::collections::BTreeSet;

use chrono::NaiveDateTime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row, Transaction};
use uuid::Uuid;

use super::archive_columns::{MirroredColumns, quote};
use super::event_log::Position;
use super::holds::{self, HELD_STREAMS};
use super::ledger::{self, Seal};
use super::partitions::{list_partitions, partition_name};
use super::row_form::RowForm;
use super::stream_identity::has_contract_id;
use crate::error::{Error, Result};
use crate::model::{Month, RestorableMonth, RestoreTarget};

/// SQL that is true when the archived row `a` matches what is restored: $1 contract ids, $2 from, $3 to, $4 run, each NULL for
/// all; $5 the month. All rows of an entry of the ledger have its "archivedAt".
fn matches(target: &RestoreTarget) -> String {
    let of_stream = match target.contract_ids() {
        Some(contract_ids) => has_contract_id("a", "$1", &contract_ids),
        None => "$1::text[] IS NULL".into(),
    };
    format!("{of_stream} AND {MATCHES}")
}

/// The same without the contract ids.
const MATCHES: &str = r#"($2 IS NULL OR a."createdAt" >= $2)
    AND ($3 IS NULL OR a."createdAt" < $3)
    AND ($4 IS NULL OR a."archivedAt" IN (
        SELECT s."archivedAt" FROM "ArchiveSeal" s WHERE s.month = $5 AND s."runId" = $4 AND s.kind <> 'restored'))"#;

/// The look-up of a row of `EventLog` with the same event as the archived row `w`.
const SAME_EVENT: &str = r#"SELECT true AS yes FROM "EventLog" e
    WHERE e."txHash" = w."txHash" AND e."eventIndex" = w."eventIndex" LIMIT 1"#;

/// Pages of a partition that one batch reads at most, some 400 MB: where rows have left, there may be many without any.
const MAX_PAGES: u64 = 50_000;

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

    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 5] {
        [
            (&self.contract_ids, Type::TEXT_ARRAY),
            (&self.from, Type::TIMESTAMP),
            (&self.to, Type::TIMESTAMP),
            (&self.run, Type::UUID),
            (&self.month, Type::TEXT),
        ]
    }
}

/// Months of the archive in which rows can match, oldest first.
pub(crate) async fn list_months(transaction: &Transaction<'_>, target: &RestoreTarget) -> Result<Vec<Month>> {
    let mut months = list_partitions(transaction).await?;
    months.retain(|month| target.overlaps(*month));
    if let Some(run) = target.run {
        let sql = r#"SELECT DISTINCT month FROM "ArchiveSeal" WHERE "runId" = $1 AND kind <> 'restored'"#;
        let rows = transaction.query_typed(sql, &[(&run, Type::UUID)]).await?;
        let of_run: BTreeSet<Month> =
            rows.iter().map(|row| row.try_get::<_, &str>("month")?.parse()).collect::<Result<_>>()?;
        months.retain(|month| of_run.contains(month));
    }
    Ok(months)
}

/// Counts the rows of `month` that match.
///
/// # Errors
///
/// [`Error::NotRestorable`] when one of them has a value that `EventLog` has no column for, or lacks one that it requires.
pub(crate) async fn check_month(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    form: &RowForm,
    target: &RestoreTarget,
    month: Month,
) -> Result<u64> {
    let indispensable = columns.list_indispensable();
    let statement = format!(
        r"SELECT count(*) AS rows, {} AS lost_columns, {} AS lacking_columns FROM {} a WHERE {}",
        columns_with("IS NOT NULL", &columns.list_archive_only(form)),
        columns_with("IS NULL", &indispensable),
        partition_name(month),
        matches(target)
    );
    let row = client.query_typed_one(&statement, &Matching::new(target, month).parameters()).await?;
    let lost: Vec<String> = row.try_get("lost_columns")?;
    let lacking: Vec<String> = row.try_get("lacking_columns")?;
    let lost = lost.iter().map(|name| format!("{} is not a column of \"EventLog\" and has values", quote(name)));
    let lacking = lacking.iter().map(|name| format!("{} is required by \"EventLog\" and is empty", quote(name)));
    let columns: Vec<String> = lost.chain(lacking).collect();
    if !columns.is_empty() {
        return Err(Error::NotRestorable { columns });
    }
    Ok(row.try_get::<_, i64>("rows")?.unsigned_abs())
}

/// SQL for the names of those of `columns` that meet `condition` in one of the rows that are grouped.
fn columns_with(condition: &str, columns: &[&str]) -> String {
    let names = columns.iter().map(|name| {
        let literal = name.replace('\'', "''");
        format!("CASE WHEN bool_or({} {condition}) THEN '{literal}' END", quote(name))
    });
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
               SELECT a.id{key}, a."streamId" IN ({HELD_STREAMS}) AS on_hold
               FROM {} a WHERE {}
           ) w
           LEFT JOIN LATERAL (SELECT true AS yes FROM "EventLog" e WHERE e.id = w.id LIMIT 1) same_id ON true
           LEFT JOIN LATERAL ({same_event}) same_event ON true"#,
        partition_name(month),
        matches(target)
    );
    let row = client.query_typed_one(&statement, &Matching::new(target, month).parameters()).await?;
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    let (on_hold, in_the_way) = (number("on_hold")?, number("in_the_way")?);
    Ok(RestorableMonth { month, rows: number("rows")? - on_hold - in_the_way, on_hold, in_the_way })
}

/// Which rows the next batch may take.
#[derive(Debug)]
pub(crate) struct RestoreBatch<'a> {
    pub(crate) target: &'a RestoreTarget,
    pub(crate) month: Month,
    /// The last row looked at, where those of one stream are restored.
    pub(crate) after: &'a Position,
    /// Where the last row was that was looked at, else.
    pub(crate) after_place: &'a str,
    pub(crate) limit: u32,
    pub(crate) run: Uuid,
    /// Whether the rows are to stay in `EventLog` until they are released.
    pub(crate) hold: bool,
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
    /// Rows left out because `EventLog` has a row in their way.
    pub(crate) conflicts: Vec<String>,
    /// The last row looked at.
    pub(crate) last: Option<Position>,
    /// The last place looked at.
    pub(crate) last_place: Option<String>,
}

/// Moves the next archived rows of a month that match back to `EventLog`.
///
/// # Errors
///
/// [`Error::NotRestorable`] when a row would not go back whole.
pub(crate) async fn restore_batch(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    form: &RowForm,
    request: &RestoreBatch<'_>,
) -> Result<RestoredBatch> {
    // Rows are looked up by key and by place, whatever the statistics say; and places come in order.
    client.batch_execute("SET LOCAL enable_seqscan = off").await?;
    let on_hold = holds::lock_legal_holds(client).await?;
    let head = ledger::lock_head(client, request.month).await?;
    let seal = Seal::of_restored(&head, request.run, form);
    let forms = ledger::list_sealed_forms(client, request.month, form).await?;
    let matching = Matching::new(request.target, request.month);
    let statement = restore_statement(columns, form, request)
        .replace("{proof_columns}", &forms.proof_columns())
        .replace("{proof}", &seal.sql("leaving", 12));
    let limit = i64::from(request.limit);
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&request.after_place, Type::TEXT),
        (&request.after.created_at, Type::TIMESTAMP),
        (&request.after.id, Type::TEXT),
        (&limit, Type::INT8),
        (&on_hold, Type::TEXT_ARRAY),
        (&request.run, Type::UUID),
    ];
    let parameters = [&matching.parameters()[..], &parameters, &seal.parameters()].concat();
    let row = client.query_typed_one(&statement, &parameters).await.map_err(in_the_way)?;
    let lost: Vec<String> = row.try_get("lost_columns")?;
    if !lost.is_empty() {
        let columns = lost.iter().map(|name| format!("{} is not a column of \"EventLog\" and has values", quote(name)));
        return Err(Error::NotRestorable { columns: columns.collect() });
    }
    let batch = parse(&row, request)?;
    let removed = row.try_get::<_, i64>("removed")?.unsigned_abs();
    if batch.moved != removed {
        return Err(Error::RestoreRefused { rows: removed - batch.moved });
    }
    Ok(batch)
}

fn restore_statement(columns: &MirroredColumns, form: &RowForm, request: &RestoreBatch<'_>) -> String {
    let has_key = columns.have_event_index();
    let partition = partition_name(request.month);
    let (after, is_end) = if let Some(contract_ids) = request.target.contract_ids() {
        // One scan of the index yields the rows in order; of a stream that has several, the month's are sorted.
        let of_stream = if contract_ids.len() == 1 { "$1[1]" } else { "ANY ($1)" };
        // The first conditions say nothing new, but bound the scan of the index.
        let after = format!(
            r#"a."streamId" = {of_stream} AND a."createdAt" >= $7 AND (a."createdAt", a.id) > ($7, $8)
            ORDER BY a."createdAt", a.id"#
        );
        (after, "true".into())
    } else {
        let end = end_page(request.after_place);
        let is_end = format!(
            "pg_relation_size('{partition}'::regclass) <= {end}::bigint * current_setting('block_size')::bigint"
        );
        (format!("a.ctid > $6::text::tid AND a.ctid < '({end},0)'::tid"), is_end)
    };
    let rows = if columns.require_event_index() {
        let next = r#"known.last + row_number() OVER (PARTITION BY g."txHash" ORDER BY g."createdAt", g.id)"#;
        format!(
            "SELECT {} FROM gone g WHERE g.\"eventIndex\" IS NOT NULL UNION ALL\n{}",
            columns.restored_values(r#"g."eventIndex""#),
            include_str!("sql/number_events.sql").replace("{values}", &columns.restored_values(next))
        )
    } else {
        format!("SELECT {} FROM gone g", columns.restored_values(r#"g."eventIndex""#))
    };
    let held = if request.hold {
        r#"INSERT INTO "RestoredLog" AS r (id, "streamId", "runId") SELECT id, "streamId", $11 FROM gone
           ON CONFLICT (id) DO UPDATE SET "streamId" = EXCLUDED."streamId", "runId" = EXCLUDED."runId""#
    } else {
        "SELECT"
    };
    // Of rows of one event that are both archived, the first.
    let copy = r#"CASE WHEN a."eventIndex" IS NULL THEN 1
        ELSE row_number() OVER (PARTITION BY a."txHash", a."eventIndex" ORDER BY a."createdAt", a.id) END"#;
    let lost = columns_with("IS NOT NULL", &columns.list_archive_only(form));
    include_str!("sql/restore_batch.sql")
        .replace("{key}", if has_key { r#", a."txHash", a."eventIndex""# } else { "" })
        .replace("{copy}", if has_key { copy } else { "1" })
        .replace("{same_event}", if has_key { SAME_EVENT } else { "SELECT NULL AS yes" })
        .replace("{partition}", &partition)
        .replace("{after}", &after)
        .replace("{is_end}", &is_end)
        .replace("{matches}", &matches(request.target))
        .replace("{names}", &columns.restored_names())
        .replace("{rows}", &rows)
        .replace("{is_same}", &columns.is_restored())
        .replace("{held}", held)
        .replace("{lost_columns}", &lost)
}

/// A row that the host wrote just now may be in the way of another: the batch is tried again and passes it over.
fn in_the_way(error: tokio_postgres::Error) -> Error {
    if error.code() == Some(&SqlState::UNIQUE_VIOLATION) { Error::Busy(error.into()) } else { error.into() }
}

/// The page at which a batch after `place`, written as `(page,row)`, ends.
fn end_page(place: &str) -> u64 {
    let page = place.trim_start_matches('(').split(',').next().and_then(|page| page.parse().ok());
    page.unwrap_or(0) + MAX_PAGES
}

fn parse(row: &Row, request: &RestoreBatch<'_>) -> Result<RestoredBatch> {
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    let last = match row.try_get::<_, Option<NaiveDateTime>>("last_created_at")? {
        Some(created_at) => Some(Position { created_at, id: row.try_get("last_id")? }),
        None => None,
    };
    let (seen, is_end) = (number("seen")?, row.try_get("is_end")?);
    let is_full = seen == u64::from(request.limit);
    // Nothing is left before the stretch's end: rows of a page are numbered up to less than this.
    let stretch_end = || format!("({},65535)", end_page(request.after_place) - 1);
    let last_place = if is_full { row.try_get("last_place")? } else { Some(stretch_end()) };
    Ok(RestoredBatch {
        seen,
        is_end: is_end && !is_full,
        moved: number("restored")?,
        on_hold: number("on_hold")?,
        conflicts: row.try_get("conflict_ids")?,
        last,
        last_place,
    })
}
