use std::collections::BTreeMap;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;
use tokio_postgres::types::{ToSql, Type};

use uuid::Uuid;

use super::archive_columns::MirroredColumns;
use super::holds::{self, HELD_STREAMS};
use super::ledger::{self, LedgerRange, Seal, SealKind};
use super::partitions::{partition_month, partition_name};
use super::row_form::RowForm;
use crate::error::Result;
use crate::model::Month;

/// SQL that is true when the row `e` was not restored, or was released since.
const IS_NOT_RESTORED: &str = r#"NOT EXISTS (SELECT FROM "RestoredLog" r WHERE r.id = e.id)"#;

/// An event that is archived and ingested again has the ledger number that it had, so it is looked for in the months that
/// have such numbers; and a little beside, so that one is noticed whose number was tampered with.
const LEDGERS_BESIDE: i64 = 1_000;

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
pub(crate) struct Position {
    pub(crate) created_at: NaiveDateTime,
    pub(crate) id: String,
}

impl Position {
    /// Before all rows: the year 1 is older than anything that a host's clock has ever said.
    pub(crate) fn first() -> Self {
        Self::before(NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or_default().and_time(NaiveTime::MIN))
    }

    /// Before all rows created at or after `created_at`: no id is empty.
    pub(crate) fn before(created_at: NaiveDateTime) -> Self {
        Self { created_at, id: String::new() }
    }
}

/// Keeps the columns of `EventLog` as they are until the transaction ends; rows can still be written.
pub(crate) async fn lock_columns(client: &impl GenericClient) -> Result<()> {
    client.batch_execute(r#"LOCK TABLE "EventLog" IN ROW EXCLUSIVE MODE"#).await?;
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
            r#"SELECT CASE WHEN (SELECT max("createdAt") FROM "EventLog") < $1
                           THEN EXISTS (SELECT FROM "EventLog" WHERE entry_hash IS NOT NULL) ELSE false END AS has_hashes"#,
            &[(&cutoff, Type::TIMESTAMP)],
        )
        .await?;
    Ok(row.try_get("has_hashes")?)
}

/// What [`find_next_due`] found.
#[derive(Debug)]
pub(crate) struct NextDue {
    /// When the oldest due row was created.
    pub(crate) created_at: Option<NaiveDateTime>,
    /// The due row that stays as the chain's head.
    pub(crate) chain_head: Option<String>,
}

/// The oldest due row after `after`, and the one that is held back.
pub(crate) async fn find_next_due(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    due: Due,
    after: &Position,
) -> Result<NextDue> {
    let statement = include_str!("sql/find_next_due.sql").replace("{chain_head}", chain_head(columns));
    let row = client
        .query_typed_one(
            &statement,
            &[
                (&due.cutoff, Type::TIMESTAMP),
                (&due.has_hashes, Type::BOOL),
                (&after.created_at, Type::TIMESTAMP),
                (&after.id, Type::TEXT),
            ],
        )
        .await?;
    Ok(NextDue { created_at: row.try_get("created_at")?, chain_head: row.try_get("head_id")? })
}

/// Which rows the next batch may take.
#[derive(Debug)]
pub(crate) struct BatchRequest<'a> {
    pub(crate) due: Due,
    pub(crate) month: Month,
    /// Partitions, as SQL writes them, that may hold copies of the month's rows. Each has its indexes.
    pub(crate) twin_partitions: &'a [String],
    /// Months that may hold the month's events under other ids. Their partitions have their indexes.
    pub(crate) archived_before: &'a [LedgerRange],
    pub(crate) after: &'a Position,
    pub(crate) limit: u32,
    /// The run's start.
    pub(crate) started_at: NaiveDateTime,
    pub(crate) run: Uuid,
    /// Whether to seal the batch and to check its hashes.
    pub(crate) prove: bool,
}

/// What [`move_due_batch`] did.
#[derive(Debug)]
pub(crate) struct MovedBatch {
    /// Rows looked at and locked; fewer than the limit when the month has no more.
    pub(crate) seen: u64,
    /// Rows that are now in the archive.
    pub(crate) moved: u64,
    /// Rows that the archive had already, still in `EventLog` and locked.
    pub(crate) twins: Vec<String>,
    /// Rows whose event the archive has under another id, still in `EventLog` and locked.
    pub(crate) duplicates: Vec<String>,
    /// Rows left out because another session has locked or just changed them.
    pub(crate) in_use: u64,
    /// Rows left out because their stream is under legal hold.
    pub(crate) on_hold: u64,
    /// Rows left out because they were restored and not released.
    pub(crate) restored: u64,
    /// Rows whose entry hash is not that of their contents.
    pub(crate) hash_mismatches: u64,
    /// The last row looked at.
    pub(crate) last: Option<Position>,
}

