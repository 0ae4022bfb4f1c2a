//! Hosts whose rows are not what one expects: every stream has its snapshot all the same, and readers answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapshot_service::database::migrate;
use snapshot_service::{
    ArchiveFilter, Boundary, Cursor, Deadline, PageRequest, Settings, StreamSnapshot, Trigger, VerificationRequest,
};

use crate::support::lambda::{sample_event, start_function};
use crate::support::{TestDatabase, read_archive, stream, time};

const NOW: &str = "2026-03-15T12:00:00Z";

/// Streams `s1`, ... with contract ids 1, ...
async fn with_streams(count: u32) -> TestDatabase {
    let database = TestDatabase::migrated().await;
    for number in 1..=count {
        database.insert_stream(&format!("s{number}"), Some(&number.to_string()), "1000").await;
    }
    database
}

/// Takes the snapshots, in batches of three, and returns how many.
async fn take_snapshots(database: &TestDatabase) -> u64 {
    let service = database.service_with_batches_of(3);
    let run = service.create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.complete);
    run.snapshots_created
}

async fn snapshot_of(database: &TestDatabase, id: &str) -> StreamSnapshot {
    database.service().get_snapshot(&stream(id), "2026-03".parse().unwrap()).await.unwrap().unwrap()
}

async fn state_of(database: &TestDatabase, id: &str) -> Value {
    serde_json::from_str(snapshot_of(database, id).await.state.unwrap().get()).unwrap()
}

/// The database as a new login of the service's role sees it.
async fn login(database: &TestDatabase, role: &str) -> TestDatabase {
    let name: String = database.value(&format!("SELECT 'odd_{role}_' || current_database()")).await;
    database.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE snapshot_service_{role}")).await;
    let (_, place) = database.url.split_once('@').unwrap();
    TestDatabase::adopt(format!("postgres://{name}:secret@{place}")).await
}

