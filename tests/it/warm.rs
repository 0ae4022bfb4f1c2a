//! Reads on a connection that has read before, whose session keeps the plans of its statements.

use snapshot_service::database::{connect_pool, migrate};
use snapshot_service::{ArchiveFilter, Deadline, PageRequest, Settings, SnapshotService, StreamEvent, Trigger};

use crate::support::{TestDatabase, read_archive, stream, time};

const NOW: &str = "2026-05-31T02:00:00Z";

/// More often than PostgreSQL plans a statement before it thinks of keeping the plan.
const OFTEN: usize = 7;

/// A service on one connection.
async fn on_one_connection(database: &TestDatabase) -> SnapshotService {
    let pool = connect_pool(&database.url.parse().unwrap(), "warm", 1).await.unwrap();
    SnapshotService::new(pool, Settings::default())
}

/// Stream `7`, on chain `42`, with ten events of each month from `first` on.
async fn with_months(first: &str, months: u32) -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("7", Some("42"), "1").await;
    database.insert_months(first, months, 10).await;
    database
}

async fn archive(database: &TestDatabase, now: &str) {
    database.service().run_maintenance(Trigger::Api.request(), time(now), &Deadline::never()).await.unwrap();
}

async fn read_events(service: &SnapshotService) -> Vec<StreamEvent> {
    let page = PageRequest::new(1000, None).unwrap();
    service.list_stream_events(&stream("42"), &ArchiveFilter::default(), &page).await.unwrap().items
}

/// How many of each kind the readers show: snapshots, events, archived ones, and those since the first snapshot.
async fn count_all(service: &SnapshotService) -> [usize; 4] {
    let page = PageRequest::new(1000, None).unwrap();
    let snapshots = service.get_stream_snapshots(&stream("42"), &page).await.unwrap().items;
    if let Some(last) = snapshots.last() {
        let found = service.get_snapshot(&stream("42"), last.snapshot_month).await.unwrap();
        assert_eq!(found.map(|found| found.id).as_ref(), Some(&last.id));
    }
    let archived = read_archive(service, "42", &ArchiveFilter::default(), 1000).await;
    let page = PageRequest::new(1000, None).unwrap();
    let state = service.get_stream_state(&stream("42"), time("2100-01-01T00:00:00Z"), &page).await.unwrap();
    [snapshots.len(), read_events(service).await.len(), archived.len(), state.events.len()]
}

#[tokio::test]
async fn the_host_adds_alters_and_drops_columns_between_two_reads_of_one_session() {
    let database = with_months("2025-12-01", 6).await;
    archive(&database, NOW).await;
    let service = on_one_connection(&database).await;
    let mut expected = [0; 4];
    for _ in 0..OFTEN {
        expected = count_all(&service).await;
    }
    assert_eq!(expected[..3], [1, 60, 30]);
    for change in [
        r#"ALTER TABLE "EventLog" ADD note TEXT DEFAULT 'new', ADD fee NUMERIC DEFAULT 9007199254740993"#,
        // Names that the service's functions have, too.
        r#"ALTER TABLE "EventLog" ADD its TEXT DEFAULT 'a', ADD low INT DEFAULT 1, ADD high INT DEFAULT 2, ADD page TEXT, ADD most INT,
           ADD known TEXT[], ADD n INT, ADD stream TEXT, ADD names TEXT[], ADD event TEXT, ADD wire_forms TEXT, ADD after_id TEXT,
           ADD "from" TIMESTAMP, ADD snapshot TEXT, ADD max_bytes INT"#,
        r#"ALTER TABLE "Stream" ADD name TEXT DEFAULT 'a', ADD live TEXT, ADD known INT, ADD names TEXT[], ADD contract TEXT DEFAULT 'b'"#,
        r#"ALTER TABLE "EventLog" ALTER amount TYPE NUMERIC, ALTER ledger TYPE BIGINT, ALTER metadata TYPE JSONB USING NULL"#,
        r#"CREATE TYPE kind AS ENUM ('withdraw'); ALTER TABLE "EventLog" ALTER "eventType" TYPE kind USING "eventType"::kind"#,
        r#"ALTER TABLE "EventLog" ALTER "eventType" TYPE TEXT; DROP TYPE kind"#,
        r#"ALTER TABLE "EventLog" ALTER "createdAt" TYPE TIMESTAMPTZ USING "createdAt" AT TIME ZONE 'UTC'"#,
        r#"ALTER TABLE "EventLog" ALTER id TYPE VARCHAR(40), ALTER "streamId" TYPE VARCHAR(40)"#,
        r#"ALTER TABLE "EventLog" DROP metadata, DROP "eventIndex", DROP entry_hash, DROP its"#,
        r#"DROP INDEX "EventLog_streamId_createdAt_idx""#,
        r#"DROP INDEX "EventLog_streamId_idx""#,
        r#"ALTER TABLE "EventLog" ADD metadata TEXT"#,
        r#"ALTER TABLE "Stream" ALTER id TYPE VARCHAR(40), ALTER "createdAt" TYPE TIMESTAMPTZ"#,
        r#"ALTER TABLE "Stream" ALTER id TYPE BIGINT USING id::bigint"#,
        r#"ALTER TABLE "Stream" ALTER id TYPE TEXT, DROP "createdAt""#,
        r#"ALTER TABLE "Stream" DROP "streamId""#,
        r#"ALTER TABLE "Stream" RENAME TO streams; CREATE VIEW "Stream" AS SELECT id, '42'::text AS "streamId" FROM streams"#,
        r#"ALTER TABLE "EventLog" RENAME TO log; CREATE TABLE "EventLog" (LIKE log); INSERT INTO "EventLog" SELECT * FROM log"#,
    ] {
        database.execute(change).await;
        for _ in 0..2 {
            assert_eq!(count_all(&service).await, expected, "after {change}");
        }
        let events = read_events(&service).await;
        let newest = serde_json::to_value(&events[0]).unwrap();
        assert_eq!((&newest["note"], &newest["fee"]), (&"new".into(), &"9007199254740993".into()), "after {change}");
    }
}

