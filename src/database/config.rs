use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::Host;

use super::credentials::CredentialsConfig;
use super::tls::TlsMode;
use crate::aws::AwsConfig;
use crate::config::ConfigError;

/// Where the database is and how to reach it.
#[derive(Clone)]
pub struct DatabaseConfig {
    pub(super) postgres: tokio_postgres::Config,
    pub(super) tls: TlsConfig,
    pub(super) credentials: CredentialsConfig,
    /// Who asks for them.
    pub(super) aws: AwsConfig,
    pub(super) schemas: Schemas,
}

/// Where tables are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schemas {
    pub(super) host: String,
    pub(super) service: String,
}

/// How connections are encrypted, as libpq's `sslmode` and `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsConfig {
    pub(super) mode: TlsMode,
    /// PEM file of the authorities to trust; the system's where there is none.
    pub(super) root_cert: Option<PathBuf>,
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // tokio_postgres hides the password.
        let Self { postgres, tls, credentials, aws, schemas } = self;
        f.debug_struct("DatabaseConfig")
            .field("postgres", postgres)
            .field("tls", tls)
            .field("credentials", credentials)
            .field("aws", aws)
            .field("schemas", schemas)
            .finish()
    }
}

impl FromStr for DatabaseConfig {
    type Err = ConfigError;

    /// Reads a connection text, as `DATABASE_URL` holds it.
    fn from_str(url: &str) -> Result<Self, ConfigError> {
        Self::from_lookup(|name| (name == "DATABASE_URL").then(|| url.to_owned()))
    }
}

impl DatabaseConfig {
    pub(crate) fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let bad_url = |problem: String| ConfigError::new("DATABASE_URL", problem);
        let (text, own) = take_own_parameters(&lookup("DATABASE_URL").unwrap_or_default());
        let mut postgres = text.parse::<tokio_postgres::Config>().map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            bad_url(format!("not a PostgreSQL connection text: {cause}"))
        })?;

        let secret_id = lookup("DATABASE_SECRET_ID");
        if postgres.get_hosts().is_empty()
            && let Some(host) = lookup("PGHOST")
        {
            postgres.host(host);
        }
        // A secret that says the host says the port, too.
        let says_secret_where = postgres.get_hosts().is_empty() && secret_id.is_some();
        if postgres.get_ports().is_empty()
            && !says_secret_where
            && let Some(port) = lookup("PGPORT")
        {
            let port: u16 =
                port.parse().map_err(|_| ConfigError::new("PGPORT", format!("{port:?} is not a port number")))?;
            postgres.port(port);
        }
        if postgres.get_user().is_none()
            && let Some(user) = lookup("PGUSER")
        {
            postgres.user(user);
        }
        if postgres.get_password().is_none()
            && let Some(password) = lookup("PGPASSWORD")
        {
            postgres.password(password);
        }
        if postgres.get_dbname().is_none()
            && let Some(database) = lookup("PGDATABASE")
        {
            postgres.dbname(database);
        }
        if postgres.get_hosts().is_empty() && !says_secret_where {
            return Err(bad_url("set it to postgres://user:password@host:port/database, or set PGHOST".into()));
        }
        let credentials = match (secret_id, lookup("DATABASE_IAM_AUTH").as_deref()) {
            (Some(id), None | Some("false")) => CredentialsConfig::Secret(id),
            (None, None | Some("false")) => CredentialsConfig::Given,
            (None, Some("true")) => iam(&postgres)?,
            (Some(_), Some("true")) => return Err(bad_iam("leave out this or DATABASE_SECRET_ID")),
            (_, Some(other)) => return Err(bad_iam(format!("{other:?} is neither true nor false"))),
        };

        let mode = match own.sslmode {
            Some(mode) => mode.parse().map_err(bad_url)?,
            None => match lookup("PGSSLMODE") {
                Some(mode) => mode.parse().map_err(|problem: String| ConfigError::new("PGSSLMODE", problem))?,
                // Credentials from AWS are for a server that is not on this machine.
                None if credentials != CredentialsConfig::Given => TlsMode::VerifyFull,
                None => TlsMode::Prefer,
            },
        };
        if matches!(credentials, CredentialsConfig::Iam { .. }) && mode != TlsMode::VerifyFull {
            return Err(bad_iam("a token goes to a server that is verified only: set sslmode to verify-full"));
        }
        let root_cert = own.sslrootcert.or_else(|| lookup("PGSSLROOTCERT")).map(PathBuf::from);
        postgres.ssl_mode(mode.into());
        Ok(Self {
            postgres,
            tls: TlsConfig { mode, root_cert },
            credentials,
            schemas: Schemas {
                host: own.schema.or_else(|| lookup("HOST_SCHEMA")).unwrap_or_else(|| "public".into()),
                service: lookup("SERVICE_SCHEMA").unwrap_or_else(|| "snapshot_service".into()),
            },
            aws: AwsConfig::from_lookup(lookup),
        })
    }
}

