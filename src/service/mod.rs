//! The operations, by what callers do: `maintenance` (run, watch and stop it), `reading`, `holds` (what must stay), `undo` (restore,
//! rollback).

mod holds;
mod maintenance;
mod reading;
mod undo;

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::database::Pool;
use crate::maintenance::{Deadline, Engine, Settings};
use crate::store::session::Limits;

/// Longest that a statement of a reader may take: below the 5 s within which a caller hears that the database is down.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// Snapshots and archive of a backend's payment streams.
///
/// Works on any number of streams and events in constant memory; safe to share between tasks and to run several times
/// at once on one database.
#[derive(Debug, Clone)]
pub struct SnapshotService {
    pool: Pool,
    settings: Settings,
    #[cfg(feature = "unproved")]
    is_unproved: bool,
}

impl SnapshotService {
    /// A service on a migrated database.
    pub fn new(pool: Pool, settings: Settings) -> Self {
        Self {
            pool,
            settings,
            #[cfg(feature = "unproved")]
            is_unproved: false,
        }
    }

    /// The same without seals and without a look at hashes: to measure what these cost.
    #[cfg(feature = "unproved")]
    #[must_use]
    pub fn unproved(self) -> Self {
        Self { is_unproved: true, ..self }
    }

    fn engine<'a>(&'a self, now: DateTime<Utc>, deadline: &'a Deadline) -> Engine<'a> {
        let engine = Engine::new(&self.pool, &self.settings, now, deadline);
        #[cfg(feature = "unproved")]
        if self.is_unproved {
            return engine.unproved();
        }
        engine
    }

    /// Limits of what waits for the batch that is under way.
    fn patient_limits(&self) -> Limits {
        let Settings { statement_timeout, lock_timeout, .. } = self.settings;
        Limits { statement: 2 * statement_timeout + lock_timeout, lock: statement_timeout + lock_timeout }
    }

    fn read_limits(&self) -> Limits {
        Limits { statement: self.settings.statement_timeout.min(READ_TIMEOUT), lock: self.settings.lock_timeout }
    }
}
