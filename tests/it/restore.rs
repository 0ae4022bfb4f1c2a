//! Restores that meet what the host's tables do not take, and restores beside other runs.

use std::time::Duration;

use serde_json::json;
use snapshot_service::database::migrate;
use snapshot_service::{
    ConflictDetail, Deadline, Error, MaintenanceRun, PageRequest, RestoreRequest, RunStatus, Scope, Settings,
    SnapshotService, StopReason, Trigger,
};

use crate::runs::small;
use crate::support::{TestDatabase, is_of, stream, time};

const NOW: &str = "2026-05-31T02:00:00Z";

fn everything() -> RestoreRequest {
    RestoreRequest::new(None, Some(time("2000-01-01T00:00:00Z")), None, None).unwrap()
}

fn of_stream(id: &str) -> RestoreRequest {
    RestoreRequest::new(Some(stream(id)), None, None, None).unwrap()
}

async fn archive(database: &TestDatabase) -> MaintenanceRun {
    archive_in_batches_of(database, 40).await
}

async fn archive_in_batches_of(database: &TestDatabase, rows: u32) -> MaintenanceRun {
    let service = database.service_with_batches_of(rows);
    service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap()
}

async fn restore(service: &SnapshotService, request: &RestoreRequest) -> MaintenanceRun {
    service.restore(Trigger::Cli, request, time(NOW), &Deadline::never()).await.unwrap()
}

fn detail(id: &str, constraint: Option<&str>, reason: &str) -> ConflictDetail {
    ConflictDetail { log_id: id.into(), constraint: constraint.map(Into::into), reason: reason.into() }
}

/// `rows` archived events of stream 42 in two months, `e000001` and so on, and one stream.
async fn with_archive(rows: u32) -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s2", Some("42"), "1").await;
    database.insert_events(rows, "2025-12-31 23:00:00").await;
    database
        .execute(
            r#"UPDATE "EventLog" SET "txHash" = "txHash" || '-' || id, sender = 's' || ledger, amount = NULLIF(amount, 77),
                   receiver = CASE ledger WHEN 77 THEN 'x' ELSE '7' END"#,
        )
        .await;
    database.remember_events().await;
    assert_eq!(archive_in_batches_of(&database, rows.clamp(40, 20_000)).await.logs_archived, u64::from(rows));
    database
}

