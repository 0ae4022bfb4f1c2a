use tokio_postgres::GenericClient;

use crate::error::{Error, Result};
use crate::host::HostFacts;

/// What the catalogue says of the host right now, in one round trip. Holds for a transaction that has locked the tables.
pub(crate) async fn look(client: &impl GenericClient) -> Result<HostFacts> {
    let row = client.query_typed_one(include_str!("sql/look_at_host.sql"), &[]).await?;
    serde_json::from_value(row.try_get("facts")?).map_err(Error::Serialize)
}

/// What changes with each change of the log's definition. Costs a fraction of a look.
pub(crate) async fn get_version(client: &impl GenericClient) -> Result<String> {
    let row = client.query_typed_one(include_str!("sql/get_host_version.sql"), &[]).await?;
    Ok(row.try_get("version")?)
}
