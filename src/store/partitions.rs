use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::decode::decode;
use crate::error::Result;
use crate::model::Month;

/// Makes the archive's partition of `month`, without indexes, unless it is there.
pub(crate) async fn create_partition(client: &impl GenericClient, month: Month) -> Result<()> {
    let start = month.start();
    client.execute_typed("SELECT stream_archive_create_partition($1)", &[(&start, Type::TIMESTAMP)]).await?;
    Ok(())
}

/// Builds the next index that the partition of `month` lacks. Returns whether there was one.
pub(crate) async fn build_next_index(client: &impl GenericClient, month: Month) -> Result<bool> {
    // A restore and an archiving run may come to it at once: the second one sees what the first one has built. It must be a
    // table's lock, which makes the session look at the catalog anew.
    client.batch_execute(&format!("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE", partition_name(month))).await?;
    let sql = "SELECT stream_archive_index_partition($1) AS built";
    Ok(client.query_typed_one(sql, &[(&month.start(), Type::TIMESTAMP)]).await?.try_get("built")?)
}

/// Whether the archive has a partition of `month`.
pub(crate) async fn has_partition(client: &impl GenericClient, month: Month) -> Result<bool> {
    let row = client
        .query_typed_one(
            "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass($1) AND inhparent = '\"StreamArchive\"'::regclass) AS there",
            &[(&partition_name(month), Type::TEXT)],
        )
        .await?;
    Ok(row.try_get("there")?)
}

/// Months that the archive has a partition of, oldest first.
pub(crate) async fn list_partitions(client: &impl GenericClient) -> Result<Vec<Month>> {
    let rows = client
        .query_typed(
            "SELECT replace(right(p.relname, 7), '_', '-') AS month FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid \
             WHERE i.inhparent = '\"StreamArchive\"'::regclass AND p.relname ~ '^StreamArchive_[0-9]{4}_[0-9]{2}$' \
             ORDER BY p.relname",
            &[],
        )
        .await?;
    rows.iter().map(|row| decode(row, "month")).collect()
}

/// Months whose partition lacks an index, oldest first.
pub(crate) async fn list_unindexed_partitions(client: &impl GenericClient) -> Result<Vec<Month>> {
    let rows = client.query_typed(include_str!("sql/list_unindexed_partitions.sql"), &[]).await?;
    rows.iter().map(|row| decode(row, "month")).collect()
}

/// Brings the statistics of the partition of `month` up to date.
pub(crate) async fn analyze_partition(client: &impl GenericClient, month: Month) -> Result<()> {
    client.execute_typed("SELECT stream_archive_analyze_partition($1)", &[(&month.start(), Type::TIMESTAMP)]).await?;
    Ok(())
}

/// The partition of `month`, as SQL writes it.
pub(crate) fn partition_name(month: Month) -> String {
    format!(r#""StreamArchive_{}""#, month.to_string().replace('-', "_"))
}
