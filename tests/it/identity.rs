//! A stream under all the ids that it ever had (domain rule 8).

use snapshot_service::database::migrate;
use snapshot_service::{
    ArchiveFilter, ContractId, Cursor, Deadline, EventPosition, MaintenanceRun, PageRequest, ReleaseRequest,
    RestoreRequest, Scope, SnapshotService, StatePosition, Trigger, VerificationRequest,
};

use crate::support::{TestDatabase, read_archive, stream, time};

/// What hosts do to a stream.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// The chain is indexed again: a new row, with a new `Stream.id`, of the same contract id.
    Reindex,
    /// The contract is migrated: the same row, with a new contract id.
    Move,
}

use Change::{Move, Reindex};

const HISTORIES: [&[Change]; 8] = [
    &[Reindex],
    &[Reindex, Reindex],
    &[Move],
    &[Move, Move],
    &[Reindex, Move],
    &[Move, Reindex],
    &[Reindex, Move, Reindex, Move],
    &[Move, Reindex, Move, Reindex],
];

/// A host with one stream that changes, and another that does not.
struct Host {
    database: TestDatabase,
    /// `Stream.id`s and contract ids, in the order in which the stream had them.
    ids: Vec<String>,
    contract_ids: Vec<String>,
    events: Vec<String>,
    months: Vec<String>,
}

impl Host {
    async fn new() -> Self {
        let database = TestDatabase::migrated().await;
        database.insert_stream("x1", Some("k1"), "1").await;
        database.insert_stream("other", Some("k-other"), "1").await;
        let (ids, contract_ids) = (vec!["x1".to_owned()], vec!["k1".to_owned()]);
        Self { database, ids, contract_ids, events: Vec::new(), months: Vec::new() }
    }