fn bad_iam(problem: impl Into<String>) -> ConfigError {
    ConfigError::new("DATABASE_IAM_AUTH", problem)
}

/// Whom and what a token is for.
fn iam(postgres: &tokio_postgres::Config) -> Result<CredentialsConfig, ConfigError> {
    match (postgres.get_hosts(), postgres.get_ports(), postgres.get_user()) {
        ([Host::Tcp(host)], ports, Some(user)) => {
            let port = ports.first().copied().unwrap_or(5432);
            Ok(CredentialsConfig::Iam { host: host.clone(), port, user: user.into() })
        }
        _ => Err(bad_iam("needs the name of one host, and a user: set PGHOST and PGUSER")),
    }
}

/// Connection parameters that tokio_postgres does not know: TLS in libpq's words, and those of the host's ORM.
#[derive(Debug, Default, PartialEq, Eq)]
struct OwnParameters {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    schema: Option<String>,
}

impl OwnParameters {
    /// Takes the parameter if it is one of these.
    fn take(&mut self, name: &str, value: &str) -> bool {
        let value = value.to_owned();
        match name {
            "sslmode" => self.sslmode = Some(value),
            "sslrootcert" => self.sslrootcert = Some(value),
            "schema" => self.schema = Some(value),
            // Prisma's own pool settings, which say nothing about the database.
            "connection_limit" | "pool_timeout" | "pgbouncer" => {}
            _ => return false,
        }
        true
    }
}