/// What a host may add after archiving, which the row `e000077` alone breaks; and how it is named.
const OBSTACLES: [(&str, &str, Option<&str>, &str); 12] = [
    (
        "a foreign key",
        r#"CREATE TABLE account (name text PRIMARY KEY); INSERT INTO account SELECT 's' || i FROM generate_series(1, 120) i WHERE i <> 77;
           ALTER TABLE "EventLog" ADD CONSTRAINT of_account FOREIGN KEY (sender) REFERENCES account"#,
        Some("of_account"),
        "foreign_key_violation",
    ),
    (
        "a deferred foreign key",
        r#"CREATE TABLE account (name text PRIMARY KEY); INSERT INTO account SELECT 's' || i FROM generate_series(1, 120) i WHERE i <> 77;
           ALTER TABLE "EventLog" ADD CONSTRAINT of_account FOREIGN KEY (sender) REFERENCES account DEFERRABLE INITIALLY DEFERRED"#,
        Some("of_account"),
        "foreign_key_violation",
    ),
    (
        "a unique index",
        r#"INSERT INTO "EventLog" SELECT (jsonb_populate_record(NULL::"EventLog", to_jsonb(a)
               || '{"id": "new", "txHash": "new", "createdAt": "2026-05-01"}')).* FROM "StreamArchive" a WHERE id = 'e000077';
           CREATE UNIQUE INDEX one_sender ON "EventLog" (sender)"#,
        Some("one_sender"),
        "unique_violation",
    ),
    (
        "a partial unique index over an expression",
        r#"INSERT INTO "EventLog" SELECT (jsonb_populate_record(NULL::"EventLog", to_jsonb(a)
               || '{"id": "new", "txHash": "new", "sender": "S77", "createdAt": "2026-05-01"}')).* FROM "StreamArchive" a WHERE id = 'e000077';
           CREATE UNIQUE INDEX one_sender ON "EventLog" (lower(sender)) WHERE ledger > 70"#,
        Some("one_sender"),
        "unique_violation",
    ),
    (
        "a deferrable unique constraint",
        r#"INSERT INTO "EventLog" SELECT (jsonb_populate_record(NULL::"EventLog", to_jsonb(a)
               || '{"id": "new", "txHash": "new", "createdAt": "2026-05-01"}')).* FROM "StreamArchive" a WHERE id = 'e000077';
           ALTER TABLE "EventLog" ADD CONSTRAINT one_sender UNIQUE (sender) DEFERRABLE INITIALLY DEFERRED"#,
        Some("one_sender"),
        "unique_violation",
    ),
    (
        "an exclusion constraint",
        r#"INSERT INTO "EventLog" SELECT (jsonb_populate_record(NULL::"EventLog", to_jsonb(a)
               || '{"id": "new", "txHash": "new", "createdAt": "2026-05-01"}')).* FROM "StreamArchive" a WHERE id = 'e000077';
           ALTER TABLE "EventLog" ADD CONSTRAINT apart EXCLUDE USING gist (int4range(ledger, ledger, '[]') WITH &&)"#,
        Some("apart"),
        "exclusion_violation",
    ),
    (
        "a check",
        r#"ALTER TABLE "EventLog" ADD CONSTRAINT small CHECK (ledger <> 77)"#,
        Some("small"),
        "check_violation",
    ),
    ("a required value", r#"ALTER TABLE "EventLog" ALTER amount SET NOT NULL"#, Some("amount"), "not_null_violation"),
    (
        "a column that is computed from a value that is none of its type",
        r#"ALTER TABLE "EventLog" ADD number integer GENERATED ALWAYS AS (receiver::integer) STORED"#,
        None,
        "invalid_text_representation",
    ),
    (
        "a constraint trigger that is deferred",
        r#"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
           CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON "EventLog" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
           WHEN (NEW.ledger = 77) EXECUTE FUNCTION refuse()"#,
        Some("refuse"),
        "raise_exception",
    ),
    (
        "a trigger with a code of its own",
        r#"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN RAISE 'not this one' USING ERRCODE = 'check_violation', CONSTRAINT = 'of the host'; END $$;
           CREATE TRIGGER refuse BEFORE INSERT ON "EventLog" FOR EACH ROW WHEN (NEW.ledger = 77) EXECUTE FUNCTION refuse()"#,
        Some("of the host"),
        "check_violation",
    ),
    (
        "partitions of which none takes it",
        r#"DROP TABLE "EventLog";
           CREATE TABLE "EventLog" (LIKE "StreamArchive" INCLUDING DEFAULTS) PARTITION BY RANGE (ledger);
           ALTER TABLE "EventLog" DROP "archivedAt", ADD UNIQUE (id, ledger), ADD UNIQUE ("txHash", "eventIndex", ledger);
           CREATE INDEX ON "EventLog" (id); CREATE INDEX ON "EventLog" ("createdAt");
           CREATE TABLE one PARTITION OF "EventLog" FOR VALUES FROM (0) TO (77);
           CREATE TABLE two PARTITION OF "EventLog" FOR VALUES FROM (78) TO (1000)"#,
        None,
        "no_partition",
    ),
];

