//! The HTTP contract (`openapi.yaml`): a request in, the envelope out. The Lambda binaries and the local server call
//! [`answer`]; both get their routes from [`ROUTES`].

mod handlers;
mod request;
mod response;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use deadpool::managed::PoolError;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lambda_http::{Body, Request, RequestExt, Response};

use crate::error::{Error, Result};
use crate::maintenance::Deadline;
use crate::model::{MaintenanceRun, StepRequest};
use crate::service::SnapshotService;

pub use response::not_found;

/// A reader that got no answer by then hears that the database is down; 5 s are promised.
const READ_TIMEOUT: Duration = Duration::from_millis(4500);

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// A stream's snapshots.
    ListSnapshots,
    /// One snapshot.
    GetSnapshot,
    /// A stream's archived logs.
    ListArchivedLogs,
    /// A stream's events, hot and archived.
    ListStreamEvents,
    /// What a stream's state at a past time follows from.
    GetStreamState,
    /// Maintenance on request.
    TriggerMaintenance,
    /// All runs of maintenance.
    ListMaintenanceRuns,
    /// The last verification of the archive.
    GetVerification,
    /// One run.
    GetMaintenanceRun,
}

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

/// All routes. Where two match, the one with more fixed parts wins.
pub const ROUTES: [Route; 9] = [
    Route {
        method: "GET",
        path: "/api/v1/snapshots/{streamId}",
        endpoint: Endpoint::ListSnapshots,
        function: "list-snapshots",
    },
    Route {
        method: "GET",
        path: "/api/v1/snapshots/{streamId}/{month}",
        endpoint: Endpoint::GetSnapshot,
        function: "get-snapshot",
    },
    Route {
        method: "GET",
        path: "/api/v1/snapshots/{streamId}/archive",
        endpoint: Endpoint::ListArchivedLogs,
        function: "list-archived-logs",
    },
    Route {
        method: "GET",
        path: "/api/v1/snapshots/{streamId}/events",
        endpoint: Endpoint::ListStreamEvents,
        function: "list-stream-events",
    },
    Route {
        method: "GET",
        path: "/api/v1/snapshots/{streamId}/state",
        endpoint: Endpoint::GetStreamState,
        function: "get-stream-state",
    },
    Route {
        method: "POST",
        path: "/api/v1/snapshots/maintenance",
        endpoint: Endpoint::TriggerMaintenance,
        function: "trigger-maintenance",
    },
    Route {
        method: "GET",
        path: "/api/v1/snapshots/maintenance",
        endpoint: Endpoint::ListMaintenanceRuns,
        function: "list-maintenance-runs",
    },
    Route {
        method: "GET",
        path: "/api/v1/snapshots/maintenance/verification",
        endpoint: Endpoint::GetVerification,
        function: "get-verification",
    },
    Route {
        method: "GET",
        path: "/api/v1/snapshots/maintenance/{runId}",
        endpoint: Endpoint::GetMaintenanceRun,
        function: "get-maintenance-run",
    },
];

/// The circumstances of a request.
#[derive(Debug, Clone)]
pub struct Call {
    /// Names the request in the log and in error answers.
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

impl Call {
    /// A Lambda invocation at `now`: maintenance works for `maintenance_budget`, or less when the function would be
    /// stopped before.
    pub fn of_lambda(request: &Request, now: DateTime<Utc>, maintenance_budget: Duration) -> Self {
        let context = request.lambda_context();
        let deadline = Deadline::before_invocation_ends(context.deadline, now).or_after(maintenance_budget);
        Self { request_id: context.request_id, now, deadline, continuation: None }
    }

    /// The same, with somebody who continues what is not complete.
    #[must_use]
    pub fn continued_by(self, continuation: Option<Continuation>) -> Self {
        Self { continuation, ..self }
    }
}

/// Answers a request to `endpoint`, whose path parameters and query parameters are among the request's extensions.
/// Never fails: what goes wrong is an answer too, and is logged here, once.
pub fn answer(
    endpoint: Endpoint,
    service: &SnapshotService,
    request: Request,
    call: Call,
) -> impl Future<Output = Response<Body>> {
    // Looked up outside the future: a binary's endpoint is a constant here, and what the others need is left out of it.
    let handle = handler(endpoint);
    async move {
        let read = async {
            match handle(service, &request, &call).await {
                // The connection may have been closed since it was last used; the next one is new. One that cannot be opened
                // is not tried again.
                Err(Error::Unavailable(cause)) if !cause.is::<PoolError<Error>>() => {
                    handle(service, &request, &call).await
                }
                result => result,
            }
        };
        let result = if endpoint == Endpoint::TriggerMaintenance {
            handle(service, &request, &call).await
        } else {
            let no_answer = |elapsed: tokio::time::error::Elapsed| Err(Error::Unavailable(elapsed.into()));
            tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or_else(no_answer)
        };
        let response = result.unwrap_or_else(|error| response::error(&error, &call.request_id));
        tracing::info!(?endpoint, status = response.status().as_u16(), request_id = call.request_id, "request");
        response
    }
}

type Handler = for<'a> fn(&'a SnapshotService, &'a Request, &'a Call) -> BoxFuture<'a, Result<Response<Body>>>;

fn handler(endpoint: Endpoint) -> Handler {
    match endpoint {
        Endpoint::ListSnapshots => |service, request, _| Box::pin(handlers::list_snapshots(service, request)),
        Endpoint::GetSnapshot => |service, request, _| Box::pin(handlers::get_snapshot(service, request)),
        Endpoint::ListArchivedLogs => |service, request, _| Box::pin(handlers::list_archived_logs(service, request)),
        Endpoint::ListStreamEvents => |service, request, _| Box::pin(handlers::list_stream_events(service, request)),
        Endpoint::GetStreamState => |service, request, _| Box::pin(handlers::get_stream_state(service, request)),
        Endpoint::TriggerMaintenance => {
            |service, request, call| Box::pin(handlers::trigger_maintenance(service, request, call))
        }
        Endpoint::ListMaintenanceRuns => {
            |service, request, _| Box::pin(handlers::list_maintenance_runs(service, request))
        }
        Endpoint::GetVerification => |service, _, _| Box::pin(handlers::get_verification(service)),
        Endpoint::GetMaintenanceRun => |service, request, _| Box::pin(handlers::get_maintenance_run(service, request)),
    }
}
