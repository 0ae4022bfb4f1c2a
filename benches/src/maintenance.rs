use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDateTime};
use local_postgres::Server;
use snapshot_service::{
    Deadline, MaintenanceRun, Settings, SnapshotService, Trigger, VerificationRequest, VerificationStatus,
};

use crate::data::{self, MILLION, NOW, STREAMS, WRONG_HASHES};
use crate::pairs::{Pairs, Spread, in_turn};
use crate::processes::Processes;
use crate::{Result, report};

/// Odd, so that the median is one of them. A machine's moods are large beside some differences.
const PAIRS: usize = 5;
/// With 10M rows, where each takes minutes.
const LARGE_PAIRS: usize = 3;

/// Logs before this are due at [`NOW`].
const CUTOFF: &str = "2026-02-28T02:00:00";

/// The reference's bounds of batches: the key of the 20,000th row after the last bound.
const NEXT_BOUND: &str = r#"SELECT "createdAt", id FROM "EventLog" WHERE ("createdAt", id) > ($1, $2) AND "createdAt" < $3
    ORDER BY "createdAt", id OFFSET 19999 LIMIT 1"#;
const BATCH: &str = r#"FROM "EventLog" WHERE ("createdAt", id) > ($1, $2) AND ("createdAt", id) <= ($3, $4)"#;

/// Rows per second of archiving, and the server's microseconds of processor time per archived row: ours, and the reference.
pub(crate) async fn archive(server: &Server) -> Result<[Pairs; 2]> {
    in_turn(PAIRS, async || archive_ours(server, MILLION, true).await, async || archive_plainly(server).await).await
}

/// Rows per second of archiving with seals and checked hashes, and without.
pub(crate) async fn prove(server: &Server) -> Result<Pairs> {
    let [rates, _] = in_turn(
        PAIRS,
        async || archive_ours(server, MILLION, true).await,
        async || archive_ours(server, MILLION, false).await,
    )
    .await?;
    Ok(rates)
}

/// Rows per second of archiving the events of `template`, and of [`MILLION`].
async fn archive_template(server: &Server, count: usize, template: &str) -> Result<Pairs> {
    let [rates, _] = in_turn(
        count,
        async || archive_ours(server, template, true).await,
        async || archive_ours(server, MILLION, true).await,
    )
    .await?;
    data::drop(server, template).await?;
    Ok(rates)
}

/// From an EventLog that is partitioned by month, and from an ordinary one.
pub(crate) async fn archive_partitioned(server: &Server, events: u32) -> Result<Pairs> {
    archive_template(server, PAIRS, data::create_partitioned(server, events).await?).await
}

/// Rows whose hashes are all wrong, and rows with right ones.
pub(crate) async fn archive_wrong_hashes(server: &Server) -> Result<Pairs> {
    archive_template(server, PAIRS, data::create_wrong_hashes(server).await?).await
}

/// Into an archive of ten times `events` rows, and into an empty one.
pub(crate) async fn archive_into_full(server: &Server, events: u32) -> Result<Pairs> {
    archive_template(server, LARGE_PAIRS, data::create_filled(server, events).await?).await
}

/// From an EventLog of ten times `events` rows, and from one of `events`.
pub(crate) async fn archive_large(server: &Server, events: u32) -> Result<Pairs> {
    archive_template(server, LARGE_PAIRS, data::create_large(server, 10 * events).await?).await
}

/// Archives a clone of `template`: rows per second, and the server's microseconds of processor time per row.
async fn archive_ours(server: &Server, template: &str, prove: bool) -> Result<[f64; 2]> {
    data::clone(server, template, "archive").await?;
    let processes = Processes::of(server).await?;
    let used_before = processes.seconds()?;
    let (run, took) = maintain(server, "archive", prove).await?;
    let used = processes.seconds()? - used_before;
    let mismatches = if template == WRONG_HASHES { run.logs_archived } else { 0 };
    if !run.complete || run.hash_mismatches != mismatches || count_due(server, "archive").await? > 0 {
        return Err(format!("{template} was to be archived: {run:?}").into());
    }
    data::drop(server, "archive").await?;
    Ok(per_row(run.logs_archived, took, used))
}

