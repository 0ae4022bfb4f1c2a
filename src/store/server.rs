use chrono::NaiveDateTime;
use tokio_postgres::GenericClient;

use crate::error::Result;

/// What the server says of itself before a run starts.
#[derive(Debug)]
pub(crate) struct ServerState {
    /// A standby, or told to refuse writes.
    pub(crate) is_read_only: bool,
    /// Its clock (UTC).
    pub(crate) now: NaiveDateTime,
}

/// Whether the server takes writes, and what time it is there.
pub(crate) async fn get_server_state(client: &impl GenericClient) -> Result<ServerState> {
    let row = client
        .query_typed_one(
            "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean AS is_read_only, \
                    clock_timestamp() AT TIME ZONE 'UTC' AS now",
            &[],
        )
        .await?;
    Ok(ServerState { is_read_only: row.try_get("is_read_only")?, now: row.try_get("now")? })
}

/// How busy the server and its replicas are.
#[derive(Debug)]
pub(crate) struct ServerLoad {
    /// How far the slowest replica is behind; 0 without replicas.
    pub(crate) replica_lag_seconds: f64,
    /// Sessions of others that execute a statement right now.
    pub(crate) active_sessions: i64,
}

/// The load right now. Only roles that may read `pg_stat_replication` (`pg_monitor`) see a lag.
pub(crate) async fn get_server_load(client: &impl GenericClient) -> Result<ServerLoad> {
    let row = client
        .query_typed_one(
            "SELECT COALESCE((SELECT max(EXTRACT(epoch FROM replay_lag)) FROM pg_stat_replication), 0)::float8 AS lag, \
                    (SELECT count(*) FROM pg_stat_activity \
                     WHERE state = 'active' AND backend_type = 'client backend' \
                       AND application_name NOT LIKE 'snapshot-service/%') AS active_sessions",
            &[],
        )
        .await?;
    Ok(ServerLoad { replica_lag_seconds: row.try_get("lag")?, active_sessions: row.try_get("active_sessions")? })
}
