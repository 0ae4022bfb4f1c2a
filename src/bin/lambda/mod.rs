//! What the functions have in common: how they start, and whose log lines are whose. Macros, so that each binary links only what its own
//! endpoint needs.

use std::error::Error;

use lambda_runtime::tower::layer::layer_fn;
use lambda_runtime::{Context, LambdaInvocation, Runtime, Service, service_fn};
use snapshot_service::database::{self, Pool};
use snapshot_service::logging::{self, Invocation};
use snapshot_service::{Config, LogSettings};

/// Reads the environment and connects. What a function cannot start with is logged as one line, and ends the process with status 78, which
/// sysexits.h calls EX_CONFIG.
pub(crate) async fn start(function: &str, connections: fn(&Config) -> usize) -> (Config, Pool) {
    logging::init(&LogSettings::from_env());
    let config = Config::from_env().unwrap_or_else(|error| exit(&error));
    let pool = database::connect_pool(&config.database, function, connections(&config)).await;
    let pool = pool.unwrap_or_else(|error| exit(&error));
    (config, pool)
}

fn exit(error: &dyn Error) -> ! {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    tracing::error!("cannot start: {message}");
    std::process::exit(78)
}

/// Handles events with `handler` until the environment ends. Each line of the log has the ids of the invocation during which it is logged.
pub(crate) async fn run<S>(runtime: Runtime<S>) -> Result<(), lambda_runtime::Error>
where
    S: Service<LambdaInvocation, Response = (), Error = lambda_runtime::Error>,
{
    let logged = |mut service: S| {
        service_fn(move |invocation: LambdaInvocation| {
            let Context { request_id, xray_trace_id, .. } = &invocation.context;
            let ids = Invocation { request_id: request_id.clone(), trace_id: xray_trace_id.clone() };
            let handling = ids.begin();
            // It is always ready, as functions are.
            let handled = service.call(invocation);
            async move {
                let result = handled.await;
                drop(handling);
                result
            }
        })
    };
    runtime.layer(layer_fn(logged)).run().await
}

/// The `main` of a function.
///
/// - `main!(GetSnapshot)` answers `Endpoint::GetSnapshot` for API Gateway.
/// - `main!(TriggerMaintenance, |config| connections, |config, pool| service, |config| continuation)` does so with a service and a
///   continuation of its own.
/// - `main!("migrate", |config| connections, |config, pool| state, |state, event, deadline_ms| handle)` handles events.
macro_rules! main {
    ($endpoint:ident) => {
        lambda::main!(
            $endpoint,
            // An environment handles one event at a time.
            |_config| 1,
            |config, pool| snapshot_service::SnapshotService::new(pool, config.settings.clone()),
            |_config| None
        );
    };
    ($endpoint:ident, $connections:expr, |$config:pat_param, $pool:ident| $service:expr, |$whole:pat_param| $continuation:expr) => {
        #[tokio::main(flavor = "current_thread")]
        async fn main() -> Result<(), lambda_http::Error> {
            use lambda_http::Request;
            use snapshot_service::http::{Endpoint, RequestContext, answer};

            let (settings, $pool) = lambda::start(Endpoint::$endpoint.function(), $connections).await;
            let $config = &settings;
            let service = $service;
            let $whole = &settings;
            let continuation = $continuation;
            let handler = lambda_http::service_fn(|request: Request| {
                let call = RequestContext::from_lambda(&request, chrono::Utc::now(), settings.maintenance_budget);
                let answer = answer(Endpoint::$endpoint, &service, request, call.continued_by(continuation.clone()));
                async { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            lambda::run(lambda_runtime::Runtime::new(lambda_http::Adapter::from(handler))).await
        }
    };
    ($function:literal, $connections:expr, |$config:ident, $pool:ident| $state:expr, |$of:ident, $event:ident, $deadline_ms:pat_param| $handle:expr) => {
        #[tokio::main(flavor = "current_thread")]
        async fn main() -> Result<(), lambda_runtime::Error> {
            use lambda_runtime::LambdaEvent;

            let ($config, $pool) = lambda::start($function, $connections).await;
            let state = $state;
            let $of = &state;
            let handler = lambda_runtime::service_fn(|event: LambdaEvent<serde_json::Value>| {
                let ($event, $deadline_ms) = (event.payload, event.context.deadline);
                $handle
            });
            lambda::run(lambda_runtime::Runtime::new(handler)).await
        }
    };
}
pub(crate) use main;
