use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_sfn::Client;
use aws_sdk_sfn::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_sfn::types::ExecutionStatus;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use runtime_api::serve;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Mutex};
use uuid::Uuid;

use super::lambda::start_function;
use super::moto::Moto;

const DEFINITION: &str = include_str!("../../../statemachine/maintenance.asl.json");

/// What becomes of one invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The function does its work.
    Works,
    /// It cannot reach its database.
    HasNoDatabase,
    /// It is killed in the middle of its work.
    IsKilled,
}

/// The state machine, deployed on moto's engine, which invokes the real binaries.
pub(crate) struct StateMachine {
    pub(crate) moto: Moto,
    pub(crate) arn: String,
    client: Client,
    lambda: Arc<Lambda>,
}

/// Lambda's Invoke API: each invocation is a process of its own. What else is asked for is moto's.
struct Lambda {
    moto: OnceLock<String>,
    variables: HashMap<&'static str, String>,
    /// How long an invocation may take, with the margin that it keeps.
    timeout: Duration,
    /// What becomes of the next invocations of a step, the next one first.
    fates: Mutex<HashMap<String, Vec<Fate>>>,
    /// Opened when two months are archived at the same time.
    meeting: Barrier,
    met: AtomicUsize,
    months_at_once: AtomicUsize,
    most_months_at_once: AtomicUsize,
    events: Mutex<Vec<Value>>,
    log: Mutex<String>,
}

