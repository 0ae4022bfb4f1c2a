use tokio_postgres::GenericClient;

use crate::error::Result;

/// Waits until this session alone migrates this database's schema. A session that dies loses the lock.
pub(crate) async fn acquire(client: &impl GenericClient) -> Result<()> {
    client
        .batch_execute("SELECT pg_advisory_lock(hashtextextended('snapshot-service migrate ' || current_schema(), 0))")
        .await?;
    Ok(())
}

/// Lets the next one migrate.
pub(crate) async fn release(client: &impl GenericClient) -> Result<()> {
    client
        .batch_execute(
            "SELECT pg_advisory_unlock(hashtextextended('snapshot-service migrate ' || current_schema(), 0))",
        )
        .await?;
    Ok(())
}
