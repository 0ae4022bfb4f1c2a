use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tracing::warn;
use uuid::Uuid;

use super::archive_columns::{MirroredColumns, quote};
use super::event_log::{Due, IS_NOT_RESTORED, Position, chain_head};
use super::holds::{self, Held};
use super::ledger::{self, LedgerRange, Seal, SealKind};
use super::partitions::{partition_month, partition_name};
use super::row_form::RowForm;
use super::statement::fill;
use crate::error::{Error, Result, chain};
use crate::host::{HostFacts, HostFinding, Reference, RelationKind};
use crate::model::Month;

/// An event that is archived and ingested again has the ledger number that it had, so it is looked for in the months that
/// have such numbers; and a little beside, so that one is noticed whose number was tampered with.
const LEDGERS_BESIDE: i64 = 1_000;

/// Findings of one kind that a run keeps with their details; the counts beside them are exact.
pub(crate) const MAX_KEPT_FINDINGS: i64 = 1_000;

/// Rows are found by their keys, one by one, whatever the statistics say.
const ONE_BY_ONE: &str =
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off";

/// SQL for the next due rows of a month, locked.
const DUE_ROWS: &str = include_str!("sql/due_rows.sql");

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
    pub(crate) run: Uuid,
    /// Whether to seal the batch and to check its hashes.
    pub(crate) prove: bool,
}

/// Which rows the next batch may take.
#[derive(Debug)]
pub(crate) struct BatchRequest<'a> {
    pub(crate) rules: BatchRules<'a>,
    pub(crate) month: Month,
    /// Partitions, as SQL writes them, that may hold copies of the month's rows. Each has its indexes.
    pub(crate) twin_partitions: &'a [String],
    pub(crate) after: &'a Position,
    pub(crate) limit: u32,
    /// Whether the run has room for more details of hashes that are not their rows'.
    pub(crate) name_mismatches: bool,
}

/// The parameters of [`DUE_ROWS`].
struct Bounds<'a> {
    rules: BatchRules<'a>,
    start: NaiveDateTime,
    end: NaiveDateTime,
    after: &'a Position,
    limit: i64,
    held: &'a Held,
}

impl Bounds<'_> {
    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 9] {
        [
            (&self.rules.due.cutoff, Type::TIMESTAMP),
            (&self.rules.due.has_hashes, Type::BOOL),
            (&self.start, Type::TIMESTAMP),
            (&self.end, Type::TIMESTAMP),
            (&self.after.created_at, Type::TIMESTAMP),
            (&self.after.id, Type::TEXT),
            (&self.limit, Type::INT8),
            (&self.held.streams, Type::TEXT_ARRAY),
            (&self.rules.kept_types, Type::TEXT_ARRAY),
        ]
    }
}

impl BatchRequest<'_> {
    fn bounds<'a>(&'a self, held: &'a Held) -> Bounds<'a> {
        let (start, end, limit) = (self.month.start(), self.end(), i64::from(self.limit));
        Bounds { rules: self.rules, start, end, after: self.after, limit, held }
    }

    fn end(&self) -> NaiveDateTime {
        self.month.end().min(self.rules.due.cutoff)
    }

    /// SQL for some of the rows of `mismatch`, as JSON.
    fn mismatches(&self) -> String {
        if !self.name_mismatches || !self.rules.prove {
            return "'[]'::jsonb".into();
        }
        format!(
            "(SELECT COALESCE(jsonb_agg(jsonb_build_object('id', id, 'entryHash', entry_hash, 'computedHash', content_hash)), '[]') \
             FROM (SELECT * FROM mismatch LIMIT {MAX_KEPT_FINDINGS}) named)"
        )
    }
}

/// The log as a batch finds it under its lock.
#[derive(Debug)]
pub(crate) struct LockedLog<'a> {
    pub(crate) facts: &'a HostFacts,
    pub(crate) columns: MirroredColumns,
    pub(crate) form: RowForm,
}