impl StateMachine {
    /// Deploys it for functions with these variables.
    pub(crate) async fn deploy(variables: &[(&'static str, &str)], timeout: Duration) -> Self {
        let lambda = Arc::new(Lambda {
            moto: OnceLock::new(),
            variables: variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            timeout,
            fates: Mutex::default(),
            meeting: Barrier::new(2),
            met: AtomicUsize::new(0),
            months_at_once: AtomicUsize::new(0),
            most_months_at_once: AtomicUsize::new(0),
            events: Mutex::default(),
            log: Mutex::default(),
        });
        let routes = Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .fallback(hand_on)
            .with_state(Arc::clone(&lambda));
        let address = serve(routes).await;
        let port = address.rsplit_once(':').unwrap().1;
        let patches = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/moto");
        let moto = Moto::start(&[("MOTO_PORT", port), ("PYTHONPATH", patches)]).await;
        lambda.moto.set(moto.url().trim_start_matches("http://").to_owned()).unwrap();
        let (status, _) =
            lambda.ask_moto("/moto-api/config", &[], br#"{"stepfunctions": {"execute_state_machine": true}}"#).await;
        assert!(status.is_success(), "{status}");
        let client = Client::from_conf(
            Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new("eu-west-1"))
                .credentials_provider(Credentials::new("key", "secret", None, None, "moto"))
                .endpoint_url(moto.url())
                .build(),
        );
        let definition = DEFINITION
            .replace("${RunMaintenanceFunctionArn}", "arn:aws:lambda:eu-west-1:123456789012:function:run-maintenance")
            .replace("${Partition}", "aws")
            .replace("${ArchiveConcurrency}", "2")
            // Nobody waits that long here.
            .replace("\"Seconds\": 300", "\"Seconds\": 1");
        let created = client
            .create_state_machine()
            .name("maintenance")
            .definition(definition)
            .role_arn("arn:aws:iam::123456789012:role/maintenance")
            .send()
            .await
            .unwrap();
        Self { moto, arn: created.state_machine_arn, client, lambda }
    }

    /// Says what becomes of the next invocations of `step`.
    pub(crate) async fn destine(&self, step: &str, fates: &[Fate]) {
        self.lambda.fates.lock().await.insert(step.to_owned(), fates.to_vec());
    }

    /// Starts an execution, and returns its ARN.
    pub(crate) async fn start(&self, name: Option<&str>, input: &Value) -> String {
        // The service gives one to an execution that has none; moto does not.
        let name = name.map_or_else(|| Uuid::new_v4().to_string(), Into::into);
        let start = self.client.start_execution().state_machine_arn(&self.arn).name(name);
        start.input(input.to_string()).send().await.unwrap().execution_arn
    }

    /// Waits until an execution has ended, and returns how, and with which error.
    pub(crate) async fn end_of(&self, execution: &str) -> (ExecutionStatus, Option<String>) {
        for _ in 0..3000 {
            let described = self.client.describe_execution().execution_arn(execution).send().await.unwrap();
            if described.status != ExecutionStatus::Running {
                return (described.status, described.error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the execution does not end");
    }

    /// The same for one that must succeed.
    pub(crate) async fn succeeds(&self, execution: &str) {
        let end = self.end_of(execution).await;
        let cause = self.client.describe_execution().execution_arn(execution).send().await.unwrap().cause;
        let events = self.lambda.events.lock().await;
        assert_eq!(end, (ExecutionStatus::Succeeded, None), "{execution}: {cause:?}, after {events:?}");
    }

    /// The names of all executions.
    pub(crate) async fn executions(&self) -> Vec<String> {
        let list = self.client.list_executions().state_machine_arn(&self.arn).send().await.unwrap();
        list.executions.into_iter().map(|execution| execution.name).collect()
    }

    /// The ARN of an execution by its name.
    pub(crate) fn execution(&self, name: &str) -> String {
        format!("{}:{name}", self.arn.replace(":stateMachine:", ":execution:"))
    }

    /// Events of `step` that were handed to the function.
    pub(crate) async fn events(&self, step: &str) -> Vec<Value> {
        let events = self.lambda.events.lock().await;
        events.iter().filter(|event| event["step"] == step).cloned().collect()
    }

    /// What the functions have logged.
    pub(crate) async fn log(&self) -> String {
        self.lambda.log.lock().await.clone()
    }

    /// How many months were archived at the same time, at most.
    pub(crate) fn most_months_at_once(&self) -> usize {
        self.lambda.most_months_at_once.load(Ordering::SeqCst)
    }
}

async fn invoke(State(lambda): State<Arc<Lambda>>, Path(name): Path<String>, event: Bytes) -> Response {
    let name = name.rsplit(':').next().unwrap().to_owned();
    let step: Value = serde_json::from_slice(&event).unwrap();
    lambda.events.lock().await.push(step.clone());
    let step = step["step"].as_str().unwrap().to_owned();
    let is_month = step == "archive-month";
    if is_month {
        let months = lambda.months_at_once.fetch_add(1, Ordering::SeqCst) + 1;
        lambda.most_months_at_once.fetch_max(months, Ordering::SeqCst);
        // The first two wait for each other: one at a time would wait for ever.
        if lambda.met.fetch_add(1, Ordering::SeqCst) < 2 {
            lambda.meeting.wait().await;
        }
    }
    let fate = {
        let mut fates = lambda.fates.lock().await;
        let next = fates.get_mut(&step).filter(|fates| !fates.is_empty());
        next.map_or(Fate::Works, |fates| fates.remove(0))
    };
    let response = lambda.run(&name, std::str::from_utf8(&event).unwrap(), fate).await;
    if is_month {
        lambda.months_at_once.fetch_sub(1, Ordering::SeqCst);
    }
    response
}

impl Lambda {
    async fn run(&self, name: &str, event: &str, fate: Fate) -> Response {
        let mut variables = self.variables.clone();
        if fate == Fate::HasNoDatabase {
            variables.insert("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing".into());
        }
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut function = start_function(name, &variables).await;
        function.set_timeout(self.timeout).await;
        if fate == Fate::IsKilled {
            function.invoke_without_waiting(event);
            while !function.log().contains("snapshot maintenance: begins") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            function.kill().await;
            return failed(
                &json!({"errorType": "Runtime.ExitError", "errorMessage": "RequestId: 1 Error: signal: killed"}),
            );
        }
        let outcome = function.invoke(event).await;
        self.log.lock().await.push_str(&function.log());
        if outcome.failed { failed(&outcome.payload) } else { outcome.payload.to_string().into_response() }
    }

    /// Sends a request to moto; returns the status and what it answers.
    async fn ask_moto(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (StatusCode, Vec<u8>) {
        let moto = self.moto.get().unwrap();
        let headers: String = headers.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {moto}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(moto).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }
}

/// What Lambda answers for a function that failed.
fn failed(error: &Value) -> Response {
    ([("X-Amz-Function-Error", "Unhandled")], error.to_string()).into_response()
}

/// The engine calls its own service where it calls Lambda.
async fn hand_on(State(lambda): State<Arc<Lambda>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let wanted = ["content-type", "x-amz-target", "authorization"];
    let headers: Vec<(&str, &str)> =
        wanted.iter().filter_map(|name| Some((*name, headers.get(*name)?.to_str().ok()?))).collect();
    let (status, answer) = lambda.ask_moto("/", &headers, &body).await;
    (status, [("x-amzn-RequestId", "request")], answer)
}
