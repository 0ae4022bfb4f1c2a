use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::ParseIntError;
use std::pin::{Pin, pin};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use futures_util::TryStreamExt;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row, RowStream};

use super::decode::unreadable;
use super::statement::Statement;
use super::{host, page, stream_identity};
use crate::error::Result;
use crate::host::WireForm;
use crate::model::{
    ArchiveFilter, ArchivePosition, Boundary, Cursor, EventPosition, LoggedEvent, MAX_PAGE_BYTES, Page, PageRequest,
    StatePosition, StreamEvent, StreamId, StreamNames, StreamSnapshot, wire_bytes,
};

/// Which events of a stream, newest first unless the name says else. Each is a function, whose plan a session keeps.
#[derive(Clone, Copy)]
enum Events {
    Archived,
    All,
    AllOldestFirst,
}

impl Events {
    fn function(self) -> &'static str {
        match self {
            Self::Archived => "stream_archive_list",
            Self::All => "stream_event_list",
            Self::AllOldestFirst => "stream_event_list_oldest_first",
        }
    }
}

/// How long before a snapshot a transaction may have begun that it does not see: an hour, and twice the ten minutes that
/// clocks may be apart. The events that it has are kept from then on.
const BOUNDARY: TimeDelta = TimeDelta::minutes(80);

/// The part of a stream's events that a page shows.
struct EventQuery<'a> {
    stream: &'a StreamId,
    from: Option<NaiveDateTime>,
    to: Option<NaiveDateTime>,
    event_type: Option<&'a str>,
    after: Option<(NaiveDateTime, &'a str)>,
    rows: i64,
    /// Events that this snapshot is known to have are left out.
    snapshot: Option<&'a str>,
}

