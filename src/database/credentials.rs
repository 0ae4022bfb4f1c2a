use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::config::Region;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_types::SdkConfig;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use crate::aws::AwsConfig;
use crate::error::{Error, Result, chain};

/// Longest that Secrets Manager may take, with retries; it is asked before the first connection, within Lambda's 10 s for
/// a start. A connection under way waits no longer than for the database.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// RDS takes no token that is valid for longer. It looks at it once, when a connection begins.
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
    /// A token for this host, port and user, which the process's own AWS identity signs.
    Iam { host: String, port: u16, user: String },
}

/// Opens connections, each with the credentials of its moment.
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    credentials: Credentials,
}

enum Credentials {
    Given,
    Secret(StoredSecret),
    Iam(Signer),
}

impl Connector {
    /// # Errors
    ///
    /// [`Error::Secret`] when the secret, or the identity that is to sign, cannot be had.
    pub(super) async fn new(
        config: Config,
        credentials: &CredentialsConfig,
        aws: &AwsConfig,
        tls: MakeRustlsConnect,
    ) -> Result<Self> {
        let credentials = match credentials {
            CredentialsConfig::Given => Credentials::Given,
            CredentialsConfig::Secret(id) => {
                Credentials::Secret(StoredSecret::fetch(&aws.for_calls_within(FETCH_TIMEOUT), id).await?)
            }
            CredentialsConfig::Iam { host, port, user } => Credentials::Iam(Signer::new(aws, host, *port, user)?),
        };
        Ok(Self { config, tls, credentials })
    }

    pub(super) async fn open(&self) -> Result<Client> {
        match &self.credentials {
            Credentials::Given => Ok(self.connect(&self.config).await?),
            Credentials::Secret(stored) => {
                let known = stored.known().await;
                match self.connect(&known.complete(&self.config)).await {
                    // It was rotated.
                    Err(refused) if is_refusal(&refused) => {
                        let fresh = stored.fetch_again(&known).await?;
                        if fresh == known {
                            return Err(refused.into());
                        }
                        Ok(self.connect(&fresh.complete(&self.config)).await?)
                    }
                    result => Ok(result?),
                }
            }
            Credentials::Iam(signer) => {
                let token = signer.sign_token(SystemTime::now())?;
                Ok(self.connect(self.config.clone().password(token)).await?)
            }
        }
    }

    async fn connect(&self, config: &Config) -> std::result::Result<Client, tokio_postgres::Error> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        // It ends with its client.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                warn!(error = chain(&error), "a connection to the database is lost");
            }
        });
        Ok(client)
    }
}

/// Whether the server does not take the user or the password.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    let refusals = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
    error.code().is_some_and(|code| refusals.contains(code))
}

/// A database's secret in the shape that RDS gives it.
#[derive(PartialEq, Eq, Deserialize)]
struct Secret {
    username: String,
    password: String,
    host: Option<String>,
    port: Option<u16>,
    dbname: Option<String>,
}

impl Secret {
    /// `config` with the secret's user and password, and the place that it leaves open.
    fn complete(&self, config: &Config) -> Config {
        let mut config = config.clone();
        config.user(&self.username).password(&self.password);
        if config.get_hosts().is_empty()
            && let Some(host) = &self.host
        {
            config.host(host).port(self.port.unwrap_or(5432));
        }
        if config.get_dbname().is_none()
            && let Some(dbname) = &self.dbname
        {
            config.dbname(dbname);
        }
        config
    }
}

/// A secret, as it was when it was last fetched.
struct StoredSecret {
    id: String,
    client: aws_sdk_secretsmanager::Client,
    /// Locked while it is fetched: connections that begin meanwhile wait for it.
    last: Mutex<Arc<Secret>>,
}

impl StoredSecret {
    async fn fetch(aws: &SdkConfig, id: &str) -> Result<Self> {
        let client = aws_sdk_secretsmanager::Client::new(aws);
        let last = Mutex::new(Arc::new(fetch(&client, id).await?));
        Ok(Self { id: id.to_owned(), client, last })
    }

    async fn known(&self) -> Arc<Secret> {
        Arc::clone(&*self.last.lock().await)
    }

    /// What was fetched after `refused`: by somebody else meanwhile, or now.
    async fn fetch_again(&self, refused: &Arc<Secret>) -> Result<Arc<Secret>> {
        let mut last = self.last.lock().await;
        if Arc::ptr_eq(&last, refused) {
            *last = Arc::new(fetch(&self.client, &self.id).await?);
        }
        Ok(Arc::clone(&last))
    }
}

async fn fetch(client: &aws_sdk_secretsmanager::Client, id: &str) -> Result<Secret> {
    let answer = client.get_secret_value().secret_id(id).send().await;
    // In words: the debug form of the SDK's errors has the answer, and so may have the secret.
    let answer = answer.map_err(|error| Error::Secret(format!("{id}: {}", chain(&error)).into()))?;
    // The parser's own words may have a part of the text.
    serde_json::from_str(answer.secret_string().unwrap_or_default())
        .map_err(|_| Error::Secret(format!("{id} is not a JSON object with username and password").into()))
}

/// Signs the tokens that RDS takes for a user's password.
struct Signer {
    credentials: aws_credential_types::Credentials,
    region: Region,
    url: String,
}

impl Signer {
    fn new(aws: &AwsConfig, host: &str, port: u16, user: &str) -> Result<Self> {
        let missing = |what: &str| Error::Secret(format!("no {what} to sign the database's tokens").into());
        let credentials = aws.credentials.clone().ok_or_else(|| missing("AWS identity"))?;
        let region = aws.region.clone().ok_or_else(|| missing("AWS_REGION"))?;
        Ok(Self { credentials, region, url: connect_url(host, port, user) })
    }

