use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::{page, stream_identity};
use crate::error::{Error, Result};
use crate::model::{Cursor, Month, Page, PageRequest, SnapshotPosition, StreamId, StreamSnapshot};

const LIST_SNAPSHOTS: &str = concat!(include_str!("sql/stream_ids.sql"), include_str!("sql/list_snapshots.sql"));
const FIND_NEAREST_SNAPSHOT: &str =
    concat!(include_str!("sql/stream_ids.sql"), include_str!("sql/find_nearest_snapshot.sql"));

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

/// The month of a stream's newest snapshot taken at or before `at`, else of its oldest one, and when that was taken.
pub(crate) async fn find_nearest_snapshot(
    client: &impl GenericClient,
    stream: &StreamId,
    at: DateTime<Utc>,
) -> Result<Option<(Month, DateTime<Utc>)>> {
    let row = client
        .query_typed_opt(FIND_NEAREST_SNAPSHOT, &[(&stream.as_str(), Type::TEXT), (&at.naive_utc(), Type::TIMESTAMP)])
        .await?;
    let parse = |row: Row| {
        let created_at: NaiveDateTime = row.try_get("createdAt")?;
        Ok((row.try_get::<_, &str>("snapshotMonth")?.parse()?, created_at.and_utc()))
    };
    row.map(parse).transpose()
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
        let position = SnapshotPosition { snapshot_month: snapshot.snapshot_month };
        Ok((snapshot, Cursor::new(stream_identity::parse_names(row)?, position)))
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
    /// Streams looked at; fewer than the limit at the last of them.
    pub(crate) seen: u64,
    /// The last stream looked at; `None` when there was none.
    pub(crate) last_stream: Option<String>,
    /// Snapshots written.
    pub(crate) created: u64,
    /// Of these, how many have no amounts.
    pub(crate) unparsed: u64,
    /// Streams of some of these, for the log.
    pub(crate) unparsed_streams: Vec<String>,
}

/// Which streams the next batch is about.
#[derive(Debug)]
pub(crate) struct SnapshotRequest<'a> {
    pub(crate) month: Month,
    /// The stream before the first; empty for none.
    pub(crate) after: &'a str,
    /// The last one; `None` for no end.
    pub(crate) upto: Option<&'a str>,
    pub(crate) limit: u32,
    /// The run's start.
    pub(crate) started_at: NaiveDateTime,
    /// When the batch is taken.
    pub(crate) taken_at: NaiveDateTime,
    /// Whether snapshots of the month that are older than the run are retaken.
    pub(crate) refresh: bool,
}

/// Takes the month's snapshot of those of the next streams that have none, and records the ids of all of them.
pub(crate) async fn insert_snapshot_batch(
    client: &impl GenericClient,
    request: &SnapshotRequest<'_>,
) -> Result<SnapshotBatch> {
    let row = client
        .query_typed_one(
            include_str!("sql/insert_snapshot_batch.sql"),
            &[
                (&request.month.to_string(), Type::TEXT),
                (&request.after, Type::TEXT),
                (&i64::from(request.limit), Type::INT8),
                (&request.started_at, Type::TIMESTAMP),
                (&request.refresh, Type::BOOL),
                (&request.upto, Type::TEXT),
                (&request.taken_at, Type::TIMESTAMP),
            ],
        )
        .await?;
    stream_identity::observe(client, &row.try_get::<_, Vec<String>>("unrecorded_ids")?).await?;
    Ok(SnapshotBatch {
        seen: row.try_get::<_, i64>("seen")?.unsigned_abs(),
        last_stream: row.try_get("last_id")?,
        created: row.try_get::<_, i64>("created")?.unsigned_abs(),
        unparsed: row.try_get::<_, i64>("unparsed")?.unsigned_abs(),
        unparsed_streams: row.try_get("unparsed_ids")?,
    })
}

/// The stream that is `count` streams after `after`, if there is one.
pub(crate) async fn find_stream_after(client: &impl GenericClient, after: &str, count: u32) -> Result<Option<String>> {
    let row = client
        .query_typed_opt(
            r#"SELECT id FROM "Stream" WHERE id > $1 ORDER BY id OFFSET $2 - 1 LIMIT 1"#,
            &[(&after, Type::TEXT), (&i64::from(count), Type::INT8)],
        )
        .await?;
    row.map(|row| Ok(row.try_get("id")?)).transpose()
}

/// How many streams there are, and which of them maintenance has not seen.
#[derive(Debug)]
pub(crate) struct StreamCounts {
    pub(crate) streams: u64,
    /// Without a snapshot of the month, or with one to be retaken.
    pub(crate) without_snapshot: u64,
    /// Whose ids are not recorded as they are.
    pub(crate) unremembered: u64,
}

/// Counts streams by whether they have their snapshot of `month`, or one taken since `since`.
pub(crate) async fn count_streams(
    client: &impl GenericClient,
    month: Month,
    since: Option<NaiveDateTime>,
) -> Result<StreamCounts> {
    let row = client
        .query_typed_one(
            include_str!("sql/count_streams.sql"),
            &[(&month.to_string(), Type::TEXT), (&since, Type::TIMESTAMP)],
        )
        .await?;
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    Ok(StreamCounts {
        streams: number("streams")?,
        without_snapshot: number("without_snapshot")?,
        unremembered: number("unremembered")?,
    })
}

/// Whether the first stream has its snapshot of `month`, or there is none: then all may have.
pub(crate) async fn may_be_complete(client: &impl GenericClient, month: Month) -> Result<bool> {
    let row = client
        .query_typed_one(
            r#"SELECT NOT EXISTS (
                   SELECT FROM (SELECT id FROM "Stream" ORDER BY id LIMIT 1) s
                   WHERE NOT EXISTS (
                       SELECT FROM "StreamSnapshot" t WHERE t."streamId" = s.id AND t."snapshotMonth" = $1)
               ) AS may_be"#,
            &[(&month.to_string(), Type::TEXT)],
        )
        .await?;
    Ok(row.try_get("may_be")?)
}

/// Whether there is any snapshot.
pub(crate) async fn has_snapshots(client: &impl GenericClient) -> Result<bool> {
    let row = client.query_typed_one(r#"SELECT EXISTS (SELECT FROM "StreamSnapshot") AS there"#, &[]).await?;
    Ok(row.try_get("there")?)
}
