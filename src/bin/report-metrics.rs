//! Lambda function: the daily metrics of how far maintenance is behind, started by a schedule.

use chrono::Utc;
use lambda_runtime::{LambdaEvent, run, service_fn};
use snapshot_service::{Config, LogSettings, SnapshotService, database, exit, invocation, logging, metrics};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    logging::init(&LogSettings::from_env());
    let config = Config::from_env().unwrap_or_else(|error| exit(&error));
    metrics::init(&config.metrics_namespace);
    let pool = database::connect_pool(&config.database, "report-metrics", 1).await.unwrap_or_else(|error| exit(&error));
    let service = SnapshotService::new(pool, config.settings);
    run(service_fn(|event: LambdaEvent<serde_json::Value>| {
        invocation::report_metrics(&service, event.payload, Utc::now())
    }))
    .await
}