/// Splits a connection text in the part that tokio_postgres reads and the parameters that it refuses.
fn take_own_parameters(text: &str) -> (String, OwnParameters) {
    let mut own = OwnParameters::default();
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if is_url {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let rest: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                !pair.is_empty() && !own.take(name, &percent_decode_str(value).decode_utf8_lossy())
            })
            .collect();
        let separator = if rest.is_empty() { "" } else { "?" };
        return (format!("{base}{separator}{}", rest.join("&")), own);
    }
    let mut quoted = false;
    let words = text.split(|character: char| {
        quoted ^= character == '\'';
        !quoted && character.is_whitespace()
    });
    let rest: Vec<&str> = words
        .filter(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            !own.take(name, value.trim_matches('\''))
        })
        .collect();
    (rest.join(" "), own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> DatabaseConfig {
        url.parse().expect(url)
    }

    #[test]
    fn libpqs_tls_parameters_are_read_from_both_forms() {
        for text in [
            "postgres://u:p@db.example:5433/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&connect_timeout=3",
            "host=db.example port=5433 user=u password='p' dbname=app sslmode=verify-full sslrootcert=/etc/ca.pem",
        ] {
            let config = parse(text);
            assert_eq!(config.tls.mode, TlsMode::VerifyFull);
            assert_eq!(config.tls.root_cert, Some("/etc/ca.pem".into()));
            assert_eq!(config.postgres.get_ports(), [5433]);
            assert_eq!(config.postgres.get_password(), Some(b"p".as_slice()));
        }
    }

    #[test]
    fn the_hosts_own_orm_url_is_understood() {
        let config = parse("postgresql://u:p@db/app?schema=public&connection_limit=5&pgbouncer=true");
        assert_eq!(config.postgres.get_dbname(), Some("app"));
    }

    #[test]
    fn what_the_connection_text_leaves_open_comes_from_libpqs_variables() {
        let variables = [
            ("DATABASE_URL", "host=db.example"),
            ("PGHOST", "ignored.example"),
            ("PGPORT", "6000"),
            ("PGUSER", "u"),
            ("PGPASSWORD", "p"),
            ("PGDATABASE", "app"),
            ("PGSSLMODE", "require"),
        ];
        let config = read(&variables).expect("whole");
        assert_eq!(config.postgres.get_hosts().len(), 1);
        assert_eq!(config.postgres.get_ports(), [6000]);
        assert_eq!(config.postgres.get_user(), Some("u"));
        assert_eq!(config.postgres.get_dbname(), Some("app"));
        assert_eq!(config.tls.mode, TlsMode::Require);
    }

    fn read(variables: &[(&str, &str)]) -> Result<DatabaseConfig, ConfigError> {
        DatabaseConfig::from_lookup(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn who_forgets_the_sslmode_of_a_server_on_aws_does_not_send_plain_text() {
        let secret = ("DATABASE_SECRET_ID", "db");
        let iam = [("DATABASE_IAM_AUTH", "true"), ("PGHOST", "db.example"), ("PGUSER", "reader")];
        let mode = |variables: &[(&str, &str)]| read(variables).expect("whole").tls.mode;
        assert_eq!(mode(&[("PGHOST", "localhost")]), TlsMode::Prefer);
        assert_eq!(mode(&[secret]), TlsMode::VerifyFull);
        assert_eq!(mode(&[secret, ("PGSSLMODE", "disable")]), TlsMode::Disable);
        assert_eq!(mode(&iam), TlsMode::VerifyFull);
        for plain in ["disable", "prefer"] {
            let variables = [iam.as_slice(), &[("PGSSLMODE", plain)]].concat();
            let error = read(&variables).expect_err(plain).to_string();
            assert!(error.starts_with("DATABASE_IAM_AUTH: ") && error.contains("verify-full"), "{error}");
        }
    }

    #[test]
    fn a_token_is_for_one_host_and_user() {
        let iam = ("DATABASE_IAM_AUTH", "true");
        let config = read(&[iam, ("DATABASE_URL", "host=db.example port=6000 user=reader")]).expect("whole");
        let (host, user) = ("db.example".into(), "reader".into());
        assert_eq!(config.credentials, CredentialsConfig::Iam { host, port: 6000, user });
        for variables in [
            [iam, ("PGHOST", "db.example")].as_slice(),
            &[iam, ("DATABASE_URL", "host=a,b user=reader")],
            &[iam, ("DATABASE_URL", "host=/run user=reader")],
            &[("DATABASE_IAM_AUTH", "yes"), ("PGHOST", "db.example")],
            &[iam, ("DATABASE_SECRET_ID", "db")],
        ] {
            let error = read(variables).expect_err("refused").to_string();
            assert!(error.starts_with("DATABASE_IAM_AUTH: ") || error.starts_with("DATABASE_URL: "), "{error}");
        }
    }

    #[test]
    fn a_secret_says_the_port_of_its_host_only() {
        let secret = ("DATABASE_SECRET_ID", "db");
        let ports = |variables: &[(&str, &str)]| read(variables).expect("whole").postgres.get_ports().to_vec();
        assert!(ports(&[secret, ("PGPORT", "5432")]).is_empty());
        assert_eq!(ports(&[secret, ("PGPORT", "6000"), ("PGHOST", "proxy.example")]), [6000]);
    }

    #[test]
    fn a_password_is_never_printed() {
        assert!(!format!("{:?}", parse("postgres://u:hunter2@db/app")).contains("hunter2"));
        let error = "postgres://u:hunter2@db/app?nonsense=1".parse::<DatabaseConfig>().expect_err("unknown");
        assert_eq!(error.to_string(), "DATABASE_URL: not a PostgreSQL connection text: unknown option `nonsense`");
    }
}
