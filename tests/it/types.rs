//! Hosts whose keys and columns have other types, and other schemas than `public`.

use snapshot_service::database::{connect_pool, migrate, migrate_with_renames};
use snapshot_service::{
    ArchiveFilter, Deadline, Month, PageRequest, ReleaseRequest, RestoreRequest, RunStatus, Settings, SnapshotService,
    Trigger, VerificationRequest, VerificationStatus,
};

use crate::support::{TestDatabase, read_archive, stream, time};

const NOW: &str = "2026-05-31T02:00:00Z";

/// Adds three streams and forty events a month from December on, with whatever types their ids have.
const ROWS: &str = r#"
    INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, "tokenAddress", amount, duration, "createdAt")
    SELECT {stream_id}, i::text, 'tx-s' || i, 's', 'r', 't', '1000', 10, '2025-11-01'
    FROM generate_series(1, 3) i;
    INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", amount, metadata, "createdAt")
    SELECT {log_id}, 'withdraw', (i % 3 + 1)::text, 'tx-' || i / 2, i % 2, i, 'then', i, '{"a": 1}',
           timestamp '2025-12-01' + i * interval '18 hours 1 minute'
    FROM generate_series(1, 240) i"#;

const UUID: &str = "md5('x' || i)::uuid";

/// A host changed by `changes`, with rows.
async fn host(changes: &str, stream_id: &str, log_id: &str) -> TestDatabase {
    let database = TestDatabase::of_host().await;
    database.execute(changes).await;
    database.execute(&ROWS.replace("{stream_id}", stream_id).replace("{log_id}", log_id)).await;
    database
}

/// Everything that the service does, on a host that is not migrated.
async fn assert_all_works(database: &TestDatabase, what: &str) {
    migrate(&database.pool).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_all_works_when_migrated(database, what).await;
}

