use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_secretsmanager::error::DisplayErrorContext;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use deadpool_postgres::Connect;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};

/// How long RDS takes a token, at most. It is asked for when a connection begins, and never again.
const TOKEN_VALIDITY: Duration = Duration::from_mins(15);

/// What a URL's query says as it is (RFC 3986).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CredentialsConfig {
    /// It is given, or none is needed.
    Given,
    /// A secret in Secrets Manager, by its name or ARN.
    Secret(String),
    /// A token that the process's own AWS identity signs.
    Iam,
}

/// Opens the pool's connections, each with the credentials of its moment.
pub(super) struct Connector {
    tls: MakeRustlsConnect,
    credentials: Credentials,
}

enum Credentials {
    Given,
    Secret(StoredSecret),
    Iam(Identity),
}

impl Connector {
    /// # Errors
    ///
    /// [`Error::Secret`] when the secret, or the identity that is to sign, cannot be had.
    pub(super) async fn new(config: &CredentialsConfig, tls: MakeRustlsConnect) -> Result<Self> {
        let credentials = match config {
            CredentialsConfig::Given => Credentials::Given,
            CredentialsConfig::Secret(id) => Credentials::Secret(StoredSecret::fetch_first(id).await?),
            CredentialsConfig::Iam => Credentials::Iam(Identity::load().await?),
        };
        Ok(Self { tls, credentials })
    }

    async fn connect(&self, mut config: Config) -> std::result::Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        match &self.credentials {
            Credentials::Given => self.open(&config).await,
            Credentials::Iam(identity) => {
                match identity.sign_token(&config, SystemTime::now()).await {
                    Ok(token) => config.password(token),
                    Err(error) => return Err(as_database_error(error).await),
                };
                self.open(&config).await
            }
            Credentials::Secret(stored) => {
                let known = stored.get();
                match self.open(&known.over(&config)).await {
                    // It was rotated.
                    Err(refused) if is_refusal(&refused) => match stored.fetch_after(&known).await {
                        Ok(fresh) if fresh == known => Err(refused),
                        Ok(fresh) => self.open(&fresh.over(&config)).await,
                        Err(error) => Err(as_database_error(error).await),
                    },
                    result => result,
                }
            }
        }
    }

    async fn open(&self, config: &Config) -> std::result::Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        Ok((client, task))
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + '_>>
    {
        Box::pin(self.connect(config.clone()))
    }
}

/// Whether the server does not take the user or the password.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    )
}

/// A database secret in the shape that RDS gives it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
struct Secret {
    username: String,
    password: String,
    host: Option<String>,
    port: Option<u16>,
    dbname: Option<String>,
}

impl Secret {
    /// `named`, with what the secret says in its place.
    fn over(&self, named: &Config) -> Config {
        // host() and port() add to a list; a secret's host replaces what the environment named.
        let mut config = if self.host.is_some() { without_hosts(named) } else { named.clone() };
        config.user(&self.username).password(&self.password);
        if let Some(host) = &self.host {
            config.host(host).port(self.port.unwrap_or(5432));
        }
        if let Some(dbname) = &self.dbname {
            config.dbname(dbname);
        }
        config
    }
}

