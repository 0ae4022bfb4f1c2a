//! Every environment variable: its unit, its default and what it means. Parsed once, in `main`.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `DATABASE_URL` | | PostgreSQL, as `postgres://user:password@host:port/database?sslmode=verify-full` |
//! | `PGHOST` `PGPORT` `PGUSER` `PGPASSWORD` `PGDATABASE` `PGSSLMODE` `PGSSLROOTCERT` | libpq's | what `DATABASE_URL` leaves open, or all of it; `PGSSLMODE` is `verify-full` with one of the next two |
//! | `DATABASE_SECRET_ID` | | name or ARN of a Secrets Manager secret in RDS's JSON shape: the user and the password, and the place that the above leave open. Fetched again, once, when the database refuses it |
//! | `DATABASE_IAM_AUTH` | false | `true`: each connection's password is a token for RDS, which the AWS identity signs. Needs a host, a user and `verify-full` |
//! | `HOST_SCHEMA` | `public` | where the host's two tables are; or `schema=` in `DATABASE_URL`, as Prisma has it |
//! | `SERVICE_SCHEMA` | `snapshot_service` | where the service keeps its own tables, which `migrate` makes |
//! | `RETENTION_MONTHS` | 3 | logs older than this many calendar months are archived; at least 1 |
//! | `BATCH_ROWS` | 20000 | most rows that one transaction moves or writes; 1 to 1000000 |
//! | `BATCH_TARGET_MILLISECONDS` | 1000 | how long a batch is to take; batches grow and shrink towards it; 10 to 60000 |
//! | `WORKERS` | 2 | months that are archived at the same time, each on a connection of its own; 1 to 32 |
//! | `KEEP_EVENT_TYPES` | none | types of events, separated by commas, whose logs are never archived, such as `create` |
//! | `LEASE_SECONDS` | 60 | how long a run belongs to an owner that is silent; 1 to 3600 |
//! | `MAX_ARCHIVE_ROWS` | no limit | most rows that a run archives without force |
//! | `MAX_REPLICA_LAG_SECONDS` | no limit | maintenance waits while a replica is further behind; 1 to 86400 |
//! | `MAX_ACTIVE_SESSIONS` | no limit | maintenance waits while more sessions of others execute a statement |
//! | `STATEMENT_TIMEOUT_SECONDS` | 8 | longest that a statement of maintenance may take; 1 to 3600 |
//! | `LOCK_TIMEOUT_SECONDS` | 2 | longest that it waits for a lock; 1 to 3600 |
//! | `MAINTENANCE_BUDGET_SECONDS` | 20 | how long maintenance on request works before it answers `complete: false`; 1 to 900 |
//! | `METRICS_NAMESPACE` | SnapshotService | namespace of the metrics in CloudWatch; a stack has its own |
//! | `STATE_MACHINE_ARN` | none | the Step Functions state machine that continues maintenance on request |
//! | `AWS_REGION` `AWS_ACCESS_KEY_ID` `AWS_SECRET_ACCESS_KEY` `AWS_SESSION_TOKEN` | | who asks AWS for the above, as Lambda sets it |
//! | `AWS_ENDPOINT_URL` | | where all of AWS is, instead of at its own addresses |
//! | `AWS_LAMBDA_LOG_LEVEL`, else `RUST_LOG` | info | `error`, `warn`, `info`, `debug` or `trace` |
//! | `AWS_LAMBDA_LOG_FORMAT` | text | `JSON`: lines are JSON objects, each with the ids of its invocation |

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::aws::AwsConfig;
use crate::database::DatabaseConfig;
use crate::error::ConfigError;
use crate::maintenance::Settings;

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the database is and how to reach it.
    pub database: DatabaseConfig,
    /// How the service works.
    pub settings: Settings,
    /// How long maintenance on request may work.
    pub maintenance_budget: Duration,
    /// Who asks AWS.
    pub aws: AwsConfig,
    /// ARN of the state machine that continues it.
    pub state_machine: Option<String>,
    /// Where in CloudWatch the metrics are.
    pub metrics_namespace: String,
}

