use std::pin::pin;

use chrono::NaiveDateTime;
use futures_util::TryStreamExt;
use seal::{Batch, BatchFindings, RowForm, RowHasher, SealedRows, timestamp};
use serde::Deserialize;
use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tracing::warn;

use super::archive_columns::{MirroredColumns, quote};
use super::decode::{bigint, unreadable};
use super::event_log::{Due, IS_NOT_RESTORED, LogPosition, chain_head};
use super::former::FormerArchive;
use super::holds::{self, Held};
use super::leases::MonthLease;
use super::partitions::partition_name;
use super::row_texts::{read_texts, texts_of_archived};
use super::seals::{self, LedgerRange, Seal};
use super::statement::Statement;
use crate::error::{Error, HostFinding, Result, chain};
use crate::host::{HostFacts, Reference, RelationKind};
use crate::model::Month;

/// An event that is archived and ingested again has the ledger number that it had, so it is looked for in the months that
/// have such numbers; and a little beside, so that one is noticed whose number was tampered with.
const LEDGERS_BESIDE: i64 = 1_000;

/// Findings of one kind that a run keeps with their details; the counts beside them are exact.
pub(crate) const MAX_KEPT_FINDINGS: usize = 1_000;

/// Rows are found by their keys, one by one, whatever the statistics say.
const ONE_BY_ONE: &str =
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off";

/// SQL that is true when the row `e` is locked by this very transaction.
const IS_LOCKED: &str = "e.xmax = pg_current_xact_id()::xid";

/// What is the same for all batches of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchRules<'a> {
    pub(crate) due: Due,
    /// Types of events that stay.
    pub(crate) kept_types: &'a [String],
    /// Months that may hold events under other ids. Their partitions have their indexes.
    pub(crate) archived_before: &'a [LedgerRange],
    /// The run's start.
    pub(crate) started_at: NaiveDateTime,
    /// Whether to seal the batch and to check its hashes.
    pub(crate) prove: bool,
}

/// Which rows the next batch may take.
#[derive(Debug)]
pub(crate) struct BatchRequest<'a> {
    pub(crate) rules: BatchRules<'a>,
    /// Of the month whose rows move.
    pub(crate) lease: &'a MonthLease,
    /// What [`list_candidates`] says of it.
    pub(crate) candidates: &'a Vec<LedgerRange>,
    /// The month's partition is made for this run, and loaded in order: it has no copy of a row, and no index to look for one.
    pub(crate) is_new: bool,
    pub(crate) after: &'a LogPosition,
    pub(crate) limit: u32,
    /// How many rows are named whose hash is not theirs.
    pub(crate) most_named: usize,
}

/// What due_rows.sql is told of a batch.
struct Bounds {
    start: NaiveDateTime,
    end: NaiveDateTime,
    limit: i64,
    held: Held,
}

impl BatchRequest<'_> {
    fn bounds(&self, held: Held) -> Bounds {
        Bounds { start: self.lease.month.start(), end: self.end(), limit: i64::from(self.limit), held }
    }

    /// Sets the names of due_rows.sql, but `:is_free`.
    fn bind<'s>(&'s self, statement: Statement<'s>, log: &'s LockedLog<'_>, bounds: &'s Bounds) -> Statement<'s> {
        statement
            .fragment("chain_head", chain_head(log.columns))
            .fragment("due_rows", include_str!("sql/due_rows.sql"))
            .fragment("id_type", log.columns.id_type())
            .bind("cutoff", &self.rules.due.cutoff, Type::TIMESTAMP)
            .bind("has_hashes", &self.rules.due.has_hashes, Type::BOOL)
            .bind("month_start", &bounds.start, Type::TIMESTAMP)
            .bind("month_end", &bounds.end, Type::TIMESTAMP)
            .bind("after_created_at", &self.after.created_at, Type::TIMESTAMP)
            .bind("after_id", &self.after.id, Type::TEXT)
            .bind("limit", &bounds.limit, Type::INT8)
            .bind("held", &bounds.held.streams, Type::TEXT_ARRAY)
            .bind("kept_types", &self.rules.kept_types, Type::TEXT_ARRAY)
    }

    /// The month's own partition, and those of months that may hold the events under other ids: `SELECT columns` from each.
    fn archived(&self, columns: &str) -> String {
        let others =
            self.rules.archived_before.iter().map(|range| range.month).filter(|month| *month != self.lease.month);
        let own = (!self.is_new).then_some(self.lease.month);
        let selects =
            own.into_iter().chain(others).map(|month| format!("SELECT {columns} FROM {}", partition_name(month)));
        selects.reduce(|sql, select| format!("{sql} UNION ALL {select}")).unwrap_or_default()
    }

    fn end(&self) -> NaiveDateTime {
        self.lease.month.end().min(self.rules.due.cutoff)
    }
}

