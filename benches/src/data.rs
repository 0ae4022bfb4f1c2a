use local_postgres::Server;
use snapshot_service::Trigger;
use snapshot_service::database::{Pool, connect_pool, migrate};
use tokio_postgres::{Client, NoTls};

use crate::{Result, report};

/// When each run starts. A quarter of a template's events is younger than three months by then.
pub(crate) const NOW: &str = "2026-05-31T02:00:00Z";

const HOST_SCHEMA: &str = include_str!("../../tools/snapshots/src/host-schema.sql");

/// With 1M events, 750k of them due, and 20k streams whose snapshots of the month are taken.
pub(crate) const MILLION: &str = "template_million";
/// The same rows in an EventLog that is partitioned by month.
pub(crate) const PARTITIONED: &str = "template_partitioned";
/// The same rows, each with another entry_hash than its own.
pub(crate) const WRONG_HASHES: &str = "template_wrong_hashes";
/// With 100k streams.
pub(crate) const STREAMS: &str = "template_streams";

/// Leaves no dead rows of what made the data, whatever its kind.
const REWRITE: &str = r#"VACUUM (FULL, ANALYZE) "EventLog""#;

pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SET search_path = public, snapshot_service").await?;
    Ok(client)
}

pub(crate) async fn execute(server: &Server, database: &str, sql: &str) -> Result<()> {
    Ok(connect(&server.url(database)).await?.batch_execute(sql).await?)
}

pub(crate) async fn pool(server: &Server, database: &str) -> Result<Pool> {
    Ok(connect_pool(&server.url(database).parse()?, "bench", 8).await?)
}

/// Makes the databases that the figures `names` clone, with `events` in place of 1M.
pub(crate) async fn create_templates(server: &Server, names: &[String], events: u32) -> Result<()> {
    let any = |users: &[&str]| names.iter().any(|name| users.contains(&name.as_str()));
    if any(&["warm", "idle", "archive", "partitioned", "hashes", "verify", "filled"]) {
        report::say("making data");
        create_chained(server, MILLION, HOST_SCHEMA, events).await?;
    }
    if any(&["partitioned"]) {
        report::say("making data in partitions");
        let schema = [HOST_SCHEMA, include_str!("partitioned.sql")].concat();
        create_chained(server, PARTITIONED, &schema, events).await?;
    }
    if any(&["hashes"]) {
        report::say("making hashes wrong");
        clone(server, MILLION, WRONG_HASHES).await?;
        let wrong = r#"UPDATE "EventLog" SET entry_hash = encode(sha256(convert_to('wrong' || id, 'UTF8')), 'hex')"#;
        for statement in [wrong, REWRITE] {
            execute(server, WRONG_HASHES, statement).await?;
        }
    }
    if any(&["snapshots"]) {
        create(server, STREAMS, 100_000, 0).await?;
    }
    Ok(())
}

/// As [`create`], with hashes and with the snapshots of the month.
async fn create_chained(server: &Server, name: &str, schema: &str, events: u32) -> Result<()> {
    create_from(server, name, schema, 20_000, events).await?;
    execute(server, name, include_str!("chain.sql")).await?;
    execute(server, name, REWRITE).await?;
    let pool = pool(server, name).await?;
    let service = snapshot_service::SnapshotService::new(pool.clone(), snapshot_service::Settings::default());
    service.create_monthly_snapshots(Trigger::Api, NOW.parse()?, &snapshot_service::Deadline::never()).await?;
    pool.close();
    Ok(())
}

/// Makes a database of a host, migrated, whose events are 12 months old at most and evenly spread; without hashes.
pub(crate) async fn create(server: &Server, name: &str, streams: u32, events: u32) -> Result<()> {
    create_from(server, name, HOST_SCHEMA, streams, events).await
}

/// The same, of a host whose two tables `schema` makes.
async fn create_from(server: &Server, name: &str, schema: &str, streams: u32, events: u32) -> Result<()> {
    execute(server, "postgres", &format!("CREATE DATABASE {name}")).await?;
    execute(server, name, schema).await?;
    execute(
        server,
        name,
        &format!(
            r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, "tokenAddress", amount, duration, "createdAt")
               SELECT 'c' || md5(i::text), (41650000000 + i)::text, md5(i::text) || md5((i + 1)::text), 'GSENDER' || i % 1000,
                      'GRECEIVER' || i % 1000, 'CTOKEN', (i * 1000000000000)::text, 86400 * 30, timestamp '2025-05-31'
               FROM generate_series(1, {streams}::bigint) i"#
        ),
    )
    .await?;
    if events > 0 {
        execute(server, name, &events_sql(events, "'2025-05-31 02:00:00'", 365, 50_000_000)).await?;
    }
    execute(server, name, "VACUUM ANALYZE").await?;
    let pool = pool(server, name).await?;
    migrate(&pool).await?;
    pool.close();
    execute(server, name, "CHECKPOINT").await
}

/// Inserts `rows` events over `days` days from `start` on.
/// Events with ledger numbers from `first_ledger` on.
fn events_sql(rows: u32, start: &str, days: u32, first_ledger: u32) -> String {
    format!(
        r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, receiver, amount,
               metadata, "createdAt")
           SELECT 'c' || md5({start} || i), (array['create', 'withdraw', 'pause', 'resume'])[1 + i % 4],
                  (41650000001 + (i * 7919) % 20000)::text, md5({start} || i) || md5((i + 1)::text), {first_ledger} + i,
                  '2026-01-01T00:00:00Z', 'GSENDER' || i % 1000, 'GRECEIVER' || i % 1000, i * 1000,
                  '{{"memo":"invoice ' || i || '","source":"bench"}}',
                  timestamp {start} + i * (interval '{days} days' / {rows})
           FROM generate_series(1, {rows}::bigint) i"#
    )
}

/// Makes a database of a host with `Stream`, `EventLog` and 500 further tables, migrated.
pub(crate) async fn create_large_schema(server: &Server, name: &str) -> Result<()> {
    create(server, name, 1_000, 10_000).await?;
    execute(server, name, include_str!("further_tables.sql")).await?;
    execute(server, name, "VACUUM ANALYZE").await?;
    execute(server, name, "CHECKPOINT").await
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

/// Archives 10M older rows into the months of `database` before those that its events have.
pub(crate) async fn fill_archive(server: &Server, database: &str) -> Result<()> {
    // By SQL alone: an archive of ten years and more, month by month, as the service would have left it.
    for year in 0..10_u32 {
        let start = format!("'{}-05-01 00:00:00'", 2015 + year);
        let insert = events_sql(1_000_000, &start, 364, 1_000_000 * (year + 1))
            .replace(r#"INSERT INTO "EventLog""#, r#"INSERT INTO "StreamArchive""#);
        let create =
            |month| format!("SELECT stream_archive_create_partition(timestamp {start} + interval '{month} months')");
        let months = (0..12).map(create).collect::<Vec<_>>().join("; ");
        // Each call builds one of four.
        let index = months.replace("create_partition", "index_partition");
        execute(server, database, &format!("{months}; {insert}; {index}; {index}; {index}; {index}")).await?;
    }
    // Seals them.
    let pool = pool(server, database).await?;
    migrate(&pool).await?;
    pool.close();
    execute(server, database, "VACUUM ANALYZE").await?;
    execute(server, database, "CHECKPOINT").await
}
