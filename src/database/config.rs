use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::Host;

use super::credentials::CredentialsConfig;
use super::tls::TlsMode;
use crate::aws::AwsConfig;
use crate::error::ConfigError;

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

impl Schemas {
    /// `of_url` is the URL's `schema`, as the host's ORM has it.
    fn from_lookup(of_url: Option<String>, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variable = lookup("HOST_SCHEMA");
        if let (Some(url), Some(variable)) = (&of_url, &variable)
            && url != variable
        {
            let problem = format!("is {variable:?}, and DATABASE_URL says schema={url}: leave out one of them");
            return Err(ConfigError::new("HOST_SCHEMA", problem));
        }
        let host_variable = if of_url.is_some() { "DATABASE_URL" } else { "HOST_SCHEMA" };
        let host = of_url.or(variable).unwrap_or_else(|| "public".into());
        let service = lookup("SERVICE_SCHEMA").unwrap_or_else(|| "snapshot_service".into());
        for (name, schema) in [(host_variable, &host), ("SERVICE_SCHEMA", &service)] {
            // As PostgreSQL has it: it would cut a longer one.
            let is_name = (1..=63).contains(&schema.len()) && !schema.contains('\0');
            let is_reserved = schema.starts_with("pg_") || schema == "information_schema";
            if !is_name || is_reserved {
                let wanted = "is no schema of yours: give the name of one, of at most 63 bytes";
                return Err(ConfigError::new(name, format!("{schema:?} {wanted}")));
            }
        }
        if host == service {
            let problem =
                format!("is {service:?}, where the host's tables are: the service's need a schema of their own");
            return Err(ConfigError::new("SERVICE_SCHEMA", problem));
        }
        Ok(Self { host, service })
    }
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
    /// The schema of the host's two tables.
    pub fn host_schema(&self) -> &str {
        &self.schemas.host
    }

    /// The schema of the service's own tables.
    pub fn service_schema(&self) -> &str {
        &self.schemas.service
    }

    pub(crate) fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let bad_url = |problem: String| ConfigError::new("DATABASE_URL", problem);
        let url = lookup("DATABASE_URL").unwrap_or_default();
        if !(url.is_empty() || url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            // Not as it is: it may have a password.
            return Err(bad_url("is no URL: write postgres://user:password@host:port/database".into()));
        }
        let (text, mut own) = take_own_parameters(&url);
        let (sslmode, sslrootcert) = own.tls();
        if !own.refused.is_empty() {
            return Err(bad_url(format!("has parameters that cannot be: {}", own.refused.join(", "))));
        }
        let mut postgres = text.parse::<tokio_postgres::Config>().map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            bad_url(format!("not a PostgreSQL URL: {cause}"))
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