    /// A token for one connection.
    fn sign_token(&self, now: SystemTime) -> Result<String> {
        let unsigned = |error: &dyn std::error::Error| Error::Secret(format!("no token was signed: {error}").into());
        let mut settings = SigningSettings::default();
        settings.expires_in = Some(TOKEN_VALIDITY);
        settings.signature_location = SignatureLocation::QueryParams;
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region.as_ref())
            .name("rds-db")
            .time(now)
            .settings(settings)
            .build()
            .map_err(|error| unsigned(&error))?;
        let request = SignableRequest::new("GET", &self.url, std::iter::empty(), SignableBody::Bytes(&[]));
        let request = request.map_err(|error| unsigned(&error))?;
        let (signature, _) = sign(request, &parameters.into()).map_err(|error| unsigned(&error))?.into_parts();
        let parameters = signature.params().iter().map(|(name, value)| format!("&{name}={}", encode(value)));
        // The token is the address without its scheme.
        Ok(parameters.fold(self.url.clone(), |url, parameter| url + &parameter).split_off("https://".len()))
    }
}

fn connect_url(host: &str, port: u16, user: &str) -> String {
    format!("https://{host}:{port}/?Action=connect&DBUser={}", encode(user))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials};
    use axum::Router;
    use axum::extract::State;
    use axum::routing::post;
    use futures_util::future::join_all;
    use serde_json::json;
    use tokio_postgres::config::Host;

    use super::*;

    #[tokio::test]
    async fn a_token_is_what_the_official_client_library_signs() {
        let key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", key, Some("a/token+with=signs".into()), None, "test");
        let now = chrono::DateTime::parse_from_rfc3339("2026-11-23T13:09:15Z").expect("a time");
        // As boto3's generate_db_auth_token gave it, which has its parameters in another order.
        for (user, signature) in [
            ("snapshot_read", "e96dc1529feb2537d1b24e612dc12433a003f27776be5ef1619608375bb4e3fb"),
            ("a b&c", "15a67460f7db7ce7ebada03d2179864e8003afa511d307a6f907c7c26098fd33"),
        ] {
            let host = "db.example.eu-west-1.rds.amazonaws.com";
            let signer = Signer {
                credentials: credentials.clone(),
                region: Region::from_static("eu-west-1"),
                url: connect_url(host, 5432, user),
            };
            let expected = format!(
                "{host}:5432/?Action=connect&DBUser={}&X-Amz-Algorithm=AWS4-HMAC-SHA256\
                 &X-Amz-Credential=AKIDEXAMPLE%2F20261123%2Feu-west-1%2Frds-db%2Faws4_request\
                 &X-Amz-Date=20261123T130915Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
                 &X-Amz-Security-Token=a%2Ftoken%2Bwith%3Dsigns&X-Amz-Signature={signature}",
                encode(user)
            );
            let token = signer.sign_token(now.into()).expect("a token");
            let parts = |token: &str| token.split('&').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(parts(&token), parts(&expected));
        }
    }

    /// A secret in a Secrets Manager that gives `answer` with the number of times that it was asked before.
    async fn versions_of(answer: fn(usize) -> String) -> (StoredSecret, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let next = async move |State(count): State<Arc<AtomicUsize>>| answer(count.fetch_add(1, Ordering::SeqCst));
        let address = runtime_api::serve(Router::new().route("/", post(next)).with_state(Arc::clone(&count))).await;
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "test")))
            .endpoint_url(format!("http://{address}"))
            .build();
        let stored = StoredSecret::fetch(&aws, "db").await.expect("the first version");
        (stored, count)
    }

    #[tokio::test]
    async fn connections_that_are_refused_at_once_share_one_fetch() {
        let version = |number: usize| {
            let secret = json!({"username": "me", "password": number.to_string()}).to_string();
            json!({"Name": "db", "SecretString": secret}).to_string()
        };
        let (stored, count) = versions_of(version).await;
        let known = stored.known().await;
        assert_eq!(known.password, "0");
        let fetched = join_all((0..8).map(|_| stored.fetch_again(&known))).await;
        assert!(fetched.into_iter().all(|secret| secret.expect("the second version").password == "1"));
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_off_is_not_told() {
        let version = |number: usize| {
            let whole = json!({"SecretString": r#"{"username": "me", "password": "hunter2"}"#}).to_string();
            if number == 0 { whole } else { whole.trim_end_matches('}').into() }
        };
        let (stored, _) = versions_of(version).await;
        let error = stored.fetch_again(&stored.known().await).await.err().expect("cut off");
        assert!(!format!("{error:?} {}", chain(&error)).contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_secret_fills_in_the_place_that_the_environment_leaves_open() {
        let secret = r#"{"engine": "postgres", "username": "me", "password": "new", "host": "db", "port": 6000, "dbname": "app"}"#;
        let secret: Secret = serde_json::from_str(secret).expect("RDS's shape");
        let config = secret.complete(Config::new().user("u").application_name("a"));
        assert_eq!((config.get_hosts(), config.get_ports()), (&[Host::Tcp("db".into())][..], &[6000][..]));
        assert_eq!((config.get_user(), config.get_password()), (Some("me"), Some(b"new".as_slice())));
        assert_eq!((config.get_dbname(), config.get_application_name()), (Some("app"), Some("a")));

        let config = secret.complete(Config::new().host("proxy").dbname("other"));
        assert_eq!((config.get_hosts().len(), config.get_ports().len()), (1, 0));
        assert_eq!((config.get_user(), config.get_dbname()), (Some("me"), Some("other")));
    }
}