/// The log as a batch finds it under its lock.
#[derive(Debug)]
pub(crate) struct LockedLog<'a> {
    pub(crate) facts: &'a HostFacts,
    pub(crate) columns: &'a MirroredColumns,
    pub(crate) form: &'a RowForm,
    /// The former service's archive, if it is there.
    pub(crate) former: Option<&'a FormerArchive>,
}

impl LockedLog<'_> {
    /// Rows of an ordinary table are addressed by their place. A place names a row of one partition, not of a table of them:
    /// there the key finds the row, and the place says that it is that version.
    fn is_partitioned(&self) -> bool {
        self.facts.log.as_ref().is_some_and(|log| log.kind == RelationKind::Partitioned)
    }

    /// Columns, without quotes, by which `due` carries more than the id and the time; `by_event` where rows are looked up by it.
    fn carried(&self, by_event: bool) -> Vec<&str> {
        let event: &[&str] = if by_event { &["txHash", "eventIndex", "ledger"] } else { &[] };
        let keys = self.facts.log.iter().filter(|_| self.is_partitioned()).flat_map(|log| &log.partition_keys);
        let mut carried: Vec<&str> = event.iter().copied().chain(keys.map(String::as_str)).collect();
        carried.retain(|name| !["id", "createdAt"].contains(name));
        carried.sort_unstable();
        carried.dedup();
        carried
    }

    /// SQL for the columns that address a row `e`.
    fn address(&self) -> &'static str {
        if self.is_partitioned() { "e.tableoid, e.ctid" } else { "e.ctid" }
    }

    /// SQL that finds the rows of `leaving` in the log.
    fn using(&self) -> String {
        if !self.is_partitioned() {
            // By place and as an array: planned as nothing but a look-up of these rows, whatever the statistics say.
            return "WHERE e.ctid = ANY (ARRAY(SELECT ctid FROM leaving))".into();
        }
        let keys = self.facts.log.iter().flat_map(|log| &log.partition_keys);
        let keys = keys.filter(|key| !["id", "createdAt"].contains(&key.as_str()));
        let keys = keys.map(|key| format!("e.{0} = d.{0}", quote(key)));
        let address = ["e.id = d.id", r#"e."createdAt" = d."createdAt""#, "e.tableoid = d.tableoid", "e.ctid = d.ctid"];
        let conditions: Vec<_> = address.map(String::from).into_iter().chain(keys).collect();
        format!("USING leaving d WHERE {}", conditions.join(" AND "))
    }

    /// SQL that is true when the row `e` may leave: it is not restored, and the former service has no copy that differs.
    fn is_free(&self, bounds: &Bounds) -> String {
        let is_free = if bounds.held.has_restored_rows { IS_NOT_RESTORED } else { "true" };
        self.former.map_or(is_free.into(), |former| format!("{is_free} AND NOT {}", self.columns.differ_from(former)))
    }

    /// Keys of other tables to the log.
    fn references(&self) -> impl Iterator<Item = &Reference> {
        self.facts.references.iter().filter(|reference| !reference.is_self)
    }

    /// Whether a statement of its own locks the rows before another one moves them. Where tables reference the log, only a
    /// statement that begins after the lock sees all references. Where triggers fire, it deletes every row that it was to
    /// delete, unless a trigger keeps one: one statement passes over a row that somebody has changed since it began.
    fn locks_first(&self) -> bool {
        self.references().next().is_some() || self.has_delete_triggers()
    }

    fn has_delete_triggers(&self) -> bool {
        self.facts.log.iter().flat_map(|log| &log.triggers).any(|trigger| trigger.on_delete)
    }

    /// Whether triggers of the host's fire when rows enter the archive.
    fn has_archive_triggers(&self) -> bool {
        self.facts.own_triggers.iter().any(|trigger| trigger.is_of_archive)
    }

    fn has_triggers(&self) -> bool {
        self.has_delete_triggers() || self.has_archive_triggers()
    }

    /// What the database said of a deletion: a trigger of the host's that raised an error is told by its name.
    fn refused(&self, error: tokio_postgres::Error) -> Error {
        let is_raised = error.as_db_error().is_some_and(|refused| {
            // A row that a BEFORE trigger has changed itself, or what a function says.
            refused.code() == &SqlState::TRIGGERED_DATA_CHANGE_VIOLATION
                || refused.where_().is_some_and(|place| place.contains("function "))
        });
        let is_published = error.code().is_some_and(|code| {
            [SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, SqlState::INVALID_COLUMN_REFERENCE].contains(code)
        });
        let error: Error = error.into();
        if is_published && !is_raised && !self.facts.publications.is_empty() {
            return HostFinding::publication_refuses(self.facts).into();
        }
        if self.has_triggers() && is_raised && error.retry().is_none() && !matches!(error, Error::Unavailable { .. }) {
            warn!(cause = chain(&error), "a trigger raised an error when logs were moved");
            let finding = if self.has_delete_triggers() {
                HostFinding::trigger_refuses(self.facts, None)
            } else {
                HostFinding::archive_raises(self.facts)
            };
            return finding.into();
        }
        error
    }

    /// Compares what was deleted with what should have been.
    fn check_deleted(&self, wanted: u64, deleted: u64) -> Result<()> {
        if wanted == deleted {
            return Ok(());
        }
        let rows = wanted.abs_diff(deleted);
        Err(HostFinding::trigger_refuses(self.facts, Some(rows)).into())
    }
}

