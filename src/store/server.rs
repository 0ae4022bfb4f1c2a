use chrono::NaiveDateTime;
use tokio_postgres::GenericClient;

use crate::error::{Error, Result};

/// What the server says of itself before a run starts.
#[derive(Debug)]
pub(crate) struct ServerState {
    /// A standby, or told to refuse writes.
    pub(crate) is_read_only: bool,
    /// Its clock (UTC).
    pub(crate) now: NaiveDateTime,
    /// The session's role.
    pub(crate) role: String,
    /// Whether the role sees what other sessions do and how far replicas are.
    pub(crate) sees_statistics: bool,
}

/// Whether the server takes writes, what time it is there, and what this session may see.
pub(crate) async fn get_server_state(client: &impl GenericClient) -> Result<ServerState> {
    let row = client
        .query_typed_one(
            "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean AS is_read_only, \
                    clock_timestamp() AT TIME ZONE 'UTC' AS now, current_user::text AS role, \
                    pg_has_role('pg_read_all_stats', 'USAGE') AS sees_statistics",
            &[],
        )
        .await?;
    Ok(ServerState {
        is_read_only: row.try_get("is_read_only")?,
        now: row.try_get("now")?,
        role: row.try_get("role")?,
        sees_statistics: row.try_get("sees_statistics")?,
    })
}

/// Checks that this transaction may write.
///
/// # Errors
///
/// [`Error::ReadOnlyDatabase`].
pub(crate) async fn check_writable(client: &impl GenericClient) -> Result<()> {
    let sql = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS is_read_only";
    let is_read_only = client.query_typed_one(sql, &[]).await?.try_get("is_read_only")?;
    if is_read_only { Err(Error::ReadOnlyDatabase) } else { Ok(()) }
}

/// How busy the server and its replicas are.
#[derive(Debug)]
pub(crate) struct ServerLoad {
    /// How far the slowest replica is behind; 0 without replicas.
    pub(crate) replica_lag_seconds: f64,
    /// Sessions of others that execute a statement right now.
    pub(crate) active_sessions: i64,
}

/// The load right now, for a role that sees statistics. Consumers of logical slots are no replicas: nobody reads from them, and
/// one that is slow would stop maintenance for as long as it likes.
pub(crate) async fn get_server_load(client: &impl GenericClient) -> Result<ServerLoad> {
    let row = client
        .query_typed_one(
            "SELECT COALESCE((SELECT max(EXTRACT(epoch FROM r.replay_lag)) FROM pg_stat_replication r \
                              WHERE NOT EXISTS (SELECT FROM pg_replication_slots s \
                                                WHERE s.active_pid = r.pid AND s.slot_type = 'logical')), 0)::float8 AS lag, \
                    (SELECT count(*) FROM pg_stat_activity \
                     WHERE state = 'active' AND backend_type = 'client backend' \
                       AND application_name NOT LIKE 'snapshot-service/%') AS active_sessions",
            &[],
        )
        .await?;
    Ok(ServerLoad { replica_lag_seconds: row.try_get("lag")?, active_sessions: row.try_get("active_sessions")? })
}