/// Moves the next due rows of a month to its partition, which exists, and seals them.
pub(crate) async fn move_due_batch(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    form: &RowForm,
    request: &BatchRequest<'_>,
) -> Result<MovedBatch> {
    const NONE: &str = "SELECT NULL::text AS id WHERE false";
    let on_hold = holds::lock_holds(client).await?;
    let head = ledger::lock_head(client, request.month).await?;
    let archived_at = head.next_archived_at(request.started_at);
    let seal = Seal::of_archived(SealKind::Archived, &head, request.run, archived_at, form);
    let twins = match union_of("id", request.twin_partitions) {
        // LIMIT keeps this a look-up per row: a join could be planned as a scan of whole partitions for every batch.
        Some(archived) => format!(
            "SELECT due.id FROM due CROSS JOIN LATERAL (SELECT FROM ({archived}) a WHERE a.id = due.id LIMIT 1) a"
        ),
        None => NONE.into(),
    };
    let has_key = columns.have_event_index();
    let candidates = if has_key { list_candidates(client, request).await? } else { Vec::new() };
    // One look-up per row and candidate, of which there are few.
    let duplicates = candidates.iter().map(|LedgerRange { month, min, max }| {
        format!(
            r#"SELECT due.id FROM due CROSS JOIN LATERAL (
                   SELECT FROM {} a WHERE a."txHash" = due."txHash" AND a."eventIndex" = due."eventIndex" LIMIT 1
               ) a WHERE due.ledger BETWEEN {min} AND {max} AND due.id NOT IN (SELECT id FROM twin)"#,
            partition_name(*month)
        )
    });
    let duplicates = duplicates.reduce(|sql, select| format!("{sql} UNION {select}")).unwrap_or_else(|| NONE.into());
    let is_free = if on_hold.has_restored_rows { IS_NOT_RESTORED } else { "true" };
    let (proof_columns, proof) = if request.prove {
        (form.proof_columns(""), seal.sql("archived", 10))
    } else {
        ("1".into(), "mismatch AS (SELECT WHERE false)".into())
    };
    let statement = include_str!("sql/move_due_batch.sql")
        .replace("{chain_head}", chain_head(columns))
        .replace("{twins}", &twins)
        .replace("{duplicates}", &duplicates)
        .replace("{key}", if has_key { r#", e."txHash", e."eventIndex", e.ledger"# } else { "" })
        .replace("{is_free}", is_free)
        .replace("{partition}", &partition_name(request.month))
        .replace("{columns}", &columns.list(""))
        .replace("{returned}", &columns.list("e."))
        .replace("{proof_columns}", &proof_columns)
        .replace("{proof}", &proof);
    let end = request.month.end().min(request.due.cutoff);
    let (start, limit) = (request.month.start(), i64::from(request.limit));
    let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
        (&request.due.cutoff, Type::TIMESTAMP),
        (&request.due.has_hashes, Type::BOOL),
        (&start, Type::TIMESTAMP),
        (&end, Type::TIMESTAMP),
        (&request.after.created_at, Type::TIMESTAMP),
        (&request.after.id, Type::TEXT),
        (&limit, Type::INT8),
        (&archived_at, Type::TIMESTAMP),
        (&on_hold.streams, Type::TEXT_ARRAY),
    ];
    let row = client.query_typed_one(&statement, &[&parameters[..], &seal.parameters()].concat()).await?;
    let last = match row.try_get::<_, Option<NaiveDateTime>>("last_created_at")? {
        Some(created_at) => Some(Position { created_at, id: row.try_get("last_id")? }),
        None => None,
    };
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    Ok(MovedBatch {
        seen: number("seen")?,
        moved: number("moved")?,
        twins: row.try_get("twin_ids")?,
        duplicates: row.try_get("duplicate_ids")?,
        in_use: number("in_use")?,
        on_hold: number("on_hold")?,
        restored: number("restored")?,
        hash_mismatches: number("hash_mismatches")?,
        last,
    })
}