/// How a function logs. Read before all else, so that what is wrong with the rest can be logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Whether lines are JSON.
    pub json: bool,
    /// The least level, or directives such as `tokio_postgres=debug`; empty for `info`.
    pub filter: String,
}

impl LogSettings {
    /// Reads the process's environment. What is wrong with it [`Config::from_env`] tells.
    pub fn from_env() -> Self {
        let lookup = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            json: lookup("AWS_LAMBDA_LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json")),
            filter: lookup("AWS_LAMBDA_LOG_LEVEL").or_else(|| lookup("RUST_LOG")).unwrap_or_default(),
        }
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the variable, what it holds and what is wanted.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads variables from `lookup`; an empty value counts as none.
    ///
    /// # Errors
    ///
    /// As [`Config::from_env`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        check_log_level(lookup)?;
        let default = Settings::default();
        let (statement, lock) = (default.statement_timeout, default.lock_timeout);
        Ok(Self {
            database: DatabaseConfig::from_lookup(lookup)?,
            settings: Settings {
                retention_months: number(lookup, "RETENTION_MONTHS", default.retention_months, 1..=1200)?,
                batch_rows: number(lookup, "BATCH_ROWS", default.batch_rows, 1..=1_000_000)?,
                batch_target: number(lookup, "BATCH_TARGET_MILLISECONDS", DEFAULT_BATCH_TARGET_MS, 10..=60_000)
                    .map(Duration::from_millis)?,
                workers: number(lookup, "WORKERS", default.workers, 1..=32)?,
                keep_event_types: list(lookup, "KEEP_EVENT_TYPES")?,
                lease: seconds(lookup, "LEASE_SECONDS", default.lease, 3600)?,
                max_archive_rows: optional_number(lookup, "MAX_ARCHIVE_ROWS", 0..=1_000_000_000_000)?,
                max_replica_lag: optional_number(lookup, "MAX_REPLICA_LAG_SECONDS", 1..=86_400)?
                    .map(Duration::from_secs),
                max_active_sessions: optional_number(lookup, "MAX_ACTIVE_SESSIONS", 0..=100_000)?,
                statement_timeout: seconds(lookup, "STATEMENT_TIMEOUT_SECONDS", statement, 3600)?,
                lock_timeout: seconds(lookup, "LOCK_TIMEOUT_SECONDS", lock, 3600)?,
                on_slice: None,
            },
            maintenance_budget: seconds(lookup, "MAINTENANCE_BUDGET_SECONDS", DEFAULT_MAINTENANCE_BUDGET, 900)?,
            aws: AwsConfig::from_lookup(lookup),
            state_machine: lookup("STATE_MACHINE_ARN"),
            metrics_namespace: lookup("METRICS_NAMESPACE").unwrap_or_else(|| "SnapshotService".into()),
        })
    }
}

/// Below the 30 s after which API Gateway gives up.
const DEFAULT_MAINTENANCE_BUDGET: Duration = Duration::from_secs(20);
/// Short enough that row locks and lost work are, long enough that the cost of a transaction disappears.
const DEFAULT_BATCH_TARGET_MS: u64 = 1000;

fn seconds(
    lookup: impl Fn(&str) -> Option<String>,
    variable: &'static str,
    default: Duration,
    max: u64,
) -> Result<Duration, ConfigError> {
    number(lookup, variable, default.as_secs(), 1..=max).map(Duration::from_secs)
}

/// Words separated by commas.
fn list(lookup: impl Fn(&str) -> Option<String>, variable: &'static str) -> Result<Vec<String>, ConfigError> {
    let Some(text) = lookup(variable) else { return Ok(Vec::new()) };
    let words: Vec<_> = text.split(',').map(|word| word.trim().to_owned()).collect();
    if words.iter().any(|word| word.is_empty() || word.contains('\0')) {
        let problem = format!("{text:?} is not a list of words separated by commas, such as create,cancel");
        return Err(ConfigError::new(variable, problem));
    }
    Ok(words)
}

