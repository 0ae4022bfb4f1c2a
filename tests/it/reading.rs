use snapshot_service::{ArchiveFilter, Deadline, PageRequest, Trigger};

use crate::support::{TestDatabase, read_archive, stream, time};

const NOW: &str = "2026-05-31T02:00:00Z";

/// Stream `s1`, on chain `42`, with 60 archived events, many of them in one instant, over three months.
async fn with_ties() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    for month in ["2025-11", "2025-12", "2026-01"] {
        for index in 0..20 {
            // Not in the order of their ids.
            let id = format!("{:02}-{month}", (index * 7) % 20);
            let created_at = format!("{month}-01 00:00:0{}", index / 8);
            database.insert_event(&id, "42", &created_at).await;
        }
    }
    database.insert_event("foreign", "43", "2025-12-01 00:00:00").await;
    database.service().run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    database
}

#[tokio::test]
async fn pages_of_any_size_show_each_log_once_under_ties() {
    let database = with_ties().await;
    let wanted: Vec<String> = database
        .value(
            r#"SELECT array_agg(id ORDER BY "createdAt" DESC, id DESC) FROM "StreamArchive" WHERE "streamId" = '42'"#,
        )
        .await;
    assert_eq!(wanted.len(), 60);
    let service = database.service();
    for limit in [1, 7, 8, 20, 59, 60, 61, 1000] {
        let logs = read_archive(&service, "42", &ArchiveFilter::default(), limit).await;
        assert_eq!(logs.into_iter().map(|log| log.id).collect::<Vec<_>>(), wanted, "in pages of {limit}");
    }
}

#[tokio::test]
async fn pages_stay_whole_while_logs_are_archived_between_them() {
    let database = with_ties().await;
    let service = database.service();
    let id = stream("42");
    let first = PageRequest::new(30, None).unwrap();
    let first = service.get_archived_logs(&id, &ArchiveFilter::default(), &first).await.unwrap();
    for index in 0..5 {
        database.insert_event(&format!("late-{index}"), "42", "2026-01-20 00:00:00").await;
    }
    service.archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    let second = PageRequest::new(1000, first.next_cursor).unwrap();
    let second = service.get_archived_logs(&id, &ArchiveFilter::default(), &second).await.unwrap();
    let mut ids: Vec<String> = first.items.into_iter().chain(second.items).map(|log| log.id).collect();
    assert_eq!(ids.len(), 60);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 60);
}

