//! Any set of events is archived as the rules say: compared with a simple model of them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use snapshot_service::database::migrate;
use snapshot_service::{Deadline, Settings, Trigger};

use crate::support::{TestDatabase, time};

/// Runs' starts: month ends, leap years, the turn of a year, microseconds.
const STARTS: [&str; 6] = [
    "2026-05-31T02:00:00Z",
    "2024-05-31T02:00:00.123456Z",
    "2024-05-29T00:00:00Z",
    "2026-03-01T02:00:00.000001Z",
    "2026-01-01T00:00:00Z",
    "2025-12-31T23:59:59.999999Z",
];

/// Where an event's time is, seen from the run's start.
#[derive(Debug, Clone)]
enum Place {
    /// At the cutoff, or microseconds beside it.
    Cutoff(i64),
    /// At the first instant of the month so many months before the run's start, or microseconds beside it.
    MonthEdge(u32, i64),
    /// On 29 February 2024.
    LeapDay(i64),
    /// Microseconds before the start.
    Before(i64),
}

#[derive(Debug, Clone)]
struct Event {
    place: Place,
    note: Option<String>,
}

#[derive(Debug, Clone)]
struct Case {
    start: &'static str,
    events: Vec<Event>,
    hashes: bool,
    batch_rows: u32,
    workers: usize,
    /// One batch at a time, each in a slice of its own.
    slices: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let beside = select(vec![-1_000_000, -1_000, -1, 0, 0, 1, 1_000]);
    let place = prop_oneof![
        3 => beside.clone().prop_map(Place::Cutoff),
        3 => (0..20_u32, beside.clone()).prop_map(|(months, beside)| Place::MonthEdge(months, beside)),
        1 => (0..86_400_000_000_i64).prop_map(Place::LeapDay),
        3 => (0..40_000_000_000_000_i64).prop_map(Place::Before),
        // Many in one instant.
        2 => Just(Place::Before(20_000_000_000_000)),
    ];
    let event = (place, proptest::option::of("\\PC{0,12}")).prop_map(|(place, note)| Event { place, note });
    let events = proptest::collection::vec(event, 0..60);
    (select(STARTS.to_vec()), events, any::<bool>(), 1..25_u32, 1..4_usize, any::<bool>()).prop_map(
        |(start, events, hashes, batch_rows, workers, slices)| Case {
            start,
            events,
            hashes,
            batch_rows,
            workers,
            slices,
        },
    )
}

/// Rule 1, by counting months on fingers.
fn cutoff(start: DateTime<Utc>) -> NaiveDateTime {
    let (mut year, mut month) = (start.year(), start.month());
    for _ in 0..3 {
        (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
    }
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    };
    NaiveDate::from_ymd_opt(year, month, start.day().min(days_in_month)).unwrap().and_time(start.time())
}

fn created_at(place: &Place, start: DateTime<Utc>) -> NaiveDateTime {
    let (instant, microseconds) = match place {
        Place::Cutoff(beside) => (cutoff(start), *beside),
        Place::MonthEdge(months, beside) => {
            let months = start.year() * 12 + i32::try_from(start.month0()).unwrap() - i32::try_from(*months).unwrap();
            let of_year = u32::try_from(months % 12).unwrap();
            let edge = NaiveDate::from_ymd_opt(months / 12, of_year + 1, 1).unwrap();
            (edge.and_hms_opt(0, 0, 0).unwrap(), *beside)
        }
        Place::LeapDay(after) => (NaiveDate::from_ymd_opt(2024, 2, 29).unwrap().and_hms_opt(0, 0, 0).unwrap(), *after),
        Place::Before(microseconds) => (start.naive_utc(), -microseconds),
    };
    instant + TimeDelta::microseconds(microseconds)
}

