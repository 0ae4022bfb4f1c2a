use chrono::NaiveDateTime;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};

use super::page;
use crate::error::{Error, Result};
use crate::model::{
    ArchiveFilter, ArchivePosition, ArchivedLog, Cursor, MAX_PAGE_BYTES, Page, PageRequest, StreamId, StreamIds,
};

const LIST_ARCHIVED_LOGS: &str =
    concat!(include_str!("sql/stream_ids.sql"), include_str!("sql/list_archived_logs.sql"));

/// A page of a stream's archived logs, newest first.
pub(crate) async fn list_archived_logs(
    client: &impl GenericClient,
    stream: &StreamId,
    filter: &ArchiveFilter,
    request: &PageRequest<ArchivePosition>,
) -> Result<Page<ArchivedLog, ArchivePosition>> {
    let stream = stream.as_str();
    let (after_created_at, after_id) = request.after().map(|after| (after.created_at, after.id.as_str())).unzip();
    let rows = client
        .query_typed_raw(
            LIST_ARCHIVED_LOGS,
            [
                (&stream as &(dyn ToSql + Sync), Type::TEXT),
                (&filter.from().map(|time| time.naive_utc()), Type::TIMESTAMP),
                (&filter.to().map(|time| time.naive_utc()), Type::TIMESTAMP),
                (&filter.event_type(), Type::TEXT),
                (&after_created_at, Type::TIMESTAMP),
                (&after_id, Type::TEXT),
                (&request.rows_to_read(), Type::INT8),
                (&i64::try_from(MAX_PAGE_BYTES).unwrap_or(i64::MAX), Type::INT8),
            ],
        )
        .await?;
    page::collect(rows, request, parse, |log| format!("archived log {}", log.id)).await
}

fn parse(row: &Row) -> Result<(ArchivedLog, Cursor<ArchivePosition>)> {
    let created_at: NaiveDateTime = row.try_get("createdAt")?;
    let log = ArchivedLog {
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
        created_at: created_at.and_utc(),
        archived_at: row.try_get::<_, NaiveDateTime>("archivedAt")?.and_utc(),
        more: serde_json::from_str(row.try_get("more")?).map_err(Error::Serialize)?,
    };
    let ids = StreamIds { id: row.try_get("stream_row_id")?, contract_id: log.stream_id.clone() };
    let position = ArchivePosition { created_at, id: log.id.clone() };
    Ok((log, Cursor::new(ids, position)))
}
