//! The metrics that the functions write to stdout, in CloudWatch's embedded metric format.

use std::time::Duration;

use chrono::Utc;
use runtime_api::Function;
use serde_json::{Value, json};
use snapshot_service::{Deadline, Trigger, VerificationRequest};

use crate::support::TestDatabase;
use crate::support::lambda::{binary, sample_event, start_function};

/// Each metric with its unit; CloudWatch has none for hours.
const UNITS: [(&str, Option<&str>); 12] = [
    ("SnapshotsCreated", Some("Count")),
    ("LogsArchived", Some("Count")),
    ("RowsPerSecond", Some("Count/Second")),
    ("BacklogRows", Some("Count")),
    ("BacklogAge", Some("Seconds")),
    ("UnparsedAmounts", Some("Count")),
    ("HostFindings", Some("Count")),
    ("VerificationBreaks", Some("Count")),
    ("SliceTime", Some("Milliseconds")),
    ("BatchTime", Some("Milliseconds")),
    ("RunsFailed", Some("Count")),
    ("HoursSinceLastSuccess", None),
];

/// The lines of `log` that CloudWatch takes for metrics, each checked against the format's specification.
fn documents(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let documents: Vec<Value> = lines.filter(|line: &Value| line.get("_aws").is_some()).collect();
    documents.iter().for_each(check);
    documents
}

fn check(document: &Value) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let metadata = &document["_aws"];
    assert_eq!(keys(metadata), ["CloudWatchMetrics", "Timestamp"], "{document}");
    let age = Utc::now().timestamp_millis() - metadata["Timestamp"].as_i64().unwrap();
    assert!((0..600_000).contains(&age), "not milliseconds since the epoch: {document}");
    let [directive] = metadata["CloudWatchMetrics"].as_array().unwrap().as_slice() else { panic!("{document}") };
    assert_eq!(keys(directive), ["Dimensions", "Metrics", "Namespace"], "{document}");
    assert_eq!((&directive["Namespace"], &directive["Dimensions"]), (&json!("SnapshotService"), &json!([[]])));
    let metrics = directive["Metrics"].as_array().unwrap();
    assert!((1..=100).contains(&metrics.len()));
    let mut names = Vec::new();
    for metric in metrics {
        let name = metric["Name"].as_str().unwrap();
        let (_, unit) = UNITS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{document}"));
        assert_eq!(metric.get("Unit").map(|unit| unit.as_str().unwrap()), *unit, "{name}");
        assert!(keys(metric).iter().all(|key| key == "Name" || key == "Unit"), "{document}");
        let value = document.get(name).unwrap_or_else(|| panic!("{name} has no value: {document}"));
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        assert!((1..=100).contains(&values.len()) && values.iter().all(Value::is_number), "{document}");
        names.push(name);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), metrics.len(), "named twice: {document}");
    // At no log level does Lambda leave it out.
    assert_eq!(document["level"], "FATAL");
    assert!(chrono::DateTime::parse_from_rfc3339(document["timestamp"].as_str().unwrap()).is_ok());
}

/// All values of a metric.
fn values(documents: &[Value], name: &str) -> Vec<f64> {
    let of = |document: &Value| match &document[name] {
        Value::Array(values) => values.iter().map(|value| value.as_f64().unwrap()).collect(),
        Value::Null => Vec::new(),
        value => vec![value.as_f64().unwrap()],
    };
    documents.iter().flat_map(of).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "counts are whole and small")]
fn sum(documents: &[Value], name: &str) -> i64 {
    values(documents, name).iter().sum::<f64>() as i64
}

