//! Archiving from logs that are not like the one that the service was built on (`host-cases.md`, parts A, B and D).

use std::sync::atomic::{AtomicBool, Ordering};

use snapshot_service::database::{connect_pool, migrate};
use snapshot_service::{
    ArchiveFilter, Deadline, HeldBack, HeldBackReason, MaintenanceRun, PageRequest, RestoreRequest, Settings,
    SnapshotService, Trigger, VerificationRequest,
};

use crate::support::lambda::start_function;
use crate::support::{TestDatabase, stream, time};

const NOW: &str = "2026-05-31T02:00:00Z";
/// Rows that are due at `NOW` with a retention of three months.
const DUE: &str = r#""EventLog" WHERE "createdAt" < '2026-02-28 02:00:00'"#;

/// 40 streams, `c1` to `c40` with the contract ids `1` to `40`, and 4,000 events evenly over six months, half of them due.
async fn fill(database: &TestDatabase) {
    database
        .execute(
            r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount)
               SELECT 'c' || i, i::text, 'stx' || i, 'S', 'R', '1000' FROM generate_series(1, 40) i;
               INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'e' || lpad(i::text, 5, '0'), CASE WHEN i % 10 = 0 THEN 'create' ELSE 'withdraw' END, (i % 40 + 1)::text,
                      'tx' || i, i, 'then', timestamp '2025-11-30 02:00:00' + i * interval '65 minutes'
               FROM generate_series(1, 4000) i"#,
        )
        .await;
    database.remember_events().await;
}

async fn filled() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    fill(&database).await;
    database
}

async fn maintain(database: &TestDatabase) -> snapshot_service::Result<MaintenanceRun> {
    let settings = Settings { batch_rows: 300, ..Settings::default() };
    database.service_with(settings).run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await
}

fn held(run: &MaintenanceRun, reason: HeldBackReason) -> Option<&HeldBack> {
    run.held_back.iter().find(|held| held.reason == reason)
}

