use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::archive_columns::{quote, write_out};
use super::decode::{decode, unreadable};
use super::statement::Statement;
use super::{host, page, stream_identity};
use crate::error::Result;
use crate::host::{HostTable, WireForm};
use crate::model::{Boundary, Cursor, Month, Page, PageRequest, SnapshotPosition, StreamId, StreamSnapshot};

/// A stream's snapshot of one month.
pub(crate) async fn find_snapshot(
    client: &impl GenericClient,
    stream: &StreamId,
    month: Month,
) -> Result<Option<StreamSnapshot>> {
    let row = Statement::new(include_str!("sql/list_snapshots.sql"))
        .bind("stream", &stream.as_str(), Type::TEXT)
        .bind("month", &month.to_string(), Type::TEXT)
        .bind("before", &None::<&str>, Type::TEXT)
        .bind("limit", &1_i64, Type::INT8)
        .query_opt(client)
        .await?;
    row.map(|row| parse(&row)).transpose()
}

/// The month of a stream's newest snapshot taken at or before `at`, else of its oldest one, and when that was taken.
pub(crate) async fn find_nearest_snapshot(
    client: &impl GenericClient,
    stream: &StreamId,
    at: DateTime<Utc>,
) -> Result<Option<(Month, DateTime<Utc>)>> {
    let row = Statement::new(include_str!("sql/find_nearest_snapshot.sql"))
        .bind("stream", &stream.as_str(), Type::TEXT)
        .bind("at", &at.naive_utc(), Type::TIMESTAMP)
        .query_opt(client)
        .await?;
    let parse = |row: Row| {
        let created_at: NaiveDateTime = row.try_get("createdAt")?;
        Ok((decode(&row, "snapshotMonth")?, created_at.and_utc()))
    };
    row.map(parse).transpose()
}

/// A page of a stream's snapshots, newest month first.
pub(crate) async fn list_snapshots(
    client: &impl GenericClient,
    stream: &StreamId,
    request: &PageRequest<SnapshotPosition>,
) -> Result<Page<StreamSnapshot, SnapshotPosition>> {
    let before = request.after().map(|position| position.snapshot_month.to_string());
    let rows = Statement::new(include_str!("sql/list_snapshots.sql"))
        .bind("stream", &stream.as_str(), Type::TEXT)
        .bind("month", &None::<&str>, Type::TEXT)
        .bind("before", &before, Type::TEXT)
        .bind("limit", &request.rows_to_read(), Type::INT8)
        .query_stream(client)
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
        state: state.map(RawValue::from_string).transpose().map_err(|error| unreadable("state", error))?,
        snapshot_month: decode(row, "snapshotMonth")?,
        created_at: row.try_get::<_, NaiveDateTime>("createdAt")?.and_utc(),
        boundary: if row.try_get("has_event_ids")? { Boundary::Exact } else { Boundary::Unknown },
    })
}

/// What of a stream's row a snapshot is made of, by what the catalogue says of `Stream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamForm {
    columns: Vec<Column>,
    /// Whether each id is there once.
    is_unique: bool,
    /// Whether the whole row is kept.
    has_state: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    data_type: String,
    is_foreign: bool,
    is_time: bool,
    wire: WireForm,
}

impl StreamForm {
    pub(crate) fn new(streams: &HostTable) -> Self {
        let columns = streams.columns.iter().map(|column| Column {
            name: column.name.clone(),
            data_type: column.data_type.clone(),
            is_foreign: column.is_foreign,
            is_time: column.is_time,
            wire: column.wire,
        });
        Self { columns: columns.collect(), is_unique: streams.has_id_key_alone, has_state: true }
    }

    /// Whether `Stream` has each id once, and an index of them.
    pub(crate) fn is_unique(&self) -> bool {
        self.is_unique
    }

    /// The form that leaves out these columns, which cannot be read of one stream.
    pub(crate) fn without(&self, names: &[String]) -> Self {
        let columns = self.columns.iter().filter(|column| !names.contains(&column.name));
        Self { columns: columns.cloned().collect(), ..*self }
    }

