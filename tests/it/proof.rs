//! The archive's seals, and their verification.

use std::time::Duration;

use serde_json::{Value, json};
use snapshot_service::database::migrate;
use snapshot_service::{
    BreakKind, Deadline, FindingKind, MaintenanceRun, RestoreRequest, RunStatus, Settings, Trigger, Verification,
    VerificationRequest, VerificationStatus,
};

use crate::support::{TestDatabase, time};

const NOW: &str = "2026-05-31T02:00:00Z";

/// Gives every row of `EventLog` the hashes that a host gives it, in order of ("createdAt", id).
const CHAIN: &str = r#"
    CREATE OR REPLACE FUNCTION hash_of(e "EventLog") RETURNS text LANGUAGE sql AS $$
        SELECT encode(sha256(convert_to(
            '{"amount":' || COALESCE('"' || e.amount || '"', 'null') || ',"eventIndex":' || e."eventIndex"
            || ',"eventType":' || to_json(e."eventType") || ',"ledger":' || e.ledger
            || ',"ledgerClosedAt":' || to_json(e."ledgerClosedAt")
            || ',"metadata":' || COALESCE(to_json(e.metadata)::text, 'null')
            || ',"receiver":' || COALESCE(to_json(e.receiver)::text, 'null')
            || ',"sender":' || COALESCE(to_json(e.sender)::text, 'null')
            || ',"streamId":' || to_json(e."streamId") || ',"txHash":' || to_json(e."txHash") || '}'
            || COALESCE(e.parent_hash, ''), 'UTF8')), 'hex')
    $$;
    DO $$
    DECLARE
        row "EventLog";
        head text;
    BEGIN
        FOR row IN SELECT * FROM "EventLog" ORDER BY "createdAt", id LOOP
            row.parent_hash := head;
            head := hash_of(row);
            UPDATE "EventLog" SET parent_hash = row.parent_hash, entry_hash = head WHERE id = row.id;
        END LOOP;
    END
    $$"#;

/// With 90 chained events of the first days of January, February and March 2026, and a few of May that are not due.
async fn with_chain() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    for (prefix, start) in [("a", "2026-01-10 00:00:00"), ("b", "2026-02-10 00:00:00"), ("c", "2026-05-10 00:00:00")] {
        database.insert_events(30, start).await;
        database
            .execute(&format!(
                r#"UPDATE "EventLog" SET id = '{prefix}' || id, "txHash" = '{prefix}' || "txHash" WHERE id LIKE 'e%'"#
            ))
            .await;
    }
    database.execute(CHAIN).await;
    database
}

async fn archive(database: &TestDatabase) -> MaintenanceRun {
    let service = database.service_with_batches_of(10);
    service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap()
}

async fn verify(database: &TestDatabase) -> Verification {
    verify_as(database, VerificationRequest { full: true, ..VerificationRequest::default() }).await
}

async fn verify_as(database: &TestDatabase, request: VerificationRequest) -> Verification {
    database.service().verify_archive(request, time(NOW), &Deadline::never()).await.unwrap()
}

/// What a verification found, as kind, batch and row.
fn found(verification: &Verification) -> Vec<(BreakKind, Option<i32>, Option<&str>)> {
    verification.breaks.iter().map(|found| (found.kind, found.sequence, found.log_id.as_deref())).collect()
}

/// What of the host's a verification found, as kind, month and row.
fn findings_of(verification: &Verification) -> Vec<(FindingKind, Option<String>, &str)> {
    let findings = verification.findings.iter();
    findings.map(|found| (found.kind, found.month.map(|month| month.to_string()), found.log_id.as_str())).collect()
}

#[tokio::test]
async fn an_archive_that_nobody_touched_is_verified() {
    let database = with_chain().await;
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, run.hash_mismatches, run.status), (60, 0, RunStatus::Succeeded));
    let verification = verify(&database).await;
    assert_eq!(verification.status, VerificationStatus::Passed, "{verification:?}");
    assert_eq!((verification.seals_done, verification.rows_done, verification.break_count), (6, 90, 0));
    assert_eq!(database.service().find_last_verification().await.unwrap(), Some(verification));
}

#[tokio::test]
async fn the_hosts_own_vectors_have_the_hashes_that_are_computed_here() {
    let database = TestDatabase::migrated().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fixtures/chain-vectors.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    database
        .execute(&format!(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", sender,
                   receiver, amount, metadata, parent_hash, entry_hash, "createdAt")
               SELECT 'v' || n, row ->> 'eventType', row ->> 'streamId', row ->> 'txHash', (row ->> 'eventIndex')::integer,
                   (row ->> 'ledger')::integer, row ->> 'ledgerClosedAt', row ->> 'sender', row ->> 'receiver',
                   (row ->> 'amount')::bigint, row ->> 'metadata', row ->> 'parentHash', row ->> 'entryHash',
                   timestamp '2026-01-01' + n * interval '1 second'
               FROM jsonb_array_elements($vectors${}$vectors$) WITH ORDINALITY vector (row, n)"#,
            vectors["rows"]
        ))
        .await;
    database.insert_event("newer", "42", "2026-05-30 00:00:00").await;
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, run.hash_mismatches), (5, 0));
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed);
}

