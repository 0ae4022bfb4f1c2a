use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Datelike, NaiveDateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Month, StreamId, StreamNames};
use crate::error::{Error, Result};

/// Where a page of a list ended: the next one starts right after it.
///
/// Callers see an opaque text. It names the list and the stream (by all its ids) it was made for, so that it can be
/// refused elsewhere; the list of runs belongs to no stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor<P> {
    /// Which list it is of.
    list: String,
    stream: Option<StreamNames>,
    after: P,
}

/// The last snapshot of a page; a stream has one a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotPosition {
    /// The snapshot's month.
    pub snapshot_month: Month,
}

/// The last archived log of a page: `createdAt`, then `id` where that ties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivePosition {
    /// UTC, to the microsecond that PostgreSQL keeps.
    pub created_at: NaiveDateTime,
    /// The event's id.
    pub id: String,
}

/// The last event of a page of a timeline: `createdAt`, then `id` where that ties. An event that is archived keeps both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventPosition {
    /// UTC, to the microsecond that PostgreSQL keeps.
    pub created_at: NaiveDateTime,
    /// The event's id.
    pub event_id: String,
}

/// The last event of a page of those that lead from a snapshot to a past state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatePosition {
    /// The time that was asked for: under another one the list is another.
    pub at: DateTime<Utc>,
    /// When the snapshot was taken: one that has come since does not change the list.
    pub snapshot_at: DateTime<Utc>,
    /// UTC, to the microsecond that PostgreSQL keeps.
    pub created_at: NaiveDateTime,
    /// The event's id.
    pub event_id: String,
}

/// The last run of a page: when it started, then `id` where that ties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPosition {
    /// UTC, to the millisecond.
    pub started_at: NaiveDateTime,
    /// The run's id.
    pub run_id: Uuid,
}

/// A place in a list.
pub trait ListPosition: Serialize + DeserializeOwned {
    /// The list that it is a place in, as cursors name it.
    const LIST: &'static str;

    /// Whether the database could hold it: a cursor that a caller made up may say anything.
    fn is_possible(&self) -> bool;
}

impl ListPosition for SnapshotPosition {
    const LIST: &'static str = "snapshots";

    fn is_possible(&self) -> bool {
        true
    }
}

impl ListPosition for ArchivePosition {
    const LIST: &'static str = "archive";

    fn is_possible(&self) -> bool {
        is_possible_time(self.created_at) && !self.id.contains('\0')
    }
}

impl ListPosition for EventPosition {
    const LIST: &'static str = "events";

    fn is_possible(&self) -> bool {
        is_possible_time(self.created_at) && !self.event_id.contains('\0')
    }
}

impl ListPosition for StatePosition {
    const LIST: &'static str = "state";

    fn is_possible(&self) -> bool {
        [self.snapshot_at.naive_utc(), self.created_at].into_iter().all(is_possible_time)
            && !self.event_id.contains('\0')
    }
}

impl ListPosition for RunPosition {
    const LIST: &'static str = "runs";

    fn is_possible(&self) -> bool {
        is_possible_time(self.started_at)
    }
}

fn is_possible_time(time: NaiveDateTime) -> bool {
    (1..=9999).contains(&time.year())
}

impl<P: ListPosition> Cursor<P> {
    /// A cursor that continues `stream`'s list after the given position.
    pub fn new(stream: impl Into<StreamNames>, after: P) -> Self {
        Self { list: P::LIST.into(), stream: Some(stream.into()), after }
    }

    /// A cursor that continues a list that belongs to no stream.
    pub fn without_stream(after: P) -> Self {
        Self { list: P::LIST.into(), stream: None, after }
    }

