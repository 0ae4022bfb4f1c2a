use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row, RowStream};

use super::{page, stream_identity};
use crate::error::{Error, Result};
use crate::model::{
    ArchiveFilter, ArchivePosition, Cursor, EventPosition, LoggedEvent, MAX_PAGE_BYTES, Page, PageRequest,
    StatePosition, StreamEvent, StreamId, StreamNames, StreamSnapshot, wire_bytes,
};

/// A table that has events, as [`of_table`] reads it.
struct Table {
    name: &'static str,
    archived_at: &'static str,
    left_out: &'static str,
}

const EVENT_LOG: Table = Table { name: r#""EventLog""#, archived_at: "NULL::timestamp", left_out: "" };

const STREAM_ARCHIVE: Table = Table { name: r#""StreamArchive""#, archived_at: r#"a."archivedAt""#, left_out: "" };

/// Without the copies that the former service left in both tables: the hot ones are shown (domain rule 6). Each row is
/// looked up by itself: NOT EXISTS could be planned as a scan of the whole of `EventLog`, and IS NULL as if hardly any row
/// passed, which would not stop at the page's end.
const REST_OF_STREAM_ARCHIVE: Table = Table {
    left_out: r#"AND a.id IS DISTINCT FROM (SELECT e.id FROM "EventLog" e WHERE e.id = a.id)"#,
    ..STREAM_ARCHIVE
};

#[derive(Clone, Copy)]
enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    fn direction(self) -> &'static str {
        match self {
            Self::NewestFirst => "DESC",
            Self::OldestFirst => "ASC",
        }
    }

    fn after(self) -> &'static str {
        match self {
            Self::NewestFirst => "<",
            Self::OldestFirst => ">",
        }
    }
}

/// A stream's archived events.
fn archived() -> String {
    format!("{}{}", include_str!("sql/stream_ids.sql"), of_table(&STREAM_ARCHIVE, Order::NewestFirst))
}

/// A stream's events in both tables, each once: one statement sees a row that moves in one place. Each table is read
/// through its index up to the page's end, by rows or by bytes; a table that ends early by bytes ends the page.
fn all(order: Order) -> String {
    format!(
        r#"{} SELECT * FROM (({}) UNION ALL ({})) e ORDER BY "createdAt" {direction}, id COLLATE "C" {direction} LIMIT $7"#,
        include_str!("sql/stream_ids.sql"),
        of_table(&EVENT_LOG, order),
        of_table(&REST_OF_STREAM_ARCHIVE, order),
        direction = order.direction(),
    )
}

fn of_table(table: &Table, order: Order) -> String {
    include_str!("sql/list_events_of_table.sql")
        .replace("{table}", table.name)
        .replace("{archived_at}", table.archived_at)
        .replace("{left_out}", table.left_out)
        .replace("{direction}", order.direction())
        .replace("{after}", order.after())
}

/// The part of a stream's events that a page shows.
struct Part<'a> {
    stream: &'a StreamId,
    from: Option<NaiveDateTime>,
    to: Option<NaiveDateTime>,
    event_type: Option<&'a str>,
    after: Option<(NaiveDateTime, &'a str)>,
    rows: i64,
}