impl LockedLog<'_> {
    /// Rows of an ordinary table are addressed by their place. A place names a row of one partition, not of a table of them:
    /// there the key finds the row, and the place says that it is that version.
    fn is_partitioned(&self) -> bool {
        self.facts.log.as_ref().is_some_and(|log| log.kind == RelationKind::Partitioned)
    }

    /// Columns, without quotes, by which `due` carries more than the id and the time.
    fn carried(&self) -> Vec<&str> {
        let event: &[&str] = if self.columns.have_event_index() { &["txHash", "eventIndex", "ledger"] } else { &[] };
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
            return Error::HostRefuses { finding: Box::new(HostFinding::publication_refuses(self.facts)) };
        }
        if self.has_triggers() && is_raised && error.retry().is_none() && !matches!(error, Error::Unavailable(_)) {
            warn!(cause = chain(&error), "a trigger raised an error when logs were moved");
            let finding = if self.has_delete_triggers() {
                HostFinding::trigger_refuses(self.facts, None)
            } else {
                HostFinding::archive_raises(self.facts)
            };
            return Error::HostRefuses { finding: Box::new(finding) };
        }
        error
    }

    /// Compares what was deleted with what should have been.
    fn check_deleted(&self, wanted: u64, deleted: u64) -> Result<()> {
        if wanted == deleted {
            return Ok(());
        }
        let rows = wanted.abs_diff(deleted);
        Err(Error::HostRefuses { finding: Box::new(HostFinding::trigger_refuses(self.facts, Some(rows))) })
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

impl LogKeys {
    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 2] {
        [(&self.ids, Type::TEXT_ARRAY), (&self.times, Type::TIMESTAMP_ARRAY)]
    }
}

/// Rows whose entry hash is not that of their contents.
#[derive(Debug, Default)]
pub(crate) struct Mismatches {
    pub(crate) count: u64,
    /// Some of them, with their month.
    pub(crate) named: Vec<(Month, Value)>,
}

impl Mismatches {
    fn add(&mut self, month: Month, row: &tokio_postgres::Row) -> Result<()> {
        self.count += row.try_get::<_, i64>("hash_mismatches")?.unsigned_abs();
        let named: Value = row.try_get("mismatches")?;
        self.named.extend(named.as_array().into_iter().flatten().map(|one| (month, one.clone())));
        Ok(())
    }
}

