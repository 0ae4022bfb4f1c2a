use chrono::{DateTime, Utc};
use deadpool::managed::Object;
use tokio::time::Instant;

use super::{Deadline, Settings};
use crate::database::{Manager, Pool};
use crate::error::{Error, Result};
use crate::model::StopReason;

/// What maintenance works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engine<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) settings: &'a Settings,
    pub(crate) deadline: &'a Deadline,
    /// Whether batches are sealed and hashes checked.
    pub(super) proves: bool,
    /// When the caller called, by its clock and by one that only goes forward.
    pub(crate) called_at: DateTime<Utc>,
    called: Instant,
}

impl<'a> Engine<'a> {
    /// An engine for a caller that calls at `now`.
    pub(crate) fn new(pool: &'a Pool, settings: &'a Settings, now: DateTime<Utc>, deadline: &'a Deadline) -> Self {
        Self { pool, settings, deadline, proves: true, called_at: now, called: Instant::now() }
    }

    /// The same without proof.
    #[cfg(feature = "unproved")]
    pub(crate) fn unproved(self) -> Self {
        Self { proves: false, ..self }
    }

    pub(super) async fn connect(&self) -> Result<Object<Manager>> {
        Ok(self.pool.get().await?)
    }

    /// What the caller's clock says now.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.called_at + self.called.elapsed()
    }
}

/// Why work ended before it was done.
#[derive(Debug)]
pub(crate) enum Halt {
    /// There was a reason to stop. The next call continues.
    Stop(StopReason),
    /// It failed.
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<tokio_postgres::Error> for Halt {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A result of work that can stop before its end.
pub(super) type Work<T = ()> = std::result::Result<T, Halt>;
