//! Lambda function: the monthly maintenance, started by a schedule or by hand.

use chrono::Utc;
use lambda_runtime::{LambdaEvent, run, service_fn, tracing};
use snapshot_service::{Config, SnapshotService, database, exit, invocation};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing::init_default_subscriber();
    let config = Config::from_env().unwrap_or_else(|error| exit(&error));
    // Each worker has one, and one to keep the lease.
    let connections = 2 * config.settings.workers + 1;
    let pool = database::connect_pool(&config.database, "run-maintenance", connections)
        .await
        .unwrap_or_else(|error| exit(&error));
    let service = SnapshotService::new(pool, config.settings);
    run(service_fn(|event: LambdaEvent<serde_json::Value>| {
        invocation::run_maintenance(&service, event.payload, event.context.deadline, Utc::now())
    }))
    .await
}