/// The months that can hold events of the next rows under other ids: those whose ledger numbers the rows' meet.
async fn list_candidates(client: &impl GenericClient, request: &BatchRequest<'_>) -> Result<Vec<LedgerRange>> {
    let widened = request.archived_before.iter().map(|range| LedgerRange {
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
                   WHERE "createdAt" >= $1 AND "createdAt" < $2 AND ("createdAt", id) > ($1, $3)
                   ORDER BY "createdAt", id LIMIT $4
               ) due"#,
            &[
                (&request.after.created_at, Type::TIMESTAMP),
                (&request.month.end().min(request.due.cutoff), Type::TIMESTAMP),
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
fn union_of(columns: &str, partitions: &[String]) -> Option<String> {
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
    pub(crate) hash_mismatches: u64,
}

/// Settles rows that the archive has already, `moved.twins`, locked by this transaction (domain rule 6): where the copies
/// agree, what the archived one never got is filled in and the row is dropped; where they differ, it stays.
pub(crate) async fn settle_twins(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    form: &RowForm,
    request: &BatchRequest<'_>,
    moved: &MovedBatch,
) -> Result<Settled> {
    let archived =
        union_of(&format!("{}, tableoid::regclass::text AS partition", columns.list("")), request.twin_partitions);
    let Some(archived) = archived.filter(|_| !moved.twins.is_empty()) else { return Ok(Settled::default()) };
    let find = include_str!("sql/find_twins.sql")
        .replace("{agree}", &columns.agree())
        .replace("{gap}", &columns.gap())
        .replace("{twins}", &archived);
    let mut settled = Settled::default();
    let mut agreeing = Vec::new();
    let mut with_gaps: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in client.query_typed(&find, &[(&moved.twins, Type::TEXT_ARRAY)]).await? {
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
        agreeing.push(id);
    }
    for (partition, ids) in with_gaps {
        settled.hash_mismatches += complete_rows(client, columns, form, request, &partition, &ids).await?;
    }
    let drop = r#"DELETE FROM "EventLog" WHERE id = ANY ($1)"#;
    settled.dropped = client.execute_typed(drop, &[(&agreeing, Type::TEXT_ARRAY)]).await?;
    Ok(settled)
}

/// Fills in what adopted rows of `partition` never got, and seals them anew. Returns how many have a hash that is not theirs.
async fn complete_rows(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    form: &RowForm,
    request: &BatchRequest<'_>,
    partition: &str,
    ids: &[String],
) -> Result<u64> {
    let month = partition_month(partition)?;
    let head = ledger::lock_head(client, month).await?;
    let sealed = ledger::list_sealed_forms(client, month, form).await?;
    let archived_at = head.next_archived_at(request.started_at);
    let seal = Seal::of_archived(SealKind::Completed, &head, request.run, archived_at, form);
    let statement = include_str!("sql/complete_rows.sql")
        .replace("{old_digest}", &sealed.digest())
        .replace("{partition}", partition)
        .replace("{month}", "$3")
        .replace("{sequence}", "$4")
        .replace("{fill}", &columns.fill())
        .replace("{proof_columns}", &form.proof_columns("a."))
        .replace("{proof}", &seal.sql("completed", 3));
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&ids, Type::TEXT_ARRAY), (&archived_at, Type::TIMESTAMP)];
    let row = client.query_typed_one(&statement, &[&parameters[..], &seal.parameters()].concat()).await?;
    Ok(row.try_get::<_, i64>("hash_mismatches")?.unsigned_abs())
}

/// Settles rows whose event the archive has under another id, `moved.duplicates`, locked by this transaction: where the
/// contents are the same the row is dropped and kept on record, where they differ it stays. Both are findings of the run.
pub(crate) async fn settle_duplicates(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    request: &BatchRequest<'_>,
    moved: &MovedBatch,
) -> Result<Settled> {
    if moved.duplicates.is_empty() {
        return Ok(Settled::default());
    }
    let partitions: Vec<_> = request.archived_before.iter().map(|range| partition_name(range.month)).collect();
    let archived = union_of(&columns.list(""), &partitions).unwrap_or_default();
    let statement = include_str!("sql/settle_duplicates.sql")
        .replace("{same_contents}", &columns.same_contents())
        .replace("{archived}", &archived);
    let row = client
        .query_typed_one(
            &statement,
            &[
                (&moved.duplicates, Type::TEXT_ARRAY),
                (&request.run, Type::UUID),
                (&request.month.to_string(), Type::TEXT),
            ],
        )
        .await?;
    let dropped = row.try_get::<_, i64>("dropped")?.unsigned_abs();
    Ok(Settled { dropped, conflicts: row.try_get("conflicts")?, hash_mismatches: 0 })
}

/// The due row that stays as the chain's head, if one does.
pub(crate) async fn find_chain_head(
    client: &impl GenericClient,
    columns: &MirroredColumns,
    due: Due,
) -> Result<Option<String>> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&due.cutoff, Type::TIMESTAMP), (&due.has_hashes, Type::BOOL)];
    let row = client.query_typed_opt(chain_head(columns), &parameters).await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?.flatten())
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
    max_rows: u64,
) -> Result<bool> {
    let sql = format!(
        r#"SELECT count(*) > $2 AS more FROM (
               SELECT FROM "EventLog" e
               WHERE e."createdAt" < $1 AND e."streamId" NOT IN ({HELD_STREAMS}) AND {IS_NOT_RESTORED}
               LIMIT $2 + 1
           ) due"#
    );
    let max_rows = i64::try_from(max_rows).unwrap_or(i64::MAX - 1);
    let row = client.query_typed_one(&sql, &[(&cutoff, Type::TIMESTAMP), (&max_rows, Type::INT8)]).await?;
    Ok(row.try_get("more")?)
}

