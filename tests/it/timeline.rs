use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use snapshot_service::database::migrate;
use snapshot_service::{
    ArchiveFilter, ArchivePosition, Cursor, Deadline, Error, EventPosition, PageRequest, Settings, SnapshotService,
    StatePosition, StreamEvent, StreamState, Tier, Trigger,
};
use tokio_postgres::IsolationLevel;

use crate::support::lambda::{sample_event, start_function};
use crate::support::{TestDatabase, read_archive, stream, time};

const NOW: &str = "2025-11-30T02:00:00Z";

/// Stream `s1`, on chain `42`, with 100 events, many of them in one instant: two months of them archived, one in part.
async fn over_both_tables() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    for day in ["2025-06-01", "2025-07-01", "2025-08-30", "2025-09-01", "2025-10-01"] {
        for index in 0..20 {
            // Not in the order of their ids.
            let id = format!("{:02}-{day}", (index * 7) % 20);
            database.insert_event(&id, "42", &format!("{day} 02:00:0{}", index / 8)).await;
        }
    }
    database.insert_event("foreign", "43", "2025-06-01 00:00:00").await;
    database.insert_event("foreign-too", "43", "2025-10-01 00:00:00").await;
    database.execute("SELECT stream_archive_create_partition('2025-08-01')").await;
    run(&database, NOW).await;
    // Some of one instant is archived and some is not.
    database
        .execute(
            r#"WITH moved AS (DELETE FROM "EventLog" WHERE "createdAt" = '2025-08-30 02:00:00' AND id < '10' RETURNING *)
               INSERT INTO "StreamArchive" SELECT * FROM moved"#,
        )
        .await;
    database
}

async fn run(database: &TestDatabase, now: &str) {
    let service = database.service_with(Settings { batch_rows: 10, workers: 2, ..Settings::default() });
    service.run_maintenance(Trigger::Api.request(), time(now), &Deadline::never()).await.unwrap();
    database.stop_the_clock().await;
}

