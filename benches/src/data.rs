use local_postgres::Server;
use snapshot_service::database::{Pool, connect_pool, migrate};
use snapshot_service::{Deadline, Settings, SnapshotService, Trigger};
use tokio_postgres::{Client, NoTls};

use crate::{Result, report};

/// When each run starts. A quarter of a template's events is younger than three months by then.
pub(crate) const NOW: &str = "2026-05-31T02:00:00Z";

pub(crate) const HOST_SCHEMA: &str = include_str!("../../tools/snapshots/src/host-schema.sql");

/// With 1M events, 750k of them due, and 20k streams whose snapshots of the month are taken.
pub(crate) const MILLION: &str = "template_million";
/// The same rows, each with another entry_hash than its own.
pub(crate) const WRONG_HASHES: &str = "template_wrong_hashes";
/// With 100k streams.
pub(crate) const STREAMS: &str = "template_streams";

/// To load rows and build the indexes afterwards, from sorted rows, is several times faster than to insert into each.
const SET_INDEXES_READY: &str = r#"UPDATE pg_index SET indisready = :ready WHERE indrelid IN (
    SELECT '"EventLog"'::regclass UNION SELECT relid FROM pg_partition_tree('"EventLog"'))"#;

pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SET search_path = public, snapshot_service").await?;
    Ok(client)
}

pub(crate) async fn execute(server: &Server, database: &str, sql: &str) -> Result<()> {
    Ok(connect(&server.url(database)).await?.batch_execute(sql).await?)
}

pub(crate) async fn pool(server: &Server, database: &str, size: usize) -> Result<Pool> {
    Ok(connect_pool(&server.url(database).parse()?, "bench", size).await?)
}

/// Makes [`MILLION`], with `events` in place of 1M.
pub(crate) async fn create_million(server: &Server, events: u32) -> Result<()> {
    report::say("making data");
    create_with_snapshots(server, MILLION, HOST_SCHEMA, 20_000, events).await
}

/// Makes a template like [`MILLION`] whose EventLog is partitioned by month.
pub(crate) async fn create_partitioned(server: &Server, events: u32) -> Result<&'static str> {
    report::say("making data in partitions");
    let schema = [HOST_SCHEMA, include_str!("partitioned.sql")].concat();
    create_with_snapshots(server, "template_partitioned", &schema, 20_000, events).await?;
    Ok("template_partitioned")
}

/// Makes [`WRONG_HASHES`] of [`MILLION`].
pub(crate) async fn create_wrong_hashes(server: &Server) -> Result<&'static str> {
    report::say("making hashes wrong");
    clone(server, MILLION, WRONG_HASHES).await?;
    let wrong = r#"UPDATE "EventLog" SET entry_hash = encode(sha256(convert_to('wrong' || id, 'UTF8')), 'hex')"#;
    // No dead rows are left that would be archived more slowly for it.
    for statement in [wrong, r#"VACUUM (FULL, ANALYZE) "EventLog""#] {
        execute(server, WRONG_HASHES, statement).await?;
    }
    Ok(WRONG_HASHES)
}

/// Makes a template like [`MILLION`] with as many `events` as are wanted.
pub(crate) async fn create_large(server: &Server, events: u32) -> Result<&'static str> {
    report::say(&format!("making {events} events"));
    create_with_snapshots(server, "template_large", HOST_SCHEMA, 20_000, events).await?;
    Ok("template_large")
}

