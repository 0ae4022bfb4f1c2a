//! Made-up streams and events: what the host's backend would have written.

use std::fmt::Write as _;

use chrono::{DateTime, Duration, NaiveDateTime, SecondsFormat, Utc};
use futures_util::SinkExt;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use snapshot_service::database::DatabaseConfig;
use tokio_postgres::{CopyInSink, Transaction};

use crate::Result;
use crate::database::Database;

/// What a private database is given when it is first used.
pub(crate) const DEFAULT_STREAMS: u32 = 2_000;
/// As above.
pub(crate) const DEFAULT_EVENTS: u32 = 100_000;

/// Rows per message to the server.
const COPY_ROWS: u32 = 1_000;

/// The columns that are filled; the others have defaults.
const STREAM_COLUMNS: &str = r#"id, "streamId", "txHash", sender, receiver, contract_id, "tokenAddress", amount, duration, status, withdrawn, "createdAt""#;
const EVENT_COLUMNS: &str = r#"id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", sender, receiver, amount, metadata, parent_hash, entry_hash, "createdAt""#;

/// Gives a private database that has no host tables the tables and demo data.
pub(crate) async fn fill_new(database: &Database) -> Result<()> {
    let mut client = database.pool.get().await?;
    let transaction = begin(&mut client, &database.config.database).await?;
    if has_host_tables(&transaction).await? {
        return Ok(());
    }
    fill(transaction, DEFAULT_STREAMS, DEFAULT_EVENTS).await
}

/// Contract-level id of a stream, of the first ones if possible one with archived events or with old ones.
pub(crate) async fn find_stream_with_history(database: &Database) -> Result<Option<String>> {
    let mut client = database.pool.get().await?;
    let transaction = begin(&mut client, &database.config.database).await?;
    let found = r#"
        SELECT s."streamId"
        FROM (SELECT "streamId" FROM "Stream" WHERE "streamId" IS NOT NULL ORDER BY id LIMIT 50) s
        ORDER BY
            EXISTS (SELECT FROM "StreamArchive" a WHERE a."streamId" = s."streamId") DESC,
            EXISTS (
                SELECT FROM "EventLog" e
                WHERE e."streamId" = s."streamId" AND e."createdAt" < now() AT TIME ZONE 'UTC' - interval '3 months'
            ) DESC
        LIMIT 1"#;
    Ok(transaction.query_opt(found, &[]).await?.map(|row| row.get(0)))
}

/// Adds `streams` streams and `events` events over the last twelve months, all or nothing: to a private database, or to
/// empty tables of another one.
pub(crate) async fn add(database: &Database, streams: u32, events: u32) -> Result<()> {
    let mut client = database.pool.get().await?;
    let transaction = begin(&mut client, &database.config.database).await?;
    if database.private.is_none() {
        if !has_host_tables(&transaction).await? {
            return Err("DATABASE_URL's database lacks the host's tables: run the host's own migrations first".into());
        }
        let empty = r#"SELECT NOT EXISTS (SELECT FROM "Stream") AND NOT EXISTS (SELECT FROM "EventLog")"#;
        if !transaction.query_one(empty, &[]).await?.get::<_, bool>(0) {
            return Err("DATABASE_URL's database has streams or events: demo data is only added to empty tables".into());
        }
    }
    fill(transaction, streams, events).await
}

