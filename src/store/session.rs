use std::time::Duration;

use std::ops::{Deref, DerefMut};

use futures_util::{FutureExt, join};
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::error::{Error, Result};

/// SQL for the schema of our own, NULL where it is not there. `current_schema` would be the host's then.
pub(super) const SERVICE_SCHEMA: &str =
    r#"to_regnamespace(substring(current_setting('search_path') FROM '^(?:"(?:[^"]|"")*"|[^,]*)'))"#;

/// A connection to a host's database.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    /// Sets where the transactions of this connection look for tables and functions: in the schema of our own, then in the host's. What
    /// the role or the database sets does not matter.
    set_search_path: String,
}

impl Connection {
    /// A `client`'s, of a database where the host's tables are in `host_schema` and ours in `service_schema`.
    pub(crate) fn new(client: Client, host_schema: &str, service_schema: &str) -> Self {
        let [service, host] = [service_schema, host_schema].map(|name| name.replace('"', "\"\""));
        // Temporary tables last, where PostgreSQL would look first.
        let path = format!(r#"SET LOCAL search_path = "{service}", "{host}", pg_temp"#);
        // PostgreSQL passes over a schema that the role may not use, and says that its tables are not there. A name in it is refused.
        let look = format!(r#"SELECT to_regclass('"{}".any')"#, service.replace('\'', "''"));
        Self { client, set_search_path: format!("{path}; {look}") }
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// How long a transaction's statements may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Longest that one statement may run; zero is no limit.
    pub(crate) statement: Duration,
    /// Longest that it may wait for a lock.
    pub(crate) lock: Duration,
}

impl Limits {
    /// Settings of a transaction that writes or lasts. The statement of a client that is dead ends soon, and with it its
    /// locks, which the next one would wait for. A batch is sorted
    /// in memory, and not in files as by the server's default of 4 MB.
    fn set_local(&self) -> String {
        let statement = milliseconds(self.statement);
        format!(
            "{}; SET LOCAL idle_in_transaction_session_timeout = {statement}; \
             SET LOCAL client_connection_check_interval = 2000; SET LOCAL work_mem = '32MB'",
            self.set_local_for_read()
        )
    }

    /// Settings that end with the transaction: a pooler hands the connection to somebody else after it. The time zone
    /// is set so that no result depends on the role's or the server's (domain rule 2), and a value has one text only. To compile a statement of ours takes longer
    /// than it saves.
    fn set_local_for_read(&self) -> String {
        let (statement, lock) = (milliseconds(self.statement), milliseconds(self.lock));
        format!(
            "SET LOCAL statement_timeout = {statement}; SET LOCAL lock_timeout = {lock}; {ONE_TEXT}; SET LOCAL jit = off"
        )
    }
}

/// What decides how values and names are written.
const ONE_TEXT: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = ISO; SET LOCAL IntervalStyle = postgres; \
     SET LOCAL bytea_output = hex; SET LOCAL extra_float_digits = 1; SET LOCAL quote_all_identifiers = off";

/// Zero is no limit, and PostgreSQL takes no more than this.
fn milliseconds(time: Duration) -> u128 {
    time.as_millis().min(i32::MAX as u128)
}

/// Starts a transaction with `limits`.
pub(crate) async fn begin<'a>(client: &'a mut Connection, limits: &Limits) -> Result<Transaction<'a>> {
    // Said, because the role may have another default: a row that somebody else has changed is to be passed over, not an
    // error.
    start(client, IsolationLevel::ReadCommitted, false, &limits.set_local()).await
}

/// Starts a transaction with `limits` whose commit does not wait for the disk. A crash of the server may undo it, though
/// nothing that was committed after it: for what may be repeated.
pub(crate) async fn begin_volatile<'a>(client: &'a mut Connection, limits: &Limits) -> Result<Transaction<'a>> {
    let settings = format!("{}; SET LOCAL synchronous_commit = off", limits.set_local());
    start(client, IsolationLevel::ReadCommitted, false, &settings).await
}

/// Starts a read-only transaction of several statements with `limits`.
pub(crate) async fn begin_read<'a>(
    client: &'a mut Connection,
    limits: &Limits,
    isolation: IsolationLevel,
) -> Result<Transaction<'a>> {
    start(client, isolation, true, &limits.set_local()).await
}

async fn start<'a>(
    connection: &'a mut Connection,
    isolation: IsolationLevel,
    read_only: bool,
    settings: &str,
) -> Result<Transaction<'a>> {
    let Connection { client, set_search_path } = connection;
    let transaction = client.build_transaction().isolation_level(isolation).read_only(read_only).start().await?;
    transaction.batch_execute(&format!("{set_search_path}; {settings}")).await?;
    Ok(transaction)
}

/// Runs `read`, one statement on `client`, as a read-only transaction with `limits`.
///
/// REPEATABLE READ fixes what is visible before the statement is planned: under READ COMMITTED a partition could be attached
/// and filled in between, so that its rows would be in neither table.
///
/// All of it is on its way before the first answer is awaited, so it costs one round trip; a reader that gives up leaves
/// no open transaction behind.
pub(crate) async fn read<T>(client: &Connection, limits: &Limits, read: impl Future<Output = Result<T>>) -> Result<T> {
    let (path, limits) = (&client.set_search_path, limits.set_local_for_read());
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {path}; {limits}");
    // futures_util's join, unlike tokio's, polls in the order written.
    let (opened, read, closed) = join!(client.batch_execute(&begin), read, client.batch_execute("COMMIT"));
    opened?;
    let value = read?;
    closed.map_err(Error::from)?;
    Ok(value)
}

/// The settings of a transaction that migrates: it takes what time it needs, but waits for nobody's lock for long, and what
/// the database or the role limits by default does not concern it. The last one is PostgreSQL 17's.
const SET_LOCAL_FOR_MIGRATION: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 10000; \
     SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL client_connection_check_interval = 2000; \
     SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'";

/// A transaction whose limits are there from its first moment on: what the database sets by default could end a session
/// that is idle between BEGIN and its own limits. It is rolled back when it is dropped.
#[derive(Debug)]
pub(crate) struct MigrationTransaction<'a> {
    client: &'a Connection,
    is_open: bool,
}

impl<'a> MigrationTransaction<'a> {
    /// Starts one on a client that nobody else uses.
    pub(crate) async fn begin(client: &'a Connection) -> Result<Self> {
        // Before the first answer: whoever gives up waiting for it leaves no open transaction behind either.
        let transaction = Self { client, is_open: true };
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; {}; {ONE_TEXT}; {SET_LOCAL_FOR_MIGRATION}",
            client.set_search_path
        );
        transaction.client.batch_execute(&begin).await?;
        Ok(transaction)
    }

    /// What statements of the transaction are run on.
    pub(crate) fn client(&self) -> &'a Client {
        self.client
    }

    pub(crate) async fn commit(mut self) -> Result<()> {
        self.is_open = false;
        Ok(self.client.batch_execute("COMMIT").await?)
    }
}

impl Drop for MigrationTransaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // The first poll sends it; nobody needs the answer.
            let _ = self.client.batch_execute("ROLLBACK").now_or_never();
        }
    }
}
