use snapshot_service::database::migrate;
use snapshot_service::{ArchiveFilter, Deadline};

use crate::support::{TestDatabase, read_archive, time};

const NOW: &str = "2026-05-31T02:00:00Z";

#[tokio::test]
async fn a_host_older_than_the_hashes_is_served() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "EventLog" DROP "eventIndex", DROP parent_hash, DROP entry_hash"#).await;
    migrate(&database.pool).await.unwrap();
    database.insert_event("e1", "42", "2026-01-15 10:00:00").await;
    database.remember_events().await;
    let report = database.service().archive_old_logs(time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.logs_archived, report.held_back.len()), (1, 0));
    database.assert_nothing_lost_or_doubled().await;
    let logs = read_archive(&database.service(), "42", &ArchiveFilter::default(), 10).await;
    assert_eq!((logs[0].event_index, &logs[0].parent_hash, &logs[0].entry_hash), (None, &None, &None));

    // The host catches up.
    database
        .execute(
            r#"ALTER TABLE "EventLog" ADD "eventIndex" INTEGER NOT NULL DEFAULT 0, ADD parent_hash TEXT, ADD entry_hash TEXT;
               DROP TABLE remembered"#,
        )
        .await;
    database.insert_event("e2", "42", "2026-01-16 10:00:00").await;
    database.insert_event("newest", "42", "2026-05-30 10:00:00").await;
    assert_eq!(
        database.service().archive_old_logs(time(NOW), &Deadline::never()).await.unwrap_err().code(),
        "archive_columns_differ"
    );
    migrate(&database.pool).await.unwrap();
    let report = database.service().archive_old_logs(time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(report.logs_archived, 1);
    assert_eq!(database.count(r#""StreamArchive" WHERE "eventIndex" = 0"#).await, 1);
}

#[tokio::test]
async fn columns_that_the_host_added_are_archived_and_leave_under_their_own_names() {
    let database = TestDatabase::of_host().await;
    database
        .execute(
            r#"CREATE TYPE "Network" AS ENUM ('MAINNET', 'TESTNET');
               ALTER TABLE "EventLog"
                   ADD network "Network" NOT NULL DEFAULT 'TESTNET',
                   ADD "Odd ""name" TEXT[] DEFAULT '{a,"b c"}',
                   ADD fee NUMERIC(40, 2) DEFAULT 12345678901234567890.10,
                   ADD raw JSON DEFAULT '{"b": 1,  "a": 1}',
                   ADD "seenAt" TIMESTAMPTZ DEFAULT '2026-01-01T00:00:00+02',
                   ADD code TEXT COLLATE "C" DEFAULT 'x'"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    database.insert_event("e1", "42", "2026-01-15 10:00:00").await;
    database.insert_event("e2", "42", "2026-01-15 10:00:00").await;
    database.remember_events().await;
    database.execute(r#"CREATE TABLE copies AS SELECT * FROM "EventLog""#).await;
    let service = database.service();
    assert_eq!(service.archive_old_logs(time(NOW), &Deadline::never()).await.unwrap().logs_archived, 2);
    database.assert_nothing_lost_or_doubled().await;

    // Copies are compared in these columns too, whatever their type.
    database.execute(r#"INSERT INTO "EventLog" SELECT * FROM copies"#).await;
    database.execute(r#"UPDATE "EventLog" SET raw = '{"b": 2}' WHERE id = 'e2'"#).await;
    let report = service.archive_old_logs(time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((report.already_archived, report.conflicts), (1, 1));

    let logs = read_archive(&service, "42", &ArchiveFilter::default(), 10).await;
    let json = serde_json::to_value(&logs[1]).unwrap();
    assert_eq!(json["network"], "TESTNET");
    assert_eq!(json["Odd \"name"], serde_json::json!(["a", "b c"]));
    assert_eq!(json["fee"], "12345678901234567890.10");
    assert_eq!(json["seenAt"], "2025-12-31T22:00:00.000Z");
    assert_eq!(json["id"], "e1");
    assert_eq!(json.as_object().unwrap().len(), 15 + 6);
}
