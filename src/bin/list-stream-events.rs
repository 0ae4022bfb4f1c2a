//! Lambda function: answers `Endpoint::ListStreamEvents` for API Gateway.

use std::convert::Infallible;

use chrono::Utc;
use lambda_http::{Request, run, service_fn};
use snapshot_service::http::{Call, Endpoint, answer};
use snapshot_service::{Config, LogSettings, SnapshotService, database, exit, logging};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    logging::init(&LogSettings::from_env());
    let config = Config::from_env().unwrap_or_else(|error| exit(&error));
    // An environment handles one event at a time.
    let pool =
        database::connect_pool(&config.database, "list-stream-events", 1).await.unwrap_or_else(|error| exit(&error));
    let service = SnapshotService::new(pool, config.settings);
    run(service_fn(|request: Request| async {
        let call = Call::of_lambda(&request, Utc::now(), config.maintenance_budget);
        Ok::<_, Infallible>(answer(Endpoint::ListStreamEvents, &service, request, call).await)
    }))
    .await
}
