//! What a pooler between the functions and the database sees of them. RDS Proxy gives a session a connection of its own, for
//! good, once it prepares a named statement or leaves other traces in its session.

use std::collections::{BTreeMap, BTreeSet};

use local_postgres::Options;
use serde_json::json;
use snapshot_service::database::connect_pool;
use snapshot_service::{
    Deadline, ReleaseRequest, RestoreRequest, Settings, SnapshotService, Trigger, VerificationRequest,
};

use crate::lambda::HTTP_FUNCTIONS;
use crate::support::certificates::start_postgres;
use crate::support::lambda::{sample_event, start_function};
use crate::support::{TestDatabase, stream, time};

/// A statement as the server's log has it.
#[derive(Debug)]
struct Statement {
    application: String,
    session: String,
    /// `parse`, `bind` and `execute` of the extended protocol, `statement` of the simple one.
    step: String,
    /// Of a prepared statement.
    name: Option<String>,
    sql: String,
}

impl Statement {
    /// Its parts, where there are several, each from its first word.
    fn parts(&self) -> impl Iterator<Item = String> {
        self.sql.split(';').map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase())
    }

    fn starts_transaction(&self) -> bool {
        self.parts().next().is_some_and(|part| part.starts_with("BEGIN") || part.starts_with("START TRANSACTION"))
    }

    fn ends_transaction(&self) -> bool {
        self.parts().next().is_some_and(|part| part == "COMMIT" || part == "ROLLBACK")
    }

    /// What would outlive its transaction.
    fn trace(&self) -> Option<String> {
        const COMMANDS: [&str; 9] =
            ["SET ", "RESET ", "PREPARE ", "DEALLOCATE ", "DISCARD ", "DECLARE ", "LISTEN ", "LOAD ", "CREATE TEMP"];
        const FUNCTIONS: [&str; 4] = ["PG_ADVISORY_LOCK", "PG_TRY_ADVISORY_LOCK", "NEXTVAL(", "SETVAL("];
        const LOCAL: [&str; 3] = ["SET LOCAL ", "SET TRANSACTION ", "SET CONSTRAINTS "];
        self.parts().find(|part| {
            let lasts = COMMANDS.iter().any(|command| part.starts_with(command));
            let is_local = LOCAL.iter().any(|command| part.starts_with(command));
            // Its last argument is whether the setting ends with the transaction.
            let settings = part.matches("SET_CONFIG(").count();
            let lasts_by_function = settings > part.matches(", TRUE)").count()
                || (settings > 0 && part.contains(", FALSE)"))
                || FUNCTIONS.iter().any(|function| part.contains(function));
            (lasts && !is_local) || lasts_by_function
        })
    }
}

/// What the services have sent to a server, in order.
async fn read_log(database: &TestDatabase) -> Vec<Statement> {
    let log: String = database.value("SELECT pg_read_file(current_setting('data_directory') || '/../log')").await;
    let entries = log.split("<<<").filter_map(|entry| entry.split_once(">>>"));
    let statements = entries.filter_map(|(prefix, entry)| {
        let (application, session) = prefix.split_once('|')?;
        let (step, sql) = entry.split_once(" ms  ")?.1.split_once(": ")?;
        let (step, name) = step.split_once(' ').map_or((step, None), |(step, name)| (step, Some(name.to_owned())));
        let application = application.strip_prefix("snapshot-service/")?.to_owned();
        Some(Statement { application, session: session.into(), step: step.into(), name, sql: sql.trim_end().into() })
    });
    statements.collect()
}

