use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use crate::error::Result;
use crate::model::MaintenancePause;

/// Pauses maintenance; a pause that holds already stays as it is.
pub(crate) async fn insert_pause(client: &impl GenericClient, reason: &str, by: &str) -> Result<()> {
    client
        .execute_typed(
            r#"INSERT INTO "MaintenancePause" (reason, "pausedBy") VALUES ($1, $2) ON CONFLICT DO NOTHING"#,
            &[(&reason, Type::TEXT), (&by, Type::TEXT)],
        )
        .await?;
    Ok(())
}

/// The pause that holds.
pub(crate) async fn find_pause(client: &impl GenericClient) -> Result<Option<MaintenancePause>> {
    let row = client.query_typed_opt(r#"SELECT reason, "pausedBy", "pausedAt" FROM "MaintenancePause""#, &[]).await?;
    row.map(|row| parse(&row)).transpose()
}

/// Ends the pause. Returns it, or none when there was none.
pub(crate) async fn delete_pause(client: &impl GenericClient) -> Result<Option<MaintenancePause>> {
    let row = client
        .query_typed_opt(r#"DELETE FROM "MaintenancePause" RETURNING reason, "pausedBy", "pausedAt""#, &[])
        .await?;
    row.map(|row| parse(&row)).transpose()
}

fn parse(row: &Row) -> Result<MaintenancePause> {
    let paused_at: DateTime<Utc> = row.try_get::<_, NaiveDateTime>("pausedAt")?.and_utc();
    Ok(MaintenancePause { reason: row.try_get("reason")?, paused_by: row.try_get("pausedBy")?, paused_at })
}