/// A host with microseconds and columns of its own.
async fn host() -> TestDatabase {
    let database = TestDatabase::of_host().await;
    database
        .execute(
            r#"ALTER TABLE "EventLog" ALTER "createdAt" TYPE TIMESTAMP(6), ADD note TEXT, ADD "Weight Kg" NUMERIC DEFAULT 1.50,
                   ADD tags TEXT[] DEFAULT '{a,NULL,"b c"}', ADD raw JSON DEFAULT '{"b": 1,  "a": [1.0]}'"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    database
}

async fn check(database: &TestDatabase, case: &Case) {
    let start = time(case.start);
    let mut events: Vec<(NaiveDateTime, &Event)> =
        case.events.iter().map(|event| (created_at(&event.place, start), event)).collect();
    events.sort_by_key(|(created_at, _)| *created_at);

    let mut sql = String::new();
    for (index, (created_at, event)) in events.iter().enumerate() {
        let note = event.note.as_ref().map_or("NULL".into(), |note| format!("'{}'", note.replace('\'', "''")));
        let hashes =
            if case.hashes { format!("'h{index}', 'h{}'", index.wrapping_sub(1)) } else { "NULL, NULL".into() };
        // Ids in no order, least of all that of the chain.
        let id = (index * 7919) % 1009;
        write!(
            sql,
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt", note, entry_hash, parent_hash)
               VALUES ('e{id}', 'create', '42', 't{index}', {index}, 'then', '{created_at}', {note}, {hashes});"#
        )
        .unwrap();
    }
    database.execute(&sql).await;
    database.remember_events().await;

    // The rules: what is older than the cutoff leaves; the last of a chain stays.
    let head = case.hashes.then(|| events.len().checked_sub(1)).flatten();
    let due = |(index, (created_at, _)): &(usize, &(NaiveDateTime, &Event))| {
        *created_at < cutoff(start) && Some(*index) != head
    };
    let wanted: BTreeSet<i32> =
        events.iter().enumerate().filter(due).map(|(index, _)| i32::try_from(index).unwrap()).collect();

    let settings = Settings { batch_rows: case.batch_rows, workers: case.workers, ..Settings::default() };
    let service = database.service_with(settings);
    let run = loop {
        let deadline = if case.slices { Deadline::after(Duration::ZERO) } else { Deadline::never() };
        let run = service.run_maintenance(Trigger::Api.request(), start, &deadline).await.unwrap();
        if run.complete {
            break run;
        }
        database.assert_nothing_lost_or_doubled().await;
    };
    assert_eq!(run.cutoff.naive_utc(), cutoff(start));
    let archived: Vec<i32> =
        database.value(r#"SELECT COALESCE(array_agg(ledger ORDER BY ledger), '{}') FROM "StreamArchive""#).await;
    assert_eq!(archived.into_iter().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(run.logs_archived, wanted.len() as u64);
    let head_is_due = head.is_some_and(|head| events[head].0 < cutoff(start));
    assert_eq!(run.held_back.len(), usize::from(head_is_due), "{:?}", run.held_back);
    let elsewhere = r#""StreamArchive" WHERE tableoid::regclass::text <>
                       '"StreamArchive_' || to_char("createdAt", 'YYYY_MM') || '"'"#;
    assert_eq!(database.count(elsewhere).await, 0, "each row is in its month's partition");
    database.assert_nothing_lost_or_doubled().await;
}

async fn clear(database: &TestDatabase) {
    database
        .execute(
            r#"DO $$ DECLARE partition regclass; BEGIN
                   FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = '"StreamArchive"'::regclass LOOP
                       EXECUTE format('DROP TABLE %s', partition);
                   END LOOP;
               END $$;
               TRUNCATE "EventLog", "MaintenanceRun", "ArchiveMonth", "ArchiveSeal", "ArchiveRemoval"; DROP TABLE IF EXISTS remembered"#,
        )
        .await;
}

#[test]
fn any_set_of_events_is_archived_as_the_rules_say() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(host());
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    runner
        .run(&cases(), |case| {
            runtime.block_on(async {
                clear(&database).await;
                check(&database, &case).await;
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(async { drop(database) });
}