/// Everything that the functions and the operator's command do, `migrate` as well.
#[tokio::test]
async fn no_session_is_pinned_nameless_or_without_limits() {
    let settings =
        ["log_min_duration_statement = 0", "log_line_prefix = '<<<%a|%c>>>'", "max_prepared_transactions = 0"];
    let options = Options { settings: settings.map(String::from).into(), files: Vec::new() };
    let server = start_postgres(options).await;
    let database = TestDatabase::adopt_host(server.url("postgres")).await;
    let variables = [("DATABASE_URL", database.url.as_str())];
    start_function("migrate", &variables).await.invoke("{}").await;
    database.insert_stream("s1", Some("42"), "1000").await;
    database.insert_events(50, "2026-01-10 00:00:00").await;

    let pool = connect_pool(&database.url.parse().unwrap(), "operator", 4).await.unwrap();
    let service = SnapshotService::new(pool, Settings { batch_rows: 20, ..Settings::default() });
    let (now, later, forever) = (time("2026-05-31T02:00:00Z"), time("2026-06-01T02:00:00Z"), Deadline::never());
    service.dry_run(false, now, &forever).await.unwrap();
    service.pause_maintenance("lunch", "test").await.unwrap();
    service.resume_maintenance().await.unwrap();
    let run = service.run_maintenance(Trigger::Cli.request(), now, &forever).await.unwrap();
    assert_eq!((run.logs_archived, run.complete), (50, true));
    service.verify_archive(VerificationRequest::default(), later, &forever).await.unwrap();
    let full = VerificationRequest { full: true, ..VerificationRequest::default() };
    service.verify_archive(full, later, &forever).await.unwrap();
    let restore = RestoreRequest::new(Some(stream("42")), None, Some(time("2026-01-10T00:10:00Z")), None).unwrap();
    service.dry_run_restore(&restore, &forever).await.unwrap();
    service.restore(Trigger::Cli, &restore, later, &forever).await.unwrap();
    assert_eq!(service.count_restored_logs().await.unwrap(), 9);
    service.release_restored_logs(&ReleaseRequest::default()).await.unwrap();
    service.hold_stream(&stream("42"), "case 7", "test").await.unwrap();
    service.release_hold(&stream("42"), None, "closed", "test").await.unwrap();
    service.list_legal_holds().await.unwrap();
    service.find_last_scheduled_period().await.unwrap();
    service.find_open_maintenance_run().await.unwrap();

    database
        .execute(&format!(
            r#"UPDATE "MaintenanceRun" SET id = '6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e' WHERE id = '{}'"#,
            run.id
        ))
        .await;
    for name in HTTP_FUNCTIONS {
        let outcome = start_function(name, &variables).await.invoke(&sample_event(name)).await;
        assert_eq!(outcome.status(), 200, "{name}: {outcome:?}");
    }
    let outcome = start_function("run-maintenance", &variables).await.invoke(&sample_event("run-maintenance")).await;
    assert_eq!(outcome.payload["complete"], json!(true), "{outcome:?}");
    // As the state machine does it.
    database.insert_events(50, "2026-01-20 00:00:00").await;
    database
        .execute(
            r#"UPDATE "EventLog" SET id = 'f' || id, "txHash" = 'f' || "txHash" WHERE "createdAt" >= '2026-01-20'"#,
        )
        .await;
    let mut function = start_function("run-maintenance", &variables).await;
    let mut step = async |step: &str, more: serde_json::Value| {
        let mut event = json!({"step": step, "execution": "e"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let outcome = function.invoke(&event.to_string()).await;
        assert!(!outcome.failed, "{step}: {outcome:?}");
        outcome.payload
    };
    let run = step("take-snapshots", json!({"request": {}})).await["runId"].clone();
    let plan = step("plan-archive", json!({"runId": run})).await;
    assert_eq!(plan["months"], json!(["2026-01"]));
    step("archive-month", json!({"runId": run, "month": "2026-01"})).await;
    step("fail", json!({"error": {"Error": "tried"}})).await;
    assert_eq!(step("finish", json!({"runId": run})).await["complete"], json!(true));
    let outcome = start_function("report-metrics", &variables).await.invoke(&sample_event("report-metrics")).await;
    assert!(!outcome.failed, "{outcome:?}");

    let rollback = service.restore_all(Trigger::Cli, true, later, &forever).await.unwrap();
    let snapshots = service.write_snapshots(|_| Ok(())).await.unwrap();
    service.write_records(|_| Ok(())).await.unwrap();
    service.drop_all(rollback.id, snapshots).await.unwrap();

    let statements: Vec<_> = read_log(&database).await;
    // Besides `test`, the connections that look after the database.
    let applications: BTreeSet<&str> = statements.iter().map(|statement| statement.application.as_str()).collect();
    let expected =
        HTTP_FUNCTIONS.iter().copied().chain(["run-maintenance", "report-metrics", "migrate", "operator", "test"]);
    assert_eq!(applications, expected.collect(), "each names itself");

    let mut sessions: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for statement in statements.iter().filter(|statement| statement.application != "test") {
        seen.insert(statement.step.as_str());
        if let Some(name) = &statement.name {
            assert_eq!(name, "<unnamed>", "a named statement: {statement:?}");
        }
        assert_eq!(statement.trace(), None, "{statement:?}");
        assert!(statement.sql.len() < 16_000, "longer than RDS Proxy looks at: {statement:?}");
        // The probe of a pooled connection does nothing; VACUUM takes no transaction, and is left alone when the slice ends.
        if statement.sql.is_empty() || statement.sql.starts_with("VACUUM ") {
            continue;
        }
        let (is_open, has_limits) = sessions.entry(&statement.session).or_default();
        *is_open |= statement.starts_transaction();
        let limits = ["statement_timeout", "lock_timeout"].map(|limit| format!("SET LOCAL {limit} = "));
        *has_limits |= limits.iter().all(|limit| statement.sql.contains(limit));
        assert!(*is_open && (*has_limits || statement.starts_transaction()), "without limits: {statement:?}");
        if statement.ends_transaction() {
            (*is_open, *has_limits) = (false, false);
        }
    }
    assert_eq!(seen, ["bind", "execute", "parse", "statement"].into());
}
