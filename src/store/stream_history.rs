use tokio_postgres::GenericClient;

use crate::error::Result;

/// Makes the view `StreamHistory` anew when the columns of the tables beneath it have changed.
pub(crate) async fn refresh(client: &impl GenericClient) -> Result<()> {
    client.query_typed("SELECT stream_history_refresh()", &[]).await?;
    Ok(())
}
