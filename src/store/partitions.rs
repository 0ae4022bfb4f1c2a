use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::model::Month;

/// Makes the archive's partition of `month`, with its indexes, unless it is there.
pub(crate) async fn create_partition(client: &impl GenericClient, month: Month) -> Result<()> {
    let start = month.start();
    client.execute_typed("SELECT stream_archive_create_partition($1)", &[(&start, Type::TIMESTAMP)]).await?;
    Ok(())
}

/// Names, as SQL writes them, of the partitions that hold rows adopted from the former service.
pub(crate) async fn list_adopted_partitions(client: &impl GenericClient) -> Result<Vec<String>> {
    let rows = client
        .query_typed(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits \
             WHERE inhparent = '\"StreamArchive\"'::regclass \
               AND obj_description(inhrelid, 'pg_class') = 'Holds rows adopted from the former service'",
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("name")?)).collect()
}

/// The partition of `month`, as SQL writes it.
pub(super) fn partition_name(month: Month) -> String {
    format!(r#""StreamArchive_{}""#, month.to_string().replace('-', "_"))
}
