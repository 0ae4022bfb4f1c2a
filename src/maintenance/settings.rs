use std::time::Duration;

use crate::host::HostLimits;
use crate::model::SliceReport;
use crate::store::session::Limits;

/// How the service works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Logs older than this many calendar months are archived.
    pub retention_months: u32,
    /// Most rows that one transaction writes or moves.
    pub batch_rows: u32,
    /// How long a batch is to take; batches grow and shrink towards it.
    pub batch_target: Duration,
    /// Months that are archived at the same time, each on a connection of its own.
    pub workers: usize,
    /// Types of events whose logs stay in `EventLog`, such as `create`.
    pub keep_event_types: Vec<String>,
    /// Longest that a statement of a batch may take.
    pub statement_timeout: Duration,
    /// Longest that it waits for a lock.
    pub lock_timeout: Duration,
    /// How long a run belongs to an owner that is silent: after that another may take it over.
    pub lease: Duration,
    /// Most rows that a run archives without being forced to.
    pub max_archive_rows: Option<u64>,
    /// A run pauses while a replica is further behind than this.
    pub max_replica_lag: Option<Duration>,
    /// A run pauses while more sessions of others than this execute a statement.
    pub max_active_sessions: Option<u32>,
    /// What hears of each slice of a run: when it ends, and before, when there is much to tell.
    pub on_slice: Option<fn(&SliceReport)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention_months: 3,
            // They move in a quarter of a second: what a transaction costs disappears, row locks are short, and what the server and the
            // program keep of a batch fits in memory.
            batch_rows: 20_000,
            batch_target: Duration::from_secs(1),
            workers: 2,
            keep_event_types: Vec::new(),
            // The API's budget of 20 s and a statement that just fails to end stay below the 30 s that it waits.
            statement_timeout: Duration::from_secs(8),
            lock_timeout: Duration::from_secs(2),
            // Longer than any batch can take, with its two or three statements.
            lease: Duration::from_mins(1),
            max_archive_rows: None,
            max_replica_lag: None,
            max_active_sessions: None,
            on_slice: None,
        }
    }
}

impl Settings {
    /// Connections that maintenance takes at most: each worker has one, and one to keep the lease.
    pub fn connections(&self) -> usize {
        2 * self.workers + 1
    }

    /// Those of its limits that the role must see to keep.
    pub(crate) fn host_limits(&self) -> HostLimits {
        HostLimits {
            max_replica_lag: self.max_replica_lag.is_some(),
            max_active_sessions: self.max_active_sessions.is_some(),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { statement: self.statement_timeout, lock: self.lock_timeout }
    }
}