/// What is left of a configuration without its hosts.
fn without_hosts(named: &Config) -> Config {
    let mut config = Config::new();
    config
        .ssl_mode(named.get_ssl_mode())
        .keepalives_idle(named.get_keepalives_idle())
        .keepalives(named.get_keepalives());
    if let Some(dbname) = named.get_dbname() {
        config.dbname(dbname);
    }
    if let Some(name) = named.get_application_name() {
        config.application_name(name);
    }
    if let Some(timeout) = named.get_connect_timeout() {
        config.connect_timeout(*timeout);
    }
    if let Some(timeout) = named.get_tcp_user_timeout() {
        config.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = named.get_keepalives_interval() {
        config.keepalives_interval(interval);
    }
    if let Some(retries) = named.get_keepalives_retries() {
        config.keepalives_retries(retries);
    }
    config
}

/// A secret, as it was when it was last fetched.
struct StoredSecret {
    id: String,
    client: aws_sdk_secretsmanager::Client,
    last: Mutex<Secret>,
    /// One fetches at a time: what is then known is what the others wanted.
    fetching: tokio::sync::Mutex<()>,
}

impl StoredSecret {
    async fn fetch_first(id: &str) -> Result<Self> {
        let client = aws_sdk_secretsmanager::Client::new(&load_aws().await);
        let last = fetch(&client, id).await?;
        Ok(Self { id: id.to_owned(), client, last: Mutex::new(last), fetching: tokio::sync::Mutex::default() })
    }

    fn get(&self) -> Secret {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The secret that came after `refused`; that one, if there is none.
    async fn fetch_after(&self, refused: &Secret) -> Result<Secret> {
        let _fetching = self.fetching.lock().await;
        let last = self.get();
        if last != *refused {
            return Ok(last);
        }
        let fresh = fetch(&self.client, &self.id).await?;
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&fresh);
        Ok(fresh)
    }
}

async fn fetch(client: &aws_sdk_secretsmanager::Client, id: &str) -> Result<Secret> {
    let answer = client.get_secret_value().secret_id(id).send().await;
    // The SDK's errors say next to nothing without their context.
    let answer = answer.map_err(|error| Error::Secret(DisplayErrorContext(error).to_string().into()))?;
    // The parser's own words may have a part of the text.
    serde_json::from_str(answer.secret_string().unwrap_or_default())
        .map_err(|_| Error::Secret("not a JSON object with username and password".into()))
}

async fn load_aws() -> SdkConfig {
    aws_config::load_defaults(BehaviorVersion::latest()).await
}

/// The process's own AWS identity, which signs the tokens that RDS takes for a password.
struct Identity {
    provider: SharedCredentialsProvider,
    region: Region,
}

impl Identity {
    async fn load() -> Result<Self> {
        let aws = load_aws().await;
        let missing = |what: &str| Error::Secret(format!("DATABASE_IAM_AUTH: there is no {what}").into());
        let provider = aws.credentials_provider().ok_or_else(|| missing("AWS identity"))?;
        let region = aws.region().cloned().ok_or_else(|| missing("AWS_REGION"))?;
        Ok(Self { provider, region })
    }

    /// A token for the host and the user of `config`.
    async fn sign_token(&self, config: &Config, now: SystemTime) -> Result<String> {
        let identity = self.provider.provide_credentials().await;
        let identity = identity.map_err(|error| Error::Secret(DisplayErrorContext(error).to_string().into()))?;
        let Some(Host::Tcp(host)) = config.get_hosts().first() else {
            return Err(Error::Secret("DATABASE_IAM_AUTH: the database has no host name".into()));
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().unwrap_or_default();
        let url = format!("https://{host}:{port}/?Action=connect&DBUser={}", encode(user));
        let mut settings = SigningSettings::default();
        settings.expires_in = Some(TOKEN_VALIDITY);
        settings.signature_location = SignatureLocation::QueryParams;
        let identity = identity.into();
        let unsignable = |error: &dyn std::error::Error| Error::Secret(format!("a token cannot be signed: {error}").into());
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region.as_ref())
            .name("rds-db")
            .time(now)
            .settings(settings)
            .build()
            .map_err(|error| unsignable(&error))?;
        let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]));
        let request = request.map_err(|error| unsignable(&error))?;
        let signed = sign(request, &parameters.into()).map_err(|error| unsignable(&error))?;
        let (instructions, _) = signed.into_parts();
        let added = instructions.params().iter().map(|(name, value)| format!("&{name}={}", encode(value)));
        // The token is the address without its scheme.
        Ok(added.fold(url, |url, parameter| url + &parameter).split_off("https://".len()))
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The pool hands on errors of tokio_postgres alone, which only that makes: here of a connection that fails with `error`.
async fn as_database_error(error: Error) -> tokio_postgres::Error {
    let failing = Failing(Some(io::Error::other(error)));
    let Err(error) = Config::new().user("nobody").connect_raw(failing, NoTls).await else {
        unreachable!("it never answers")
    };
    error
}

/// A connection that fails with this.
struct Failing(Option<io::Error>);

impl Failing {
    fn fail<T>(&mut self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(self.0.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into())))
    }
}

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }
}

impl AsyncWrite for Failing {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.fail()
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_what_the_official_client_library_signs() {
        let key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials =
            aws_credential_types::Credentials::new("AKIDEXAMPLE", key, Some("a/token+with=signs".into()), None, "test");
        let identity =
            Identity { provider: SharedCredentialsProvider::new(credentials), region: Region::from_static("eu-west-1") };
        let mut config = Config::new();
        config.host("db.example.eu-west-1.rds.amazonaws.com").user("snapshot_read");
        let now = chrono::DateTime::parse_from_rfc3339("2026-11-23T13:09:15Z").expect("a time");
        // As boto3's generate_db_auth_token gave it.
        let expected = "db.example.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=snapshot_read\
            &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261123%2Feu-west-1%2Frds-db%2Faws4_request\
            &X-Amz-Date=20261123T130915Z&X-Amz-SignedHeaders=host&X-Amz-Expires=900\
            &X-Amz-Security-Token=a%2Ftoken%2Bwith%3Dsigns\
            &X-Amz-Signature=e96dc1529feb2537d1b24e612dc12433a003f27776be5ef1619608375bb4e3fb";
        let token = identity.sign_token(&config, now.into()).await.expect("a token");
        let parts = |token: &str| token.split('&').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(parts(&token), parts(expected));
    }

    #[tokio::test]
    async fn what_keeps_a_secret_away_is_told_by_the_pool() {
        let error = as_database_error(Error::Secret("no such secret".into())).await;
        assert!(crate::error::chain(&error).contains("no such secret"), "{}", crate::error::chain(&error));
    }

    #[test]
    fn a_secrets_host_replaces_what_was_named_and_the_rest_stays() {
        let mut named = Config::new();
        named.host("old").port(1).user("u").password("p").dbname("app").application_name("a");
        named.connect_timeout(Duration::from_secs(2)).keepalives_retries(2);
        let secret = Secret {
            username: "me".into(),
            password: "new".into(),
            host: Some("db".into()),
            port: None,
            dbname: None,
        };
        let config = secret.over(&named);
        let hosts = [Host::Tcp("db".into())];
        assert_eq!((config.get_hosts(), config.get_ports(), config.get_user()), (&hosts[..], &[5432][..], Some("me")));
        assert_eq!((config.get_dbname(), config.get_application_name()), (Some("app"), Some("a")));
        assert_eq!((config.get_connect_timeout(), config.get_keepalives_retries()), (named.get_connect_timeout(), Some(2)));
    }
}