/// What the counters of a run and the metrics of its slices both tell.
fn assert_adds_up(documents: &[Value], run: &Value) {
    for (metric, counter) in [
        ("SnapshotsCreated", "snapshotsCreated"),
        ("UnparsedAmounts", "unparsedAmounts"),
        ("LogsArchived", "logsArchived"),
        ("HostFindings", "hashMismatches"),
    ] {
        assert_eq!(json!(sum(documents, metric)), run[counter], "{metric}: {run}");
    }
    for document in documents {
        assert_eq!(document["run"], run["id"]);
        assert_eq!(document["requestId"], "invocation-1");
        assert!(document["xrayTraceId"].as_str().unwrap().starts_with("Root=1-"));
    }
}

async fn start(name: &str, database: &TestDatabase, batch_rows: &str) -> Function {
    let variables = [("DATABASE_URL", database.url.as_str()), ("BATCH_ROWS", batch_rows), ("WORKERS", "1")];
    let function = start_function(name, &variables).await;
    function.set_timeout(Duration::from_mins(15)).await;
    function
}

#[tokio::test]
async fn what_the_slices_of_a_run_emit_adds_up_to_its_counters() {
    let database = TestDatabase::migrated().await;
    for stream in 0..25 {
        let amount = if stream < 3 { "many" } else { "1000" };
        database.insert_stream(&format!("s{stream:02}"), Some(&format!("4{stream}")), amount).await;
    }
    database.insert_events(40, "2026-01-10 00:00:00").await;
    database.execute(r#"UPDATE "EventLog" SET entry_hash = 'wrong' WHERE ledger BETWEEN 8 AND 12"#).await;
    let mut functions = [
        (start("run-maintenance", &database, "10").await, "run-maintenance"),
        (start("trigger-maintenance", &database, "10").await, "trigger-maintenance"),
    ];
    let mut emitted = Vec::new();
    let mut slices = 0;
    let run = loop {
        let (function, name) = &mut functions[slices % 2];
        // Less than the margin: one batch, then stop.
        function.set_timeout(Duration::from_secs(2)).await;
        let outcome = function.invoke(&sample_event(name)).await;
        assert!(!outcome.failed, "{outcome:?}");
        let run = if *name == "run-maintenance" { outcome.payload.clone() } else { outcome.body()["data"].clone() };
        let of_slice = documents(&outcome.log);
        assert_eq!((values(&of_slice, "SliceTime").len(), sum(&of_slice, "RunsFailed")), (1, 0), "{outcome:?}");
        emitted.extend(of_slice);
        // After each slice, not only after the last.
        assert_adds_up(&emitted, &run);
        slices += 1;
        if run["complete"] == true {
            break run;
        }
    };
    assert!(slices > 5, "{slices}");
    assert_eq!(
        json!([slices, 25, 3, 40, 5]),
        json!([
            run["attempts"],
            run["snapshotsCreated"],
            run["unparsedAmounts"],
            run["logsArchived"],
            run["hashMismatches"]
        ])
    );
    let times = [values(&emitted, "BatchTime"), values(&emitted, "SliceTime")].concat();
    assert!(times.iter().all(|time| (0.01..60_000.0).contains(time)), "not milliseconds: {times:?}");
    // Three of streams and four of logs, at least.
    assert!(values(&emitted, "BatchTime").len() >= 7);
    assert!(values(&emitted, "RowsPerSecond").iter().all(|rate| *rate > 0.0));
    assert!(values(&emitted, "RowsPerSecond").len() >= 4);
    let logs: String = functions.iter().map(|(function, _)| function.log()).collect();
    assert_eq!(documents(&logs).len(), emitted.len(), "nothing is emitted outside of invocations");

    // A period that was run has no slice.
    let again = functions[0].0.invoke(&sample_event("run-maintenance")).await;
    assert_eq!((&again.payload["id"], documents(&again.log)), (&run["id"], Vec::new()));
}

#[tokio::test]
async fn a_slice_of_many_batches_emits_several_lines() {
    let database = TestDatabase::migrated().await;
    database.insert_events(250, "2026-01-10 00:00:00").await;
    let outcome = start("run-maintenance", &database, "1").await.invoke("{}").await;
    let documents = documents(&outcome.log);
    assert_adds_up(&documents, &outcome.payload);
    let batch_times: Vec<_> =
        documents.iter().map(|document| values(std::slice::from_ref(document), "BatchTime").len()).collect();
    assert_eq!(batch_times, [100, 100, 50]);
    assert_eq!(values(&documents, "SliceTime").len(), 1);
}

#[tokio::test]
async fn a_slice_that_fails_says_so_and_what_it_had_committed_counts() {
    let database = TestDatabase::migrated().await;
    database.insert_stream("s1", Some("42"), "1000").await;
    database.insert_events(40, "2026-01-10 00:00:00").await;
    database
        .execute(
            r#"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF OLD.ledger = 25 THEN RAISE 'no'; END IF; RETURN OLD; END $$;
               CREATE TRIGGER refuse BEFORE DELETE ON "EventLog" FOR EACH ROW EXECUTE FUNCTION refuse()"#,
        )
        .await;
    let mut scheduled = start("run-maintenance", &database, "10").await;
    let mut requested = start("trigger-maintenance", &database, "10").await;
    let failed = scheduled.invoke(&sample_event("run-maintenance")).await;
    assert!(failed.failed);
    let mut emitted = documents(&failed.log);
    let count = |documents: &[Value], name| sum(documents, name);
    assert_eq!((count(&emitted, "RunsFailed"), count(&emitted, "SnapshotsCreated")), (1, 1));
    assert_eq!((count(&emitted, "LogsArchived"), values(&emitted, "SliceTime").len()), (20, 1));

    let failed = requested.invoke(&sample_event("trigger-maintenance")).await;
    assert_eq!(failed.status(), 409);
    let second = documents(&failed.log);
    assert_eq!((count(&second, "RunsFailed"), count(&second, "LogsArchived")), (1, 0));
    emitted.extend(second);

    database.execute(r#"DROP TRIGGER refuse ON "EventLog""#).await;
    let last = scheduled.invoke(&sample_event("run-maintenance")).await;
    let third = documents(&last.log);
    assert_eq!((count(&third, "RunsFailed"), &last.payload["complete"]), (0, &json!(true)));
    emitted.extend(third);
    assert_adds_up(&emitted, &last.payload);
    assert_eq!(last.payload["logsArchived"], 40);
}

#[tokio::test]
async fn a_slice_that_is_killed_has_emitted_all_but_its_last_batches() {
    let database = TestDatabase::migrated().await;
    database.insert_events(20_000, "2026-01-01 00:00:00").await;
    let mut function = start("run-maintenance", &database, "1").await;
    function.invoke_without_waiting("{}");
    while database.count(r#""StreamArchive""#).await < 250 {
        tokio::task::yield_now().await;
    }
    function.kill().await;
    let emitted = documents(&function.log());
    // The last statement of the one that was killed may just be ending.
    database.execute(r#"BEGIN; LOCK TABLE "MaintenanceRun"; COMMIT"#).await;
    let archived: i64 = database.value(r#"SELECT sum("logsArchived")::bigint FROM "RunMonth""#).await;
    let counted = sum(&emitted, "LogsArchived");
    assert!(counted >= 200 && counted <= archived && archived - counted <= 101, "{counted} of {archived}");
    assert!(values(&emitted, "SliceTime").is_empty(), "it has not ended");
}

/// The URL of a role that may only read.
async fn reader_url(database: &TestDatabase) -> String {
    let name = database.value::<String>("SELECT current_database()::text").await;
    database
        .execute(&format!(
            r"DO $$ BEGIN
                   IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'reads_{name}') THEN
                       CREATE ROLE reads_{name} LOGIN PASSWORD 'reads';
                   END IF;
               END $$;
               ALTER ROLE reads_{name} SET default_transaction_read_only = on;
               GRANT USAGE ON SCHEMA snapshot_service TO reads_{name}; GRANT SELECT ON ALL TABLES IN SCHEMA public, snapshot_service TO reads_{name}"
        ))
        .await;
    let (_, place) = database.url.split_once('@').unwrap();
    format!("postgres://reads_{name}:reads@{place}")
}

/// What `report-metrics` answers, which is what it emits, as the role that `url` names.
async fn report_as(url: &str) -> Value {
    let variables = [("DATABASE_URL", url), ("LOCK_TIMEOUT_SECONDS", "1")];
    let outcome = start_function("report-metrics", &variables).await.invoke("{}").await;
    assert!(!outcome.failed, "{outcome:?}");
    let documents = documents(&outcome.log);
    let [document] = documents.as_slice() else { panic!("{documents:?}") };
    for (metric, field) in [
        ("HoursSinceLastSuccess", "hoursSinceLastSuccess"),
        ("BacklogRows", "backlogRows"),
        ("BacklogAge", "backlogAgeSeconds"),
        ("VerificationBreaks", "verificationBreaks"),
    ] {
        let value = outcome.payload[field].as_f64();
        assert_eq!(values(&documents, metric), value.into_iter().collect::<Vec<_>>(), "{metric}: {outcome:?}");
    }
    let reported = document["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap().len();
    let known = outcome.payload.as_object().unwrap().values().filter(|value| value.is_number()).count();
    assert_eq!(reported, known, "no other metric is there, not even as zero: {document}");
    outcome.payload
}

fn hours(report: &Value) -> f64 {
    report["hoursSinceLastSuccess"].as_f64().unwrap()
}

#[tokio::test]
async fn the_daily_report_tells_how_far_maintenance_is_behind() {
    let database = TestDatabase::migrated().await;
    let reader = reader_url(&database).await;
    // A stack that never works is noticed, too.
    database
        .execute(
            "UPDATE snapshot_service_migrations SET applied_on = to_char(
                 clock_timestamp() AT TIME ZONE 'UTC' - version * interval '100 hours',
                 'YYYY-MM-DD\"T\"HH24:MI:SS.US123\"Z\"')",
        )
        .await;
    let first = report_as(&reader).await;
    let migrations: i32 = database.value("SELECT max(version) FROM snapshot_service_migrations").await;
    assert!((0.0..0.1).contains(&(hours(&first) - f64::from(migrations) * 100.0)), "{first}");
    assert_eq!((&first["backlogRows"], &first["backlogAgeSeconds"]), (&json!(0), &json!(0.0)));

    database.insert_event("new", "42", &(Utc::now().naive_utc() - chrono::TimeDelta::hours(1)).to_string()).await;
    assert_eq!(report_as(&reader).await["backlogRows"], 0, "nothing is due yet");
    database.insert_events(300, "2026-01-10 00:00:00").await;
    database.execute(r#"ANALYZE "EventLog""#).await;
    let behind = report_as(&reader).await;
    assert!((290.0..=301.0).contains(&behind["backlogRows"].as_f64().unwrap()), "{behind}");
    let age: f64 = database
        .value(
            r#"SELECT extract(epoch FROM now() AT TIME ZONE 'UTC' - interval '3 months' - min("createdAt"))::float8
               FROM "EventLog""#,
        )
        .await;
    assert!((0.0..60.0).contains(&(age - behind["backlogAgeSeconds"].as_f64().unwrap())), "{age}: {behind}");

    // A host that has its table locked does not keep the rest from being known.
    let mut holder = database.client().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute(r#"LOCK TABLE "EventLog""#).await.unwrap();
    let busy = report_as(&reader).await;
    lock.rollback().await.unwrap();
    assert_eq!((&busy["backlogRows"], &busy["backlogAgeSeconds"]), (&Value::Null, &Value::Null));
    assert!(hours(&busy) > 99.0);

    // What is not all of it is no success: a run of the archive alone, one that is not at its end, one that was
    // cancelled.
    let service = database.service();
    service.create_monthly_snapshots(Trigger::Api, Utc::now(), &Deadline::never()).await.unwrap();
    let mut function = start("run-maintenance", &database, "10").await;
    function.set_timeout(Duration::from_secs(2)).await;
    assert_eq!(function.invoke(&sample_event("run-maintenance")).await.payload["complete"], false);
    assert!(hours(&report_as(&reader).await) > 99.0);
    service.cancel_maintenance().await.unwrap();
    assert!(hours(&report_as(&reader).await) > 99.0);

    function.set_timeout(Duration::from_mins(15)).await;
    assert_eq!(function.invoke("{}").await.payload["complete"], true);
    let done = report_as(&reader).await;
    assert!((0.0..0.1).contains(&hours(&done)), "{done}");
    assert_eq!((&done["backlogRows"], &done["backlogAgeSeconds"]), (&json!(0), &json!(0.0)));
    assert_eq!(done["verificationBreaks"], 0);

    // Findings are a success that has an alarm of its own.
    database
        .execute(
            r#"UPDATE "MaintenanceRun" SET "finishedAt" = "finishedAt" - interval '10 hours',
                   status = CASE status WHEN 'succeeded' THEN 'succeeded_with_findings' ELSE status END"#,
        )
        .await;
    let later = report_as(&reader).await;
    assert!((0.0..0.1).contains(&(hours(&later) - 10.0)), "{later}");
}

#[tokio::test]
async fn what_a_verification_finds_is_reported_on_the_day_after() {
    let database = TestDatabase::migrated().await;
    database.insert_events(30, "2026-01-10 00:00:00").await;
    assert_eq!(start("run-maintenance", &database, "100").await.invoke("{}").await.payload["complete"], true);
    database.execute(r#"UPDATE "StreamArchive" SET amount = amount + 1 WHERE ledger IN (3, 5)"#).await;
    let (everything, now) = (VerificationRequest::default(), Utc::now());
    let found = database.service().verify_archive(everything, now, &Deadline::never()).await.unwrap();
    assert_eq!(found.break_count, 2);
    assert_eq!(report_as(&reader_url(&database).await).await["verificationBreaks"], 2);
    // The schedule's day before it, and the one after it: each finding is counted once.
    let mut function = start_function("report-metrics", &[("DATABASE_URL", &database.url)]).await;
    let mut event: Value = serde_json::from_str(&sample_event("report-metrics")).unwrap();
    for (days, findings) in [(0, 2), (1, 0), (2, 0)] {
        database
            .execute(&format!(
                r#"UPDATE "ArchiveVerification"
                   SET "updatedAt" = timestamp '2026-06-01 01:00' - {days} * interval '1 day'"#
            ))
            .await;
        for (time, findings) in [("2026-06-01T06:00:00Z", findings), ("2026-06-02T06:00:00Z", 0)] {
            event["time"] = time.into();
            let outcome = function.invoke(&event.to_string()).await;
            assert_eq!(outcome.payload["verificationBreaks"], findings, "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_report_that_cannot_be_made_fails() {
    let database = TestDatabase::of_host().await;
    let mut function = start_function("report-metrics", &[("DATABASE_URL", &database.url)]).await;
    let outcome = function.invoke(&sample_event("report-metrics")).await;
    assert_eq!((outcome.failed, &outcome.payload["errorType"]), (true, &json!("not_migrated")), "{outcome:?}");
    assert_eq!(documents(&outcome.log), Vec::<Value>::new());
}

#[test]
fn only_functions_that_emit_metrics_contain_what_writes_them() {
    for (name, has) in
        [("get-snapshot", false), ("list-snapshots", false), ("run-maintenance", true), ("report-metrics", true)]
    {
        let program = std::fs::read(binary(name)).unwrap();
        let word = b"CloudWatchMetrics";
        assert_eq!(program.windows(word.len()).any(|bytes| bytes == word), has, "{name}");
    }
}
