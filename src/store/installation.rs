//! What of the service's own is there, and what somebody has dropped.

use std::collections::BTreeSet;

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::decode::decode;
use super::session::SERVICE_SCHEMA;
use super::statement::Statement;
use crate::error::{HostFinding, Result};
use crate::model::Month;

/// All that the migrations make, by name: a rollback drops it, so it is listed there.
const DROPPED: &str = include_str!("sql/drop_all.sql");

/// Where the applied migrations are recorded. The host's ORM has a table of its own, under another name.
pub(crate) const MIGRATION_TABLE: &str = "snapshot_service_migrations";

/// What of the service's own is missing.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Whether anything of it is there: what is missing then was dropped, or was never finished.
    pub(crate) is_installed: bool,
    pub(crate) tables: BTreeSet<String>,
    pub(crate) functions: BTreeSet<String>,
}

impl Missing {
    /// Whether there is nothing to be made.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.functions.is_empty()
    }

    fn has(&self, table: &str) -> bool {
        !self.tables.contains(table)
    }
}

/// Makes the schema of our own, unless it is there.
///
/// # Errors
///
/// [`Error::HostRefuses`] when this role may not make one.
pub(crate) async fn create_schema(client: &impl GenericClient) -> Result<()> {
    let row = Statement::new(
        "SELECT :service_schema IS NOT NULL AS there, has_database_privilege(current_database(), 'CREATE') AS may_create,
                substring(current_setting('search_path') FROM '^(?:\"(?:[^\"]|\"\")*\"|[^,]*)') AS name, quote_ident(current_user) AS role",
    )
    .fragment("service_schema", SERVICE_SCHEMA)
    .query_one(client)
    .await?;
    let (name, role): (&str, &str) = (row.try_get("name")?, row.try_get("role")?);
    if row.try_get("there")? {
        return Ok(());
    }
    if !row.try_get::<_, bool>("may_create")? {
        return Err(HostFinding::no_schema(name, role).into());
    }
    Ok(client.batch_execute(&format!("CREATE SCHEMA {name}")).await?)
}

/// Names in the statement of [`DROPPED`] that begins with `command`, one on a line.
fn names(command: &str) -> Vec<&'static str> {
    let statement = DROPPED.split(';').find_map(|statement| statement.split_once(command));
    let lines = statement.map_or("", |(_, names)| names).lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.split(['(', ',']).next().unwrap_or(line).trim_matches('"')).collect()
}

/// Names of all tables that the migrations make.
pub(super) fn list_tables() -> Vec<&'static str> {
    names("DROP TABLE")
}

/// Looks for all that the migrations make.
pub(crate) async fn list_missing(client: &impl GenericClient) -> Result<Missing> {
    let (tables, mut functions) = (list_tables(), names("DROP FUNCTION"));
    // The one beneath the view is made after the migrations, by each `migrate`.
    functions.retain(|name| *name != "stream_history");
    let row = Statement::new(include_str!("sql/list_missing.sql"))
        .fragment("service_schema", SERVICE_SCHEMA)
        .bind("tables", &tables, Type::TEXT_ARRAY)
        .bind("functions", &functions, Type::TEXT_ARRAY)
        .query_one(client)
        .await?;
    let set = |name| -> Result<BTreeSet<String>> { Ok(row.try_get::<_, Vec<String>>(name)?.into_iter().collect()) };
    Ok(Missing { is_installed: row.try_get("is_installed")?, tables: set("tables")?, functions: set("functions")? })
}

/// Forgets that these `versions` of the migrations were applied, so that they are applied again.
pub(crate) async fn forget_migrations(client: &impl GenericClient, versions: &[i32]) -> Result<()> {
    let there = "SELECT to_regclass($1) IS NOT NULL AS there";
    if client.query_typed_one(there, &[(&MIGRATION_TABLE, Type::TEXT)]).await?.try_get("there")? {
        let sql = format!("DELETE FROM {MIGRATION_TABLE} WHERE version = ANY ($1)");
        client.execute_typed(&sql, &[(&versions, Type::INT4_ARRAY)]).await?;
    }
    Ok(())
}

/// A month of the archive whose partition is gone.
#[derive(Debug)]
pub(crate) struct LostMonth {
    pub(crate) month: Month,
    /// By the seals.
    pub(crate) rows: u64,
}

