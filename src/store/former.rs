//! The tables of the former service. They stay as they are in the host's schema: what is in them is copied.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use tracing::warn;

use super::archive_columns::MirroredColumns;
use super::partitions::{create_partition, partition_name};
use super::seals;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::Month;

/// Rows that one transaction copies. Logs that the former service archived at one instant are copied together, however many they are.
const COPIED_ROWS: i64 = 50_000;

/// The former service's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FormerArchive {
    /// As SQL writes it, with its schema.
    pub(crate) name: String,
    /// Names of its columns.
    pub(crate) columns: Vec<String>,
}

/// The former service's archive, if it is there: a table of the host's schema with the name and the columns that it had.
pub(crate) async fn find_archive(client: &impl GenericClient) -> Result<Option<FormerArchive>> {
    let columns = ["id", "eventType", "streamId", "txHash", "ledger", "createdAt", "archivedAt"];
    let found = find(client, "StreamArchive", &columns).await?;
    Ok(found.map(|(name, columns)| FormerArchive { name, columns }))
}

/// The former service's snapshots, if they are there, as SQL writes the table.
pub(crate) async fn find_snapshots(client: &impl GenericClient) -> Result<Option<String>> {
    let columns = [
        "id",
        "streamId",
        "sender",
        "receiver",
        "tokenAddress",
        "amountPerSecond",
        "totalAmount",
        "status",
        "snapshotMonth",
        "createdAt",
    ];
    Ok(find(client, "StreamSnapshot", &columns).await?.map(|(name, _)| name))
}

async fn find(client: &impl GenericClient, table: &str, columns: &[&str]) -> Result<Option<(String, Vec<String>)>> {
    let row = Statement::new(include_str!("sql/find_former_table.sql"))
        .bind("table", &table, Type::TEXT)
        .bind("columns", &columns, Type::TEXT_ARRAY)
        .query_opt(client)
        .await?;
    row.map(|row| Ok((row.try_get("name")?, row.try_get("columns")?))).transpose()
}

/// What came of the rows of one of the former service's tables.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) rows: u64,
    /// Rows that are in the service's own table, or still in `EventLog`, as they are in the former one.
    pub(crate) equal: u64,
    /// Ids of some whose copy differs.
    pub(crate) differing: Vec<String>,
    /// Ids of some that cannot be copied, since their month or time cannot be.
    pub(crate) left_out: Vec<String>,
}

/// Copies the next snapshots of the former service's table `former` whose ids follow `after`. Returns the last id that was looked at, or
/// none when there are no more, and how many were new.
pub(crate) async fn copy_snapshots(
    client: &impl GenericClient,
    former: &str,
    after: Option<&str>,
) -> Result<(Option<String>, u64)> {
    let row = Statement::new(include_str!("sql/copy_former_snapshots.sql"))
        .fragment("former", former)
        .bind("after", &after, Type::TEXT)
        .bind("limit", &COPIED_ROWS, Type::INT8)
        .query_one(client)
        .await?;
    Ok((row.try_get("last_id")?, row.try_get::<_, i64>("copied")?.unsigned_abs()))
}

/// Months that `former` has logs of, oldest first; of a time that cannot be, none.
pub(crate) async fn list_months(client: &impl GenericClient, former: &FormerArchive) -> Result<Vec<Month>> {
    let rows = client
        .query_typed(
            &format!(
                r#"SELECT DISTINCT to_char(date_trunc('month', "createdAt"::timestamp), 'YYYY-MM') AS month FROM {}
                   WHERE "createdAt" >= '0001-01-01' AND "createdAt" < '10000-01-01' ORDER BY 1"#,
                former.name
            ),
            &[],
        )
        .await?;
    rows.iter().map(|row| row.try_get::<_, &str>("month")?.parse()).collect()
}