    /// The text handed to callers: base64url of JSON.
    #[expect(clippy::missing_panics_doc, reason = "strings and times are always JSON")]
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings and times are always JSON");
        BASE64_URL_SAFE_NO_PAD.encode(json)
    }

    /// Reads back a text made by [`Cursor::encode`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when `text` is not whole or was not made for this list and this stream.
    pub fn decode(text: &str, stream: Option<&StreamId>) -> Result<Self> {
        let is_for = |cursor: &Self| match (&cursor.stream, stream) {
            (Some(names), Some(stream)) => names.include(stream),
            (None, None) => true,
            _ => false,
        };
        let cursor = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let cursor = cursor.and_then(|json| serde_json::from_slice::<Self>(&json).ok());
        cursor
            .filter(|cursor| cursor.list == P::LIST && is_for(cursor) && cursor.after.is_possible())
            .ok_or_else(Self::refused)
    }

    /// The answer to a cursor of another list.
    pub(crate) fn refused() -> Error {
        Error::invalid("cursor", "must be a nextCursor of this very list (and stream), unchanged")
    }

    /// The position to continue after.
    pub fn after(&self) -> &P {
        &self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor<ArchivePosition> {
        let stream = StreamNames(["clx1", "42", "clx0", "41"].map(String::from).into());
        let created_at = "2026-01-31T23:59:59.999999".parse().expect("a time");
        Cursor::new(stream, ArchivePosition { created_at, id: "e\u{1F680}".into() })
    }

    fn stream(id: &str) -> StreamId {
        StreamId::new(id).expect("an id")
    }

    #[test]
    fn a_cursor_survives_the_round_trip_under_every_id() {
        for id in ["clx1", "42", "clx0", "41"] {
            assert_eq!(Cursor::decode(&cursor().encode(), Some(&stream(id))).expect("whole"), cursor());
        }
    }

    #[test]
    fn a_truncated_cursor_is_refused_at_every_length() {
        let text = cursor().encode();
        for length in 0..text.len() {
            assert!(Cursor::<ArchivePosition>::decode(&text[..length], Some(&stream("42"))).is_err(), "{length} taken");
        }
    }

    #[test]
    fn a_cursor_of_another_stream_or_list_is_refused() {
        assert!(Cursor::<ArchivePosition>::decode(&cursor().encode(), Some(&stream("43"))).is_err());
        assert!(Cursor::<SnapshotPosition>::decode(&cursor().encode(), Some(&stream("42"))).is_err());
        assert!(Cursor::<EventPosition>::decode(&cursor().encode(), Some(&stream("42"))).is_err());
        assert!(Cursor::<StatePosition>::decode(&cursor().encode(), Some(&stream("42"))).is_err());
        assert!(Cursor::<ArchivePosition>::decode(&cursor().encode(), None).is_err());

        // Of another list whose positions have the same form.
        let renamed =
            String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor().encode()).expect("base64")).expect("JSON");
        let renamed = BASE64_URL_SAFE_NO_PAD.encode(renamed.replace(r#""list":"archive""#, r#""list":"events""#));
        assert!(Cursor::<ArchivePosition>::decode(&renamed, Some(&stream("42"))).is_err());

        let position = RunPosition { started_at: "2026-01-01T00:00:00".parse().expect("a time"), run_id: Uuid::nil() };
        let runs = Cursor::without_stream(position);
        assert_eq!(Cursor::decode(&runs.encode(), None).expect("whole"), runs);
        assert!(Cursor::<RunPosition>::decode(&runs.encode(), Some(&stream("42"))).is_err());
    }

    #[test]
    fn a_made_up_cursor_that_no_database_could_hold_is_refused() {
        for (created_at, id) in
            [("2026-01-01T00:00:00", "a\0b"), ("+262142-01-01T00:00:00", "e"), ("-0001-01-01T00:00:00", "e")]
        {
            let position = ArchivePosition { created_at: created_at.parse().expect(created_at), id: id.into() };
            let text = Cursor::new(cursor().stream.expect("one"), position).encode();
            assert!(Cursor::<ArchivePosition>::decode(&text, Some(&stream("42"))).is_err(), "{created_at} {id:?}");
        }
    }
}
