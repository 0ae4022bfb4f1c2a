use std::sync::Arc;

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::decode::decode_json;
use super::session::SERVICE_SCHEMA;
use super::statement::Statement;
use super::{archive_columns, installation};
use crate::error::{FindingEffect, HostFinding, Result};
use crate::host::HostFacts;

/// What the catalogue says of the host right now, in one round trip. Holds for a transaction that has locked the tables.
pub(crate) async fn look(client: &impl GenericClient) -> Result<HostFacts> {
    let own = installation::list_tables();
    let row = Statement::new(include_str!("sql/look_at_host.sql"))
        .fragment("service_schema", SERVICE_SCHEMA)
        .bind("own_tables", &own, Type::TEXT_ARRAY)
        .query_one(client)
        .await?;
    decode_json(&row, "facts")
}

/// What the catalogue says of the host, and the version of its definition then.
#[derive(Debug, Clone)]
pub(crate) struct SeenHost {
    pub(crate) version: String,
    pub(crate) facts: Arc<HostFacts>,
}

/// [`look`], with the version.
pub(crate) async fn see(client: &impl GenericClient) -> Result<SeenHost> {
    // The version first: what changes between the two is looked at again.
    Ok(SeenHost { version: get_version(client).await?, facts: Arc::new(look(client).await?) })
}

/// What changes with each change of the log's definition. Costs a fraction of a look.
pub(crate) async fn get_version(client: &impl GenericClient) -> Result<String> {
    let row = Statement::new(include_str!("sql/get_host_version.sql")).query_one(client).await?;
    Ok(row.try_get("version")?)
}

/// Tables with rows that look like a second archive of the log.
pub(crate) async fn list_second_archives(client: &impl GenericClient) -> Result<Vec<HostFinding>> {
    let mut found = Vec::new();
    for row in Statement::new(include_str!("sql/list_second_archives.sql")).query(client).await? {
        let name: &str = row.try_get("name")?;
        // Where its rows are not to be seen, that it takes room must do.
        let has_rows = if row.try_get("may_read")? {
            client.query_typed_one(&format!("SELECT EXISTS (SELECT FROM {name})"), &[]).await?.try_get(0)?
        } else {
            row.try_get("has_pages")?
        };
        if has_rows {
            found.push(HostFinding::second_archive(name));
        }
    }
    Ok(found)
}

/// What of the service's own is not there yet, or not as it should be.
pub(crate) async fn list_not_migrated(client: &impl GenericClient) -> Result<Vec<HostFinding>> {
    let missing = installation::list_missing(client).await?;
    if !missing.is_installed {
        return Ok(vec![HostFinding::not_migrated(
            FindingEffect::RefusesBoth,
            "the database",
            "has none of the service's tables yet",
        )]);
    }
    if !missing.is_empty() {
        let names: Vec<_> = missing.tables.iter().chain(&missing.functions).map(String::as_str).collect();
        let message = format!("lacks of the service's own: {}", names.join(", "));
        return Ok(vec![HostFinding::not_migrated(FindingEffect::RefusesBoth, "the database", &message)]);
    }
    let differences = archive_columns::list_differences(client).await?;
    if differences.is_empty() {
        return Ok(Vec::new());
    }
    let message =
        format!("does not match the columns of \"EventLog\" ({}): nothing is archived", differences.join(", "));
    Ok(vec![HostFinding::not_migrated(FindingEffect::RefusesArchive, "\"StreamArchive\"", &message)])
}

/// Refuses to go on where row security hides streams from the session's role. `is_filtered` is what the statement before,
/// which read them, says of row security: only where it is in force the catalogue is asked.
///
/// # Errors
///
/// [`Error::HostRefuses`] with the code `rows_hidden`.
pub(crate) async fn refuse_hidden_streams(client: &impl GenericClient, is_filtered: bool) -> Result<()> {
    refuse_hidden(client, is_filtered, HostFinding::hidden_streams).await
}

/// Whether row security is in force on `EventLog`.
pub(crate) async fn are_logs_filtered(client: &impl GenericClient) -> Result<bool> {
    let sql = r#"SELECT row_security_active('"EventLog"'::regclass) AS are_filtered"#;
    Ok(client.query_typed_one(sql, &[]).await?.try_get("are_filtered")?)
}

/// The same for logs.
///
/// # Errors
///
/// As [`refuse_hidden_streams`].
pub(crate) async fn refuse_hidden_logs(client: &impl GenericClient, is_filtered: bool) -> Result<()> {
    refuse_hidden(client, is_filtered, HostFinding::hidden_logs).await
}

async fn refuse_hidden(
    client: &impl GenericClient,
    is_filtered: bool,
    hidden: fn(&HostFacts) -> Option<HostFinding>,
) -> Result<()> {
    if !is_filtered {
        return Ok(());
    }
    match hidden(&look(client).await?) {
        Some(finding) => Err(finding.into()),
        None => Ok(()),
    }
}
