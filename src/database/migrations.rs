use crate::database::Pool;
use refinery::embed_migrations;
use refinery_core::Migration;
use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{info, warn};

use crate::error::{Error, HostFinding, Result, chain};
use crate::host::{HostLimits, findings};
use crate::model::Month;
use crate::store::former::{self, Comparison};
use crate::store::installation::{self, MIGRATION_TABLE};
use crate::store::seals;
use crate::store::session::Connection;
use crate::store::session::MigrationTransaction;
use crate::store::{archive_columns, host, migration_lock, partitions, roles, server, stream_history, stream_identity};

embed_migrations!("migrations");

/// What [`migrate`] changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    /// Names of the migrations that were applied, in order.
    pub applied: Vec<String>,
    /// What somebody had dropped, one sentence each with the rows that are lost: a table, or a month of the archive. It is
    /// there again, and empty.
    pub lost: Vec<String>,
    /// Columns of `EventLog` that the archive was given, or given the type of.
    pub archive_columns_changed: Vec<String>,
    /// Logs that were sealed: those copied from the former service's archive, and all of months whose seals somebody had dropped.
    pub logs_sealed: u64,
    /// The tables that the former service left in the host's schema, and what became of their rows.
    pub former_tables: Vec<FormerTableReport>,
    /// What somebody else must do so that logins with the service's roles can do their work, each with the SQL: a role
    /// or a table of the host that is not this login's.
    pub role_warnings: Vec<String>,
    /// What of the host's database maintenance cannot work with, leaves alone, or tells of.
    pub findings: Vec<HostFinding>,
}

/// Brings the service's tables up to date: applies the migrations that are not yet, all of them where something of the
/// service's own is missing, then gives the archive the columns of `EventLog`, makes the view over both anew if it has
/// others, and grants the service's roles what they need. Safe to run twice and at once: a second runner waits for the
/// first, and takes no connection of a pooler for itself. Has limits of its own, whatever the database sets by default.
///
/// # Errors
///
/// [`Error::HostTableMissing`] on a database without the host's tables; [`Error::MigrationUnderWay`] when another one does
/// not end; [`Error::Migration`] when one fails, which then has changed nothing; [`Error::ArchiveColumnNotConvertible`].
pub async fn migrate(pool: &Pool) -> Result<MigrationReport> {
    migrate_with_renames(pool, &[]).await
}

/// [`migrate`], after the host has renamed columns of `EventLog`: each with its former and its present name. The archive's column gets
/// the present name, with all its values, and what is sealed stays true.
///
/// # Errors
///
/// As [`migrate`]; [`Error::InvalidInput`] when a pair of names is no renaming.
pub async fn migrate_with_renames(pool: &Pool, renames: &[(String, String)]) -> Result<MigrationReport> {
    let mut connection = pool.get().await?;
    let client: &mut Connection = &mut connection;
    let (applied, lost) = apply(client).await?;

    // Each a transaction, and each changes nothing when it has nothing to do: whoever is killed in between goes on there.
    let transaction = migration_lock::begin(client).await?;
    stream_identity::observe_all(transaction.client()).await?;
    transaction.commit().await?;
    let transaction = migration_lock::begin(client).await?;
    let mut archive_columns_changed = Vec::new();
    for (former, present) in renames {
        if archive_columns::rename(transaction.client(), former, present).await? {
            archive_columns_changed.push(format!("{former} is called {present}"));
        }
    }
    archive_columns_changed.append(&mut archive_columns::align(transaction.client()).await?);
    transaction.commit().await?;
    let sealed_anew = seal_anew(client).await?;
    let (former_tables, logs_copied) = adopt(client).await?;
    let logs_sealed = sealed_anew + logs_copied;
    // In a transaction of its own: whoever reads the view locks it before the tables, not after.
    let transaction = migration_lock::begin(client).await?;
    stream_history::refresh(transaction.client()).await?;
    transaction.commit().await?;
    let transaction = migration_lock::begin(client).await?;
    let mut role_warnings = roles::create_missing_roles(transaction.client()).await?;
    transaction.commit().await?;
    let transaction = migration_lock::begin(client).await?;
    role_warnings.extend(roles::align_grants(transaction.client()).await?);
    for warning in &role_warnings {
        warn!(warning, "database roles are not complete");
    }
    transaction.commit().await?;
    let mut findings = look_at_host(client).await?;
    findings.extend(former_tables.iter().flat_map(FormerTableReport::findings).inspect(|finding| finding.log(None)));
    Ok(MigrationReport { applied, lost, archive_columns_changed, logs_sealed, former_tables, role_warnings, findings })
}