/// What [`move_due_batch`] did.
#[derive(Debug)]
pub(crate) struct MovedBatch {
    /// Rows looked at and locked; fewer than the limit when the month has no more.
    pub(crate) seen: u64,
    /// Rows that are now in the archive.
    pub(crate) moved: u64,
    /// Rows that the archive had already, still in `EventLog` and locked.
    pub(crate) twins: LogKeys,
    /// Rows whose event the archive has under another id, still in `EventLog` and locked.
    pub(crate) duplicates: LogKeys,
    /// Rows whose entry hash is not that of their contents.
    pub(crate) mismatches: Mismatches,
    /// The last row looked at.
    pub(crate) last: Option<Position>,
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
    const NONE: &str = r#"SELECT NULL::text AS id, NULL::timestamp AS "createdAt" WHERE false"#;
    let BatchRules { started_at, run, prove, .. } = request.rules;
    let held = holds::lock_holds(client).await?;
    let locks_first = log.locks_first();
    let locked = if locks_first { Some(lock_due_rows(client, log, request, &held).await?) } else { None };
    let referenced_ids = list_referenced(client, log, request, locked.as_ref()).await?;
    let ledger_head = ledger::lock_head(client, request.month).await?;
    let archived_at = ledger_head.next_archived_at(started_at);
    let seal = Seal::of_archived(SealKind::Archived, &ledger_head, run, archived_at, &log.form);
    let twins = match union_of("id", request.twin_partitions) {
        // LIMIT keeps this a look-up per row: a join could be planned as a scan of whole partitions for every batch.
        Some(archived) => format!(
            r#"SELECT due.id, due."createdAt" FROM due CROSS JOIN LATERAL (SELECT FROM ({archived}) a WHERE a.id = due.id LIMIT 1) a"#
        ),
        None => NONE.into(),
    };
    let candidates = if log.columns.have_event_index() { list_candidates(client, request).await? } else { Vec::new() };
    // One look-up per row and candidate, of which there are few.
    let duplicates = candidates.iter().map(|LedgerRange { month, min, max }| {
        format!(
            r#"SELECT due.id, due."createdAt" FROM due CROSS JOIN LATERAL (
                   SELECT FROM {} a WHERE a."txHash" = due."txHash" AND a."eventIndex" = due."eventIndex" LIMIT 1
               ) a WHERE due.ledger BETWEEN {min} AND {max} AND due.id NOT IN (SELECT id FROM twin)"#,
            partition_name(*month)
        )
    });
    let duplicates = duplicates.reduce(|sql, select| format!("{sql} UNION {select}")).unwrap_or_else(|| NONE.into());
    let (hashed_columns, proof) = if prove {
        (log.form.hashed_columns(""), seal.sql("archived", 12))
    } else {
        ("1".into(), "mismatch AS (SELECT WHERE false)".into())
    };
    let is_free = is_free(&held);
    let is_free = if locks_first {
        format!("{is_free} AND {IS_LOCKED} AND e.id NOT IN (SELECT unnest($11))")
    } else {
        is_free.into()
    };
    let carried: Vec<_> = log.carried().iter().map(|name| format!(", e.{}", quote(name))).collect();
    let digests = if log.has_archive_triggers() {
        format!("ARRAY(SELECT md5(ROW({})::text) FROM moved)", log.columns.archived_values())
    } else {
        "'{}'::text[]".into()
    };
    let statement = fill(
        include_str!("sql/move_due_batch.sql"),
        &[
            ("chain_head", chain_head(&log.columns)),
            ("twins", &twins),
            ("duplicates", &duplicates),
            ("address", log.address()),
            ("key", &carried.concat()),
            ("due_rows", &fill(DUE_ROWS, &[("is_free", &is_free)])),
            ("using", &log.using()),
            ("partition", &partition_name(request.month)),
            ("columns", &log.columns.list("")),
            ("values", &log.columns.archived_values()),
            ("returned", &log.columns.list("e.")),
            ("proof_columns", &hashed_columns),
            ("moved_ids", if log.has_triggers() { "ARRAY(SELECT id FROM moved)" } else { "'{}'::text[]" }),
            ("moved_digests", &digests),
            ("mismatches", &request.mismatches()),
            ("proof", &proof),
        ],
    );
    if log.is_partitioned() {
        client.batch_execute(ONE_BY_ONE).await?;
    }
    let bounds = request.bounds(&held);
    let more: [(&(dyn ToSql + Sync), Type); 2] = [(&archived_at, Type::TIMESTAMP), (&referenced_ids, Type::TEXT_ARRAY)];
    let parameters = [&bounds.parameters()[..], &more, &seal.parameters()].concat();
    let row = client.query_typed_one(&statement, &parameters).await;
    let row = row.map_err(|error| log.refused(error))?;
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    let (deleted, moved) = (number("deleted")?, number("moved")?);
    if locks_first {
        log.check_deleted(number("leaving")?, deleted)?;
    }
    if moved != deleted {
        let finding = HostFinding::archive_refuses(&partition_name(request.month), deleted.abs_diff(moved));
        return Err(Error::HostRefuses { finding: Box::new(finding) });
    }
    let moved_ids: Vec<String> = row.try_get("moved_ids")?;
    check_gone(client, log, &moved_ids).await?;
    check_unaltered(client, log, request.month, &moved_ids, &row.try_get("moved_digests")?).await?;
    let last = position(&row)?;
    let mut mismatches = Mismatches::default();
    mismatches.add(request.month, &row)?;
    let Locked { seen, last } = locked.unwrap_or(Locked { seen: number("seen")?, last });
    Ok(MovedBatch {
        seen,
        moved,
        twins: LogKeys { ids: row.try_get("twin_ids")?, times: row.try_get("twin_times")? },
        duplicates: LogKeys { ids: row.try_get("duplicate_ids")?, times: row.try_get("duplicate_times")? },
        mismatches,
        last,
        held,
    })
}

/// Checks that no trigger has put rows back that were deleted: they would be there twice.
async fn check_gone(client: &impl GenericClient, log: &LockedLog<'_>, ids: &[String]) -> Result<()> {
    if ids.is_empty() || !log.has_delete_triggers() {
        return Ok(());
    }
    let count = r#"SELECT count(*) AS rows FROM unnest($1) gone (id) JOIN "EventLog" e ON e.id = gone.id"#;
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
        "SELECT count(*) AS rows FROM unnest($1, $2) moved (id, digest) LEFT JOIN {partition} a ON a.id = moved.id \
         WHERE md5(ROW({columns})::text) IS DISTINCT FROM moved.digest"
    );
    let row = client.query_typed_one(&count, &[(ids, Type::TEXT_ARRAY), (digests, Type::TEXT_ARRAY)]).await?;
    match row.try_get::<_, i64>("rows")?.unsigned_abs() {
        0 => Ok(()),
        rows => Err(Error::HostRefuses { finding: Box::new(HostFinding::archive_alters(&partition, rows)) }),
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
    last: Option<Position>,
}

