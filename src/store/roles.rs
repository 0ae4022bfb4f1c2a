use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::statement::Statement;
use crate::error::Result;

/// The roles that operators grant to logins: one for what only reads, one for what maintains. Nobody logs in as one of
/// them.
const ROLES: [&str; 2] = ["snapshot_service_read", "snapshot_service_maintain"];

/// Makes the roles that the cluster lacks. Returns what somebody else must do, where this session's role may not make
/// them.
///
/// Other databases of the cluster may be migrated at the same time: that another one made it is no error.
pub(crate) async fn create_missing_roles(client: &impl GenericClient) -> Result<Vec<String>> {
    for role in list_missing_roles(client).await? {
        client
            .batch_execute(&format!(
                "DO $$ BEGIN CREATE ROLE {role} NOLOGIN; \
                 EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN END $$"
            ))
            .await?;
    }
    let missing = list_missing_roles(client).await?;
    let statements: Vec<_> = missing.iter().map(|role| format!("CREATE ROLE {role} NOLOGIN;")).collect();
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!("a role with CREATEROLE must run, before the next `migrate`: {}", statements.join(" "))])
}

async fn list_missing_roles(client: &impl GenericClient) -> Result<Vec<String>> {
    let sql = "SELECT name FROM unnest($1) name WHERE to_regrole(quote_ident(name)) IS NULL";
    let rows = client.query_typed(sql, &[(&ROLES.as_slice(), Type::TEXT_ARRAY)]).await?;
    rows.iter().map(|row| Ok(row.try_get("name")?)).collect()
}

/// Grants the roles what they need and revokes what else they have, on the service's objects and on those of the host
/// that it uses. Returns what somebody else must do, because it is theirs.
pub(crate) async fn align_grants(client: &impl GenericClient) -> Result<Vec<String>> {
    // Until the end no partition is made, which might get no grants.
    client.batch_execute(r#"LOCK TABLE ONLY "StreamArchive" IN SHARE UPDATE EXCLUSIVE MODE"#).await?;
    // First what is too much: to revoke it from a table takes it from the columns, too.
    let mut left = change_grants(client, true, false).await?;
    left.extend(change_grants(client, true, true).await?);
    left.extend(list_hindrances(client).await?);
    Ok(left)
}

/// Revokes what the roles have of the host's. Returns what somebody else must do, because it is theirs.
pub(crate) async fn revoke_from_host(client: &impl GenericClient) -> Result<Vec<String>> {
    change_grants(client, false, false).await
}

/// Grants, or revokes, what is to be by `sql/list_grants.sql`. Returns what this session's role may not.
async fn change_grants(client: &impl GenericClient, is_wanted: bool, grant: bool) -> Result<Vec<String>> {
    let list_grants = Statement::new(include_str!("sql/list_grants.sql")).bind("is_wanted", &is_wanted, Type::BOOL);
    let mut left = Vec::new();
    for row in list_grants.query(client).await? {
        let (is_grant, is_possible): (bool, bool) = (row.try_get("is_grant")?, row.try_get("is_possible")?);
        let statement: &str = row.try_get("statement")?;
        if is_grant != grant {
            continue;
        }
        if is_possible {
            client.batch_execute(statement).await?;
        } else {
            let (object, owner): (&str, &str) = (row.try_get("object")?, row.try_get("owner")?);
            left.push(format!("the owner of {object}, {owner}, must run: {statement};"));
        }
    }
    Ok(left)
}

/// What makes grants mean something else than they say.
async fn list_hindrances(client: &impl GenericClient) -> Result<Vec<String>> {
    let rows = client.query_typed(include_str!("sql/list_grant_hindrances.sql"), &[]).await?;
    rows.iter().map(|row| Ok(row.try_get("hindrance")?)).collect()
}