/// Applies the migrations that are not, in one transaction. Returns which, and what is lost for good.
async fn apply(client: &mut Connection) -> Result<(Vec<String>, Vec<String>)> {
    let transaction = migration_lock::begin(client).await?;
    let client = transaction.client();
    server::check_writable(client).await?;
    archive_columns::check_host_tables(client).await?;
    installation::create_schema(client).await?;
    let mut runner = migrations::runner();
    runner.set_migration_table_name(MIGRATION_TABLE);
    let missing = installation::list_missing(client).await?;
    let lost_months = installation::list_lost_months(client, &missing).await?;
    let lost = installation::describe_losses(client, &missing, &lost_months).await?;
    if !missing.is_empty() {
        // Each makes what is not there, and leaves alone what is.
        let versions: Vec<i32> = runner.get_migrations().iter().map(Migration::version).collect();
        installation::forget_migrations(client, &versions).await?;
        if missing.is_installed {
            info!(tables = ?missing.tables, functions = ?missing.functions, "migration: makes anew what is missing");
        }
    }
    let report = runner.run_async(&mut InTransaction(client)).await.map_err(Error::Migration)?;
    archive_columns::create_archive(client).await?;
    for month in &lost_months {
        partitions::create_partition(client, month.month, None).await?;
    }
    transaction.commit().await?;
    for lost in &lost {
        warn!(lost, "migration: something was dropped");
    }
    Ok((report.applied_migrations().iter().map(ToString::to_string).collect(), lost))
}

/// What of the host's database is worth knowing, also in the log. All that is to be made is made by now.
async fn look_at_host(client: &mut Connection) -> Result<Vec<HostFinding>> {
    let transaction = MigrationTransaction::begin(client).await?;
    let mut found = findings(&host::look(transaction.client()).await?, HostLimits::default());
    match host::list_second_archives(transaction.client()).await {
        Ok(second) => found.extend(second),
        // Somebody has locked a table that may be one.
        Err(error) => warn!(error = chain(&error), "migration: whether there is a second archive is not known"),
    }
    for finding in &found {
        finding.log(None);
    }
    Ok(found)
}

/// Seals months whose seals somebody has dropped, as they are. Returns how many rows they have.
async fn seal_anew(client: &mut Connection) -> Result<u64> {
    let mut sealed = 0;
    loop {
        let transaction = migration_lock::begin(client).await?;
        let Some(month) = seals::find_unsealed_month(transaction.client()).await? else { return Ok(sealed) };
        sealed += seals::seal_unsealed(transaction.client(), month).await?;
        transaction.commit().await?;
        info!(%month, sealed, "migration: a month without seals is sealed as it is");
    }
}

/// A table that the former service left. It stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FormerTableReport {
    /// As SQL writes it, with its schema.
    pub table: String,
    /// Rows that it has.
    pub rows: u64,
    /// Rows that this `migrate` has copied.
    pub copied: u64,
    /// Ids of some whose copy, or whose row in `EventLog`, is not as it is.
    pub differing: Vec<String>,
    /// Ids of some that are not copied, because their month or their time cannot be.
    pub left_out: Vec<String>,
    /// All that it has is elsewhere: it may be dropped when nothing reads it.
    pub may_be_dropped: bool,
}

impl FormerTableReport {
    fn new(table: &str, copied: u64, comparison: Comparison) -> Self {
        let Comparison { rows, equal, differing, left_out } = comparison;
        Self { table: table.into(), rows, copied, differing, left_out, may_be_dropped: rows == equal }
    }

    fn findings(&self) -> impl Iterator<Item = HostFinding> {
        HostFinding::former_copies_differ(&self.table, &self.differing)
            .into_iter()
            .chain(HostFinding::former_rows_left_out(&self.table, &self.left_out))
    }
}

