use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use tracing::warn;

use super::decode::decode;
use super::error::is_raised_by_others;
use crate::error::{HostFinding, Result, chain};
use crate::host::HostFacts;
use crate::model::Month;

/// Makes the archive's partition of `month`, without indexes, unless it is there. `host` is the host as a run has looked at it.
///
/// # Errors
///
/// [`HostRefuses`](crate::Error::HostRefuses) when an event trigger of the host's raised an error, by its name.
pub(crate) async fn create_partition(
    client: &impl GenericClient,
    month: Month,
    host: Option<&HostFacts>,
) -> Result<()> {
    let create = "SELECT stream_archive_create_partition($1)";
    let Err(error) = client.execute_typed(create, &[(&month.start(), Type::TIMESTAMP)]).await else { return Ok(()) };
    match host {
        Some(host) if !host.event_triggers.is_empty() && is_raised_by_others(&error, "stream_archive_") => {
            warn!(cause = chain(&error), "snapshot maintenance: an event trigger raised an error");
            Err(HostFinding::event_trigger_refuses(host).into())
        }
        _ => Err(error.into()),
    }
}

/// An index of a month with a million rows is sorted in memory, where the server's default would take files.
const INDEX_MEMORY: &str = "128MB";

/// Builds the next index that the partition of `month` lacks. Returns whether there was one.
pub(crate) async fn build_next_index(client: &impl GenericClient, month: Month) -> Result<bool> {
    // A restore and an archiving run may come to it at once: the second one sees what the first one has built. It must be a
    // table's lock, which makes the session look at the catalog anew.
    let lock = format!("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE", partition_name(month));
    // Workers build side by side: more processes for one index would only take turns with them.
    let settings =
        format!("SET LOCAL maintenance_work_mem = '{INDEX_MEMORY}'; SET LOCAL max_parallel_maintenance_workers = 0");
    client.batch_execute(&format!("{settings}; {lock}")).await?;
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