        let schemas = Schemas::from_lookup(own.schema, &lookup)?;
        let mode = match sslmode {
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
        let root_cert = sslrootcert.or_else(|| lookup("PGSSLROOTCERT")).map(PathBuf::from);
        postgres.ssl_mode(mode.into());
        Ok(Self {
            postgres,
            tls: TlsConfig { mode, root_cert },
            credentials,
            schemas,
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

/// Parameters of a URL that tokio_postgres does not know: TLS in libpq's words or in Prisma's, and the schema.
#[derive(Debug, Default)]
struct OwnParameters {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    /// Prisma's word for the authorities' file, libpq's for a client's certificate.
    sslcert: Option<String>,
    /// Prisma's: whether certificates are checked.
    sslaccept: Option<String>,
    schema: Option<String>,
    /// What cannot be, each with what to do.
    refused: Vec<String>,
}

/// Parameters that tokio_postgres reads.
const PASSED_ON: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Prisma's own, about its pool and its statements: ours have limits of their own.
const OF_PRISMAS_POOL: [&str; 8] = [
    "connection_limit",
    "pool_timeout",
    "pgbouncer",
    "statement_cache_size",
    "socket_timeout",
    "single_use_connections",
    "max_connection_lifetime",
    "max_idle_connection_lifetime",
];

impl OwnParameters {
    /// Takes the parameter, unless tokio_postgres reads it.
    fn take(&mut self, name: &str, value: String) -> bool {
        let own = match name {
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            "sslcert" => &mut self.sslcert,
            "sslaccept" => &mut self.sslaccept,
            "schema" => &mut self.schema,
            _ => return self.take_other(name),
        };
        if own.as_ref().is_some_and(|given| *given != value) {
            self.refused.push(format!("{name} (is given twice: leave one out)"));
        } else if name == "sslaccept" && !["strict", "accept_invalid_certs"].contains(&value.as_str()) {
            self.refused.push(format!("sslaccept={value} (give strict or accept_invalid_certs)"));
        } else {
            *own = Some(value);
        }
        true
    }

    fn take_other(&mut self, name: &str) -> bool {
        match name {
            "sslidentity" | "sslpassword" | "sslkey" => {
                self.refused
                    .push(format!("{name} (client certificates are not supported: log in with a password or by IAM)"));
            }
            name if OF_PRISMAS_POOL.contains(&name) => {}
            name if PASSED_ON.contains(&name) => return false,
            name => self.refused.push(format!("{name} (leave it out)")),
        }
        true
    }

    /// The mode, and the file of the authorities to trust.
    fn tls(&mut self) -> (Option<String>, Option<String>) {
        let prismas = self.sslcert.take();
        if let (Some(_), Some(_)) = (&prismas, &self.sslrootcert) {
            self.refused
                .push("sslcert beside sslrootcert (a client's certificate is not supported: leave it out)".into());
        }
        let is_strict = self.sslaccept.as_deref() == Some("strict") && self.sslmode.as_deref() != Some("disable");
        let is_known = self.sslmode.as_ref().is_none_or(|mode| mode.parse::<TlsMode>().is_ok());
        let mode = if is_strict && is_known { Some("verify-full".into()) } else { self.sslmode.take() };
        (mode, self.sslrootcert.take().or(prismas))
    }
}

/// Splits a URL in the part that tokio_postgres reads and the parameters that it does not.
fn take_own_parameters(url: &str) -> (String, OwnParameters) {
    let mut own = OwnParameters::default();
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            !pair.is_empty() && !own.take(&decode(name), decode(value))
        })
        .collect();
    let separator = if rest.is_empty() { "" } else { "?" };
    (format!("{base}{separator}{}", rest.join("&")), own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> DatabaseConfig {
        url.parse().expect(url)
    }

    #[test]
    fn libpqs_tls_parameters_are_read() {
        let config = parse(
            "postgres://u:p@db.example:5433/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&connect_timeout=3",
        );
        assert_eq!(config.tls.mode, TlsMode::VerifyFull);
        assert_eq!(config.tls.root_cert, Some("/etc/ca.pem".into()));
        assert_eq!(config.postgres.get_ports(), [5433]);
        assert_eq!(config.postgres.get_password(), Some(b"p".as_slice()));
    }

    #[test]
    fn a_word_that_means_nothing_is_not_hidden_by_another() {
        for (url, problem) in [
            ("postgres://u@db/a?sslmode=bad&sslaccept=strict", "bad"),
            ("postgres://u@db/a?sslmode=disable&sslmode=require", "sslmode (is given twice: leave one out)"),
            ("postgres://u@db/a?schema=a&sslaccept=maybe&schema=b", "schema (is given twice: leave one out)"),
            ("postgres://u@db/a?schema=a&sslaccept=maybe&schema=b", "sslaccept=maybe (give strict"),
        ] {
            let error = url.parse::<DatabaseConfig>().expect_err(url).to_string();
            assert!(error.contains(problem), "{error}");
        }
        assert_eq!(parse("postgres://u@db/a?schema=a&schema=a").host_schema(), "a");
    }

    #[test]
    fn the_hosts_own_orm_url_is_understood() {
        let config = parse(
            "postgresql://u:p@db/app?schema=app&connection_limit=5&pgbouncer=true&pool_timeout=0&statement_cache_size=0\
             &socket_timeout=3&connect_timeout=9&application_name=host&options=-c%20work_mem%3D1MB",
        );
        assert_eq!((config.postgres.get_dbname(), config.host_schema()), (Some("app"), "app"));
        assert_eq!(config.tls, TlsConfig { mode: TlsMode::Prefer, root_cert: None });
    }

    #[test]
    fn prismas_words_for_tls_are_mapped() {
        let tls = |query: &str| parse(&format!("postgres://u@db/app?{query}")).tls;
        let of = |mode, file: Option<&str>| TlsConfig { mode, root_cert: file.map(PathBuf::from) };
        assert_eq!(tls("sslmode=require&sslaccept=strict&sslcert=ca.pem"), of(TlsMode::VerifyFull, Some("ca.pem")));
        assert_eq!(tls("sslaccept=strict"), of(TlsMode::VerifyFull, None));
        assert_eq!(tls("sslmode=disable&sslaccept=strict"), of(TlsMode::Disable, None));
        assert_eq!(tls("sslmode=require&sslaccept=accept_invalid_certs"), of(TlsMode::Require, None));
        assert_eq!(tls("%73slmode=require"), of(TlsMode::Require, None), "names may be encoded, too");
    }

    #[test]
    fn what_cannot_be_is_named_all_at_once() {
        let error = "postgres://u:secret@db/app?sslidentity=me.p12&sslpassword=x&sslaccept=Strict&ssl=true&SCHEMA=app"
            .parse::<DatabaseConfig>()
            .expect_err("five");
        for name in ["sslidentity", "sslpassword", "sslaccept=Strict (give strict", "ssl (leave", "SCHEMA"] {
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
        assert!(!error.to_string().contains("secret"), "{error}");
        let error = "postgres://u@db/app?sslrootcert=a&sslcert=b".parse::<DatabaseConfig>().expect_err("a client's");
        assert!(error.to_string().contains("sslcert beside sslrootcert"), "{error}");
        let error = "host=db password=secret".parse::<DatabaseConfig>().expect_err("no URL");
        assert!(error.to_string().contains("postgres://user") && !error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn schemas_are_named_once_and_apart() {
        let schemas = |url: &str, variables: &[(&str, &str)]| {
            read(&[&[("DATABASE_URL", url)], variables].concat()).map(|config| config.schemas)
        };
        let of = |host: &str, service: &str| Ok(Schemas { host: host.into(), service: service.into() });
        let url = "postgres://u@db/app";
        assert_eq!(schemas(url, &[]), of("public", "snapshot_service"));
        assert_eq!(schemas(url, &[("HOST_SCHEMA", "My \"Host\""), ("SERVICE_SCHEMA", "s")]), of("My \"Host\"", "s"));
        assert_eq!(
            schemas("postgres://u@db/app?schema=a%20b", &[("HOST_SCHEMA", "a b")]),
            of("a b", "snapshot_service")
        );
        let long = "x".repeat(64);
        for (url, variables, named) in [
            ("postgres://u@db/app?schema=a", [("HOST_SCHEMA", "b")], "HOST_SCHEMA"),
            ("postgres://u@db/app?schema=", [("HOST_SCHEMA", "")], "DATABASE_URL"),
            (url, [("HOST_SCHEMA", "pg_catalog")], "HOST_SCHEMA"),
            (url, [("SERVICE_SCHEMA", long.as_str())], "SERVICE_SCHEMA"),
            (url, [("SERVICE_SCHEMA", "public")], "SERVICE_SCHEMA"),
        ] {
            let error = schemas(url, &variables).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn what_the_connection_text_leaves_open_comes_from_libpqs_variables() {
        let variables = [
            ("DATABASE_URL", "postgres:///?host=db.example"),
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
        let config = read(&[iam, ("DATABASE_URL", "postgres://reader@db.example:6000")]).expect("whole");
        let (host, user) = ("db.example".into(), "reader".into());
        assert_eq!(config.credentials, CredentialsConfig::Iam { host, port: 6000, user });
        for variables in [
            [iam, ("PGHOST", "db.example")].as_slice(),
            &[iam, ("DATABASE_URL", "postgres://reader@a,b")],
            &[iam, ("DATABASE_URL", "postgres://reader@%2Frun")],
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
        assert_eq!(error.to_string(), "DATABASE_URL: has parameters that cannot be: nonsense (leave it out)");
    }
}