/// Copies what the former service's tables have, each batch as a transaction, and compares: what was copied before is not copied again.
/// Returns how many logs were copied, too.
async fn adopt(client: &mut Connection) -> Result<(Vec<FormerTableReport>, u64)> {
    let transaction = migration_lock::begin(client).await?;
    let snapshots = former::find_snapshots(transaction.client()).await?;
    let archive = former::find_archive(transaction.client()).await?;
    drop(transaction);
    let mut reports = Vec::new();
    let mut logs_copied = 0;
    if let Some(table) = snapshots {
        let (mut copied, mut after) = (0, None);
        loop {
            let transaction = migration_lock::begin(client).await?;
            let (last, new) = former::copy_snapshots(transaction.client(), &table, after.as_deref()).await?;
            transaction.commit().await?;
            copied += new;
            if last.is_none() {
                break;
            }
            after = last;
            info!(table, copied, "migration: snapshots of the former service are copied");
        }
        let transaction = migration_lock::begin(client).await?;
        let comparison = former::compare_snapshots(transaction.client(), &table).await?;
        former::note_rows(transaction.client(), &table, comparison.rows).await?;
        transaction.commit().await?;
        reports.push(FormerTableReport::new(&table, copied, comparison));
    }
    if let Some(former) = archive {
        let transaction = migration_lock::begin(client).await?;
        let months = former::list_months(transaction.client(), &former).await?;
        drop(transaction);
        for month in months {
            loop {
                let transaction = migration_lock::begin(client).await?;
                let new = former::copy_logs(transaction.client(), &former, month).await?;
                transaction.commit().await?;
                logs_copied += new;
                if new == 0 {
                    break;
                }
                info!(table = former.name, %month, copied = logs_copied, "migration: logs of the former service are copied");
            }
            index(client, month).await?;
        }
        let transaction = migration_lock::begin(client).await?;
        let comparison = former::compare_logs(transaction.client(), &former).await?;
        former::note_rows(transaction.client(), &former.name, comparison.rows).await?;
        transaction.commit().await?;
        reports.push(FormerTableReport::new(&former.name, logs_copied, comparison));
    }
    for FormerTableReport { table, rows, copied, may_be_dropped, .. } in &reports {
        info!(table, rows, copied, may_be_dropped, "migration: the former service's table is copied and compared");
    }
    Ok((reports, logs_copied))
}

/// Builds what the partition of `month` lacks of its indexes, and brings its statistics up to date.
async fn index(client: &mut Connection, month: Month) -> Result<()> {
    let mut is_built = false;
    loop {
        let transaction = migration_lock::begin(client).await?;
        let has_built = partitions::build_next_index(transaction.client(), month).await?;
        if !has_built && is_built {
            partitions::analyze_partition(transaction.client(), month).await?;
        }
        transaction.commit().await?;
        if !has_built {
            return Ok(());
        }
        is_built = true;
    }
}

/// Runs refinery's statements in the transaction that the client has open. Its own driver commits each migration by itself,
/// so that what fails in the middle stays half done.
struct InTransaction<'a>(&'a tokio_postgres::Client);

impl AsyncTransaction for InTransaction<'_> {
    type Error = tokio_postgres::Error;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> std::result::Result<usize, Self::Error> {
        let mut count = 0;
        for query in queries {
            self.0.batch_execute(query).await?;
            count += 1;
        }
        Ok(count)
    }
}

impl AsyncQuery<Vec<Migration>> for InTransaction<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> std::result::Result<Vec<Migration>, Self::Error> {
        let parse = |row: tokio_postgres::Row| {
            let (applied_on, checksum): (&str, &str) = (row.try_get("applied_on")?, row.try_get("checksum")?);
            // Written by refinery. What cannot be read differs from the migration of this release, which is said then.
            let applied_on = OffsetDateTime::parse(applied_on, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let checksum = checksum.parse().unwrap_or_default();
            Ok(Migration::applied(row.try_get("version")?, row.try_get("name")?, applied_on, checksum))
        };
        self.0.query_typed(query, &[]).await?.into_iter().map(parse).collect()
    }
}

impl AsyncMigrate for InTransaction<'_> {}