    async fn change(&mut self, change: Change) {
        let last = self.ids.last().unwrap().clone();
        match change {
            Reindex => {
                let contract_id = self.contract_ids.last().unwrap();
                let id = format!("x{}", self.ids.len() + 1);
                self.database.execute(&format!(r#"DELETE FROM "Stream" WHERE id = '{last}'"#)).await;
                self.database.insert_stream(&id, Some(contract_id), "1").await;
                self.ids.push(id);
            }
            Move => {
                let contract_id = format!("k{}", self.contract_ids.len() + 1);
                let sql = format!(r#"UPDATE "Stream" SET "streamId" = '{contract_id}' WHERE id = '{last}'"#);
                self.database.execute(&sql).await;
                self.contract_ids.push(contract_id);
            }
        }
    }

    /// Logs an event that is due and one that is not, under the contract id of now.
    async fn log(&mut self) {
        let number = self.events.len() / 2 + 1;
        let contract_id = self.contract_ids.last().unwrap().clone();
        for (id, created_at) in
            [(format!("old{number}"), format!("2025-0{number}-10")), (format!("new{number}"), "2026-12-01".into())]
        {
            self.database.insert_event(&id, &contract_id, &created_at).await;
            self.events.push(id);
        }
        let other = format!("other{number}");
        self.database.insert_event(&other, "k-other", &format!("2025-0{number}-11")).await;
    }

    /// Takes the next month's snapshots and archives.
    async fn run(&mut self) -> MaintenanceRun {
        let month = format!("2026-0{}", self.months.len() + 1);
        let now = time(&format!("{month}-01T02:00:00Z"));
        let service = self.database.service();
        let run = service.run_maintenance(Trigger::Cli.request(), now, &Deadline::never()).await.unwrap();
        assert!(run.complete, "{run:?}");
        self.months.insert(0, month);
        run
    }

    fn names(&self) -> Vec<String> {
        self.ids.iter().chain(&self.contract_ids).cloned().collect()
    }

    /// Checks that each id gives the whole history and the same answers, and the other stream's ids give its own.
    async fn assert_one_history(&self, what: &str) {
        let service = self.database.service();
        let mut answers = Vec::new();
        for id in self.names() {
            let seen = read(&service, &id).await;
            assert_eq!(seen.months, self.months, "{what}, by {id}");
            let mut events = seen.events.clone();
            events.sort();
            let mut wanted = self.events.clone();
            wanted.sort();
            assert_eq!(events, wanted, "{what}, by {id}");
            answers.push(seen);
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{what}: {answers:#?}");
        let other = read(&service, "k-other").await;
        assert!(other.events.iter().all(|id| id.starts_with("other")), "{what}: {other:?}");
    }
}

/// All that readers say of a stream.
#[derive(Debug, PartialEq)]
struct Seen {
    months: Vec<String>,
    snapshots: String,
    archived: Vec<String>,
    events: Vec<String>,
    state: String,
}

async fn read(service: &SnapshotService, id: &str) -> Seen {
    let page = PageRequest::new(1000, None).unwrap();
    let snapshots = service.get_stream_snapshots(&stream(id), &page).await.unwrap().items;
    let months: Vec<_> = snapshots.iter().map(|snapshot| snapshot.snapshot_month.to_string()).collect();
    for snapshot in &snapshots {
        let one = service.get_snapshot(&stream(id), snapshot.snapshot_month).await.unwrap().unwrap();
        assert_eq!(one.id, snapshot.id);
    }
    let archived = read_archive(service, id, &ArchiveFilter::default(), 2).await;
    let page = PageRequest::new(1000, None).unwrap();
    let events = service.list_stream_events(&stream(id), &ArchiveFilter::default(), &page).await.unwrap();
    let page = PageRequest::new(1000, None).unwrap();
    let state = service.get_stream_state(&stream(id), time("2026-12-31T00:00:00Z"), &page).await;
    let state = state.map_err(|error| error.code()).map(|state| {
        let events: Vec<_> = state.events.into_iter().map(|entry| entry.event.id).collect();
        (state.snapshot.id, events)
    });
    Seen {
        months,
        snapshots: serde_json::to_string(&snapshots).unwrap(),
        archived: archived.into_iter().map(|log| log.id).collect(),
        events: events.items.into_iter().map(|entry| entry.event.id).collect(),
        state: format!("{state:?}"),
    }
}

async fn events_of(database: &TestDatabase, id: &str) -> Vec<String> {
    let mut events = read(&database.service(), id).await.events;
    events.sort();
    events
}

async fn months_of(database: &TestDatabase, id: &str) -> Vec<String> {
    read(&database.service(), id).await.months
}

/// Adds a stream whose row is of `created_at`.
async fn insert_stream_of(database: &TestDatabase, id: &str, contract_id: &str, created_at: &str) {
    database.insert_stream(id, Some(contract_id), "1").await;
    database.execute(&format!(r#"UPDATE "Stream" SET "createdAt" = '{created_at}' WHERE id = '{id}'"#)).await;
}

async fn take_snapshots(database: &TestDatabase, at: &str) {
    database.service().create_monthly_snapshots(Trigger::Api, time(at), &Deadline::never()).await.unwrap();
}

async fn archive(database: &TestDatabase, at: &str) -> MaintenanceRun {
    database.service().run_maintenance(Trigger::Cli.request(), time(at), &Deadline::never()).await.unwrap()
}

#[tokio::test]
async fn every_id_that_a_run_ever_saw_gives_the_whole_history_whatever_changed_in_whichever_order() {
    for history in HISTORIES {
        let mut host = Host::new().await;
        host.log().await;
        host.run().await;
        for change in history {
            host.change(*change).await;
            host.log().await;
            host.assert_one_history(&format!("{history:?}, before a run has seen it")).await;
            host.run().await;
            host.assert_one_history(&format!("{history:?}")).await;
        }
        host.database.execute(r#"DELETE FROM "Stream" WHERE id <> 'other'"#).await;
        host.assert_one_history(&format!("{history:?}, gone")).await;
        host.run().await;
        host.months.remove(0);
        host.assert_one_history(&format!("{history:?}, gone for a month")).await;
        let streams: i64 = host.database.value(r#"SELECT count(DISTINCT stream) FROM "StreamIdentity""#).await;
        assert_eq!(streams, 2, "{history:?}");
    }
}

#[tokio::test]
async fn what_migrate_a_hold_a_release_or_a_restore_saw_names_the_stream_too() {
    for who in ["migrate", "hold", "release", "restore"] {
        let database = TestDatabase::migrated().await;
        database.insert_stream("x1", Some("k1"), "1").await;
        database.insert_event("e1", "k1", "2025-01-01").await;
        database.insert_event("e2", "k2", "2025-02-01").await;
        let service = database.service();
        let see = async || match who {
            "migrate" => database.migrate().await,
            "hold" => {
                service.hold_stream(&stream("x1"), "case 7", "ann").await.unwrap();
            }
            "release" => {
                service.release_hold(&stream("x1"), None, "none", "ann").await.unwrap();
            }
            _ => {
                let request = RestoreRequest::new(Some(stream("x1")), None, None, None).unwrap();
                service
                    .restore(Trigger::Cli, &request, time("2026-05-01T00:00:00Z"), &Deadline::never())
                    .await
                    .unwrap();
            }
        };
        see().await;
        database.execute(r#"UPDATE "Stream" SET "streamId" = 'k2'"#).await;
        see().await;
        database.execute(r#"DELETE FROM "Stream""#).await;
        for id in ["x1", "k1", "k2"] {
            assert_eq!(events_of(&database, id).await, ["e1", "e2"], "{who}: {id}");
        }
    }
}

#[tokio::test]
async fn a_hold_keeps_every_log_of_the_stream_whenever_and_by_whichever_id_it_was_placed() {
    let mut turn = 0;
    for history in HISTORIES {
        for placed_after in 0..=history.len() {
            // By the first or the last id of either kind, in turn.
            let which = turn % 4;
            turn += 1;
            let mut host = Host::new().await;
            host.run().await;
            let mut held_by = None;
            for step in 0..=history.len() {
                if step > 0 {
                    host.change(history[step - 1]).await;
                }
                host.log().await;
                if step == placed_after {
                    let list = if which < 2 { &host.ids } else { &host.contract_ids };
                    let id = if which % 2 == 0 { list.first() } else { list.last() }.unwrap().clone();
                    let (hold, is_new) =
                        host.database.service().hold_stream(&stream(&id), "case 7", "ann").await.unwrap();
                    assert!(is_new && hold.warning.is_none(), "{hold:?}");
                    held_by = Some(id);
                }
                if held_by.is_none() {
                    // Sees the change, and archives nothing.
                    take_snapshots(&host.database, &format!("2026-0{}-01T02:00:00Z", step + 1)).await;
                } else {
                    let run = host.run().await;
                    let what = format!("{history:?}, held after {placed_after} by {held_by:?}");
                    assert_eq!(run.logs_archived, if step == placed_after { step as u64 + 1 } else { 1 }, "{what}");
                }
            }
            let what = format!("{history:?}, held after {placed_after} by {held_by:?}");
            let archived = host.database.count(r#""StreamArchive" WHERE "streamId" <> 'k-other'"#).await;
            assert_eq!(archived, 0, "{what}");
            let service = host.database.service();
            let names = host.names();
            for id in &names {
                let (_, is_new) = service.hold_stream(&stream(id), "case 7", "bob").await.unwrap();
                assert!(!is_new, "{what}: {id} is held already");
            }
            let id = &names[which % names.len()];
            let released = service.release_hold(&stream(id), None, "closed", "bob").await.unwrap();
            assert_eq!(released.unwrap().reason, "case 7", "{what}, released by {id}");
            let run = host.run().await;
            assert_eq!(run.logs_archived, history.len() as u64 + 1, "{what}");
        }
    }
}

#[tokio::test]
async fn restore_release_and_verification_go_by_every_id() {
    let mut host = Host::new().await;
    host.log().await;
    host.run().await;
    for change in [Move, Reindex] {
        host.change(change).await;
        host.log().await;
        host.run().await;
    }
    let service = host.database.service();
    let (now, forever) = (time("2026-09-01T00:00:00Z"), Deadline::never());
    for id in host.names() {
        let request = RestoreRequest::new(Some(stream(&id)), None, None, None).unwrap();
        let dry = service.dry_run_restore(&request, &forever).await.unwrap();
        assert_eq!(dry.logs_to_restore, 3, "{id}");
        let run = service.restore(Trigger::Cli, &request, now, &forever).await.unwrap();
        assert_eq!((run.logs_restored, run.complete, run.scope), (3, true, Scope::Restore), "{id}");
        let target = run.target.unwrap();
        assert_eq!(target.stream.as_deref(), Some("k2"));
        let contract_ids = ["k1", "k2"].map(|id| ContractId { id: id.into(), from: None, until: None });
        assert_eq!(target.contract_ids.unwrap(), contract_ids);
        assert_eq!(host.database.count(r#""StreamArchive""#).await, 3, "the other stream's");
        let request = ReleaseRequest { stream: Some(stream(&id)), run: None };
        assert_eq!(service.release_restored_logs(&request).await.unwrap(), 3, "{id}");
        assert_eq!(archive(&host.database, "2026-09-01T00:00:00Z").await.logs_archived, 3);
        host.database.assert_seals_agree().await;
    }
    host.database.execute(r#"UPDATE "StreamArchive" SET sender = 'forged' WHERE id = 'old1'"#).await;
    let mut verifications = Vec::new();
    for id in host.names() {
        let request = VerificationRequest { stream: Some(id), full: true, ..VerificationRequest::default() };
        let verification = service.verify_archive(request, now, &forever).await.unwrap();
        verifications.push((verification.stream_id, verification.seals_done, verification.break_count));
    }
    assert_eq!(verifications[0].2, 1);
    assert!(verifications[0].1 >= 2, "batches of either contract id: {verifications:?}");
    assert!(verifications.iter().all(|verification| *verification == verifications[0]), "{verifications:?}");
}

#[tokio::test]
async fn a_cursor_got_under_one_id_works_under_every_other() {
    let mut host = Host::new().await;
    host.log().await;
    host.run().await;
    for change in [Reindex, Move, Move, Reindex] {
        host.change(change).await;
        host.log().await;
        host.run().await;
    }
    let service = host.database.service();
    let (at, filter) = (time("2026-12-31T00:00:00Z"), ArchiveFilter::default());
    let names = host.names();
    for id in &names {
        let page = PageRequest::new(2, None).unwrap();
        let snapshots = service.get_stream_snapshots(&stream(id), &page).await.unwrap().next_cursor.unwrap().encode();
        let page = PageRequest::new(2, None).unwrap();
        let logs = service.get_archived_logs(&stream(id), &filter, &page).await.unwrap().next_cursor.unwrap().encode();
        let page = PageRequest::new(2, None).unwrap();
        let events = service.list_stream_events(&stream(id), &filter, &page).await.unwrap().next_cursor.unwrap();
        let events = events.encode();
        let page = PageRequest::new(2, None).unwrap();
        let state = service.get_stream_state(&stream(id), at, &page).await.unwrap().next_cursor.unwrap().encode();
        for other in names.iter().map(|name| stream(name)) {
            let page = PageRequest::new(100, Some(Cursor::decode(&snapshots, Some(&other)).unwrap())).unwrap();
            assert_eq!(service.get_stream_snapshots(&other, &page).await.unwrap().items.len(), 3);
            let page = PageRequest::new(100, Some(Cursor::decode(&logs, Some(&other)).unwrap())).unwrap();
            assert_eq!(service.get_archived_logs(&other, &filter, &page).await.unwrap().items.len(), 3);
            let page = PageRequest::new(100, Some(Cursor::decode(&events, Some(&other)).unwrap())).unwrap();
            assert_eq!(service.list_stream_events(&other, &filter, &page).await.unwrap().items.len(), 8);
            let page = PageRequest::new(100, Some(Cursor::decode(&state, Some(&other)).unwrap())).unwrap();
            assert_eq!(service.get_stream_state(&other, at, &page).await.unwrap().events.len(), 3);
        }
        assert!(Cursor::<EventPosition>::decode(&events, Some(&stream("k-other"))).is_err());
        assert!(Cursor::<StatePosition>::decode(&state, Some(&stream("nobody"))).is_err());
    }
}

#[tokio::test]
async fn a_contract_id_that_was_taken_over_names_the_new_owner_from_its_rows_time_on() {
    for is_seen in [true, false] {
        let database = TestDatabase::migrated().await;
        insert_stream_of(&database, "x", "k", "2025-01-01").await;
        for (id, created_at) in [("first", "2025-02-01"), ("last", "2025-03-31 23:59:59.999"), ("theirs", "2025-04-01")]
        {
            database.insert_event(id, "k", created_at).await;
        }
        take_snapshots(&database, "2025-03-01T02:00:00Z").await;
        database.execute(r#"UPDATE "Stream" SET "streamId" = 'm' WHERE id = 'x'"#).await;
        database.insert_event("moved", "m", "2025-05-01").await;
        insert_stream_of(&database, "y", "k", "2025-04-01").await;
        if is_seen {
            take_snapshots(&database, "2025-05-01T02:00:00Z").await;
        }
        let months_of_y: &[&str] = if is_seen { &["2025-05"] } else { &[] };
        let months_of_x: &[&str] = if is_seen { &["2025-05", "2025-03"] } else { &["2025-03"] };
        let check = async |what: &str| {
            for id in ["k", "y"] {
                assert_eq!(events_of(&database, id).await, ["theirs"], "{what}, seen {is_seen}, by {id}");
                assert_eq!(months_of(&database, id).await, months_of_y, "{what}, seen {is_seen}, by {id}");
            }
            for id in ["x", "m"] {
                assert_eq!(
                    events_of(&database, id).await,
                    ["first", "last", "moved"],
                    "{what}, seen {is_seen}, by {id}"
                );
                assert_eq!(months_of(&database, id).await, months_of_x, "{what}, seen {is_seen}, by {id}");
            }
        };
        check("both alive").await;
        if is_seen {
            database.execute(r#"DELETE FROM "Stream" WHERE id = 'x'"#).await;
            check("the first gone").await;
            database.execute(r#"DELETE FROM "Stream""#).await;
            check("both gone").await;
        }
        let run = archive(&database, "2026-01-15T02:00:00Z").await;
        assert_eq!(run.logs_archived, 4);
        // Each its own logs, in restores, releases and verifications.
        let service = database.service();
        for (id, rows) in [("k", 1), ("m", 3), ("x", 3), ("y", 1)] {
            let request = RestoreRequest::new(Some(stream(id)), None, None, None).unwrap();
            let (now, forever) = (time("2026-01-15T03:00:00Z"), Deadline::never());
            assert_eq!(service.dry_run_restore(&request, &forever).await.unwrap().logs_to_restore, rows, "{id}");
            let run = service.restore(Trigger::Cli, &request, now, &forever).await.unwrap();
            assert_eq!((run.logs_restored, run.complete), (rows, true), "{id}");
            for (other, theirs) in [("k", 1), ("m", 3)] {
                let request = ReleaseRequest { stream: Some(stream(other)), run: None };
                let released = service.release_restored_logs(&request).await.unwrap();
                assert_eq!(released, if theirs == rows { rows } else { 0 }, "{id}, released by {other}");
            }
            service.archive_old_logs(Trigger::Api, now, &forever).await.unwrap();
        }
        let verify = async |id: &str| {
            let request = VerificationRequest { stream: Some(id.into()), ..VerificationRequest::default() };
            service.verify_archive(request, time("2026-01-16T00:00:00Z"), &Deadline::never()).await.unwrap()
        };
        assert!(verify("x").await.seals_done > verify("y").await.seals_done);
        // A hold errs on the side of holding.
        service
            .restore(
                Trigger::Cli,
                &RestoreRequest::new(None, Some(time("2025-01-01T00:00:00Z")), None, None).unwrap(),
                time("2026-01-15T04:00:00Z"),
                &Deadline::never(),
            )
            .await
            .unwrap();
        service.release_restored_logs(&ReleaseRequest::default()).await.unwrap();
        service.hold_stream(&stream("x"), "case 7", "ann").await.unwrap();
        assert_eq!(archive(&database, "2026-01-15T05:00:00Z").await.logs_archived, 0);
    }
}

#[tokio::test]
async fn what_a_stream_did_under_an_id_stays_its_own_when_an_older_row_takes_the_id_over() {
    for is_seen in [true, false] {
        let database = TestDatabase::migrated().await;
        insert_stream_of(&database, "x", "k", "2025-02-01").await;
        insert_stream_of(&database, "y", "n", "2025-01-01").await;
        database.insert_event("of-x", "k", "2025-02-15").await;
        database.insert_event("of-y", "n", "2025-02-16").await;
        take_snapshots(&database, "2025-03-01T02:00:00Z").await;
        // They change their contract ids.
        database
            .execute(
                r#"UPDATE "Stream" SET "streamId" = NULL; UPDATE "Stream" SET "streamId" = 'n' WHERE id = 'x';
                   UPDATE "Stream" SET "streamId" = 'k' WHERE id = 'y'"#,
            )
            .await;
        database.insert_event("of-y-later", "k", "2025-04-01").await;
        database.insert_event("of-x-later", "n", "2025-04-02").await;
        if is_seen {
            take_snapshots(&database, "2025-05-01T02:00:00Z").await;
        }
        for (id, events) in [("x", ["of-x", "of-x-later"]), ("y", ["of-y", "of-y-later"])] {
            assert_eq!(events_of(&database, id).await, events, "seen {is_seen}");
        }
        assert_eq!(events_of(&database, "k").await, ["of-y", "of-y-later"], "k names its new owner");
    }
}

#[tokio::test]
async fn a_stream_id_that_a_newer_row_got_names_that_from_its_time_on() {
    for is_seen in [true, false] {
        let database = TestDatabase::migrated().await;
        insert_stream_of(&database, "1", "k", "2025-01-01").await;
        database.insert_event("of-k", "k", "2025-01-15").await;
        take_snapshots(&database, "2025-02-01T02:00:00Z").await;
        database.execute(r#"DELETE FROM "Stream""#).await;
        insert_stream_of(&database, "1", "m", "2025-03-15").await;
        database.insert_event("of-m", "m", "2025-03-16").await;
        if is_seen {
            take_snapshots(&database, "2025-04-01T02:00:00Z").await;
        }
        let months: &[&str] = if is_seen { &["2025-04"] } else { &[] };
        for id in ["1", "m"] {
            assert_eq!(
                (months_of(&database, id).await, events_of(&database, id).await),
                (months.iter().map(|month| (*month).to_owned()).collect(), vec!["of-m".to_owned()]),
                "{id}"
            );
        }
        assert_eq!(months_of(&database, "k").await, ["2025-02"]);
        assert_eq!(events_of(&database, "k").await, ["of-k"]);
    }
}

#[tokio::test]
async fn streams_that_are_indexed_again_under_each_others_ids_stay_apart() {
    for is_seen in [true, false] {
        let database = TestDatabase::migrated().await;
        for (id, contract_id) in [("1", "a"), ("2", "b"), ("3", "c")] {
            insert_stream_of(&database, id, contract_id, "2025-01-01").await;
            database.insert_event(&format!("of-{contract_id}"), contract_id, "2025-01-15").await;
        }
        take_snapshots(&database, "2025-02-01T02:00:00Z").await;
        database.execute(r#"DELETE FROM "Stream""#).await;
        for (id, contract_id) in [("1", "b"), ("2", "c"), ("3", "a")] {
            insert_stream_of(&database, id, contract_id, "2025-03-01").await;
        }
        if is_seen {
            take_snapshots(&database, "2025-04-01T02:00:00Z").await;
        }
        let months: &[&str] = if is_seen { &["2025-04", "2025-02"] } else { &["2025-02"] };
        for (id, contract_id) in [("1", "b"), ("2", "c"), ("3", "a")] {
            for name in [id, contract_id] {
                assert_eq!(events_of(&database, name).await, [format!("of-{contract_id}")], "seen {is_seen}: {name}");
                assert_eq!(months_of(&database, name).await, months, "seen {is_seen}: {name}");
            }
        }
    }
}

#[tokio::test]
async fn equal_ids_of_different_kinds_merge_nothing() {
    let database = TestDatabase::migrated().await;
    // The Stream.id of one is the contract id of another.
    database.insert_stream("7", Some("a"), "1").await;
    database.insert_stream("b", Some("7"), "1").await;
    database.insert_event("of-a", "a", "2025-01-01").await;
    database.insert_event("of-7", "7", "2025-01-01").await;
    archive(&database, "2026-01-01T02:00:00Z").await;
    for gone in [false, true] {
        if gone {
            database.execute(r#"DELETE FROM "Stream""#).await;
        }
        for (id, event) in [("a", "of-a"), ("7", "of-a"), ("b", "of-7")] {
            assert_eq!(events_of(&database, id).await, [event], "{id}, gone {gone}");
            assert_eq!(months_of(&database, id).await, ["2026-01"], "{id}, gone {gone}");
        }
    }
    // A stream that has no contract id yet is not one whose contract id is the same text.
    database.insert_stream("c", Some("d"), "1").await;
    database.insert_stream("d", None, "1").await;
    database.insert_event("of-d", "d", "2025-01-01").await;
    assert_eq!(events_of(&database, "c").await, ["of-d"]);
    assert_eq!(events_of(&database, "d").await, [""; 0]);
    archive(&database, "2026-01-01T03:00:00Z").await;
    let request = RestoreRequest::new(Some(stream("d")), None, None, None).unwrap();
    let run = database
        .service()
        .restore(Trigger::Cli, &request, time("2026-01-02T00:00:00Z"), &Deadline::never())
        .await
        .unwrap();
    assert_eq!((run.logs_restored, run.complete), (0, true));
    database.insert_stream("e", None, "1").await;
    database.insert_event("of-e", "e", "2025-01-01").await;
    assert_eq!(events_of(&database, "e").await, ["of-e"], "nothing else has the id");
}

#[tokio::test]
async fn nothing_is_merged_that_the_hosts_rows_do_not_show() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("x", Some("k"), "1").await;
    take_snapshots(&database, "2025-01-01T02:00:00Z").await;
    database.execute(r#"UPDATE "Stream" SET "streamId" = 'm'"#).await;
    take_snapshots(&database, "2025-02-01T02:00:00Z").await;
    database.execute(r#"DELETE FROM "Stream""#).await;
    // The stream had moved on from k, so its next owner is another; m was its last.
    database.insert_stream("y", Some("k"), "1").await;
    database.insert_stream("z", Some("m"), "1").await;
    take_snapshots(&database, "2025-03-01T02:00:00Z").await;
    assert_eq!(months_of(&database, "y").await, ["2025-03"]);
    assert_eq!(months_of(&database, "z").await, ["2025-03", "2025-02", "2025-01"]);
    // A copy of a row that is there is another stream.
    database.execute(r#"ALTER TABLE "Stream" DROP CONSTRAINT "Stream_streamId_key""#).await;
    database.insert_stream("copy", Some("m"), "1").await;
    for month in ["2025-04", "2025-05"] {
        take_snapshots(&database, &format!("{month}-01T02:00:00Z")).await;
    }
    assert_eq!(months_of(&database, "copy").await, ["2025-05", "2025-04"]);
    assert_eq!(months_of(&database, "z").await.len(), 5);
    let rows = database.count(r#""StreamIdentity""#).await;
    take_snapshots(&database, "2025-06-01T02:00:00Z").await;
    assert_eq!(database.count(r#""StreamIdentity""#).await, rows, "what is recorded is not recorded again");
}

#[tokio::test]
async fn a_stream_that_moves_back_has_its_ids_once() {
    let database = TestDatabase::migrated().await;
    insert_stream_of(&database, "x", "k", "2025-01-01").await;
    database.insert_event("e1", "k", "2025-01-15").await;
    for (month, contract_id) in [("2025-02", "k"), ("2025-03", "m"), ("2025-04", "k"), ("2025-05", "m")] {
        database.execute(&format!(r#"UPDATE "Stream" SET "streamId" = '{contract_id}'"#)).await;
        take_snapshots(&database, &format!("{month}-01T02:00:00Z")).await;
    }
    database.insert_event("e2", "m", "2025-04-15").await;
    for id in ["x", "k", "m"] {
        assert_eq!(events_of(&database, id).await, ["e1", "e2"]);
        assert_eq!(months_of(&database, id).await.len(), 4);
    }
    // The row is written anew with another time, and the stream is the same.
    database.execute(r#"UPDATE "Stream" SET "createdAt" = '2025-05-15'"#).await;
    take_snapshots(&database, "2025-06-01T02:00:00Z").await;
    database.execute(r#"UPDATE "Stream" SET "streamId" = 'n'"#).await;
    take_snapshots(&database, "2025-07-01T02:00:00Z").await;
    for id in ["x", "k", "m", "n"] {
        assert_eq!(months_of(&database, id).await.len(), 6, "{id}");
    }
}

#[tokio::test]
async fn a_month_that_two_rows_of_a_stream_have_a_snapshot_of_is_shown_once_as_it_was_first() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("x1", Some("k"), "1").await;
    take_snapshots(&database, "2025-02-01T02:00:00Z").await;
    database.execute(r#"DELETE FROM "Stream""#).await;
    database.insert_stream("x2", Some("k"), "2").await;
    take_snapshots(&database, "2025-02-20T02:00:00Z").await;
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 2);
    let service = database.service();
    for id in ["x1", "x2", "k"] {
        assert_eq!(months_of(&database, id).await, ["2025-02"]);
        let snapshot = service.get_snapshot(&stream(id), "2025-02".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(snapshot.total_amount.as_deref(), Some("1"));
        let page = PageRequest::new(10, None).unwrap();
        let state = service.get_stream_state(&stream(id), time("2025-03-01T00:00:00Z"), &page).await.unwrap();
        assert_eq!(state.snapshot.id, snapshot.id);
    }
}

#[tokio::test]
async fn a_hold_on_an_id_that_nothing_has_is_accepted_with_a_warning() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("x", Some("k"), "1").await;
    database.insert_event("hot", "only-hot", "2026-01-01").await;
    database.insert_event("old", "only-archived", "2025-01-01").await;
    database.execute(r#"INSERT INTO "StreamSnapshot" (id, "streamId", sender, receiver, status, "snapshotMonth") VALUES ('s', 'only-snapshot', '', '', 'ACTIVE', '2025-01')"#).await;
    archive(&database, "2026-02-01T02:00:00Z").await;
    let service = database.service();
    for id in ["x", "k", "only-hot", "only-archived", "only-snapshot"] {
        let (hold, _) = service.hold_stream(&stream(id), "case 7", "ann").await.unwrap();
        assert_eq!(hold.warning, None, "{id}");
    }
    for again in [false, true] {
        let (hold, is_new) = service.hold_stream(&stream("mistyped"), "case 7", "ann").await.unwrap();
        let warning = hold.warning.unwrap();
        assert!(warning.starts_with("no stream, log or snapshot has the id mistyped"), "{warning}");
        assert_eq!(is_new, !again);
    }
    // It holds what carries the id from now on.
    database.insert_event("late", "mistyped", "2025-01-01").await;
    assert_eq!(archive(&database, "2026-02-01T03:00:00Z").await.logs_archived, 0);
    assert!(service.release_hold(&stream("mistyped"), None, "closed", "ann").await.unwrap().is_some());
    assert_eq!(archive(&database, "2026-02-01T04:00:00Z").await.logs_archived, 1);
}

#[tokio::test]
async fn many_record_the_same_streams_at_once_and_each_is_recorded_once() {
    let database = TestDatabase::migrated().await;
    database
        .execute(
            r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount)
               SELECT 's' || i, 'k' || i, 'tx' || i, 'a', 'b', '1' FROM generate_series(1, 500) i"#,
        )
        .await;
    let observe = async || {
        let sql = r#"SELECT stream_identity_observe(ARRAY(SELECT id FROM "Stream" ORDER BY random()))"#;
        database.client().await.batch_execute(sql).await.unwrap();
    };
    tokio::join!(observe(), observe(), observe(), observe(), observe());
    assert_eq!(database.count(r#""StreamIdentity""#).await, 500);
    // All are moved and indexed again.
    database
        .execute(
            r#"UPDATE "Stream" SET "streamId" = 'm' || id WHERE id < 's3';
               CREATE TABLE again AS SELECT * FROM "Stream" WHERE id >= 's3';
               DELETE FROM "Stream" WHERE id >= 's3';
               UPDATE again SET id = 'r' || id, "createdAt" = "createdAt" + interval '1 second';
               INSERT INTO "Stream" SELECT * FROM again"#,
        )
        .await;
    tokio::join!(observe(), observe(), observe(), observe(), observe());
    assert_eq!(database.count(r#""StreamIdentity""#).await, 1000);
    let streams: i64 = database.value(r#"SELECT count(DISTINCT stream) FROM "StreamIdentity""#).await;
    assert_eq!(streams, 500);
    assert_eq!(database.count(r#""StreamIdentity" WHERE "ownedUntil" IS NOT NULL OR "idUntil" IS NOT NULL"#).await, 0);
}

#[tokio::test]
async fn migrating_again_records_what_is_new_and_streams_of_one_contract_id_by_their_age() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "Stream" DROP CONSTRAINT "Stream_streamId_key""#).await;
    insert_stream_of(&database, "younger", "k", "2025-03-01").await;
    insert_stream_of(&database, "older", "k", "2025-01-01").await;
    insert_stream_of(&database, "single", "s", "2025-01-01").await;
    database.insert_event("e1", "k", "2025-02-01").await;
    database.insert_event("e2", "k", "2025-04-01").await;
    for _ in 0..2 {
        migrate(&database.pool).await.unwrap();
        assert_eq!(events_of(&database, "older").await, ["e1"]);
        assert_eq!(events_of(&database, "younger").await, ["e2"]);
        assert_eq!(events_of(&database, "k").await, ["e2"]);
        assert_eq!(database.count(r#""StreamIdentity""#).await, 3);
    }
}