/// What the former service left: a copy in the archive of a row that is still in `EventLog`.
async fn copy_to_archive(database: &TestDatabase, id: &str) {
    database.execute(&format!(r#"INSERT INTO "StreamArchive" SELECT * FROM "EventLog" WHERE id = '{id}'"#)).await;
}

fn ids(events: &[StreamEvent]) -> Vec<&str> {
    events.iter().map(|entry| entry.event.id.as_str()).collect()
}

/// A stream's whole timeline, read in pages of `limit`.
async fn read_events(service: &SnapshotService, id: &str, filter: &ArchiveFilter, limit: u16) -> Vec<StreamEvent> {
    let mut request = PageRequest::new(limit, None).unwrap();
    let mut events = Vec::new();
    loop {
        let page = service.list_stream_events(&stream(id), filter, &request).await.unwrap();
        assert!(page.items.len() <= usize::from(limit));
        events.extend(page.items);
        let Some(cursor) = page.next_cursor else { return events };
        request = PageRequest::new(limit, Some(cursor)).unwrap();
    }
}

async fn read_all(database: &TestDatabase, limit: u16) -> Vec<StreamEvent> {
    read_events(&database.service(), "42", &ArchiveFilter::default(), limit).await
}

/// Checks that there is nothing twice.
fn assert_unique(ids: &[&str]) {
    let mut unique = ids.to_vec();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
}

/// A row as the service's callers get it, by PostgreSQL's means.
const WIRE_JSON: &str = r#"
    CREATE OR REPLACE FUNCTION public.wire_json(value jsonb, described_by regclass) RETURNS jsonb LANGUAGE sql AS $$
        SELECT value || COALESCE(jsonb_object_agg(attname, CASE
            WHEN atttypid IN ('bigint'::regtype, 'numeric'::regtype) THEN value ->> attname
            ELSE to_char((value ->> attname)::timestamp, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        END), '{}')
        FROM pg_attribute
        WHERE attrelid = described_by AND attnum > 0 AND NOT attisdropped AND jsonb_typeof(value -> attname) <> 'null'
          AND atttypid IN ('bigint'::regtype, 'numeric'::regtype, 'timestamp'::regtype)
    $$"#;

/// Checks that the view has what the endpoint shows, in every field.
async fn assert_view_equals_endpoint(database: &TestDatabase) {
    database.execute(WIRE_JSON).await;
    let view: Vec<String> = database
        .value(
            r#"SELECT array_agg(entry::text ORDER BY "createdAt" DESC, id DESC) FROM (
                   SELECT id, "createdAt",
                       wire_json(to_jsonb(h), '"StreamArchive"'::regclass) - '{parent_hash,entry_hash}'::text[]
                       || jsonb_build_object('parentHash', parent_hash, 'entryHash', entry_hash) AS entry
                   FROM "StreamHistory" h WHERE "streamId" = '42') entries"#,
        )
        .await;
    let view: Vec<Value> = view.iter().map(|entry| serde_json::from_str(entry).unwrap()).collect();
    let events = read_all(database, 1000).await;
    assert_eq!(events.len(), view.len());
    for (event, row) in events.iter().zip(view) {
        assert_eq!(serde_json::to_value(event).unwrap(), row);
    }
}

#[tokio::test]
async fn the_timeline_goes_through_both_tables_in_one_order_in_pages_of_any_size() {
    let database = over_both_tables().await;
    let wanted: Vec<String> = database
        .value(
            r#"SELECT array_agg(id ORDER BY "createdAt" DESC, id DESC) FROM (
                   SELECT id, "createdAt" FROM "EventLog" WHERE "streamId" = '42'
                   UNION ALL SELECT id, "createdAt" FROM "StreamArchive" WHERE "streamId" = '42') events"#,
        )
        .await;
    assert_eq!(wanted.len(), 100);
    let mixed = r#""StreamArchive" WHERE "createdAt" IN (SELECT "createdAt" FROM "EventLog")"#;
    assert!(database.count(mixed).await > 0, "some instants are in both tables");
    for limit in [1, 7, 8, 20, 99, 100, 101, 1000] {
        let events = read_all(&database, limit).await;
        assert_eq!(ids(&events), wanted, "in pages of {limit}");
        for entry in events {
            let table = if entry.tier == Tier::Hot { "EventLog" } else { "StreamArchive" };
            assert_eq!(database.count(&format!(r#""{table}" WHERE id = '{}'"#, entry.event.id)).await, 1);
            assert_eq!(entry.event.archived_at.is_some(), entry.tier == Tier::Archived);
        }
    }
}

#[tokio::test]
async fn an_entry_is_the_archived_log_with_its_tier() {
    let database = TestDatabase::migrated().await;
    database
        .execute(r#"ALTER TABLE "EventLog" ADD fee NUMERIC DEFAULT 9007199254740993, ADD tier TEXT DEFAULT 'gold'"#)
        .await;
    migrate(&database.pool).await.unwrap();
    database.insert_event("old", "42", "2025-01-15 10:20:30.5").await;
    database.insert_event("new", "42", "2025-10-15 10:20:30.5").await;
    run(&database, NOW).await;
    let events = serde_json::to_value(read_all(&database, 10).await).unwrap();
    let entry = |id: &str, tier: &str, created_at: &str, archived_at: Value| {
        json!({
            "tier": tier, "id": id, "eventType": "withdraw", "streamId": "42", "txHash": format!("tx-{id}"),
            "eventIndex": 0, "ledger": 7, "ledgerClosedAt": "then", "sender": "GSENDER", "receiver": null,
            "amount": "9007199254740993", "metadata": "{\"a\":1}", "parentHash": null, "entryHash": null,
            "createdAt": created_at, "archivedAt": archived_at, "fee": "9007199254740993",
        })
    };
    let hot = entry("new", "hot", "2025-10-15T10:20:30.500Z", Value::Null);
    let archived = entry("old", "archived", "2025-01-15T10:20:30.500Z", "2025-11-30T02:00:00.000Z".into());
    assert_eq!(events, json!([hot, archived]));
    let text = serde_json::to_string(&read_all(&database, 1).await).unwrap();
    assert_eq!(text.matches("\"tier\"").count(), 2, "the host's column is not a second field of that name");

    let mut log =
        serde_json::to_value(&read_archive(&database.service(), "42", &ArchiveFilter::default(), 1).await[0]).unwrap();
    log["tier"] = "archived".into();
    assert_eq!(events[1], log);
}

#[tokio::test]
async fn events_are_filtered_by_time_and_type_in_both_tables() {
    let database = over_both_tables().await;
    for (table, day) in [("EventLog", "2025-10-01"), ("StreamArchive", "2025-06-01")] {
        database.execute(&format!(r#"UPDATE "{table}" SET "eventType" = 'create' WHERE id = '00-{day}'"#)).await;
    }
    let service = database.service();
    let count = async |from: Option<&str>, to: Option<&str>, event_type: Option<&str>| {
        let filter = ArchiveFilter::new(from.map(time), to.map(time), event_type.map(str::to_owned)).unwrap();
        read_events(&service, "42", &filter, 9).await.len()
    };
    assert_eq!(count(None, None, Some("create")).await, 2);
    assert_eq!(count(None, Some("2025-07-01T00:00:00Z"), Some("create")).await, 1);
    assert_eq!(count(None, None, Some("nothing")).await, 0);
    assert_eq!(count(Some("2025-07-01T00:00:00Z"), None, None).await, 80);
    assert_eq!(count(Some("2025-07-01T00:00:00Z"), Some("2025-09-02T00:00:00Z"), None).await, 60);
    let second = (Some("2025-08-30T02:00:00Z"), Some("2025-08-30T02:00:01Z"));
    assert_eq!(count(second.0, second.1, None).await, 8, "from is inclusive, to is not");
    assert_eq!(count(Some("2025-10-01T02:00:01Z"), None, None).await, 12);
}

#[tokio::test]
async fn either_id_gives_the_same_timeline_and_state_also_after_the_stream_is_gone() {
    let database = over_both_tables().await;
    let service = database.service();
    for gone in [false, true] {
        if gone {
            database.execute(r#"DELETE FROM "Stream""#).await;
        }
        let mut answers = Vec::new();
        for id in ["s1", "42"] {
            let events = read_events(&service, id, &ArchiveFilter::default(), 7).await;
            assert_eq!(events.len(), 100, "{id}");
            let state = service.get_stream_state(&stream(id), time(NOW), &PageRequest::first()).await.unwrap();
            answers.push(serde_json::to_string(&(events, state)).unwrap());
        }
        assert_eq!(answers[0], answers[1]);
    }
    assert!(read_events(&service, "nobody", &ArchiveFilter::default(), 7).await.is_empty());

    // A cursor got under one id continues under the other, in this list only.
    let first = PageRequest::new(30, None).unwrap();
    let first = service.list_stream_events(&stream("42"), &ArchiveFilter::default(), &first).await.unwrap();
    let cursor = first.next_cursor.unwrap().encode();
    let cursor_under_s1 = Cursor::decode(&cursor, Some(&stream("s1"))).unwrap();
    let rest = PageRequest::new(1000, Some(cursor_under_s1)).unwrap();
    let rest = service.list_stream_events(&stream("s1"), &ArchiveFilter::default(), &rest).await.unwrap();
    assert_eq!(rest.items.len(), 70);
    assert!(Cursor::<ArchivePosition>::decode(&cursor, Some(&stream("42"))).is_err());
    assert!(Cursor::<EventPosition>::decode(&cursor, Some(&stream("43"))).is_err());
}

#[tokio::test]
async fn a_copy_that_the_former_service_left_in_both_tables_is_shown_once_as_the_hot_one() {
    let database = over_both_tables().await;
    // One agrees; the other has another time, with which it would be on another page.
    copy_to_archive(&database, "16-2025-08-30").await;
    copy_to_archive(&database, "13-2025-08-30").await;
    database.execute(r#"UPDATE "StreamArchive" SET "createdAt" = '2025-08-01' WHERE id = '13-2025-08-30'"#).await;
    for limit in [1, 7, 1000] {
        let events = read_all(&database, limit).await;
        assert_eq!(events.len(), 100, "in pages of {limit}");
        assert_unique(&ids(&events));
        for (id, created_at) in [("16-2025-08-30", "2025-08-30T02:00:01Z"), ("13-2025-08-30", "2025-08-30T02:00:02Z")] {
            let entry = events.iter().find(|entry| entry.event.id == id).unwrap();
            assert_eq!((entry.tier, entry.event.created_at), (Tier::Hot, time(created_at)), "{id}");
        }
    }
    assert_view_equals_endpoint(&database).await;
    let logs = read_archive(&database.service(), "42", &ArchiveFilter::default(), 1000).await;
    assert!(logs.iter().any(|log| log.id == "16-2025-08-30"), "the archive shows what it has");
}

#[tokio::test]
async fn an_event_archived_between_two_pages_is_neither_skipped_nor_repeated() {
    for limit in [10, 30, 37, 50] {
        let database = over_both_tables().await;
        copy_to_archive(&database, "16-2025-08-30").await;
        // After each of the first pages a month more is archived, and the copy is settled.
        let mut runs = ["2025-12-15T02:00:00Z", "2026-01-15T02:00:00Z"].into_iter();
        let service = database.service();
        let mut request = PageRequest::new(limit, None).unwrap();
        let mut events = Vec::new();
        loop {
            let page = service.list_stream_events(&stream("42"), &ArchiveFilter::default(), &request).await.unwrap();
            events.extend(page.items);
            let Some(cursor) = page.next_cursor else { break };
            request = PageRequest::new(limit, Some(cursor)).unwrap();
            if let Some(now) = runs.next() {
                let hot = database.count(r#""EventLog""#).await;
                run(&database, now).await;
                assert!(database.count(r#""EventLog""#).await < hot);
            }
        }
        assert_eq!(events.len(), 100, "in pages of {limit}");
        assert_unique(&ids(&events));
        assert!(events.iter().any(|entry| entry.tier == Tier::Hot), "{limit}");
    }
}

/// Reads until `done`, checks that each time every one of `wanted` events is there once, and says how often.
async fn read_while_archiving(database: &TestDatabase, wanted: usize, done: &AtomicBool) -> (u32, u32) {
    let service = database.service();
    let view = r#"SELECT count(*) || ' ' || count(DISTINCT id) FROM "StreamHistory" WHERE "streamId" = '42'"#;
    let whole = PageRequest::new(1000, None).unwrap();
    let (mut reads, mut mixed) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        for limit in [1000, 100] {
            let events = read_all(database, limit).await;
            assert_eq!(events.len(), wanted);
            assert_unique(&ids(&events));
            let hot = events.iter().filter(|entry| entry.tier == Tier::Hot).count();
            mixed += u32::from(hot > 0 && hot < wanted);
        }
        let events = read_state(&service, "2025-11-01T00:00:00Z", &whole).await.unwrap().events;
        assert_eq!(events.len(), wanted);
        assert_unique(&ids(&events));

        let mut client = database.client().await;
        let transaction =
            client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await.unwrap();
        let counts: String = transaction.query_one(view, &[]).await.unwrap().get(0);
        assert_eq!(counts, format!("{wanted} {wanted}"));
        reads += 1;
    }
    (reads, mixed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_while_a_stream_is_archived_shows_each_event_once() {
    const ROWS: usize = 450;
    let database = Arc::new(TestDatabase::migrated().await);
    database.insert_stream("s1", Some("42"), "1").await;
    database
        .service()
        .create_monthly_snapshots(Trigger::Api, time("2024-12-01T02:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    // Among those of another stream, so that there is time to read.
    database.insert_events(9_000, "2025-01-01 00:00:00").await;
    database
        .execute(
            r#"UPDATE "EventLog" SET "createdAt" = timestamp '2025-01-01' + ledger % 300 * interval '1 day',
                   "streamId" = CASE WHEN ledger % 20 = 0 THEN '42' ELSE '43' END"#,
        )
        .await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (database, done) = (database.clone(), done.clone());
        async move { read_while_archiving(&database, ROWS, &done).await }
    });
    run(&database, "2026-02-15T02:00:00Z").await;
    done.store(true, Ordering::Relaxed);
    let (reads, mixed) = reader.await.unwrap();
    assert!(reads > 3 && mixed > 3, "only {reads} reads, {mixed} of them in the middle");
    assert_eq!(database.count(r#""StreamArchive""#).await, 9_000);
}

#[tokio::test]
async fn the_view_shows_what_the_endpoint_shows() {
    let database = over_both_tables().await;
    assert_view_equals_endpoint(&database).await;
    assert_eq!(database.count(r#""StreamHistory""#).await, 102);
    let columns: Vec<String> = database
        .value(
            r#"SELECT array_agg(attname::text || ' ' || format_type(atttypid, atttypmod) ORDER BY attnum) FROM pg_attribute
               WHERE attrelid = '"StreamHistory"'::regclass"#,
        )
        .await;
    let archive: Vec<String> = database
        .value(
            r#"SELECT array_agg(attname::text || ' ' || format_type(atttypid, atttypmod) ORDER BY attnum) FROM pg_attribute
               WHERE attrelid = '"StreamArchive"'::regclass AND attnum > 0"#,
        )
        .await;
    assert_eq!((columns[0].as_str(), &columns[1..]), ("tier text", &archive[..]));
}

#[tokio::test]
async fn one_streams_history_is_read_through_the_indexes_of_both_tables() {
    let database = TestDatabase::migrated().await;
    database
        .execute(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'e' || i, 'withdraw', (i % 200)::text, 't' || i, i, 'then', timestamp '2025-07-01' + i * interval '5 minutes'
               FROM generate_series(1, 30000) i"#,
        )
        .await;
    let service = database.service();
    service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    database.execute("ANALYZE").await;
    let all = r#"SELECT * FROM "StreamHistory" WHERE "streamId" = '42'"#;
    // In all, two months of the archive and the log.
    for (query, tables) in [
        (all.to_owned(), 3),
        (format!(r#"{all} AND "createdAt" >= '2025-08-15' AND "createdAt" < '2025-09-15'"#), 2),
        (format!(r#"{all} ORDER BY "createdAt" DESC, id DESC LIMIT 20"#), 3),
        (format!("{all} AND tier = 'hot'"), 1),
    ] {
        let client = database.client().await;
        let rows = client.query(&format!("EXPLAIN {query}"), &[]).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let of_the_stream = |line: &&String| line.contains("Index Cond: (") && line.contains(r#""streamId" = '42'"#);
        assert_eq!(plan.iter().filter(of_the_stream).count(), tables, "{query}: {plan:#?}");
        assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{query}: {plan:#?}");
    }
}

#[tokio::test]
async fn the_view_lets_the_host_change_its_columns_and_follows_when_migrated() {
    let database = over_both_tables().await;
    database
        .execute(
            r#"CREATE ROLE auditor; GRANT USAGE ON SCHEMA snapshot_service TO auditor; GRANT SELECT ON "StreamHistory", "EventLog", "StreamArchive" TO auditor;
               CREATE VIEW of_the_auditor AS SELECT id, tier FROM "StreamHistory""#,
        )
        .await;
    let as_auditor = r#"SET ROLE auditor; SELECT count(*) FROM "StreamHistory"; RESET ROLE"#;

    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT COLLATE "C" NOT NULL DEFAULT 'new'"#).await;
    assert_eq!(database.count(r#""StreamHistory""#).await, 102, "without the column");
    let hot = read_all(&database, 1).await;
    assert_eq!(hot[0].event.more["note"].get(), r#""new""#, "the endpoint shows it at once");
    migrate(&database.pool).await.unwrap();
    assert_eq!(database.count(r#""StreamHistory" WHERE note = 'new' AND tier = 'hot'"#).await, 55);
    assert_view_equals_endpoint(&database).await;
    database.execute(as_auditor).await;
    assert_eq!(database.count("of_the_auditor").await, 102);

    database.execute(r#"ALTER TABLE "EventLog" DROP note; UPDATE "StreamArchive" SET note = 'kept'"#).await;
    let client = database.client().await;
    assert!(client.query_one(r#"SELECT count(*) FROM "StreamHistory""#, &[]).await.is_err());
    assert_eq!(read_all(&database, 1000).await.len(), 100, "the endpoint goes on");
    migrate(&database.pool).await.unwrap();
    database.execute(as_auditor).await;
    let kept = r#""StreamHistory" WHERE note IS DISTINCT FROM (CASE tier WHEN 'archived' THEN 'kept' END)"#;
    assert_eq!(database.count(kept).await, 0, "what is archived is still there");
    assert_eq!(database.count("of_the_auditor").await, 102);

    database.execute(r#"DROP VIEW of_the_auditor; ALTER TABLE "EventLog" ALTER ledger TYPE BIGINT"#).await;
    assert_eq!(read_all(&database, 1000).await.len(), 100, "the endpoint goes on");
    migrate(&database.pool).await.unwrap();
    database.execute(as_auditor).await;
    assert_eq!(database.count(r#""StreamHistory" WHERE pg_typeof(ledger) = 'bigint'::regtype"#).await, 102);

    let view = "SELECT c.oid::text || ' ' || p.xmin FROM pg_class c, pg_proc p
                WHERE c.relname = 'StreamHistory' AND p.proname = 'stream_history'";
    let before: String = database.value(view).await;
    migrate(&database.pool).await.unwrap();
    assert_eq!(database.value::<String>(view).await, before, "nothing is made anew without need");
    database.execute("DROP OWNED BY auditor; DROP ROLE auditor").await;
}

/// Stream `s1`, on chain `42`: snapshots of August, October and November, events around them, those before 30 August archived.
async fn with_snapshots() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    for (id, created_at) in [
        ("before", "2025-07-15 00:00:00"),
        ("with-the-first", "2025-08-01 02:00:00"),
        ("e3", "2025-08-15 00:00:00"),
        ("e2", "2025-08-15 00:00:00"),
        ("e4", "2025-09-15 00:00:00"),
        ("e5", "2025-10-15 00:00:00"),
    ] {
        database.insert_event(id, "42", created_at).await;
    }
    database.insert_event("foreign", "43", "2025-08-20 00:00:00").await;
    for month in ["2025-08", "2025-10"] {
        let start = time(&format!("{month}-01T02:00:00Z"));
        database.service().create_monthly_snapshots(Trigger::Api, start, &Deadline::never()).await.unwrap();
        database.stop_the_clock().await;
        if month == "2025-08" {
            // Behind the snapshot, which would have it else.
            database.insert_event("e1", "42", "2025-08-01 02:00:00.001").await;
        }
    }
    run(&database, NOW).await;
    database
}

async fn read_state(
    service: &SnapshotService,
    at: &str,
    request: &PageRequest<StatePosition>,
) -> Result<StreamState, Error> {
    service.get_stream_state(&stream("s1"), time(at), request).await
}

#[tokio::test]
async fn the_state_at_a_time_is_the_last_snapshot_and_the_events_since() {
    let database = with_snapshots().await;
    let service = database.service();
    for (at, month, wanted) in [
        ("2025-08-01T02:00:00Z", "2025-08", [].as_slice()),
        ("2025-08-01T02:00:00.001Z", "2025-08", &["e1"]),
        ("2025-08-14T23:59:59.999999999Z", "2025-08", &["e1"]),
        ("2025-08-15T02:00:00+02:00", "2025-08", &["e1", "e2", "e3"]),
        ("2025-10-01T01:59:59.999Z", "2025-08", &["e1", "e2", "e3", "e4"]),
        ("2025-10-01T02:00:00Z", "2025-10", &[]),
        ("2025-11-01T00:00:00Z", "2025-10", &["e5"]),
        ("9999-12-31T23:59:59Z", "2025-11", &[]),
    ] {
        let state = read_state(&service, at, &PageRequest::first()).await.unwrap();
        assert_eq!((state.at, state.snapshot.snapshot_month.to_string().as_str()), (time(at), month), "{at}");
        assert_eq!((ids(&state.events), state.next_cursor.is_none()), (wanted.to_vec(), true), "{at}");
        let archived = |entry: &StreamEvent| entry.event.created_at < time("2025-08-30T02:00:00Z");
        assert!(state.events.iter().all(|entry| (entry.tier == Tier::Archived) == archived(entry)), "{at}");
    }
    let json = serde_json::to_value(read_state(&service, "2025-08-01T02:00:00Z", &PageRequest::first()).await.unwrap())
        .unwrap();
    let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["at", "boundary", "events", "snapshot"]);
}

#[tokio::test]
async fn a_time_before_the_first_snapshot_is_a_404_that_names_it() {
    let database = with_snapshots().await;
    database.insert_stream("s2", Some("44"), "1").await;
    let mut function = start_function("get-stream-state", &[("DATABASE_URL", &database.url)]).await;
    for (id, error) in [
        (
            "42",
            "no snapshot is as old as 2025-08-01T01:59:59.999Z: \
             the stream's oldest is that of 2025-08, taken at 2025-08-01T02:00:00.000Z",
        ),
        ("s2", "no snapshot is as old as 2025-08-01T01:59:59.999Z: the stream has none"),
        ("nobody", "no snapshot is as old as 2025-08-01T01:59:59.999Z: the stream has none"),
    ] {
        let mut event: Value = serde_json::from_str(&sample_event("get-stream-state")).unwrap();
        event["rawQueryString"] = "at=2025-08-01T01:59:59.999Z".into();
        event["pathParameters"]["streamId"] = id.into();
        let outcome = function.invoke(&event.to_string()).await;
        assert_eq!((outcome.status(), &outcome.body()["code"]), (404, &json!("not_found")), "{id}");
        assert_eq!(outcome.body()["error"], error);
    }
}

#[tokio::test]
async fn the_events_of_a_state_are_paged_and_the_snapshot_stays_the_same() {
    const AT: &str = "2025-09-30T00:00:00Z";
    let database = with_snapshots().await;
    let service = database.service();
    let next = |state: &StreamState, limit: u16| {
        let cursor = state.next_cursor.as_ref().unwrap().encode();
        PageRequest::new(limit, Some(Cursor::decode(&cursor, Some(&stream("42"))).unwrap())).unwrap()
    };
    for limit in [1, 2, 3, 4, 5] {
        let mut request = PageRequest::new(limit, None).unwrap();
        let mut seen = Vec::new();
        loop {
            let state = read_state(&service, AT, &request).await.unwrap();
            assert_eq!(state.snapshot.snapshot_month.to_string(), "2025-08");
            seen.extend(ids(&state.events).into_iter().map(str::to_owned));
            if state.next_cursor.is_none() {
                break;
            }
            request = next(&state, limit);
        }
        assert_eq!(seen, ["e1", "e2", "e3", "e4"], "in pages of {limit}");
    }

    let first = read_state(&service, AT, &PageRequest::new(2, None).unwrap()).await.unwrap();
    let request = next(&first, 10);
    let refused = |result: Result<StreamState, Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { field: "cursor", .. }), "{error:?}");
    };
    refused(read_state(&service, "2025-09-29T00:00:00Z", &request).await);
    // Archiving goes on, and a snapshot comes that is nearer.
    database
        .execute(
            r#"INSERT INTO "StreamSnapshot" (id, "streamId", sender, receiver, status, "snapshotMonth", "createdAt")
               VALUES ('late', 's1', 'a', 'b', 'ACTIVE', '2025-09', '2025-09-01')"#,
        )
        .await;
    run(&database, "2026-02-15T02:00:00Z").await;
    let second = read_state(&service, AT, &request).await.unwrap();
    assert_eq!(
        (second.snapshot.snapshot_month.to_string().as_str(), ids(&second.events)),
        ("2025-08", vec!["e3", "e4"])
    );
    assert_eq!(read_state(&service, AT, &PageRequest::first()).await.unwrap().snapshot.id, "late");
    // The snapshot that the cursor goes on from is retaken.
    database
        .execute(r#"UPDATE "StreamSnapshot" SET "createdAt" = '2025-08-02' WHERE "snapshotMonth" = '2025-08'"#)
        .await;
    refused(read_state(&service, AT, &request).await);
}

#[tokio::test]
async fn a_page_of_a_state_leaves_room_for_its_snapshot() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.execute(r#"ALTER TABLE "Stream" ADD notes TEXT; UPDATE "Stream" SET notes = repeat('n', 3000000)"#).await;
    database
        .service()
        .create_monthly_snapshots(Trigger::Api, time("2025-08-01T02:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    database.insert_events(5, "2025-08-02 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET metadata = repeat('m', 1000000)"#).await;
    let service = database.service();
    let first = read_state(&service, "2025-09-01T00:00:00Z", &PageRequest::first()).await.unwrap();
    assert_eq!((first.events.len(), first.next_cursor.is_some()), (2, true));

    database.execute(r#"UPDATE "EventLog" SET metadata = repeat('m', 3000000)"#).await;
    let error = read_state(&service, "2025-09-01T00:00:00Z", &PageRequest::first()).await.unwrap_err();
    assert_eq!(error.code(), "response_too_large");
    assert!(error.to_string().contains("with event e000001"), "{error}");
}
