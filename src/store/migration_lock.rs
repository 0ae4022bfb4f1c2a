//! One `migrate` at a time. The lock is a transaction's and not a session's, so that it holds behind any pooler; each
//! transaction of a migration takes it anew. A lock of a table would keep maintenance out as well.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::time::Instant;
use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;
use tracing::info;

use super::session::{Connection, MigrationTransaction};
use crate::error::{Error, Result};

/// How long to wait for another migration: longer than one takes, unless it adopts or seals much.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lock's key as SQL: each schema is migrated by itself.
const KEY: &str = "hashtextextended('snapshot-service migrate ' || current_setting('search_path'), 0)";

/// Begins a transaction that alone migrates this schema until it ends.
///
/// # Errors
///
/// [`Error::MigrationUnderWay`] when another migration takes longer than we wait.
pub(crate) async fn begin(client: &mut Connection) -> Result<MigrationTransaction<'_>> {
    let client: &Connection = client;
    let began = Instant::now();
    let mut told = None;
    loop {
        // Each time a transaction of its own: one that waits for long would keep a pooler's connection.
        let transaction = MigrationTransaction::begin(client).await?;
        if acquire(&**client).await? {
            return Ok(transaction);
        }
        drop(transaction);
        let holder = find_holder(client).await?;
        if began.elapsed() >= PATIENCE {
            return Err(Error::MigrationUnderWay { holder });
        }
        if told.as_ref() != Some(&holder) {
            info!(holder, "migration: waits for another one");
            told = Some(holder);
        }
    }
}

/// Waits a second for the lock. Returns whether the transaction has it; without it, the transaction is of no use any more.
async fn acquire(client: &impl GenericClient) -> Result<bool> {
    let sql =
        format!("SET LOCAL lock_timeout = 1000; SELECT pg_advisory_xact_lock({KEY}); SET LOCAL lock_timeout = 10000");
    match client.batch_execute(&sql).await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Who migrates, in words: as much of it as this role may know.
async fn find_holder(client: &Connection) -> Result<String> {
    let transaction = MigrationTransaction::begin(client).await?;
    let sql = format!(
        "SELECT l.pid, NULLIF(a.application_name, '') AS name, a.xact_start AS since
         FROM pg_locks l
         LEFT JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND (l.classid::bigint << 32) | l.objid::bigint = {KEY}"
    );
    let row = client.query_typed_opt(&sql, &[]).await?;
    transaction.commit().await?;
    let Some(row) = row else { return Ok("somebody who has ended just now".into()) };
    let name: Option<String> = row.try_get("name")?;
    let since: Option<DateTime<Utc>> = row.try_get("since")?;
    let since = since.map(|time| format!(", since {}", time.to_rfc3339_opts(SecondsFormat::Secs, true)));
    let name = name.unwrap_or_else(|| "somebody".into());
    // A prepared transaction has no process.
    Ok(match row.try_get::<_, Option<i32>>("pid")? {
        Some(pid) => format!("{name} (process {pid}{})", since.unwrap_or_default()),
        None => "a prepared transaction (pg_prepared_xacts)".into(),
    })
}
