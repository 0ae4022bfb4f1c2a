//! The Step Functions state machine of `statemachine/maintenance.asl.json`, which continues what one invocation cannot end.

use std::time::Duration;

use aws_sdk_sfn::Client;
use aws_sdk_sfn::error::DisplayErrorContext;
use aws_sdk_sfn::operation::start_execution::StartExecutionError;

use crate::aws::AwsConfig;
use crate::error::{Error, Result};
use crate::http::Continuation;
use crate::model::{MaintenanceRun, StepRequest};

/// The caller of a request waits for it, within the 30 s that the API gives; the template gives maintenance 15 of them, and
/// the rest is for its last batch and this.
const START_TIMEOUT: Duration = Duration::from_secs(4);

/// Continues runs by executions of the state machine with this ARN; nobody does where there is none.
pub fn continuation(arn: Option<String>, aws: &AwsConfig) -> Option<Continuation> {
    let arn = arn?;
    let client = Client::new(&aws.for_calls_within(START_TIMEOUT));
    Some(Continuation::new(move |run, request| start(client.clone(), arn.clone(), run, request)))
}

/// Starts an execution for `request`, which is what is left after a slice of `run`. Named by that slice: a call that is
/// repeated starts no second one.
async fn start(client: Client, arn: String, run: MaintenanceRun, request: StepRequest) -> Result<()> {
    let name = format!("run-{}-{}", run.id, run.attempts);
    let input = serde_json::to_string(&request).map_err(Error::Serialize)?;
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
