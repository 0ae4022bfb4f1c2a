//! Lambda function: maintenance, step by step for the state machine, or whole by hand.

use chrono::Utc;
use lambda_runtime::{LambdaEvent, run, service_fn};
use snapshot_service::{Config, LogSettings, SnapshotService, database, exit, invocation, logging, metrics};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    logging::init(&LogSettings::from_env());
    let config = Config::from_env().unwrap_or_else(|error| exit(&error));
    let pool = database::connect_pool(&config.database, "run-maintenance", config.settings.connections())
        .await
        .unwrap_or_else(|error| exit(&error));
    let service = SnapshotService::new(pool, metrics::of_slices(config.settings, &config.metrics_namespace));
    run(service_fn(|event: LambdaEvent<serde_json::Value>| {
        invocation::run_maintenance(&service, event.payload, event.context.deadline, Utc::now())
    }))
    .await
}
