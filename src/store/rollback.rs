use std::iter;
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::error::{Error, Result};

/// Whether the migrations have made anything that is still there. They drop and make all at once.
pub(crate) async fn is_installed(client: &impl GenericClient) -> Result<bool> {
    let sql = "SELECT to_regclass('snapshot_service_migrations') IS NOT NULL AS there";
    Ok(client.query_typed_one(sql, &[]).await?.try_get("there")?)
}

/// Shuts everybody out of what is to be dropped, until the transaction ends.
pub(crate) async fn lock_all(client: &impl GenericClient) -> Result<()> {
    client
        .batch_execute(
            r#"LOCK TABLE "StreamHistory", snapshot_service_migrations, "MaintenancePause", "MaintenanceRun", "LegalHold",
               "StreamSnapshot", "StreamArchive" IN ACCESS EXCLUSIVE MODE"#,
        )
        .await?;
    Ok(())
}

/// What a rollback must know before it drops anything.
#[derive(Debug)]
pub(crate) struct Remainder {
    /// Whether the rollback's run is the open one, and nobody works on it.
    pub(crate) is_ready: bool,
    pub(crate) has_archived_rows: bool,
    pub(crate) snapshots: u64,
}

/// What is left, seen from the rollback `run`.
pub(crate) async fn get_remainder(client: &impl GenericClient, run: Uuid) -> Result<Remainder> {
    let row = client
        .query_typed_one(
            r#"SELECT EXISTS (SELECT FROM "MaintenanceRun" WHERE id = $1 AND "finishedAt" IS NULL AND token IS NULL)
                          AND NOT EXISTS (SELECT FROM "MaintenancePause")
                          AND NOT EXISTS (SELECT FROM "LegalHold" WHERE "releasedAt" IS NULL) AS is_ready,
                      EXISTS (SELECT FROM "StreamArchive") AS has_archived_rows,
                      (SELECT count(*) FROM "StreamSnapshot") AS snapshots"#,
            &[(&run, Type::UUID)],
        )
        .await?;
    Ok(Remainder {
        is_ready: row.try_get("is_ready")?,
        has_archived_rows: row.try_get("has_archived_rows")?,
        snapshots: row.try_get::<_, i64>("snapshots")?.unsigned_abs(),
    })
}

/// SQL for the snapshots, a line of JSON each, in order of month and stream; as the API has them.
pub(crate) const SNAPSHOT_LINES: &str = include_str!("sql/write_snapshots.sql");

/// SQL for what else is nowhere but in the service's tables.
pub(crate) const RECORD_LINES: &str = include_str!("sql/write_records.sql");

/// Gives each of `lines` to `write`, as the server sends them. Returns how many.
pub(crate) async fn write_lines(
    client: &impl GenericClient,
    lines: &str,
    mut write: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<u64> {
    let mut rows = pin!(client.query_typed_raw(lines, iter::empty::<(&str, Type)>()).await?);
    let mut written = 0;
    while let Some(row) = rows.try_next().await? {
        write(row.try_get("line")?).map_err(Error::Write)?;
        written += 1;
    }
    Ok(written)
}

/// Drops all that the migrations made.
///
/// # Errors
///
/// [`Error::RollbackRefused`] when something else depends on it.
pub(crate) async fn drop_all(client: &impl GenericClient) -> Result<()> {
    let dropped = client.batch_execute(include_str!("sql/drop_all.sql")).await;
    dropped.map_err(|error| match error.as_db_error() {
        Some(refused) if refused.code() == &SqlState::DEPENDENT_OBJECTS_STILL_EXIST => {
            let dependent = refused.detail().unwrap_or_default();
            Error::RollbackRefused { reason: format!("something else depends on the service's tables ({dependent})") }
        }
        _ => error.into(),
    })
}
