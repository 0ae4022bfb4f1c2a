//! The Step Functions state machine of `statemachine/maintenance.asl.json`, which continues what one invocation cannot end.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::error::DisplayErrorContext;
use aws_sdk_sfn::operation::start_execution::StartExecutionError;
use serde_json::json;

use crate::error::{Error, Result};
use crate::http::Continuation;
use crate::model::MaintenanceRun;

/// The caller of a request waits for it: what is left of the API's 30 s after the maintenance budget.
const START_TIMEOUT: Duration = Duration::from_secs(4);

/// Continues runs by executions of the state machine with this ARN; nobody does where there is none.
pub async fn continuation(arn: Option<String>) -> Option<Continuation> {
    let arn = arn?;
    let timeouts = TimeoutConfig::builder().operation_timeout(START_TIMEOUT).build();
    let config = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts).load().await;
    let client = Client::new(&config);
    Some(Continuation::new(move |run| start(client.clone(), arn.clone(), run)))
}

/// Starts an execution for what is left of `run`. Named by the slice that it follows: a call that is repeated starts no second one.
async fn start(client: Client, arn: String, run: MaintenanceRun) -> Result<()> {
    let name = format!("run-{}-{}", run.id, run.attempts);
    let input = json!({ "runId": run.id }).to_string();
    match client.start_execution().state_machine_arn(arn).name(&name).input(input).send().await {
        Ok(_) => {}
        Err(error) if error.as_service_error().is_some_and(StartExecutionError::is_execution_already_exists) => {}
        Err(error) => {
            return Err(Error::NotContinued { run: run.id, source: format!("{}", DisplayErrorContext(&error)).into() });
        }
    }
    tracing::info!(run = %run.id, execution = name, "snapshot maintenance: is continued by the state machine");
    Ok(())
}
