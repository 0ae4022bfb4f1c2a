//! The HTTP contract (`openapi.yaml`): a request in, the envelope out. The Lambda binaries and the local server call
//! [`answer`]; both get their routes from [`ROUTES`].

mod handlers;
mod request;
mod response;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lambda_http::http::HeaderMap;
use lambda_http::{Body, Request, RequestExt, Response};
use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::maintenance::Deadline;
use crate::model::{MaintenanceRun, StepRequest};
use crate::service::SnapshotService;

pub use response::{error as failure, forbidden, method_not_allowed, not_found, too_large};

/// A reader that got no answer by then hears that the database is down; 5 s are promised.
const READ_TIMEOUT: Duration = Duration::from_millis(4500);

/// Where an endpoint is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path, its parameters in braces, as API Gateway writes it.
    pub path: &'static str,
    /// What it answers.
    pub endpoint: Endpoint,
    /// The Lambda function's name: its binary's.
    pub function: &'static str,
}

impl Route {
    /// The route for `method` and `path`, as callers write it: of those that match, the one with the most fixed parts.
    pub fn find(method: &str, path: &str) -> Option<&'static Self> {
        let fixed_parts = |route: &&Self| route.path.split('/').filter(|part| name(part).is_none()).count();
        Self::all(path).filter(|route| route.method == method).max_by_key(fixed_parts)
    }

    /// The methods that `path` takes, as the header `Allow` has them; none where there is no such path.
    pub fn allowed(path: &str) -> Option<String> {
        let methods: BTreeSet<_> = Self::all(path).map(|route| route.method).collect();
        (!methods.is_empty()).then(|| methods.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// All routes that `path` matches, whatever the method.
    fn all(path: &str) -> impl Iterator<Item = &'static Self> {
        ROUTES.iter().filter(move |route| {
            route.path.split('/').count() == path.split('/').count()
                && route.parts(path).all(|(wanted, found)| name(wanted).is_some() || wanted == found)
        })
    }

    /// The parameters in `path`, decoded as API Gateway decodes them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when one is no percent-encoded UTF-8.
    pub fn parameters(&self, path: &str) -> Result<HashMap<String, String>> {
        let named = self.parts(path).filter_map(|(wanted, found)| Some((name(wanted)?, found)));
        named.map(|(name, found)| Ok((name.to_owned(), decode(name, found)?))).collect()
    }

    fn parts<'a>(&self, path: &'a str) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.path.split('/').zip(path.split('/'))
    }
}

/// The name of a part that is a parameter.
fn name(part: &'static str) -> Option<&'static str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

fn decode(name: &'static str, raw: &str) -> Result<String> {
    let is_whole = |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    let escapes_are_whole = raw.split('%').skip(1).all(is_whole);
    let decoded = percent_decode_str(raw).decode_utf8().ok().filter(|_| escapes_are_whole);
    decoded.map(String::from).ok_or_else(|| Error::invalid(name, "must be percent-encoded UTF-8"))
}

/// Makes [`Endpoint`] and [`ROUTES`] of one table: what it answers, the method and the path, the Lambda function, the handler.
macro_rules! routes {
    ($($(#[$doc:meta])+ $name:ident: $method:literal $path:literal, $function:literal, $handler:expr;)+) => {
        /// What can be asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint {
            $($(#[$doc])+ $name,)+
        }

        impl Endpoint {
            /// The Lambda function's name: its binary's.
            pub const fn function(self) -> &'static str {
                match self {
                    $(Self::$name => $function,)+
                }
            }
        }

        /// All routes. Where two match, the one with more fixed parts wins.
        pub const ROUTES: &[Route] = &[
            $(Route { method: $method, path: $path, endpoint: Endpoint::$name, function: $function },)+
        ];

        fn handler(endpoint: Endpoint) -> Handler {
            match endpoint {
                $(Endpoint::$name => $handler,)+
            }
        }
    };
}

routes! {
    /// A stream's snapshots.
    ListSnapshots: "GET" "/api/v1/snapshots/{streamId}", "list-snapshots",
        |service, request, _| Box::pin(handlers::list_snapshots(service, request));
    /// One snapshot.
    GetSnapshot: "GET" "/api/v1/snapshots/{streamId}/{month}", "get-snapshot",
        |service, request, _| Box::pin(handlers::get_snapshot(service, request));
    /// A stream's archived logs.
    ListArchivedLogs: "GET" "/api/v1/snapshots/{streamId}/archive", "list-archived-logs",
        |service, request, _| Box::pin(handlers::list_archived_logs(service, request));
    /// A stream's events, hot and archived.
    ListStreamEvents: "GET" "/api/v1/snapshots/{streamId}/events", "list-stream-events",
        |service, request, _| Box::pin(handlers::list_stream_events(service, request));
    /// What a stream's state at a past time follows from.
    GetStreamState: "GET" "/api/v1/snapshots/{streamId}/state", "get-stream-state",
        |service, request, _| Box::pin(handlers::get_stream_state(service, request));
    /// Maintenance on request.
    TriggerMaintenance: "POST" "/api/v1/snapshots/maintenance", "trigger-maintenance",
        |service, request, call| Box::pin(handlers::trigger_maintenance(service, request, call));
    /// All runs of maintenance.
    ListMaintenanceRuns: "GET" "/api/v1/snapshots/maintenance", "list-maintenance-runs",
        |service, request, _| Box::pin(handlers::list_maintenance_runs(service, request));
    /// The last verification of the archive.
    GetVerification: "GET" "/api/v1/snapshots/maintenance/verification", "get-verification",
        |service, _, _| Box::pin(handlers::get_verification(service));
    /// One run.
    GetMaintenanceRun: "GET" "/api/v1/snapshots/maintenance/{runId}", "get-maintenance-run",
        |service, request, _| Box::pin(handlers::get_maintenance_run(service, request));
}

/// The circumstances of a request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Names the request in the log and in the answer.
    pub request_id: String,
    /// When it came.
    pub now: DateTime<Utc>,
    /// When maintenance on request must stop.
    pub deadline: Deadline,
    /// Who continues it then; where nobody does, the caller must ask again.
    pub continuation: Option<Continuation>,
}

/// Hands a run that is not complete to whoever continues it.
#[derive(Clone)]
pub struct Continuation(Arc<Continue>);

type Continue = dyn Fn(MaintenanceRun, StepRequest) -> BoxFuture<'static, Result<()>> + Send + Sync;

impl Continuation {
    /// One that is arranged by `start`, which gets the run that was worked on and what is left to do.
    pub fn new<F: Future<Output = Result<()>> + Send + 'static>(
        start: impl Fn(MaintenanceRun, StepRequest) -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |run, request| start(run, request).boxed()))
    }

    async fn start(&self, run: &MaintenanceRun, request: StepRequest) -> Result<()> {
        (self.0)(run.clone(), request).await
    }
}

