use chrono::NaiveDateTime;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::page;
use crate::error::{Error, Result};
use crate::model::{Cursor, Month, Page, PageRequest, SnapshotPosition, StreamId, StreamIds, StreamSnapshot};

const LIST_SNAPSHOTS: &str = concat!(include_str!("sql/stream_ids.sql"), include_str!("sql/list_snapshots.sql"));

/// A stream's snapshot of one month.
pub(crate) async fn find_snapshot(
    client: &impl GenericClient,
    stream: &StreamId,
    month: Month,
) -> Result<Option<StreamSnapshot>> {
    let row = client
        .query_typed_opt(
            LIST_SNAPSHOTS,
            &[
                (&stream.as_str(), Type::TEXT),
                (&Some(month.to_string()), Type::TEXT),
                (&None::<String>, Type::TEXT),
                (&1_i64, Type::INT8),
            ],
        )
        .await?;
    row.map(|row| parse(&row)).transpose()
}

/// A page of a stream's snapshots, newest month first.
pub(crate) async fn list_snapshots(
    client: &impl GenericClient,
    stream: &StreamId,
    request: &PageRequest<SnapshotPosition>,
) -> Result<Page<StreamSnapshot, SnapshotPosition>> {
    let stream = stream.as_str();
    let before = request.after().map(|position| position.snapshot_month.to_string());
    let rows = client
        .query_typed_raw(
            LIST_SNAPSHOTS,
            [
                (&stream as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
                (&None::<String>, Type::TEXT),
                (&before, Type::TEXT),
                (&request.rows_to_read(), Type::INT8),
            ],
        )
        .await?;
    let parse_with_cursor = |row: &Row| {
        let snapshot = parse(row)?;
        let ids = StreamIds { id: snapshot.stream_id.clone(), contract_id: row.try_get("contract_id")? };
        let position = SnapshotPosition { snapshot_month: snapshot.snapshot_month };
        Ok((snapshot, Cursor::new(ids, position)))
    };
    page::collect(rows, request, parse_with_cursor, |snapshot| format!("snapshot {}", snapshot.id)).await
}

fn parse(row: &Row) -> Result<StreamSnapshot> {
    let state = row.try_get::<_, Option<String>>("state")?;
    Ok(StreamSnapshot {
        id: row.try_get("id")?,
        stream_id: row.try_get("streamId")?,
        sender: row.try_get("sender")?,
        receiver: row.try_get("receiver")?,
        token_address: row.try_get("tokenAddress")?,
        amount_per_second: row.try_get("amountPerSecond")?,
        total_amount: row.try_get("totalAmount")?,
        status: row.try_get("status")?,
        state: state.map(RawValue::from_string).transpose().map_err(Error::Serialize)?,
        snapshot_month: row.try_get::<_, &str>("snapshotMonth")?.parse()?,
        created_at: row.try_get::<_, NaiveDateTime>("createdAt")?.and_utc(),
    })
}

/// What [`insert_snapshot_batch`] did.
#[derive(Debug, Default)]
pub(crate) struct SnapshotBatch {
    /// The last stream looked at; `None` when every stream has its snapshot.
    pub(crate) last_stream: Option<String>,
    /// Snapshots written.
    pub(crate) created: u64,
    /// Of these, how many have no amounts.
    pub(crate) unparsed: u64,
    /// Streams of some of these, for the log.
    pub(crate) unparsed_streams: Vec<String>,
}

/// Takes the month's snapshot of at most `limit` streams after `after` that have none.
pub(crate) async fn insert_snapshot_batch(
    client: &impl GenericClient,
    month: Month,
    after: &str,
    limit: u32,
    now: NaiveDateTime,
) -> Result<SnapshotBatch> {
    let row = client
        .query_typed_one(
            include_str!("sql/insert_snapshot_batch.sql"),
            &[
                (&month.to_string(), Type::TEXT),
                (&after, Type::TEXT),
                (&i64::from(limit), Type::INT8),
                (&now, Type::TIMESTAMP),
            ],
        )
        .await?;
    Ok(SnapshotBatch {
        last_stream: row.try_get("last_id")?,
        created: row.try_get::<_, i64>("created")?.unsigned_abs(),
        unparsed: row.try_get::<_, i64>("unparsed")?.unsigned_abs(),
        unparsed_streams: row.try_get("unparsed_ids")?,
    })
}
