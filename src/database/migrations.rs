use std::time::Duration;

use deadpool_postgres::Pool;
use refinery::embed_migrations;
use serde::Serialize;
use tracing::warn;

use crate::error::{Error, Result};
use crate::store::session::{self, Limits};
use crate::store::{archive_columns, ledger, migration_lock, roles, stream_history, stream_identity};

embed_migrations!("migrations");

/// Where the applied migrations are recorded. The host's ORM has a table of its own, under another name.
const MIGRATION_TABLE: &str = "snapshot_service_migrations";

/// What [`migrate`] changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    /// Names of the migrations that were applied, in order.
    pub applied: Vec<String>,
    /// Columns of `EventLog` that the archive was given, or given the type of.
    pub archive_columns_changed: Vec<String>,
    /// Logs that were archived before there was a ledger, and have an entry in it now.
    pub logs_sealed: u64,
    /// What somebody else must do so that logins with the service's roles can do their work, each with the SQL: a role
    /// or a table of the host that is not this login's.
    pub role_warnings: Vec<String>,
}

/// Brings the service's tables up to date: applies the migrations that are not yet, then gives the archive the columns
/// of `EventLog`, makes the view over both anew if it has others, and grants the service's roles what they need. Safe
/// to run twice and at once: a second runner waits for the first.
///
/// # Errors
///
/// [`Error::HostTableMissing`] on a database without the host's tables; [`Error::Migration`] when one fails, which then
/// has changed nothing; [`Error::ArchiveColumnNotConvertible`].
pub async fn migrate(pool: &Pool) -> Result<MigrationReport> {
    let mut connection = pool.get().await?;
    let client: &mut tokio_postgres::Client = &mut connection;
    // Not through a pooler: migrations are the one place that needs a session lock, as refinery commits one by one.
    migration_lock::acquire(client).await?;
    let result = run(client).await;
    let released = migration_lock::release(client).await;
    let report = result?;
    released?;
    Ok(report)
}

async fn run(client: &mut tokio_postgres::Client) -> Result<MigrationReport> {
    archive_columns::check_host_tables(client).await?;
    let mut runner = migrations::runner();
    runner.set_migration_table_name(MIGRATION_TABLE);
    let report = runner.run_async(client).await.map_err(Error::Migration)?;
    let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
    // No limits: an operator waits for it.
    let transaction = session::begin(client, &Limits { statement: Duration::ZERO, lock: Duration::ZERO }).await?;
    stream_identity::observe_all(&transaction).await?;
    transaction.commit().await?;
    let archive_columns_changed = archive_columns::align(client).await?;
    let mut logs_sealed = 0;
    for month in ledger::list_unsealed_months(client).await? {
        // No limits: an operator waits for it, and each month is kept.
        let transaction = session::begin(client, &Limits { statement: Duration::ZERO, lock: Duration::ZERO }).await?;
        logs_sealed += ledger::seal_adopted(&transaction, month).await?;
        transaction.commit().await?;
    }
    // In a transaction of its own: whoever reads the view locks it before the tables, not after.
    stream_history::refresh(client).await?;
    let mut role_warnings = roles::create_missing_roles(client).await?;
    role_warnings.extend(roles::align_grants(client).await?);
    for warning in &role_warnings {
        warn!(warning, "database roles are not complete");
    }
    Ok(MigrationReport { applied, archive_columns_changed, logs_sealed, role_warnings })
}
