use tokio_postgres::GenericClient;

use crate::error::Result;

/// What may not be moved right now.
#[derive(Debug)]
pub(crate) struct Held {
    /// Contract-level ids of the streams under legal hold.
    pub(crate) streams: Vec<String>,
    /// Whether rows were restored and not released.
    pub(crate) has_restored_rows: bool,
}

/// What is held, and stays so until the transaction ends: a hold that is placed meanwhile waits for it.
pub(crate) async fn lock_holds(client: &impl GenericClient) -> Result<Held> {
    client.batch_execute(r#"LOCK TABLE "LegalHold", "RestoredLog" IN SHARE MODE"#).await?;
    let row = client
        .query_typed_one(
            r#"SELECT ARRAY(SELECT "streamId" FROM "LegalHold" WHERE "releasedAt" IS NULL) AS streams,
                      EXISTS (SELECT FROM "RestoredLog") AS has_restored_rows"#,
            &[],
        )
        .await?;
    Ok(Held { streams: row.try_get("streams")?, has_restored_rows: row.try_get("has_restored_rows")? })
}
