use std::time::Duration;

use crate::store::session::Limits;

/// How the service works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Logs older than this many calendar months are archived.
    pub retention_months: u32,
    /// Rows that one transaction writes or moves.
    pub batch_rows: u32,
    /// Longest that a statement of maintenance may take.
    pub statement_timeout: Duration,
    /// Longest that it waits for a lock.
    pub lock_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention_months: 3,
            // 20k rows move in well under a second: row locks stay short, the per-statement cost disappears.
            batch_rows: 20_000,
            // The API's budget of 20 s and a statement that just fails to end stay below the 30 s that it waits.
            statement_timeout: Duration::from_secs(8),
            lock_timeout: Duration::from_secs(2),
        }
    }
}

impl Settings {
    pub(crate) fn limits(&self) -> Limits {
        Limits { statement: self.statement_timeout, lock: self.lock_timeout }
    }
}