    /// The form without the whole row: only the columns that a snapshot has itself.
    pub(crate) fn without_state(&self) -> Self {
        Self { has_state: false, ..self.clone() }
    }

    /// Names of the columns that can be left out.
    pub(crate) fn list_columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str()).filter(|name| *name != "id")
    }

    /// The type of `Stream.id`, as SQL writes it.
    fn id_type(&self) -> &str {
        self.find("id").map_or("text", |column| &column.data_type)
    }

    fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// SQL for the text of a column, which the host may lack.
    fn text(&self, name: &str) -> String {
        let Some(column) = self.find(name) else { return "NULL::text".into() };
        let value = format!("s.{}", quote(&column.name));
        if column.is_foreign { write_out(&value) } else { format!("{value}::text") }
    }

    /// SQL for `total` per second of the duration, truncated (domain rule 3).
    fn per_second(&self) -> String {
        let Some(Column { data_type, .. }) = self.find("duration") else { return "0".into() };
        if ["integer", "bigint", "smallint"].contains(&data_type.as_str()) {
            return "CASE WHEN s.duration > 0 THEN div(parsed.total, s.duration) ELSE 0 END".into();
        }
        // Of another type it may say anything. What is below a second could make a number of more digits than there may be.
        r"CASE
            WHEN s.duration IS NULL THEN 0
            WHEN s.duration::text ~ '^[0-9]{1,18}([.][0-9]{1,18})?$' THEN CASE
                WHEN s.duration::text::numeric >= 1 THEN div(parsed.total, s.duration::text::numeric)
                WHEN s.duration::text::numeric = 0 THEN 0
            END
            WHEN s.duration::text ~ '^-[0-9]{1,18}([.][0-9]{1,18})?$' THEN 0
        END"
        .into()
    }

    /// SQL for the row as JSON, the way it is served. JSON of the host's is put in as it is, so that no value of it can fail.
    fn state(&self) -> String {
        if !self.has_state {
            return "NULL::json".into();
        }
        let values: Vec<_> = self.columns.iter().map(Column::wire_value).collect();
        format!("(SELECT row_to_json(w.*) FROM (SELECT {}) w)", values.join(", "))
    }

    /// The statement of a batch; `reads_log` says whether it keeps what it sees of `EventLog`.
    fn statement(&self, reads_log: bool) -> Statement<'_> {
        let mut columns: Vec<_> = self.columns.iter().map(|column| format!("s.{}", quote(&column.name))).collect();
        if self.find("streamId").is_none() {
            columns.push(r#"NULL::text AS "streamId""#.into());
        }
        // As stream_identity_rows has it.
        let created = match self.find("createdAt").filter(|column| column.is_time) {
            Some(_) => r#"page."createdAt"::timestamp"#,
            None => "NULL::timestamp",
        };
        let (logged, event_ids, log_is_filtered) = if reads_log {
            (
                include_str!("sql/list_logged_ids.sql"),
                include_str!("sql/list_event_ids_of_stream.sql"),
                r#"row_security_active('"EventLog"'::regclass)"#,
            )
        } else {
            ("SELECT NULL::jsonb AS ids", "NULL::text[]", "false")
        };
        Statement::new(include_str!("sql/insert_snapshot_batch.sql"))
            .fragment("id_type", self.id_type())
            .fragment("distinct", if self.is_unique { "" } else { "DISTINCT ON (s.id)" })
            .fragment("columns", columns.join(", "))
            .fragment("row_created_at", created)
            .fragment("logged", logged)
            .fragment("event_ids", event_ids)
            .fragment("log_is_filtered", log_is_filtered)
            .fragment("sender", self.text("sender"))
            .fragment("receiver", self.text("receiver"))
            .fragment("token_address", self.text("tokenAddress"))
            .fragment("status", self.text("status"))
            .fragment("amount", self.text("amount"))
            .fragment("per_second", self.per_second())
            .fragment("state", self.state())
    }
}