/// SQL that is true when a row of the referencing table has the row `e` of the log.
pub(super) fn is_referenced(reference: &Reference) -> String {
    let Reference { table, log_columns, columns, operators, .. } = reference;
    let pairs = log_columns.iter().zip(columns).zip(operators);
    let pairs = pairs.map(|((log, column), operator)| format!("e.{} {operator} x.{column}", quote(log)));
    format!("EXISTS (SELECT FROM {table} x WHERE {})", pairs.collect::<Vec<_>>().join(" AND "))
}

/// A row of `EventLog`: its id alone need not say which, where the table is partitioned.
#[derive(Debug, Default)]
pub(crate) struct LogKeys {
    pub(crate) ids: Vec<String>,
    pub(crate) times: Vec<NaiveDateTime>,
}

/// What [`move_due_batch`] did.
#[derive(Debug)]
pub(crate) struct MovedBatch {
    /// Rows looked at and locked; fewer than the limit when the month has no more.
    pub(crate) seen: u64,
    /// Rows that are now in the archive.
    pub(crate) moved: u64,
    /// Rows whose id or event the archive has already, still in `EventLog` and locked.
    pub(crate) duplicates: LogKeys,
    /// What the host's hash chain is like among the rows that moved.
    pub(crate) findings: BatchFindings,
    /// The last row looked at.
    pub(crate) last: Option<LogPosition>,
    /// What was held while they moved.
    held: Held,
}

