//! Reaching PostgreSQL: where it is, TLS, credentials, the pool, and the migrations.

mod config;
mod credentials;
mod migrations;
mod tls;

use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, QueueMode, RecycleError, RecycleResult, Timeouts};

pub use config::DatabaseConfig;
use config::Schemas;
pub use migrations::{FormerTableReport, MigrationReport, migrate, migrate_with_renames};

use self::credentials::Connector;
use crate::error::{Error, Result};
use crate::store::session::Connection;

/// Connections to a host's database, to be shared.
pub type Pool = managed::Pool<Manager>;

// A caller hears within 5 s that the database is down: what follows adds up to less.
/// Longest wait for another task to return a connection.
const WAIT_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest that a new connection may take, with TLS and authentication.
const CREATE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest that an old connection may take to prove that it is alive; a thawed Lambda's often is not.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that was used this short a time ago need not: a round trip is a fifth of what a small answer costs.
const ALIVE_FOR: Duration = Duration::from_secs(1);
/// After this much silence a connection is probed, so that a vanished server does not look like a slow one.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
/// Time between probes; two without an answer end the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// A pool of at most `max_size` connections that name themselves `application_name`. Connects when first used.
///
/// # Errors
///
/// [`Error::Secret`] or [`Error::Tls`] when the credentials or the certificates cannot be had.
pub async fn connect_pool(config: &DatabaseConfig, application_name: &str, max_size: usize) -> Result<Pool> {
    let mut postgres = config.postgres.clone();
    postgres
        .application_name(format!("snapshot-service/{application_name}"))
        .connect_timeout(CREATE_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(2)
        .tcp_user_timeout(KEEPALIVE_IDLE + 2 * KEEPALIVE_INTERVAL);
    let connector = Connector::new(postgres, &config.credentials, &config.aws, tls::connector(&config.tls)?).await?;
    let Schemas { host, service } = &config.schemas;
    Pool::builder(Manager { connector, host_schema: host.clone(), service_schema: service.clone() })
        .max_size(max_size)
        // The connection that was used last knows the catalogue.
        .queue_mode(QueueMode::Lifo)
        .timeouts(Timeouts { wait: Some(WAIT_TIMEOUT), create: Some(CREATE_TIMEOUT), recycle: None })
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| Error::Unavailable { is_lost: false, source: error.into() })
}

/// Opens the connections of a [`Pool`], and looks whether they are alive before they are used again.
pub struct Manager {
    connector: Connector,
    host_schema: String,
    service_schema: String,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It knows passwords.
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        // Boxed: whoever has a connection has this future in its own.
        let client = Box::pin(self.connector.open()).await?;
        Ok(Connection::new(client, &self.host_schema, &self.service_schema))
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<Error> {
        if connection.is_closed() {
            return Err(RecycleError::message("it is closed"));
        }
        if metrics.last_used() >= ALIVE_FOR {
            let probe = tokio::time::timeout(PROBE_TIMEOUT, connection.simple_query("")).await;
            probe.map_err(|_| RecycleError::message("it is silent"))?.map_err(Error::from)?;
        }
        Ok(())
    }
}
