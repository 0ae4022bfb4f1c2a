//! A Lambda function that does nothing: what every other one is measured against.

use lambda_runtime::{LambdaEvent, run, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda_runtime::tracing::init_default_subscriber();
    run(service_fn(async |event: LambdaEvent<serde_json::Value>| Ok::<_, lambda_runtime::Error>(event.payload))).await
}
