use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Month, time};

/// A stream's state in one month: a row of `StreamSnapshot`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamSnapshot {
    /// The snapshot's own id.
    pub id: String,
    /// `Stream.id`.
    pub stream_id: String,
    /// Account that pays; `None` when the stream's row had none.
    pub sender: Option<String>,
    /// Account that is paid; `None` when the stream's row had none.
    pub receiver: Option<String>,
    /// Contract of the token that is streamed.
    pub token_address: Option<String>,
    /// `total_amount` per second of the stream's duration, truncated; a decimal integer. `None` where `total_amount` is.
    pub amount_per_second: Option<String>,
    /// Decimal integer of at most 39 digits; `None` when the stream's `amount` was not one (domain rule 3).
    pub total_amount: Option<String>,
    /// `Stream.status`, as it was called on that day; `None` when the stream's row had none.
    pub status: Option<String>,
    /// The whole `Stream` row as a JSON object, its times and 64-bit numbers as strings (domain rule 9). `None` in
    /// rows adopted from the former service, and when the row could not be written as JSON.
    pub state: Option<Box<RawValue>>,
    /// The month that the snapshot is of.
    pub snapshot_month: Month,
    /// When it was taken.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub created_at: DateTime<Utc>,
    /// Whether it is known which events are in it.
    #[serde(skip)]
    pub boundary: Boundary,
}

/// What is known of the events around the time when a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Boundary {
    /// Which of them the snapshot has, however clocks differ and whatever was committed after it was taken.
    Exact,
    /// Only the time: `EventLog` could not be read when the snapshot was taken.
    Unknown,
}