impl<'a> EventQuery<'a> {
    fn new(
        stream: &'a StreamId,
        filter: &'a ArchiveFilter,
        after: Option<(NaiveDateTime, &'a str)>,
        rows: i64,
    ) -> Self {
        let (from, to) = (filter.from().map(|time| time.naive_utc()), filter.to().map(|time| time.naive_utc()));
        Self { stream, from, to, event_type: filter.event_type(), after, rows, snapshot: None }
    }

    async fn query(&self, client: &impl GenericClient, events: Events) -> Result<RowStream> {
        let (after_created_at, after_id) = self.after.unzip();
        let rows = Statement::new(include_str!("sql/list_events_of_table.sql"))
            .fragment("function", events.function())
            .bind("stream", &self.stream.as_str(), Type::TEXT)
            .bind("from", &self.from, Type::TIMESTAMP)
            .bind("to", &self.to, Type::TIMESTAMP)
            .bind("event_type", &self.event_type, Type::TEXT)
            .bind("after_created_at", &after_created_at, Type::TIMESTAMP)
            .bind("after_id", &after_id, Type::TEXT)
            .bind("limit", &self.rows, Type::INT8)
            .bind("max_bytes", &i64::try_from(MAX_PAGE_BYTES).unwrap_or(i64::MAX), Type::INT8)
            .bind("snapshot", &self.snapshot, Type::TEXT)
            .query_stream(client)
            .await?;
        Ok(rows)
    }
}

/// What no page of a stream's events tells; the first row of those that are read of `EventLog`.
struct Unshown {
    /// Events whose time cannot be.
    left_out: u64,
    /// Whether row security is in force on `EventLog`.
    is_filtered: bool,
}

impl Unshown {
    async fn take(rows: &mut Pin<&mut RowStream>) -> Result<Self> {
        let row = rows.try_next().await?.ok_or_else(|| unreadable("left_out", "there is no row"))?;
        Ok(Self {
            left_out: row.try_get::<_, i64>("left_out")?.unsigned_abs(),
            is_filtered: row.try_get("is_filtered")?,
        })
    }
}

/// A page of a stream's archived logs, newest first.
pub(crate) async fn list_archived_logs(
    client: &impl GenericClient,
    stream: &StreamId,
    filter: &ArchiveFilter,
    request: &PageRequest<ArchivePosition>,
) -> Result<Page<LoggedEvent, ArchivePosition>> {
    let after = request.after().map(|after| (after.created_at, after.id.as_str()));
    let rows = EventQuery::new(stream, filter, after, request.rows_to_read()).query(client, Events::Archived).await?;
    let parse_with_cursor = |row: &Row| {
        let (names, log) = parse(row)?;
        let position = ArchivePosition { created_at: log.created_at.naive_utc(), id: log.id.clone() };
        Ok((log, Cursor::new(names, position)))
    };
    page::collect(rows, request, parse_with_cursor, |log| format!("archived log {}", log.id)).await
}

/// A page of a stream's events in both tables, newest first, and how many of all are on no page, because their time cannot
/// be.
///
/// # Errors
///
/// [`Error::HostRefuses`] when row security hides logs.
pub(crate) async fn list_events(
    client: &impl GenericClient,
    stream: &StreamId,
    filter: &ArchiveFilter,
    request: &PageRequest<EventPosition>,
) -> Result<Page<StreamEvent, EventPosition>> {
    let after = request.after().map(|after| (after.created_at, after.event_id.as_str()));
    let part = EventQuery::new(stream, filter, after, request.rows_to_read());
    let mut rows = pin!(part.query(client, Events::All).await?);
    let unshown = Unshown::take(&mut rows).await?;
    let parse_with_cursor = |row: &Row| {
        let (names, event) = parse(row)?;
        let position = EventPosition { created_at: event.created_at.naive_utc(), event_id: event.id.clone() };
        Ok((event.into(), Cursor::new(names, position)))
    };
    let name = |entry: &StreamEvent| format!("event {}", entry.event.id);
    let page = page::collect(rows, request, parse_with_cursor, name).await?;
    host::refuse_hidden_logs(client, unshown.is_filtered).await?;
    Ok(Page { left_out: unshown.left_out, ..page })
}

/// A page of the events that lead from `snapshot` to the state at `at`, oldest first; beside the snapshot in the answer.
/// Where it is known which events the snapshot has, they are all others from a while before it on: neither when a transaction
/// was committed nor whose clock said when decides.
///
/// # Errors
///
/// [`Error::HostRefuses`] when row security hides logs.
pub(crate) async fn list_events_since(
    client: &impl GenericClient,
    snapshot: &StreamSnapshot,
    stream: &StreamId,
    at: DateTime<Utc>,
    request: &PageRequest<StatePosition>,
) -> Result<Page<StreamEvent, StatePosition>> {
    // The snapshot's own instant is before the first event, and `at` is not after the last: times are whole microseconds.
    let next = |time: DateTime<Utc>| time.naive_utc().checked_add_signed(TimeDelta::microseconds(1));
    let (from, known) = match snapshot.boundary {
        Boundary::Exact => (snapshot.created_at.checked_sub_signed(BOUNDARY), Some(snapshot.id.as_str())),
        Boundary::Unknown => (Some(snapshot.created_at), None),
    };
    let part = EventQuery {
        stream,
        from: from.and_then(next),
        to: next(at),
        event_type: None,
        after: request.after().map(|after| (after.created_at, after.event_id.as_str())),
        rows: request.rows_to_read(),
        snapshot: known,
    };
    let mut rows = pin!(part.query(client, Events::AllOldestFirst).await?);
    let unshown = Unshown::take(&mut rows).await?;
    let parse_with_cursor = |row: &Row| {
        let (names, event) = parse(row)?;
        let position = StatePosition {
            at,
            snapshot_at: snapshot.created_at,
            created_at: event.created_at.naive_utc(),
            event_id: event.id.clone(),
        };
        Ok((event.into(), Cursor::new(names, position)))
    };
    let name = |entry: &StreamEvent| format!("snapshot {} with event {}", snapshot.id, entry.event.id);
    let page = page::collect_beside(wire_bytes(snapshot)?, rows, request, parse_with_cursor, name).await?;
    host::refuse_hidden_logs(client, unshown.is_filtered).await?;
    Ok(page)
}

/// What the functions add to a row: no column of a host's is called so.
const BYTES_BEFORE: &str = "snapshot-service: bytes before";

/// The values of a row, by column.
type Values<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn parse(row: &Row) -> Result<(StreamNames, LoggedEvent)> {
    let mut values: Values<'_> =
        serde_json::from_str(row.try_get("event")?).map_err(|error| unreadable("event", error))?;
    let wire_forms: BTreeMap<String, WireForm> = match row.try_get::<_, Option<&str>>("wire_forms")? {
        Some(forms) => serde_json::from_str(forms).map_err(|error| unreadable("wire_forms", error))?,
        None => BTreeMap::new(),
    };
    let is_archived = row.try_get::<_, Option<NaiveDateTime>>("archivedAt")?.is_some();
    if let Some(name) = ARCHIVED_COLUMNS.iter().find(|name| is_archived && !values.contains_key(**name)) {
        return Err(unreadable(name, "the column does not exist"));
    }
    let stream_id = take(&mut values, "streamId").unwrap_or_default();
    let mut event = LoggedEvent {
        id: row.try_get("id")?,
        event_type: take(&mut values, "eventType").unwrap_or_default(),
        stream_id: stream_id.clone(),
        tx_hash: take(&mut values, "txHash").unwrap_or_default(),
        event_index: number("eventIndex", take(&mut values, "eventIndex"))?,
        ledger: number("ledger", take(&mut values, "ledger"))?.unwrap_or_default(),
        ledger_closed_at: take(&mut values, "ledgerClosedAt").unwrap_or_default(),
        sender: take(&mut values, "sender"),
        receiver: take(&mut values, "receiver"),
        amount: take(&mut values, "amount"),
        metadata: take(&mut values, "metadata"),
        parent_hash: take(&mut values, "parent_hash"),
        entry_hash: take(&mut values, "entry_hash"),
        created_at: row.try_get::<_, NaiveDateTime>("createdAt")?.and_utc(),
        archived_at: row.try_get::<_, Option<NaiveDateTime>>("archivedAt")?.map(|time| time.and_utc()),
        more: BTreeMap::new(),
    };
    for name in ["id", "createdAt", "archivedAt", BYTES_BEFORE] {
        values.remove(name);
    }
    for (name, value) in values {
        let value = wire_forms.get(&*name).map_or_else(|| value.to_owned(), |form| form.write(value));
        event.more.insert(name.into_owned(), value);
    }
    Ok((stream_identity::parse_names(row)?, event))
}

/// Columns that the archive always has.
const ARCHIVED_COLUMNS: [&str; 9] =
    ["streamId", "eventType", "txHash", "ledger", "ledgerClosedAt", "sender", "receiver", "amount", "metadata"];

/// The text of a column, which the host may have dropped, or not have yet.
fn take(values: &mut Values<'_>, name: &str) -> Option<String> {
    values.remove(name).and_then(text)
}

/// The text of a value: what a JSON string says, else its JSON; `None` of null.
fn text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        json => Some(serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
    }
}

fn number(name: &'static str, text: Option<String>) -> Result<Option<i64>> {
    text.map(|text| text.parse().map_err(|error: ParseIntError| unreadable(name, error))).transpose()
}
