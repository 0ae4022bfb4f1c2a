use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::State;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, Method};
use chrono::{TimeDelta, Utc};
use lambda_http::aws_lambda_events::query_map::QueryMap;
use lambda_http::{Body, Request, RequestExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use snapshot_service::http::{self, RequestContext, Route};
use snapshot_service::{Deadline, SnapshotService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{self, Database};
use crate::output::Output;
use crate::{Result, demo, schedule, stop_on_signal};

/// The most that API Gateway takes as a body.
const MAX_BODY_BYTES: usize = 10_000_000;

/// What the handlers share.
struct App {
    service: SnapshotService,
    maintenance_budget: std::time::Duration,
    stop: CancellationToken,
    /// Names under which it answers, besides those of the loopback.
    allowed_hosts: Vec<String>,
}

/// What to serve, and to whom.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Port on 127.0.0.1
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Do not run maintenance on the 1st of each month at 02:00 UTC
    #[arg(long)]
    no_schedule: bool,
    /// Answer under this name, too, as a proxy passes it on; may be given several times. Nobody is asked for credentials
    #[arg(long, value_name = "NAME", value_parser = allowed_host)]
    allow_host: Vec<String>,
}

/// Migrates, serves the API on a port of 127.0.0.1 and runs the schedule, until Ctrl-C.
pub(crate) async fn serve(Options { port, no_schedule, allow_host }: Options, output: Output) -> Result<()> {
    let stop = stop_on_signal()?;
    // Before the database is started and filled: a port in use is known at once.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(|error| format!("port {port} cannot be served (try --port): {error}"))?;
    let database = tokio::select! {
        database = open_and_migrate() => database?,
        () = stop.cancelled() => return Ok(()),
    };

    let service = SnapshotService::new(database.pool.clone(), database.config.settings.clone());
    let schedule = (!no_schedule).then(|| tokio::spawn(schedule::run(service.clone(), stop.clone())));
    let maintenance_budget = database.config.maintenance_budget;
    let app = App { service, maintenance_budget, stop: stop.clone(), allowed_hosts: allow_host };
    print_welcome(&database, listener.local_addr()?.port(), output).await?;
    let router = Router::new().fallback(answer).with_state(Arc::new(app));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
    if let Some(schedule) = schedule {
        schedule.await?;
    }
    tracing::info!("stopped");
    Ok(())
}

async fn open_and_migrate() -> Result<Database> {
    let database = database::open_with_demo("serve").await?;
    let report = snapshot_service::database::migrate(&database.pool).await?;
    tracing::info!(?report.applied, ?report.archive_columns_changed, "migrated");
    Ok(database)
}

/// The lines to paste: a stream that has history, or will have once maintenance has run.
async fn print_welcome(database: &Database, port: u16, output: Output) -> Result<()> {
    let streams = format!("http://localhost:{port}/api/v1/snapshots");
    let stream = demo::find_stream_with_history(database).await?.unwrap_or_else(|| "STREAM_ID".into());
    let stream = utf8_percent_encode(&stream, NON_ALPHANUMERIC);
    let now = Utc::now();
    let month = now.format("%Y-%m");
    // Not before the snapshots that the first line takes.
    let tomorrow = (now + TimeDelta::days(1)).format("%Y-%m-%dT00:00:00Z");
    let text = format!(
        "\nThe API is served; Ctrl-C stops it. Try, in this order:\n\n  \
         curl -s -X POST {streams}/maintenance\n  \
         curl -s {streams}/{stream}\n  \
         curl -s {streams}/{stream}/{month}\n  \
         curl -s '{streams}/{stream}/archive?limit=2'\n  \
         curl -s '{streams}/{stream}/events?limit=2'\n  \
         curl -s '{streams}/{stream}/state?at={tomorrow}'\n\n"
    );
    output.print(&serde_json::json!({"api": streams}), || text)
}

/// Answers a request as API Gateway and the Lambda function behind its route do.
async fn answer(State(app): State<Arc<App>>, request: axum::extract::Request) -> axum::response::Response {
    let request_id = http::request_id(request.headers()).unwrap_or_else(|| Uuid::new_v4().to_string());
    if let Err(error) = app.check_caller(&request) {
        return into_axum(http::forbidden(error, &request_id));
    }
    let path = request.uri().path().to_owned();
    let Some(route) = Route::find(request.method().as_str(), &path) else {
        return into_axum(match Route::allowed(&path) {
            Some(allowed) => http::method_not_allowed(&allowed, &request_id),
            None => http::not_found(&request_id),
        });
    };
    let parameters = match route.parameters(&path) {
        Ok(parameters) => parameters,
        Err(error) => return into_axum(http::failure(&error, &request_id)),
    };
    let query = request.uri().query().unwrap_or_default().parse::<QueryMap>().unwrap_or_default();
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else { return into_axum(http::too_large(&request_id)) };
    let request = Request::from_parts(head, Body::from(body.to_vec()))
        .with_path_parameters(parameters)
        .with_query_string_parameters(query);
    let deadline = Deadline::after(app.maintenance_budget).or_when(app.stop.clone());
    let call = RequestContext { request_id, now: Utc::now(), deadline, continuation: None };
    into_axum(http::answer(route.endpoint, &app.service, request, call).await)
}

impl App {
    /// Keeps out what a browser sends for a page of somebody else's: one that has given this address a name of its own (DNS rebinding),
    /// or that asks for more than to read.
    fn check_caller(&self, request: &axum::extract::Request) -> std::result::Result<(), &'static str> {
        let headers = request.headers();
        let host = header(headers, &HOST).unwrap_or_default();
        let name = host_name(host);
        if !is_loopback(name) && !self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return Err(
                "This server answers under the names of the loopback only: start it with --allow-host NAME for another",
            );
        }
        let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        if is_safe || !headers.contains_key(ORIGIN) {
            return Ok(());
        }
        let origin = header(headers, &ORIGIN).unwrap_or_default();
        let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if of.is_some_and(|of| of.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err("Only a page of this very server may ask for this: ask from there, or without a browser")
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A name for --allow-host, without a port.
fn allowed_host(text: &str) -> std::result::Result<String, &'static str> {
    let name = host_name(text);
    if name.is_empty() { Err("must be a host's name, such as example.org") } else { Ok(name.to_owned()) }
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn into_axum(response: lambda_http::Response<Body>) -> axum::response::Response {
    response.map(|body| match body {
        Body::Text(text) => text.into(),
        Body::Binary(bytes) => bytes.into(),
        _ => axum::body::Body::empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_loopback_are_known() {
        for host in
            ["localhost", "LOCALHOST:3000", "a.localhost:1", "127.0.0.1:3000", "127.9.9.9", "[::1]:3000", "[::1]"]
        {
            assert!(is_loopback(host_name(host)), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org:3000", "10.0.0.1", "[::2]:3000", "127.0.0.1.example.org"]
        {
            assert!(!is_loopback(host_name(host)), "{host}");
        }
    }
}