/// Months that have rows by the seals, and no table, oldest first. A table that is not attached is not gone.
pub(crate) async fn list_lost_months(client: &impl GenericClient, missing: &Missing) -> Result<Vec<LostMonth>> {
    if !missing.has("ArchiveSeal") {
        return Ok(Vec::new());
    }
    let rows = client
        .query_typed(
            r#"SELECT month, sum(CASE kind WHEN 'restored' THEN -rows ELSE rows END)::bigint AS rows
               FROM "ArchiveSeal"
               WHERE to_regclass(quote_ident('StreamArchive_' || replace(month, '-', '_'))) IS NULL
               GROUP BY month
               HAVING sum(CASE kind WHEN 'restored' THEN -rows ELSE rows END) > 0
               ORDER BY month"#,
            &[],
        )
        .await?;
    let parse = |row: &tokio_postgres::Row| {
        Ok(LostMonth { month: decode(row, "month")?, rows: row.try_get::<_, i64>("rows")?.unsigned_abs() })
    };
    rows.iter().map(parse).collect()
}

/// What is lost with the tables that are `missing` and with `months`, one sentence each. Counts come from what is left: the
/// seals, or what the runs have counted.
pub(crate) async fn describe_losses(
    client: &impl GenericClient,
    missing: &Missing,
    months: &[LostMonth],
) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    if !missing.is_installed {
        return Ok(lost);
    }
    for table in &missing.tables {
        let months_of_runs = missing.has("RunMonth");
        let (what, consequence) = match table.as_str() {
            "StreamArchive" if missing.has("ArchiveSeal") => {
                let rows: u64 = months.iter().map(|month| month.rows).sum();
                (format!(" with {rows} logs, by the seals"), "restore them from a backup")
            }
            "StreamArchive" if months_of_runs => {
                let sql = r#"SELECT sum("logsArchived" - "logsRestored")::bigint FROM "RunMonth""#;
                (format!(" with {} logs, by the runs' counts", count(client, sql).await?), "restore them from a backup")
            }
            "StreamSnapshot" if missing.has("MaintenanceRun") => {
                let sql = r#"SELECT sum("snapshotsCreated")::bigint FROM "MaintenanceRun""#;
                let rows = count(client, sql).await?;
                (format!(" with {rows} snapshots at most, by the runs' counts"), "restore them from a backup")
            }
            "ArchiveRemoval" if missing.has("ArchiveSeal") => {
                let sql = r#"SELECT sum(rows)::bigint FROM "ArchiveSeal" WHERE kind = 'restored'"#;
                let rows = count(client, sql).await?;
                (format!(" with {rows} digests, by the seals"), "batches that rows left cannot be verified any more")
            }
            "RestoredLog" if months_of_runs => {
                let sql = r#"SELECT sum("logsRestored")::bigint FROM "RunMonth""#;
                let rows = count(client, sql).await?;
                (format!(" with {rows} ids at most, by the runs' counts"), "restored logs will be archived again")
            }
            "ArchiveSeal" => {
                (UNKNOWN.into(), "the archive is sealed anew as it is: what was altered before is not found")
            }
            "ArchiveMonth" if missing.has("ArchiveSeal") => {
                let sql = r#"SELECT count(DISTINCT month) FROM "ArchiveSeal""#;
                (
                    format!(" with {} heads, by the seals", count(client, sql).await?),
                    "they are made anew from the seals",
                )
            }
            "LegalHold" => (UNKNOWN.into(), "no stream is on hold any more: place the holds again before the next run"),
            "MaintenancePause" => (UNKNOWN.into(), "maintenance is not paused any more"),
            "StreamIdentity" => (UNKNOWN.into(), "the ids of streams that are gone are not known any more"),
            "MaintenanceRun" => (UNKNOWN.into(), "a month that was run may be run again"),
            "RunMonth" => (
                UNKNOWN.into(),
                "the counts of all runs are gone, and a run that is open goes through its months again",
            ),
            "VerificationTask" => (UNKNOWN.into(), "a verification that has not ended begins again"),
            MIGRATION_TABLE => (UNKNOWN.into(), "the migrations are applied again"),
            _ => (UNKNOWN.into(), "it is empty now"),
        };
        lost.push(format!("the table \"{table}\" was gone{what}: {consequence}"));
    }
    for LostMonth { month, rows } in months {
        lost.push(format!(
            "{month} of the archive was gone with {rows} logs, by the seals: restore them from a backup"
        ));
    }
    Ok(lost)
}

const UNKNOWN: &str = ", and how many rows it had is not known";

async fn count(client: &impl GenericClient, sql: &str) -> Result<i64> {
    let count: Option<i64> = client.query_typed_one(sql, &[]).await?.try_get(0)?;
    Ok(count.unwrap_or(0).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_what_a_rollback_drops() {
        assert!(names("DROP TABLE").contains(&"StreamArchive"));
        assert!(names("DROP TABLE").contains(&MIGRATION_TABLE));
        assert!(names("DROP FUNCTION").contains(&"stream_event_wire_forms"));
        let all = names("DROP TABLE").into_iter().chain(names("DROP FUNCTION"));
        let is_name = |name: &str| name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        assert!(all.into_iter().all(is_name));
    }
}
