use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Boundary, Cursor, StatePosition, StreamSnapshot, time};
use crate::error::{Error, Result};

/// An on-chain event: a row of `EventLog` or of `StreamArchive`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedEvent {
    /// The event's id, the same in both tables.
    pub id: String,
    /// `create`, `withdraw`, `cancel`, ...
    pub event_type: String,
    /// The contract-level stream id.
    pub stream_id: String,
    /// Transaction that the event is part of.
    pub tx_hash: String,
    /// ListPosition within the transaction; `None` in rows adopted from the former service, which dropped it.
    pub event_index: Option<i64>,
    /// Ledger's sequence number.
    pub ledger: i64,
    /// When the ledger closed, as the host wrote it.
    pub ledger_closed_at: String,
    /// Account that paid.
    pub sender: Option<String>,
    /// Account that was paid.
    pub receiver: Option<String>,
    /// Decimal integer, as text because it may exceed 2^53 (domain rule 9).
    pub amount: Option<String>,
    /// JSON text, or any text, as the host wrote it.
    pub metadata: Option<String>,
    /// `entry_hash` of the event before this one.
    pub parent_hash: Option<String>,
    /// Hash over this event and `parent_hash`.
    pub entry_hash: Option<String>,
    /// When the host logged the event.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub created_at: DateTime<Utc>,
    /// When it was moved to the archive; `None` while it is in `EventLog`.
    #[serde(serialize_with = "time::optional_rfc3339_millis")]
    pub archived_at: Option<DateTime<Utc>>,
    /// Columns that the host added since, under their own names.
    #[serde(flatten)]
    pub more: BTreeMap<String, Box<RawValue>>,
}

/// Where an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// In `EventLog`.
    Hot,
    /// In `StreamArchive`.
    Archived,
}

/// An event on a stream's timeline, which covers both tables.
#[derive(Debug, Clone, Serialize)]
pub struct StreamEvent {
    /// Where it is.
    pub tier: Tier,
    /// What it says, wherever it is.
    #[serde(flatten)]
    pub event: LoggedEvent,
}

impl From<LoggedEvent> for StreamEvent {
    fn from(mut event: LoggedEvent) -> Self {
        // A host's column of that name would be a second field of it.
        event.more.remove("tier");
        let tier = if event.archived_at.is_some() { Tier::Archived } else { Tier::Hot };
        Self { tier, event }
    }
}

/// What an auditor needs to tell a stream's state at a past time: the last snapshot before it, and what happened since.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamState {
    /// The time asked for.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub at: DateTime<Utc>,
    /// The newest snapshot taken at or before `at`.
    pub snapshot: StreamSnapshot,
    /// Whether it is known which events the snapshot has. Else those that were created after it was taken are listed, and one
    /// of a transaction that was open then may be missing.
    pub boundary: Boundary,
    /// A part of the events that the snapshot does not have and that were created not after `at`, oldest first.
    pub events: Vec<StreamEvent>,
    /// Where the events go on; `None` at their end.
    #[serde(skip)]
    pub next_cursor: Option<Cursor<StatePosition>>,
}

/// Which of a stream's events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveFilter {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    event_type: Option<String>,
}

impl ArchiveFilter {
    /// Events created at or after `from` and before `to`, of one type; `None` does not restrict.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when `from` is after `to`, or `event_type` is empty or contains a NUL.
    pub fn new(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>, event_type: Option<String>) -> Result<Self> {
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(Error::invalid("from", "must not be after `to`"));
        }
        if event_type.as_ref().is_some_and(|name| name.is_empty() || name.contains('\0')) {
            return Err(Error::invalid("eventType", "must be an event's type, such as withdraw"));
        }
        Ok(Self { from, to, event_type })
    }

    pub(crate) fn from(&self) -> Option<DateTime<Utc>> {
        self.from
    }

    pub(crate) fn to(&self) -> Option<DateTime<Utc>> {
        self.to
    }

    pub(crate) fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }
}
