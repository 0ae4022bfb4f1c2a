use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{MaintenanceRequest, Month, Trigger};

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
    },
    /// Record that the execution failed.
    Fail {
        /// Why, as the state machine says it.
        error: StepError,
    },
}

/// Which run an execution is for: with no field, one by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StepRequest {
    /// The month that the schedule fired for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<Month>,
    /// A run that was begun, and is to be continued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
    /// Whether one by hand is to retake this month's snapshots.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refresh: bool,
    /// Whether one by hand may archive more rows than the limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl StepRequest {
    /// The remainder of a run.
    pub(crate) fn continuing(run_id: Uuid) -> Self {
        Self { run_id: Some(run_id), ..Self::default() }
    }

    pub(crate) fn maintenance(self) -> MaintenanceRequest {
        let trigger = self.period.map_or(Trigger::Api, |period| Trigger::Schedule { period });
        MaintenanceRequest { trigger, refresh: self.refresh, force: self.force }
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
    /// The run; none while it has not begun.
    pub run_id: Option<Uuid>,
    /// Whether the step is done, or must be asked for again.
    pub complete: bool,
    /// Whether there is nothing more of its kind to do.
    pub ended: bool,
    /// Whether it can do nothing at present: somebody else works on a run, or maintenance is paused.
    pub waiting: bool,
    /// What to ask for from now on.
    pub request: StepRequest,
    /// The months to archive, oldest first.
    pub months: Vec<Month>,
}

impl StepReport {
    /// Nothing is done yet.
    pub(crate) fn to(request: StepRequest) -> Self {
        Self { run_id: None, complete: false, ended: false, waiting: false, request, months: Vec::new() }
    }

    pub(crate) fn about(self, run_id: Uuid) -> Self {
        Self { run_id: Some(run_id), ..self }
    }

    pub(crate) fn completed(self) -> Self {
        Self { complete: true, ..self }
    }

    pub(crate) fn ended(self) -> Self {
        Self { complete: true, ended: true, ..self }
    }

    pub(crate) fn waiting(self) -> Self {
        Self { waiting: true, ..self }
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
