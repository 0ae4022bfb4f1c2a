use runtime_api::Function;

/// All functions.
pub(crate) const FUNCTIONS: [&str; 12] = [
    "list-snapshots",
    "get-snapshot",
    "list-archived-logs",
    "list-stream-events",
    "get-stream-state",
    "trigger-maintenance",
    "list-maintenance-runs",
    "get-verification",
    "get-maintenance-run",
    "run-maintenance",
    "report-metrics",
    "migrate",
];

/// The path of a built binary.
pub(crate) fn binary(name: &str) -> &'static str {
    match name {
        "list-snapshots" => env!("CARGO_BIN_EXE_list-snapshots"),
        "get-snapshot" => env!("CARGO_BIN_EXE_get-snapshot"),
        "list-archived-logs" => env!("CARGO_BIN_EXE_list-archived-logs"),
        "list-stream-events" => env!("CARGO_BIN_EXE_list-stream-events"),
        "get-stream-state" => env!("CARGO_BIN_EXE_get-stream-state"),
        "trigger-maintenance" => env!("CARGO_BIN_EXE_trigger-maintenance"),
        "list-maintenance-runs" => env!("CARGO_BIN_EXE_list-maintenance-runs"),
        "get-verification" => env!("CARGO_BIN_EXE_get-verification"),
        "get-maintenance-run" => env!("CARGO_BIN_EXE_get-maintenance-run"),
        "run-maintenance" => env!("CARGO_BIN_EXE_run-maintenance"),
        "report-metrics" => env!("CARGO_BIN_EXE_report-metrics"),
        "migrate" => env!("CARGO_BIN_EXE_migrate"),
        _ => panic!("no binary is called {name}"),
    }
}

/// Starts the function `name` with just these variables and those of the platform.
pub(crate) async fn start_function(name: &str, variables: &[(&str, &str)]) -> Function {
    Function::start(binary(name), name, variables).await
}

/// The sample event of a function, as text.
pub(crate) fn sample_event(name: &str) -> String {
    std::fs::read_to_string(format!("{}/events/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
}
