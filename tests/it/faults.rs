//! Things that go wrong in the middle of a run. After each, every event is in exactly one of the two tables, byte for byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use local_postgres::{Options, Server};
use serde_json::Value;
use snapshot_service::database::{connect_pool, migrate};
use snapshot_service::{Deadline, RunStatus, Settings, SnapshotService, Trigger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::database::HOST_SCHEMA;
use crate::support::lambda::start_function;
use crate::support::{TestDatabase, time};

const NOW: &str = "2026-05-31T02:00:00Z";

/// `rows` events over eight months, so that several workers have something to do.
async fn insert_events_over_months(database: &TestDatabase, rows: u32) {
    database.insert_events(rows, "2025-06-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET "createdAt" = timestamp '2025-06-01' + ledger % 200 * interval '1 day' + ledger * interval '1 ms'"#).await;
}

#[tokio::test]
async fn killed_at_twenty_random_moments_of_a_run_of_200_000_rows_nothing_is_lost_or_doubled() {
    const ROWS: i64 = 200_000;
    let database = TestDatabase::migrated().await;
    insert_events_over_months(&database, 200_000).await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.remember_events().await;
    // Small batches and a short lease: there is much to interrupt, and a killed run is soon taken over.
    let variables = [("DATABASE_URL", database.url.as_str()), ("BATCH_ROWS", "400"), ("LEASE_SECONDS", "1")];
    let mut kills_in_mid_run = 0;
    let mut left = ROWS;
    for _ in 0..20 {
        let mut function = start_function("run-maintenance", &variables).await;
        function.set_timeout(Duration::from_mins(15)).await;
        function.invoke_without_waiting("{}");
        // At work, then at any moment of it.
        while database.count(r#""EventLog""#).await == left && left > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..30_000))).await;
        function.kill().await;
        database.assert_nothing_lost_or_doubled().await;
        left = database.count(r#""EventLog""#).await;
        kills_in_mid_run += i32::from(left > 0);
        // The killed one's lease and its last statement end.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert!(kills_in_mid_run >= 18, "only {kills_in_mid_run} kills came before the run's end");
    let mut function = start_function("run-maintenance", &variables).await;
    function.set_timeout(Duration::from_mins(15)).await;
    let run = loop {
        let run = function.invoke("{}").await.payload;
        if run["complete"] == true {
            break run;
        }
    };
    assert!(run["attempts"].as_i64().unwrap() >= 20, "{run}");
    assert_eq!(run["logsArchived"], ROWS, "the counters are as exact as the rows: {run}");
    assert_eq!(database.count(r#""StreamArchive""#).await, ROWS);
    assert_eq!(database.count(r#""MaintenanceRun""#).await, 1, "one run went through it all");
    let indexed = "(SELECT count(*) FROM pg_index x WHERE x.indrelid = i.inhrelid) = 4";
    let partitions = format!(r#"pg_inherits i WHERE inhparent = '"StreamArchive"'::regclass AND {indexed}"#);
    assert_eq!(database.count(&partitions).await, 7, "each has its indexes");
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_server_stopped_at_once_in_mid_run_loses_nothing() {
    let folder = std::env::temp_dir().join(format!("snapshot-service-crash-{}", std::process::id()));
    let options = Options::default();
    let mut server = Some(Server::start(&folder, &options).unwrap());
    let connect =
        async |server: &Server| connect_pool(&server.url("postgres").parse().unwrap(), "test", 8).await.unwrap();
    let database = TestDatabase::adopt(server.as_ref().unwrap().url("postgres")).await;
    database.execute(HOST_SCHEMA).await;
    migrate(&database.pool).await.unwrap();
    insert_events_over_months(&database, 20_000).await;
    database.remember_events().await;
    drop(database);
    let settings = Settings { batch_rows: 100, lease: Duration::from_millis(100), ..Settings::default() };
    for _ in 0..3 {
        let running = server.take().unwrap();
        let pool = connect(&running).await;
        let service = SnapshotService::new(pool.clone(), settings.clone());
        let deadline = Deadline::never();
        let stop = async {
            let archived = || async {
                let row = pool
                    .get()
                    .await
                    .unwrap()
                    .query_one(r#"SELECT count(*) FROM snapshot_service."StreamArchive""#, &[])
                    .await;
                row.unwrap().get::<_, i64>(0)
            };
            let before = archived().await;
            while archived().await < before + 1_000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            running.stop_immediately().unwrap();
        };
        let (result, ()) = tokio::join!(service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline), stop);
        assert_eq!(result.unwrap_err().code(), "database_unavailable");
        drop(running);
        let recovered = Server::start(&folder, &options).unwrap();
        TestDatabase::adopt(recovered.url("postgres")).await.assert_nothing_lost_or_doubled().await;
        server = Some(recovered);
    }
    let recovered = server.unwrap();
    let database = TestDatabase::adopt(recovered.url("postgres")).await;
    let service = database.service();
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.complete, run.attempts, run.logs_archived), (true, 4, 20_000));
    database.assert_nothing_lost_or_doubled().await;
    drop((database, service, recovered));
    // The supervisor is still taking the server down; the folder is only its own.
    while std::fs::remove_dir_all(&folder).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where a connection is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// The server never hears of the commit.
    BeforeCommit,
    /// The server commits, but the client never hears of it.
    AfterCommit,
}

/// Passes connections on to the server at `port`, and cuts them all at the `nth` commit.
async fn proxy(port: u16, cut: Cut, nth: u32) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_port = listener.local_addr().unwrap().port();
    let (commits, is_cut) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (commits, is_cut) = (Arc::clone(&commits), Arc::clone(&is_cut));
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
                let mut after_commit = false;
                loop {
                    tokio::select! {
                        read = client.read(&mut from_client) => {
                            let Ok(1..) = read else { return };
                            let bytes = &from_client[..read.unwrap()];
                            let is_commit = bytes.windows(6).any(|word| word == b"COMMIT");
                            let is_nth = is_commit && commits.fetch_add(1, Ordering::SeqCst) + 1 == nth;
                            if is_nth && matches!(cut, Cut::BeforeCommit) {
                                is_cut.store(true, Ordering::SeqCst);
                            }
                            if is_cut.load(Ordering::SeqCst) {
                                return;
                            }
                            after_commit |= is_nth;
                            if server.write_all(bytes).await.is_err() { return }
                        }
                        read = server.read(&mut from_server) => {
                            let Ok(1..) = read else { return };
                            if after_commit {
                                is_cut.store(true, Ordering::SeqCst);
                            }
                            if is_cut.load(Ordering::SeqCst) || client.write_all(&from_server[..read.unwrap()]).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    own_port
}

#[tokio::test]
async fn a_connection_cut_between_statement_and_commit_or_between_commit_and_answer_loses_nothing() {
    let database = TestDatabase::migrated().await;
    insert_events_over_months(&database, 3_000).await;
    database.remember_events().await;
    let config: tokio_postgres::Config = database.url.parse().unwrap();
    let port = config.get_ports()[0];
    let settings = Settings { batch_rows: 100, lease: Duration::from_millis(1), ..Settings::default() };
    let mut cut_off = 0;
    for nth in [5, 12, 20, 27, 33] {
        for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
            let url = database.url.replace(&format!(":{port}/"), &format!(":{}/", proxy(port, cut, nth).await));
            assert_ne!(url, database.url);
            let pool = connect_pool(&url.parse().unwrap(), "cut", 8).await.unwrap();
            let service = SnapshotService::new(pool, settings.clone());
            let result = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await;
            cut_off += i32::from(result.is_err());
            database.assert_nothing_lost_or_doubled().await;
            if let Err(error) = result {
                assert_eq!(error.code(), "database_unavailable", "{cut:?} {error:?}");
            }
        }
    }
    assert!(cut_off >= 6, "only {cut_off} runs were cut off");
    let run = database.service().run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.complete);
    let archived: i64 = database.value(r#"SELECT sum("logsArchived")::bigint FROM "RunMonth""#).await;
    assert_eq!(archived, 3_000, "a commit that nobody heard of is counted once");
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_writer_that_inserts_old_and_new_rows_and_updates_others_during_the_run_loses_nothing() {
    let database = TestDatabase::migrated().await;
    insert_events_over_months(&database, 8_000).await;
    database.remember_events().await;
    database.execute("ALTER TABLE remembered ADD PRIMARY KEY (id)").await;
    let done = CancellationToken::new();
    let write = async |first: u32| {
        let mut client = database.client().await;
        let (mut writes, mut updated) = (0, 0);
        while !done.is_cancelled() {
            // What the host writes, and what is remembered of it, as one transaction.
            let transaction = client.transaction().await.unwrap();
            let id = format!("w{first}-{writes}");
            let day = fastrand::u32(0..360);
            transaction
                .batch_execute(&format!(
                    r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
                       VALUES ('{id}', 'create', '42', '{id}', 1, 'then', timestamp '2025-06-01' + {day} * interval '1 day');
                       INSERT INTO remembered SELECT id, row_to_json(e)::text FROM "EventLog" e WHERE id = '{id}'"#
                ))
                .await
                .unwrap();
            let target = format!("e{:06}", fastrand::u32(1..=8_000));
            updated += transaction
                .execute(
                    r#"WITH u AS (UPDATE "EventLog" e SET metadata = metadata || '+' WHERE id = $1 RETURNING e.*)
                       UPDATE remembered r SET event = row_to_json(u)::text FROM u WHERE u.id = r.id"#,
                    &[&target],
                )
                .await
                .unwrap();
            transaction.commit().await.unwrap();
            writes += 1;
        }
        (writes, updated)
    };
    let service = database.service_with_batches_of(40);
    let deadline = Deadline::never();
    let work = async {
        let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await;
        done.cancel();
        run.unwrap()
    };
    let (run, (one, updated), (two, _)) = tokio::join!(work, write(1), write(2));
    assert!(run.complete && one > 10 && two > 10 && updated > 0, "{one} and {two} writes, {updated} updates");
    database.assert_nothing_lost_or_doubled().await;
    let rest = service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline).await.unwrap();
    assert!(rest.complete);
    assert_eq!(database.count(r#""EventLog" WHERE "createdAt" < '2026-02-28 02:00:00'"#).await, 0);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_row_lock_held_throughout_is_passed_over_counted_and_left_for_later() {
    let database = TestDatabase::migrated().await;
    insert_events_over_months(&database, 2_000).await;
    database.remember_events().await;
    let mut holder = database.client().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute(r#"SELECT FROM "EventLog" WHERE ledger % 500 = 0 FOR UPDATE"#).await.unwrap();
    let service = database.service_with_batches_of(100);
    for archived in [1_996, 0] {
        let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
        assert_eq!((run.complete, run.logs_archived, run.held_back[0].rows), (true, archived, 4));
        database.assert_nothing_lost_or_doubled().await;
    }
    lock.rollback().await.unwrap();
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.logs_archived, run.held_back.len()), (4, 0));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn batches_that_time_out_are_halved_until_they_fit() {
    let database = TestDatabase::migrated().await;
    database.insert_events(64, "2026-01-01 00:00:00").await;
    database.remember_events().await;
    // 20 ms a row: 64 take more than a second, 16 do not.
    database
        .execute(
            r#"CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN OLD; END $$;
               CREATE TRIGGER dawdle BEFORE DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION dawdle()"#,
        )
        .await;
    let settings = Settings { batch_rows: 64, statement_timeout: Duration::from_millis(600), ..Settings::default() };
    let service = database.service_with(settings);
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.complete, run.logs_archived), (true, 64));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_table_lock_that_is_short_is_outlasted() {
    let database = TestDatabase::migrated().await;
    database.insert_events(64, "2026-01-01 00:00:00").await;
    database.remember_events().await;
    let mut holder = database.client().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute(r#"LOCK TABLE "EventLog" IN SHARE MODE"#).await.unwrap();
    let service = database.service_with(Settings { lock_timeout: Duration::from_millis(50), ..Settings::default() });
    let deadline = Deadline::never();
    let unlock = async {
        // Until an attempt has failed.
        while database.count(r#""MaintenanceRun" WHERE "batchRows" IS NOT NULL"#).await == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        lock.rollback().await.unwrap();
    };
    let (run, ()) = tokio::join!(service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline), unlock);
    assert_eq!(run.unwrap().logs_archived, 64);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn serialization_failures_and_deadlocks_are_retried() {
    let database = TestDatabase::migrated().await;
    database.insert_events(64, "2026-01-01 00:00:00").await;
    database.remember_events().await;
    // Sequences are not rolled back: the first three batches fail, each for another reason that may pass.
    database
        .execute(
            r#"CREATE SEQUENCE failures;
               CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN
                   CASE nextval('failures')
                       WHEN 1 THEN RAISE 'lost' USING ERRCODE = 'serialization_failure';
                       WHEN 2 THEN RAISE 'dead' USING ERRCODE = 'deadlock_detected';
                       WHEN 3 THEN RAISE 'slow' USING ERRCODE = 'lock_not_available';
                       ELSE NULL;
                   END CASE;
                   RETURN NULL;
               END $$;
               CREATE TRIGGER fail BEFORE DELETE ON "EventLog" FOR EACH STATEMENT EXECUTE FUNCTION fail()"#,
        )
        .await;
    let run = database.service().run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.complete, run.logs_archived, run.attempts), (true, 64, 1));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_full_disk_fails_the_batch_only_and_the_run_goes_on_once_there_is_room() {
    let database = TestDatabase::migrated().await;
    insert_events_over_months(&database, 2_000).await;
    database.remember_events().await;
    // Full once half of the rows are there.
    database
        .execute(
            r#"CREATE FUNCTION fill_up() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN
                   IF (SELECT count(*) > 1000 FROM "StreamArchive") THEN
                       RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
                   END IF;
                   RETURN NULL;
               END $$;
               CREATE TRIGGER fill_up AFTER DELETE ON "EventLog" FOR EACH STATEMENT EXECUTE FUNCTION fill_up()"#,
        )
        .await;
    let service = database.service_with_batches_of(100);
    for _ in 0..2 {
        let error = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap_err();
        assert_eq!(error.code(), "database_unavailable", "{error:?}");
        let run = service.find_open_maintenance_run().await.unwrap().unwrap();
        assert_eq!(run.status, RunStatus::Failed);
        assert!((900..=1_200).contains(&run.logs_archived), "{run:?}");
        database.assert_nothing_lost_or_doubled().await;
    }
    database.execute(r#"DROP TRIGGER fill_up ON "EventLog""#).await;
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.complete, run.logs_archived), (true, 2_000));
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_function_whose_run_somebody_else_holds_answers_with_that_run() {
    let database = TestDatabase::migrated().await;
    database.insert_events(64, "2026-01-01 00:00:00").await;
    database
        .execute(
            r#"INSERT INTO "MaintenanceRun" (trigger, scope, "snapshotMonth", cutoff, phase, status, "startedAt", "updatedAt",
                   "leaseHolder", token, "leaseExpiresAt", "rowsEstimated")
               VALUES ('cli', 'maintenance', '2026-05', '2026-02-28', 'archive', 'running', now(), now(), 'somebody',
                   gen_random_uuid(), now() AT TIME ZONE 'UTC' + interval '1 hour', 200);
               INSERT INTO "RunMonth" ("runId", month, "logsArchived") SELECT id, '2026-01', 50 FROM "MaintenanceRun""#,
        )
        .await;
    let variables = [("DATABASE_URL", database.url.as_str())];
    let id: String = database.value(r#"SELECT id::text FROM "MaintenanceRun""#).await;

    let mut http = start_function("trigger-maintenance", &variables).await;
    let refused = http.invoke(&crate::support::lambda::sample_event("trigger-maintenance")).await;
    assert_eq!(refused.status(), 409);
    let body = refused.body();
    assert_eq!((&body["success"], &body["code"]), (&Value::Bool(false), &"maintenance_under_way".into()));
    assert_eq!((body["data"]["id"].as_str(), body["data"]["percent"].as_f64()), (Some(id.as_str()), Some(25.0)));

    // Another run is in the way of the period's: it is waited for, and then the schedule hears that it is not done.
    let mut scheduled = start_function("run-maintenance", &variables).await;
    scheduled.set_timeout(Duration::from_secs(11)).await;
    let event = crate::support::lambda::sample_event("run-maintenance");
    let outcome = scheduled.invoke(&event).await;
    assert!(outcome.failed, "{outcome:?}");
    assert_eq!(outcome.payload["errorType"], "maintenance_under_way");

    // A duplicate delivery for the run that is under way is no failure.
    database.execute(r#"UPDATE "MaintenanceRun" SET trigger = 'schedule', period = '2026-06'"#).await;
    let outcome = scheduled.invoke(&event).await;
    assert!(!outcome.failed, "{outcome:?}");
    assert_eq!(
        (outcome.payload["id"].as_str(), outcome.payload["complete"].as_bool()),
        (Some(id.as_str()), Some(false))
    );
    assert_eq!(database.count(r#""StreamArchive""#).await, 0);
}