async fn lock_due_rows(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    request: &BatchRequest<'_>,
    held: &Held,
) -> Result<Locked> {
    let due_rows = fill(DUE_ROWS, &[("is_free", is_free(held))]);
    let parts = [("chain_head", chain_head(&log.columns)), ("due_rows", &due_rows)];
    let statement = fill(include_str!("sql/lock_due_rows.sql"), &parts);
    let row = client.query_typed_one(&statement, &request.bounds(held).parameters()).await?;
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
    let parts = [("is_locked", IS_LOCKED), ("is_referenced", &references.join(" OR "))];
    let statement = fill(include_str!("sql/list_referenced.sql"), &parts);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&request.after.created_at, Type::TIMESTAMP), (&last.created_at, Type::TIMESTAMP)];
    Ok(client.query_typed_one(&statement, &parameters).await?.try_get("ids")?)
}

/// SQL that is true when the row `e` may leave as far as restored rows are concerned.
fn is_free(held: &Held) -> &'static str {
    if held.has_restored_rows { IS_NOT_RESTORED } else { "true" }
}

fn position(row: &tokio_postgres::Row) -> Result<Option<Position>> {
    match row.try_get::<_, Option<NaiveDateTime>>("last_created_at")? {
        Some(created_at) => Ok(Some(Position { created_at, id: row.try_get("last_id")? })),
        None => Ok(None),
    }
}

/// The months that can hold events of the next rows under other ids: those whose ledger numbers the rows' meet.
async fn list_candidates(client: &impl GenericClient, request: &BatchRequest<'_>) -> Result<Vec<LedgerRange>> {
    let widened = request.rules.archived_before.iter().map(|range| LedgerRange {
        min: range.min.saturating_sub(LEDGERS_BESIDE),
        max: range.max.saturating_add(LEDGERS_BESIDE),
        ..*range
    });
    let ranges: Vec<_> = widened.collect();
    if ranges.is_empty() {
        return Ok(ranges);
    }
    let row = client
        .query_typed_one(
            r#"SELECT min(ledger)::bigint AS min, max(ledger)::bigint AS max
               FROM (
                   SELECT ledger FROM "EventLog"
                   WHERE "createdAt" >= $1 AND "createdAt" < $2 AND ($3 IS NULL OR ("createdAt", id) > ($1, $3))
                   ORDER BY "createdAt", id LIMIT $4
               ) due"#,
            &[
                (&request.after.created_at, Type::TIMESTAMP),
                (&request.end(), Type::TIMESTAMP),
                (&request.after.id, Type::TEXT),
                // Some may be locked or held: then the batch goes further.
                (&(2 * i64::from(request.limit)), Type::INT8),
            ],
        )
        .await?;
    let (Some(min), Some(max)) = (row.try_get::<_, Option<i64>>("min")?, row.try_get::<_, Option<i64>>("max")?) else {
        return Ok(Vec::new());
    };
    Ok(ranges.into_iter().filter(|range| range.min <= max && min <= range.max).collect())
}

/// `SELECT columns` from each of the partitions, as one list.
pub(super) fn union_of(columns: &str, partitions: &[String]) -> Option<String> {
    let selects = partitions.iter().map(|name| format!("SELECT {columns} FROM {name}"));
    selects.reduce(|sql, select| format!("{sql} UNION ALL {select}"))
}

/// What [`settle_twins`] and [`settle_duplicates`] did.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Rows dropped from `EventLog`, their archived copies being whole now.
    pub(crate) dropped: u64,
    /// Rows whose copies differ; they stay.
    pub(crate) conflicts: Vec<String>,
    /// Archived rows whose entry hash is not that of their contents, now that they have one.
    pub(crate) mismatches: Mismatches,
}