/// Moves the next due rows of a month to its partition, which exists, and seals them.
///
/// # Errors
///
/// [`Error::HostRefuses`] when a trigger of the host's keeps rows from being deleted.
pub(crate) async fn move_due_batch(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    request: &BatchRequest<'_>,
) -> Result<MovedBatch> {
    const NONE: &str = r#"SELECT id, "createdAt" FROM due WHERE false"#;
    let BatchRules { started_at, prove, .. } = request.rules;
    let bounds = request.bounds(holds::lock_holds(client).await?);
    let locks_first = log.locks_first();
    let locked = if locks_first { Some(lock_due_rows(client, log, request, &bounds).await?) } else { None };
    let referenced_ids = list_referenced(client, log, request, locked.as_ref()).await?;
    let chain = seals::get_chain(client, request.lease).await?;
    let archived_at = chain.next_archived_at(started_at);
    let partition = partition_name(request.lease.month);
    // LIMIT keeps these look-ups per row: a join could be planned as a scan of whole partitions for every batch.
    let of_id = (!request.is_new).then(|| {
        format!(
            r#"SELECT due.id, due."createdAt" FROM due CROSS JOIN LATERAL (SELECT FROM {partition} a WHERE a.id = due.id LIMIT 1) a"#
        )
    });
    // One look-up per row and candidate, of which there are few.
    let of_event = request.candidates.iter().map(|LedgerRange { month, min, max }| {
        format!(
            r#"SELECT due.id, due."createdAt" FROM due CROSS JOIN LATERAL (
                   SELECT FROM {} a WHERE a."txHash" = due."txHash" AND a."eventIndex" = due."eventIndex" LIMIT 1
               ) a WHERE due.ledger BETWEEN {min} AND {max}"#,
            partition_name(*month)
        )
    });
    let duplicates = of_id.into_iter().chain(of_event).reduce(|sql, select| format!("{sql} UNION {select}"));
    let mut is_free = log.is_free(&bounds);
    if locks_first {
        is_free = format!("{is_free} AND {IS_LOCKED} AND e.id::text NOT IN (SELECT unnest(:referenced))");
    }
    let carried: Vec<_> =
        log.carried(!request.candidates.is_empty()).iter().map(|name| format!(", e.{}", quote(name))).collect();
    let digests = if log.has_archive_triggers() {
        format!("ARRAY(SELECT md5(ROW({})::text) FROM moved)", log.columns.archived_values())
    } else {
        "'{}'::text[]".into()
    };
    if log.is_partitioned() {
        client.batch_execute(ONE_BY_ONE).await?;
    }
    let selected = if prove { log.form.columns() } else { &[] };
    let returning = if prove { format!("RETURNING {}", texts_of_archived(selected)) } else { String::new() };
    let archived_at_text = timestamp(archived_at);
    let statement = Statement::new(include_str!("sql/move_due_batch.sql"))
        .fragment("is_free", is_free)
        .fragment("duplicates", duplicates.unwrap_or_else(|| NONE.into()))
        .fragment("address", log.address())
        .fragment("key", carried.concat())
        .fragment("using", log.using())
        .fragment("partition", partition.as_str())
        .fragment("column_names", log.columns.list(""))
        .fragment("archived_values", log.columns.archived_values())
        .fragment("returned", log.columns.list("e."))
        .fragment("returning", returning)
        .fragment("moved_ids", if log.has_triggers() { "ARRAY(SELECT id::text FROM moved)" } else { "'{}'::text[]" })
        .fragment("moved_digests", digests)
        .bind("archived_at", &archived_at, Type::TIMESTAMP)
        .bind("archived_at_text", &archived_at_text, Type::TEXT)
        .bind("referenced", &referenced_ids, Type::TEXT_ARRAY);
    let statement = request.bind(statement, log, &bounds);
    let mut batch = Batch::new(RowHasher::new(log.form, selected), selected, request.most_named);
    let moved = move_rows(client, log, statement, &mut batch).await?;
    let Summary {
        seen,
        leaving,
        deleted,
        moved_ids,
        moved_digests,
        duplicate_ids,
        duplicate_times,
        last_created_at,
        last_id,
    } = read_summary(client).await?;
    if locks_first {
        log.check_deleted(leaving, deleted)?;
    }
    if moved != deleted {
        let finding = HostFinding::archive_refuses(&partition, deleted.abs_diff(moved));
        return Err(finding.into());
    }
    check_gone(client, log, &moved_ids).await?;
    check_unaltered(client, log, request.lease.month, &moved_ids, &moved_digests).await?;
    let (sealed, findings) = batch.finish();
    if log.columns.have_event_index() {
        check_candidates(request, &sealed)?;
    }
    let seal = Seal::archiving(&chain, request.lease.run, archived_at, log.form);
    seal.insert(client, &sealed, &findings.unlinked).await?;
    let last = last_created_at.map(|created_at| LogPosition { created_at, id: last_id });
    let Locked { seen, last } = locked.unwrap_or(Locked { seen, last });
    let duplicates = LogKeys { ids: duplicate_ids, times: duplicate_times };
    Ok(MovedBatch { seen, moved, duplicates, findings, last, held: bounds.held })
}

