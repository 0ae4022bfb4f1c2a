use tokio_postgres::GenericClient;

use crate::error::{Error, Result};
use crate::host::{HostFacts, HostFinding};

/// What the catalogue says of the host right now, in one round trip. Holds for a transaction that has locked the tables.
pub(crate) async fn look(client: &impl GenericClient) -> Result<HostFacts> {
    let row = client.query_typed_one(include_str!("sql/look_at_host.sql"), &[]).await?;
    serde_json::from_value(row.try_get("facts")?).map_err(Error::Serialize)
}

/// Refuses to go on where row security hides streams from the session's role. `is_filtered` is what the statement before,
/// which read them, says of row security: only where it is in force the catalogue is asked.
///
/// # Errors
///
/// [`Error::HostRefuses`] with the code `rows_hidden`.
pub(crate) async fn refuse_hidden_streams(client: &impl GenericClient, is_filtered: bool) -> Result<()> {
    refuse_hidden(client, is_filtered, HostFinding::hidden_streams).await
}

/// The same for logs.
///
/// # Errors
///
/// As [`refuse_hidden_streams`].
pub(crate) async fn refuse_hidden_logs(client: &impl GenericClient, is_filtered: bool) -> Result<()> {
    refuse_hidden(client, is_filtered, HostFinding::hidden_logs).await
}

async fn refuse_hidden(
    client: &impl GenericClient,
    is_filtered: bool,
    hidden: fn(&HostFacts) -> Option<HostFinding>,
) -> Result<()> {
    if !is_filtered {
        return Ok(());
    }
    match hidden(&look(client).await?) {
        Some(finding) => Err(Error::HostRefuses { finding: Box::new(finding) }),
        None => Ok(()),
    }
}