/// Settles rows that the archive has already, `moved.twins`, locked by this transaction (domain rule 6): where the copies
/// agree, what the archived one never got is filled in and the row is dropped; where they differ, it stays.
pub(crate) async fn settle_twins(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    request: &BatchRequest<'_>,
    moved: &MovedBatch,
) -> Result<Settled> {
    let archived =
        union_of(&format!("{}, tableoid::regclass::text AS tableoid", log.columns.list("")), request.twin_partitions);
    let Some(archived) = archived.filter(|_| !moved.twins.ids.is_empty()) else { return Ok(Settled::default()) };
    client.batch_execute(ONE_BY_ONE).await?;
    let parts = [("agree", log.columns.agree()), ("gap", log.columns.gap()), ("twins", archived)];
    let find = fill(include_str!("sql/find_twins.sql"), &parts.each_ref().map(|(name, text)| (*name, text.as_str())));
    let mut settled = Settled::default();
    let mut agreeing = LogKeys::default();
    let mut with_gaps: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in client.query_typed(&find, &moved.twins.parameters()).await? {
        let id: String = row.try_get("id")?;
        if !row.try_get::<_, bool>("agrees")? {
            if settled.conflicts.last() != Some(&id) {
                settled.conflicts.push(id);
            }
            continue;
        }
        if row.try_get("has_gaps")? {
            with_gaps.entry(row.try_get("partition")?).or_default().push(id.clone());
        }
        if agreeing.ids.last() != Some(&id) {
            agreeing.ids.push(id);
            agreeing.times.push(row.try_get("createdAt")?);
        }
    }
    for (partition, ids) in with_gaps {
        complete_rows(client, log, request, &partition, &ids, &mut settled.mismatches).await?;
    }
    let drop = r#"DELETE FROM "EventLog" e USING unnest($1, $2) twin (id, created_at)
                  WHERE e.id = twin.id AND e."createdAt" = twin.created_at"#;
    let dropped = client.execute_typed(drop, &agreeing.parameters()).await;
    settled.dropped = dropped.map_err(|error| log.refused(error))?;
    log.check_deleted(agreeing.ids.len() as u64, settled.dropped)?;
    check_gone(client, log, &agreeing.ids).await?;
    Ok(settled)
}

/// Fills in what adopted rows of `partition` never got, and seals them anew.
async fn complete_rows(
    client: &impl GenericClient,
    log: &LockedLog<'_>,
    request: &BatchRequest<'_>,
    partition: &str,
    ids: &[String],
    mismatches: &mut Mismatches,
) -> Result<()> {
    let month = partition_month(partition)?;
    let head = ledger::lock_head(client, month).await?;
    let sealed = ledger::list_sealed_forms(client, month, &log.form).await?;
    let archived_at = head.next_archived_at(request.rules.started_at);
    let seal = Seal::of_archived(SealKind::Completed, &head, request.rules.run, archived_at, &log.form);
    let statement = fill(
        include_str!("sql/complete_rows.sql"),
        &[
            ("old_digest", &sealed.digest()),
            ("partition", partition),
            ("month", "$3"),
            ("sequence", "$4"),
            ("fill", &log.columns.fill()),
            ("proof_columns", &log.form.hashed_columns("a.")),
            ("mismatches", &request.mismatches()),
            ("proof", &seal.sql("completed", 3)),
        ],
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&ids, Type::TEXT_ARRAY), (&archived_at, Type::TIMESTAMP)];
    let row = client.query_typed_one(&statement, &[&parameters[..], &seal.parameters()].concat()).await?;
    mismatches.add(month, &row)
}

/// Settles rows whose event the archive has under another id, `moved.duplicates`, locked by this transaction: where the
/// contents are the same the row is dropped and kept on record, where they differ it stays. Both are findings of the run.
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
    let before = request.rules.archived_before.iter();
    let partitions: Vec<_> = before.map(|range| partition_name(range.month)).collect();
    let archived = union_of(&log.columns.list(""), &partitions).unwrap_or_default();
    let statement = fill(
        include_str!("sql/settle_duplicates.sql"),
        &[
            ("same_contents", &log.columns.same_contents()),
            ("entry_hash", &log.form.entry_hash("e.")),
            ("archived", &archived),
        ],
    );
    let (run, month) = (request.rules.run, request.month.to_string());
    let more: [(&(dyn ToSql + Sync), Type); 3] =
        [(&run, Type::UUID), (&month, Type::TEXT), (&MAX_KEPT_FINDINGS, Type::INT8)];
    let row = client.query_typed_one(&statement, &[&moved.duplicates.parameters()[..], &more].concat()).await;
    let row = row.map_err(|error| log.refused(error))?;
    let dropped = row.try_get::<_, i64>("dropped")?.unsigned_abs();
    log.check_deleted(row.try_get::<_, i64>("same")?.unsigned_abs(), dropped)?;
    let conflicts: Vec<String> = row.try_get("conflicts")?;
    if log.has_delete_triggers() {
        let gone = moved.duplicates.ids.iter().filter(|id| !conflicts.contains(id)).cloned();
        check_gone(client, log, &gone.collect::<Vec<_>>()).await?;
    }
    Ok(Settled { dropped, conflicts, mismatches: Mismatches::default() })
}