/// Begins a transaction that adds demo data; a second one waits.
async fn begin<'a>(client: &'a mut tokio_postgres::Client, config: &DatabaseConfig) -> Result<Transaction<'a>> {
    let transaction = client.transaction().await?;
    let [host, service] = [config.host_schema(), config.service_schema()].map(|name| name.replace('"', "\"\""));
    transaction.batch_execute(&format!(r#"SET LOCAL search_path = "{host}", "{service}""#)).await?;
    transaction.batch_execute("SELECT pg_advisory_xact_lock(hashtext('demo data'))").await?;
    Ok(transaction)
}

async fn has_host_tables(transaction: &Transaction<'_>) -> Result<bool> {
    Ok(transaction.query_one(r#"SELECT to_regclass('"Stream"') IS NOT NULL"#, &[]).await?.get(0))
}

async fn fill(transaction: Transaction<'_>, streams: u32, events: u32) -> Result<()> {
    if !has_host_tables(&transaction).await? {
        transaction.batch_execute(include_str!("host-schema.sql")).await?;
    }
    let newest = r#"SELECT entry_hash, "createdAt" FROM "EventLog" ORDER BY "createdAt" DESC, id DESC LIMIT 1"#;
    let newest = transaction.query_opt(newest, &[]).await?;
    let mut world = World::new(streams, events, Utc::now());
    if let Some(row) = newest {
        world.parent_hash = row.get(0);
        // The newest row is the chain's head: the last one added must be newer than all.
        world.end = world.end.max(row.get::<_, NaiveDateTime>(1) + Duration::milliseconds(1));
    }

    let style = ProgressStyle::with_template("{msg:>12} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")?;
    let bar = ProgressBar::new(u64::from(streams) + u64::from(events)).with_style(style).with_message("demo data");
    let statement = format!(r#"COPY "EventLog" ({EVENT_COLUMNS}) FROM STDIN"#);
    copy(&transaction, &statement, events, &bar, |index, line| world.write_event(index, line)).await?;
    let statement = format!(r#"COPY "Stream" ({STREAM_COLUMNS}) FROM STDIN"#);
    copy(&transaction, &statement, streams, &bar, |index, line| world.write_stream(index, line)).await?;
    transaction.batch_execute(r#"ANALYZE "Stream", "EventLog""#).await?;
    transaction.commit().await?;
    bar.finish();
    tracing::info!(streams, events, seconds = bar.elapsed().as_secs_f32(), "demo data added");
    Ok(())
}

async fn copy(
    transaction: &Transaction<'_>,
    statement: &str,
    rows: u32,
    bar: &ProgressBar,
    mut write_row: impl FnMut(u32, &mut String),
) -> Result<()> {
    let sink: CopyInSink<std::io::Cursor<Vec<u8>>> = transaction.copy_in(statement).await?;
    let mut sink = std::pin::pin!(sink);
    let mut lines = String::new();
    for index in 0..rows {
        write_row(index, &mut lines);
        if (index + 1) % COPY_ROWS == 0 || index + 1 == rows {
            sink.send(std::io::Cursor::new(std::mem::take(&mut lines).into_bytes())).await?;
            bar.inc(u64::from(index % COPY_ROWS + 1));
        }
    }
    sink.finish().await?;
    Ok(())
}

/// What the rows are made from. Streams begin one after the other over the year; between two beginnings, events happen to
/// those that have begun.
struct World {
    streams: u32,
    events: u32,
    start: NaiveDateTime,
    end: NaiveDateTime,
    /// `entry_hash` of the event before.
    parent_hash: Option<String>,
    /// Tells the rows of one call from those of another.
    run: u32,
    random: fastrand::Rng,
}

/// An on-chain event, as its hash covers it: the ten fields in alphabetical order.
#[derive(serde::Serialize)]
#[expect(clippy::struct_field_names, reason = "the chain's own names")]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    amount: Option<&'a str>,
    event_index: u32,
    event_type: &'a str,
    ledger: u32,
    ledger_closed_at: &'a str,
    metadata: Option<&'a str>,
    receiver: Option<&'a str>,
    sender: Option<&'a str>,
    stream_id: &'a str,
    tx_hash: &'a str,
}

impl Event<'_> {
    /// SHA-256 of the fields as compact JSON, followed by the parent's hash; lower-case hex.
    fn hash(&self, parent_hash: Option<&str>) -> String {
        let json = serde_json::to_string(self).expect("strings and numbers are always JSON");
        let digest = Sha256::new().chain_update(json).chain_update(parent_hash.unwrap_or_default()).finalize();
        hex(&digest)
    }
}

impl World {
    fn new(streams: u32, events: u32, now: DateTime<Utc>) -> Self {
        let end = now.naive_utc();
        let start = end - chrono::Months::new(12);
        let mut random = fastrand::Rng::new();
        Self { streams, events, start, end, parent_hash: None, run: random.u32(..), random }
    }

    /// The contract-level id; `None` while the host does not know it yet.
    fn contract_id(&self, stream: u32) -> Option<String> {
        (stream % 97 != 96).then(|| format!("{}{stream:06}", self.run % 100_000))
    }

    /// The last stream that has begun when the event happens.
    fn newest_stream(&self, event: u32) -> u32 {
        let begun = u64::from(event) * u64::from(self.streams) / u64::from(self.events.max(1));
        u32::try_from(begun).unwrap_or(u32::MAX).min(self.streams - 1)
    }

    /// The first event at which the stream has begun.
    fn first_event(&self, stream: u32) -> u32 {
        let event = (u64::from(stream) * u64::from(self.events)).div_ceil(u64::from(self.streams));
        u32::try_from(event).unwrap_or(u32::MAX)
    }

    /// When the event happens: spread evenly, the last one now. Events of one transaction share their time.
    fn event_time(&self, event: u32) -> NaiveDateTime {
        let span = (self.end - self.start).num_milliseconds();
        let position = if event + 1 == self.events { self.events } else { event - event % 3 };
        self.start + Duration::milliseconds(span * i64::from(position) / i64::from(self.events.max(1)))
    }

    fn write_event(&mut self, index: u32, line: &mut String) {
        let created_at = self.event_time(index);
        let newest = self.newest_stream(index);
        let begins = self.first_event(newest) == index;
        let stream = if begins { newest } else { self.random.u32(..=newest) };
        // A stream whose id is not known yet has no events; the one before it always has an id.
        let (stream, stream_id) = self.contract_id(stream).map_or_else(
            || (stream - 1, self.contract_id(stream - 1).unwrap_or_default()),
            |stream_id| (stream, stream_id),
        );
        let event_type = if begins {
            "create"
        } else {
            self.random.choice(["withdraw", "withdraw", "withdraw", "pause", "resume", "top_up"]).unwrap_or("withdraw")
        };
        let (sender, receiver) = accounts(stream);
        let amount =
            matches!(event_type, "create" | "withdraw" | "top_up").then(|| self.random.u64(1..1 << 44).to_string());
        let metadata = index.is_multiple_of(5).then(|| format!(r#"{{"memo":"invoice {index}","source":"demo"}}"#));
        let ledger_closed_at = created_at.and_utc().to_rfc3339_opts(SecondsFormat::Secs, true);
        let tx_hash = hex(&Sha256::digest(format!("{} transaction {}", self.run, index - index % 3)));
        let event = Event {
            amount: amount.as_deref(),
            event_index: index % 3,
            event_type,
            ledger: 50_000_000 + index / 3,
            ledger_closed_at: &ledger_closed_at,
            metadata: metadata.as_deref(),
            receiver: Some(&receiver),
            sender: Some(&sender),
            stream_id: &stream_id,
            tx_hash: &tx_hash,
        };
        let hash = event.hash(self.parent_hash.as_deref());
        let parent_hash = self.parent_hash.replace(hash.clone());
        write_line(
            line,
            &[
                Some(&id('e', created_at, self.run, index)),
                Some(event_type),
                Some(&stream_id),
                Some(&tx_hash),
                Some(&event.event_index.to_string()),
                Some(&event.ledger.to_string()),
                Some(&ledger_closed_at),
                Some(&sender),
                Some(&receiver),
                amount.as_deref(),
                metadata.as_deref(),
                parent_hash.as_deref(),
                Some(&hash),
                Some(&created_at.to_string()),
            ],
        );
    }

    fn write_stream(&mut self, stream: u32, line: &mut String) {
        let begun = self.event_time(self.first_event(stream));
        let (sender, receiver) = accounts(stream);
        let amount = match stream % 1_000 {
            // What hosts do hold now and then: no integer, and more digits than any token has.
            500 => "12.5".to_owned(),
            501 => "9".repeat(60),
            // The largest that a contract can hold.
            502 => i128::MAX.to_string(),
            _ => (self.random.u128(1..1 << 80)).to_string(),
        };
        let status = ["ACTIVE", "ACTIVE", "ACTIVE", "PAUSED", "COMPLETED", "CANCELED", "ARCHIVED"][stream as usize % 7];
        let duration = (stream % 50 != 49).then(|| (86_400 * (30 + stream % 700)).to_string());
        write_line(
            line,
            &[
                Some(&id('s', begun, self.run, stream)),
                self.contract_id(stream).as_deref(),
                Some(&hex(&Sha256::digest(format!("{} stream {stream}", self.run)))),
                Some(&sender),
                Some(&receiver),
                Some("CDEMOCONTRACT"),
                (stream % 10 != 9).then_some("CDEMOTOKEN"),
                Some(&amount),
                duration.as_deref(),
                Some(status),
                Some("0"),
                Some(&begun.to_string()),
            ],
        );
    }
}

/// An id that sorts by time, as the host's do: `c`, the time in milliseconds, then what makes it unique.
fn id(kind: char, time: NaiveDateTime, run: u32, index: u32) -> String {
    format!("c{:011x}{kind}{run:08x}{index:08x}", time.and_utc().timestamp_millis())
}

fn accounts(stream: u32) -> (String, String) {
    (format!("GSENDER{:05}", stream % 300), format!("GRECEIVER{:05}", stream % 700))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// One line of COPY's text format.
fn write_line(line: &mut String, values: &[Option<&str>]) {
    for (index, value) in values.iter().enumerate() {
        let separator = if index == 0 { "" } else { "\t" };
        let text = value.map_or_else(|| r"\N".to_owned(), |value| value.replace('\\', r"\\"));
        line.push_str(separator);
        line.push_str(&text);
    }
    line.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_hosts_chain() {
        let vectors = include_str!("../../../tests/it/fixtures/chain-vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).expect("JSON");
        let rows = vectors["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 5);
        for row in rows {
            let number = |name: &str| u32::try_from(row[name].as_u64().expect(name)).expect(name);
            let event = Event {
                amount: row["amount"].as_str(),
                event_index: number("eventIndex"),
                event_type: row["eventType"].as_str().expect("a type"),
                ledger: number("ledger"),
                ledger_closed_at: row["ledgerClosedAt"].as_str().expect("a time"),
                metadata: row["metadata"].as_str(),
                receiver: row["receiver"].as_str(),
                sender: row["sender"].as_str(),
                stream_id: row["streamId"].as_str().expect("an id"),
                tx_hash: row["txHash"].as_str().expect("a hash"),
            };
            assert_eq!(event.hash(row["parentHash"].as_str()), row["entryHash"].as_str().expect("a hash"));
        }
    }
}
