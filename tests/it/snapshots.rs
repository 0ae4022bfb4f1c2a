use std::time::Duration;

use snapshot_service::{Deadline, Trigger};

use crate::support::{TestDatabase, stream, time};

const NOW: &str = "2026-03-15T12:00:00Z";

#[tokio::test]
async fn every_stream_gets_a_snapshot_of_its_whole_row_whatever_its_status() {
    let database = TestDatabase::migrated().await;
    for status in ["ACTIVE", "PAUSED", "COMPLETED", "CANCELED", "ARCHIVED"] {
        database.insert_stream(status, Some(&format!("contract-{status}")), "1000").await;
        database.execute(&format!(r#"UPDATE "Stream" SET status = '{status}' WHERE id = '{status}'"#)).await;
    }
    let report =
        database.service().create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.snapshots_created, report.unparsed_amounts, report.complete), (5, 0, true));
    assert_eq!(report.snapshot_month.to_string(), "2026-03");
    let same = r#""StreamSnapshot" t JOIN "Stream" s ON s.id = t."streamId"
                  WHERE t.state::jsonb - 'createdAt' = to_jsonb(s) - 'createdAt' AND t.status = s.status::text AND t.sender = s.sender AND t.receiver = s.receiver
                    AND t."tokenAddress" = s."tokenAddress" AND t."totalAmount" = 1000 AND t."amountPerSecond" = 10
                    AND t."snapshotMonth" = '2026-03' AND date_trunc('minute', t."createdAt") = '2026-03-15 12:00:00'"#;
    assert_eq!(database.count(same).await, 5);
}

#[tokio::test]
async fn a_column_that_the_host_adds_is_in_the_next_snapshot() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1").await;
    database.execute(r#"ALTER TABLE "Stream" ADD "escrow" NUMERIC DEFAULT 12345678901234567890.5, ADD "seenAt" TIMESTAMPTZ DEFAULT '2026-01-01T00:00:00+02'"#).await;
    database.service().create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    let snapshot = database.service().get_snapshot(&stream("s1"), "2026-03".parse().unwrap()).await.unwrap().unwrap();
    let state: serde_json::Value = serde_json::from_str(snapshot.state.unwrap().get()).unwrap();
    assert_eq!(state["escrow"], "12345678901234567890.5", "a number beyond 2^53 leaves as a string");
    assert_eq!(state["seenAt"], "2025-12-31T22:00:00.000Z");
}

#[tokio::test]
async fn an_amount_that_is_no_integer_of_39_digits_fails_nobody() {
    let database = TestDatabase::migrated().await;
    let largest = "9".repeat(39);
    let too_large = "9".repeat(40);
    for (id, amount) in [
        ("good", largest.as_str()),
        ("negative", "-100"),
        ("empty", ""),
        ("text", "lots"),
        ("fraction", "1.5"),
        ("exponent", "1e9"),
        ("large", &too_large),
        ("spaced", " 1"),
        ("lines", "1\n"),
        ("arabic", "\u{661}"),
    ] {
        database.insert_stream(id, None, amount).await;
    }
    let report =
        database.service().create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.snapshots_created, report.unparsed_amounts), (10, 8));
    let without =
        r#""StreamSnapshot" WHERE "totalAmount" IS NULL AND "amountPerSecond" IS NULL AND state::jsonb ? 'amount'"#;
    assert_eq!(database.count(without).await, 8);
    let good: String =
        database.value(r#"SELECT "totalAmount"::text FROM "StreamSnapshot" WHERE "streamId" = 'good'"#).await;
    assert_eq!(good, largest);
}

#[tokio::test]
async fn the_amount_per_second_is_truncated_and_zero_without_a_duration() {
    let database = TestDatabase::migrated().await;
    for (id, amount, duration) in [
        ("exact", "100", "50"),
        ("truncated", "199", "100"),
        ("negative", "-199", "100"),
        ("below_one", "99", "100"),
        ("largest", "999999999999999999999999999999999999999", "2"),
        ("none", "100", "NULL"),
        ("zero", "100", "0"),
        ("backwards", "100", "-5"),
    ] {
        database.insert_stream(id, None, amount).await;
        database.execute(&format!(r#"UPDATE "Stream" SET duration = {duration} WHERE id = '{id}'"#)).await;
    }
    database.service().create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::never()).await.unwrap();
    for (id, wanted) in [
        ("exact", "2"),
        ("truncated", "1"),
        ("negative", "-1"),
        ("below_one", "0"),
        ("largest", "499999999999999999999999999999999999999"),
        ("none", "0"),
        ("zero", "0"),
        ("backwards", "0"),
    ] {
        let sql = format!(r#"SELECT "amountPerSecond"::text FROM "StreamSnapshot" WHERE "streamId" = '{id}'"#);
        assert_eq!(database.value::<String>(&sql).await, wanted, "{id}");
    }
}

#[tokio::test]
async fn running_again_late_in_the_month_only_fills_in_what_is_missing() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("old", Some("1"), "100").await;
    let service = database.service();
    service.create_monthly_snapshots(Trigger::Api, time("2026-03-01T02:00:00Z"), &Deadline::never()).await.unwrap();
    let taken: String = database.value(r#"SELECT to_jsonb(t)::text FROM "StreamSnapshot" t"#).await;

    database.execute(r#"UPDATE "Stream" SET amount = '999', status = 'CANCELED'"#).await;
    database.insert_stream("new", Some("2"), "5").await;
    let report =
        service.create_monthly_snapshots(Trigger::Api, time("2026-03-31T23:59:59Z"), &Deadline::never()).await.unwrap();
    assert_eq!(report.snapshots_created, 1);
    let kept: String =
        database.value(r#"SELECT to_jsonb(t)::text FROM "StreamSnapshot" t WHERE "streamId" = 'old'"#).await;
    assert_eq!(kept, taken, "a snapshot is immutable");

    let report =
        service.create_monthly_snapshots(Trigger::Api, time("2026-04-01T02:00:00Z"), &Deadline::never()).await.unwrap();
    assert_eq!(report.snapshots_created, 2, "the next month has snapshots of its own");
}

#[tokio::test]
async fn a_deadline_stops_between_batches_and_running_again_continues() {
    let database = TestDatabase::migrated().await;
    for index in 0..10 {
        database.insert_stream(&format!("s{index}"), None, "1").await;
    }
    let service = database.service_with_batches_of(2);
    let mut written = Vec::new();
    loop {
        let report =
            service.create_monthly_snapshots(Trigger::Api, time(NOW), &Deadline::after(Duration::ZERO)).await.unwrap();
        written.push(report.snapshots_created);
        if report.complete {
            break;
        }
    }
    assert_eq!(
        written,
        [4, 8, 10],
        "each call is good for one batch of each of two workers, and the run counts them all"
    );
    assert_eq!(database.count(r#""StreamSnapshot""#).await, 10);
}
