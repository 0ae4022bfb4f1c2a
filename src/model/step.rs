use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Month, Trigger};

/// One step of an execution of the state machine, `statemachine/maintenance.asl.json`: what its event says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StepEvent {
    /// The execution's name: its steps share the lease of the run.
    pub execution: String,
    /// What to do.
    #[serde(flatten)]
    pub step: Step,
}

/// What an execution asks for, step by step. Those that are not complete are asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Step {
    /// Begin or continue the run, and take the month's snapshots.
    TakeSnapshots {
        /// Which run.
        request: StepRequest,
    },
    /// Find the months that the run is to archive.
    PlanArchive {
        /// The run.
        run_id: Uuid,
    },
    /// Archive one of them.
    ArchiveMonth {
        /// The run.
        run_id: Uuid,
        /// The month.
        month: Month,
    },
    /// Do what is left, and end the run.
    Finish {
        /// The run.
        run_id: Uuid,
        /// Which run was asked for.
        request: StepRequest,
    },
    /// Record that the execution failed.
    Fail {
        /// Why, as the state machine says it.
        error: StepError,
    },
}

/// Which run an execution is for: with neither field, one by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StepRequest {
    /// The month that the schedule fired for.
    pub period: Option<Month>,
    /// A run that was begun by a request, and is to be continued.
    pub run_id: Option<Uuid>,
}

impl StepRequest {
    pub(crate) fn trigger(self) -> Trigger {
        self.period.map_or(Trigger::Api, |period| Trigger::Schedule { period })
    }
}

/// An error as a state machine hands it to what catches it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StepError {
    /// Its name: of the service's own errors, their code.
    pub error: String,
    /// More about it: of a function's error, a JSON object with `errorMessage`.
    #[serde(default)]
    pub cause: String,
}

impl StepError {
    /// What the error says, for people.
    pub(crate) fn message(&self) -> String {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct FunctionError {
            error_message: String,
        }
        match serde_json::from_str::<FunctionError>(&self.cause) {
            Ok(of_function) => format!("{}: {}", self.error, of_function.error_message),
            Err(_) => self.error.clone(),
        }
    }
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// The run.
    pub run_id: Uuid,
    /// Whether the step is done, or must be asked for again.
    pub complete: bool,
    /// Whether the run has ended, or is somebody else's: the execution has nothing more to do for it.
    pub ended: bool,
    /// The months to archive, oldest first.
    pub months: Vec<Month>,
}

impl StepReport {
    pub(crate) fn of(run_id: Uuid, complete: bool) -> Self {
        Self { run_id, complete, ended: false, months: Vec::new() }
    }

    pub(crate) fn ended(run_id: Uuid) -> Self {
        Self { ended: true, ..Self::of(run_id, true) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_says_what_the_function_said_and_else_its_name() {
        let message = |value| serde_json::from_value::<StepError>(value).expect("an error").message();
        let cause = r#"{"errorType":"too_many_rows","errorMessage":"more than 5 logs are due"}"#;
        assert_eq!(
            message(json!({"Error": "too_many_rows", "Cause": cause})),
            "too_many_rows: more than 5 logs are due"
        );
        assert_eq!(message(json!({"Error": "States.Timeout"})), "States.Timeout");
        assert_eq!(message(json!({"Error": "Lambda.Unknown", "Cause": "it was killed"})), "Lambda.Unknown");
    }
}