/// Runs the statement of a batch, and adds the rows that it returns to `batch`. Returns how many it has inserted.
async fn move_rows(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    statement: Statement<'_>,
    batch: &mut Batch,
) -> Result<u64> {
    let rows = statement.query_stream(client).await;
    let mut rows = pin!(rows.map_err(|error| log.refused(error))?);
    while let Some(row) = rows.try_next().await.map_err(|error| log.refused(error))? {
        batch.add(&read_texts(&row, 0)?);
    }
    rows.rows_affected().ok_or_else(|| unreadable("batch", "it does not say how many rows it has"))
}

/// What move_due_batch.sql says of a batch beside its rows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    seen: u64,
    leaving: u64,
    deleted: u64,
    moved_ids: Vec<String>,
    moved_digests: Vec<String>,
    duplicate_ids: Vec<String>,
    duplicate_times: Vec<NaiveDateTime>,
    last_created_at: Option<NaiveDateTime>,
    last_id: Option<String>,
}

async fn read_summary(client: &impl GenericClient) -> Result<Summary> {
    let row = client.query_typed_one("SELECT current_setting('snapshot_service.batch') AS summary", &[]).await?;
    serde_json::from_str(row.try_get("summary")?).map_err(|error| unreadable("summary", error))
}

/// Checks that no trigger has put rows back that were deleted: they would be there twice.
async fn check_gone(client: &impl GenericClient, log: &LockedLog<'_>, ids: &[String]) -> Result<()> {
    if ids.is_empty() || !log.has_delete_triggers() {
        return Ok(());
    }
    let count = r#"SELECT count(*) AS rows FROM unnest($1) gone (id) JOIN "EventLog" e ON e.id::text = gone.id"#;
    let row = client.query_typed_one(count, &[(&ids, Type::TEXT_ARRAY)]).await?;
    log.check_deleted(0, row.try_get::<_, i64>("rows")?.unsigned_abs())
}

/// Checks that no trigger of the archive has altered rows: they are to be there as they were.
async fn check_unaltered(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    month: Month,
    ids: &Vec<String>,
    digests: &Vec<String>,
) -> Result<()> {
    if digests.is_empty() {
        return Ok(());
    }
    let (partition, columns) = (partition_name(month), log.columns.list("a."));
    let count = format!(
        "SELECT count(*) AS rows FROM unnest($1, $2) moved (id, digest) LEFT JOIN {partition} a ON a.id::text = moved.id \
         WHERE md5(ROW({columns})::text) IS DISTINCT FROM moved.digest"
    );
    let row = client.query_typed_one(&count, &[(ids, Type::TEXT_ARRAY), (digests, Type::TEXT_ARRAY)]).await?;
    match row.try_get::<_, i64>("rows")?.unsigned_abs() {
        0 => Ok(()),
        rows => Err(HostFinding::archive_alters(&partition, rows).into()),
    }
}

