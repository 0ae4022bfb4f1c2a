//! Lambda function: answers `Endpoint::TriggerMaintenance` for API Gateway.

use std::convert::Infallible;

use chrono::Utc;
use lambda_http::{Request, run, service_fn};
use snapshot_service::http::{Call, Endpoint, answer};
use snapshot_service::{Config, LogSettings, SnapshotService, database, exit, logging, metrics, state_machine};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    logging::init(&LogSettings::from_env());
    let config = Config::from_env().unwrap_or_else(|error| exit(&error));
    let pool = database::connect_pool(&config.database, "trigger-maintenance", config.settings.connections())
        .await
        .unwrap_or_else(|error| exit(&error));
    let service = SnapshotService::new(pool, metrics::of_slices(config.settings, &config.metrics_namespace));
    let continuation = state_machine::continuation(config.state_machine, &config.aws);
    run(service_fn(|request: Request| async {
        let call = Call::of_lambda(&request, Utc::now(), config.maintenance_budget);
        let call = call.continued_by(continuation.clone());
        Ok::<_, Infallible>(answer(Endpoint::TriggerMaintenance, &service, request, call).await)
    }))
    .await
}
