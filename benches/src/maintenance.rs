use std::path::PathBuf;
use std::time::{Duration, Instant};

use local_postgres::Server;
use runtime_api::Function;
use snapshot_service::{
    Deadline, MaintenanceRun, Settings, SnapshotService, Trigger, VerificationRequest, VerificationStatus,
};

use crate::data::{self, MILLION, NOW, PARTITIONED, STREAMS, WRONG_HASHES};
use crate::functions::statement;
use crate::{Result, report};

/// How often each is measured; the middle one counts.
const REPETITIONS: usize = 3;
/// The same of archiving, whose differences are small beside a machine's moods.
const ARCHIVE_REPETITIONS: usize = 7;

const LOOKS: usize = 20;

/// Rows per second of archiving.
pub(crate) struct Archive {
    pub(crate) ours: f64,
    pub(crate) plain: f64,
    /// Ours, without seals and hash checks.
    pub(crate) unproved: f64,
    /// Ours against that: the middle one of the ratios of measurements that were taken one after the other.
    pub(crate) proved_share: f64,
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Ours and plain SQL by turns, each on a database of its own.
pub(crate) async fn archive(server: &Server) -> Result<Archive> {
    let (mut ours, mut plain, mut unproved) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..ARCHIVE_REPETITIONS {
        data::clone(server, MILLION, "plain").await?;
        plain.push(archive_plainly(server, "plain").await?);
        data::drop(server, "plain").await?;
        // Neither always comes first.
        for prove in [repetition % 2 == 0, repetition % 2 == 1] {
            data::clone(server, MILLION, "ours").await?;
            let rates = if prove { &mut ours } else { &mut unproved };
            rates.push(archive_ours(server, "ours", prove).await?);
            data::drop(server, "ours").await?;
        }
        let last = |rates: &[f64]| rates.last().copied().unwrap_or_default();
        report::say(&format!(
            "archiving: {:.0} rows/s, {:.0} without proof, plain SQL {:.0}",
            last(&ours),
            last(&unproved),
            last(&plain)
        ));
    }
    let shares = ours.iter().zip(&unproved).map(|(ours, unproved)| ours / unproved).collect();
    Ok(Archive { ours: median(ours), plain: median(plain), unproved: median(unproved), proved_share: median(shares) })
}

/// What one writes first: a table with the archive's indexes, and batches of 20k rows in transactions.
async fn archive_plainly(server: &Server, database: &str) -> Result<f64> {
    let mut client = data::connect(&server.url(database)).await?;
    client
        .batch_execute(
            r#"CREATE TABLE "PlainArchive" (LIKE "EventLog", "archivedAt" TIMESTAMP(3) NOT NULL DEFAULT now(), PRIMARY KEY (id, "createdAt"));
               CREATE INDEX ON "PlainArchive" ("streamId", "createdAt" DESC);
               CREATE INDEX ON "PlainArchive" ("txHash", "eventIndex")"#,
        )
        .await?;
    let due = r#"FROM "EventLog" WHERE "createdAt" < '2026-02-28 02:00:00' ORDER BY "createdAt", id LIMIT 20000"#;
    let insert = client.prepare(&format!(r#"INSERT INTO "PlainArchive" SELECT * {due}"#)).await?;
    let delete = client.prepare(&format!(r#"DELETE FROM "EventLog" WHERE id IN (SELECT id {due})"#)).await?;
    let started = Instant::now();
    let mut rows = 0;
    loop {
        let transaction = client.transaction().await?;
        transaction.execute(&insert, &[]).await?;
        let deleted = transaction.execute(&delete, &[]).await?;
        transaction.commit().await?;
        if deleted == 0 {
            return Ok(rate(rows, started.elapsed()));
        }
        rows += deleted;
    }
}

async fn archive_ours(server: &Server, database: &str, prove: bool) -> Result<f64> {
    let (run, took) = maintain(server, database, prove).await?;
    Ok(rate(run.logs_archived, took))
}

async fn maintain(server: &Server, database: &str, prove: bool) -> Result<(MaintenanceRun, Duration)> {
    let pool = data::pool(server, database).await?;
    let service = SnapshotService::new(pool.clone(), Settings::default());
    let service = if prove { service } else { service.unproved() };
    let started = Instant::now();
    let run = service.run_maintenance(Trigger::Cli.request(), NOW.parse()?, &Deadline::never()).await?;
    let took = started.elapsed();
    pool.close();
    Ok((run, took))
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
fn rate(rows: u64, took: Duration) -> f64 {
    rows as f64 / took.as_secs_f64()
}

/// Seconds of two ways of archiving the same rows.
pub(crate) struct Pair {
    pub(crate) one: f64,
    pub(crate) other: f64,
    /// The middle one of the ratios of measurements that were taken one after the other.
    pub(crate) ratio: f64,
}

/// From an EventLog that is partitioned by month, and from an ordinary one.
pub(crate) async fn archive_partitioned(server: &Server) -> Result<Pair> {
    archive_pair(server, PARTITIONED, MILLION, |_, _| 0).await
}

/// Rows whose hashes are all wrong, and rows with right ones.
pub(crate) async fn archive_wrong_hashes(server: &Server) -> Result<Pair> {
    archive_pair(server, WRONG_HASHES, MILLION, |template, due| if template == WRONG_HASHES { due } else { 0 }).await
}

/// Archives two templates by turns, each time in a database of its own. `mismatches` says how many hashes of that many due
/// rows are wrong.
async fn archive_pair(server: &Server, one: &str, other: &str, mismatches: impl Fn(&str, u64) -> u64) -> Result<Pair> {
    let mut times = [Vec::new(), Vec::new()];
    for repetition in 0..ARCHIVE_REPETITIONS {
        // Neither always comes first.
        for which in [repetition % 2, 1 - repetition % 2] {
            let template = [one, other][which];
            data::clone(server, template, "pair").await?;
            let due = count_due(server, "pair").await?;
            let (run, took) = maintain(server, "pair", true).await?;
            data::drop(server, "pair").await?;
            let found = (run.complete, run.logs_archived, run.hash_mismatches);
            if found != (true, due, mismatches(template, due)) {
                return Err(format!("{due} rows of {template} were to be archived: {run:?}").into());
            }
            times[which].push(took.as_secs_f64());
        }
        let last = |which: usize| times[which].last().copied().unwrap_or_default();
        report::say(&format!("archiving {one}: {:.2} s; {other}: {:.2} s", last(0), last(1)));
    }
    let [one, other] = times;
    let ratios = one.iter().zip(&other).map(|(one, other)| one / other).collect();
    Ok(Pair { ratio: median(ratios), one: median(one), other: median(other) })
}

async fn count_due(server: &Server, database: &str) -> Result<u64> {
    let client = data::connect(&server.url(database)).await?;
    let due = r#"SELECT count(*) FROM "EventLog" WHERE "createdAt" < '2026-02-28 02:00:00'"#;
    Ok(client.query_one(due, &[]).await?.get::<_, i64>(0).unsigned_abs())
}

/// What `migrate` and each slice send.
const LOOK_AT_HOST: &str = include_str!("../../src/store/sql/look_at_host.sql");

/// A look at the catalogue of a host with 500 further tables, the middle one of 20.
pub(crate) async fn host_look(server: &Server) -> Result<Duration> {
    report::say("making 500 tables");
    data::create_large_schema(server, "look").await?;
    let client = data::connect(&server.url("look")).await?;
    // Not prepared: the service sends it so, and it is planned each time.
    let sql = statement(LOOK_AT_HOST, &[]);
    let look = async || client.query_typed(&sql, &[]).await.map(drop).map_err(Into::into);
    let took = median_of_looks(look).await;
    drop(client);
    data::drop(server, "look").await?;
    took
}

/// How long `look` takes, the middle one of 20.
async fn median_of_looks(look: impl AsyncFn() -> Result<()>) -> Result<Duration> {
    // The first one of a connection reads the catalogue into its caches.
    look().await?;
    let mut times = Vec::new();
    for _ in 0..LOOKS {
        let started = Instant::now();
        look().await?;
        times.push(started.elapsed().as_secs_f64());
    }
    Ok(Duration::from_secs_f64(median(times)))
}

/// Rows per second into an archive of 10M rows, and into an empty one, by turns.
pub(crate) async fn archive_into_full(server: &Server) -> Result<(f64, f64)> {
    report::say("archiving 10M rows beforehand");
    data::clone(server, MILLION, "template_filled").await?;
    data::fill_archive(server, "template_filled").await?;
    let (mut full, mut empty) = (Vec::new(), Vec::new());
    for repetition in 0..ARCHIVE_REPETITIONS {
        // Neither always comes first.
        for is_full in [repetition % 2 == 0, repetition % 2 == 1] {
            let (template, rates) = if is_full { ("template_filled", &mut full) } else { (MILLION, &mut empty) };
            data::clone(server, template, "archive").await?;
            rates.push(archive_ours(server, "archive", true).await?);
            data::drop(server, "archive").await?;
        }
    }
    data::drop(server, "template_filled").await?;
    Ok((median(full), median(empty)))
}

/// Ours, and one statement that takes the same columns into the same table, by turns.
pub(crate) async fn snapshots(server: &Server) -> Result<(Duration, Duration)> {
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        data::clone(server, STREAMS, "plain").await?;
        let client = data::connect(&server.url("plain")).await?;
        let started = Instant::now();
        client
            .batch_execute(
                r#"INSERT INTO "StreamSnapshot" (id, "streamId", sender, receiver, "tokenAddress", "amountPerSecond", "totalAmount",
                       status, state, "snapshotMonth", "createdAt")
                   SELECT gen_random_uuid()::text, id, sender, receiver, "tokenAddress", div(amount::numeric, duration),
                          amount::numeric, status::text, to_json(s), '2026-05', now()
                   FROM "Stream" s"#,
            )
            .await?;
        plain.push(started.elapsed().as_secs_f64());
        drop(client);
        data::drop(server, "plain").await?;

        data::clone(server, STREAMS, "ours").await?;
        let pool = data::pool(server, "ours").await?;
        let service = SnapshotService::new(pool.clone(), Settings::default());
        let started = Instant::now();
        service.create_monthly_snapshots(Trigger::Api, NOW.parse()?, &Deadline::never()).await?;
        ours.push(started.elapsed().as_secs_f64());
        pool.close();
        data::drop(server, "ours").await?;
    }
    Ok((Duration::from_secs_f64(median(ours)), Duration::from_secs_f64(median(plain))))
}

/// Rows per second of verifying an archive, and of reading it in one go with one digest per row, by turns.
pub(crate) async fn verify(server: &Server) -> Result<(f64, f64)> {
    data::clone(server, MILLION, "verify").await?;
    maintain(server, "verify", true).await?;
    data::execute(server, "verify", "VACUUM ANALYZE").await?;
    let pool = data::pool(server, "verify").await?;
    let service = SnapshotService::new(pool.clone(), Settings::default());
    let client = data::connect(&server.url("verify")).await?;
    client.batch_execute("SET max_parallel_workers_per_gather = 0; SET jit = off").await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let started = Instant::now();
        let scan = r#"SELECT count(sha256(convert_to(a::text, 'UTF8'))) FROM "StreamArchive" a"#;
        let rows: i64 = client.query_one(scan, &[]).await?.get(0);
        bare.push(rate(rows.unsigned_abs(), started.elapsed()));
        let started = Instant::now();
        let verification =
            service.verify_archive(VerificationRequest::default(), NOW.parse()?, &Deadline::never()).await?;
        ours.push(rate(verification.rows_done, started.elapsed()));
        if verification.status != VerificationStatus::Passed {
            return Err(format!("the archive is not what was archived: {:?}", verification.breaks.first()).into());
        }
    }
    pool.close();
    drop(client);
    data::drop(server, "verify").await?;
    Ok((median(ours), median(bare)))
}

/// A run after all is done.
pub(crate) async fn nothing_to_do(server: &Server) -> Result<Duration> {
    data::clone(server, MILLION, "idle").await?;
    maintain(server, "idle", true).await?;
    // What the first run wrote is on the disk by the time that there is a second.
    for settle in ["VACUUM ANALYZE", "CHECKPOINT"] {
        data::execute(server, "idle", settle).await?;
    }
    let mut times = Vec::new();
    for _ in 0..REPETITIONS {
        times.push(maintain(server, "idle", true).await?.1.as_secs_f64());
    }
    data::drop(server, "idle").await?;
    Ok(Duration::from_secs_f64(median(times)))
}

/// Of the function `run-maintenance`, in kilobytes, at 100k, 1M and 5M rows.
pub(crate) async fn peak_memory(server: &Server) -> Result<[u64; 3]> {
    let mut peaks = [0; 3];
    for (peak, rows) in peaks.iter_mut().zip([100_000, 1_000_000, 5_000_000]) {
        report::say(&format!("memory at {rows} rows"));
        data::create(server, "memory", 20_000, rows).await?;
        let url = server.url("memory");
        let mut function =
            Function::start(binary("run-maintenance"), "run-maintenance", &[("DATABASE_URL", &url)]).await;
        function.set_timeout(Duration::from_mins(15)).await;
        let outcome = function.invoke("{}").await;
        if outcome.payload["complete"] != true {
            return Err(format!("maintenance did not end: {outcome:?}").into());
        }
        *peak = function.peak_memory_kb();
        data::drop(server, "memory").await?;
    }
    Ok(peaks)
}

/// A binary that was built beside this one.
pub(crate) fn binary(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}
