//! Built Lambda binaries as black boxes: they run under a stub of the Runtime API, which hands them events and takes their
//! answers, as the platform does. For tests and benchmarks.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc, watch};

/// A built Lambda binary that runs under a stub of the Runtime API.
pub struct Function {
    process: Child,
    stub: Arc<Stub>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    events: mpsc::UnboundedSender<String>,
    started: Instant,
}

/// What an invocation came to.
#[derive(Debug)]
pub struct Outcome {
    /// Whether the function failed, rather than answered.
    pub failed: bool,
    /// What it answered, or how it failed.
    pub payload: Value,
    /// What the function logged from the moment it was handed the event until it answered.
    pub log: String,
}

impl Outcome {
    /// The status of an HTTP answer.
    pub fn status(&self) -> u64 {
        assert!(!self.failed, "{self:?}");
        self.payload["statusCode"].as_u64().unwrap()
    }

    /// The body of an HTTP answer.
    pub fn body(&self) -> Value {
        serde_json::from_str(self.payload["body"].as_str().unwrap()).unwrap()
    }
}

struct Stub {
    events: Mutex<mpsc::UnboundedReceiver<String>>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    /// How long each invocation may take.
    timeout: Mutex<Duration>,
    /// When the function first asked for an event.
    first_poll: watch::Sender<Option<Instant>>,
    trace_id: Mutex<String>,
    /// What the function writes to. A file, so that all it has written can be read at any moment.
    log: File,
    /// How long the log was when the last event was handed out.
    logged_before: AtomicU64,
}

impl Stub {
    fn log_length(&self) -> u64 {
        self.log.metadata().unwrap().len()
    }

    /// What was logged after so many bytes.
    fn log_after(&self, length: u64) -> String {
        let mut log = vec![0; usize::try_from(self.log_length() - length).unwrap()];
        self.log.read_exact_at(&mut log, length).unwrap();
        String::from_utf8(log).unwrap()
    }
}

/// The X-Ray trace of all invocations, unless another is set.
const TRACE_ID: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";

/// An empty file that goes with its last user.
fn log_file() -> File {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("runtime-api-{}-{}.log", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

impl Function {
    /// Starts `program` as the function `name`, with just these variables and those of the platform.
    pub async fn start(program: impl AsRef<OsStr>, name: &str, variables: &[(&str, &str)]) -> Self {
        let (events, next_events) = mpsc::unbounded_channel();
        let (outcome, outcomes) = mpsc::unbounded_channel();
        let stub = Arc::new(Stub {
            events: Mutex::new(next_events),
            outcomes: outcome,
            timeout: Mutex::new(Duration::from_secs(30)),
            first_poll: watch::Sender::new(None),
            trace_id: Mutex::new(TRACE_ID.into()),
            log: log_file(),
            logged_before: AtomicU64::new(0),
        });
        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(done))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&stub));
        let address = serve(routes).await;

        let platform = HashMap::from([
            ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", name),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("AWS_LAMBDA_LOG_LEVEL", "INFO"),
        ]);
        let started = Instant::now();
        let process = Command::new(program)
            .env_clear()
            .envs(platform)
            .envs(variables.iter().copied())
            .stdout(stub.log.try_clone().unwrap())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, stub, outcomes, events, started }
    }

    /// Hands the function an event and waits for what comes of it, for as long as the function may take.
    pub async fn invoke(&mut self, event: &str) -> Outcome {
        self.invoke_without_waiting(event);
        self.outcome().await
    }

    /// Waits for what comes of an event that was handed over.
    pub async fn outcome(&mut self) -> Outcome {
        let patience = Duration::from_mins(1).max(*self.stub.timeout.lock().await);
        let answer = tokio::time::timeout(patience, self.outcomes.recv()).await;
        answer.expect("the function neither answered nor failed").unwrap()
    }

    /// How long it took from its start until it first asked for an event.
    pub async fn time_to_first_poll(&self) -> Duration {
        let mut polled = self.stub.first_poll.subscribe();
        let polled = *polled.wait_for(Option::is_some).await.unwrap();
        polled.unwrap() - self.started
    }

    /// Hands the function an event; its answer is not waited for.
    pub fn invoke_without_waiting(&self, event: &str) {
        self.events.send(event.to_owned()).unwrap();
    }

    /// Gives later invocations that long.
    pub async fn set_timeout(&self, timeout: Duration) {
        *self.stub.timeout.lock().await = timeout;
    }

    /// Gives later invocations another X-Ray trace.
    pub async fn set_trace_id(&self, trace_id: &str) {
        trace_id.clone_into(&mut *self.stub.trace_id.lock().await);
    }

    /// Kills the process, as the platform does.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Waits until the process has ended by itself.
    pub async fn exit_code(&mut self) -> Option<i32> {
        self.process.wait().await.unwrap().code()
    }

    /// The most memory that the process has had, in kilobytes.
    pub fn peak_memory_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// All that it has logged, as JSON lines.
    pub fn log(&self) -> String {
        self.stub.log_after(0)
    }
}

/// Serves `routes` on a free port of 127.0.0.1 and returns the address.
pub async fn serve(routes: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

async fn next(State(stub): State<Arc<Stub>>) -> impl IntoResponse {
    stub.first_poll.send_if_modified(|first| {
        first.is_none() && {
            *first = Some(Instant::now());
            true
        }
    });
    let Some(event) = stub.events.lock().await.recv().await else {
        // The test is over; the function is killed in a moment.
        return std::future::pending().await;
    };
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + *stub.timeout.lock().await;
    let mut headers = HeaderMap::new();
    headers.insert("Lambda-Runtime-Aws-Request-Id", "invocation-1".parse().unwrap());
    headers.insert("Lambda-Runtime-Deadline-Ms", deadline.as_millis().to_string().parse().unwrap());
    headers.insert("Lambda-Runtime-Trace-Id", stub.trace_id.lock().await.parse().unwrap());
    headers.insert("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:1:function:f".parse().unwrap());
    stub.logged_before.store(stub.log_length(), Ordering::Relaxed);
    (headers, event)
}

async fn done(State(stub): State<Arc<Stub>>, Path((_, kind)): Path<(String, String)>, body: Bytes) -> StatusCode {
    let log = stub.log_after(stub.logged_before.load(Ordering::Relaxed));
    let outcome = Outcome { failed: kind == "error", payload: serde_json::from_slice(&body).unwrap(), log };
    stub.outcomes.send(outcome).unwrap();
    StatusCode::ACCEPTED
}