pub(crate) async fn maintain(server: &Server, database: &str, prove: bool) -> Result<(MaintenanceRun, Duration)> {
    let pool = data::pool(server, database, 8).await?;
    let service = SnapshotService::new(pool.clone(), Settings::default());
    let service = if prove { service } else { service.unproved() };
    let started = Instant::now();
    let run = service.run_maintenance(Trigger::Cli.request(), NOW.parse()?, &Deadline::never()).await?;
    let took = started.elapsed();
    pool.close();
    Ok((run, took))
}

/// The same by what an engineer would write: on one connection, batches of 20,000 rows by key into a plain table with the
/// archive's indexes, then the upkeep that both tables need.
async fn archive_plainly(server: &Server) -> Result<[f64; 2]> {
    data::clone(server, MILLION, "plain").await?;
    let mut client = data::connect(&server.url("plain")).await?;
    client
        .batch_execute(
            r#"CREATE TABLE "PlainArchive" (LIKE "EventLog", "archivedAt" TIMESTAMP(3) NOT NULL DEFAULT now(), PRIMARY KEY (id, "createdAt"));
               CREATE INDEX ON "PlainArchive" ("streamId", "createdAt" DESC);
               CREATE INDEX ON "PlainArchive" ("txHash", "eventIndex");
               -- A plan that does not know the bounds could be a scan of the whole table.
               SET plan_cache_mode = force_custom_plan"#,
        )
        .await?;
    let next_bound = client.prepare(NEXT_BOUND).await?;
    let insert = client.prepare(&format!(r#"INSERT INTO "PlainArchive" SELECT * {BATCH}"#)).await?;
    let delete = client.prepare(&format!("DELETE {BATCH}")).await?;
    let processes = Processes::of(server).await?;

    let (used_before, started) = (processes.seconds()?, Instant::now());
    let cutoff: NaiveDateTime = CUTOFF.parse()?;
    let (mut lower, mut rows, mut is_last) = ((DateTime::UNIX_EPOCH.naive_utc(), String::new()), 0, false);
    while !is_last {
        let bound = client.query_opt(&next_bound, &[&lower.0, &lower.1, &cutoff]).await?;
        is_last = bound.is_none();
        // No id is empty: the last batch ends before the cutoff.
        let upper = bound.map_or((cutoff, String::new()), |row| (row.get("createdAt"), row.get("id")));
        let transaction = client.transaction().await?;
        let inserted = transaction.execute(&insert, &[&lower.0, &lower.1, &upper.0, &upper.1]).await?;
        let deleted = transaction.execute(&delete, &[&lower.0, &lower.1, &upper.0, &upper.1]).await?;
        transaction.commit().await?;
        if inserted != deleted {
            return Err(format!("{inserted} rows were inserted and {deleted} deleted").into());
        }
        (lower, rows) = (upper, rows + deleted);
    }
    for upkeep in [r#"VACUUM (ANALYZE) "EventLog""#, r#"ANALYZE "PlainArchive""#] {
        client.batch_execute(upkeep).await?;
    }
    let (took, used) = (started.elapsed(), processes.seconds()? - used_before);

    if count_due(server, "plain").await? > 0 {
        return Err("the reference left rows that were due".into());
    }
    drop(client);
    data::drop(server, "plain").await?;
    Ok(per_row(rows, took, used))
}

async fn count_due(server: &Server, database: &str) -> Result<i64> {
    let client = data::connect(&server.url(database)).await?;
    let due = format!(r#"SELECT count(*) FROM "EventLog" WHERE "createdAt" < '{CUTOFF}'"#);
    Ok(client.query_one(&due, &[]).await?.get(0))
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
fn rate(rows: u64, took: Duration) -> f64 {
    rows as f64 / took.as_secs_f64()
}

/// Rows per second, and microseconds of processor time per row, of which there were that many seconds.
fn per_row(rows: u64, took: Duration, processor_seconds: f64) -> [f64; 2] {
    let rate = rate(rows, took);
    [rate, processor_seconds * 1e6 / (rate * took.as_secs_f64())]
}

/// Snapshots per second: ours, and one statement that takes the same columns into the same table.
pub(crate) async fn snapshots(server: &Server) -> Result<Pairs> {
    data::create(server, STREAMS, data::HOST_SCHEMA, 100_000, 0).await?;
    let ours = async || {
        data::clone(server, STREAMS, "ours").await?;
        let pool = data::pool(server, "ours", 8).await?;
        let service = SnapshotService::new(pool.clone(), Settings::default());
        let started = Instant::now();
        let run = service.create_monthly_snapshots(Trigger::Api, NOW.parse()?, &Deadline::never()).await?;
        let took = started.elapsed();
        pool.close();
        data::drop(server, "ours").await?;
        Ok([rate(run.snapshots_created, took)])
    };
    let plain = async || {
        data::clone(server, STREAMS, "plain").await?;
        let client = data::connect(&server.url("plain")).await?;
        let started = Instant::now();
        let insert = r#"INSERT INTO "StreamSnapshot" (id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond",
                            "totalAmount", status, state, "snapshotMonth", "createdAt")
                        SELECT gen_random_uuid()::text, id, sender, receiver, "tokenAddress", div(amount::numeric, duration),
                               amount::numeric, status::text, to_json(s), '2026-05', now()
                        FROM "Stream" s"#;
        let inserted = client.execute(insert, &[]).await?;
        let took = started.elapsed();
        drop(client);
        data::drop(server, "plain").await?;
        Ok([rate(inserted, took)])
    };
    let [rates] = in_turn(PAIRS, ours, plain).await?;
    data::drop(server, STREAMS).await?;
    Ok(rates)
}

/// Rows per second of verifying an archive, and of reading it in one go with one digest per row.
pub(crate) async fn verify(server: &Server) -> Result<Pairs> {
    report::say("archiving what is to be verified");
    data::clone(server, MILLION, "verify").await?;
    maintain(server, "verify", true).await?;
    data::execute(server, "verify", "VACUUM ANALYZE").await?;
    let pool = data::pool(server, "verify", 8).await?;
    let service = SnapshotService::new(pool.clone(), Settings::default());
    let client = data::connect(&server.url("verify")).await?;
    client.batch_execute("SET max_parallel_workers_per_gather = 0; SET jit = off").await?;
    let ours = async || {
        let started = Instant::now();
        let request = VerificationRequest::default();
        let verification = service.verify_archive(request, NOW.parse()?, &Deadline::never()).await?;
        if verification.status != VerificationStatus::Passed {
            return Err(format!("the archive is not what was archived: {:?}", verification.breaks.first()).into());
        }
        Ok([rate(verification.rows_done, started.elapsed())])
    };
    let scan = async || {
        let started = Instant::now();
        let scan = r#"SELECT count(sha256(convert_to(a::text, 'UTF8'))) FROM "StreamArchive" a"#;
        let rows: i64 = client.query_one(scan, &[]).await?.get(0);
        Ok([rate(rows.unsigned_abs(), started.elapsed())])
    };
    let [rates] = in_turn(PAIRS, ours, scan).await?;
    pool.close();
    drop(client);
    data::drop(server, "verify").await?;
    Ok(rates)
}

/// Milliseconds of a run after all is done.
pub(crate) async fn nothing_to_do(server: &Server) -> Result<Spread> {
    data::clone(server, MILLION, "idle").await?;
    maintain(server, "idle", true).await?;
    // What the first run wrote is on the disk by the time that there is a second.
    for settle in ["VACUUM ANALYZE", "CHECKPOINT"] {
        data::execute(server, "idle", settle).await?;
    }
    let mut times = Vec::new();
    for _ in 0..PAIRS {
        let (_, took) = maintain(server, "idle", true).await?;
        times.push(took.as_secs_f64() * 1e3);
    }
    data::drop(server, "idle").await?;
    Ok(Spread::of(times))
}
