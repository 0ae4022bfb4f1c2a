//! The links of the host's hash chain: where the parents of rows are.
//!
//! Nobody has an index on hashes. A parent is nearly always the row before, so batches look among their own rows; what they do not find is
//! looked for once, at the end of the run, with as little reading as will do.

use std::collections::{BTreeMap, HashSet};

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::archive_columns::list_typed_columns_of;
use super::decode::{bigint, decode};
use super::host;
use super::moving::MAX_KEPT_FINDINGS;
use super::partitions::{list_partitions, partition_name};
use super::statement::Statement;
use super::stream_identity::texts;
use super::verification::{MAX_NAMED, is_of_stream, rows_of};
use crate::error::Result;
use crate::model::{ContractId, Month};

/// Most links that are followed one by one; where more lead out of a month, all are looked up at once.
const MAX_FOLLOWED: usize = 1_000;

/// Hashes of rows that were dropped as duplicates: they may be parents.
const DROPPED: &str = r#"SELECT "entryHash" FROM "MaintenanceFinding" WHERE kind = 'duplicate_dropped'"#;

/// A seal with rows whose parents are not among the batch's own.
#[derive(Debug)]
struct Pending {
    month: Month,
    sequence: i32,
    run: Option<Uuid>,
}

/// Looks for the parents that batches did not find among their own rows. Those that are nowhere are findings of the run that archived
/// their rows. Returns how many rows these are.
pub(crate) async fn check_links(client: &impl GenericClient) -> Result<u64> {
    let pending = list_pending(client).await?;
    let mut months = list_unchecked_months(client).await?;
    if months.is_empty() {
        return Ok(0);
    }
    let columns = list_typed_columns_of(client, "StreamArchive").await?;
    if !have_links(&columns) {
        // The host has dropped or renamed the columns since: nothing is known of these links.
        look_in(client, &pending, "SELECT NULL::text WHERE false", true).await?;
        return Ok(0);
    }
    look_in(client, &pending, &ends_of(client, &months, None).await?, false).await?;
    months = list_unchecked_months(client).await?;
    if months.is_empty() {
        return Ok(0);
    }
    let hot = hashes_of_log(client).await?;
    let near = near_months(client, &months).await?.into_iter();
    let near = near.map(|month| format!("SELECT entry_hash::text FROM {}", partition_name(month)));
    let near: Vec<_> = [hot.clone(), DROPPED.into()].into_iter().chain(near).collect();
    look_in(client, &pending, &near.join(" UNION ALL "), false).await?;
    for month in list_unchecked_months(client).await? {
        look_in(client, &pending, &unverifiable(client, month).await?, false).await?;
    }
    if list_unchecked_months(client).await?.is_empty() {
        return Ok(0);
    }
    // All at once, as of one instant: a restore may have moved a parent since the log was looked at.
    let everywhere = format!(r#"SELECT entry_hash::text FROM "StreamArchive" UNION ALL {hot} UNION ALL {DROPPED}"#);
    let mut missing: BTreeMap<(Month, Uuid), Vec<i32>> = BTreeMap::new();
    for Pending { month, sequence, run } in look_in(client, &pending, &everywhere, true).await? {
        // Rows that were copied from the former service's archive are no run's.
        if let Some(run) = run {
            missing.entry((month, run)).or_default().push(sequence);
        }
    }
    let mut rows = 0;
    for ((month, run), sequences) in missing {
        let counted = Statement::new(include_str!("sql/insert_missing_links.sql"))
            .fragment("partition", rows_of(client, month).await?)
            .bind("run", &run, Type::UUID)
            .bind("month", &month.to_string(), Type::TEXT)
            .bind("sequences", &sequences, Type::INT4_ARRAY)
            .bind("most_kept", &bigint(MAX_KEPT_FINDINGS as u64), Type::INT8)
            .query_one(client)
            .await?;
        rows += counted.try_get::<_, i64>("missing")?.unsigned_abs();
    }
    Ok(rows)
}

/// Whether rows with these columns name their parents.
fn have_links(columns: &[(String, String)]) -> bool {
    ["parent_hash", "entry_hash"].iter().all(|wanted| columns.iter().any(|(name, _)| name == wanted))
}

/// A query for the hashes of `EventLog`, of which there are none where the host has dropped the column.
async fn hashes_of_log(client: &impl GenericClient) -> Result<String> {
    let columns = list_typed_columns_of(client, "EventLog").await?;
    let has_hashes = columns.iter().any(|(name, _)| name == "entry_hash");
    Ok(if has_hashes { r#"SELECT entry_hash::text FROM "EventLog""# } else { "SELECT NULL::text WHERE false" }.into())
}

async fn list_pending(client: &impl GenericClient) -> Result<Vec<Pending>> {
    let sql = r#"SELECT month, sequence, "runId" FROM "ArchiveSeal" WHERE NOT "linksChecked" ORDER BY month, sequence"#;
    client.query_typed(sql, &[]).await?.iter().map(parse_pending).collect()
}

fn parse_pending(row: &Row) -> Result<Pending> {
    Ok(Pending { month: decode(row, "month")?, sequence: row.try_get("sequence")?, run: row.try_get("runId")? })
}

/// Months with rows whose parents were not among their batch, and not looked for elsewhere yet.
pub(crate) async fn list_unchecked_months(client: &impl GenericClient) -> Result<Vec<Month>> {
    let sql = r#"SELECT DISTINCT month FROM "ArchiveSeal" WHERE NOT "linksChecked" ORDER BY month"#;
    client.query_typed(sql, &[]).await?.iter().map(|row| decode(row, "month")).collect()
}

/// Looks for the parents of `pending` among `hashes`. Returns the seals that have parents left, once `is_last`.
async fn look_in(
    client: &impl GenericClient,
    pending: &[Pending],
    hashes: &str,
    is_last: bool,
) -> Result<Vec<Pending>> {
    let months: Vec<_> = pending.iter().map(|seal| seal.month.to_string()).collect();
    let sequences: Vec<_> = pending.iter().map(|seal| seal.sequence).collect();
    let rows = Statement::new(include_str!("sql/check_links.sql"))
        .fragment("hashes", hashes)
        .fragment("is_last", if is_last { "true" } else { "false" })
        .bind("months", &months, Type::TEXT_ARRAY)
        .bind("sequences", &sequences, Type::INT4_ARRAY)
        .query(client)
        .await?;
    rows.iter().map(parse_pending).collect()
}

/// `months` and those before them that the archive has: parents are usually there.
async fn near_months(client: &impl GenericClient, months: &[Month]) -> Result<Vec<Month>> {
    let there = list_partitions(client).await?;
    let before = months.iter().filter_map(|month| there.iter().rev().find(|other| *other < month));
    let mut near: Vec<Month> = months.iter().filter(|month| there.contains(month)).chain(before).copied().collect();
    near.sort_unstable();
    near.dedup();
    Ok(near)
}

/// A query for the hashes of the last rows of seals of `months` and of those before them; where there is a `next` seal, of one month, only for
/// that of the seal before it.
async fn ends_of(client: &impl GenericClient, months: &[Month], next: Option<i32>) -> Result<String> {
    let columns = list_typed_columns_of(client, "StreamArchive").await?;
    let id_type = columns.iter().find(|(name, _)| name == "id").map_or("text", |(_, id_type)| id_type.as_str());
    let ends = near_months(client, months).await?.into_iter().map(|month| {
        let is_wanted = next.map_or("true".into(), |next| {
            let next = if months.contains(&month) { next } else { i32::MAX };
            format!(
                r#"s.sequence = (SELECT max(l.sequence) FROM "ArchiveSeal" l
                   WHERE l.month = s.month AND l.kind <> 'restored' AND l.sequence < {next})"#
            )
        });
        Statement::new(include_str!("sql/list_seal_ends.sql"))
            .fragment("partition", partition_name(month))
            .fragment("is_last_row", is_last_row(id_type))
            .fragment("is_wanted", is_wanted)
            .fragment("month_text", format!("'{month}'"))
            .part()
    });
    Ok(ends
        .reduce(|sql, next| format!("{sql} UNION ALL {next}"))
        .unwrap_or_else(|| "SELECT NULL::text WHERE false".into()))
}

/// SQL that is true when the row `a` has the id that the seal `s` ends with, by the index where that can be. An altered seal may have any text.
fn is_last_row(id_type: &str) -> String {
    let pattern = match id_type {
        "text" | "character varying" => return r#"a.id = s."lastId""#.into(),
        "uuid" => "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        "bigint" => "^-?[0-9]{1,18}$",
        "integer" => "^-?[0-9]{1,9}$",
        _ => return r#"a.id::text = s."lastId""#.into(),
    };
    format!(r#"a.id = CASE WHEN s."lastId" ~ '{pattern}' THEN CAST(s."lastId" AS {id_type}) END"#)
}

/// A query for parents of rows of `month` that nobody can know.
async fn unverifiable(client: &impl GenericClient, month: Month) -> Result<String> {
    let unverifiable = Statement::new(include_str!("sql/list_unverifiable.sql"))
        .fragment("rows", rows_of(client, month).await?)
        .fragment("before", rows_of(client, month.previous()).await?);
    Ok(unverifiable.part())
}

/// Whether these parents, which are not among the rows of the seal `sequence` of `month`, are the last rows of other seals. Where they are
/// not, all links of the month are to be looked at.
pub(crate) async fn are_seal_ends(
    client: &impl GenericClient,
    month: Month,
    sequence: i32,
    parents: &[String],
) -> Result<bool> {
    if parents.is_empty() {
        return Ok(true);
    }
    if parents.len() > MAX_FOLLOWED {
        return Ok(false);
    }
    // Nearly always it is the one before.
    for next in [Some(sequence), None] {
        let row = Statement::new("SELECT NOT EXISTS (SELECT unnest(:parents) EXCEPT (:ends)) AS are_ends")
            .fragment("ends", ends_of(client, &[month], next).await?)
            .bind("parents", &parents, Type::TEXT_ARRAY)
            .query_one(client)
            .await?;
        if row.try_get("are_ends")? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rows whose parent is nowhere.
#[derive(Debug, Default)]
pub(crate) struct Unlinked {
    /// Those whose parent was there when they were archived.
    pub(crate) broken: Named,
    /// Those whose parent was nowhere then, or which are no archived rows.
    pub(crate) missing: Named,
}

/// Rows that are counted.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) count: u64,
    /// The first of them: id and `parent_hash`.
    pub(crate) rows: Vec<(String, String)>,
}

impl Named {
    fn all(rows: Vec<(String, String)>) -> Self {
        Self { count: rows.len() as u64, rows }
    }
}

/// Rows of a month of the archive, or of `EventLog`, whose parent is no row of either table.
pub(crate) async fn list_unlinked(
    client: &impl GenericClient,
    month: Option<Month>,
    stream: Option<&[ContractId]>,
) -> Result<Unlinked> {
    let table = if month.is_some() { "StreamArchive" } else { "EventLog" };
    if !have_links(&list_typed_columns_of(client, table).await?) {
        return Ok(Unlinked::default());
    }
    let rows = match month {
        Some(month) => rows_of(client, month).await?,
        None => r#""EventLog""#.into(),
    };
    let unlinked = find_unlinked(client, &rows, stream, bigint(MAX_FOLLOWED as u64 + 1)).await?;
    if unlinked.is_empty() {
        return Ok(Unlinked::default());
    }
    // A parent that row security hides is not missing.
    host::refuse_hidden_logs(client, host::are_logs_filtered(client).await?).await?;
    if unlinked.len() > MAX_FOLLOWED {
        return count_unlinked(client, month, &rows, stream).await;
    }
    let nowhere = follow(client, month, unlinked).await?;
    let Some(month) = month else {
        return Ok(Unlinked { broken: Named::default(), missing: Named::all(nowhere) });
    };
    let mut broken = nowhere.clone();
    let was_missing = Statement::new("SELECT hash FROM (:was_missing) missing (hash) WHERE hash = ANY (:hashes)");
    remove_found(client, was_missing.fragment("was_missing", was_missing_in(month)), &mut broken).await?;
    let missing = nowhere.into_iter().filter(|row| !broken.contains(row)).collect();
    Ok(Unlinked { broken: Named::all(broken), missing: Named::all(missing) })
}

/// A query for the parents of rows of `month` that were nowhere when these were archived.
fn was_missing_in(month: Month) -> String {
    format!(r#"SELECT unnest(unlinked) FROM "ArchiveSeal" WHERE month = '{month}'"#)
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
            .fragment("unverifiable", unverifiable(client, month).await?)
            .fragment("was_missing", was_missing_in(month)),
        None => statement
            .fragment("unverifiable", "SELECT NULL::text WHERE false")
            .fragment("was_missing", "SELECT u.parent_hash"),
    };
    let found = statement
        .fragment("rows", rows)
        .fragment("hot", hashes_of_log(client).await?)
        .fragment("of_stream", is_of_stream("r", stream))
        .bind("contract_ids", &stream.map(texts), Type::TEXT_ARRAY)
        .bind("limit", &bigint(MAX_NAMED as u64), Type::INT8)
        .query(client)
        .await?;
    let mut unlinked = Unlinked::default();
    for row in found {
        let (ids, parents): (Vec<String>, Vec<String>) = (row.try_get("ids")?, row.try_get("parents")?);
        let count = row.try_get::<_, i64>("count")?.unsigned_abs();
        let named = Named { count, rows: ids.into_iter().zip(parents).collect() };
        *if row.try_get("was_missing")? { &mut unlinked.missing } else { &mut unlinked.broken } = named;
    }
    Ok(unlinked)
}

/// Leaves of `unlinked` those whose parent is nowhere. Looks where parents usually are first: in the month before, then in
/// `EventLog`, then in all the archive.
async fn follow(
    client: &impl GenericClient,
    month: Option<Month>,
    mut unlinked: Vec<(String, String)>,
) -> Result<Vec<(String, String)>> {
    if let Some(month) = month {
        let before = Statement::new("SELECT entry_hash::text FROM :before p WHERE entry_hash::text = ANY (:hashes)")
            .fragment("before", rows_of(client, month.previous()).await?);
        remove_found(client, before, &mut unlinked).await?;
    }
    let among = |hashes: String| {
        Statement::new("SELECT hash FROM (:among) known (hash) WHERE hash = ANY (:hashes)").fragment("among", hashes)
    };
    remove_found(client, among(hashes_of_log(client).await?), &mut unlinked).await?;
    let dropped = r#"SELECT "entryHash" FROM "MaintenanceFinding"
        WHERE kind = 'duplicate_dropped' AND "entryHash" = ANY (:hashes)"#;
    remove_found(client, Statement::new(dropped), &mut unlinked).await?;
    if let Some(month) = month.filter(|_| !unlinked.is_empty()) {
        let unverifiable = Statement::new(include_str!("sql/find_unverifiable.sql"))
            .fragment("rows", rows_of(client, month).await?)
            .fragment("before", rows_of(client, month.previous()).await?);
        remove_found(client, unverifiable, &mut unlinked).await?;
    }
    let columns = list_typed_columns_of(client, "StreamArchive").await?;
    if have_links(&columns) {
        let archived = among(r#"SELECT entry_hash::text FROM "StreamArchive""#.into());
        remove_found(client, archived, &mut unlinked).await?;
    }
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