#[tokio::test]
async fn json_that_jsonb_cannot_hold_costs_nobody_the_snapshot_and_is_served_as_it_is() {
    let database = with_streams(7).await;
    database
        .execute(
            r#"ALTER TABLE "Stream" ADD notes JSON, ADD tags TEXT[] DEFAULT '{a,"b c"}';
               UPDATE "Stream" SET notes = '{"nul":"\u0000"}' WHERE id = 's2';
               UPDATE "Stream" SET notes = '["\ud800", "\udc00\ud800", 1e400]' WHERE id = 's3';
               UPDATE "Stream" SET notes = '"\udead"' WHERE id = 's4';
               UPDATE "Stream" SET notes = E'{"a":\n1, "a": 2}' WHERE id = 's5'"#,
        )
        .await;
    assert_eq!(take_snapshots(&database).await, 7);
    for (id, wanted) in [
        ("s2", r#""notes":{"nul":"\u0000"}"#),
        ("s3", r#""notes":["\ud800", "\udc00\ud800", 1e400]"#),
        ("s4", r#""notes":"\udead""#),
        ("s5", "\"notes\":{\"a\":\n1, \"a\": 2}"),
    ] {
        let text = serde_json::to_string(&snapshot_of(&database, id).await).unwrap();
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains(r#""tags":["a","b c"]"#), "{text}");
    }
    let service = database.service();
    let mut lines = 0;
    service
        .write_snapshots(|line| {
            lines += 1;
            assert!(!line.contains('\n'), "{line}");
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(lines, 7);
}

#[tokio::test]
async fn every_column_may_be_null_and_a_column_may_be_gone_or_of_another_type() {
    let database = with_streams(3).await;
    database
        .execute(
            r#"DO $$ DECLARE name text; BEGIN
                   FOR name IN SELECT attname FROM pg_attribute
                       WHERE attrelid = '"Stream"'::regclass AND attnum > 0 AND attname <> 'id' AND attnotnull
                   LOOP EXECUTE format('ALTER TABLE "Stream" ALTER %I DROP NOT NULL, ALTER %1$I DROP DEFAULT', name); END LOOP;
               END $$;
               INSERT INTO "Stream" (id) VALUES ('bare')"#,
        )
        .await;
    assert_eq!(take_snapshots(&database).await, 4);
    let bare = serde_json::to_value(snapshot_of(&database, "bare").await).unwrap();
    for name in ["sender", "receiver", "tokenAddress", "amountPerSecond", "totalAmount", "status"] {
        assert_eq!(bare[name], Value::Null, "{name}");
    }
    assert_eq!((&bare["state"]["id"], &bare["state"]["createdAt"]), (&json!("bare"), &Value::Null));

    for (change, wanted) in [
        (r#"ALTER TABLE "Stream" DROP sender"#, json!({"sender": null, "status": "ACTIVE"})),
        (r#"ALTER TABLE "Stream" ALTER duration TYPE TEXT"#, json!({"amountPerSecond": "10"})),
        (r#"UPDATE "Stream" SET duration = 'P1D'"#, json!({"amountPerSecond": null, "totalAmount": "1000"})),
        (r#"ALTER TABLE "Stream" ALTER duration TYPE NUMERIC USING 0.25"#, json!({"amountPerSecond": null})),
        (r#"ALTER TABLE "Stream" ALTER duration TYPE INTERVAL USING '1 day'"#, json!({"amountPerSecond": null})),
        (r#"ALTER TABLE "Stream" DROP duration"#, json!({"amountPerSecond": "0", "totalAmount": "1000"})),
        (r#"ALTER TABLE "Stream" ALTER amount TYPE NUMERIC USING 12"#, json!({"totalAmount": "12"})),
        (
            r#"DROP INDEX "Stream_receiver_idx"; ALTER TABLE "Stream" ALTER receiver TYPE JSON USING '["r"]'"#,
            json!({"receiver": "[\"r\"]"}),
        ),
        (
            r#"ALTER TABLE "Stream" DROP amount, DROP "tokenAddress", DROP status, DROP receiver"#,
            json!({"totalAmount": null, "tokenAddress": null, "status": null, "receiver": null, "amountPerSecond": null}),
        ),
    ] {
        database.execute(change).await;
        database.execute(r#"DELETE FROM "StreamSnapshot""#).await;
        assert_eq!(take_snapshots(&database).await, 4, "{change}");
        let snapshot = serde_json::to_value(snapshot_of(&database, "s1").await).unwrap();
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(&snapshot[name], value, "{change}: {name}");
        }
    }
}

#[tokio::test]
async fn labels_of_the_hosts_enum_may_be_renamed_and_removed_and_past_snapshots_keep_theirs() {
    let database = with_streams(2).await;
    assert_eq!(take_snapshots(&database).await, 2);
    database
        .execute(
            r#"ALTER TYPE "StreamStatus" RENAME VALUE 'ACTIVE' TO 'RUNNING';
               CREATE TYPE "StreamStatus_new" AS ENUM ('RUNNING', 'PAUSED');
               ALTER TABLE "Stream" ALTER status DROP DEFAULT,
                   ALTER status TYPE "StreamStatus_new" USING status::text::"StreamStatus_new";
               ALTER TYPE "StreamStatus" RENAME TO "StreamStatus_old";
               ALTER TYPE "StreamStatus_new" RENAME TO "StreamStatus";
               DROP TYPE "StreamStatus_old""#,
        )
        .await;
    let run = database
        .service()
        .create_monthly_snapshots(Trigger::Api, time("2026-04-01T02:00:00Z"), &Deadline::never())
        .await;
    assert_eq!(run.unwrap().snapshots_created, 2);
    let statuses: Vec<String> = database
        .value(
            r#"SELECT array_agg(status || ' ' || (state ->> 'status') ORDER BY "snapshotMonth")
               FROM "StreamSnapshot" WHERE "streamId" = 's1'"#,
        )
        .await;
    assert_eq!(statuses, ["ACTIVE ACTIVE", "RUNNING RUNNING"]);
    database.execute(r#"ALTER TABLE "Stream" ALTER status TYPE TEXT; DROP TYPE "StreamStatus""#).await;
    let run = database
        .service()
        .create_monthly_snapshots(Trigger::Api, time("2026-05-01T02:00:00Z"), &Deadline::never())
        .await;
    assert_eq!(run.unwrap().snapshots_created, 2);
}

#[tokio::test]
async fn a_state_has_times_and_large_numbers_as_they_are_served_also_behind_domains_and_out_of_range() {
    let database = with_streams(1).await;
    database
        .execute(
            r#"CREATE DOMAIN whole AS BIGINT; CREATE DOMAIN larger AS whole; CREATE DOMAIN moment AS TIMESTAMPTZ;
               ALTER TABLE "Stream"
                   ADD a larger DEFAULT 9007199254740993, ADD b NUMERIC DEFAULT 'NaN',
                   ADD c TIMESTAMP DEFAULT '2026-01-02 03:04:05.678999', ADD d moment DEFAULT '2026-01-01T00:00:00+02',
                   ADD e TIMESTAMP DEFAULT 'infinity', ADD f TIMESTAMP DEFAULT '0044-03-15 BC',
                   ADD g TIMESTAMPTZ DEFAULT '-infinity', ADD h TIMESTAMPTZ DEFAULT '52026-01-01 00:00:00+00',
                   ADD i TIMESTAMP DEFAULT '0001-01-01', ADD j JSONB DEFAULT '[1]', ADD "{columns} ""?" INTEGER DEFAULT 7"#,
        )
        .await;
    assert_eq!(take_snapshots(&database).await, 1);
    let state = state_of(&database, "s1").await;
    for (name, wanted) in [
        ("a", json!("9007199254740993")),
        ("b", json!("NaN")),
        ("c", json!("2026-01-02T03:04:05.678Z")),
        ("d", json!("2025-12-31T22:00:00.000Z")),
        ("e", json!("infinity")),
        ("f", json!("0044-03-15 00:00:00 BC")),
        ("g", json!("-infinity")),
        ("h", json!("52026-01-01 00:00:00+00")),
        ("i", json!("0001-01-01T00:00:00.000Z")),
        ("j", json!([1])),
        ("{columns} \"?", json!(7)),
    ] {
        assert_eq!(state[name], wanted, "{name}");
    }
}

#[tokio::test]
async fn whatever_is_in_the_place_of_stream_each_id_gets_one_snapshot() {
    let partitions = |by: &str, parts: &str| {
        format!(
            r#"ALTER TABLE "Stream" RENAME TO base;
               CREATE TABLE "Stream" (LIKE base INCLUDING DEFAULTS) PARTITION BY {by}; {parts}
               INSERT INTO "Stream" SELECT * FROM base"#
        )
    };
    let part = |name: &str, bounds: &str| format!(r#"CREATE TABLE {name} PARTITION OF "Stream" {bounds};"#);
    for change in [
        partitions("RANGE (id)", &(part("p1", "FOR VALUES FROM (MINVALUE) TO ('s3')") + &part("p2", "DEFAULT"))),
        partitions(
            "HASH (id)",
            &(part("p1", "FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
                + &part("p2", "FOR VALUES WITH (MODULUS 2, REMAINDER 1)")),
        ),
        partitions("LIST (legacy)", &(part("p1", "FOR VALUES IN (true)") + &part("p2", "FOR VALUES IN (false)"))),
        r#"ALTER TABLE "Stream" RENAME TO base; CREATE VIEW "Stream" AS SELECT * FROM base"#.into(),
        r#"ALTER TABLE "Stream" RENAME TO base; CREATE MATERIALIZED VIEW "Stream" AS SELECT * FROM base"#.into(),
        r#"ALTER TABLE "Stream" RENAME TO base;
           CREATE VIEW "Stream" AS SELECT * FROM base UNION ALL SELECT * FROM base
               UNION ALL (SELECT NULL, 'x', b."txHash", b.version, b.sender, b.receiver, b.contract_id, b."tokenAddress",
                   b.amount, b.duration, b.status, b.withdrawn, b.legacy, b.migrated, b."isPrivate", b.yield_enabled,
                   b."vaultContractId", b."vaultShareBalance", b."vaultRatioScale", b."accruedInterest",
                   b."lastYieldAccrualAt", b."isDust", b."affiliateId", b."createdAt" FROM base b LIMIT 1)"#
            .into(),
    ] {
        let database = with_streams(10).await;
        database.execute(r#"UPDATE "Stream" SET legacy = id < 's5'"#).await;
        database.execute(&change).await;
        assert_eq!(take_snapshots(&database).await, 10, "{change}");
        assert_eq!(database.count(r#""StreamSnapshot""#).await, 10, "{change}");
        let right = r#""StreamSnapshot" t JOIN base s ON s.id = t."streamId"
            WHERE t.state ->> 'txHash' = s."txHash" AND (t.state ->> 'legacy')::boolean = s.legacy"#;
        assert_eq!(database.count(right).await, 10, "{change}");
        assert_eq!(database.count(r#""StreamIdentity""#).await, 10, "{change}");
        assert_eq!(take_snapshots(&database).await, 0, "{change}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_costs_nobody_else_the_snapshot() {
    for (column, expression) in
        [("version", "10 / (version - 1)"), ("sender", "(version - 1)::text || (1 / (version - 1))::text")]
    {
        let database = with_streams(20).await;
        // Of one stream a column cannot be computed.
        database
            .execute(&format!(
                r#"UPDATE "Stream" SET version = 2 WHERE id NOT IN ('s4', 's13');
                   ALTER TABLE "Stream" RENAME TO base; ALTER TABLE base RENAME "{column}" TO former;
                   ALTER TABLE base ADD copy INTEGER; UPDATE base SET copy = {};
                   CREATE VIEW "Stream" AS SELECT base.*, {} AS "{column}" FROM base"#,
                if column == "version" { "former" } else { "version" },
                expression.replace("version", "copy"),
            ))
            .await;
        assert_eq!(take_snapshots(&database).await, 20, "{column}");
        let whole = r#""StreamSnapshot" t WHERE t.state ->> 'receiver' = 'GRECEIVER' AND t."totalAmount" = 1000"#;
        assert_eq!(database.count(whole).await, 20, "{column}");
        let without = format!(r#""StreamSnapshot" t WHERE NOT t.state::jsonb ? '{column}'"#);
        assert_eq!(database.count(&without).await, 2, "{column}");
        let ids: Vec<String> =
            database.value(&format!(r#"SELECT array_agg("streamId" ORDER BY "streamId") FROM {without}"#)).await;
        assert_eq!(ids, ["s13", "s4"], "{column}");
    }
}

#[tokio::test]
async fn the_empty_text_is_a_streams_id_as_any_other() {
    for others in [0, 1, 9] {
        let database = with_streams(others).await;
        database.execute(r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount) VALUES ('', 'c', 't', 'a', 'b', '1')"#).await;
        assert_eq!(take_snapshots(&database).await, u64::from(others) + 1);
        assert_eq!(database.count(r#""StreamSnapshot" WHERE "streamId" = ''"#).await, 1);
        assert_eq!(take_snapshots(&database).await, 0);
        let at_once = Deadline::after(Duration::ZERO);
        let service = database.service_with_batches_of(1);
        while !service
            .create_monthly_snapshots(Trigger::Api, time("2026-04-01T02:00:00Z"), &at_once)
            .await
            .unwrap()
            .complete
        {}
        assert_eq!(database.count(r#""StreamSnapshot" WHERE "streamId" = ''"#).await, 2);
    }
}

/// Ids and boundary of stream `s1`'s state at `at`, in pages of two.
async fn read_state(database: &TestDatabase, at: &str) -> (Vec<String>, Boundary) {
    let service = database.service();
    let mut ids = Vec::new();
    let mut request = PageRequest::new(2, None).unwrap();
    loop {
        let state = service.get_stream_state(&stream("s1"), time(at), &request).await.unwrap();
        ids.extend(state.events.into_iter().map(|entry| entry.event.id));
        let Some(cursor) = state.next_cursor else { return (ids, state.boundary) };
        let cursor = Cursor::decode(&cursor.encode(), Some(&stream("1"))).unwrap();
        request = PageRequest::new(2, Some(cursor)).unwrap();
    }
}

#[tokio::test]
async fn the_state_misses_no_event_of_an_open_transaction_and_repeats_none_whatever_the_clocks_say() {
    let database = with_streams(12).await;
    // Committed before: long ago, with a clock behind, and with one ahead.
    for (id, created_at) in
        [("long-ago", "09:00:00"), ("behind", "10:41:00"), ("just-before", "11:59:59.999"), ("ahead", "12:10:00")]
    {
        database.insert_event(id, "1", &format!("2026-03-15 {created_at}")).await;
        database.insert_event(&format!("{id}-of-another"), "2", &format!("2026-03-15 {created_at}")).await;
    }
    let mut client = database.client().await;
    let open = client.transaction().await.unwrap();
    let insert = |id: &str, created_at: &str| {
        format!(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               VALUES ('{id}', 'withdraw', '1', '{id}', 1, 'then', '2026-03-15 {created_at}')"#
        )
    };
    open.batch_execute(&insert("begun-an-hour-ago", "10:51:00")).await.unwrap();
    open.batch_execute(&insert("of-the-same-instant", "12:00:00")).await.unwrap();
    open.batch_execute(r#"UPDATE "Stream" SET status = 'CANCELED' WHERE id = 's1'"#).await.unwrap();
    assert_eq!(take_snapshots(&database).await, 12);
    open.commit().await.unwrap();
    drop(client);
    // Logged after it by a host whose clock is ten minutes behind, and ten ahead.
    database.insert_event("after-behind", "1", "2026-03-15 11:51:00").await;
    database.insert_event("after-ahead", "1", "2026-03-15 12:11:00").await;
    let wanted = ["begun-an-hour-ago", "after-behind", "of-the-same-instant", "after-ahead"].map(String::from).to_vec();
    assert_eq!(snapshot_of(&database, "s1").await.status.as_deref(), Some("ACTIVE"));
    assert_eq!(read_state(&database, "2026-03-20T00:00:00Z").await, (wanted.clone(), Boundary::Exact));
    let none = r#""StreamSnapshot" WHERE "streamId" = 's3' AND "eventIds" = '{}'"#;
    assert_eq!(database.count(none).await, 1, "that there was none is known");

    // Rows are new in the archive, and are the same events.
    let run = database
        .service()
        .archive_old_logs(Trigger::Api, time("2026-03-31T00:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    assert_eq!(run.logs_archived, 0);
    database
        .service()
        .create_monthly_snapshots(Trigger::Api, time("2026-07-01T00:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    database.service().archive_old_logs(Trigger::Api, time("2026-07-01T00:00:00Z"), &Deadline::never()).await.unwrap();
    assert_eq!(database.count(r#""EventLog""#).await, 0);
    assert_eq!(read_state(&database, "2026-03-20T00:00:00Z").await, (wanted, Boundary::Exact));
}

#[tokio::test]
async fn the_state_repeats_no_event_of_a_contract_id_that_the_stream_had_before() {
    let database = with_streams(3).await;
    assert_eq!(take_snapshots(&database).await, 3);
    for (id, contract) in [("old", "1"), ("new", "1b"), ("of-another", "2")] {
        database.insert_event(id, contract, "2026-03-31 23:59:00").await;
    }
    database.execute(r#"UPDATE "Stream" SET "streamId" = '1b' WHERE id = 's1'"#).await;
    database
        .service()
        .create_monthly_snapshots(Trigger::Api, time("2026-04-01T00:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    database.insert_event("late", "1", "2026-03-31 23:59:30").await;
    let state = read_state(&database, "2026-04-02T00:00:00Z").await;
    assert_eq!(state, (vec!["late".into()], Boundary::Exact));
}

#[tokio::test]
async fn columns_of_a_stream_that_the_host_drops_or_renames_cost_nobody_the_snapshot_and_no_reader_an_answer() {
    for change in [
        r#"ALTER TABLE "Stream" DROP "createdAt""#,
        r#"ALTER TABLE "Stream" RENAME "createdAt" TO created_at"#,
        r#"ALTER TABLE "Stream" ALTER "createdAt" DROP DEFAULT, ALTER "createdAt" TYPE BIGINT USING 5"#,
        r#"ALTER TABLE "Stream" ALTER "createdAt" DROP DEFAULT, ALTER "createdAt" TYPE TEXT USING 'some day'"#,
        r#"ALTER TABLE "Stream" DROP "streamId""#,
        r#"ALTER TABLE "Stream" RENAME "streamId" TO stream_id"#,
        r#"ALTER TABLE "Stream" DROP sender, DROP receiver, DROP amount, DROP duration, DROP status, DROP "tokenAddress""#,
        r#"CREATE TYPE state AS ENUM ('ACTIVE');
           CREATE FUNCTION say(state) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''nothing''::text';
           CREATE CAST (state AS text) WITH FUNCTION say(state) AS ASSIGNMENT;
           ALTER TABLE "Stream" ALTER status DROP DEFAULT, ALTER status TYPE state USING 'ACTIVE'"#,
    ] {
        let database = with_streams(4).await;
        database.insert_event("e1", "1", "2026-03-15 13:00:00").await;
        database.service().hold_stream(&stream("s2"), "a case", "ann").await.unwrap();
        migrate(&database.pool).await.unwrap();
        database.execute(change).await;
        migrate(&database.pool).await.unwrap();
        assert_eq!(take_snapshots(&database).await, 4, "{change}");
        let expected = if change.contains("DROP status") { None } else { Some("ACTIVE") };
        assert_eq!(snapshot_of(&database, "s1").await.status.as_deref(), expected, "{change}");
        database.service().hold_stream(&stream("s3"), "another", "ann").await.unwrap();
        let run = database.service().run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await;
        assert!(run.unwrap().complete, "{change}");
        // By what was recorded before, where "Stream" no longer says it.
        let page = database
            .service()
            .list_stream_events(&stream("s1"), &ArchiveFilter::default(), &PageRequest::first())
            .await;
        assert_eq!(page.unwrap().items.len(), 1, "{change}");
        assert_eq!(
            read_state(&database, "2026-03-20T00:00:00Z").await,
            (vec!["e1".into()], Boundary::Exact),
            "{change}"
        );
    }
}

#[tokio::test]
async fn a_missing_column_that_nothing_goes_without_is_named() {
    for (table, column, refuses_snapshots) in [
        ("Stream", "id", true),
        ("EventLog", "ledger", false),
        ("EventLog", "streamId", false),
        ("EventLog", "createdAt", false),
    ] {
        let database = with_streams(4).await;
        database.execute(&format!(r#"ALTER TABLE "{table}" RENAME "{column}" TO other"#)).await;
        let found = database.service().inspect_host().await.unwrap();
        assert!(found.iter().any(|found| found.code == "column_missing" && found.object.contains(column)), "{found:?}");
        let run = database.service().run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await;
        let error = run.unwrap_err();
        assert!(error.code() == "host_refuses" && error.to_string().contains(column), "{error:?}");
        let taken = database.count(r#""StreamSnapshot""#).await;
        assert_eq!(taken, if refuses_snapshots { 0 } else { 4 }, "{table} {column}");
    }
}

#[tokio::test]
async fn readers_answer_with_what_the_log_has_whatever_the_host_dropped_or_added() {
    let database = TestDatabase::of_host().await;
    database.insert_stream("s1", Some("1"), "1000").await;
    database.insert_event("e1", "1", "2026-03-15 13:00:00").await;
    database.insert_event("e2", "1", "2026-03-15 13:01:00").await;
    database
        .execute(
            r#"ALTER TABLE "EventLog" DROP sender, DROP metadata, DROP amount, DROP "ledgerClosedAt", ADD bytes_before INT DEFAULT 7,
                   ADD n INT DEFAULT 8, ADD since TEXT DEFAULT 'x'"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    let page =
        database.service().list_stream_events(&stream("s1"), &ArchiveFilter::default(), &PageRequest::first()).await;
    let page = page.unwrap();
    let event = serde_json::to_value(&page.items[0]).unwrap();
    assert_eq!((page.items.len(), &event["sender"], &event["bytes_before"]), (2, &Value::Null, &json!(7)));
}

#[tokio::test]
async fn streams_without_an_id_are_told_of_and_their_events_are_found_by_the_contract_id() {
    let database = with_streams(4).await;
    database.insert_event("e1", "3", "2026-03-15 13:00:00").await;
    database
        .execute(
            r#"ALTER TABLE "Stream" DROP CONSTRAINT "Stream_pkey", ALTER id DROP NOT NULL;
               UPDATE "Stream" SET id = NULL, "streamId" = "streamId" || '-x' WHERE id = 's3';
               UPDATE "EventLog" SET "streamId" = '3-x'"#,
        )
        .await;
    let run = database.service().run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.complete && run.findings.iter().any(|found| found.code == "stream_without_id"), "{run:?}");
    let page =
        database.service().list_stream_events(&stream("3-x"), &ArchiveFilter::default(), &PageRequest::first()).await;
    assert_eq!(page.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_snapshot_that_a_trigger_swallows_ends_the_run_with_an_error_and_the_others_are_taken() {
    let database = with_streams(4).await;
    database
        .execute(
            r#"CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$
                   BEGIN IF NEW."streamId" = 's3' THEN RETURN NULL; END IF; RETURN NEW; END $$;
               CREATE TRIGGER swallow BEFORE INSERT ON "StreamSnapshot" FOR EACH ROW EXECUTE FUNCTION swallow()"#,
        )
        .await;
    let service = database.service_with_batches_of(3);
    let error = service.create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err();
    assert!(error.code() == "host_refuses" && error.to_string().contains("StreamSnapshot"), "{error:?}");
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 3);
}

#[tokio::test]
async fn a_materialized_view_that_was_never_filled_is_named() {
    let database = with_streams(4).await;
    database
        .execute(
            r#"ALTER TABLE "Stream" RENAME TO base; CREATE MATERIALIZED VIEW "Stream" AS SELECT * FROM base WITH NO DATA"#,
        )
        .await;
    let service = database.service();
    let error = service.create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap_err();
    assert!(error.code() == "host_refuses" && error.to_string().contains("REFRESH MATERIALIZED VIEW"), "{error:?}");
    database.execute(r#"REFRESH MATERIALIZED VIEW "Stream""#).await;
    assert_eq!(take_snapshots(&database).await, 4);
}

#[tokio::test]
async fn nothing_about_the_log_keeps_a_snapshot_from_being_taken() {
    for trouble in [
        r#"LOCK TABLE "EventLog" IN ACCESS EXCLUSIVE MODE"#,
        r#"DROP TABLE "EventLog""#,
        r#"ALTER TABLE "EventLog" RENAME TO "Events""#,
        r#"ALTER TABLE "EventLog" RENAME "createdAt" TO created_at"#,
        r#"ALTER TABLE "EventLog" RENAME TO base; CREATE VIEW "EventLog" AS SELECT id, "streamId", "createdAt" + (1 / (ledger - 7)) * interval '1 second' AS "createdAt" FROM base"#,
    ] {
        let database = with_streams(10).await;
        database.insert_event("e1", "1", "2026-03-15 11:59:00").await;
        let mut client = database.client().await;
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(trouble).await.unwrap();
        let is_lock = trouble.starts_with("LOCK");
        let lock = if is_lock { Some(transaction) } else { transaction.commit().await.map(|()| None).unwrap() };
        let settings = Settings { batch_rows: 3, lock_timeout: Duration::from_millis(300), ..Settings::default() };
        let service = database.service_with(settings);
        let began = Instant::now();
        let run = service.create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
        assert_eq!((run.snapshots_created, run.complete), (10, true), "{trouble}");
        assert!(began.elapsed() < Duration::from_secs(8), "it waits once, and not for each batch: {trouble}");
        assert_eq!(database.count(r#""StreamSnapshot" WHERE "eventIds" IS NULL"#).await, 10, "{trouble}");
        drop(lock);
        if is_lock {
            drop(client);
            database.insert_event("e2", "1", "2026-03-15 12:30:00").await;
            let state = read_state(&database, "2026-03-20T00:00:00Z").await;
            assert_eq!(state, (vec!["e2".into()], Boundary::Unknown));
        }
    }
}

#[tokio::test]
async fn what_reads_a_filtered_table_is_refused_before_it_has_done_anything() {
    let database = with_streams(4).await;
    database.insert_event("e1", "1", "2026-03-15 11:59:00").await;
    database.insert_event("e2", "1", "2026-03-15 13:00:00").await;
    let (maintainer, reader) = (login(&database, "maintain").await, login(&database, "read").await);
    let events = async || {
        let page = PageRequest::first();
        reader.service().list_stream_events(&stream("1"), &ArchiveFilter::default(), &page).await
    };
    let month = |month: &str| time(&format!("2026-{month}-01T02:00:00Z"));
    let snapshots =
        async |now| maintainer.service().create_monthly_snapshots(Trigger::Api, now, &Deadline::never()).await;

    database.execute(r#"ALTER TABLE "Stream" ENABLE ROW LEVEL SECURITY"#).await;
    let error = snapshots(month("03")).await.unwrap_err();
    assert_eq!(error.code(), "rows_hidden");
    assert!(error.to_string().contains("Stream") && error.to_string().contains("POLICY"), "{error}");
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 0);
    let error = maintainer.service().dry_run(false, month("03"), &Deadline::never()).await.unwrap_err();
    assert_eq!(error.code(), "rows_hidden");

    database.execute(r#"CREATE POLICY everything ON "Stream" USING (true)"#).await;
    database.execute(r#"ALTER TABLE "EventLog" ENABLE ROW LEVEL SECURITY"#).await;
    assert_eq!(snapshots(month("03")).await.unwrap().snapshots_created, 4);
    assert_eq!(database.count(r#""StreamSnapshot" WHERE "eventIds" IS NULL"#).await, 4);
    assert_eq!(events().await.unwrap_err().code(), "rows_hidden");
    let page = PageRequest::first();
    let state = reader.service().get_stream_state(&stream("s1"), time("2026-03-20T00:00:00Z"), &page).await;
    assert_eq!(state.unwrap_err().code(), "rows_hidden");
    let full = VerificationRequest { full: true, ..VerificationRequest::default() };
    let verified = maintainer.service().verify_archive(full, time(NOW), &Deadline::never()).await;
    assert_eq!(verified.unwrap_err().code(), "rows_hidden");
    let mut function = start_function("list-stream-events", &[("DATABASE_URL", &reader.url)]).await;
    let mut event: Value = serde_json::from_str(&sample_event("list-stream-events")).unwrap();
    event["pathParameters"]["streamId"] = "1".into();
    event["rawQueryString"] = "".into();
    let outcome = function.invoke(&event.to_string()).await;
    assert_eq!((outcome.status(), &outcome.body()["code"]), (503, &json!("rows_hidden")));

    database.execute(r#"CREATE POLICY part ON "EventLog" USING (ledger > 7)"#).await;
    assert_eq!(events().await.unwrap_err().code(), "rows_hidden");
    database.execute(r#"DROP POLICY part ON "EventLog"; CREATE POLICY everything ON "EventLog" USING (true)"#).await;
    assert_eq!(events().await.unwrap().items.len(), 2);
    assert_eq!(snapshots(month("04")).await.unwrap().snapshots_created, 4);
    assert_eq!(database.count(r#""StreamSnapshot" WHERE "eventIds" IS NULL"#).await, 4, "those of March");
    assert_eq!(outcome_of(&mut function, &event).await, 200);
}

async fn outcome_of(function: &mut runtime_api::Function, event: &Value) -> u64 {
    function.invoke(&event.to_string()).await.status()
}

#[tokio::test]
async fn readers_answer_with_arrays_and_json_of_any_kind_as_a_state_has_them() {
    let columns = r#"ADD tags TEXT[] DEFAULT '{a,"b c",NULL}', ADD numbers INTEGER[] DEFAULT '{{1,2},{3,4}}',
        ADD kinds "StreamStatus"[] DEFAULT '{ACTIVE}', ADD "none" TEXT[] DEFAULT '{}', ADD j1 JSONB DEFAULT '[1, {"a": null}]',
        ADD j2 JSONB DEFAULT '"text"', ADD j3 JSON DEFAULT '12.50', ADD j4 JSON DEFAULT 'null', ADD j5 JSON DEFAULT '"\ud800"',
        ADD j6 JSON DEFAULT '{"\u0000": ["\udfff"]}', ADD fee NUMERIC DEFAULT 1.10, ADD seen TIMESTAMPTZ DEFAULT 'infinity',
        ADD at TIMESTAMP DEFAULT '2026-01-02 03:04:05.678999'"#;
    let database = TestDatabase::of_host().await;
    database.execute(&format!(r#"ALTER TABLE "EventLog" {columns}; ALTER TABLE "Stream" {columns}"#)).await;
    database.migrate().await;
    database.insert_stream("s1", Some("1"), "1").await;
    database.insert_event("old", "1", "2025-06-01 00:00:00").await;
    database.insert_event("new", "1", "2026-03-15 11:59:00").await;
    let service = database.service();
    service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(database.count(r#""StreamArchive""#).await, 1);
    let state = snapshot_of(&database, "s1").await.state.unwrap();
    let mut wanted = Vec::new();
    for part in [
        r#""tags":["a","b c",null]"#,
        r#""numbers":[[1,2],[3,4]]"#,
        r#""kinds":["ACTIVE"]"#,
        r#""none":[]"#,
        r#""j1":[1, {"a": null}]"#,
        r#""j2":"text""#,
        r#""j3":12.50"#,
        r#""j4":null"#,
        r#""j5":"\ud800""#,
        r#""j6":{"\u0000": ["\udfff"]}"#,
        r#""fee":"1.10""#,
        r#""seen":"infinity""#,
        r#""at":"2026-01-02T03:04:05.678Z""#,
    ] {
        assert!(state.get().contains(part), "{part} in {state}");
        wanted.push(part);
    }
    let page =
        service.list_stream_events(&stream("s1"), &ArchiveFilter::default(), &PageRequest::first()).await.unwrap();
    let logs = read_archive(&service, "1", &ArchiveFilter::default(), 10).await;
    assert_eq!((page.items.len(), logs.len()), (2, 1));
    for text in page.items.iter().map(serde_json::to_string).chain(logs.iter().map(serde_json::to_string)) {
        let text = text.unwrap();
        for part in &wanted {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    let mut function = start_function("list-stream-events", &[("DATABASE_URL", &database.url)]).await;
    let mut event: Value = serde_json::from_str(&sample_event("list-stream-events")).unwrap();
    event["pathParameters"]["streamId"] = "1".into();
    event["rawQueryString"] = "".into();
    assert_eq!(outcome_of(&mut function, &event).await, 200);
}

#[tokio::test]
async fn times_that_cannot_be_are_in_no_readers_way_and_are_counted() {
    let database = with_streams(2).await;
    for (id, created_at) in [
        ("a", "-infinity"),
        ("b", "infinity"),
        ("c", "0044-03-15 BC"),
        ("d", "10000-01-01"),
        ("e", "52026-01-01"),
        ("f", "0001-12-31 23:59:59.999 BC"),
    ] {
        database.insert_event(id, "1", created_at).await;
    }
    for (id, created_at) in
        [("first", "0001-01-01"), ("last", "9999-12-31 23:59:59.999"), ("usual", "2026-03-15 13:00:00")]
    {
        database.insert_event(id, "1", created_at).await;
    }
    database.insert_event("of-another", "2", "2026-01-01").await;
    assert_eq!(take_snapshots(&database).await, 2);
    let service = database.service();
    for limit in [1, 2, 1000] {
        let mut ids = Vec::new();
        let mut request = PageRequest::new(limit, None).unwrap();
        loop {
            let page = service.list_stream_events(&stream("s1"), &ArchiveFilter::default(), &request).await.unwrap();
            assert_eq!(page.left_out, 6);
            ids.extend(page.items.into_iter().map(|entry| entry.event.id));
            let Some(cursor) = page.next_cursor else { break };
            let cursor = Cursor::decode(&cursor.encode(), Some(&stream("1"))).unwrap();
            request = PageRequest::new(limit, Some(cursor)).unwrap();
        }
        assert_eq!(ids, ["last", "usual", "first"], "in pages of {limit}");
    }
    assert_eq!(read_state(&database, "2026-03-20T00:00:00Z").await, (vec!["usual".into()], Boundary::Exact));
    service.get_backlog(time(NOW)).await.unwrap();
    let full = VerificationRequest { full: true, ..VerificationRequest::default() };
    let verification = service.verify_archive(full, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((verification.complete, verification.rows_done), (true, 4));

    let mut function = start_function("list-stream-events", &[("DATABASE_URL", &database.url)]).await;
    let mut event: Value = serde_json::from_str(&sample_event("list-stream-events")).unwrap();
    event["rawQueryString"] = "".into();
    for (id, left_out) in [("s1", json!(6)), ("s2", Value::Null)] {
        event["pathParameters"]["streamId"] = id.into();
        let outcome = function.invoke(&event.to_string()).await;
        assert_eq!((outcome.status(), &outcome.body()["leftOut"]), (200, &left_out), "{id}");
    }
}

#[tokio::test]
async fn cursors_keep_the_microseconds_of_hosts_that_have_them() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "EventLog" ALTER "createdAt" TYPE TIMESTAMP(6)"#).await;
    database.migrate().await;
    database.insert_stream("s1", Some("1"), "1").await;
    for (month, offset) in [("2025-06", 0), ("2026-03", 20)] {
        for index in 0..20 {
            let id = format!("{:02}", (index * 7) % 20 + offset);
            database.insert_event(&id, "1", &format!("{month}-15 10:00:00.1230{:02}", index / 2)).await;
        }
    }
    let service = database.service();
    service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(database.count(r#""StreamArchive""#).await, 20);
    for limit in [1, 3, 7] {
        let mut ids = Vec::new();
        let mut request = PageRequest::new(limit, None).unwrap();
        loop {
            let page = service.list_stream_events(&stream("1"), &ArchiveFilter::default(), &request).await.unwrap();
            ids.extend(page.items.into_iter().map(|entry| entry.event.id));
            let Some(cursor) = page.next_cursor else { break };
            let cursor = Cursor::decode(&cursor.encode(), Some(&stream("s1"))).unwrap();
            request = PageRequest::new(limit, Some(cursor)).unwrap();
        }
        let wanted: Vec<String> = database
            .value(
                r#"SELECT array_agg(id ORDER BY "createdAt" DESC, id DESC) FROM (
                       SELECT id, "createdAt" FROM "EventLog" UNION ALL SELECT id, "createdAt" FROM "StreamArchive") e"#,
            )
            .await;
        assert_eq!(ids, wanted, "in pages of {limit}");
        assert_eq!(ids.len(), 40);
        assert_eq!(read_archive(&service, "1", &ArchiveFilter::default(), limit).await.len(), 20);
    }
}