impl fmt::Debug for Continuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Continuation")
    }
}

impl RequestContext {
    /// A Lambda invocation at `now`: maintenance works for `maintenance_budget`, or less when the function would be
    /// stopped before.
    pub fn from_lambda(request: &Request, now: DateTime<Utc>, maintenance_budget: Duration) -> Self {
        let context = request.lambda_context();
        let deadline = Deadline::before_invocation_ends(context.deadline, now).or_after(maintenance_budget);
        let request_id = request_id(request.headers()).unwrap_or(context.request_id);
        Self { request_id, now, deadline, continuation: None }
    }

    /// The same, with somebody who continues what is not complete.
    #[must_use]
    pub fn continued_by(self, continuation: Option<Continuation>) -> Self {
        Self { continuation, ..self }
    }
}

/// The name that the caller gave the request in `X-Request-Id`, if it can be taken.
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    request::request_id(headers).map(str::to_owned)
}

/// Answers a request to `endpoint`, whose path parameters and query parameters are among the request's extensions.
/// Never fails: what goes wrong is an answer too, and is logged here, once.
pub fn answer(
    endpoint: Endpoint,
    service: &SnapshotService,
    request: Request,
    call: RequestContext,
) -> impl Future<Output = Response<Body>> {
    // Looked up outside the future: a binary's endpoint is a constant here, and what the others need is left out of it.
    let handle = handler(endpoint);
    async move {
        let read = async {
            match handle(service, &request, &call).await {
                // Closed since it was last used, for instance. One that cannot be opened is not tried again.
                Err(Error::Unavailable { is_lost: true, .. }) => handle(service, &request, &call).await,
                result => result,
            }
        };
        let result = if endpoint == Endpoint::TriggerMaintenance {
            if !request::is_json(&request) {
                return response::unsupported_media_type(&call.request_id);
            }
            handle(service, &request, &call).await
        } else {
            let no_answer = |elapsed: tokio::time::error::Elapsed| {
                Err(Error::Unavailable { is_lost: false, source: elapsed.into() })
            };
            tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or_else(no_answer)
        };
        let response = result.unwrap_or_else(|error| response::error(&error, &call.request_id));
        let response = response::finish(response, endpoint, &request, &call);
        tracing::info!(?endpoint, status = response.status().as_u16(), request_id = call.request_id, "request");
        response
    }
}

type Handler =
    for<'a> fn(&'a SnapshotService, &'a Request, &'a RequestContext) -> BoxFuture<'a, Result<Response<Body>>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_id(raw: &str) -> Result<String> {
        let path = format!("/api/v1/snapshots/{raw}");
        Ok(Route::find("GET", &path).expect("a route").parameters(&path)?.remove("streamId").expect("its id"))
    }

    #[test]
    fn a_path_is_decoded_once() {
        for (raw, id) in
            [("stream%2Fwith%20space", "stream/with space"), ("42", "42"), ("100%2525", "100%25"), ("", "")]
        {
            assert_eq!(stream_id(raw).expect(raw), id);
        }
        for raw in ["%", "%2", "%zz", "a%2", "%ff"] {
            assert_eq!(stream_id(raw).expect_err(raw).to_string(), "streamId must be percent-encoded UTF-8");
        }
    }

    #[test]
    fn of_two_routes_the_one_with_more_fixed_parts_is_found() {
        for (method, path, endpoint) in [
            ("GET", "/api/v1/snapshots/42/archive", Some(Endpoint::ListArchivedLogs)),
            ("GET", "/api/v1/snapshots/42/2026-01", Some(Endpoint::GetSnapshot)),
            ("GET", "/api/v1/snapshots/maintenance", Some(Endpoint::ListMaintenanceRuns)),
            ("GET", "/api/v1/snapshots/maintenance/verification", Some(Endpoint::GetVerification)),
            ("POST", "/api/v1/snapshots/42", None),
            ("GET", "/api/v1/snapshots/42/archive/", None),
        ] {
            assert_eq!(Route::find(method, path).map(|route| route.endpoint), endpoint, "{method} {path}");
        }
        for (path, allowed) in [
            ("/api/v1/snapshots/42", Some("GET")),
            ("/api/v1/snapshots/maintenance", Some("GET, POST")),
            ("/api/v1/snapshots/42/archive/", None),
        ] {
            assert_eq!(Route::allowed(path).as_deref(), allowed, "{path}");
        }
    }
}