/// Checks that the run is complete, and that what is due and left is what it says that it holds back.
async fn assert_complete(database: &TestDatabase, run: &MaintenanceRun) {
    assert!(run.complete, "{run:?}");
    let left = database.count(DUE).await;
    assert_eq!(left, run.held_back.iter().map(|held| i64::try_from(held.rows).unwrap()).sum::<i64>(), "{run:?}");
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_log_that_another_table_references_stays_and_the_hosts_rows_are_untouched() {
    for action in
        ["CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION", "NO ACTION DEFERRABLE INITIALLY DEFERRED"]
    {
        let database = filled().await;
        database
            .execute(&format!(
                r#"CREATE TABLE "Notification" (id INT PRIMARY KEY, "eventId" TEXT REFERENCES "EventLog" ON DELETE {action});
                   INSERT INTO "Notification" SELECT i, 'e' || lpad(i::text, 5, '0') FROM generate_series(1, 4000, 4) i;
                   CREATE TABLE theirs AS SELECT * FROM "Notification""#
            ))
            .await;
        let due = database.count(DUE).await;
        let wanted = database.count(&format!(r#"{DUE} AND id IN (SELECT "eventId" FROM "Notification")"#)).await;
        let run = maintain(&database).await.unwrap();
        let referenced = held(&run, HeldBackReason::Referenced).unwrap();
        assert_eq!(i64::try_from(referenced.rows).unwrap(), wanted, "{action}");
        assert_eq!(i64::try_from(run.logs_archived).unwrap(), due - wanted, "{action}");
        assert!(referenced.objects[0].contains("Notification_eventId_fkey"), "{referenced:?}");
        assert!(referenced.message.contains("\"Notification\""), "{referenced:?}");
        assert_eq!(referenced.ids.len(), usize::try_from(wanted).unwrap().min(1000));
        assert_complete(&database, &run).await;
        assert_eq!(database.count(r#"(TABLE theirs EXCEPT TABLE "Notification") gone"#).await, 0, "{action}");
    }
}

#[tokio::test]
async fn a_key_of_two_columns_and_one_of_a_partitioned_table_hold_logs_too() {
    let database = filled().await;
    database
        .execute(
            r#"CREATE SCHEMA billing;
               CREATE TABLE billing."Invoice" (id INT, tx TEXT, place INT, at DATE,
                   FOREIGN KEY (tx, place) REFERENCES "EventLog" ("txHash", "eventIndex") ON DELETE CASCADE) PARTITION BY RANGE (at);
               CREATE TABLE billing.invoice_old PARTITION OF billing."Invoice" FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
               INSERT INTO billing."Invoice" SELECT i, 'tx' || i, 0, '2026-01-01' FROM generate_series(1, 100) i;
               INSERT INTO billing."Invoice" VALUES (0, NULL, 0, '2026-01-01'), (0, 'tx1', NULL, '2026-01-01')"#,
        )
        .await;
    let run = maintain(&database).await.unwrap();
    let referenced = held(&run, HeldBackReason::Referenced).unwrap();
    assert_eq!(referenced.rows, 100);
    assert!(referenced.message.contains("billing.\"Invoice\""), "{referenced:?}");
    assert_complete(&database, &run).await;
    assert_eq!(database.count(r#"billing."Invoice""#).await, 102);
}

#[tokio::test]
async fn a_reference_by_another_type_or_collation_holds_its_log() {
    for column in [r#"TEXT COLLATE "C""#, "VARCHAR(100)", "CHAR(6)", "event_key"] {
        let database = filled().await;
        database
            .execute(&format!(
                r#"CREATE DOMAIN event_key AS TEXT COLLATE "POSIX";
                   CREATE TABLE "Notification" ("eventId" {column} REFERENCES "EventLog" ON DELETE CASCADE);
                   INSERT INTO "Notification" SELECT 'e' || lpad(i::text, 5, '0') FROM generate_series(1, 100) i"#
            ))
            .await;
        let run = maintain(&database).await.unwrap();
        assert_eq!(held(&run, HeldBackReason::Referenced).map(|held| held.rows), Some(100), "{column}");
        assert_eq!(database.count(r#""Notification""#).await, 100, "{column}");
        assert_complete(&database, &run).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_that_is_inserted_while_batches_run_is_kept_or_refused_and_never_lost() {
    let database = filled().await;
    database
        .execute(
            r#"CREATE TABLE "Notification" (id SERIAL, "eventId" TEXT NOT NULL REFERENCES "EventLog" ON DELETE CASCADE);
               CREATE INDEX ON "Notification" ("eventId")"#,
        )
        .await;
    let done = AtomicBool::new(false);
    let (mut kept, mut refused) = (0, 0);
    let write = async {
        let client = database.client().await;
        while !done.load(Ordering::Relaxed) {
            let id = format!("e{:05}", fastrand::u32(1..=1900));
            match client.execute(r#"INSERT INTO "Notification" ("eventId") VALUES ($1)"#, &[&id]).await {
                Ok(_) => kept += 1,
                // The log is in the archive: the host's ordinary violation.
                Err(error) => {
                    assert_eq!(error.code().unwrap().code(), "23503", "{error:?}");
                    refused += 1;
                }
            }
        }
    };
    let work = async {
        let settings = Settings { batch_rows: 20, ..Settings::default() };
        let run = database.service_with(settings).archive_old_logs_after_snapshots().await;
        done.store(true, Ordering::Relaxed);
        run
    };
    let (run, ()) = tokio::join!(work, write);
    assert!(run.complete && kept > 0, "{kept} kept, {refused} refused");
    assert_eq!(database.count(r#""Notification""#).await, kept, "no row of the host's went with a log");
    assert_complete(&database, &run).await;
}

/// Maintenance of a service whatever its settings.
trait Maintain {
    async fn archive_old_logs_after_snapshots(&self) -> MaintenanceRun;
}

impl Maintain for snapshot_service::SnapshotService {
    async fn archive_old_logs_after_snapshots(&self) -> MaintenanceRun {
        self.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap()
    }
}

/// Makes `EventLog` anew as a partitioned table with the same columns.
async fn partition(database: &TestDatabase, key: &str, by: &str, partitions: &str) {
    database
        .execute(&format!(
            r#"ALTER TABLE "EventLog" RENAME TO flat;
               CREATE TABLE "EventLog" (LIKE flat INCLUDING DEFAULTS, PRIMARY KEY ({key})) PARTITION BY {by};
               {partitions}
               CREATE INDEX ON "EventLog" ("createdAt");
               CREATE INDEX ON "EventLog" ("streamId", "createdAt" DESC);
               INSERT INTO "EventLog" SELECT * FROM flat;
               DROP TABLE flat"#
        ))
        .await;
}

#[tokio::test]
async fn exactly_the_due_rows_that_nobody_holds_leave_a_partitioned_log_of_any_kind() {
    let weeks = |table: &str| {
        let weeks = (0..40).map(|week| {
            format!(
                r"CREATE TABLE {table}_{week} PARTITION OF {table} FOR VALUES
                   FROM (timestamp '2025-11-24' + {week} * interval '7 days') TO (timestamp '2025-11-24' + ({week} + 1) * interval '7 days');"
            )
        });
        weeks.collect::<String>()
    };
    let hashes = |table: &str, parent: &str| {
        let each = (0..4).map(|rest| {
            format!("CREATE TABLE {table}_{rest} PARTITION OF {parent} FOR VALUES WITH (MODULUS 4, REMAINDER {rest});")
        });
        each.collect::<String>()
    };
    let by_week = weeks(r#""EventLog""#).replace(r#"CREATE TABLE "EventLog"_"#, "CREATE TABLE log_");
    let by_hash = hashes("log", r#""EventLog""#);
    let by_type = r#"CREATE TABLE log_create PARTITION OF "EventLog" FOR VALUES IN ('create');
                     CREATE TABLE log_rest PARTITION OF "EventLog" DEFAULT;"#;
    let two_levels = format!(
        r#"CREATE TABLE log_old PARTITION OF "EventLog" FOR VALUES FROM (MINVALUE) TO ('2026-01-10 12:00:00') PARTITION BY HASH (id);
           {} CREATE TABLE log_new PARTITION OF "EventLog" DEFAULT;"#,
        hashes("log_old", "log_old")
    );
    for (kind, key, by, partitions) in [
        ("range", r#"id, "createdAt""#, r#"RANGE ("createdAt")"#, by_week.as_str()),
        ("hash", "id", "HASH (id)", by_hash.as_str()),
        ("list", r#"id, "eventType""#, r#"LIST ("eventType")"#, by_type),
        ("two levels", r#"id, "createdAt""#, r#"RANGE ("createdAt")"#, two_levels.as_str()),
        ("of a stream", r#""streamId", id"#, r#"HASH ("streamId")"#, by_hash.as_str()),
    ] {
        let database = TestDatabase::of_host().await;
        fill(&database).await;
        partition(&database, key, by, partitions).await;
        migrate(&database.pool).await.unwrap();
        let service = database.service();
        service.hold_stream(&stream("7"), "a case", "ann").await.unwrap();
        let on_hold = database.count(&format!(r#"{DUE} AND "streamId" = '7'"#)).await;
        let due = database.count(DUE).await;
        let run = maintain(&database).await.unwrap();
        assert_eq!(i64::try_from(run.logs_archived).unwrap(), due - on_hold, "{kind}");
        assert_eq!(i64::try_from(held(&run, HeldBackReason::LegalHold).unwrap().rows).unwrap(), on_hold, "{kind}");
        assert_complete(&database, &run).await;
        assert_eq!(database.count(r#""StreamArchive" WHERE "streamId" = '7'"#).await, 0, "{kind}");
        assert_eq!(database.count(r#""StreamArchive" WHERE "createdAt" >= '2026-02-28 02:00:00'"#).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn no_statement_of_a_batch_reads_partitions_that_it_need_not() {
    let database = TestDatabase::of_host().await;
    fill(&database).await;
    let months = (0..8).map(|month| {
        format!(
            r#"CREATE TABLE log_{month} PARTITION OF "EventLog" FOR VALUES
               FROM (timestamp '2025-11-01' + {month} * interval '1 month') TO (timestamp '2025-11-01' + ({month} + 1) * interval '1 month');"#
        )
    });
    partition(&database, r#"id, "createdAt""#, r#"RANGE ("createdAt")"#, &months.collect::<String>()).await;
    migrate(&database.pool).await.unwrap();
    let scans = "SELECT seq_scan FROM pg_stat_all_tables WHERE relname = 'log_5'";
    // A session tells what it has read when it ends, at the latest: those that made the indexes, too.
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let ender = TestDatabase::adopt(database.url.clone()).await;
    ender.execute(&format!("SELECT pg_terminate_backend(pid) {others}")).await;
    while ender.value::<i64>(&format!("SELECT count(*) {others}")).await > 0 {
        tokio::task::yield_now().await;
    }
    let before: i64 = ender.value(scans).await;
    let pool = connect_pool(&database.url.parse().unwrap(), "measured", 4).await.unwrap();
    let service = SnapshotService::new(pool.clone(), Settings { batch_rows: 300, ..Settings::default() });
    let run = service.archive_old_logs_after_snapshots().await;
    assert!(run.complete && run.logs_archived > 1000);
    pool.close();
    while database.count("pg_stat_activity WHERE application_name = 'snapshot-service/measured'").await > 0 {
        tokio::task::yield_now().await;
    }
    // April is not due: what is read of it is the newest row, which may be a chain's head, by an index.
    let read = database.value::<i64>(scans).await - before;
    assert_eq!(read, 0, "a partition was read from end to end");
}

#[tokio::test]
async fn a_trigger_or_rule_that_keeps_rows_is_named_before_the_first_row_and_snapshots_are_taken() {
    const FUNCTION: &str = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN";
    for (name, sql) in [
        (
            "keep_logs",
            format!(
                r#"{FUNCTION} RETURN NULL; END $$;
            CREATE TRIGGER keep_logs BEFORE DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION keep()"#
            ),
        ),
        (
            "raise_logs",
            format!(
                r#"{FUNCTION} RAISE EXCEPTION 'append only'; END $$;
            CREATE TRIGGER raise_logs BEFORE DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION keep()"#
            ),
        ),
        (
            "raise_once",
            format!(
                r#"{FUNCTION} RAISE EXCEPTION 'append only' USING ERRCODE = 'restrict_violation'; END $$;
            CREATE TRIGGER raise_once BEFORE DELETE ON "EventLog" FOR EACH STATEMENT EXECUTE FUNCTION keep()"#
            ),
        ),
        (
            "raise_late",
            format!(
                r#"{FUNCTION} RAISE EXCEPTION 'append only'; END $$;
            CREATE CONSTRAINT TRIGGER raise_late AFTER DELETE ON "EventLog" DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION keep()"#
            ),
        ),
        (
            "keep_some",
            format!(
                r#"{FUNCTION} IF OLD."eventType" = 'create' THEN RETURN NULL; END IF; RETURN OLD; END $$;
            CREATE TRIGGER keep_some BEFORE DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION keep()"#
            ),
        ),
        ("keep_rule", r#"CREATE RULE keep_rule AS ON DELETE TO "EventLog" DO INSTEAD NOTHING"#.into()),
        (
            "some_rule",
            r#"CREATE RULE some_rule AS ON DELETE TO "EventLog" WHERE OLD.ledger < 10 DO INSTEAD NOTHING"#.into(),
        ),
    ] {
        let database = filled().await;
        database.execute(&sql).await;
        for _ in 0..2 {
            let error = maintain(&database).await.unwrap_err();
            assert_eq!(error.code(), "host_refuses", "{name}: {error:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(database.count(r#""StreamSnapshot""#).await, 40, "{name}");
        assert_eq!(database.count(r#""StreamArchive""#).await, 0, "{name}");
        database.assert_nothing_lost_or_doubled().await;
    }
}

#[tokio::test]
async fn a_trigger_that_puts_a_log_back_is_named_and_no_log_is_there_twice() {
    for returned in ["OLD", "NULL"] {
        let timing = if returned == "OLD" { "BEFORE" } else { "AFTER" };
        let database = filled().await;
        database
            .execute(&format!(
                r#"CREATE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                       INSERT INTO again VALUES (OLD.*); RETURN {returned};
                   END $$;
                   CREATE VIEW again AS SELECT * FROM "EventLog";
                   CREATE CONSTRAINT TRIGGER put_back_late AFTER DELETE ON "EventLog" DEFERRABLE INITIALLY DEFERRED
                   FOR EACH ROW EXECUTE FUNCTION put_back();
                   CREATE TRIGGER put_back {timing} DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION put_back();
                   ALTER TABLE "EventLog" DISABLE TRIGGER {}"#,
                if returned == "OLD" { "put_back" } else { "put_back_late" }
            ))
            .await;
        let error = maintain(&database).await.unwrap_err();
        assert_eq!(error.code(), "host_refuses", "{error:?}");
        assert!(error.to_string().contains("put_back"), "{error}");
        assert_eq!(database.count(r#""StreamSnapshot""#).await, 40);
        database.assert_nothing_lost_or_doubled().await;
    }
}

/// Makes `EventLog` a partition of a table of the host's.
const BELOW_ANOTHER: &str = r#"
    UPDATE "EventLog" SET "ledgerClosedAt" = '2026';
    CREATE TABLE "ChainEvent" (LIKE "EventLog" INCLUDING DEFAULTS) PARTITION BY LIST ("ledgerClosedAt");
    ALTER TABLE "EventLog" DROP CONSTRAINT "EventLog_pkey";
    ALTER TABLE "EventLog" ADD CONSTRAINT "EventLog_pkey" PRIMARY KEY (id, "ledgerClosedAt"), ADD UNIQUE (id);
    ALTER TABLE "ChainEvent" ADD PRIMARY KEY (id, "ledgerClosedAt");
    ALTER TABLE "ChainEvent" ATTACH PARTITION "EventLog" FOR VALUES IN ('2026');
    DROP TABLE IF EXISTS remembered;"#;

#[tokio::test]
async fn keys_triggers_and_publications_of_a_table_above_the_log_count_as_its_own() {
    for action in ["CASCADE", "SET NULL", "NO ACTION"] {
        let database = filled().await;
        database
            .execute(&format!(
                r#"{BELOW_ANOTHER}
                   CREATE TABLE note (i TEXT, t TEXT, FOREIGN KEY (i, t) REFERENCES "ChainEvent" (id, "ledgerClosedAt") ON DELETE {action});
                   INSERT INTO note SELECT id, "ledgerClosedAt" FROM "EventLog" WHERE id <= 'e00500'"#
            ))
            .await;
        migrate(&database.pool).await.unwrap();
        database.remember_events().await;
        let run = maintain(&database).await.unwrap();
        assert_eq!(held(&run, HeldBackReason::Referenced).map(|held| held.rows), Some(500), "{action}");
        assert_eq!(database.count("note WHERE i IS NOT NULL").await, 500, "{action}");
        assert_complete(&database, &run).await;
    }
    for (sql, named) in [
        (
            r#"CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
               CREATE TRIGGER keep_all BEFORE DELETE ON "ChainEvent" FOR EACH ROW EXECUTE FUNCTION keep()"#,
            "keep_all",
        ),
        (
            r#"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'append only'; END $$;
               CREATE TRIGGER refuse_all AFTER DELETE ON "ChainEvent" FOR EACH ROW EXECUTE FUNCTION refuse()"#,
            "refuse_all",
        ),
        (
            r#"ALTER TABLE "EventLog" REPLICA IDENTITY NOTHING; CREATE PUBLICATION above FOR TABLE "ChainEvent""#,
            "REPLICA IDENTITY FULL",
        ),
    ] {
        let database = filled().await;
        database.execute(BELOW_ANOTHER).await;
        database.execute(sql).await;
        database.remember_events().await;
        let error = maintain(&database).await.unwrap_err();
        assert_eq!(error.code(), "host_refuses", "{named}: {error:?}");
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(database.count(r#""StreamSnapshot""#).await, 40, "{named}");
        database.assert_nothing_lost_or_doubled().await;
    }
}

#[tokio::test]
async fn a_publication_with_which_postgresql_deletes_no_log_is_named() {
    for sql in [
        r#"CREATE PUBLICATION narrow FOR TABLE "EventLog" WHERE ("eventType" = 'create')"#,
        r#"CREATE PUBLICATION narrow FOR TABLE "EventLog" ("eventType", ledger)"#,
        r#"ALTER TABLE "EventLog" REPLICA IDENTITY FULL; CREATE PUBLICATION narrow FOR TABLE "EventLog" (id, ledger)"#,
        r#"ALTER TABLE "EventLog" DROP CONSTRAINT "EventLog_pkey", ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED;
           CREATE PUBLICATION narrow FOR ALL TABLES"#,
    ] {
        let database = filled().await;
        let version: i32 = database.value("SELECT current_setting('server_version_num')::int").await;
        if version < 150_000 && sql.contains("\"EventLog\" (") | sql.contains("WHERE") {
            // Such publications came with PostgreSQL 15.
            continue;
        }
        database.execute(sql).await;
        let error = maintain(&database).await.unwrap_err();
        assert_eq!(error.code(), "host_refuses", "{sql}: {error:?}");
        assert!(error.to_string().contains("REPLICA IDENTITY"), "{sql}: {error}");
        assert_eq!(database.count(r#""StreamSnapshot""#).await, 40, "{sql}");
        assert_eq!(database.count(r#""StreamArchive""#).await, 0, "{sql}");
    }
}

#[tokio::test]
async fn row_security_on_the_services_own_tables_is_refused_by_name_and_no_hold_is_overlooked() {
    for table in ["LegalHold", "RestoredLog", "StreamArchive", "StreamSnapshot"] {
        let database = filled().await;
        database.service().hold_stream(&stream("7"), "a case", "ann").await.unwrap();
        database.execute(&format!(r#"ALTER TABLE "{table}" ENABLE ROW LEVEL SECURITY"#)).await;
        let maintainer = crate::roles::login(&database, "guest", crate::roles::MAINTAIN).await;
        let error = maintain(&maintainer).await.unwrap_err();
        assert_eq!(error.code(), "rows_hidden", "{table}: {error:?}");
        assert!(error.to_string().contains(table), "{error}");
        assert_eq!(database.count(r#""StreamArchive""#).await, 0, "{table}");
        let read = maintainer
            .service()
            .list_stream_events(&stream("7"), &ArchiveFilter::default(), &PageRequest::first())
            .await;
        if table.starts_with("Stream") {
            assert_eq!(read.unwrap_err().code(), "rows_hidden", "{table}");
        }
        let found = maintainer.service().inspect_host().await.unwrap();
        database.execute(found[0].cure.as_ref().unwrap()).await;
        let run = maintain(&maintainer).await.unwrap();
        assert_eq!(database.count(r#""StreamArchive" WHERE "streamId" = '7'"#).await, 0, "{table}");
        assert_complete(&database, &run).await;
    }
}

#[tokio::test]
async fn a_trigger_that_alters_or_keeps_what_is_archived_is_named_and_the_batch_undone() {
    for (trigger, body) in [
        (r#"BEFORE INSERT ON "StreamArchive" FOR EACH ROW"#, "NEW.sender := 'x'; RETURN NEW;"),
        (
            r#"AFTER INSERT ON "StreamArchive" FOR EACH ROW"#,
            r#"UPDATE "StreamArchive" SET sender = 'x' WHERE id = NEW.id; RETURN NULL;"#,
        ),
        (
            r#"AFTER INSERT ON "StreamArchive_2026_01" FOR EACH ROW"#,
            r#"DELETE FROM "StreamArchive" WHERE id = NEW.id; RETURN NULL;"#,
        ),
        (r#"BEFORE INSERT ON "StreamArchive_2026_01" FOR EACH ROW"#, "RETURN NULL;"),
        (r#"BEFORE INSERT ON "StreamArchive_2026_01" FOR EACH ROW"#, "RAISE 'no';"),
    ] {
        let database = filled().await;
        database
            .execute(&format!(
                r"SELECT stream_archive_create_partition('2026-01-01');
                   CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
                   CREATE TRIGGER touch {trigger} EXECUTE FUNCTION touch()"
            ))
            .await;
        let found = database.service().inspect_host().await.unwrap();
        assert!(found.iter().any(|found| found.code == "own_trigger" && found.object.contains("touch")), "{found:?}");
        let error = maintain(&database).await.unwrap_err();
        assert_eq!(error.code(), "host_refuses", "{trigger}: {error:?}");
        assert!(error.to_string().contains("of \"StreamArchive"), "{error}");
        assert_eq!(database.count(r#""StreamSnapshot""#).await, 40, "{trigger}");
        database.assert_nothing_lost_or_doubled().await;
    }
}

#[tokio::test]
async fn a_trigger_that_puts_settled_copies_back_is_named() {
    let database = filled().await;
    maintain(&database).await.unwrap();
    database
        .execute(
            r#"CREATE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   INSERT INTO "EventLog" SELECT OLD.*; RETURN NULL;
               END $$;
               CREATE TRIGGER put_back AFTER DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION put_back()"#,
        )
        .await;
    for prefix in ["", "again-"] {
        database
            .execute(&format!(
                r#"ALTER TABLE "EventLog" DISABLE TRIGGER put_back; DELETE FROM "EventLog" WHERE ledger < 10;
                   ALTER TABLE "EventLog" ENABLE TRIGGER put_back;
                   INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", "createdAt")
                   SELECT '{prefix}' || id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", "createdAt"
                   FROM "StreamArchive" WHERE ledger < 10"#
            ))
            .await;
        let error = maintain(&database).await.unwrap_err();
        assert!(error.code() == "host_refuses" && error.to_string().contains("put_back"), "{prefix}: {error:?}");
    }
}

#[tokio::test]
async fn the_limit_on_rows_counts_those_that_would_move() {
    let database = filled().await;
    database
        .execute(
            r#"CREATE TABLE note (log TEXT REFERENCES "EventLog"); CREATE INDEX ON note (log);
               INSERT INTO note SELECT id FROM "EventLog" WHERE ledger < 1950"#,
        )
        .await;
    let settings = |most| Settings { max_archive_rows: Some(most), ..Settings::default() };
    let service = database.service_with(settings(40));
    let error = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "too_many_rows");
    let run = database.service_with(settings(100)).archive_old_logs_after_snapshots().await;
    assert_complete(&database, &run).await;
}

#[tokio::test]
async fn an_event_trigger_that_keeps_the_archive_from_getting_a_month_is_named() {
    let database = filled().await;
    database
        .execute(
            r"CREATE FUNCTION freeze_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'frozen'; END $$;
               CREATE EVENT TRIGGER freeze_ddl ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION freeze_ddl()",
        )
        .await;
    let error = maintain(&database).await.unwrap_err();
    database.execute("DROP EVENT TRIGGER freeze_ddl").await;
    assert!(error.code() == "host_refuses" && error.to_string().contains("event trigger freeze_ddl"), "{error:?}");
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 40);
}

#[tokio::test]
async fn values_of_the_hosts_types_are_kept_as_their_types_write_them() {
    let database = TestDatabase::of_host().await;
    fill(&database).await;
    database
        .execute(
            r#"CREATE TYPE mood AS ENUM ('sad', 'ok');
               CREATE FUNCTION mood_label(mood) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''mood''::text';
               CREATE CAST (mood AS text) WITH FUNCTION mood_label(mood) AS ASSIGNMENT;
               CREATE DOMAIN ts AS timestamp(3); CREATE DOMAIN ts2 AS ts; CREATE DOMAIN whole AS int; CREATE DOMAIN number AS whole;
               ALTER TABLE "EventLog" ADD m mood DEFAULT 'sad', ADD many mood[] DEFAULT '{ok,sad,NULL}', ADD none mood,
                   ADD src regclass DEFAULT '"Stream"'::regclass, ADD kind regtype[] DEFAULT '{mood}',
                   ALTER "createdAt" DROP DEFAULT, ALTER "createdAt" TYPE ts2, ALTER ledger TYPE number,
                   ALTER "eventIndex" DROP DEFAULT, ALTER "eventIndex" TYPE number;
               UPDATE "EventLog" SET m = 'ok' WHERE ledger % 2 = 0; DROP TABLE remembered"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    database.remember_events().await;
    let run = maintain(&database).await.unwrap();
    assert!(run.logs_archived > 1900);
    assert_complete(&database, &run).await;
    let kept: (i64, i64) = (
        database.count(r#""StreamArchive" WHERE m = CASE ledger % 2 WHEN 0 THEN 'ok' ELSE 'sad' END"#).await,
        database.count(r#""StreamArchive" WHERE none IS NULL AND many::text = '{ok,sad,NULL}'"#).await,
    );
    assert_eq!(kept, (i64::try_from(run.logs_archived).unwrap(), i64::try_from(run.logs_archived).unwrap()));
    // Neither renames nor restores disturb them.
    database.execute(r#"ALTER TABLE "Stream" RENAME TO streams; ALTER TABLE streams RENAME TO "Stream""#).await;
    let request = RestoreRequest::new(Some(stream("7")), None, None, None).unwrap();
    let run = database.service().restore(Trigger::Cli, &request, time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.logs_restored > 40 && run.conflicts == 0, "{run:?}");
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_trigger_that_lets_rows_go_is_no_obstacle() {
    let database = filled().await;
    database
        .execute(
            r#"CREATE TABLE audit (id TEXT);
               CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (OLD.id); RETURN OLD; END $$;
               CREATE TRIGGER audit_first BEFORE DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION audit();
               CREATE TRIGGER audit_then AFTER DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION audit();
               CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
               CREATE TRIGGER refuse BEFORE DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION refuse();
               ALTER TABLE "EventLog" DISABLE TRIGGER refuse"#,
        )
        .await;
    let run = maintain(&database).await.unwrap();
    assert_complete(&database, &run).await;
    assert_eq!(database.count("audit").await, 2 * i64::try_from(run.logs_archived).unwrap());
}

#[tokio::test]
async fn a_log_that_cannot_be_worked_with_is_refused_by_its_name_and_snapshots_are_taken() {
    for (code, object, sql) in [
        (
            "a view",
            "\"EventLog\"",
            r#"ALTER TABLE "EventLog" RENAME TO log; CREATE VIEW "EventLog" AS SELECT * FROM log"#,
        ),
        ("inherited", "\"EventLog\"", r#"CREATE TABLE log_more () INHERITS ("EventLog")"#),
        (
            "references itself",
            "\"EventLog_previous_fkey\"",
            r#"ALTER TABLE "EventLog" ADD previous TEXT;
               ALTER TABLE "EventLog" ADD CONSTRAINT "EventLog_previous_fkey" FOREIGN KEY (previous) REFERENCES "EventLog""#,
        ),
        ("no key", "\"EventLog\"", r#"ALTER TABLE "EventLog" DROP CONSTRAINT "EventLog_pkey""#),
        (
            "ids that are missing",
            "\"EventLog\"",
            r#"ALTER TABLE "EventLog" DROP CONSTRAINT "EventLog_pkey", ALTER id DROP NOT NULL, ADD UNIQUE (id)"#,
        ),
    ] {
        let database = filled().await;
        database.execute(sql).await;
        if code == "references itself" {
            migrate(&database.pool).await.unwrap();
        }
        let error = maintain(&database).await.unwrap_err();
        assert_eq!(error.code(), "host_refuses", "{code}: {error:?}");
        assert!(error.to_string().contains(object), "{code}: {error}");
        assert_eq!(database.count(r#""StreamSnapshot""#).await, 40, "{code}");
        assert_eq!(database.count(r#""StreamArchive""#).await, 0, "{code}");
    }
}

#[tokio::test]
async fn what_the_host_changes_between_two_batches_is_seen_by_the_next() {
    let database = filled().await;
    let service = database.service_with(Settings { batch_rows: 100, workers: 1, ..Settings::default() });
    let at_once = Deadline::after(std::time::Duration::ZERO);
    let slice = || service.run_maintenance(Trigger::Cli.request(), time(NOW), &at_once);
    while slice().await.unwrap().logs_archived < 200 {}
    database.execute(r#"CREATE RULE keep_rule AS ON DELETE TO "EventLog" DO INSTEAD NOTHING"#).await;
    assert_eq!(slice().await.unwrap_err().code(), "host_refuses");
    database
        .execute(
            r#"DROP RULE keep_rule ON "EventLog";
               CREATE TABLE "Late" ("eventId" TEXT REFERENCES "EventLog" ON DELETE CASCADE);
               INSERT INTO "Late" SELECT id FROM "EventLog" WHERE "createdAt" < '2026-02-28' LIMIT 50"#,
        )
        .await;
    let run = maintain(&database).await.unwrap();
    assert_eq!(held(&run, HeldBackReason::Referenced).unwrap().rows, 50);
    assert_eq!(database.count(r#""Late""#).await, 50);
    assert_complete(&database, &run).await;
}

#[tokio::test]
async fn times_that_cannot_be_never_move_are_counted_and_do_not_protect_the_wrong_head() {
    let database = filled().await;
    database
        .execute(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt", entry_hash)
               VALUES ('never', 'create', '1', 'n1', 1, 'then', '-infinity', 'h1'), ('bc', 'create', '1', 'n2', 1, 'then', '0044-03-15 BC', 'h2'),
                      ('forever', 'create', '1', 'n3', 1, 'then', 'infinity', 'h3'), ('late', 'create', '1', 'n4', 1, 'then', '52026-01-01', 'h4'),
                      ('edge', 'create', '1', 'n5', 1, 'then', '10000-01-01', 'h5');
               ALTER TABLE "EventLog" ALTER "createdAt" DROP NOT NULL;
               INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               VALUES ('unknown', 'create', '1', 'n6', 1, 'then', NULL);
               DELETE FROM "EventLog" WHERE "createdAt" BETWEEN '2026-02-28' AND '9999-12-31';
               UPDATE "EventLog" SET entry_hash = 'h' || id WHERE id LIKE 'e0%';
               DROP TABLE remembered"#,
        )
        .await;
    database.remember_events().await;
    let newest: String = database
        .value(r#"SELECT id FROM "EventLog" WHERE "createdAt" < '2030-01-01' ORDER BY "createdAt" DESC LIMIT 1"#)
        .await;
    let run = maintain(&database).await.unwrap();
    let out_of_range = held(&run, HeldBackReason::TimeOutOfRange).unwrap();
    assert_eq!(out_of_range.rows, 6);
    assert_eq!(out_of_range.ids, ["never", "bc", "edge", "late", "forever", "unknown"]);
    let page = database
        .service()
        .list_stream_events(&stream("1"), &ArchiveFilter::default(), &PageRequest::first())
        .await
        .unwrap();
    assert_eq!(page.left_out, 6);
    assert_eq!(held(&run, HeldBackReason::ChainHead).unwrap().ids, [newest]);
    assert!(run.complete);
    database.assert_nothing_lost_or_doubled().await;
    let report = database.service().dry_run(false, time(NOW), &Deadline::never()).await.unwrap();
    let rows = |held: &[HeldBack]| held.iter().map(|held| (held.reason, held.rows)).collect::<Vec<_>>();
    assert_eq!((report.logs_due, rows(&report.held_back)), (0, rows(&run.held_back)));
}

#[tokio::test]
async fn logs_of_the_types_that_are_kept_stay() {
    let database = filled().await;
    let creates = database.count(&format!(r#"{DUE} AND "eventType" = 'create'"#)).await;
    let kept = Settings { keep_event_types: vec!["create".into(), "nothing".into()], ..Settings::default() };
    let service = database.service_with(kept);
    let report = service.dry_run(false, time(NOW), &Deadline::never()).await.unwrap();
    let run = service.archive_old_logs_after_snapshots().await;
    let kept = held(&run, HeldBackReason::KeptType).unwrap();
    assert_eq!(i64::try_from(kept.rows).unwrap(), creates);
    assert_eq!((report.held_back.len(), report.held_back[0].rows), (1, kept.rows));
    assert_eq!(report.logs_due, run.logs_archived);
    assert_complete(&database, &run).await;
    let run = maintain(&database).await.unwrap();
    assert_eq!((run.held_back.len(), i64::try_from(run.logs_archived).unwrap()), (0, creates), "they go when they may");
}

#[tokio::test]
async fn a_month_that_failed_is_tried_again_whichever_worker_it_failed_in() {
    let database = filled().await;
    // One month's partition refuses rows while the other months go on.
    database
        .execute(
            r#"SELECT stream_archive_create_partition('2025-12-01');
               ALTER TABLE "StreamArchive_2025_12" ADD CONSTRAINT not_now CHECK (id IS NULL)"#,
        )
        .await;
    assert!(maintain(&database).await.is_err());
    assert!(maintain(&database).await.is_err());
    assert!(database.count(DUE).await > 0);
    database.execute(r#"ALTER TABLE "StreamArchive_2025_12" DROP CONSTRAINT not_now"#).await;
    let run = maintain(&database).await.unwrap();
    assert_complete(&database, &run).await;
    assert_eq!(database.count(DUE).await, 0);
}

#[tokio::test]
async fn hashes_that_are_all_wrong_are_counted_exactly_and_a_thousand_are_kept() {
    let database = filled().await;
    database
        .execute(r#"UPDATE "EventLog" SET entry_hash = 'wrong' || id, parent_hash = 'p'; DROP TABLE remembered"#)
        .await;
    database.remember_events().await;
    let due = database.count(DUE).await;
    let run = maintain(&database).await.unwrap();
    assert_eq!(i64::try_from(run.hash_mismatches).unwrap(), due);
    assert_eq!(i64::try_from(run.links_missing).unwrap(), due);
    for kind in ["hash_mismatch", "link_missing"] {
        assert_eq!(database.count(&format!(r#""MaintenanceFinding" WHERE kind = '{kind}'"#)).await, 1000);
    }
    let detail: String = database.value(r#"SELECT detail::text FROM "MaintenanceFinding" ORDER BY id LIMIT 1"#).await;
    let detail: serde_json::Value = serde_json::from_str(&detail).unwrap();
    assert!(detail["entryHash"].as_str().unwrap().starts_with("wrong"), "{detail}");
    assert_eq!(detail["computedHash"].as_str().unwrap().len(), 64);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_duplicate_with_json_that_jsonb_cannot_hold_is_dropped_on_record() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "EventLog" ADD raw JSON"#).await;
    migrate(&database.pool).await.unwrap();
    database.insert_event("first", "42", "2026-01-15 10:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET raw = '{"a": "\u0000 \ud800"}'"#).await;
    database.execute(r#"CREATE TABLE copy AS SELECT * FROM "EventLog""#).await;
    assert_eq!(maintain(&database).await.unwrap().logs_archived, 1);
    database.execute(r#"UPDATE copy SET id = 'again'; INSERT INTO "EventLog" SELECT * FROM copy"#).await;
    let run = maintain(&database).await.unwrap();
    assert_eq!((run.duplicates_dropped, run.conflicts, run.held_back.len()), (1, 0, 0));
    let kept: String = database.value(r#"SELECT detail::text FROM "MaintenanceFinding""#).await;
    assert!(kept.contains(r"\u0000"), "{kept}");
    let mut lines = Vec::new();
    let write = |line: &str| {
        lines.push(line.to_owned());
        Ok(())
    };
    database.service().write_records(write).await.unwrap();
    assert!(lines.iter().any(|line| line.contains("duplicate_dropped") && line.contains(r"\u0000")), "{lines:?}");
}

#[tokio::test]
async fn an_event_that_was_ingested_again_is_recognised_whatever_ledgers_the_months_first_and_last_rows_have() {
    let database = TestDatabase::migrated().await;
    database.insert_event("first", "42", "2026-01-15 10:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET ledger = 50; CREATE TABLE copy AS SELECT * FROM "EventLog""#).await;
    assert_eq!(maintain(&database).await.unwrap().logs_archived, 1);
    for (id, at) in [("oldest", "2026-01-01 00:00:00"), ("newest", "2026-01-31 00:00:00")] {
        database.insert_event(id, "42", at).await;
    }
    database.execute(r#"UPDATE "EventLog" SET ledger = 1000000"#).await;
    database.execute(r#"UPDATE copy SET id = 'again'; INSERT INTO "EventLog" SELECT * FROM copy"#).await;
    let run = maintain(&database).await.unwrap();
    assert_eq!((run.logs_archived, run.duplicates_dropped, run.conflicts), (2, 1, 0));
    assert_eq!(database.count(r#""StreamArchive""#).await, 3);
}

#[tokio::test]
async fn a_held_stream_that_gets_another_contract_id_while_batches_run_keeps_its_logs() {
    let database = filled().await;
    let service = database.service_with(Settings { batch_rows: 10, ..Settings::default() });
    service.create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    service.hold_stream(&stream("c7"), "a case", "ann").await.unwrap();
    let moves = async {
        while database.count(r#""StreamArchive""#).await < 100 {
            tokio::task::yield_now().await;
        }
        database
            .execute(
                r#"BEGIN; UPDATE "Stream" SET "streamId" = '7b' WHERE id = 'c7';
                   UPDATE "EventLog" SET "streamId" = '7b' WHERE "streamId" = '7'; COMMIT"#,
            )
            .await;
    };
    let forever = Deadline::never();
    let (run, ()) = tokio::join!(service.archive_old_logs(Trigger::Api, time(NOW), &forever), moves);
    assert!(run.unwrap().complete);
    assert_eq!(database.count(r#""StreamArchive" WHERE "streamId" IN ('7', '7b')"#).await, 0);
}

#[tokio::test]
async fn a_hold_follows_its_stream_through_ids_that_only_archiving_saw() {
    let database = filled().await;
    let service = database.service();
    service.create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    service.hold_stream(&stream("c7"), "a case", "ann").await.unwrap();
    database
        .execute(
            r#"UPDATE "Stream" SET "streamId" = '7b' WHERE id = 'c7';
               UPDATE "EventLog" SET "streamId" = '7b' WHERE "streamId" = '7' AND ledger % 3 = 0"#,
        )
        .await;
    service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    // Indexed again.
    database
        .execute(
            r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount)
               SELECT 'again', "streamId" || '-again', 'again', 'S', 'R', '1' FROM "Stream" WHERE id = 'c7';
               DELETE FROM "Stream" WHERE id = 'c7';
               UPDATE "Stream" SET "streamId" = '7b' WHERE id = 'again'"#,
        )
        .await;
    service.create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    database
        .execute(
            r#"UPDATE "Stream" SET "streamId" = '7c' WHERE id = 'again';
               UPDATE "EventLog" SET "streamId" = '7c' WHERE "streamId" = '7b' AND ledger % 2 = 0"#,
        )
        .await;
    service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(database.count(r#""StreamArchive" WHERE "streamId" LIKE '7%' AND length("streamId") = 2"#).await, 0);
    assert_eq!(database.count(r#""StreamArchive" WHERE "streamId" = '7'"#).await, 0);
    assert!(database.count(r#""EventLog" WHERE "streamId" = '7c' AND "createdAt" < '2026-02-28'"#).await > 0);
}

#[tokio::test]
async fn two_rows_with_one_parent_and_a_chain_that_begins_again_are_archived_as_they_are() {
    let database = TestDatabase::migrated().await;
    for (id, minute) in [("a", 1), ("b", 2), ("c", 3), ("bare", 4), ("d", 5)] {
        database.insert_event(id, "42", &format!("2026-01-15 10:0{minute}:00")).await;
    }
    // Two writers read the same newest row; then a row without hashes, after which the chain begins again.
    database
        .execute(
            r#"UPDATE "EventLog" SET entry_hash = 'ha' WHERE id = 'a';
               UPDATE "EventLog" SET entry_hash = 'h' || id, parent_hash = 'ha' WHERE id IN ('b', 'c');
               UPDATE "EventLog" SET ledger = 0 WHERE id = 'bare';
               UPDATE "EventLog" SET entry_hash = 'hd' WHERE id = 'd'"#,
        )
        .await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    database.remember_events().await;
    let run = maintain(&database).await.unwrap();
    assert_eq!((run.logs_archived, run.held_back.len()), (5, 0));
    database.assert_nothing_lost_or_doubled().await;
    let found = database.service().verify_archive(VerificationRequest::default(), time(NOW), &Deadline::never()).await;
    assert_eq!(run.links_missing, 0);
    let found = found.unwrap();
    assert!(found.breaks.is_empty(), "{found:?}");
    assert!(found.findings.iter().all(|found| found.kind == snapshot_service::FindingKind::HashMismatch), "{found:?}");
}

#[tokio::test]
async fn row_security_on_the_log_refuses_archiving_and_on_a_table_that_references_it_too() {
    for (sql, table) in [
        (r#"ALTER TABLE "EventLog" ENABLE ROW LEVEL SECURITY"#, "\"EventLog\""),
        (
            r#"CREATE TABLE "Notification" (id INT, "eventId" TEXT REFERENCES "EventLog" ON DELETE CASCADE);
               GRANT SELECT ON "Notification" TO snapshot_service_maintain;
               ALTER TABLE "Notification" ENABLE ROW LEVEL SECURITY"#,
            "\"Notification\"",
        ),
    ] {
        let database = filled().await;
        database.execute(sql).await;
        let maintainer = crate::roles::login(&database, "guest", crate::roles::MAINTAIN).await;
        let error = maintain(&maintainer).await.unwrap_err();
        assert_eq!(error.code(), "rows_hidden", "{error:?}");
        assert!(error.to_string().contains(table), "{error}");
        assert_eq!(database.count(r#""StreamSnapshot""#).await, 40);
        assert_eq!(database.count(r#""StreamArchive""#).await, 0);
        assert!(error.finding().is_some(), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_references_ids_and_rows_lose_nothing_while_eight_runs_start_and_some_are_killed() {
    let database = filled().await;
    database
        .execute(
            r#"CREATE TABLE "Notification" (id SERIAL, "eventId" TEXT NOT NULL REFERENCES "EventLog" ON DELETE CASCADE);
               CREATE INDEX ON "Notification" ("eventId");
               ALTER TABLE remembered ADD PRIMARY KEY (id)"#,
        )
        .await;
    let done = AtomicBool::new(false);
    let event = || format!("e{:05}", fastrand::u32(1..=4000));
    let reference = async {
        let client = database.client().await;
        let mut kept = 0;
        while !done.load(Ordering::Relaxed) {
            match client.execute(r#"INSERT INTO "Notification" ("eventId") VALUES ($1)"#, &[&event()]).await {
                Ok(_) => kept += 1,
                Err(error) => assert_eq!(error.code().unwrap().code(), "23503", "{error:?}"),
            }
        }
        kept
    };
    // What the host writes, and what is remembered of it, as one transaction.
    let write = async {
        let mut client = database.client().await;
        let mut written = 0;
        while !done.load(Ordering::Relaxed) {
            let transaction = client.transaction().await.unwrap();
            let number = fastrand::u32(1..=40);
            transaction
                .execute(
                    r#"UPDATE "Stream" SET "streamId" = split_part("streamId", '-', 1) || '-' || $2 WHERE id = $1"#,
                    &[&format!("c{number}"), &fastrand::u32(..).to_string()],
                )
                .await
                .unwrap();
            written += transaction
                .execute(
                    r#"WITH u AS (UPDATE "EventLog" e SET metadata = COALESCE(metadata, '') || '+' WHERE id = $1 RETURNING e.*)
                       UPDATE remembered r SET event = row_to_json(u)::text FROM u WHERE u.id = r.id"#,
                    &[&event()],
                )
                .await
                .unwrap();
            transaction.commit().await.unwrap();
        }
        written
    };
    let work = async {
        let variables = [("DATABASE_URL", database.url.as_str()), ("BATCH_ROWS", "40"), ("LEASE_SECONDS", "1")];
        for _ in 0..4 {
            let starts = (0..8).map(|_| start_function("run-maintenance", &variables));
            let mut functions = futures_util::future::join_all(starts).await;
            for function in &mut functions {
                function.invoke_without_waiting("{}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(100..400))).await;
            for mut function in functions {
                function.kill().await;
            }
            database.assert_nothing_lost_or_doubled().await;
        }
        let mut function = start_function("run-maintenance", &variables).await;
        function.set_timeout(std::time::Duration::from_mins(5)).await;
        // The killed ones' lease ends first.
        let run = loop {
            let run = function.invoke("{}").await.payload;
            if run["complete"] == true {
                break run;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        };
        done.store(true, Ordering::Relaxed);
        run
    };
    let (run, kept, written): (_, i64, u64) = tokio::join!(work, reference, write);
    assert!(kept > 0 && written > 0, "{kept} references, {written} writes; {run}");
    assert_eq!(database.count(r#""Notification""#).await, kept, "each row of the host's is as its writer left it");
    let dangling = r#""Notification" n WHERE NOT EXISTS (SELECT FROM "EventLog" e WHERE e.id = n."eventId")"#;
    assert_eq!(database.count(dangling).await, 0);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn what_refused_a_run_is_among_its_findings() {
    let database = filled().await;
    database
        .execute(
            r#"CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
               CREATE TRIGGER keep_logs BEFORE DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION keep()"#,
        )
        .await;
    maintain(&database).await.unwrap_err();
    let run = database.service().find_open_maintenance_run().await.unwrap().unwrap();
    let codes: Vec<_> = run.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert!(codes.contains(&"trigger_refuses") && codes.contains(&"trigger_fires"), "{codes:?}");
}

#[tokio::test]
async fn a_log_with_the_empty_id_at_a_months_first_instant_moves_and_the_run_ends() {
    for id in ["", " "] {
        let database = filled().await;
        database
            .execute(&format!(
                r#"DELETE FROM "EventLog" WHERE ledger IN (1, 2);
                   UPDATE "EventLog" SET id = '{id}', "createdAt" = '2026-01-01' WHERE ledger = 3;
                   UPDATE "EventLog" SET id = E'\u0001', "createdAt" = '2026-02-01' WHERE ledger = 4;
                   UPDATE "EventLog" SET "createdAt" = '0001-01-01' WHERE ledger = 5;
                   DROP TABLE remembered"#
            ))
            .await;
        database.remember_events().await;
        let run = database.service_with_batches_of(1000).archive_old_logs_after_snapshots().await;
        assert_eq!(run.held_back, [], "{id:?}");
        assert_complete(&database, &run).await;
        assert_eq!(database.count(r#""StreamArchive" WHERE ledger IN (3, 4, 5)"#).await, 3, "{id:?}");
    }
}

#[tokio::test]
async fn rows_without_a_stream_or_a_type_and_columns_with_odd_names_are_archived() {
    let database = TestDatabase::of_host().await;
    fill(&database).await;
    database
        .execute(
            r#"ALTER TABLE "EventLog" ALTER "streamId" DROP NOT NULL, ALTER "eventType" DROP NOT NULL,
                   ADD "{partition}" TEXT DEFAULT 'a', ADD "it's ""{columns}" TEXT DEFAULT 'b', ADD total INT DEFAULT 1,
                   ADD w INT DEFAULT 2, ADD place INT DEFAULT 3, ADD partition INT DEFAULT 4, ADD seen INT DEFAULT 5,
                   ADD "user" INT DEFAULT 6, ADD hash TEXT DEFAULT 'c', ADD month TEXT DEFAULT 'd', ADD moved INT DEFAULT 7,
                   ADD sequence INT DEFAULT 8, ADD e TEXT DEFAULT 'e', ADD a TEXT DEFAULT 'f', ADD computed_hash TEXT DEFAULT 'g',
                   ADD digest TEXT DEFAULT 'h', ADD due INT DEFAULT 9, ADD reason TEXT DEFAULT 'i', ADD address INT DEFAULT 10;
               ALTER TABLE "Stream" ADD total INT DEFAULT 1, ADD w INT DEFAULT 2, ADD parsed TEXT DEFAULT 'a', ADD page INT DEFAULT 3,
                   ADD seen INT DEFAULT 4, ADD s INT DEFAULT 5, ADD known INT DEFAULT 6, ADD taken INT DEFAULT 7, ADD state TEXT DEFAULT 'b',
                   ADD yes BOOLEAN DEFAULT false, ADD t TEXT DEFAULT 'c', ADD contract TEXT DEFAULT 'd', ADD created INT DEFAULT 8,
                   ADD contracts TEXT DEFAULT 'e', ADD row_ids TEXT[] DEFAULT '{c1,c2}', ADD name TEXT DEFAULT 'f';
               UPDATE "EventLog" SET "streamId" = NULL WHERE ledger = 5;
               UPDATE "EventLog" SET "eventType" = NULL WHERE ledger = 6;
               DROP TABLE remembered"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    database.remember_events().await;
    database.service().hold_stream(&stream("8"), "a case", "ann").await.unwrap();
    let settings = Settings { keep_event_types: vec!["create".into()], ..Settings::default() };
    let run = database.service_with(settings).archive_old_logs_after_snapshots().await;
    assert_eq!(held(&run, HeldBackReason::InUse), None, "{run:?}");
    assert_complete(&database, &run).await;
    assert_eq!(database.count(r#""StreamArchive" WHERE ledger IN (5, 6)"#).await, 2);
}
