use std::time::{Duration, Instant};

use local_postgres::Server;
use runtime_api::Function;
use snapshot_service::{Deadline, Settings, SnapshotService, Trigger};

use crate::data::{self, MILLION, NOW};
use crate::maintenance::{binary, median};
use crate::{Result, report};

const INVOCATIONS: usize = 1_000;
const STARTS: usize = 40;
/// The stream that is asked for, by its contract-level id.
const STREAM: &str = "41650000777";

/// A statement that a function sends, to be sent by the driver alone: with `values` for those names, and for others what the head
/// of its file sets for psql.
pub(crate) fn statement(sql: &str, values: &[(&str, &str)]) -> String {
    let setting = |line: &str| {
        let (name, value) = line.strip_prefix("-- \\set ")?.split_once(' ')?;
        let value = value.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'");
        let given = values.iter().find(|(given, _)| *given == name);
        Some((format!(":{name}"), given.map_or(value, |(_, value)| (*value).to_owned())))
    };
    let mut settings: Vec<_> = sql.lines().filter_map(setting).collect();
    // A name may be the beginning of another.
    settings.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    settings.iter().fold(sql.to_owned(), |sql, (name, value)| sql.replace(name, value))
}

/// Warm invocations through the Runtime API and bare queries, by turns: name, invocation, query.
pub(crate) async fn warm(server: &Server) -> Result<[(&'static str, Duration, Duration); 2]> {
    report::say("invoking functions");
    data::clone(server, MILLION, "warm").await?;
    let pool = data::pool(server, "warm").await?;
    let service = SnapshotService::new(pool.clone(), Settings::default());
    service.run_maintenance(Trigger::Cli.request(), NOW.parse()?, &Deadline::never()).await?;
    pool.close();
    data::execute(server, "warm", "VACUUM ANALYZE").await?;

    let client = data::connect(&server.url("warm")).await?;
    let stream = ("stream", &*format!("'{STREAM}'"));
    let get = statement(
        include_str!("../../src/store/sql/list_snapshots.sql"),
        &[stream, ("month", "'2026-05'"), ("limit", "1")],
    );
    let list = statement(
        include_str!("../../src/store/sql/list_events_of_table.sql"),
        &[stream, ("limit", "101"), ("max_bytes", "5500000")],
    );
    let get = compare(server, &client, "get-snapshot", "/{streamId}/{month}", &get).await?;
    let list = compare(server, &client, "list-archived-logs", "/{streamId}/archive", &list).await?;
    drop(client);
    data::drop(server, "warm").await?;
    Ok([("get-snapshot", get.0, get.1), ("list-archived-logs", list.0, list.1)])
}

async fn compare(
    server: &Server,
    client: &tokio_postgres::Client,
    name: &str,
    path: &str,
    statement: &str,
) -> Result<(Duration, Duration)> {
    let event = serde_json::json!({
        "version": "2.0",
        "routeKey": format!("GET /api/v1/snapshots{path}"),
        "rawPath": "/api/v1/snapshots",
        "rawQueryString": "",
        "headers": {},
        "requestContext": {
            "http": {"method": "GET", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "bench"},
            "requestId": "1", "stage": "$default", "time": "01/Jun/2026:02:00:00 +0000", "timeEpoch": 1_780_279_200_000_u64,
        },
        "isBase64Encoded": false,
        "pathParameters": {"streamId": STREAM, "month": "2026-05"},
    })
    .to_string();
    let url = server.url("warm");
    let mut function =
        Function::start(binary(name), name, &[("DATABASE_URL", &url), ("AWS_LAMBDA_LOG_LEVEL", "ERROR")]).await;
    let (mut invocations, mut queries) = (Vec::new(), Vec::new());
    for _ in 0..INVOCATIONS {
        let started = Instant::now();
        let outcome = function.invoke(&event).await;
        invocations.push(started.elapsed().as_secs_f64());
        if outcome.status() != 200 || outcome.body()["data"].as_array().is_some_and(Vec::is_empty) {
            return Err(format!("{name} answered {outcome:?}").into());
        }
        let started = Instant::now();
        let rows = client.query_typed(statement, &[]).await?;
        queries.push(started.elapsed().as_secs_f64());
        if rows.is_empty() {
            return Err(format!("the query of {name} found nothing").into());
        }
    }
    Ok((Duration::from_secs_f64(median(invocations)), Duration::from_secs_f64(median(queries))))
}

/// From spawn to the first poll: `get-snapshot`, and a function that does nothing, by turns.
pub(crate) async fn first_poll(server: &Server) -> Result<(Duration, Duration)> {
    let url = server.url("postgres");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        for (name, times) in [("get-snapshot", &mut ours), ("bare-function", &mut bare)] {
            let function = Function::start(binary(name), name, &[("DATABASE_URL", &url)]).await;
            times.push(function.time_to_first_poll().await.as_secs_f64());
        }
    }
    Ok((Duration::from_secs_f64(median(ours)), Duration::from_secs_f64(median(bare))))
}