impl<'a> Part<'a> {
    fn new(
        stream: &'a StreamId,
        filter: &'a ArchiveFilter,
        after: Option<(NaiveDateTime, &'a str)>,
        rows: i64,
    ) -> Self {
        let (from, to) = (filter.from().map(|time| time.naive_utc()), filter.to().map(|time| time.naive_utc()));
        Self { stream, from, to, event_type: filter.event_type(), after, rows }
    }

    async fn query(&self, client: &impl GenericClient, statement: &str) -> Result<RowStream> {
        let (after_created_at, after_id) = self.after.unzip();
        let rows = client
            .query_typed_raw(
                statement,
                [
                    (&self.stream.as_str() as &(dyn ToSql + Sync), Type::TEXT),
                    (&self.from, Type::TIMESTAMP),
                    (&self.to, Type::TIMESTAMP),
                    (&self.event_type, Type::TEXT),
                    (&after_created_at, Type::TIMESTAMP),
                    (&after_id, Type::TEXT),
                    (&self.rows, Type::INT8),
                    (&i64::try_from(MAX_PAGE_BYTES).unwrap_or(i64::MAX), Type::INT8),
                ],
            )
            .await?;
        Ok(rows)
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
    let rows = Part::new(stream, filter, after, request.rows_to_read()).query(client, &archived()).await?;
    let parse_with_cursor = |row: &Row| {
        let (names, log) = parse(row)?;
        let position = ArchivePosition { created_at: log.created_at.naive_utc(), id: log.id.clone() };
        Ok((log, Cursor::new(names, position)))
    };
    page::collect(rows, request, parse_with_cursor, |log| format!("archived log {}", log.id)).await
}

/// A page of a stream's events in both tables, newest first.
pub(crate) async fn list_events(
    client: &impl GenericClient,
    stream: &StreamId,
    filter: &ArchiveFilter,
    request: &PageRequest<EventPosition>,
) -> Result<Page<StreamEvent, EventPosition>> {
    let after = request.after().map(|after| (after.created_at, after.event_id.as_str()));
    let part = Part::new(stream, filter, after, request.rows_to_read());
    let rows = part.query(client, &all(Order::NewestFirst)).await?;
    let parse_with_cursor = |row: &Row| {
        let (names, event) = parse(row)?;
        let position = EventPosition { created_at: event.created_at.naive_utc(), event_id: event.id.clone() };
        Ok((event.into(), Cursor::new(names, position)))
    };
    page::collect(rows, request, parse_with_cursor, |entry: &StreamEvent| format!("event {}", entry.event.id)).await
}

/// A page of the events that lead from `snapshot` to the state at `at`, oldest first; beside the snapshot in the answer.
pub(crate) async fn list_events_since(
    client: &impl GenericClient,
    snapshot: &StreamSnapshot,
    stream: &StreamId,
    at: DateTime<Utc>,
    request: &PageRequest<StatePosition>,
) -> Result<Page<StreamEvent, StatePosition>> {
    // The snapshot's own instant is before the first event, and `at` is not after the last: times are whole microseconds.
    let next = |time: DateTime<Utc>| time.naive_utc().checked_add_signed(TimeDelta::microseconds(1));
    let part = Part {
        stream,
        from: next(snapshot.created_at),
        to: next(at),
        event_type: None,
        after: request.after().map(|after| (after.created_at, after.event_id.as_str())),
        rows: request.rows_to_read(),
    };
    let rows = part.query(client, &all(Order::OldestFirst)).await?;
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
    page::collect_beside(wire_bytes(snapshot)?, rows, request, parse_with_cursor, name).await
}

fn parse(row: &Row) -> Result<(StreamNames, LoggedEvent)> {
    let event = LoggedEvent {
        id: row.try_get("id")?,
        event_type: row.try_get("eventType")?,
        stream_id: row.try_get("streamId")?,
        tx_hash: row.try_get("txHash")?,
        event_index: row.try_get("eventIndex")?,
        ledger: row.try_get("ledger")?,
        ledger_closed_at: row.try_get("ledgerClosedAt")?,
        sender: row.try_get("sender")?,
        receiver: row.try_get("receiver")?,
        amount: row.try_get("amount")?,
        metadata: row.try_get("metadata")?,
        parent_hash: row.try_get("parent_hash")?,
        entry_hash: row.try_get("entry_hash")?,
        created_at: row.try_get::<_, NaiveDateTime>("createdAt")?.and_utc(),
        archived_at: row.try_get::<_, Option<NaiveDateTime>>("archivedAt")?.map(|time| time.and_utc()),
        more: serde_json::from_str(row.try_get("more")?).map_err(Error::Serialize)?,
    };
    Ok((stream_identity::parse_names(row)?, event))
}
