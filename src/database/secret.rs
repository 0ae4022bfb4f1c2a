use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::error::DisplayErrorContext;
use serde::Deserialize;

use crate::error::{Error, Result};

/// A database secret in the shape that RDS gives it.
#[derive(Deserialize)]
struct Secret {
    username: String,
    password: String,
    host: Option<String>,
    port: Option<u16>,
    dbname: Option<String>,
}

/// Reads the secret `id` (a name or an ARN) from Secrets Manager and puts it over `postgres`.
///
/// # Errors
///
/// [`Error::Secret`] when it cannot be fetched or has another shape.
pub(super) async fn apply(id: &str, postgres: &mut tokio_postgres::Config) -> Result<()> {
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let client = aws_sdk_secretsmanager::Client::new(&aws);
    let answer = client.get_secret_value().secret_id(id).send().await;
    // The SDK's errors say next to nothing without their context.
    let answer = answer.map_err(|error| Error::Secret(DisplayErrorContext(error).to_string().into()))?;
    let secret: Secret = serde_json::from_str(answer.secret_string().unwrap_or_default())
        .map_err(|error| Error::Secret(format!("not a JSON object with username and password: {error}").into()))?;
    postgres.user(secret.username).password(secret.password);
    // host() and port() add to a list; a secret's host replaces what the environment named.
    if let Some(host) = secret.host {
        let named = std::mem::take(postgres);
        *postgres = without_hosts(&named);
        postgres.host(host).port(secret.port.unwrap_or(5432));
    }
    if let Some(dbname) = secret.dbname {
        postgres.dbname(dbname);
    }
    Ok(())
}

/// What a secret may leave open, without the hosts.
fn without_hosts(named: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.ssl_mode(named.get_ssl_mode());
    if let Some(user) = named.get_user() {
        config.user(user);
    }
    if let Some(password) = named.get_password() {
        config.password(password);
    }
    if let Some(dbname) = named.get_dbname() {
        config.dbname(dbname);
    }
    config
}