fn number<N: FromStr + PartialOrd + fmt::Display>(
    lookup: impl Fn(&str) -> Option<String>,
    variable: &'static str,
    default: N,
    range: RangeInclusive<N>,
) -> Result<N, ConfigError> {
    Ok(optional_number(lookup, variable, range)?.unwrap_or(default))
}

fn optional_number<N: FromStr + PartialOrd + fmt::Display>(
    lookup: impl Fn(&str) -> Option<String>,
    variable: &'static str,
    range: RangeInclusive<N>,
) -> Result<Option<N>, ConfigError> {
    let Some(text) = lookup(variable) else { return Ok(None) };
    let value = text.parse().ok().filter(|value| range.contains(value));
    let problem = || format!("{text:?} is not a whole number from {} to {}", range.start(), range.end());
    value.map(Some).ok_or_else(|| ConfigError::new(variable, problem()))
}

/// The subscriber falls back to `info` in silence; a typing error should not cost a night's log.
fn check_log_level(lookup: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    for variable in ["AWS_LAMBDA_LOG_LEVEL", "RUST_LOG"] {
        // RUST_LOG may also hold directives such as `tokio_postgres=debug`.
        let directives = |text: &str| variable == "RUST_LOG" && text.contains('=');
        if let Some(text) = lookup(variable)
            && !directives(&text)
            && !LEVELS.contains(&text.to_ascii_lowercase().as_str())
        {
            return Err(ConfigError::new(variable, format!("{text:?} is not one of {}", LEVELS.join(", "))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const URL: (&str, &str) = ("DATABASE_URL", "postgres://u:p@localhost/db");

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = config(&[URL, ("BATCH_ROWS", "")]).expect("defaults");
        assert_eq!(config.settings.retention_months, 3);
        assert_eq!(format!("{:?}", config.settings), format!("{:?}", Settings::default()));
        assert_eq!(config.settings.batch_rows, 20_000);
        assert_eq!(config.settings.statement_timeout, Duration::from_secs(8));
        assert_eq!(config.settings.lock_timeout, Duration::from_secs(2));
        assert_eq!(config.maintenance_budget, Duration::from_secs(20));
    }

    #[test]
    fn a_bad_value_names_its_variable_and_what_is_wanted() {
        for (variable, value) in [
            ("RETENTION_MONTHS", "0"),
            ("RETENTION_MONTHS", "three"),
            ("BATCH_ROWS", "-1"),
            ("BATCH_TARGET_MILLISECONDS", "1s"),
            ("WORKERS", "0"),
            ("LEASE_SECONDS", "0"),
            ("MAX_ARCHIVE_ROWS", "all"),
            ("MAX_REPLICA_LAG_SECONDS", "-1"),
            ("MAX_ACTIVE_SESSIONS", "few"),
            ("STATEMENT_TIMEOUT_SECONDS", "8s"),
            ("LOCK_TIMEOUT_SECONDS", "0"),
            ("MAINTENANCE_BUDGET_SECONDS", "901"),
            ("AWS_LAMBDA_LOG_LEVEL", "loud"),
            ("RUST_LOG", "loud"),
            ("PGSSLMODE", "maybe"),
        ] {
            let error = config(&[URL, (variable, value)]).expect_err(variable);
            assert!(error.to_string().starts_with(&format!("{variable}: ")), "{error}");
        }
        // A URL without a port means 5432.
        let error = config(&[("PGHOST", "localhost"), ("PGPORT", "seventy")]).expect_err("PGPORT");
        assert!(error.to_string().starts_with("PGPORT: "), "{error}");
    }

    #[test]
    fn a_database_must_be_named() {
        let error = config(&[]).expect_err("no database");
        assert!(error.to_string().starts_with("DATABASE_URL: "), "{error}");
        assert!(config(&[("PGHOST", "localhost")]).is_ok());
    }
}