/// Checks that no stream that is held now has lost rows to the batch: a held stream may have been given another contract-level id
/// since the holds were read. Rows are locked as they are, so this sees what their writers have committed with them.
///
/// # Errors
///
/// [`Error::Outdated`]: the batch is tried again.
pub(crate) async fn check_holds(client: &impl GenericClient, moved: &MovedBatch) -> Result<()> {
    if moved.held.streams.is_empty() {
        return Ok(());
    }
    let now = holds::list_held_streams(client).await?;
    if now.iter().all(|stream| moved.held.streams.contains(stream)) {
        return Ok(());
    }
    Err(Error::Outdated { what: "a stream under legal hold got another id" })
}

/// Rows that are locked and may be moved, unless they are referenced.
struct Locked {
    seen: u64,
    last: Option<LogPosition>,
}

async fn lock_due_rows(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    request: &BatchRequest<'_>,
    bounds: &Bounds,
) -> Result<Locked> {
    let statement = Statement::new(include_str!("sql/lock_due_rows.sql")).fragment("is_free", log.is_free(bounds));
    let row = request.bind(statement, log, bounds).query_one(client).await?;
    Ok(Locked { seen: row.try_get::<_, i64>("seen")?.unsigned_abs(), last: position(&row)? })
}

async fn list_referenced(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    request: &BatchRequest<'_>,
    locked: Option<&Locked>,
) -> Result<Vec<String>> {
    let references: Vec<_> = log.references().map(is_referenced).collect();
    let Some(last) = locked.and_then(|locked| locked.last.as_ref()) else { return Ok(Vec::new()) };
    if references.is_empty() {
        return Ok(Vec::new());
    }
    let row = Statement::new(include_str!("sql/list_referenced.sql"))
        .fragment("is_locked", IS_LOCKED)
        .fragment("is_referenced", references.join(" OR "))
        .bind("first", &request.after.created_at, Type::TIMESTAMP)
        .bind("last", &last.created_at, Type::TIMESTAMP)
        .query_one(client)
        .await?;
    Ok(row.try_get("ids")?)
}

fn position(row: &tokio_postgres::Row) -> Result<Option<LogPosition>> {
    match row.try_get::<_, Option<NaiveDateTime>>("last_created_at")? {
        Some(created_at) => Ok(Some(LogPosition { created_at, id: row.try_get("last_id")? })),
        None => Ok(None),
    }
}