#[tokio::test]
async fn a_log_that_the_host_takes_no_more_stays_archived_with_the_constraint_named_and_the_others_return() {
    for (what, sql, constraint, reason) in OBSTACLES {
        for by_stream in [false, true] {
            let database = with_archive(120).await;
            database.execute(sql).await;
            database.migrate().await;
            // In one batch with the others, and among several.
            let service = database.service_with_batches_of(if by_stream { 200 } else { 16 });
            let request = if by_stream { of_stream("42") } else { everything() };
            let run = restore(&service, &request).await;
            assert_eq!((run.logs_restored, run.conflicts, run.complete), (119, 1, true), "{what}: {run:?}");
            assert_eq!(run.conflict_ids, ["e000077"], "{what}");
            assert_eq!(run.conflict_details, [detail("e000077", constraint, reason)], "{what}");
            assert_eq!(database.count(r#""StreamArchive""#).await, 1, "{what}");
            database.assert_seals_agree().await;
        }
    }
}

#[tokio::test]
async fn all_of_two_thousand_refused_logs_and_one_of_many_are_found_without_much_ado() {
    let database = with_archive(2_000).await;
    database.execute(r#"ALTER TABLE "EventLog" ADD CONSTRAINT none CHECK (ledger < 0)"#).await;
    let run = restore(&database.service(), &everything()).await;
    assert_eq!((run.logs_restored, run.conflicts, run.conflict_ids.len()), (0, 2_000, 100));
    assert_eq!(run.conflict_details.len(), 100);
    assert_eq!(run.conflict_details[99], detail("e000100", Some("none"), "check_violation"));
    database.execute(r#"ALTER TABLE "EventLog" DROP CONSTRAINT none"#).await;
    assert_eq!(restore(&database.service(), &everything()).await.logs_restored, 2_000);
    database.assert_nothing_lost_or_doubled().await;

    let database = with_archive(60_000).await;
    database.execute(r#"ALTER TABLE "EventLog" ADD CONSTRAINT most CHECK (ledger <> 31000)"#).await;
    let run = restore(&database.service(), &everything()).await;
    assert_eq!((run.logs_restored, run.conflicts), (59_999, 1));
    assert_eq!(run.conflict_details, [detail("e031000", Some("most"), "check_violation")]);
}

#[tokio::test]
async fn logs_that_are_refused_for_different_reasons_are_each_named_with_their_own() {
    let database = with_archive(300).await;
    database
        .execute(
            r#"CREATE TABLE account (name text PRIMARY KEY); INSERT INTO account SELECT 's' || i FROM generate_series(1, 300) i WHERE i % 7 <> 0;
               ALTER TABLE "EventLog" ADD CONSTRAINT of_account FOREIGN KEY (sender) REFERENCES account DEFERRABLE INITIALLY DEFERRED;
               ALTER TABLE "EventLog" ADD CONSTRAINT no_tens CHECK (ledger % 10 <> 0)"#,
        )
        .await;
    database.execute("INSERT INTO account VALUES ('GSENDER')").await;
    database.insert_event("e000001", "42", "2026-05-01 00:00:00").await;
    let run = restore(&database.service_with_batches_of(64), &everything()).await;
    let wanted = |ledger: u32| match ledger {
        1 => Some((None, "same_id")),
        _ if ledger.is_multiple_of(10) => Some((Some("no_tens"), "check_violation")),
        _ if ledger.is_multiple_of(7) => Some((Some("of_account"), "foreign_key_violation")),
        _ => None,
    };
    let wanted: Vec<_> = (1..=300)
        .filter_map(|ledger| {
            wanted(ledger).map(|(constraint, reason)| detail(&format!("e{ledger:06}"), constraint, reason))
        })
        .collect();
    assert_eq!((run.conflicts, run.logs_restored), (wanted.len() as u64, 300 - wanted.len() as u64));
    assert_eq!(run.conflict_details, wanted);
    // Once the host takes them they go.
    database
        .execute(
            r#"INSERT INTO account SELECT 's' || i FROM generate_series(1, 300) i WHERE i % 7 = 0;
               ALTER TABLE "EventLog" DROP CONSTRAINT no_tens; DELETE FROM "EventLog" WHERE sender = 'GSENDER'"#,
        )
        .await;
    assert_eq!(restore(&database.service(), &of_stream("s2")).await.conflicts, 0);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_log_that_the_host_writes_at_that_moment_is_passed_over_and_not_retried_for_ever() {
    let database = with_archive(60).await;
    let (host, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    host.batch_execute(
        r#"BEGIN; INSERT INTO "EventLog" SELECT (jsonb_populate_record(NULL::"EventLog", to_jsonb(a)
               || '{"txHash": "other"}')).* FROM snapshot_service."StreamArchive" a WHERE id = 'e000020'"#,
    )
    .await
    .unwrap();
    let service = database.service_with(small());
    let commit = async {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)";
        while !database.value::<bool>(waits).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        host.batch_execute("COMMIT").await.unwrap();
    };
    let everything = everything();
    let (run, ()) = tokio::join!(restore(&service, &everything), commit);
    assert_eq!((run.logs_restored, run.conflicts, run.complete), (59, 1, true));
    assert_eq!(run.conflict_ids, ["e000020"]);
    database.execute(r#"DELETE FROM "EventLog" WHERE id = 'e000020'"#).await;
    assert_eq!(restore(&service, &everything).await.logs_restored, 1);
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_trigger_or_rule_that_swallows_or_alters_logs_is_named_and_nothing_is_lost() {
    const SWALLOW: &str = "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;";
    const ALTER: &str = "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.metadata := 'mine'; RETURN NEW; END $$;";
    const TRIM: &str = r#"CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN DELETE FROM "EventLog" WHERE "createdAt" < '2026-01-01'; RETURN NULL; END $$;"#;
    const REWRITE: &str = r#"CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN UPDATE "EventLog" SET metadata = 'mine' WHERE id = NEW.id; RETURN NULL; END $$;"#;
    let before = r#"CREATE TRIGGER "It's" BEFORE INSERT ON "EventLog" FOR EACH ROW EXECUTE FUNCTION act()"#;
    let after = r#"CREATE TRIGGER "It's" AFTER INSERT ON "EventLog" FOR EACH ROW EXECUTE FUNCTION act()"#;
    let after_all = r#"CREATE TRIGGER "It's" AFTER INSERT ON "EventLog" FOR EACH STATEMENT EXECUTE FUNCTION act()"#;
    let instead = r#"CREATE RULE "It's" AS ON INSERT TO "EventLog" DO INSTEAD NOTHING"#;
    let also = r#"CREATE TABLE audit (id text); CREATE RULE "It's" AS ON INSERT TO "EventLog" DO ALSO INSERT INTO audit VALUES (NEW.id)"#;
    for (function, hook, name) in [
        (SWALLOW, before, r#"trigger "It's" on "EventLog""#),
        (ALTER, before, r#"trigger "It's" on "EventLog""#),
        (TRIM, after_all, r#"trigger "It's" on "EventLog""#),
        (REWRITE, after, r#"trigger "It's" on "EventLog""#),
        ("", instead, r#"rule "It's" on "EventLog""#),
        ("", also, r#"rule "It's" on "EventLog""#),
    ] {
        let database = with_archive(90).await;
        database.execute(&format!("{function} {hook}")).await;
        // One that lets logs go is not named.
        database
            .execute(
                r#"CREATE TABLE seen (id text);
                   CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NULL; END $$;
                   CREATE TRIGGER note AFTER INSERT ON "EventLog" FOR EACH ROW EXECUTE FUNCTION note();
                   ALTER TABLE "EventLog" DISABLE TRIGGER note"#,
            )
            .await;
        let service = database.service_with_batches_of(20);
        let error = service.restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
        assert_eq!(error.code(), "restore_refused", "{hook}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(name) && !text.contains("note") && text.contains("DISABLE"), "{text}");
        database.assert_nothing_lost_or_doubled().await;
        assert_eq!(database.count(r#""EventLog""#).await, 0, "{hook}");
        assert!(service.list_open_maintenance_runs().await.unwrap().is_empty(), "it is in nobody's way");

        let kind = if name.starts_with("rule") { "RULE" } else { "TRIGGER" };
        database.execute(&format!(r#"ALTER TABLE "EventLog" DISABLE {kind} "It's""#)).await;
        database.execute(r#"ALTER TABLE "EventLog" ENABLE TRIGGER note"#).await;
        assert_eq!(restore(&service, &everything()).await.logs_restored, 90);
        assert_eq!(database.count("seen").await, 90, "once each");
        database.assert_nothing_lost_or_doubled().await;
    }
}

#[tokio::test]
async fn a_rollback_names_the_logs_that_do_not_go_back_and_drops_nothing() {
    let database = with_archive(60).await;
    database.execute(r#"ALTER TABLE "EventLog" ADD CONSTRAINT most CHECK (ledger NOT IN (7, 40))"#).await;
    let service = database.service_with_batches_of(20);
    let error = service.restore_all(Trigger::Cli, true, time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "rollback_refused");
    let text = error.to_string();
    for part in ["2 archived logs", "e000007: check_violation of most", "e000040", "nothing was dropped"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(database.count(r#""StreamArchive""#).await, 2);
    database.execute(r#"ALTER TABLE "EventLog" DROP CONSTRAINT most"#).await;
    let run = service.restore_all(Trigger::Cli, true, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.conflicts, run.logs_restored), (0, 60));
    assert_eq!(run.conflict_details, []);
    database.assert_nothing_lost_or_doubled().await;
}

/// What may have become of a restore: each leaves one open, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Failed,
    Interrupted,
    Held,
    Died,
    Refused,
}

/// A restore of which this has become.
async fn restore_with(database: &TestDatabase, fate: Fate) {
    let service = database.service_with(small());
    let at_once = Deadline::after(Duration::ZERO);
    match fate {
        Fate::Failed => {
            database.execute(r#"ALTER TABLE "EventLog" ADD extra TEXT"#).await;
            let error = service.restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
            assert_eq!(error.code(), "archive_columns_differ");
            database.execute(r#"ALTER TABLE "EventLog" DROP extra"#).await;
        }
        Fate::Interrupted | Fate::Held | Fate::Died => {
            let run = service.restore(Trigger::Cli, &everything(), time(NOW), &at_once).await.unwrap();
            assert_eq!(run.stop_reason, Some(StopReason::Deadline));
            let lease = match fate {
                Fate::Held => "1 hour",
                Fate::Died => "-1 second",
                _ => return,
            };
            database
                .execute(&format!(
                    r#"UPDATE "MaintenanceRun" SET status = 'running', "leaseHolder" = 'somebody', token = gen_random_uuid(),
                           "leaseExpiresAt" = now() AT TIME ZONE 'UTC' + interval '{lease}' WHERE scope = 'restore'"#
                ))
                .await;
        }
        Fate::Refused => {
            database
                .execute(
                    r#"CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
                       CREATE TRIGGER swallow BEFORE INSERT ON "EventLog" FOR EACH ROW EXECUTE FUNCTION swallow()"#,
                )
                .await;
            let error = service.restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
            assert_eq!(error.code(), "restore_refused");
            database.execute(r#"DROP TRIGGER swallow ON "EventLog""#).await;
        }
    }
}

#[tokio::test]
async fn no_restore_whatever_became_of_it_keeps_a_months_snapshots_from_being_taken() {
    for fate in [Fate::Failed, Fate::Interrupted, Fate::Held, Fate::Died, Fate::Refused] {
        for path in ["command", "schedule", "steps"] {
            let database = with_archive(60).await;
            restore_with(&database, fate).await;
            database.execute(r#"DELETE FROM "StreamSnapshot""#).await;
            database.insert_stream("s3", Some("43"), "1").await;
            let service = database.service_with(small());
            match path {
                "command" => {
                    let request = Trigger::Cli.request();
                    let run = service.run_maintenance(request, time(NOW), &Deadline::never()).await.unwrap();
                    assert_eq!((run.scope, run.complete), (Scope::Maintenance, true), "{fate:?}");
                }
                "schedule" => {
                    let event = json!({"source": "aws.scheduler", "time": NOW});
                    let answer = snapshot_service::invocation::run_maintenance(&service, event, u64::MAX, time(NOW));
                    let answer = serde_json::to_value(answer.await.unwrap()).unwrap();
                    assert_eq!((&answer["period"], &answer["complete"]), (&json!("2026-05"), &json!(true)), "{fate:?}");
                }
                _ => {
                    let step = async |step: &str, more: serde_json::Value| {
                        let mut event = json!({"step": step, "execution": "e"});
                        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                        let event = serde_json::from_value(event).unwrap();
                        service.run_step(&event, time(NOW), &Deadline::never()).await.unwrap().unwrap()
                    };
                    let report = step("take-snapshots", json!({"request": {"period": "2026-05"}})).await;
                    assert!(report.complete && !report.waiting, "{fate:?}: {report:?}");
                    let run = json!({"runId": report.run_id.unwrap()});
                    step("plan-archive", run.clone()).await;
                    assert!(step("finish", run).await.complete, "{fate:?}");
                }
            }
            assert_eq!(database.count(r#""StreamSnapshot" WHERE "snapshotMonth" = '2026-05'"#).await, 2, "{fate:?}");
            // The restore is where it was.
            let open = service.list_open_maintenance_runs().await.unwrap();
            assert_eq!(open.len(), usize::from(fate != Fate::Refused), "{fate:?}: {open:?}");
            if fate != Fate::Held {
                let done = restore(&service, &everything()).await;
                assert!(done.complete && done.scope == Scope::Restore);
                assert_eq!(database.count(r#""StreamArchive""#).await, 0, "{fate:?}");
            }
            database.assert_nothing_lost_or_doubled().await;
        }
    }
}

#[tokio::test]
async fn a_restore_into_what_is_no_table_is_refused_by_name_before_a_log_leaves_the_archive() {
    for (what, named, cure) in [
        (
            r#"ALTER TABLE "EventLog" RENAME TO base;
               CREATE VIEW "EventLog" AS SELECT * FROM base WHERE "createdAt" > '2026-02-01'"#,
            "is a view",
            r#"DROP VIEW "EventLog"; ALTER TABLE base RENAME TO "EventLog""#,
        ),
        (
            r#"ALTER TABLE "EventLog" RENAME TO base; CREATE MATERIALIZED VIEW "EventLog" AS SELECT * FROM base"#,
            "is a view",
            r#"DROP MATERIALIZED VIEW "EventLog"; ALTER TABLE base RENAME TO "EventLog""#,
        ),
        (
            r#"ALTER TABLE "EventLog" RENAME "txHash" TO tx_hash"#,
            "column \"txHash\"",
            r#"ALTER TABLE "EventLog" RENAME tx_hash TO "txHash""#,
        ),
    ] {
        let database = with_archive(60).await;
        database.execute(what).await;
        let error =
            database.service().restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
        assert_eq!(error.code(), "host_refuses", "{what}: {error:?}");
        assert!(error.to_string().contains(named), "{error}");
        database.execute(cure).await;
        database.assert_nothing_lost_or_doubled().await;
        assert_eq!(restore(&database.service(), &everything()).await.logs_restored, 60);
    }
}

#[tokio::test]
async fn a_restored_log_that_is_not_recorded_as_such_does_not_leave_the_archive() {
    let database = with_archive(60).await;
    database
        .execute(
            r#"CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
               CREATE TRIGGER swallow BEFORE INSERT ON "RestoredLog" FOR EACH ROW EXECUTE FUNCTION swallow()"#,
        )
        .await;
    let error =
        database.service().restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
    assert!(error.code() == "host_refuses" && error.to_string().contains("from being recorded"), "{error:?}");
    assert_eq!(database.count(r#""StreamArchive""#).await, 60);
}

#[tokio::test]
async fn a_restore_under_row_security_without_a_policy_for_insertions_is_refused_as_archiving_is() {
    let database = with_archive(60).await;
    database
        .execute(
            r#"ALTER TABLE "EventLog" ENABLE ROW LEVEL SECURITY;
               CREATE POLICY reads ON "EventLog" FOR SELECT USING (true)"#,
        )
        .await;
    let maintainer = crate::roles::login(&database, "guest", crate::roles::MAINTAIN).await;
    let error =
        maintainer.service().restore(Trigger::Cli, &everything(), time(NOW), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "rows_hidden", "{error:?}");
}

#[tokio::test]
async fn logs_without_a_stream_and_into_a_table_with_new_identity_columns_are_restored() {
    let database = TestDatabase::of_host().await;
    database.insert_stream("s2", Some("42"), "1").await;
    database.insert_events(60, "2025-12-31 23:00:00").await;
    database
        .execute(
            r#"ALTER TABLE "EventLog" ALTER "streamId" DROP NOT NULL; UPDATE "EventLog" SET "streamId" = NULL WHERE ledger = 7"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    archive(&database).await;
    database
        .execute(
            r#"ALTER TABLE "EventLog" ADD always BIGINT GENERATED ALWAYS AS IDENTITY, ADD given BIGINT GENERATED BY DEFAULT AS IDENTITY"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    database.service().hold_stream(&stream("another"), "a case", "ann").await.unwrap();
    let run = restore(&database.service(), &everything()).await;
    assert_eq!((run.logs_restored, run.conflicts, run.held_back.len()), (60, 0, 0), "{run:?}");
    assert_eq!(database.count(r#""EventLog" WHERE always > 0 AND given > 0"#).await, 60);
}

#[tokio::test]
async fn of_each_lane_one_run_is_under_way_and_a_rollback_has_both() {
    let database = with_archive(60).await;
    let service = database.service_with(small());
    let (at_once, never) = (Deadline::after(Duration::ZERO), Deadline::never());
    restore_with(&database, Fate::Held).await;
    let error = service.restore(Trigger::Cli, &of_stream("42"), time(NOW), &never).await.unwrap_err();
    assert!(matches!(&error, Error::UnderWay { progress, .. } if is_of(progress, Scope::Restore)), "{error:?}");
    let error = service.restore_all(Trigger::Cli, true, time(NOW), &never).await.unwrap_err();
    assert!(matches!(&error, Error::UnderWay { progress, .. } if is_of(progress, Scope::Restore)), "{error:?}");
    database.execute(r#"UPDATE "MaintenanceRun" SET "leaseHolder" = NULL, token = NULL, "leaseExpiresAt" = NULL, status = 'interrupted' WHERE scope = 'restore'"#).await;
    let error = service.restore_all(Trigger::Cli, true, time(NOW), &never).await.unwrap_err();
    assert!(matches!(&error, Error::RollbackRefused { reason } if reason.contains("(restore) is open")), "{error:?}");

    // Beside it another run; both are ended by one command.
    database.insert_event("due", "42", "2026-01-10 00:00:00").await;
    let other = service.run_maintenance(Trigger::Cli.request(), time(NOW), &at_once).await.unwrap();
    assert!(!other.complete);
    let open: Vec<_> = service.list_open_maintenance_runs().await.unwrap().iter().map(|run| run.scope).collect();
    assert_eq!(open, [Scope::Maintenance, Scope::Restore]);
    assert_eq!(service.find_open_maintenance_run().await.unwrap().unwrap().id, other.id);
    let cancelled = service.cancel_maintenance().await.unwrap();
    assert_eq!(cancelled.len(), 2);
    assert!(cancelled.iter().all(|run| run.stop_reason == Some(StopReason::Cancelled) && run.finished_at.is_some()));

    // A rollback excludes both, also when neither knows of it.
    let rollback = service.restore_all(Trigger::Cli, true, time(NOW), &at_once).await.unwrap();
    assert!(!rollback.complete);
    for scope in [Scope::Restore, Scope::Maintenance] {
        let error = match scope {
            Scope::Restore => service.restore(Trigger::Cli, &everything(), time(NOW), &never).await,
            _ => service.run_maintenance(Trigger::Cli.request(), time(NOW), &never).await,
        };
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::UnderWay { run, .. } if *run == rollback.id), "{error:?}");
    }
    assert_eq!(service.list_open_maintenance_runs().await.unwrap().len(), 1);
    service.cancel_maintenance().await.unwrap();
    assert!(archive(&database).await.complete);
}

#[tokio::test]
async fn of_restores_and_rollbacks_at_once_none_runs_beside_a_rollback() {
    let database = with_archive(40).await;
    for _ in 0..5 {
        let service = database.service_with(small());
        let at_once = Deadline::after(Duration::ZERO);
        let (everything, of_stream) = (everything(), of_stream("42"));
        let (first, second, third, fourth) = tokio::join!(
            service.restore(Trigger::Cli, &everything, time(NOW), &at_once),
            service.restore_all(Trigger::Cli, true, time(NOW), &at_once),
            service.restore(Trigger::Cli, &of_stream, time(NOW), &at_once),
            service.restore_all(Trigger::Cli, true, time(NOW), &at_once),
        );
        for result in [first, second, third, fourth] {
            let known = |error: &Error| matches!(error, Error::UnderWay { .. } | Error::RollbackRefused { .. });
            assert!(result.as_ref().err().is_none_or(known), "{result:?}");
        }
        let open: Vec<_> = service.list_open_maintenance_runs().await.unwrap().iter().map(|run| run.scope).collect();
        assert!(open == [Scope::Restore] || open == [Scope::Rollback] || open.is_empty(), "{open:?}");
        service.cancel_maintenance().await.unwrap();
    }
    database.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_run_whose_archiving_fails_does_not_keep_the_months_snapshots_from_being_taken() {
    for scheduled in [true, false] {
        for first in [Scope::Archive, Scope::Maintenance] {
            let database = TestDatabase::migrated().await;
            database.insert_stream("s1", Some("42"), "1").await;
            database.insert_events(30, "2026-01-10 00:00:00").await;
            let service = database.service_with(Settings { max_archive_rows: Some(10), ..small() });
            let never = Deadline::never();
            let error = match first {
                Scope::Archive => {
                    service.create_monthly_snapshots(Trigger::Api, time(NOW), &never).await.unwrap();
                    service.archive_old_logs(Trigger::Api, time(NOW), &never).await
                }
                _ => service.run_maintenance(Trigger::Cli.request(), time(NOW), &never).await,
            };
            assert_eq!(error.unwrap_err().code(), "too_many_rows");
            database.insert_stream("s2", Some("43"), "1").await;
            if scheduled {
                let period = "2026-05".parse().unwrap();
                let request = Trigger::Schedule { period }.request();
                let error = service.run_maintenance(request, time(NOW), &never).await.unwrap_err();
                assert_eq!(error.code(), "too_many_rows", "its own");
            } else {
                let run = service.create_monthly_snapshots(Trigger::Api, time(NOW), &never).await.unwrap();
                assert_eq!((run.scope, run.complete), (Scope::Snapshots, true));
            }
            assert_eq!(database.count(r#""StreamSnapshot""#).await, 2, "{scheduled} {first:?}");
            let runs = service.list_maintenance_runs(&PageRequest::first()).await.unwrap().items;
            let given_up = runs.iter().find(|run| run.scope == first && run.period.is_none()).unwrap();
            assert_eq!((given_up.status, given_up.finished_at.is_some()), (RunStatus::Failed, true));
            assert!(given_up.error.as_ref().unwrap().ends_with("given up, so that other runs can start"));
        }
    }
}

#[tokio::test]
async fn logs_are_restored_and_archived_at_once_while_the_host_writes_and_each_is_in_one_place() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    // Three months that are archived, and three that are due.
    database.insert_events(6_000, "2025-08-01 00:00:00").await;
    database
        .execute(
            r#"UPDATE "EventLog" SET "createdAt" = "createdAt" + ledger % 6 * interval '1 month', "txHash" = "txHash" || id;
               CREATE TABLE later AS SELECT * FROM "EventLog" WHERE "createdAt" >= '2025-11-01';
               DELETE FROM "EventLog" WHERE "createdAt" >= '2025-11-01'"#,
        )
        .await;
    archive(&database).await;
    database.execute(r#"INSERT INTO "EventLog" SELECT * FROM later"#).await;
    database
        .execute(
            r#"CREATE TABLE remembered AS SELECT id, row_to_json(e)::text AS event FROM (
                   SELECT * FROM "EventLog" UNION ALL
                   SELECT id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", sender, receiver, amount,
                       metadata, parent_hash, entry_hash, "createdAt" FROM "StreamArchive") e"#,
        )
        .await;
    let settings =
        || Settings { batch_rows: 50, workers: 2, lock_timeout: Duration::from_secs(20), ..Settings::default() };
    let maintaining = SnapshotService::new(
        snapshot_service::database::connect_pool(&database.url.parse().unwrap(), "maintain", 6).await.unwrap(),
        settings(),
    );
    let restoring = database.service_with(settings());
    let never = Deadline::never();
    let done = std::sync::atomic::AtomicBool::new(false);
    let writer = async {
        let mut written = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            // Old and new ones, so that some are due to the run under way.
            let (old, new) = (format!("old{written}"), format!("new{written}"));
            database.insert_event(&old, "42", &format!("2025-{:02}-20 00:00:00", 8 + written % 5)).await;
            database.insert_event(&new, "42", "2026-05-20 00:00:00").await;
            database
                .execute(&format!(
                    r#"INSERT INTO remembered SELECT id, row_to_json(e)::text FROM (
                           SELECT id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", sender, receiver,
                               amount, metadata, parent_hash, entry_hash, "createdAt" FROM "StreamHistory") e
                       WHERE id IN ('{old}', '{new}')"#
                ))
                .await;
            written += 1;
        }
        written
    };
    let everything = everything();
    let work = async {
        let mut restored = 0;
        let mut archived = 0;
        for round in 0..3 {
            let (maintained, run) = tokio::join!(
                maintaining.run_maintenance(Trigger::Cli.request(), time(NOW), &never),
                restoring.restore(Trigger::Cli, &everything, time(NOW), &never),
            );
            let (maintained, run) = (maintained.unwrap(), run.unwrap());
            assert!(maintained.complete && run.complete, "{round}: {maintained:?} {run:?}");
            assert_eq!((maintained.conflicts, run.conflicts), (0, 0), "{round}");
            restored += run.logs_restored;
            archived += maintained.logs_archived;
            restoring.release_restored_logs(&snapshot_service::ReleaseRequest::default()).await.unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (restored, archived)
    };
    let ((restored, archived), written) = tokio::join!(work, writer);
    assert!(restored >= 3_000 && archived >= 3_000 && written > 5, "{restored} {archived} {written}");
    database.assert_nothing_lost_or_doubled().await;
    let end = archive(&database).await;
    assert!(end.complete);
    database.assert_nothing_lost_or_doubled().await;
}
