use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::State;
use axum::routing::{MethodFilter, MethodRouter, on};
use chrono::{TimeDelta, Utc};
use lambda_http::aws_lambda_events::query_map::QueryMap;
use lambda_http::{Body, Request, RequestExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use snapshot_service::http::{self, Call, ROUTES, Route};
use snapshot_service::{Deadline, SnapshotService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{self, Database};
use crate::{Result, demo, schedule, stop_on_signal};

/// The most that API Gateway takes as a body.
const MAX_BODY_BYTES: usize = 10_000_000;

/// What the handlers share.
struct App {
    service: SnapshotService,
    maintenance_budget: std::time::Duration,
    stop: CancellationToken,
}

/// Migrates, serves the API on `port` of 127.0.0.1 and runs the schedule, until Ctrl-C.
pub(crate) async fn serve(port: u16, scheduled: bool) -> Result<()> {
    let stop = stop_on_signal()?;
    // Before the database is started and filled: a port in use is known at once.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(|error| format!("port {port} cannot be served (try --port): {error}"))?;
    let database = tokio::select! {
        database = open_and_migrate() => database?,
        () = stop.cancelled() => return Ok(()),
    };

    let service = SnapshotService::new(database.pool.clone(), database.config.settings.clone());
    let schedule = scheduled.then(|| tokio::spawn(schedule::run(service.clone(), stop.clone())));
    let app = App { service, maintenance_budget: database.config.maintenance_budget, stop: stop.clone() };
    print_welcome(&database, listener.local_addr()?.port()).await?;
    axum::serve(listener, router(Arc::new(app))).with_graceful_shutdown(stop.cancelled_owned()).await?;
    if let Some(schedule) = schedule {
        schedule.await?;
    }
    tracing::info!("stopped");
    Ok(())
}

async fn open_and_migrate() -> Result<Database> {
    let database = database::open("serve").await?;
    let report = snapshot_service::database::migrate(&database.pool).await?;
    tracing::info!(?report.applied, ?report.archive_columns_changed, "migrated");
    Ok(database)
}

/// The lines to paste: a stream that has history, or will have once maintenance has run.
async fn print_welcome(database: &Database, port: u16) -> Result<()> {
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
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The routes of the Lambda functions, matched as API Gateway does. A stream id that is empty is matched too, so that
/// its caller hears what is wrong.
fn router(app: Arc<App>) -> Router {
    let paths: BTreeSet<String> =
        ROUTES.iter().flat_map(|route| [route.path.to_owned(), route.path.replace("{streamId}", "")]).collect();
    let routes = paths.into_iter().fold(Router::new(), |router, path| {
        let methods = ["GET", "POST"].iter().filter_map(|method| find_route(method, &path));
        router.route(&path, methods.fold(MethodRouter::new(), |methods, route| methods.merge(method_router(route))))
    });
    routes.fallback(nothing_here).method_not_allowed_fallback(nothing_here).with_state(app)
}

/// The route for requests to `path`: the one with the most fixed parts of those that match.
fn find_route(method: &str, path: &str) -> Option<&'static Route> {
    let fixed_parts = |route: &&Route| route.path.split('/').filter(|part| !part.starts_with('{')).count();
    let matches = |route: &&Route| route.method == method && parts(route, path).is_some();
    ROUTES.iter().filter(matches).max_by_key(fixed_parts)
}

/// The parts of `path` beside those of the route, or `None` where a fixed one differs.
fn parts<'a>(route: &Route, path: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
    let (wanted, found) = (route.path.split('/'), path.split('/'));
    let same_length = wanted.clone().count() == found.clone().count();
    let parts: Vec<_> = wanted.zip(found).collect();
    let fixed = parts.iter().filter(|(wanted, _)| !wanted.starts_with('{'));
    (same_length && fixed.clone().all(|(wanted, found)| wanted == found)).then_some(parts)
}

fn method_router(route: &'static Route) -> MethodRouter<Arc<App>> {
    let filter = if route.method == "POST" { MethodFilter::POST } else { MethodFilter::GET };
    on(filter, move |State(app): State<Arc<App>>, request: axum::extract::Request| async move {
        // As API Gateway hands them on: still percent-encoded.
        let path = request.uri().path().to_owned();
        let parts = parts(route, &path).unwrap_or_default().into_iter();
        let parameters: HashMap<String, String> = parts
            .filter_map(|(wanted, found)| Some((wanted.strip_prefix('{')?.strip_suffix('}')?.into(), found.into())))
            .collect();
        let query = request.uri().query().unwrap_or_default().parse::<QueryMap>().unwrap_or_default();
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else { return too_large() };
        let request = Request::from_parts(head, Body::from(body.to_vec()))
            .with_path_parameters(parameters)
            .with_query_string_parameters(query);
        let deadline = Deadline::after(app.maintenance_budget).or_when(app.stop.clone());
        let call = Call { request_id: Uuid::new_v4().to_string(), now: Utc::now(), deadline, continuation: None };
        into_axum(http::answer(route.endpoint, &app.service, request, call).await)
    })
}

fn too_large() -> axum::response::Response {
    let mut response = axum::response::Response::default();
    *response.status_mut() = axum::http::StatusCode::PAYLOAD_TOO_LARGE;
    response
}

async fn nothing_here() -> axum::response::Response {
    into_axum(http::not_found(&Uuid::new_v4().to_string()))
}

fn into_axum(response: lambda_http::Response<Body>) -> axum::response::Response {
    response.map(|body| match body {
        Body::Text(text) => text.into(),
        Body::Binary(bytes) => bytes.into(),
        _ => axum::body::Body::empty(),
    })
}