#[tokio::test]
async fn logs_are_filtered_by_time_and_type() {
    let database = with_ties().await;
    database.execute(r#"UPDATE "StreamArchive" SET "eventType" = 'create' WHERE id = '00-2025-12'"#).await;
    let service = database.service();
    let count = async |from: Option<&str>, to: Option<&str>, event_type: Option<&str>| {
        let filter = ArchiveFilter::new(from.map(time), to.map(time), event_type.map(str::to_owned)).unwrap();
        read_archive(&service, "42", &filter, 9).await.len()
    };
    assert_eq!(count(None, None, Some("create")).await, 1);
    assert_eq!(count(None, None, Some("nothing")).await, 0);
    assert_eq!(count(Some("2025-12-01T00:00:00Z"), Some("2026-01-01T00:00:00Z"), None).await, 20);
    assert_eq!(
        count(Some("2025-12-01T00:00:01Z"), Some("2025-12-01T00:00:02Z"), None).await,
        8,
        "from is inclusive, to is not"
    );
    assert_eq!(count(Some("2025-12-01T01:00:01+01:00"), Some("2025-12-01T00:00:02Z"), None).await, 8);
    assert_eq!(count(Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:00Z"), None).await, 0);
    assert!(ArchiveFilter::new(Some(time("2026-01-02T00:00:00Z")), Some(time("2026-01-01T00:00:00Z")), None).is_err());
}

#[tokio::test]
async fn snapshots_are_listed_newest_month_first_in_pages_of_any_size() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.insert_stream("s2", Some("43"), "1").await;
    let service = database.service();
    for month in ["2025-12", "2026-02", "2026-01", "2024-02", "2026-03"] {
        service
            .create_monthly_snapshots(Trigger::Api, time(&format!("{month}-01T02:00:00Z")), &Deadline::never())
            .await
            .unwrap();
    }
    for limit in 1..=6 {
        let mut months = Vec::new();
        let mut request = PageRequest::new(limit, None).unwrap();
        loop {
            let page = service.get_stream_snapshots(&stream("s1"), &request).await.unwrap();
            months.extend(page.items.iter().map(|snapshot| snapshot.snapshot_month.to_string()));
            let Some(cursor) = page.next_cursor else { break };
            request = PageRequest::new(limit, Some(cursor)).unwrap();
        }
        assert_eq!(months, ["2026-03", "2026-02", "2026-01", "2025-12", "2024-02"], "in pages of {limit}");
    }
}

#[tokio::test]
async fn either_id_gives_the_same_answer_also_after_the_stream_is_gone() {
    let database = with_ties().await;
    database.insert_stream("unknown-on-chain", None, "1").await;
    let service = database.service();
    service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    for gone in [false, true] {
        if gone {
            database.execute(r#"DELETE FROM "Stream""#).await;
        }
        let mut answers = Vec::new();
        for id in ["s1", "42"] {
            let month = "2026-05".parse().unwrap();
            let snapshot = service.get_snapshot(&stream(id), month).await.unwrap().unwrap();
            let snapshots = service.get_stream_snapshots(&stream(id), &PageRequest::first()).await.unwrap().items;
            let logs = read_archive(&service, id, &ArchiveFilter::default(), 7).await;
            assert_eq!((snapshots.len(), logs.len()), (1, 60), "{id}");
            answers.push(serde_json::to_string(&(snapshot, snapshots, logs)).unwrap());
        }
        assert_eq!(answers[0], answers[1]);
        let snapshots = service.get_stream_snapshots(&stream("unknown-on-chain"), &PageRequest::first()).await.unwrap();
        assert_eq!(snapshots.items.len(), 1);
    }
}

#[tokio::test]
async fn an_id_that_became_known_after_the_months_snapshot_is_remembered_by_the_next_run() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", None, "1").await;
    let service = database.service();
    service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    database.execute(r#"UPDATE "Stream" SET "streamId" = '42'"#).await;
    service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    database.execute(r#"DELETE FROM "Stream""#).await;
    let page = service.get_stream_snapshots(&stream("42"), &PageRequest::first()).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

#[tokio::test]
async fn a_cursor_got_under_one_id_continues_under_the_other() {
    let database = with_ties().await;
    let service = database.service();
    let first = PageRequest::new(30, None).unwrap();
    let first = service.get_archived_logs(&stream("42"), &ArchiveFilter::default(), &first).await.unwrap();
    let text = first.next_cursor.unwrap().encode();
    for id in ["s1", "42"] {
        let cursor = snapshot_service::Cursor::decode(&text, Some(&stream(id))).unwrap();
        let rest = PageRequest::new(1000, Some(cursor)).unwrap();
        let rest = service.get_archived_logs(&stream(id), &ArchiveFilter::default(), &rest).await.unwrap();
        assert_eq!(rest.items.len(), 30, "{id}");
    }
}

#[tokio::test]
async fn an_unknown_stream_has_an_empty_history() {
    let database = with_ties().await;
    let service = database.service();
    for id in ["nobody", "%", "'; DROP TABLE \"StreamArchive\"; --", "\u{1F680}"] {
        assert!(service.get_stream_snapshots(&stream(id), &PageRequest::first()).await.unwrap().items.is_empty());
        assert!(read_archive(&service, id, &ArchiveFilter::default(), 10).await.is_empty());
        assert!(service.get_snapshot(&stream(id), "2026-05".parse().unwrap()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_page_ends_before_it_passes_six_megabytes_and_hands_out_a_cursor() {
    let database = TestDatabase::migrated().await;
    database.insert_events(20, "2026-01-01 00:00:00").await;
    // Quotes weigh four bytes each: a JSON string within a JSON string.
    database.execute(r#"UPDATE "EventLog" SET metadata = repeat('"', 400000)"#).await;
    database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    let service = database.service();
    let mut seen = 0;
    let mut request = PageRequest::new(1000, None).unwrap();
    loop {
        let page = service.get_archived_logs(&stream("42"), &ArchiveFilter::default(), &request).await.unwrap();
        assert!(!page.items.is_empty());
        let body = serde_json::to_string(&page.items).unwrap();
        assert!(serde_json::to_string(&body).unwrap().len() < 6_000_000);
        seen += page.items.len();
        let Some(cursor) = page.next_cursor else { break };
        request = PageRequest::new(1000, Some(cursor)).unwrap();
    }
    assert_eq!(seen, 20);
}

#[tokio::test]
async fn a_log_too_large_for_any_response_is_an_error_that_names_it() {
    let database = TestDatabase::migrated().await;
    database.insert_events(2, "2026-01-01 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET metadata = repeat('m', 6000000) WHERE id = 'e000001'"#).await;
    database.service().archive_old_logs(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    let service = database.service();
    let page =
        service.get_archived_logs(&stream("42"), &ArchiveFilter::default(), &PageRequest::first()).await.unwrap();
    assert_eq!(page.items.len(), 1, "the page ends before it");
    let next = PageRequest::new(10, page.next_cursor).unwrap();
    let error = service.get_archived_logs(&stream("42"), &ArchiveFilter::default(), &next).await.unwrap_err();
    assert_eq!(error.code(), "response_too_large");
    assert!(error.to_string().contains("e000001"), "{error}");
}

#[tokio::test]
async fn amounts_leave_as_strings_and_times_as_rfc_3339() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "340282366920938463463374607431768211455").await;
    database.insert_event("e1", "42", "2026-01-15 10:20:30.5").await;
    let service = database.service();
    service.run_maintenance(Trigger::Api.request(), time(NOW), &Deadline::never()).await.unwrap();
    database.stop_the_clock().await;
    let log = &read_archive(&service, "42", &ArchiveFilter::default(), 1).await[0];
    assert_eq!(
        serde_json::to_value(log).unwrap(),
        serde_json::json!({
            "id": "e1", "eventType": "withdraw", "streamId": "42", "txHash": "tx-e1", "eventIndex": 0, "ledger": 7,
            "ledgerClosedAt": "then", "sender": "GSENDER", "receiver": null, "amount": "9007199254740993",
            "metadata": "{\"a\":1}", "parentHash": null, "entryHash": null, "createdAt": "2026-01-15T10:20:30.500Z",
            "archivedAt": "2026-05-31T02:00:00.000Z",
        })
    );
    let snapshot = service.get_snapshot(&stream("s1"), "2026-05".parse().unwrap()).await.unwrap().unwrap();
    let json = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(json["totalAmount"], "340282366920938463463374607431768211455");
    assert_eq!(json["amountPerSecond"], "3402823669209384634633746074317682114");
    assert_eq!(json["createdAt"], "2026-05-31T02:00:00.000Z");
    assert_eq!((&json["streamId"], &json["snapshotMonth"]), (&"s1".into(), &"2026-05".into()));
    let state_time = json["state"]["createdAt"].as_str().unwrap();
    assert!(state_time.ends_with('Z') && state_time.len() == 24, "{state_time}");
}
