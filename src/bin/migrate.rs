//! Lambda function: brings the service's tables up to date, at each deployment and when the host's columns changed.

use lambda_runtime::{LambdaEvent, run, service_fn};
use snapshot_service::{Config, LogSettings, database, exit, invocation, logging};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    logging::init(&LogSettings::from_env());
    let config = Config::from_env().unwrap_or_else(|error| exit(&error));
    let pool = database::connect_pool(&config.database, "migrate", 1).await.unwrap_or_else(|error| exit(&error));
    run(service_fn(|event: LambdaEvent<serde_json::Value>| invocation::migrate(&pool, event.payload))).await
}