/// Makes a template of [`MILLION`] and an archive of ten years before, each with `events`.
pub(crate) async fn create_filled(server: &Server, events: u32) -> Result<&'static str> {
    let name = "template_filled";
    report::say("archiving ten years beforehand");
    clone(server, MILLION, name).await?;
    // By SQL alone: month by month, as the service would have left it.
    for year in 0..10_u32 {
        let start = format!("'{}-05-01 00:00:00'", 2015 + year);
        let insert = events_sql(r#""StreamArchive""#, events, 20_000, &start, 364, 1_000_000 * (year + 1));
        let create =
            |month| format!("SELECT stream_archive_create_partition(timestamp {start} + interval '{month} months')");
        let months = (0..12).map(create).collect::<Vec<_>>().join("; ");
        // Each call builds one of four.
        let index = months.replace("create_partition", "index_partition");
        execute(server, name, &format!("{months}; {insert}; {index}; {index}; {index}; {index}")).await?;
    }
    // Seals them.
    let pool = pool(server, name, 1).await?;
    migrate(&pool).await?;
    pool.close();
    execute(server, name, "VACUUM ANALYZE").await?;
    execute(server, name, "CHECKPOINT").await?;
    Ok(name)
}

/// As [`create`], with the snapshots of the month taken.
pub(crate) async fn create_with_snapshots(
    server: &Server,
    name: &str,
    schema: &str,
    streams: u32,
    events: u32,
) -> Result<()> {
    create(server, name, schema, streams, events).await?;
    let pool = pool(server, name, 8).await?;
    let service = SnapshotService::new(pool.clone(), Settings::default());
    service.create_monthly_snapshots(Trigger::Api, NOW.parse()?, &Deadline::never()).await?;
    pool.close();
    Ok(())
}

/// Makes a database of a host whose two tables `schema` makes, migrated. Its events are 12 months old at most, evenly
/// spread over time and streams, and chained by hashes.
pub(crate) async fn create(server: &Server, name: &str, schema: &str, streams: u32, events: u32) -> Result<()> {
    execute(server, "postgres", &format!("CREATE DATABASE {name}")).await?;
    let insert_streams = format!(
        r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, "tokenAddress", amount, duration, "createdAt")
           SELECT 'c' || md5(i::text), (41650000000 + i)::text, md5(i::text) || md5((i + 1)::text), 'GSENDER' || i % 1000,
                  'GRECEIVER' || i % 1000, 'CTOKEN', (i * 1000000000000)::text, 86400 * 30, timestamp '2025-05-31'
           FROM generate_series(1, {streams}::bigint) i"#
    );
    let client = connect(&server.url(name)).await?;
    for statement in [
        schema,
        &insert_streams,
        &SET_INDEXES_READY.replace(":ready", "false"),
        &events_sql(r#""EventLog""#, events, streams, "'2025-05-31 02:00:00'", 365, 50_000_000),
        &SET_INDEXES_READY.replace(":ready", "true"),
        "SET maintenance_work_mem = '1GB'",
        r#"REINDEX TABLE "EventLog""#,
        "VACUUM ANALYZE",
    ] {
        client.batch_execute(statement).await?;
    }
    std::mem::drop(client);
    let pool = pool(server, name, 1).await?;
    migrate(&pool).await?;
    pool.close();
    execute(server, name, "CHECKPOINT").await
}

/// Inserts `rows` events over `days` days from `start` on, with ledger numbers from `first_ledger` on.
fn events_sql(table: &str, rows: u32, streams: u32, start: &str, days: u32, first_ledger: u32) -> String {
    include_str!("events.sql")
        .replace(":table", table)
        .replace(":start", start)
        .replace(":streams", &streams.to_string())
        .replace(":days", &days.to_string())
        .replace(":ledger", &first_ledger.to_string())
        .replace(":rows", &rows.to_string())
}

/// A database of its own, cloned from a template.
pub(crate) async fn clone(server: &Server, template: &str, name: &str) -> Result<()> {
    execute(server, "postgres", &format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")).await?;
    execute(server, "postgres", "CHECKPOINT").await?;
    // Else the copy would be written to the disk while something is measured.
    tokio::process::Command::new("sync").status().await?;
    Ok(())
}

pub(crate) async fn drop(server: &Server, name: &str) -> Result<()> {
    execute(server, "postgres", &format!("DROP DATABASE {name} WITH (FORCE)")).await
}
