//! The HTTP contract (`openapi.yaml`): a request in, the envelope out. The Lambda binaries and the local server call
//! [`answer`]; both get their routes from [`ROUTES`].

mod handlers;
mod request;
mod response;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lambda_http::{Body, Request, RequestExt, Response};

use crate::error::{Error, Result};
use crate::maintenance::Deadline;
use crate::model::MaintenanceRun;
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

type Continue = dyn Fn(MaintenanceRun) -> BoxFuture<'static, Result<()>> + Send + Sync;

impl Continuation {
    /// One that is arranged by `start`.
    pub fn new<F: Future<Output = Result<()>> + Send + 'static>(
        start: impl Fn(MaintenanceRun) -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |run| start(run).boxed()))
    }

    async fn start(&self, run: &MaintenanceRun) -> Result<()> {
        (self.0)(run.clone()).await
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
pub async fn answer(endpoint: Endpoint, service: &SnapshotService, request: Request, call: Call) -> Response<Body> {
    let handle = || async {
        match endpoint {
            Endpoint::ListSnapshots => handlers::list_snapshots(service, &request).await,
            Endpoint::GetSnapshot => handlers::get_snapshot(service, &request).await,
            Endpoint::ListArchivedLogs => handlers::list_archived_logs(service, &request).await,
            Endpoint::ListStreamEvents => handlers::list_stream_events(service, &request).await,
            Endpoint::GetStreamState => handlers::get_stream_state(service, &request).await,
            Endpoint::TriggerMaintenance => Box::pin(handlers::trigger_maintenance(service, &request, &call)).await,
            Endpoint::ListMaintenanceRuns => handlers::list_maintenance_runs(service, &request).await,
            Endpoint::GetVerification => handlers::get_verification(service).await,
            Endpoint::GetMaintenanceRun => handlers::get_maintenance_run(service, &request).await,
        }
    };
    let read = async {
        match handle().await {
            // The connection may have been closed since it was last used; the next one is new.
            Err(Error::Unavailable(_)) => handle().await,
            result => result,
        }
    };
    let result = if endpoint == Endpoint::TriggerMaintenance {
        handle().await
    } else {
        let no_answer = |elapsed: tokio::time::error::Elapsed| Err(Error::Unavailable(elapsed.into()));
        tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or_else(no_answer)
    };
    let response = result.unwrap_or_else(|error| response::error(&error, &call.request_id));
    tracing::info!(?endpoint, status = response.status().as_u16(), request_id = call.request_id, "request");
    response
}
