//! The links of the host's hash chain: where the parents of rows are.
//!
//! Nobody has an index on hashes. A parent is nearly always the row before, so batches look among their own rows; what they do not find is
//! looked for once, at the end of the run, with as little reading as will do.

use std::collections::HashSet;

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::archive_columns::{list_archive_columns, list_typed_columns_of};
use super::decode::{bigint, decode};
use super::host;
use super::moving::MAX_KEPT_FINDINGS;
use super::partitions::{has_partition, partition_name};
use super::statement::Statement;
use super::stream_identity::texts;
use super::verification::{MAX_NAMED, is_of_stream, rows_of};
use crate::error::Result;
use crate::model::{ContractId, Month};
use crate::seal::RowForm;

/// Most links that are followed one by one; where more lead out of a month, all are looked up at once.
const MAX_FOLLOWED: usize = 1_000;

/// Hashes of rows that were dropped as duplicates: they may be parents.
const DROPPED: &str = r#"SELECT "entryHash" FROM "MaintenanceFinding" WHERE kind = 'duplicate_dropped'"#;

/// Looks for the parents that batches did not find among their own rows. Those that are nowhere are findings of the run that archived
/// their rows. Returns how many rows these are.
pub(crate) async fn check_links(client: &impl GenericClient) -> Result<u64> {
    let mut missing = 0;
    let mut months = list_unchecked_months(client).await?;
    if months.is_empty() {
        return Ok(0);
    }
    look_in(client, &ends_of(client, &months).await?, false).await?;
    months = list_unchecked_months(client).await?;
    if months.is_empty() {
        return Ok(0);
    }
    let near = near(client, &months).await?;
    let near = near.iter().map(|partition| format!("SELECT entry_hash::text FROM {partition}"));
    let columns = list_typed_columns_of(client, "EventLog").await?;
    let hot = columns
        .iter()
        .any(|(name, _)| name == "entry_hash")
        .then(|| r#"SELECT entry_hash::text FROM "EventLog""#.into());
    let near: Vec<_> = hot.into_iter().chain([DROPPED.into()]).chain(near).collect();
    look_in(client, &near.join(" UNION ALL "), false).await?;
    for month in list_unchecked_months(client).await? {
        let unverifiable = unverifiable(client, month).await?;
        look_in(client, &unverifiable, false).await?;
    }
    if list_unchecked_months(client).await?.is_empty() {
        return Ok(0);
    }
    for (month, run, rows) in look_in(client, r#"SELECT entry_hash::text FROM "StreamArchive""#, true).await? {
        // Rows that were copied from the former service's archive are no run's.
        let Some(run) = run else { continue };
        missing += rows;
        Statement::new(include_str!("sql/insert_missing_links.sql"))
            .fragment("partition", rows_of(client, month).await?)
            .bind("run", &run, Type::UUID)
            .bind("month", &month.to_string(), Type::TEXT)
            .bind("missing", &bigint(rows), Type::INT8)
            .bind("most_kept", &bigint(MAX_KEPT_FINDINGS as u64), Type::INT8)
            .execute(client)
            .await?;
    }
    Ok(missing)
}

/// Months with rows whose parents were not among their batch, and not looked for elsewhere yet.
pub(crate) async fn list_unchecked_months(client: &impl GenericClient) -> Result<Vec<Month>> {
    let sql = r#"SELECT DISTINCT month FROM "ArchiveSeal" WHERE NOT "linksChecked" ORDER BY month"#;
    client.query_typed(sql, &[]).await?.iter().map(|row| decode(row, "month")).collect()
}

/// Looks for parents among `hashes`. Returns the rows of each run in each month whose parents are nowhere, once `is_last`.
async fn look_in(client: &impl GenericClient, hashes: &str, is_last: bool) -> Result<Vec<(Month, Option<Uuid>, u64)>> {
    let rows = Statement::new(include_str!("sql/check_links.sql"))
        .fragment("hashes", hashes)
        .fragment("is_last", if is_last { "true" } else { "false" })
        .query(client)
        .await?;
    let mut missing: Vec<(Month, Option<Uuid>, u64)> = Vec::new();
    for row in rows {
        let (month, run) = (decode(&row, "month")?, row.try_get("runId")?);
        let rows = row.try_get::<_, i64>("missing")?.unsigned_abs();
        match missing.iter_mut().find(|known| (known.0, known.1) == (month, run)) {
            Some(known) => known.2 += rows,
            None => missing.push((month, run, rows)),
        }
    }
    Ok(missing)
}

/// The partitions of `months` and of those before them: parents are usually there.
async fn near(client: &impl GenericClient, months: &[Month]) -> Result<Vec<String>> {
    Ok(near_months(client, months).await?.into_iter().map(partition_name).collect())
}

async fn near_months(client: &impl GenericClient, months: &[Month]) -> Result<Vec<Month>> {
    let mut near: Vec<Month> = months.iter().flat_map(|month| [month.previous(), *month]).collect();
    near.sort_unstable();
    near.dedup();
    let mut there = Vec::new();
    for month in near {
        if has_partition(client, month).await? {
            there.push(month);
        }
    }
    Ok(there)
}

/// A query for the hashes of the last rows of seals of `months` and of those before them.
async fn ends_of(client: &impl GenericClient, months: &[Month]) -> Result<String> {
    let columns = list_typed_columns_of(client, "StreamArchive").await?;
    let id_type = columns.iter().find(|(name, _)| name == "id").map_or("text", |(_, id_type)| id_type.as_str());
    let ends = near_months(client, months).await?.into_iter().map(|month| {
        Statement::new(include_str!("sql/list_seal_ends.sql"))
            .fragment("partition", partition_name(month))
            .fragment("archived_id_type", id_type)
            .fragment("month_text", format!("'{month}'"))
            .part()
    });
    Ok(ends
        .reduce(|sql, next| format!("{sql} UNION ALL {next}"))
        .unwrap_or_else(|| "SELECT NULL::text WHERE false".into()))
}

/// A query for parents of rows of `month` that nobody can know.
async fn unverifiable(client: &impl GenericClient, month: Month) -> Result<String> {
    let unverifiable = Statement::new(include_str!("sql/list_unverifiable.sql"))
        .fragment("rows", rows_of(client, month).await?)
        .fragment("before", rows_of(client, month.previous()).await?);
    Ok(unverifiable.part())
}

/// Whether these parents, which are not among the rows of a seal of `month`, are the last rows of other seals. Where they are not, all links of
/// the month are to be looked at.
pub(crate) async fn are_seal_ends(client: &impl GenericClient, month: Month, parents: &[String]) -> Result<bool> {
    if parents.is_empty() {
        return Ok(true);
    }
    if parents.len() > MAX_FOLLOWED {
        return Ok(false);
    }
    let row = Statement::new("SELECT NOT EXISTS (SELECT unnest(:parents) EXCEPT (:ends)) AS are_ends")
        .fragment("ends", ends_of(client, &[month]).await?)
        .bind("parents", &parents, Type::TEXT_ARRAY)
        .query_one(client)
        .await?;
    Ok(row.try_get("are_ends")?)
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
    let archive = RowForm::new(list_archive_columns(client).await?);
    let columns = list_typed_columns_of(client, "EventLog").await?;
    let log = RowForm::new(columns.into_iter().map(|(name, _)| name).collect());
    if !archive.has_entry_hashes() || !log.has_entry_hashes() {
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