/// The example of `docs/SEALS.md`, whose digests another program computed.
#[tokio::test]
async fn the_documents_example_has_the_digests_that_it_says() {
    let database = TestDatabase::migrated().await;
    database
        .execute(
            r#"ALTER TABLE "MaintenanceRun" ALTER id SET DEFAULT '6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e';
               INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", sender,
                   amount, metadata, "createdAt")
               VALUES ('e1', 'create', '42', 'tx1', 0, 7, '2026-01-10T00:00:00Z', 'GSENDER', 1000, E'a "quoted"\ttab',
                       '2026-01-10 00:00:00'),
                      ('e2', 'cancel', '42', 'tx2', 1, 8, '2026-01-10T00:00:05Z', NULL, NULL, NULL,
                       '2026-01-10 00:00:05.123')"#,
        )
        .await;
    archive(&database).await;
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SEALS.md")).unwrap();
    let leaves: String = database.value(r#"SELECT encode(leaves, 'hex') FROM "ArchiveSeal""#).await;
    let digest: String = database.value(r#"SELECT encode(digest, 'hex') FROM "ArchiveSeal""#).await;
    for computed in [&leaves[..16], &leaves[16..], &digest] {
        assert!(document.contains(&format!("\n{computed}")), "the document lacks {computed}");
    }
}

#[tokio::test]
async fn a_change_of_any_column_of_any_row_is_found_and_named() {
    let database = with_chain().await;
    database
        .execute(r#"ALTER TABLE "EventLog" ADD note TEXT, ADD "seenAt" TIMESTAMPTZ, ADD raw BYTEA DEFAULT '\x00'"#)
        .await;
    migrate(&database.pool).await.unwrap();
    archive(&database).await;
    let columns: Vec<String> = database
        .value(
            r#"SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
               WHERE attrelid = '"StreamArchive"'::regclass AND attnum > 0 AND NOT attisdropped"#,
        )
        .await;
    assert_eq!(columns.len(), 18, "{columns:?}");
    // First, middle and last of the second batch.
    for id in ["ae000011", "ae000015", "ae000020"] {
        for column in &columns {
            let value = match column.as_str() {
                "createdAt" => r#""createdAt" + interval '1 millisecond'"#,
                "archivedAt" => r#""archivedAt" + interval '1 day'"#,
                "eventIndex" | "ledger" | "amount" => &format!(r#"COALESCE("{column}", 0) + 1"#),
                "seenAt" => "now()",
                "raw" => r"'\x01'",
                _ => &format!(r#"COALESCE("{column}", '') || 'x'"#),
            };
            let keep = format!(r#"CREATE TABLE kept AS SELECT * FROM "StreamArchive" WHERE id = '{id}'"#);
            database.execute(&keep).await;
            database.execute(&format!(r#"UPDATE "StreamArchive" SET "{column}" = {value} WHERE id = '{id}'"#)).await;
            let verification = verify(&database).await;
            assert_eq!(verification.status, VerificationStatus::Failed, "{column} of {id}");
            let named = if column == "id" { format!("{id}x") } else { id.to_owned() };
            let breaks = found(&verification);
            assert!(breaks.iter().any(|(_, _, row)| *row == Some(&named)), "{column} of {id}: {breaks:?}");
            if !["createdAt", "archivedAt"].contains(&column.as_str()) {
                assert!(
                    breaks.contains(&(BreakKind::RowAltered, Some(2), Some(&named))),
                    "{column} of {id}: {breaks:?}"
                );
            }
            database.execute(&format!(
                r#"DELETE FROM "StreamArchive" WHERE id = '{named}'; INSERT INTO "StreamArchive" SELECT * FROM kept; DROP TABLE kept"#
            )).await;
        }
    }
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed, "each change was undone");
}

#[tokio::test]
async fn a_row_that_is_removed_or_added_is_found() {
    let database = with_chain().await;
    archive(&database).await;
    for (number, id) in [(1, "ae000011"), (5, "ae000015"), (10, "ae000020")] {
        database.execute(&format!(r#"CREATE TABLE kept AS SELECT * FROM "StreamArchive" WHERE id = '{id}'"#)).await;
        database.execute(&format!(r#"DELETE FROM "StreamArchive" WHERE id = '{id}'"#)).await;
        let verification = verify(&database).await;
        assert!(found(&verification).contains(&(BreakKind::RowMissing, Some(2), None)), "{id}: {verification:?}");
        assert!(verification.breaks[0].message.contains(&format!("row number {number}")), "{verification:?}");
        database.execute(r#"INSERT INTO "StreamArchive" SELECT * FROM kept; DROP TABLE kept"#).await;
    }
    for (archived_at, sequence) in
        [("2026-05-31 02:00:00.001", Some(2)), ("2020-01-01", Some(1)), ("2026-05-31 02:00:00.003", None)]
    {
        database
            .execute(&format!(
                r#"INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt",
                       "createdAt", "archivedAt")
                   VALUES ('forged', 'create', '42', 'forged', 0, 1, 'then', '2026-01-10 00:15:30', '{archived_at}')"#
            ))
            .await;
        let verification = verify(&database).await;
        assert_eq!(found(&verification), [(BreakKind::RowInserted, sequence, Some("forged"))], "{archived_at}");
        database.execute(r#"DELETE FROM "StreamArchive" WHERE id = 'forged'"#).await;
    }
    database.execute(r#"DROP TABLE "StreamArchive_2026_01""#).await;
    let verification = verify(&database).await;
    assert_eq!(verification.breaks.iter().filter(|found| found.kind == BreakKind::RowMissing).count(), 30);
    assert!(
        verification.breaks.iter().any(|found| found.kind == BreakKind::LinkBroken),
        "the parent of February's first row"
    );
}

#[tokio::test]
async fn any_change_of_the_ledger_itself_is_found() {
    let database = with_chain().await;
    archive(&database).await;
    let entry = r#""ArchiveSeal" WHERE month = '2026-01' AND sequence"#;
    for change in [
        r"kind = 'adopted'",
        r#""runId" = gen_random_uuid()"#,
        r#""runId" = NULL"#,
        "rows = rows + 1",
        r#""firstCreatedAt" = "firstCreatedAt" - interval '1 second'"#,
        r#""firstId" = 'x'"#,
        r#""lastCreatedAt" = "lastCreatedAt" + interval '1 second'"#,
        r#""lastId" = 'x'"#,
        r#""archivedAfter" = "archivedAfter" - interval '1 day'"#,
        r#""archivedAt" = "archivedAt" + interval '1 day'"#,
        r#""minLedger" = 0"#,
        r#""maxLedger" = 1"#,
        "columns = columns[2:]",
        "digest = sha256('')",
        r"leaves = set_byte(leaves, 0, 255 - get_byte(leaves, 0))",
        r"leaves = ''",
    ] {
        database.execute(&format!("CREATE TABLE kept AS SELECT * FROM {entry} = 2")).await;
        database
            .execute(&format!(r#"UPDATE "ArchiveSeal" SET {change} WHERE month = '2026-01' AND sequence = 2"#))
            .await;
        let verification = verify(&database).await;
        assert_eq!(verification.status, VerificationStatus::Failed, "{change}");
        assert!(verification.breaks.iter().any(|found| found.sequence == Some(2)), "{change}: {verification:?}");
        database
            .execute(&format!(
                r#"DELETE FROM {entry} = 2; INSERT INTO "ArchiveSeal" SELECT * FROM kept; DROP TABLE kept"#
            ))
            .await;
    }
    for sequence in [1, 2, 3] {
        database.execute(&format!("CREATE TABLE kept AS SELECT * FROM {entry} = {sequence}")).await;
        database.execute(&format!("DELETE FROM {entry} = {sequence}")).await;
        let verification = verify(&database).await;
        let gone = (BreakKind::SealMissing, Some(sequence), None);
        assert!(found(&verification).contains(&gone), "{sequence}: {verification:?}");
        database.execute(r#"INSERT INTO "ArchiveSeal" SELECT * FROM kept"#).await;
        // One more, after the last.
        database
            .execute(r#"UPDATE kept SET sequence = 4; INSERT INTO "ArchiveSeal" SELECT * FROM kept; DROP TABLE kept"#)
            .await;
        assert_eq!(verify(&database).await.status, VerificationStatus::Failed, "one was added");
        database.execute(&format!("DELETE FROM {entry} = 4")).await;
    }
    for change in ["seals = 2", "digest = sha256('')", r#""archivedAt" = "archivedAt" + interval '1 day'"#] {
        database.execute(r#"CREATE TABLE kept AS SELECT * FROM "ArchiveMonth""#).await;
        database.execute(&format!(r#"UPDATE "ArchiveMonth" SET {change} WHERE month = '2026-01'"#)).await;
        assert_eq!(verify(&database).await.status, VerificationStatus::Failed, "{change}");
        database
            .execute(
                r#"UPDATE "ArchiveMonth" m SET seals = k.seals, digest = k.digest, "archivedAt" = k."archivedAt"
                   FROM kept k WHERE k.month = m.month; DROP TABLE kept"#,
            )
            .await;
    }
    // A row that was taken away, and a record that says it left.
    database
        .execute(
            r#"INSERT INTO "ArchiveRemoval" (month, "archivedAt", id, "createdAt", digest, sequence)
               SELECT '2026-01', "archivedAt", id, "createdAt", sha256(''), 2 FROM "StreamArchive" WHERE id = 'ae000015';
               DELETE FROM "StreamArchive" WHERE id = 'ae000015'"#,
        )
        .await;
    let verification = verify(&database).await;
    assert!(found(&verification).contains(&(BreakKind::RowMissing, None, Some("ae000015"))), "{verification:?}");
}

#[tokio::test]
async fn a_month_that_is_taken_out_of_the_archive_and_a_partition_that_is_none_are_found() {
    let database = with_chain().await;
    archive(&database).await;
    database.execute(r#"ALTER TABLE "StreamArchive" DETACH PARTITION "StreamArchive_2026_01""#).await;
    let verification = verify(&database).await;
    let missing = verification.breaks.iter().filter(|found| found.kind == BreakKind::RowMissing).count();
    assert_eq!(missing, 30, "{verification:?}");
    database
        .execute(
            r#"ALTER TABLE "StreamArchive" ATTACH PARTITION "StreamArchive_2026_01"
                   FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
               CREATE TABLE other PARTITION OF "StreamArchive" DEFAULT"#,
        )
        .await;
    let verification = verify(&database).await;
    assert_eq!(found(&verification), [(BreakKind::RowInserted, None, None)], "{verification:?}");
}

#[tokio::test]
async fn a_log_with_very_many_findings_names_the_first_thousand() {
    let database = TestDatabase::migrated().await;
    database.insert_events(2_500, "2026-05-20 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET parent_hash = 'gone' || id, entry_hash = id"#).await;
    let verification = verify(&database).await;
    assert_eq!((verification.findings.len(), verification.finding_count), (1_000, 2_500 + 2_500));
    assert_eq!((verification.status, verification.break_count), (VerificationStatus::Passed, 0));
}

/// Verifies the archive, and checks that no more than a thousand breaks are kept, and as many findings. Returns how many there are of each.
async fn count(database: &TestDatabase) -> (u64, u64) {
    let verification = verify_as(database, VerificationRequest::default()).await;
    assert_eq!(verification.breaks.len(), usize::try_from(verification.break_count.min(1_000)).unwrap());
    let kept =
        format!(r#"SELECT jsonb_array_length(breaks) FROM "ArchiveVerification" WHERE id = '{}'"#, verification.id);
    assert_eq!(database.value::<i32>(&kept).await, i32::try_from(verification.breaks.len()).unwrap());
    assert_eq!(verification.findings.len(), usize::try_from(verification.finding_count.min(1_000)).unwrap());
    let is_sound = verification.status == VerificationStatus::Passed;
    assert_eq!(is_sound, verification.break_count == 0, "{verification:?}");
    (verification.break_count, verification.finding_count)
}

#[tokio::test]
async fn however_many_breaks_of_whatever_kind_there_are_their_count_is_exact() {
    const FORGED: &str = r#"INSERT INTO "StreamArchive" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt",
        "createdAt", "archivedAt")"#;
    let database = TestDatabase::migrated().await;
    database.insert_events(3_000, "2026-01-10 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET entry_hash = 'h' || id"#).await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    let service = database.service();
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!((run.logs_archived, database.count(r#""ArchiveSeal""#).await), (3_000, 1));
    assert_eq!(count(&database).await, (0, 3_000), "hashes that are not theirs");

    database.execute(r#"UPDATE "StreamArchive" SET metadata = 'x' WHERE ledger <= 1200"#).await;
    assert_eq!(count(&database).await, (1_200, 1_800), "what is altered is not counted twice");
    database.execute(r#"DELETE FROM "StreamArchive" WHERE ledger BETWEEN 1301 AND 2500"#).await;
    assert_eq!(count(&database).await, (1_200 + 1_200, 600));
    database
        .execute(&format!(
            r#"{FORGED} SELECT 'f' || i, 'create', '42', 'f' || i, 0, 1, 'then', timestamp '2026-01-20', "archivedAt"
               FROM "ArchiveMonth", generate_series(1, 1100) i"#
        ))
        .await;
    assert_eq!(count(&database).await, (1_200 + 1_200 + 1_100, 600));
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT"#).await;
    migrate(&database.pool).await.unwrap();
    database.execute(r#"UPDATE "StreamArchive" SET note = 'n' WHERE ledger BETWEEN 2600 AND 2699"#).await;
    assert_eq!(count(&database).await, (1_200 + 1_200 + 1_100 + 100, 500));
    let before = 3_600;
    database
        .execute(&format!(
            r"{FORGED} SELECT 'u' || i, 'create', '42', 'u' || i, 0, 1, 'then', timestamp '2026-01-20', '2026-06-30'
               FROM generate_series(1, 1050) i"
        ))
        .await;
    assert_eq!(count(&database).await, (before + 1_050, 500), "rows of no batch");
    database
        .execute(
            r#"INSERT INTO "ArchiveRemoval" (month, "archivedAt", id, "createdAt", digest, sequence)
               SELECT '2026-01', '2027-01-01', 'r' || i, '2026-01-20', sha256(''), 1 FROM generate_series(1, 1020) i"#,
        )
        .await;
    assert_eq!(count(&database).await, (before + 1_050 + 1_020, 500), "rows that no seal says have left");
    database.execute(r#"UPDATE "ArchiveMonth" SET seals = 2001"#).await;
    assert_eq!(
        count(&database).await,
        (before + 1_050 + 1_020 + 2_000 + 1, 500),
        "seals that are gone, and the end of the chain"
    );
}

#[tokio::test]
async fn links_that_are_missing_are_counted_exactly_but_those_that_nobody_can_know() {
    let database = TestDatabase::migrated().await;
    database.insert_events(1_500, "2026-01-10 00:00:00").await;
    // The former service dropped the hashes of every 300th row.
    database
        .execute(r#"UPDATE "EventLog" SET parent_hash = 'gone' || id, entry_hash = 'h' || id WHERE ledger % 300 <> 0"#)
        .await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, run.hash_mismatches, run.links_missing), (1_500, 1_495, 1_495 - 4));
    assert_eq!(database.count(r#""MaintenanceFinding" WHERE kind = 'link_missing'"#).await, 1_000);
    assert_eq!(count(&database).await, (0, 1_495 + 1_495 - 4));
    let of_stream = VerificationRequest { stream: Some("42".into()), ..VerificationRequest::default() };
    assert_eq!(verify_as(&database, of_stream).await.finding_count, 1_495 + 1_495 - 4);
    // Whoever forges that their parents were there makes breaks of them.
    database.execute(r#"UPDATE "ArchiveSeal" SET unlinked = '{}'"#).await;
    assert_eq!(count(&database).await, (1_495 - 4, 1_495));
}

/// Host case 33: an event that is processed again gets the newest row's hash as parent, and a new hash.
#[tokio::test]
async fn a_link_that_the_host_broke_is_a_finding_and_one_that_broke_since_is_a_break() {
    const UPSERTED: &str = r#"
        UPDATE "EventLog" SET parent_hash = (SELECT entry_hash FROM "EventLog" ORDER BY "createdAt" DESC, id DESC LIMIT 1)
        WHERE id IN ('ae000005', 'be000020');
        UPDATE "EventLog" e SET entry_hash = hash_of(e) WHERE id IN ('ae000005', 'be000020')"#;
    let database = with_chain().await;
    database.execute(UPSERTED).await;
    // Of another stream, and on hold: its row stays in the log, and its child is archived.
    database.execute(r#"UPDATE "EventLog" SET "streamId" = '43' WHERE id = 'be000010'; UPDATE "EventLog" e SET entry_hash = hash_of(e) WHERE id = 'be000010'; UPDATE "EventLog" SET parent_hash = (SELECT entry_hash FROM "EventLog" WHERE id = 'be000010') WHERE id = 'be000011'; UPDATE "EventLog" e SET entry_hash = hash_of(e) WHERE id = 'be000011'; UPDATE "EventLog" SET parent_hash = (SELECT entry_hash FROM "EventLog" WHERE id = 'be000011') WHERE id = 'be000012'; UPDATE "EventLog" e SET entry_hash = hash_of(e) WHERE id = 'be000012'; UPDATE "EventLog" SET parent_hash = (SELECT entry_hash FROM "EventLog" WHERE id = 'be000012') WHERE id = 'be000013'; UPDATE "EventLog" e SET entry_hash = hash_of(e) WHERE id = 'be000013'"#).await;
    database
        .execute(r#"INSERT INTO "LegalHold" ("streamId", reason, "heldBy") VALUES ('43', 'a case', 'a lawyer')"#)
        .await;
    let run = archive(&database).await;
    // Those that followed: three rows whose parents got other hashes.
    assert_eq!((run.logs_archived, run.hash_mismatches, run.links_missing), (59, 0, 3));
    assert_eq!((run.status, run.complete), (RunStatus::SucceededWithFindings, true));
    let missing: Vec<String> = database
        .value(r#"SELECT array_agg("logId" ORDER BY "logId") FROM "MaintenanceFinding" WHERE kind = 'link_missing'"#)
        .await;
    assert_eq!(missing, ["ae000006", "be000014", "be000021"]);
    let verification = verify_as(&database, VerificationRequest::default()).await;
    assert_eq!((verification.status, found(&verification)), (VerificationStatus::Passed, vec![]));
    let link = |month: &str, id| (FindingKind::LinkMissing, Some(month.to_owned()), id);
    let mut findings = findings_of(&verification);
    findings.sort_by_key(|(_, _, id)| *id);
    assert_eq!(findings, [link("2026-01", "ae000006"), link("2026-02", "be000014"), link("2026-02", "be000021")]);

    // The host rewrites a row that is not archived: its archived child had a parent.
    database.execute(r#"UPDATE "EventLog" SET entry_hash = 'another' WHERE id = 'be000010'"#).await;
    let verification = verify_as(&database, VerificationRequest::default()).await;
    assert_eq!(found(&verification), [(BreakKind::LinkBroken, None, Some("be000011"))], "{verification:?}");
    assert_eq!((verification.status, verification.finding_count), (VerificationStatus::Failed, 3));
    // The next run has nothing to tell of rows that are archived.
    assert_eq!(archive(&database).await.links_missing, 0);
}

/// What a slice leaves that is killed before its links are looked up, the next one looks up, and counts once.
#[tokio::test]
async fn links_that_were_not_looked_up_before_a_slice_ended_are_looked_up_by_the_next_one() {
    let database = with_chain().await;
    database.execute(r#"UPDATE "EventLog" SET parent_hash = 'gone' WHERE id IN ('ae000002', 'be000002')"#).await;
    let service = database.service_with(Settings { workers: 1, batch_rows: 10, ..Settings::default() });
    let stopped =
        service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::after(Duration::ZERO)).await.unwrap();
    assert!(!stopped.complete);
    let mut calls = 0;
    let run = loop {
        calls += 1;
        let run =
            service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::after(Duration::ZERO)).await.unwrap();
        if run.complete {
            break run;
        }
        // Until then they may be there.
        assert_eq!(verify_as(&database, VerificationRequest::default()).await.break_count, 0);
    };
    assert!(calls > 3, "{calls}");
    assert_eq!((run.logs_archived, run.links_missing), (60, 2));
    assert_eq!(database.count(r#""ArchiveSeal" WHERE NOT "linksChecked""#).await, 0);
}

/// Host case 34: a job of the host's adds a key to the metadata of rows that it hashed before.
#[tokio::test]
async fn rows_that_the_host_completed_are_counted_and_are_no_finding() {
    let database = TestDatabase::migrated().await;
    database.insert_events(9, "2026-01-10 00:00:00").await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    database
        .execute(r#"UPDATE "EventLog" SET metadata = CASE ledger % 3 WHEN 0 THEN NULL WHEN 1 THEN '{"memo":"a b","n":1.0}' ELSE 'no JSON' END"#)
        .await;
    database.execute(CHAIN).await;
    database
        .execute(
            r#"UPDATE "EventLog" SET metadata = CASE
                   WHEN metadata LIKE '{%' THEN rtrim(metadata, '}') || ',"__eventHash":"' || entry_hash || '"}'
                   ELSE '{"__eventHash":"' || entry_hash || '"}'
               END"#,
        )
        .await;
    let run = archive(&database).await;
    // What could not be parsed is lost.
    assert_eq!((run.logs_archived, run.completed_by_host, run.hash_mismatches, run.links_missing), (9, 6, 3, 0));
    let verification = verify(&database).await;
    assert_eq!(verification.status, VerificationStatus::Passed);
    // The one that is hot has no metadata either.
    assert_eq!((verification.completed_by_host, verification.finding_count), (7, 3), "{verification:?}");
    database.execute(r#"UPDATE "StreamArchive" SET amount = 5 WHERE ledger = 1"#).await;
    assert_eq!(verify(&database).await.status, VerificationStatus::Failed);
}

/// Where a test's log lines go.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn breaks_of_several_pieces_add_up_to_a_thousand_that_are_kept_and_twenty_that_are_logged() {
    let database = TestDatabase::migrated().await;
    database.insert_months("2025-12-01", 2, 700).await;
    database.insert_event("newest", "42", "2026-05-30 00:00:00").await;
    let service = database.service_with_batches_of(300);
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(run.logs_archived, 1_400);
    database.execute(r#"UPDATE "StreamArchive" SET metadata = 'altered'"#).await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    // Whoever comes to a line first decides whether it is logged, and other tests log nowhere: each line has been come to before.
    assert_eq!(count(&database).await, (1_400, 0));
    let guard = tracing::subscriber::set_default(subscriber);
    let mut log = String::new();
    // Another test that comes to a line at the same moment decides last.
    for _ in 0..3 {
        tracing::callsite::rebuild_interest_cache();
        lines.0.lock().unwrap().clear();
        assert_eq!(count(&database).await, (1_400, 0));
        log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        if log.contains("snapshot maintenance: a break") {
            break;
        }
    }
    drop(guard);
    assert_eq!(log.lines().filter(|line| line.contains("snapshot maintenance: a break")).count(), 20, "{log}");
    let more: Vec<_> = log.lines().filter(|line| line.contains("there are more breaks")).collect();
    assert!(more.len() == 1 && more[0].contains("more=1380"), "{more:?}");
}

#[tokio::test]
async fn rows_that_left_are_part_of_the_proof_also_after_the_host_got_a_column() {
    let database = with_chain().await;
    archive(&database).await;
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT"#).await;
    migrate(&database.pool).await.unwrap();
    let month = RestoreRequest::new(None, Some(time("2026-01-01T00:00:00Z")), Some(time("2026-02-01T00:00:00Z")), None);
    let run = database.service().restore(Trigger::Cli, &month.unwrap(), time(NOW), &Deadline::never()).await.unwrap();
    assert!(run.logs_restored > 0);
    let verification = verify(&database).await;
    assert_eq!(verification.status, VerificationStatus::Passed, "{verification:?}");
    for change in [
        r#""createdAt" = "createdAt" + interval '1 millisecond'"#,
        r"id = id || 'x'",
        r#""archivedAt" = "archivedAt" + interval '1 millisecond'"#,
        "digest = sha256('')",
        "sequence = sequence + 1",
    ] {
        database
            .execute(&format!(
                r#"CREATE TABLE kept AS SELECT * FROM "ArchiveRemoval"; UPDATE "ArchiveRemoval" SET {change}"#
            ))
            .await;
        assert_eq!(verify(&database).await.status, VerificationStatus::Failed, "{change}");
        database
            .execute(r#"TRUNCATE "ArchiveRemoval"; INSERT INTO "ArchiveRemoval" SELECT * FROM kept; DROP TABLE kept"#)
            .await;
    }
}

#[tokio::test]
async fn the_first_event_after_those_whose_hashes_the_former_service_dropped_is_no_break() {
    let database = TestDatabase::of_host().await;
    database.execute(include_str!("fixtures/legacy-tables.sql")).await;
    database.insert_events(20, "2026-01-10 00:00:00").await;
    database.execute(CHAIN).await;
    let columns = r#"id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, receiver, amount, metadata, "createdAt""#;
    database
        .execute(&format!(
            r#"INSERT INTO "StreamArchive" ({columns}) SELECT {columns} FROM "EventLog" WHERE id <= 'e000005';
               DELETE FROM "EventLog" WHERE id <= 'e000005'"#
        ))
        .await;
    migrate(&database.pool).await.unwrap();
    database.insert_event("newer", "42", "2026-05-30 00:00:00").await;
    assert_eq!(archive(&database).await.logs_archived, 15);
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed);
    database.execute(r#"UPDATE snapshot_service."StreamArchive" SET parent_hash = 'x' WHERE id = 'e000008'"#).await;
    assert!(verify(&database).await.breaks.iter().any(|found| found.kind == BreakKind::LinkBroken));
}

#[tokio::test]
async fn a_hash_that_is_not_its_rows_is_archived_recorded_and_reported() {
    let database = with_chain().await;
    database.execute(r#"UPDATE "EventLog" SET amount = amount + 1 WHERE id IN ('ae000003', 'be000004')"#).await;
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, run.hash_mismatches), (60, 2));
    assert_eq!((run.status, run.complete), (RunStatus::SucceededWithFindings, true));
    let findings: String = database
        .value(
            r#"SELECT string_agg("logId" || ' ' || month || ' ' || (detail ->> 'entryHash' = entry_hash) || ' '
                   || (detail ->> 'computedHash' <> entry_hash), ', ' ORDER BY "logId")
               FROM "MaintenanceFinding" f JOIN "StreamArchive" a ON a.id = f."logId" WHERE kind = 'hash_mismatch'"#,
        )
        .await;
    assert_eq!(findings, "ae000003 2026-01 true true, be000004 2026-02 true true");
    let verification = verify(&database).await;
    assert_eq!(
        (verification.status, found(&verification)),
        (VerificationStatus::Passed, vec![]),
        "they were archived so"
    );
    assert_eq!(
        findings_of(&verification),
        [
            (FindingKind::HashMismatch, Some("2026-01".into()), "ae000003"),
            (FindingKind::HashMismatch, Some("2026-02".into()), "be000004")
        ]
    );
    // The chain goes on from the next run, whose findings are its own.
    assert_eq!(archive(&database).await.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_broken_link_is_found_on_either_side_of_the_archives_boundary() {
    let database = with_chain().await;
    archive(&database).await;
    // Its row stays sealed as it is; its child in the archive and the first that is hot lose their parents.
    database.execute(r#"UPDATE "EventLog" SET parent_hash = repeat('0', 64) WHERE id = 'ce000002'"#).await;
    let hot = verify(&database).await;
    assert_eq!((hot.status, found(&hot)), (VerificationStatus::Passed, vec![]));
    assert_eq!(
        findings_of(&hot),
        [(FindingKind::HashMismatch, None, "ce000002"), (FindingKind::LinkMissing, None, "ce000002")]
    );
    assert_eq!(verify_as(&database, VerificationRequest::default()).await.status, VerificationStatus::Passed);
    database.execute(r#"DELETE FROM "StreamArchive" WHERE id = 'be000030'"#).await;
    let verification = verify(&database).await;
    assert!(found(&verification).contains(&(BreakKind::RowMissing, Some(3), None)), "{verification:?}");
    assert!(findings_of(&verification).contains(&(FindingKind::LinkMissing, None, "ce000001")), "{verification:?}");
}

#[tokio::test]
async fn a_verification_is_limited_to_a_month_or_a_stream() {
    let database = with_chain().await;
    database.execute(r#"UPDATE "EventLog" SET "streamId" = '43' WHERE id = 'be000015'"#).await;
    database.execute(CHAIN).await;
    archive(&database).await;
    database
        .execute(r#"UPDATE "StreamArchive" SET metadata = 'x' WHERE id IN ('ae000001', 'be000016', 'be000025')"#)
        .await;
    let of_month = |month: &str| VerificationRequest { month: month.parse().ok(), ..VerificationRequest::default() };
    let january = verify_as(&database, of_month("2026-01")).await;
    assert_eq!(found(&january)[0], (BreakKind::RowAltered, Some(1), Some("ae000001")));
    assert_eq!((january.seals_done, january.break_count), (3, 1));
    database.insert_stream("s43", Some("43"), "1").await;
    let of_stream = VerificationRequest { stream: Some("s43".into()), ..VerificationRequest::default() };
    let stream = verify_as(&database, of_stream).await;
    assert_eq!(found(&stream), [(BreakKind::RowAltered, Some(2), Some("be000016"))], "of the batch that it is in");
    assert_eq!((stream.seals_done, stream.stream_id.as_deref()), (1, Some("43")));
}

#[tokio::test]
async fn a_verification_that_is_interrupted_goes_on_where_it_stopped() {
    let database = with_chain().await;
    archive(&database).await;
    database.execute(r#"UPDATE "StreamArchive" SET metadata = 'x' WHERE id = 'ae000001'"#).await;
    let everything = || VerificationRequest { full: true, ..VerificationRequest::default() };
    let service = database.service_with(Settings { workers: 1, ..Settings::default() });
    let mut calls = 0;
    let verification = loop {
        calls += 1;
        let soon = Deadline::after(std::time::Duration::ZERO);
        let verification = service.verify_archive(everything(), time(NOW), &soon).await.unwrap();
        if verification.complete {
            break verification;
        }
        assert_eq!(verification.status, VerificationStatus::Interrupted);
    };
    assert_eq!(calls, 12, "the partitions, 6 seals, 2 months, January's links, the log, and its links");
    assert_eq!((verification.rows_done, verification.break_count), (90, 1), "each was looked at once");
    assert_eq!(database.count(r#""ArchiveVerification""#).await, 1);
}

#[tokio::test]
async fn a_task_that_another_call_has_is_left_to_it_until_its_lease_expires() {
    let database = with_chain().await;
    archive(&database).await;
    let service = database.service();
    let everything = || VerificationRequest { full: true, ..VerificationRequest::default() };
    let soon = Deadline::after(std::time::Duration::ZERO);
    let begun = service.verify_archive(everything(), time(NOW), &soon).await.unwrap();
    database
        .execute(
            r#"UPDATE "VerificationTask"
               SET token = gen_random_uuid(), "leaseExpiresAt" = now() AT TIME ZONE 'UTC' + interval '1 hour'
               WHERE kind = 'seal' AND month = '2026-01' AND sequence = 1"#,
        )
        .await;
    let deadline = Deadline::never();
    let left = service.verify_archive(everything(), time(NOW), &deadline).await.unwrap();
    assert_eq!((left.id, left.status, left.seals_done), (begun.id, VerificationStatus::Interrupted, 5));
    let again = service.verify_archive(everything(), time(NOW), &deadline).await.unwrap();
    assert_eq!((again.id, again.status, again.seals_done), (begun.id, VerificationStatus::Interrupted, 5));
    database.execute(r#"UPDATE "VerificationTask" SET "leaseExpiresAt" = '2026-01-01'"#).await;
    let ended = service.verify_archive(everything(), time(NOW), &deadline).await.unwrap();
    assert_eq!((ended.id, ended.status, ended.seals_done), (begun.id, VerificationStatus::Passed, 6));
    assert_eq!(ended.rows_done, 90, "each was looked at once");
    assert_eq!(database.count(r#""VerificationTask""#).await, 0, "nothing is kept of one that has ended");
}

#[tokio::test]
async fn adopted_rows_are_sealed() {
    let database = TestDatabase::of_host().await;
    database.execute(include_str!("fixtures/legacy-tables.sql")).await;
    database.insert_events(20, "2026-01-10 00:00:00").await;
    database.execute(CHAIN).await;
    // Copied by the former service, which then crashed before it deleted them; and one that it had deleted.
    let columns = r#"id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", sender, receiver, amount, metadata, "createdAt""#;
    database
        .execute(&format!(
            r#"INSERT INTO "StreamArchive" ({columns}) SELECT {columns} FROM "EventLog" WHERE id <= 'e000005';
               INSERT INTO "StreamArchive" ({columns}) SELECT 'old', 'create', '42', 'old', 1, 'then', NULL, NULL, 1, NULL,
                   timestamp '2026-01-02'"#
        ))
        .await;
    let report = migrate(&database.pool).await.unwrap();
    assert_eq!(report.logs_sealed, 1);
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed);
    database.insert_event("newer", "42", "2026-05-30 00:00:00").await;
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, run.already_archived, run.hash_mismatches), (20, 0, 0));
    let verification = verify(&database).await;
    assert_eq!(verification.status, VerificationStatus::Passed, "{verification:?}");
    let kinds: Vec<String> = database.value(r#"SELECT array_agg(DISTINCT kind) FROM "ArchiveSeal""#).await;
    assert_eq!(kinds, ["adopted", "archived"]);
    database.execute(r#"UPDATE snapshot_service."StreamArchive" SET entry_hash = NULL WHERE id = 'e000002'"#).await;
    let verification = verify(&database).await;
    assert!(verification.breaks.iter().any(|found| found.log_id.as_deref() == Some("e000002")), "{verification:?}");
}

/// A row that somebody put into the archive is not sealed with those that `migrate` copies.
#[tokio::test]
async fn a_row_that_was_planted_is_found_also_after_the_next_migrate() {
    let database = TestDatabase::of_host().await;
    database.execute(include_str!("fixtures/legacy-tables.sql")).await;
    let copy = |id: &str| {
        format!(
            r#"INSERT INTO public."StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               VALUES ('{id}', 'create', '42', '{id}', 1, 'then', '2026-01-02')"#
        )
    };
    database.execute(&copy("old")).await;
    assert_eq!(migrate(&database.pool).await.unwrap().logs_sealed, 1);
    database
        .execute(
            r#"INSERT INTO snapshot_service."StreamArchive" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt",
                   "createdAt", "archivedAt") VALUES ('forged', 'create', '42', 'forged', 1, 'then', '2026-01-03', '2030-01-01')"#,
        )
        .await;
    database.execute(&copy("late")).await;
    for _ in 0..2 {
        let report = migrate(&database.pool).await.unwrap();
        assert_eq!(report.logs_sealed, 0);
        assert!(!report.former_tables[0].may_be_dropped || !report.former_tables[1].may_be_dropped, "{report:?}");
        assert_eq!(found(&verify(&database).await), [(BreakKind::RowInserted, None, Some("forged"))]);
    }
    database.execute(r#"DELETE FROM snapshot_service."StreamArchive" WHERE id = 'forged'"#).await;
    assert_eq!(migrate(&database.pool).await.unwrap().logs_sealed, 1);
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed);
}

/// Also where ids are no texts, and hashes are of another type.
#[tokio::test]
async fn an_altered_seal_is_a_break_and_links_are_found_whatever_types_the_host_has() {
    let database = TestDatabase::of_host().await;
    database
        .execute(
            r#"ALTER TABLE "EventLog" ALTER id TYPE BIGINT USING 0, ALTER parent_hash TYPE BYTEA USING NULL,
                   ALTER entry_hash TYPE BYTEA USING NULL"#,
        )
        .await;
    migrate(&database.pool).await.unwrap();
    database
        .execute(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", "createdAt",
                   parent_hash, entry_hash)
               SELECT i, 'create', '42', 'tx' || i, 0, i, 'then', timestamp '2026-01-10' + i * interval '1 second',
                   CASE WHEN i > 1 THEN sha256(convert_to((i - CASE i WHEN 15 THEN 100 ELSE 1 END)::text, 'UTF8')) END,
                   sha256(convert_to(i::text, 'UTF8'))
               FROM generate_series(1, 31) i"#,
        )
        .await;
    let run = archive(&database).await;
    assert_eq!((run.complete, run.logs_archived, run.links_missing), (true, 30, 1), "{run:?}");
    let sound = verify_as(&database, VerificationRequest::default()).await;
    assert_eq!(sound.status, VerificationStatus::Passed, "{sound:?}");
    assert!(findings_of(&sound).contains(&(FindingKind::LinkMissing, Some("2026-01".into()), "15")), "{sound:?}");
    database.execute(r#"UPDATE "ArchiveSeal" SET "lastId" = 'x' WHERE sequence = 1"#).await;
    let altered = verify_as(&database, VerificationRequest::default()).await;
    assert_eq!(found(&altered), [(BreakKind::SealAltered, Some(1), None)], "{altered:?}");
}

#[tokio::test]
async fn a_column_that_the_host_adds_breaks_no_seal_and_a_value_smuggled_into_it_does() {
    let database = with_chain().await;
    archive(&database).await;
    database.execute(r#"ALTER TABLE "EventLog" ADD note TEXT"#).await;
    migrate(&database.pool).await.unwrap();
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed);
    database.execute(r#"UPDATE "StreamArchive" SET note = 'x' WHERE id = 'ae000001'"#).await;
    assert_eq!(found(&verify(&database).await), [(BreakKind::RowAltered, Some(1), Some("ae000001"))]);
}

#[tokio::test]
async fn an_event_that_is_ingested_again_is_dropped_when_it_is_the_same_and_kept_when_it_is_not() {
    let database = with_chain().await;
    archive(&database).await;
    // Under new ids, and chained anew; one with another amount, one under another place in its transaction.
    database
        .execute(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", sender,
                   receiver, amount, metadata, "createdAt")
               SELECT 'again-' || id, "eventType", "streamId", "txHash",
                   CASE WHEN id = 'ae000009' THEN 9 ELSE "eventIndex" END, ledger, "ledgerClosedAt", sender, receiver,
                   CASE WHEN id = 'ae000008' THEN amount + 1 ELSE amount END, metadata, timestamp '2026-02-20'
               FROM "StreamArchive" WHERE id IN ('ae000007', 'ae000008', 'ae000009', 'be000001')"#,
        )
        .await;
    database.execute(CHAIN).await;
    let run = archive(&database).await;
    assert_eq!((run.logs_archived, run.duplicates_dropped, run.conflicts), (1, 2, 1), "{run:?}");
    assert_eq!(run.conflict_ids, ["again-ae000008"]);
    assert_eq!(database.count(r#""StreamArchive" WHERE id = 'again-ae000009'"#).await, 1, "another event");
    let findings: String = database
        .value(
            r#"SELECT string_agg(kind || ' ' || "logId" || ' ' || (detail ->> 'archivedId') || ' ' || (detail #>> '{row,txHash}'),
                   ', ' ORDER BY "logId") FROM "MaintenanceFinding""#,
        )
        .await;
    assert_eq!(
        findings,
        "duplicate_dropped again-ae000007 ae000007 atx-2, duplicate_kept again-ae000008 ae000008 atx-2, \
         duplicate_dropped again-be000001 be000001 btx-0"
    );
    // Rows that were chained to one that was dropped have their parent on record.
    let verification = verify(&database).await;
    let links = verification.breaks.iter().filter(|found| found.kind == BreakKind::LinkBroken).count();
    assert_eq!(links, 0, "{verification:?}");
}

#[tokio::test]
async fn rows_without_hashes_and_hosts_without_them_are_verified_too() {
    let database = TestDatabase::of_host().await;
    database.execute(r#"ALTER TABLE "EventLog" DROP parent_hash, DROP entry_hash, DROP "eventIndex""#).await;
    migrate(&database.pool).await.unwrap();
    database
        .execute(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'e' || i, 'create', '42', 'tx' || i, i, 'then', timestamp '2026-01-10' + i * interval '1 second'
               FROM generate_series(1, 25) i"#,
        )
        .await;
    assert_eq!(archive(&database).await.logs_archived, 25);
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed);
    database.execute(r#"UPDATE "StreamArchive" SET ledger = 99 WHERE id = 'e7'"#).await;
    assert_eq!(found(&verify(&database).await), [(BreakKind::RowAltered, Some(1), Some("e7"))]);
}

/// Archiving sorts what the insertion returned; a verification sorts what it reads, in whatever order.
#[tokio::test]
async fn batches_of_many_rows_are_sealed_in_order_and_verified_as_they_come_and_go() {
    let database = TestDatabase::migrated().await;
    database.insert_events(45_001, "2026-01-10 00:00:00").await;
    // Ids whose order by bytes is not that of a dictionary, and about ten to an instant, in no order in the table.
    database
        .execute(
            r#"UPDATE "EventLog"
               SET id = CASE WHEN ledger % 2 = 0 THEN upper(md5(id)) ELSE md5(id) END,
                   "createdAt" = timestamp '2026-01-10' + ('x' || left(md5(id), 3))::bit(12)::integer * interval '1 second'"#,
        )
        .await;
    let service = database.service_with(Settings { batch_target: Duration::from_mins(1), ..Settings::default() });
    let run = service.run_maintenance(Trigger::Cli.request(), time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(run.logs_archived, 45_001);
    let sizes = r#"SELECT string_agg(rows::text, ' ' ORDER BY sequence) FROM "ArchiveSeal""#;
    assert_eq!(database.value::<String>(sizes).await, "20000 20000 5001");
    let misplaced = r#""ArchiveSeal" s CROSS JOIN LATERAL (
        SELECT array_agg(id ORDER BY "createdAt", id COLLATE "C") AS ids FROM "StreamArchive" a WHERE a."archivedAt" = s."archivedAt"
    ) a WHERE ("firstId", "lastId") IS DISTINCT FROM (ids[1], ids[cardinality(ids)])"#;
    assert_eq!(database.count(misplaced).await, 0, "ids of the first and the last row");
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed);

    let request = RestoreRequest::new(None, None, None, Some(run.id)).unwrap();
    let restored = service.restore(Trigger::Cli, &request, time(NOW), &Deadline::never()).await.unwrap();
    assert_eq!(restored.logs_restored, 45_001);
    assert_eq!(verify(&database).await.status, VerificationStatus::Passed);
}

#[tokio::test]
async fn an_archive_that_is_verified_while_it_grows_passes() {
    let database = TestDatabase::migrated().await;
    database.insert_events(3_000, "2026-01-01 00:00:00").await;
    let service = database.service_with_batches_of(50);
    let deadline = Deadline::never();
    let archiving = service.run_maintenance(Trigger::Cli.request(), time(NOW), &deadline);
    let verifying = async {
        let mut passed = 0;
        while database.count(r#""EventLog""#).await > 0 {
            let verification = verify_as(&database, VerificationRequest::default()).await;
            assert_eq!(verification.status, VerificationStatus::Passed, "{verification:?}");
            passed += 1;
        }
        passed
    };
    let (run, passed) = tokio::join!(archiving, verifying);
    assert_eq!(run.unwrap().logs_archived, 3_000);
    assert!(passed > 0);
    assert_eq!(json!(verify(&database).await.status), json!("passed"));
}