/// The rows of one month that are due, without the chain's head.
#[derive(Debug)]
pub(crate) struct DueRows {
    /// Those that are not held, by event type.
    pub(crate) event_types: BTreeMap<String, u64>,
    /// Those under legal hold.
    pub(crate) on_hold: u64,
    /// Others that were restored and not released.
    pub(crate) restored: u64,
}

/// Counts the due rows of one month.
pub(crate) async fn count_due_rows(
    client: &impl GenericClient,
    month: Month,
    cutoff: NaiveDateTime,
    chain_head: Option<&str>,
) -> Result<DueRows> {
    let sql = format!(
        r#"SELECT "eventType", count(*) FILTER (WHERE NOT is_held AND is_free) AS rows,
                  count(*) FILTER (WHERE is_held) AS on_hold, count(*) FILTER (WHERE NOT is_held AND NOT is_free) AS restored
           FROM (
               SELECT e."eventType", e."streamId" IN ({HELD_STREAMS}) AS is_held, {IS_NOT_RESTORED} AS is_free
               FROM "EventLog" e
               WHERE e."createdAt" >= $1 AND e."createdAt" < $2 AND e.id IS DISTINCT FROM $3
           ) due
           GROUP BY "eventType""#
    );
    let end = month.end().min(cutoff);
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&month.start(), Type::TIMESTAMP), (&end, Type::TIMESTAMP), (&chain_head, Type::TEXT)];
    let mut due = DueRows { event_types: BTreeMap::new(), on_hold: 0, restored: 0 };
    for row in client.query_typed(&sql, &parameters).await? {
        let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
        let rows = number("rows")?;
        if rows > 0 {
            due.event_types.insert(row.try_get("eventType")?, rows);
        }
        due.on_hold += number("on_hold")?;
        due.restored += number("restored")?;
    }
    Ok(due)
}

/// Whether this session's role may [`vacuum`]. Else PostgreSQL would pass over the table with a warning that nobody
/// sees.
pub(crate) async fn may_vacuum(client: &impl GenericClient) -> Result<bool> {
    let row = client.query_typed_one(include_str!("sql/may_vacuum.sql"), &[]).await?;
    Ok(row.try_get("may_vacuum")?)
}

/// Frees the place of moved rows for new ones and brings the statistics up to date, unless somebody else does so now.
pub(crate) async fn vacuum(client: &impl GenericClient) -> Result<()> {
    client.batch_execute(r#"VACUUM (ANALYZE, SKIP_LOCKED) "EventLog""#).await?;
    Ok(())
}

/// The look-up of the chain's head; a host without hashes has none.
fn chain_head(columns: &MirroredColumns) -> &'static str {
    // Both parameters are named so that their types are known.
    const NONE: &str = "SELECT NULL::text AS id WHERE $1 IS NULL AND $2";
    if columns.have_hashes() { include_str!("sql/chain_head.sql") } else { NONE }
}