impl Column {
    /// SQL for how the column `s.name` leaves (domain rule 9), under its name.
    fn wire_value(&self) -> String {
        let name = quote(&self.name);
        let possible = |form: &str, zone: &str| {
            format!(
                "CASE WHEN s.{name} >= '0001-01-01{zone}' AND s.{name} < '10000-01-01{zone}' \
                 THEN to_char({form}, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') ELSE s.{name}::text END AS {name}"
            )
        };
        match self.wire {
            WireForm::Plain => format!("s.{name}"),
            WireForm::Number => format!("s.{name}::text AS {name}"),
            WireForm::Timestamp => possible(&format!("s.{name}"), ""),
            WireForm::Timestamptz => possible(&format!("s.{name} AT TIME ZONE 'UTC'"), " 00:00:00+00"),
        }
    }
}

/// Whether a stream's column can be read and written as JSON: fails as that fails.
pub(crate) async fn probe_column(
    client: &impl GenericClient,
    form: &StreamForm,
    name: &str,
    stream: &str,
) -> Result<()> {
    let Some(column) = form.find(name) else { return Ok(()) };
    let sql = format!(
        r#"SELECT length((SELECT row_to_json(w.*) FROM (SELECT {}) w)::text) AS length, length({}) AS text_length
           FROM (SELECT s.{} FROM "Stream" s WHERE s.id = CAST(CAST($1 AS text) AS {}) LIMIT 1) s"#,
        column.wire_value(),
        form.text(name),
        quote(name),
        form.id_type(),
    );
    client.query_typed_opt(&sql, &[(&stream, Type::TEXT)]).await?;
    Ok(())
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
    /// Whether row security was in force on `EventLog`.
    pub(crate) log_is_filtered: bool,
}

/// Which streams the next batch is about.
#[derive(Debug)]
pub(crate) struct SnapshotRequest<'a> {
    pub(crate) month: Month,
    /// The stream before the first; `None` for none. The empty text is an id as any other.
    pub(crate) after: Option<&'a str>,
    /// The last one; `None` for no end.
    pub(crate) upto: Option<&'a str>,
    pub(crate) limit: u32,
    /// The run's start.
    pub(crate) started_at: NaiveDateTime,
    /// When the batch is taken.
    pub(crate) taken_at: NaiveDateTime,
    /// Whether snapshots of the month that are older than the run are retaken.
    pub(crate) refresh: bool,
    /// Whether all tables are to be read by their indexes, where all have those that it takes: the planner would take `StreamSnapshot`,
    /// when it is still empty, for one to read as a whole for each stream, while others fill it.
    pub(crate) by_keys: bool,
}

/// Waits until `EventLog` can be read, as long as the transaction may wait for a lock. It can be until the transaction ends.
pub(crate) async fn wait_for_log(client: &impl GenericClient) -> Result<()> {
    client.query_typed(r#"SELECT id, "streamId", "createdAt" FROM "EventLog" LIMIT 0"#, &[]).await?;
    Ok(())
}

/// Takes the month's snapshot of those of the next streams that have none, and records the ids of all of them. With
/// `reads_log` it keeps with each which events are in it.
///
/// # Errors
///
/// [`Error::HostRefuses`] when row security hides streams: the transaction must not be committed.
pub(crate) async fn insert_snapshot_batch(
    client: &impl GenericClient,
    form: &StreamForm,
    reads_log: bool,
    request: &SnapshotRequest<'_>,
) -> Result<SnapshotBatch> {
    if request.by_keys {
        client.batch_execute("SET LOCAL enable_seqscan = off").await?;
    }
    let row = form
        .statement(reads_log)
        .bind("month", &request.month.to_string(), Type::TEXT)
        .bind("after", &request.after, Type::TEXT)
        .bind("limit", &i64::from(request.limit), Type::INT8)
        .bind("started_at", &request.started_at, Type::TIMESTAMP)
        .bind("refresh", &request.refresh, Type::BOOL)
        .bind("upto", &request.upto, Type::TEXT)
        .bind("taken_at", &request.taken_at, Type::TIMESTAMP)
        .query_one(client)
        .await?;
    if request.by_keys {
        // What follows is planned as it is elsewhere, and a function keeps its plans.
        client.batch_execute("SET LOCAL enable_seqscan TO DEFAULT").await?;
    }
    host::refuse_hidden_streams(client, row.try_get("is_filtered")?).await?;
    stream_identity::observe(client, &row.try_get::<_, Vec<String>>("unrecorded_ids")?).await?;
    Ok(SnapshotBatch {
        seen: row.try_get::<_, i64>("seen")?.unsigned_abs(),
        last_stream: row.try_get("last_id")?,
        created: row.try_get::<_, i64>("created")?.unsigned_abs(),
        unparsed: row.try_get::<_, i64>("unparsed")?.unsigned_abs(),
        unparsed_streams: row.try_get("unparsed_ids")?,
        log_is_filtered: row.try_get("log_is_filtered")?,
    })
}

/// The stream that is `count` streams after `after`, or from the first on, if there is one.
pub(crate) async fn find_stream_after(
    client: &impl GenericClient,
    form: &StreamForm,
    after: Option<&str>,
    count: u32,
) -> Result<Option<String>> {
    let distinct = if form.is_unique { "" } else { "DISTINCT" };
    let row = client
        .query_typed_opt(
            &format!(
                r#"SELECT id::text AS id FROM (
                       SELECT {distinct} id FROM "Stream"
                       WHERE id IS NOT NULL AND ($1 IS NULL OR id > CAST(CAST($1 AS text) AS {}))
                       ORDER BY id OFFSET $2 - 1 LIMIT 1
                   ) s"#,
                form.id_type()
            ),
            &[(&after, Type::TEXT), (&i64::from(count), Type::INT8)],
        )
        .await?;
    row.map(|row| Ok(row.try_get("id")?)).transpose()
}