/// The months that can hold events of the rows of a month under other ids: those whose ledger numbers the rows' meet. Unless `is_exact`, by the
/// numbers of the month's first and last row: nearly always the lowest and the highest, and each batch is checked ([`check_candidates`]).
pub(crate) async fn list_candidates(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    month: Month,
    rules: &BatchRules<'_>,
    is_exact: bool,
) -> Result<Vec<LedgerRange>> {
    const ROWS: &str = r#"SELECT ledger FROM "EventLog" WHERE "createdAt" >= $1 AND "createdAt" < $2"#;
    if rules.archived_before.is_empty() || !log.columns.have_event_index() {
        return Ok(Vec::new());
    }
    // Without an index each of the two would be a look at all rows.
    let rows = if is_exact || !log.facts.log.as_ref().is_some_and(|log| log.has_time_index) {
        ROWS.to_owned()
    } else {
        format!(r#"({ROWS} ORDER BY "createdAt" LIMIT 1) UNION ALL ({ROWS} ORDER BY "createdAt" DESC LIMIT 1)"#)
    };
    let row = client
        .query_typed_one(
            &format!("SELECT min(ledger)::bigint AS min, max(ledger)::bigint AS max FROM ({rows}) r"),
            &[(&month.start(), Type::TIMESTAMP), (&month.end().min(rules.due.cutoff), Type::TIMESTAMP)],
        )
        .await?;
    let (min, max) = (row.try_get::<_, Option<i64>>("min")?, row.try_get::<_, Option<i64>>("max")?);
    Ok(min.zip(max).map_or_else(Vec::new, |(min, max)| meeting(rules.archived_before, min, max).collect()))
}

/// Those of `ranges`, and a little beside them, that meet the numbers from `min` to `max`.
fn meeting(ranges: &[LedgerRange], min: i64, max: i64) -> impl Iterator<Item = LedgerRange> {
    let widened = ranges.iter().map(|range| LedgerRange {
        min: range.min.saturating_sub(LEDGERS_BESIDE),
        max: range.max.saturating_add(LEDGERS_BESIDE),
        ..*range
    });
    widened.filter(move |range| range.min <= max && min <= range.max)
}

/// Checks that the moved rows have no other candidates than those that were listed.
///
/// # Errors
///
/// [`Error::Outdated`]: the batch is tried again, with its candidates listed exactly.
fn check_candidates(request: &BatchRequest<'_>, moved: &SealedRows) -> Result<()> {
    let Some((min, max)) = moved.ledgers() else { return Ok(()) };
    let mut needed = meeting(request.rules.archived_before, min, max);
    if needed.all(|range| request.candidates.contains(&range)) {
        return Ok(());
    }
    Err(Error::Outdated { what: "rows have other ledger numbers than the month's first and last" })
}

/// What [`settle_duplicates`] did.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Rows dropped from `EventLog` that the archive had.
    pub(crate) dropped: u64,
    /// Of these, under the same id.
    pub(crate) already_archived: u64,
    /// Rows whose copies differ; they stay.
    pub(crate) conflicts: Vec<String>,
}

/// Settles rows that the archive has already, `moved.duplicates`, locked by this transaction (domain rule 6): where the contents are
/// the same the row is dropped, where they differ it stays. What is under another id, or has more than the archived row, is a finding
/// of the run.
pub(crate) async fn settle_duplicates(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    request: &BatchRequest<'_>,
    moved: &MovedBatch,
) -> Result<Settled> {
    if moved.duplicates.ids.is_empty() {
        return Ok(Settled::default());
    }
    client.batch_execute(ONE_BY_ONE).await?;
    let is_archived = if log.columns.have_event_index() {
        r#"a.id = e.id OR (a."txHash" = e."txHash" AND a."eventIndex" = e."eventIndex")"#
    } else {
        "a.id = e.id"
    };
    let month = request.lease.month.to_string();
    let row = Statement::new(include_str!("sql/settle_duplicates.sql"))
        .fragment("id_type", log.columns.id_type())
        .fragment("entry_hash", if log.form.has_entry_hashes() { "e.entry_hash::text" } else { "NULL::text" })
        .fragment("archived", request.archived(&log.columns.list("")))
        .fragment("is_archived", is_archived)
        .fragment("is_agreed", log.columns.agree())
        .fragment("is_same_contents", log.columns.same_contents())
        .fragment("has_gap", log.columns.gap())
        .bind("ids", &moved.duplicates.ids, Type::TEXT_ARRAY)
        .bind("times", &moved.duplicates.times, Type::TIMESTAMP_ARRAY)
        .bind("run", &request.lease.run, Type::UUID)
        .bind("month", &month, Type::TEXT)
        .bind("most_kept", &bigint(MAX_KEPT_FINDINGS as u64), Type::INT8)
        .query_one(client)
        .await
        .map_err(|error| log.refused(error))?;
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    let (same, dropped) = (number("same")?, number("dropped")?);
    log.check_deleted(same, dropped)?;
    let conflicts: Vec<String> = row.try_get("conflicts")?;
    if log.has_delete_triggers() {
        let gone = moved.duplicates.ids.iter().filter(|id| !conflicts.contains(id)).cloned();
        check_gone(client, log, &gone.collect::<Vec<_>>()).await?;
    }
    Ok(Settled { dropped, already_archived: number("already_archived")?, conflicts })
}