#[tokio::test]
async fn months_that_are_archived_between_two_reads_of_one_session_are_shown() {
    let database = with_months("2025-10-01", 8).await;
    archive(&database, "2026-02-01T02:00:00Z").await;
    let service = on_one_connection(&database).await;
    for _ in 0..OFTEN {
        assert_eq!(count_all(&service).await[1..3], [80, 11]);
    }
    for (now, archived) in [("2026-03-01T02:00:00Z", 21), ("2026-05-31T02:00:00Z", 50)] {
        archive(&database, now).await;
        assert_eq!(count_all(&service).await[1..3], [80, archived]);
    }
    database.execute("DROP FUNCTION stream_event_list, stream_snapshot_list, stream_identity_look_up").await;
    migrate(&database.pool).await.unwrap();
    assert_eq!(count_all(&service).await[..3], [3, 80, 50], "the functions are others");
    assert!(service.get_snapshot(&stream("7"), "2026-03".parse().unwrap()).await.unwrap().is_some());
}

/// The plan that a session keeps goes through the index to the page's end, also where statistics say nothing of the stream.
#[tokio::test]
async fn a_page_reads_no_more_rows_than_it_shows() {
    let database = TestDatabase::migrated().await;
    database
        .execute(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'e' || i, CASE i % 2 WHEN 0 THEN 'even' ELSE 'odd' END, CASE WHEN i % 2 < 1 OR i % 10 = 3 THEN '42' ELSE (i % 3000)::text END,
                      't' || i, i, 'then', timestamp '2025-11-01' + i * interval '10 minutes'
               FROM generate_series(1, 30000) i"#,
        )
        .await;
    archive(&database, NOW).await;
    database.execute("ANALYZE").await;
    let pages = [
        ("stream_event_list", "NULL, NULL, NULL, NULL, NULL"),
        ("stream_event_list", "NULL, NULL, NULL, '2026-05-01', 'x'"),
        ("stream_event_list", "NULL, NULL, NULL, '2026-01-15', 'x'"),
        ("stream_event_list", "'2025-12-01', '2026-02-10', 'even', NULL, NULL"),
        ("stream_event_list_oldest_first", "NULL, NULL, NULL, NULL, NULL"),
        ("stream_event_list_oldest_first", "'2026-01-01', NULL, NULL, '2026-03-15', 'x'"),
        ("stream_archive_list", "NULL, NULL, NULL, NULL, NULL"),
        ("stream_archive_list", "NULL, '2026-02-01', 'even', '2026-01-15', 'x'"),
    ];
    let client = database.client().await;
    let rows_read = r"SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables
                       WHERE relname = 'EventLog' OR relname LIKE 'StreamArchive%'";
    for (function, filter) in pages {
        client.batch_execute("BEGIN").await.unwrap();
        let before: i64 = client.query_one(rows_read, &[]).await.unwrap().get(0);
        let page = format!("SELECT count(id) FROM {function}('42', {filter}, 51, 4000000, NULL)");
        let shown: i64 = client.query_one(&page, &[]).await.unwrap().get(0);
        let read = client.query_one(rows_read, &[]).await.unwrap().get::<_, i64>(0) - before;
        client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(shown, 51, "{page}");
        // A page of each table; of two in three rows the type.
        assert!(read < 250, "{page} reads {read} rows");
    }
}
