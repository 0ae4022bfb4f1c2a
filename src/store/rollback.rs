use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter;
use std::pin::pin;

use futures_util::TryStreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::decode::unreadable;
use crate::error::{Error, Result};
use crate::host::WireForm;

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

/// What is written before it is dropped, a line of JSON for each row.
#[derive(Debug)]
pub(crate) struct Lines {
    sql: &'static str,
    line: fn(&Row) -> Result<String>,
}

/// The snapshots, in order of month and stream; as the API has them.
pub(crate) const SNAPSHOT_LINES: Lines =
    Lines { sql: include_str!("sql/write_snapshots.sql"), line: |row| Ok(row.try_get("line")?) };

/// What else is nowhere but in the service's tables.
pub(crate) const RECORD_LINES: Lines = Lines { sql: include_str!("sql/write_records.sql"), line: write_record };

/// Gives each of `lines` to `write`, as the server sends them. Returns how many.
pub(crate) async fn write_lines(
    client: &impl GenericClient,
    lines: &Lines,
    mut write: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<u64> {
    let mut rows = pin!(client.query_typed_raw(lines.sql, iter::empty::<(&str, Type)>()).await?);
    let mut written = 0;
    while let Some(row) = rows.try_next().await? {
        write(&(lines.line)(&row)?).map_err(Error::Write)?;
        written += 1;
    }
    Ok(written)
}

/// A row of a table of ours as the API would have it (domain rule 9).
fn write_record(row: &Row) -> Result<String> {
    #[derive(Serialize)]
    struct Record<'a> {
        table: &'a str,
        row: BTreeMap<Cow<'a, str>, Box<RawValue>>,
    }
    // Columns of the three tables; those of the others are texts, or JSON as it is.
    let form = |name: &str| match name {
        "id" | "stream" | "number" => WireForm::Number,
        "heldAt" | "releasedAt" | "foundAt" | "rowCreatedAt" | "ownedFrom" | "ownedUntil" | "idFrom" | "idUntil"
        | "firstSeenAt" => WireForm::Timestamp,
        _ => WireForm::Plain,
    };
    let write = |table: &str, json: &str| {
        let values: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(json)?;
        let row = values.into_iter().map(|(name, value)| {
            let value = form(&name).write(value);
            (name, value)
        });
        serde_json::to_string(&Record { table, row: row.collect() })
    };
    write(row.try_get("table")?, row.try_get("row")?).map_err(|error| unreadable("row", error))
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