async fn assert_all_works_when_migrated(database: &TestDatabase, what: &str) {
    database.execute("DROP TABLE IF EXISTS remembered").await;
    database
        .execute(r#"CREATE TABLE remembered AS SELECT id::text AS id, "createdAt"::timestamp AS time, row_to_json(e)::text AS event FROM "EventLog" e"#)
        .await;
    let (service, forever) = (database.service_with_batches_of(17), Deadline::never());
    let dry = service.dry_run(false, time(NOW), &forever).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &forever).await;
    let run = run.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!((run.status, run.complete, run.snapshots_created), (RunStatus::Succeeded, true, 3), "{what}: {run:?}");
    assert!(run.logs_archived > 100 && run.logs_archived == dry.logs_due, "{what}: {run:?}");
    let hot: i64 = database.count(r#""EventLog""#).await;
    let archived = run.logs_archived.cast_signed();
    assert_eq!(hot + archived, 240, "{what}");

    // By either id, each event once, hot or archived, and in order.
    let ids: Vec<String> = database.value(r#"SELECT array_agg(id::text ORDER BY "streamId") FROM "Stream""#).await;
    let mut seen = 0;
    for (index, id) in ids.iter().enumerate() {
        let contract = (index + 1).to_string();
        let snapshot = service.get_snapshot(&stream(id), Month::containing(time(NOW))).await.unwrap().unwrap();
        assert_eq!((&snapshot.stream_id, snapshot.amount_per_second.as_deref()), (id, Some("100")), "{what}");
        assert!(
            service.get_snapshot(&stream(&contract), Month::containing(time(NOW))).await.unwrap().is_some(),
            "{what}"
        );
        let logs = read_archive(&service, id, &ArchiveFilter::default(), 7).await;
        assert_eq!(logs.len(), read_archive(&service, &contract, &ArchiveFilter::default(), 50).await.len(), "{what}");
        seen += logs.len();
        let mut request = PageRequest::new(11, None).unwrap();
        let mut events = Vec::new();
        loop {
            let page = service.list_stream_events(&stream(id), &ArchiveFilter::default(), &request).await.unwrap();
            events.extend(page.items);
            let Some(cursor) = page.next_cursor else { break };
            request = PageRequest::new(11, Some(cursor)).unwrap();
        }
        assert_eq!(events.len(), 80, "{what}");
        assert!(events.is_sorted_by(|a, b| a.event.created_at >= b.event.created_at), "{what}");
        let state =
            service.get_stream_state(&stream(id), time("2026-06-01T00:00:00Z"), &PageRequest::first()).await.unwrap();
        assert_eq!(&state.snapshot.stream_id, id, "{what}");
    }
    assert_eq!(seen, usize::try_from(archived).unwrap(), "{what}");
    assert_eq!(
        database.count(r#""StreamHistory" h JOIN remembered r ON r.id = h.id::text AND r.time = h."createdAt""#).await,
        240
    );
    assert_verified(&service, what).await;

    // There and back again.
    let one = RestoreRequest::new(Some(stream(&ids[0])), None, None, None).unwrap();
    let restored = service.restore(Trigger::Cli, &one, time(NOW), &forever).await.unwrap();
    assert!(restored.logs_restored > 30 && restored.conflicts == 0, "{what}: {restored:?}");
    let all = RestoreRequest::new(None, Some(time("2025-12-01T00:00:00Z")), None, None).unwrap();
    service.restore(Trigger::Cli, &all, time(NOW), &forever).await.unwrap();
    let whole = r#""EventLog" e JOIN remembered r ON r.id = e.id::text AND r.event = row_to_json(e)::text"#;
    assert_eq!(database.count(whole).await, 240, "{what}: each is back as it was");
    assert_verified(&service, what).await;
    service.release_restored_logs(&ReleaseRequest::default()).await.unwrap();

    // Ingested again under other ids, and a hold.
    service.hold_stream(&stream(&ids[1]), "a case", "me").await.unwrap();
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &forever).await.unwrap();
    assert_eq!(
        run.held_back.iter().map(|held| held.rows).sum::<u64>() + run.logs_archived,
        archived.unsigned_abs(),
        "{what}"
    );
    service.release_hold(&stream(&ids[1]), None, "done", "me").await.unwrap();
    let run = service.restore_all(Trigger::Cli, true, time(NOW), &forever).await.unwrap();
    service.drop_all(run.id, 3).await.unwrap();
    assert_eq!(database.count(whole).await, 240, "{what}: the rollback brings all back");
}

async fn assert_verified(service: &SnapshotService, what: &str) {
    let request = VerificationRequest { full: true, ..VerificationRequest::default() };
    let verification = service.verify_archive(request, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(verification.status, VerificationStatus::Passed, "{what}: {verification:?}");
}

#[tokio::test]
async fn ids_may_have_any_type_that_a_host_gives_keys() {
    let ids = |id_type: &str| {
        format!(
            r#"ALTER TABLE "Stream" ALTER id TYPE {id_type} USING id::{id_type};
               ALTER TABLE "EventLog" ALTER id TYPE {id_type} USING id::{id_type}"#
        )
    };
    for (changes, id) in [
        (ids("uuid"), UUID),
        (ids("bigint"), "i::bigint * 1000000007"),
        (ids("integer"), "i * 7"),
        (ids("varchar(40)"), "'c' || i"),
        (ids("char(36)"), "md5('x' || i)::uuid::text"),
        (format!("CREATE DOMAIN key AS uuid; {}", ids("key")), UUID),
        (format!("CREATE DOMAIN name AS varchar(50) CHECK (VALUE <> ''); {}", ids("public.name")), "'n' || i"),
    ] {
        let database = host(&changes, id, id).await;
        assert_all_works(&database, &changes).await;
    }
}

#[tokio::test]
async fn times_may_have_a_zone_from_the_beginning_or_later() {
    let zoned = |precision: u8| {
        format!(
            r#"ALTER TABLE "EventLog" ALTER "createdAt" TYPE TIMESTAMPTZ({precision}) USING "createdAt" AT TIME ZONE 'UTC';
               ALTER TABLE "Stream" ALTER "createdAt" TYPE TIMESTAMPTZ({precision}) USING "createdAt" AT TIME ZONE 'UTC'"#
        )
    };
    for precision in [3, 6] {
        let database = host(&zoned(precision), "'s' || i", "'e' || i").await;
        // Nobody's time zone makes a difference.
        let name: String = database.value("SELECT current_database()").await;
        database.execute(&format!("ALTER DATABASE {name} SET TimeZone = 'UTC'")).await;
        assert_all_works(&database, &zoned(precision)).await;
    }
    // Changed when half of the log is archived.
    let database = host("SELECT 1", "'s' || i", "'e' || i").await;
    migrate(&database.pool).await.unwrap();
    let service = database.service();
    let run = service
        .run_maintenance(Trigger::Cli.request(), time("2026-04-30T02:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    assert!(run.logs_archived > 0);
    database.execute(&zoned(6)).await;
    let report = migrate(&database.pool).await.unwrap();
    assert_eq!(report.archive_columns_changed, [""; 0], "the archive's is what it was");
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.complete && run.logs_archived > 0, "{run:?}");
    assert_verified(&service, "changed later").await;
    let all = RestoreRequest::new(None, Some(time("2025-12-01T00:00:00Z")), None, None).unwrap();
    assert_eq!(service.restore(Trigger::Cli, &all, time(NOW), &Deadline::never()).await.unwrap().conflicts, 0);
    let same = r#""EventLog" WHERE "createdAt" = (timestamp '2025-12-01' + substr(id, 2)::int * interval '18 hours 1 minute') AT TIME ZONE 'UTC'"#;
    assert_eq!(database.count(same).await, 240);
}

#[tokio::test]
async fn columns_may_have_wider_types_and_those_of_the_host() {
    let changes = r#"
        CREATE TYPE "EventType" AS ENUM ('create', 'withdraw');
        ALTER TABLE "EventLog"
            ALTER "eventType" TYPE "EventType" USING "eventType"::"EventType", ALTER ledger TYPE BIGINT, ALTER "eventIndex" DROP DEFAULT,
            ALTER "eventIndex" TYPE BIGINT, ALTER amount TYPE NUMERIC, ALTER metadata TYPE JSONB USING metadata::jsonb,
            ALTER sender TYPE VARCHAR(60);
        ALTER TABLE "Stream" ALTER amount TYPE NUMERIC USING amount::numeric, ALTER duration TYPE BIGINT"#;
    let database = host(changes, "'s' || i", "'e' || i").await;
    database
        .execute(r#"UPDATE "EventLog" SET "eventIndex" = 5000000000 + "eventIndex", ledger = 5000000000 + ledger, amount = 340282366920938463463374607431768211455"#)
        .await;
    assert_all_works(&database, changes).await;
}

#[tokio::test]
async fn tables_may_be_in_any_two_schemas() {
    let server_database = TestDatabase::empty().await;
    let (host_schema, service_schema) = ("My \"Host\"", "the service's");
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    server_database
        .execute(&format!(
            r#"CREATE SCHEMA {host}; SET search_path = {host}; {tables}; {rows};
               CREATE TABLE public."EventLog" (mine INTEGER); CREATE TABLE public."StreamArchive" (mine INTEGER);
               RESET search_path"#,
            host = quote(host_schema),
            tables = crate::support::database::HOST_SCHEMA,
            rows = ROWS.replace("{stream_id}", "'s' || i").replace("{log_id}", "'e' || i"),
        ))
        .await;
    let variables = |name: &str| match name {
        "DATABASE_URL" => Some(server_database.url.clone()),
        "HOST_SCHEMA" => Some(host_schema.into()),
        "SERVICE_SCHEMA" => Some(service_schema.into()),
        _ => None,
    };
    let config = snapshot_service::Config::from_lookup(variables).unwrap();
    let pool = connect_pool(&config.database, "schemas", 6).await.unwrap();
    let report = migrate(&pool).await.unwrap();
    assert_eq!((report.applied.len(), report.role_warnings.len()), (7, 0), "{report:?}");
    let service = SnapshotService::new(pool.clone(), Settings::default());
    let forever = Deadline::never();
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &forever).await.unwrap();
    assert!(run.complete && run.logs_archived > 100, "{run:?}");
    let archive = format!(r#"{}."StreamArchive""#, quote(service_schema));
    assert_eq!(server_database.count(&archive).await, run.logs_archived.cast_signed());
    assert!(read_archive(&service, "s1", &ArchiveFilter::default(), 30).await.len() > 30);
    let view = format!(r#"{}."StreamHistory""#, quote(service_schema));
    assert_eq!(server_database.count(&view).await, 240);
    assert_verified(&service, "schemas").await;
    assert_eq!(service.inspect_host().await.unwrap().iter().filter(|found| found.code != "second_archive").count(), 0);
    let run = service.restore_all(Trigger::Cli, true, time(NOW), &forever).await.unwrap();
    service.drop_all(run.id, 3).await.unwrap();
    assert_eq!(server_database.count(&format!(r#"{}."EventLog""#, quote(host_schema))).await, 240);
    assert_eq!(server_database.count("pg_namespace WHERE nspname ~ 'service'").await, 0);
    assert_eq!(server_database.count(r#"public."StreamArchive""#).await, 0, "somebody else's is still there");

    let elsewhere = format!("{}?schema=nowhere", server_database.url);
    let pool = connect_pool(&elsewhere.parse().unwrap(), "schemas", 1).await.unwrap();
    let error = migrate(&pool).await.unwrap_err();
    assert_eq!(error.code(), "host_table_missing");
    assert!(error.to_string().contains("HOST_SCHEMA"), "{error}");
}

/// A host with a column that has values, half of whose log is archived; then the column is renamed.
async fn with_renamed_column(former: &str, present: &str) -> TestDatabase {
    let add = format!(r#"ALTER TABLE "EventLog" ADD {former} TEXT"#);
    let database = host(&add, "'s' || i", "'e' || i").await;
    database.execute(&format!(r#"UPDATE "EventLog" SET {former} = 'n' || id"#)).await;
    migrate(&database.pool).await.unwrap();
    let (service, april) = (database.service_with_batches_of(20), time("2026-04-30T02:00:00Z"));
    let run = service.run_maintenance(Trigger::Cli.request(), april, &Deadline::never()).await.unwrap();
    assert!(run.logs_archived > 50, "{run:?}");
    database.execute(&format!(r#"ALTER TABLE "EventLog" RENAME {former} TO {present}"#)).await;
    database
}

/// Archives the rest and brings all of it back.
async fn assert_renamed(database: &TestDatabase, present: &str) {
    let service = database.service_with_batches_of(20);
    assert_verified(&service, "renamed").await;
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.complete, "{run:?}");
    assert_verified(&service, "archived since").await;
    assert_eq!(database.count(&format!(r#""StreamHistory" WHERE {present} = 'n' || id"#)).await, 240);
    let all = RestoreRequest::new(None, Some(time("2025-12-01T00:00:00Z")), None, None).unwrap();
    let run = service.restore(Trigger::Cli, &all, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(run.conflicts, 0);
    assert_eq!(database.count(&format!(r#""EventLog" WHERE {present} = 'n' || id"#)).await, 240);
    assert_verified(&service, "restored").await;
}

#[tokio::test]
async fn a_renamed_column_is_carried_over_and_seals_stay_true() {
    let renames = |former: &str, present: &str| vec![(former.to_owned(), present.to_owned())];
    for (former, present) in [("note", "memo"), (r#""Note""#, r#""a "" memo""#)] {
        let database = with_renamed_column(former, present).await;
        let name = |quoted: &str| quoted.trim_matches('"').replace("\"\"", "\"");
        let renames = renames(&name(former), &name(present));
        let report = migrate_with_renames(&database.pool, &renames).await.unwrap();
        assert_eq!(report.archive_columns_changed.len(), 1, "{report:?}");
        assert_eq!(migrate_with_renames(&database.pool, &renames).await.unwrap().archive_columns_changed, [""; 0]);
        assert_renamed(&database, present).await;
    }

    // Migrated without the names, and archived since.
    let database = with_renamed_column("note", "memo").await;
    migrate(&database.pool).await.unwrap();
    let service = database.service_with_batches_of(20);
    let all = RestoreRequest::new(None, Some(time("2025-12-01T00:00:00Z")), None, None).unwrap();
    let error = service.restore(Trigger::Cli, &all, time(NOW), &Deadline::never()).await.unwrap_err();
    assert!(error.to_string().contains("--rename note="), "{error}");
    let run = service
        .run_maintenance(Trigger::Cli.request(), time("2026-05-20T02:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    assert!(run.logs_archived > 0);
    migrate_with_renames(&database.pool, &renames("note", "memo")).await.unwrap();
    assert_renamed(&database, "memo").await;

    // A new column of the former name is another one. And it may be renamed again, and back.
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT DEFAULT 'another'"#).await;
    migrate(&database.pool).await.unwrap();
    assert_verified(&database.service(), "a new column of the name").await;
    database.execute(r#"ALTER TABLE "EventLog" DROP note; ALTER TABLE "EventLog" RENAME memo TO word"#).await;
    migrate_with_renames(&database.pool, &renames("memo", "word")).await.unwrap();
    assert_renamed(&database, "word").await;
}

#[tokio::test]
async fn what_is_no_renaming_is_refused() {
    let database = with_renamed_column("note", "memo").await;
    for (former, present, why) in [
        ("note", "nothing", "has no column \"nothing\""),
        ("memo", "sender", "still has a column \"memo\""),
        ("nothing", "memo", "the archive has no column \"nothing\""),
        ("createdAt", "memo", "still has a column"),
        ("gone", "createdAt", "kept by its keys"),
    ] {
        let error = migrate_with_renames(&database.pool, &[(former.into(), present.into())]).await.unwrap_err();
        assert!(error.code() == "invalid_input" && error.to_string().contains(why), "{error}");
    }
    // Logs were archived with both: they are two columns.
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT DEFAULT 'two'"#).await;
    migrate(&database.pool).await.unwrap();
    database.service().run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    database.execute(r#"ALTER TABLE "EventLog" DROP note"#).await;
    let error = migrate_with_renames(&database.pool, &[("note".into(), "memo".into())]).await.unwrap_err();
    assert!(error.to_string().contains("with both"), "{error}");
}