/// Copies the next logs of one month of `former` that are neither in `EventLog` nor archived nor restored, and seals them. Returns how
/// many: none when there are no more.
///
/// # Errors
///
/// [`Error::ArchiveColumnsDiffer`] when the archive has no place for a column.
pub(crate) async fn copy_logs(client: &impl GenericClient, former: &FormerArchive, month: Month) -> Result<u64> {
    let columns = MirroredColumns::load(client).await?;
    let missing = columns.list_missing_of(former);
    if !missing.is_empty() {
        let say = |name: &String| {
            format!(
                "{name} is a column of {} and none of \"EventLog\": add it there, or move its contents elsewhere",
                former.name
            )
        };
        return Err(Error::ArchiveColumnsDiffer { columns: missing.iter().map(say).collect() });
    }
    create_partition(client, month, None).await?;
    let chain = seals::lock_chain(client, month).await?;
    if seals::has_unsealed_rows(client, &chain).await? {
        // They would be sealed together with what is copied, and nobody would find them any more.
        warn!(%month, "migration: the archive has rows that no seal has, so nothing is copied to their month: `snapshots verify` names them");
        return Ok(0);
    }
    let (start, end, partition) = (month.start(), month.end(), partition_name(month));
    let copied = Statement::new(include_str!("sql/copy_former_logs.sql"))
        .fragment("former", former.name.as_str())
        .fragment("partition", partition.as_str())
        .fragment("column_names", columns.list(""))
        .fragment("adopted_values", columns.adopted_values(former))
        .bind("sealed_until", &chain.archived_after, Type::TIMESTAMP)
        .bind("month_start", &start, Type::TIMESTAMP)
        .bind("month_end", &end, Type::TIMESTAMP)
        .bind("limit", &COPIED_ROWS, Type::INT8)
        .execute(client)
        .await?;
    if copied > 0 {
        seals::seal_unsealed(client, month).await?;
    }
    Ok(copied)
}

/// Compares the former service's snapshots with the service's own.
pub(crate) async fn compare_snapshots(client: &impl GenericClient, former: &str) -> Result<Comparison> {
    compare(Statement::new(include_str!("sql/compare_former_snapshots.sql")).fragment("former", former), client).await
}

/// Compares the former service's archive with the service's own and with `EventLog`.
pub(crate) async fn compare_logs(client: &impl GenericClient, former: &FormerArchive) -> Result<Comparison> {
    let columns = MirroredColumns::load(client).await?;
    let statement = Statement::new(include_str!("sql/compare_former_logs.sql"))
        .fragment("former", former.name.as_str())
        .fragment("is_archived", columns.is_adopted(former))
        .fragment("is_hot", columns.is_former(former))
        .fragment("id_type", columns.id_type());
    compare(statement, client).await
}

async fn compare(statement: Statement<'_>, client: &impl GenericClient) -> Result<Comparison> {
    let row = statement.query_one(client).await?;
    Ok(Comparison {
        rows: row.try_get::<_, i64>("rows")?.unsigned_abs(),
        equal: row.try_get::<_, i64>("equal")?.unsigned_abs(),
        differing: row.try_get("differing")?,
        left_out: row.try_get("left_out")?,
    })
}

/// Notes how many rows a former table has, so that a run can tell that it has grown.
pub(crate) async fn note_rows(client: &impl GenericClient, table: &str, rows: u64) -> Result<()> {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    client
        .execute_typed(
            r#"INSERT INTO "FormerTable" AS f (name, rows) VALUES ($1, $2)
               ON CONFLICT (name) DO UPDATE SET rows = EXCLUDED.rows WHERE f.rows <> EXCLUDED.rows"#,
            &[(&table, Type::TEXT), (&rows, Type::INT8)],
        )
        .await?;
    Ok(())
}

/// Former tables that have more rows than the last `migrate` has looked at, and how many more.
pub(crate) async fn list_grown(client: &impl GenericClient) -> Result<Vec<(String, u64)>> {
    let snapshots = find_snapshots(client).await?;
    let archive = find_archive(client).await?.map(|archive| archive.name);
    let mut grown = Vec::new();
    for name in snapshots.into_iter().chain(archive) {
        let more = format!(
            r#"SELECT (SELECT count(*) FROM {name}) - COALESCE((SELECT rows FROM "FormerTable" WHERE name = $1), 0) AS more"#
        );
        let more: i64 = client.query_typed_one(&more, &[(&name, Type::TEXT)]).await?.try_get("more")?;
        if more > 0 {
            grown.push((name, more.unsigned_abs()));
        }
    }
    Ok(grown)
}