/// How many streams there are, and which of them maintenance has not seen.
#[derive(Debug)]
pub(crate) struct StreamCounts {
    pub(crate) streams: u64,
    /// Rows beside them that have no id, of which no snapshot is taken.
    pub(crate) without_id: u64,
    /// Without a snapshot of the month, or with one to be retaken.
    pub(crate) without_snapshot: u64,
    /// Whose ids are not recorded as they are.
    pub(crate) unremembered: u64,
}

/// Whether `Stream` has each id once.
async fn is_id_unique(client: &impl GenericClient) -> Result<bool> {
    let row = client
        .query_typed_one(
            r#"SELECT EXISTS (
                   SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = '"Stream"'::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                     AND i.indnkeyatts = 1 AND a.attname = 'id'
               ) AS is_unique"#,
            &[],
        )
        .await?;
    Ok(row.try_get("is_unique")?)
}

/// Counts streams by whether they have their snapshot of `month`, or one taken since `since`.
///
/// # Errors
///
/// [`Error::HostRefuses`] when row security hides streams.
pub(crate) async fn count_streams(
    client: &impl GenericClient,
    month: Month,
    since: Option<NaiveDateTime>,
) -> Result<StreamCounts> {
    let distinct = if is_id_unique(client).await? { "" } else { "DISTINCT ON (id)" };
    let row = Statement::new(include_str!("sql/count_streams.sql"))
        .fragment("distinct", distinct)
        .bind("month", &month.to_string(), Type::TEXT)
        .bind("since", &since, Type::TIMESTAMP)
        .query_one(client)
        .await?;
    host::refuse_hidden_streams(client, row.try_get("is_filtered")?).await?;
    let number = |name: &str| -> Result<u64> { Ok(row.try_get::<_, i64>(name)?.unsigned_abs()) };
    Ok(StreamCounts {
        streams: number("streams")?,
        without_id: number("without_id")?,
        without_snapshot: number("without_snapshot")?,
        unremembered: number("unremembered")?,
    })
}

/// Whether the first stream has its snapshot of `month`, or there is none: then all may have.
pub(crate) async fn may_be_complete(client: &impl GenericClient, month: Month) -> Result<bool> {
    let row = client
        .query_typed_one(
            r#"SELECT NOT EXISTS (
                   SELECT FROM (SELECT id FROM "Stream" WHERE id IS NOT NULL ORDER BY id LIMIT 1) s
                   WHERE NOT EXISTS (
                       SELECT FROM "StreamSnapshot" t WHERE t."streamId" = s.id::text AND t."snapshotMonth" = $1)
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
