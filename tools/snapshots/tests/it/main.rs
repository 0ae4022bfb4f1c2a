//! The built `snapshots` command as a black box.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use local_postgres::{Options, Server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const HOST_SCHEMA: &str = include_str!("../../src/host-schema.sql");

fn snapshots(folder: &Path, database_url: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapshots"));
    command.current_dir(folder).env_remove("DATABASE_URL").env("RUST_LOG", "info");
    if let Some(url) = database_url {
        command.env("DATABASE_URL", url);
    }
    command
}

/// A folder of the test's own, empty, that everybody can reach.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("snapshots-test-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A running `snapshots serve`, and the lines that it printed to be pasted.
struct Serving {
    process: Child,
    curl_lines: Vec<String>,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut process = command.args(["serve", "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
        let curl_lines: Vec<String> =
            lines.map(|line| line.trim().to_owned()).filter(|line| line.starts_with("curl ")).take(6).collect();
        assert_eq!(curl_lines.len(), 6, "it ended before it served");
        Self { process, curl_lines }
    }

    /// Ctrl-C, or what `kill` sends.
    fn stop(mut self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success() || signal == Signal::SIGKILL, "{status}");
    }

    fn base(&self) -> String {
        self.curl_lines[0].split_whitespace().last().unwrap().trim_end_matches("/maintenance").to_owned()
    }

    fn get(&self, path: &str) -> (u16, Value) {
        request("GET", &format!("{}{path}", self.base()))
    }
}

/// Does what a line for curl says.
fn paste(line: &str) -> (u16, Value) {
    let method = if line.contains("-X POST") { "POST" } else { "GET" };
    request(method, line.split_whitespace().last().unwrap().trim_matches('\''))
}

fn request(method: &str, url: &str) -> (u16, Value) {
    request_with_body(method, url, "")
}

/// An HTTP request over a plain socket: nothing on the way normalises the path.
fn request_with_body(method: &str, url: &str, body: &str) -> (u16, Value) {
    let json = [("Content-Type", "application/json")];
    let (status, _, body) = exchange(method, url, if body.is_empty() { &[] } else { &json }, body);
    (status, serde_json::from_str(&body).unwrap())
}

/// The same with headers: the status, the head of the answer and its body.
fn exchange(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
    use std::io::Write;
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut socket = std::net::TcpStream::connect(authority).unwrap();
    let host = headers.iter().all(|(name, _)| *name != "Host").then_some(("Host", authority));
    let headers: Vec<_> = host.iter().chain(headers).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let headers = headers.concat();
    let length = body.len();
    let head = format!("{method} /{path} HTTP/1.1\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    write!(socket, "{head}{body}").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

/// A header of an answer's head.
fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).unwrap_or_else(|| panic!("{name} is not in {head}")).1
}

fn wait_until_postgres_is_gone(folder: &Path) {
    let pid_file = folder.join(".local/postgres/data/postmaster.pid");
    let patience = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while pid_file.exists() {
        assert!(std::time::Instant::now() < patience, "the server outlives its last user");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn succeeded(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap().to_owned()
}

/// A server with databases that stand in for those of a host.
struct Host {
    server: Server,
}

impl Host {
    fn start() -> Self {
        Self { server: Server::start_ephemeral(&Options::default()).unwrap() }
    }

    fn execute(&self, database: &str, sql: &str) {
        self.query(database, sql);
    }

    fn query(&self, database: &str, sql: &str) -> Option<String> {
        let url = format!("{}?options=-c%20search_path%3Dpublic%2Csnapshot_service", self.server.url(database));
        let sql = sql.to_owned();
        tokio::runtime::Runtime::new().unwrap().block_on(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let messages = client.simple_query(&sql).await.unwrap();
            messages.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
        })
    }

    fn database(&self, name: &str, schema: &str) -> String {
        self.execute("postgres", &format!("CREATE DATABASE {name}"));
        self.execute(name, schema);
        self.server.url(name)
    }
}

#[test]
fn serve_makes_a_private_server_with_demo_data_and_the_printed_lines_show_it() {
    let folder = folder("serve");
    let serving = Serving::start(snapshots(&folder, None));
    let (status, report) = paste(&serving.curl_lines[0]);
    assert_eq!(status, 200, "{report}");
    assert_eq!((&report["data"]["snapshotsCreated"], &report["data"]["complete"]), (&json!(2000), &json!(true)));
    assert!(report["data"]["logsArchived"].as_u64().unwrap() > 70_000, "{report}");
    assert!(report["data"]["unparsedAmounts"].as_u64().unwrap() > 0, "the demo has what hosts have");

    let (status, snapshots_of_stream) = paste(&serving.curl_lines[1]);
    assert_eq!((status, snapshots_of_stream["data"].as_array().unwrap().len()), (200, 1));
    let (status, snapshot) = paste(&serving.curl_lines[2]);
    assert_eq!((status, &snapshot["data"]), (200, &snapshots_of_stream["data"][0]));
    let (status, archive) = paste(&serving.curl_lines[3]);
    assert_eq!((status, archive["data"].as_array().unwrap().len()), (200, 2));
    let cursor = archive["nextCursor"].as_str().unwrap();
    let contract_id = archive["data"][0]["streamId"].as_str().unwrap().to_owned();
    let next = serving.get(&format!("/{contract_id}/archive?limit=2&cursor={cursor}"));
    assert_eq!(next.1["data"].as_array().unwrap().len(), 2);

    let (status, events) = paste(&serving.curl_lines[4]);
    assert_eq!((status, events["data"].as_array().unwrap().len()), (200, 2));
    let (status, state) = paste(&serving.curl_lines[5]);
    assert_eq!((status, &state["data"]["snapshot"]), (200, &snapshot["data"]));

    // The same by the stream's other id.
    let row_id = snapshot["data"]["streamId"].as_str().unwrap();
    assert_eq!(serving.get(&format!("/{row_id}/archive?limit=2")).1["data"], archive["data"]);

    // Other commands share the server while it runs; with its data afterwards, nothing is made again.
    let again = snapshots(&folder, None).args(["maintain", "--json"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&again.stderr)
            .starts_with("DATABASE_URL is not set: this is about the private database")
    );
    let again = succeeded(&again);
    assert_eq!((&again["snapshotsCreated"], &again["logsArchived"]), (&json!(0), &json!(0)));
    serving.stop(Signal::SIGINT);
    wait_until_postgres_is_gone(&folder);
    let serving = Serving::start(snapshots(&folder, None));
    assert_eq!(serving.get(&format!("/{contract_id}")).1["data"].as_array().unwrap().len(), 1);
    serving.stop(Signal::SIGTERM);
    wait_until_postgres_is_gone(&folder);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn two_commands_at_once_in_a_new_folder_share_one_server_and_one_set_of_demo_data() {
    let folder = folder("two");
    let start = || Serving::start(snapshots(&folder, None));
    let (one, two) = std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(start), scope.spawn(start));
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_eq!(paste(&one.curl_lines[0]).1["data"]["snapshotsCreated"], 2000);
    assert_eq!(paste(&two.curl_lines[0]).1["data"]["snapshotsCreated"], 0);
    one.stop(Signal::SIGKILL);
    assert_eq!(paste(&two.curl_lines[1]).0, 200, "the other one still has its server");
    two.stop(Signal::SIGINT);
    wait_until_postgres_is_gone(&folder);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_demo_data_are_a_valid_hash_chain_over_the_last_twelve_months_with_both_kinds_of_id() {
    let host = Host::start();
    let url = host.database("demo", HOST_SCHEMA);
    let folder = folder("demo");
    let arguments = ["demo-data", "--streams", "200", "--events", "3000"];
    assert!(snapshots(&folder, Some(&url)).args(arguments).output().unwrap().status.success());
    let query = |sql: &str| host.query("demo", sql).unwrap();
    assert_eq!(query(r#"SELECT count(*) FROM "Stream""#), "200");
    assert_eq!(query(r#"SELECT count(*) FROM "EventLog""#), "3000");
    // The chain's rule in SQL, independent of the code that wrote it.
    let fields = [
        "amount",
        "eventIndex",
        "eventType",
        "ledger",
        "ledgerClosedAt",
        "metadata",
        "receiver",
        "sender",
        "streamId",
        "txHash",
    ];
    let pairs: Vec<String> = fields
        .iter()
        .map(|name| {
            let text = if *name == "amount" { "amount::text".into() } else { format!("{name:?}") };
            format!(r#"'"{name}":' || COALESCE(to_json({text})::text, 'null')"#)
        })
        .collect();
    let json = format!("'{{' || {} || '}}'", pairs.join(" || ',' || "));
    let wrong = format!(
        r#"SELECT count(*) FROM "EventLog" WHERE entry_hash <>
           encode(sha256(convert_to({json} || COALESCE(parent_hash, ''), 'UTF8')), 'hex')"#
    );
    assert_eq!(query(&wrong), "0");
    let links = r#"SELECT count(*) FROM "EventLog" e JOIN "EventLog" p ON p.entry_hash = e.parent_hash"#;
    assert_eq!(query(links), "2999");
    let newest = r#"SELECT count(*) FROM "EventLog" e WHERE NOT EXISTS (SELECT FROM "EventLog" c WHERE c.parent_hash = e.entry_hash)
                    AND "createdAt" = (SELECT max("createdAt") FROM "EventLog")"#;
    assert_eq!(query(newest), "1", "the newest row is the chain's head");
    let months = r#"SELECT count(DISTINCT date_trunc('month', "createdAt")) IN (12, 13) FROM "EventLog""#;
    assert_eq!(query(months), "t");
    assert_eq!(
        query(
            r#"SELECT count(*) FROM "EventLog" WHERE "streamId" NOT IN (SELECT "streamId" FROM "Stream" WHERE "streamId" IS NOT NULL)"#
        ),
        "0"
    );
    assert_eq!(query(r#"SELECT count(*) FROM "Stream" WHERE "streamId" = id"#), "0");

    let refused = failed(&snapshots(&folder, Some(&url)).args(arguments).output().unwrap());
    assert!(refused.contains("only added to empty tables"), "{refused}");
    assert_eq!(query(r#"SELECT count(*) FROM "EventLog""#), "3000");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn with_database_url_the_named_database_is_used_and_given_no_host_tables_or_demo_data() {
    let host = Host::start();
    let folder = folder("named");
    let empty = host.database("empty", "SELECT 1");
    for command in [["serve", "--no-schedule", "--port", "0"].as_slice(), &["migrate"], &["maintain"]] {
        let message = failed(&snapshots(&folder, Some(&empty)).args(command).output().unwrap());
        assert!(message.contains("missing") || message.contains("snapshots migrate"), "{message}");
    }
    assert_eq!(
        host.query("empty", "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'snapshot_service')")
            .unwrap(),
        "0"
    );

    let url = host.database("host", HOST_SCHEMA);
    let migrated = succeeded(&snapshots(&folder, Some(&url)).args(["migrate", "--json"]).output().unwrap());
    assert_eq!(migrated["applied"].as_array().unwrap().len(), 7);
    let serving = Serving::start(snapshots(&folder, Some(&url)));
    assert_eq!(serving.get("/42").1, json!({"success": true, "data": [], "nextCursor": null}));
    serving.stop(Signal::SIGINT);
    assert_eq!(host.query("host", r#"SELECT count(*) FROM "Stream""#).unwrap(), "0");
    assert!(!folder.join(".local").exists(), "no private server was made");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_local_routes_are_those_of_api_gateway() {
    let host = Host::start();
    let folder = folder("routes");
    let url = host.database("routes", HOST_SCHEMA);
    host.execute(
        "routes",
        r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount)
           VALUES ('s1', 'stream/with space', 't', 's', 'r', '1');
           INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
           VALUES ('e1', 'create', 'stream/with space', 't', 1, 'then', '2020-01-01')"#,
    );
    let serving = Serving::start(snapshots(&folder, Some(&url)));
    let maintenance = format!("{}/maintenance", serving.base());
    assert_eq!(request("POST", &maintenance).1["data"]["logsArchived"], 1);

    let archive = serving.get("/stream%2Fwith%20space/archive");
    assert_eq!(
        (archive.0, &archive.1["data"][0]["id"]),
        (200, &json!("e1")),
        "not shadowed by /{{streamId}}/{{month}}"
    );
    assert_eq!(serving.get("/s1/archive").1["data"], archive.1["data"]);
    let events = serving.get("/s1/events");
    assert_eq!((events.0, &events.1["data"][0]["tier"]), (200, &json!("archived")));
    let state = serving.get("/s1/state?at=9999-12-31T23:59:59Z");
    assert_eq!((state.0, &state.1["data"]["snapshot"]["streamId"]), (200, &json!("s1")));
    for (path, named) in [
        ("/s1/2026-13", "month must "),
        ("/s1/archives", "month must "),
        ("/maintenance/2026-05", "runId must "),
        ("/", "streamId must "),
        ("//archive", "streamId must "),
        ("/s1/state", "at must "),
        ("/maintenance/events", "runId must "),
        ("//2026-01", "streamId must "),
        ("/%zz", "streamId must "),
        ("/%00/archive", "streamId must "),
        ("/%ff/2026-01", "streamId must "),
    ] {
        let (status, body) = serving.get(path);
        assert_eq!((status, &body["code"]), (400, &json!("invalid_input")), "{path}: {body}");
        assert!(body["error"].as_str().unwrap().starts_with(named), "{path}: {body}");
    }
    let runs = serving.get("/maintenance").1;
    assert_eq!((runs["data"].as_array().unwrap().len(), &runs["data"][0]["logsArchived"]), (1, &json!(1)));
    let run = serving.get(&format!("/maintenance/{}", runs["data"][0]["id"].as_str().unwrap()));
    assert_eq!((run.0, &run.1["data"]), (200, &runs["data"][0]));
    assert_eq!(serving.get("/maintenance/6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e").0, 404);
    let (status, report) = request_with_body("POST", &maintenance, r#"{"dryRun": true}"#);
    assert_eq!((status, &report["data"]["dryRun"], &report["data"]["logsDue"]), (200, &json!(true), &json!(0)));
    let (status, body) = request_with_body("POST", &maintenance, r#"{"dryrun": true}"#);
    assert_eq!((status, &body["code"]), (400, &json!("invalid_input")));
    assert!(body["error"].as_str().unwrap().starts_with("body must be empty or a JSON object"), "{body}");
    for path in ["/a/b/c", ""] {
        let (status, body) = serving.get(path);
        assert_eq!((status, &body["code"]), (404, &json!("no_such_route")), "{path}");
    }
    for (method, path, allowed) in
        [("POST", "/s1", "GET"), ("DELETE", "/s1", "GET"), ("PUT", "/maintenance", "GET, POST")]
    {
        let (status, head, body) = exchange(method, &format!("{}{path}", serving.base()), &[], "");
        assert_eq!((status, header(&head, "Allow")), (405, allowed), "{method} {path}: {body}");
        assert!(body.contains("method_not_allowed"), "{body}");
    }
    serving.stop(Signal::SIGINT);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_database_that_goes_away_under_the_server_is_a_503_until_it_is_back() {
    let host = Host::start();
    let folder = folder("down");
    let url = host.database("down", HOST_SCHEMA);
    let serving = Serving::start(snapshots(&folder, Some(&url)));
    assert_eq!(serving.get("/42").0, 200);
    host.server.stop_immediately().unwrap();
    for path in ["/42", "/42/2026-01", "/42/archive", "/42/events", "/42/state?at=2026-01-01T00:00:00Z"] {
        let (status, body) = serving.get(path);
        assert_eq!((status, &body["code"]), (503, &json!("database_unavailable")), "{body}");
    }
    let (status, _) = request("POST", &format!("{}/maintenance", serving.base()));
    assert_eq!(status, 503);
    serving.stop(Signal::SIGINT);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let folder = folder("start");
    let message = failed(&snapshots(&folder, Some("mysql://db")).arg("migrate").output().unwrap());
    assert!(message.starts_with("error: DATABASE_URL: "), "{message}");
    let message = failed(
        &snapshots(&folder, Some("postgres://u@127.0.0.1/db")).arg("migrate").env("BATCH_ROWS", "0").output().unwrap(),
    );
    assert!(message.starts_with("error: BATCH_ROWS: "), "{message}");

    let message = failed(&snapshots(&folder, None).arg("demo-data").env("PG_BIN", "/nowhere").output().unwrap());
    assert!(message.starts_with("error: no PostgreSQL 14 or newer found: PG_BIN is /nowhere"), "{message}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let message = failed(&snapshots(&folder, None).args(["serve", "--port", &port]).output().unwrap());
    assert!(message.contains(&format!("port {port} cannot be served")), "{message}");
    assert!(!folder.join(".local").exists(), "before the database is started");
    std::fs::remove_dir_all(folder).unwrap();
}

/// A host's database with `rows` events of January 2026, a minute apart.
fn host_with_events(host: &Host, name: &str, rows: u32) -> String {
    let url = host.database(name, HOST_SCHEMA);
    host.execute(
        name,
        &format!(
            r#"INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
               SELECT 'e' || i, 'create', '42', 't' || i, i, 'then', timestamp '2026-01-01' + i * interval '1 minute'
               FROM generate_series(1, {rows}) i"#
        ),
    );
    url
}

/// Holds up the move of the event `id` for a while.
fn hold_up(host: &Host, database: &str, id: &str) {
    host.execute(
        database,
        &format!(
            r#"CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN OLD; END $$;
               CREATE TRIGGER dawdle BEFORE DELETE ON "EventLog" FOR EACH ROW WHEN (OLD.id = '{id}') EXECUTE FUNCTION dawdle()"#
        ),
    );
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn maintain_tells_by_its_exit_code_whether_it_is_complete_incomplete_or_failed() {
    let host = Host::start();
    let folder = folder("exit");
    let url = host_with_events(&host, "exits", 300);
    let maintain = |arguments: &[&str]| {
        output(
            snapshots(&folder, Some(&url))
                .args(["maintain", "--output", "json"])
                .args(arguments)
                .env("BATCH_ROWS", "100")
                .env("WORKERS", "1"),
        )
    };
    let (code, _, error) = maintain(&[]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("run `snapshots migrate`"), "{error}");
    assert!(snapshots(&folder, Some(&url)).arg("migrate").output().unwrap().status.success());

    let (code, report, _) = maintain(&["--dry-run"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((code, &report["logsDue"], &report["months"][0]["rows"]), (Some(0), &json!(300), &json!(300)));
    assert_eq!(host.query("exits", r#"SELECT count(*) FROM "MaintenanceRun""#).unwrap(), "0");

    let (code, run, log) = maintain(&["--budget", "0s"]);
    let first: Value = serde_json::from_str(&run).unwrap();
    assert_eq!((code, &first["complete"], &first["logsArchived"]), (Some(3), &json!(false), &json!(100)), "{log}");
    let (code, run, _) = maintain(&["--budget", "10m", "--workers", "2"]);
    let last: Value = serde_json::from_str(&run).unwrap();
    assert_eq!((code, &last["complete"], &last["logsArchived"]), (Some(0), &json!(true), &json!(300)));
    assert_eq!((&last["id"], &last["trigger"]), (&first["id"], &json!("cli")));

    for (arguments, named) in [(["--budget", "soon"], "--budget"), (["--workers", "0"], "--workers")] {
        let (code, _, error) = maintain(&arguments);
        assert_eq!(code, Some(2));
        assert!(error.contains(named), "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_operator_sees_pauses_resumes_and_cancels_a_run() {
    let host = Host::start();
    let folder = folder("operate");
    let url = host_with_events(&host, "operate", 300);
    let run = |arguments: &[&str]| {
        output(
            snapshots(&folder, Some(&url))
                .args(arguments)
                .env("BATCH_ROWS", "100")
                .env("WORKERS", "1")
                .env("USER", "ops"),
        )
    };
    assert_eq!(run(&["migrate"]).0, Some(0));
    assert!(run(&["status"]).1.starts_with("there has been no run: `snapshots maintain` does the first\n"));
    assert_eq!(run(&["cancel"]).1, "there is no open run\n");
    assert_eq!(run(&["resume"]).1, "was not paused\n");

    assert_eq!(run(&["maintain", "--budget", "0s"]).0, Some(3));
    let status = run(&["status"]).1;
    for part in ["by cli: interrupted", "snapshot maintenance: archive", "100/", "last stopped: deadline", "1 slice"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    assert!(run(&["pause", "--reason", "the host migrates"]).1.contains("by ops: the host migrates"));
    assert!(run(&["status"]).1.starts_with("paused since "));
    let (code, _, error) = run(&["maintain"]);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("maintenance is paused since ") && error.contains("by ops: the host migrates"), "{error}");
    let status: Value = serde_json::from_str(&run(&["status", "--json"]).1).unwrap();
    assert_eq!(
        (&status["pause"]["reason"], &status["lastRun"]["logsArchived"]),
        (&json!("the host migrates"), &json!(100))
    );

    assert!(run(&["resume"]).1.starts_with("resumed; "));
    assert!(run(&["cancel"]).1.starts_with("cancelled run "));
    assert!(run(&["status"]).1.contains("last stopped: cancelled"));
    let (code, last, _) = run(&["maintain", "--json"]);
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!((code, &last["logsArchived"]), (Some(0), &json!(200)), "a run of its own");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn ctrl_c_finishes_the_batch_and_a_second_command_hears_who_is_at_work() {
    let host = Host::start();
    let folder = folder("signal");
    let url = host_with_events(&host, "signal", 300);
    assert!(snapshots(&folder, Some(&url)).arg("migrate").output().unwrap().status.success());
    hold_up(&host, "signal", "e150");
    let maintain = || {
        let mut command = snapshots(&folder, Some(&url));
        command.args(["maintain", "--json"]).env("BATCH_ROWS", "100").env("WORKERS", "1");
        command
    };
    let working = maintain().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let archived = r#"SELECT COALESCE(sum("logsArchived"), 0) FROM "RunMonth""#;
    while host.query("signal", archived).unwrap() != "100" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (code, _, error) = output(&mut maintain());
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("is under way") && error.contains("100/"), "{error}");

    kill(Pid::from_raw(i32::try_from(working.id()).unwrap()), Signal::SIGINT).unwrap();
    let stopped = working.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(3), "{}", String::from_utf8_lossy(&stopped.stderr));
    let run: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert_eq!((&run["stopReason"], &run["logsArchived"]), (&json!("signal"), &json!(200)));
    std::fs::remove_dir_all(folder).unwrap();
}

/// What is in the log and the archive, each row as text, in order.
const ALL_EVENTS: &str = r#"SELECT md5(string_agg(event, E'\n' ORDER BY id)) || ' ' || count(*) || ' ' || count(DISTINCT id) FROM (
    SELECT id, row_to_json(e)::text AS event FROM "EventLog" e
    UNION ALL SELECT id, row_to_json(a)::text FROM (
        SELECT id, "eventType", "streamId", "txHash", "eventIndex", ledger, "ledgerClosedAt", sender, receiver, amount, metadata,
               parent_hash, entry_hash, "createdAt" FROM "StreamArchive") a
) events"#;

#[test]
fn an_operator_restores_holds_and_releases() {
    let host = Host::start();
    let folder = folder("restore");
    let url = host_with_events(&host, "restore", 300);
    let run = |arguments: &[&str]| {
        output(
            snapshots(&folder, Some(&url))
                .args(arguments)
                .env("BATCH_ROWS", "100")
                .env("WORKERS", "1")
                .env("USER", "ops"),
        )
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(run(&["migrate"]).0, Some(0));
    assert_eq!(run(&["maintain"]).0, Some(0));
    let (code, _, error) = run(&["restore"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("required arguments were not provided") && error.contains("--stream"), "{error}");
    let (code, _, error) = run(&["restore", "--yes", "--from", "yesterday"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("--from") && error.contains("must be a time in RFC 3339"), "{error}");

    let (code, _, error) = run(&["restore", "--stream", "42"]);
    assert_eq!(code, Some(1));
    assert!(error.ends_with("there is no terminal: give --yes\n"), "{error}");
    let (code, report, _) = run(&["restore", "--stream", "42", "--dry-run", "--json"]);
    let report = json(&report);
    assert_eq!((code, &report["logsToRestore"], &report["months"][0]["rows"]), (Some(0), &json!(300), &json!(300)));
    let (code, first, _) = run(&["restore", "--stream", "42", "--budget", "0s", "--yes", "--json"]);
    let first = json(&first);
    assert_eq!((code, &first["logsRestored"], &first["complete"]), (Some(3), &json!(100), &json!(false)));
    assert!(run(&["status"]).1.contains("snapshot maintenance: restore 33.3 %, 100/300"));
    let (code, last, _) = run(&["restore", "--stream", "42", "--yes", "--json"]);
    let last = json(&last);
    assert_eq!((code, &last["id"], &last["logsRestored"]), (Some(0), &first["id"], &json!(300)));
    let status = run(&["status"]).1;
    assert!(status.contains("300 logs moved back to") && status.contains("300 restored logs stay until"), "{status}");
    let held = json(&run(&["maintain", "--json"]).1);
    assert_eq!((&held["logsArchived"], &held["heldBack"][0]["reason"]), (&json!(0), &json!("restored")));

    let (code, said, _) = run(&["hold", "--stream", "42", "--reason", "case 7"]);
    assert_eq!(code, Some(0));
    assert!(said.starts_with("stream 42 is held since ") && said.contains(" by ops: case 7 (hold "), "{said}");
    let said = run(&["hold", "--stream", "42", "--reason", "case 7"]).1;
    assert!(said.ends_with(" (it was held for that already)\n"), "{said}");
    assert_eq!(run(&["hold", "--stream", "42", "--reason", ""]).0, Some(2));
    let said = run(&["hold", "--stream", "42", "--reason", "case 8"]).1;
    let second = said.trim_end().trim_end_matches(')').rsplit(' ').next().unwrap();
    let release = ["release", "--hold", "--stream", "42", "--reason", "closed"];
    let (code, _, error) = run(&release);
    assert!(code == Some(1) && error.contains("must name one of the stream's holds"), "{error}");
    assert!(run(&[&release[..], &["--id", second]].concat()).1.contains("case 8"));
    let status = json(&run(&["status", "--json"]).1);
    assert_eq!((&status["legalHolds"][0]["reason"], &status["restoredLogs"]), (&json!("case 7"), &json!(300)));
    assert!(run(&["status"]).1.contains("by ops: case 7"));
    assert!(run(&["release", "--run", first["id"].as_str().unwrap()]).1.starts_with("300 restored logs released"));
    let held = json(&run(&["maintain", "--json"]).1);
    assert_eq!((&held["logsArchived"], &held["heldBack"][0]["reason"]), (&json!(0), &json!("legal_hold")));
    for arguments in
        [["release", "--hold"].as_slice(), &["release", "--hold", "--stream", "42"], &["release", "--reason", "x"]]
    {
        assert_eq!(run(arguments).0, Some(2), "{arguments:?}");
    }
    assert!(run(&["release", "--hold", "--stream", "42", "--reason", "closed"]).1.starts_with("released: stream 42 "));
    assert_eq!(
        run(&["release", "--hold", "--stream", "42", "--reason", "closed"]).1,
        "stream 42 was not on such a hold\n"
    );
    assert_eq!(json(&run(&["maintain", "--json"]).1)["logsArchived"], 300);
    std::fs::remove_dir_all(folder).unwrap();
}

/// A host's database with `rows` events of six months, archived in full.
fn host_with_archive(host: &Host, folder: &Path, name: &str, rows: u32) -> String {
    let url = host_with_events(host, name, rows);
    host.execute(
        name,
        r#"INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount) SELECT 's' || i, i, i, 's', 'r', '7' FROM generate_series(1, 50) i;
           UPDATE "EventLog" SET "createdAt" = timestamp '2025-06-01' + ledger % 180 * interval '1 day' + ledger * interval '1 ms'"#,
    );
    for command in ["migrate", "maintain"] {
        let done = snapshots(folder, Some(&url)).arg(command).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    url
}

/// Starts a command again and again and kills it when it is at work: at ten random moments. `at_work` is SQL that is true
/// then, `check` looks after each kill.
fn kill_at_ten_moments(command: impl Fn() -> Command, at_work: impl Fn() -> bool, check: impl Fn()) -> u32 {
    let mut kills_in_mid_run = 0;
    for _ in 0..10 {
        let mut process = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !at_work() && process.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_micros(fastrand::u64(0..60_000)));
        kills_in_mid_run += u32::from(process.try_wait().unwrap().is_none());
        process.kill().unwrap();
        process.wait().unwrap();
        check();
        // The killed one's lease and its last statement end.
        std::thread::sleep(std::time::Duration::from_millis(1_100));
    }
    kills_in_mid_run
}

#[test]
fn an_operator_verifies_the_archive_and_hears_what_is_not_as_it_was() {
    let host = Host::start();
    let folder = folder("verify");
    let url = host_with_archive(&host, &folder, "verify", 3_000);
    let verify = |arguments: &[&str]| {
        snapshots(&folder, Some(&url)).args(["verify", "--json"]).args(arguments).output().unwrap()
    };
    let passed = succeeded(&verify(&["--full"]));
    assert_eq!(
        (&passed["status"], &passed["full"], &passed["breakCount"]),
        (&json!("passed"), &json!(true), &json!(0))
    );

    let changed = r#"UPDATE "StreamArchive" SET sender = 'x'
        WHERE id = (SELECT min(id) FROM "StreamArchive") RETURNING id || to_char("createdAt", ' YYYY-MM')"#;
    let changed = host.query("verify", changed).unwrap();
    let (id, month) = changed.split_once(' ').unwrap();
    for arguments in [["--month", month], ["--workers", "1"]] {
        let output = verify(&arguments);
        assert_eq!(output.status.code(), Some(4));
        let failed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&failed["status"], &failed["breakCount"]), (&json!("failed"), &json!(1)));
        let found = &failed["breaks"][0];
        assert_eq!(
            (&found["kind"], &found["logId"], &found["month"]),
            (&json!("row_altered"), &json!(id), &json!(month))
        );
    }
    assert_eq!(verify(&["--budget", "0s", "--workers", "1"]).status.code(), Some(3));
    assert_eq!(verify(&["--month", "2026-13"]).status.code(), Some(2));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn killed_at_ten_random_moments_of_a_restore_nothing_is_lost_or_doubled() {
    let host = Host::start();
    let folder = folder("kill-restore");
    let url = host_with_archive(&host, &folder, "killed", 60_000);
    let query = |sql: &str| host.query("killed", sql).unwrap();
    let events = query(ALL_EVENTS);
    assert!(events.ends_with(" 60000 60000"), "{events}");
    let restore = || {
        let mut command = snapshots(&folder, Some(&url));
        command
            .args(["restore", "--to", "2026-01-01T00:00:00Z", "--yes", "--json"])
            .env("BATCH_ROWS", "200")
            .env("LEASE_SECONDS", "1");
        command
    };
    let restored = || query(r#"SELECT count(*) FROM "EventLog""#);
    let before = std::cell::RefCell::new(restored());
    let kills = kill_at_ten_moments(
        restore,
        || restored() != *before.borrow(),
        || {
            assert_eq!(query(ALL_EVENTS), events);
            *before.borrow_mut() = restored();
        },
    );
    assert!(kills >= 9, "only {kills} kills came before its end");
    let run = succeeded(&restore().output().unwrap());
    assert_eq!(
        (&run["logsRestored"], &run["complete"]),
        (&json!(60_000), &json!(true)),
        "the counters are as exact as the rows"
    );
    assert!(run["attempts"].as_i64().unwrap() >= 10, "{run}");
    assert_eq!(query(ALL_EVENTS), events);
    assert_eq!(query(r#"SELECT count(*) FROM "StreamArchive""#), "0");
    assert_eq!(query(r#"SELECT count(*) FROM "RestoredLog""#), "60000");
    assert_eq!(query(r#"SELECT count(*) FROM "ArchiveRemoval""#), "60000");
    assert_eq!(query(r#"SELECT sum(rows) FROM "ArchiveSeal" WHERE kind = 'restored'"#), "60000");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn killed_at_ten_random_moments_of_a_rollback_nothing_is_lost_and_it_goes_on() {
    const HOT: &str =
        r#"SELECT md5(string_agg(row_to_json(e)::text, E'\n' ORDER BY id)) || ' ' || count(*) FROM "EventLog" e"#;
    const TABLES: &str = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('snapshot_service'))";
    let host = Host::start();
    let folder = folder("kill-rollback");
    host.database("plain", HOST_SCHEMA);
    let tables = host.query("plain", TABLES).unwrap();
    let url = host_with_archive(&host, &folder, "rolled_back", 40_000);
    let query = |sql: &str| host.query("rolled_back", sql);
    let events = query(ALL_EVENTS).unwrap();
    let rollback = || {
        let mut command = snapshots(&folder, Some(&url));
        command.args(["rollback", "--drop-snapshots", "--yes"]).env("BATCH_ROWS", "200").env("LEASE_SECONDS", "1");
        command
    };
    let (code, _, error) = output(snapshots(&folder, Some(&url)).args(["rollback", "--yes"]));
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("there are snapshots: with --drop-snapshots"), "{error}");
    let restored = || query(r#"SELECT count(*) FROM "EventLog""#).unwrap();
    let before = std::cell::RefCell::new(restored());
    let kills = kill_at_ten_moments(
        rollback,
        || restored() != *before.borrow(),
        || {
            assert_eq!(query(ALL_EVENTS).unwrap(), events);
            *before.borrow_mut() = restored();
        },
    );
    assert!(kills >= 9, "only {kills} kills came before its end");

    // A file that is not its own stays, and so do the tables.
    let file = folder.join("StreamSnapshot.jsonl");
    std::fs::write(&file, "something else\n").unwrap();
    let (code, _, error) = output(&mut rollback());
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("StreamSnapshot.jsonl has other contents"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "something else\n");
    std::fs::remove_file(&file).unwrap();

    // Killed when the file is written and nothing is dropped yet: a reader keeps it waiting.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reader = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(r#"BEGIN; SELECT FROM snapshot_service."StreamSnapshot""#).await.unwrap();
        client
    });
    let mut process = rollback().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !file.exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(process.try_wait().unwrap().is_none());
    process.kill().unwrap();
    process.wait().unwrap();
    drop((reader, runtime));
    assert_eq!(query(r#"SELECT count(*) FROM "StreamSnapshot""#).unwrap(), "50");
    let (code, said, error) = output(&mut rollback());
    assert_eq!(code, Some(0), "{error}");
    assert!(
        said.contains("40000 logs are back") && said.contains("50 snapshots are in StreamSnapshot.jsonl"),
        "{said}"
    );
    assert_eq!(query(TABLES).unwrap(), tables);
    assert!(events.starts_with(&query(HOT).unwrap()), "byte for byte");
    let lines = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["streamId"], &lines[0]["state"]["amount"]), (50, &json!("s1"), &json!("7")));
    let records = std::fs::read_to_string(folder.join("SnapshotServiceRecords.jsonl")).unwrap();
    assert_eq!(records.lines().filter(|line| line.contains("StreamIdentity")).count(), 50);
    assert!(said.contains("records are in SnapshotServiceRecords.jsonl"), "{said}");
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.ends_with(".partial")));

    let (code, said, _) = output(&mut rollback());
    assert_eq!((code, said.as_str()), (Some(0), "there is nothing to roll back\n"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn doctor_is_quiet_where_all_is_well_and_tells_by_its_exit_code_whether_something_refuses() {
    let host = Host::start();
    let folder = folder("doctor");
    let empty = host.database("empty", "SELECT 1");
    let doctor = |url: &str, arguments: &[&str]| output(snapshots(&folder, Some(url)).arg("doctor").args(arguments));
    let (code, text, _) = doctor(&empty, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("refuses both") && text.contains("host_table_missing"), "{text}");

    let url = host.database("doctor", HOST_SCHEMA);
    let (code, text, _) = doctor(&url, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("EFFECT") && text.contains("cure: run `snapshots migrate`"), "{text}");
    assert_eq!(text.lines().last().unwrap(), "neither snapshots nor archiving can run: do what the refusals say");
    succeeded(&snapshots(&folder, Some(&url)).args(["migrate", "--json"]).output().unwrap());
    assert_eq!(doctor(&url, &[]), (Some(0), "all is well\n".into(), String::new()));

    host.execute("doctor", r#"DROP INDEX "EventLog_createdAt_idx""#);
    let (code, text, _) = doctor(&url, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.lines().last().unwrap(), "snapshots and archiving can run; 1 finding to know of");

    host.execute("doctor", r#"CREATE RULE keep AS ON DELETE TO "EventLog" DO INSTEAD NOTHING"#);
    let (code, text, _) = doctor(&url, &[]);
    assert_eq!(code, Some(1));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].starts_with("refuses archiving  delete_rule"), "refusals come first: {text}");
    assert_eq!(lines.last().unwrap(), &"snapshots can be taken, but nothing is archived: do what the refusals say");
    let (code, text, _) = doctor(&url, &["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["refusesSnapshots"], &report["refusesArchive"]), (Some(1), &json!(false), &json!(true)));
    let codes: Vec<_> = report["findings"].as_array().unwrap().iter().map(|found| &found["code"]).collect();
    assert_eq!(codes, ["delete_rule", "no_time_index"]);
    assert_eq!(report["findings"][1]["cure"], r#"CREATE INDEX CONCURRENTLY ON public."EventLog" ("createdAt");"#);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_command_without_a_database_makes_none_and_says_which_variable_is_missing() {
    let folder = folder("nowhere");
    for command in
        [["maintain"].as_slice(), &["migrate"], &["verify"], &["doctor"], &["status"], &["list", "42"], &["months"]]
    {
        let message = failed(&snapshots(&folder, None).args(command).output().unwrap());
        assert!(message.starts_with("error: DATABASE_URL is not set"), "{command:?}: {message}");
        assert!(message.contains("`snapshots serve`"), "{message}");
    }
    // An empty one is none.
    let message = failed(&snapshots(&folder, Some("")).arg("maintain").output().unwrap());
    assert!(message.starts_with("error: DATABASE_URL is not set"), "{message}");
    assert!(!folder.join(".local").exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn readers_and_operators_get_tables_and_programs_one_json_document() {
    let host = Host::start();
    let folder = folder("reading");
    let url = host_with_archive(&host, &folder, "reading", 600);
    let run = |arguments: &[&str]| output(snapshots(&folder, Some(&url)).args(arguments));
    let text = |arguments: &[&str]| {
        let (code, text, error) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        text
    };
    let json = |arguments: &[&str]| {
        let (code, text, error) = run(&[arguments, &["--json"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let snapshots_of = json(&["list", "s1"]);
    let month = snapshots_of["data"][0]["snapshotMonth"].as_str().unwrap();
    assert_eq!((snapshots_of["data"].as_array().unwrap().len(), &snapshots_of["nextCursor"]), (1, &Value::Null));
    let listed = text(&["list", "1"]);
    assert!(listed.starts_with("MONTH") && listed.contains(month), "{listed}");
    assert_eq!(json(&["get", "s1", month]), snapshots_of["data"][0]);
    assert!(text(&["get", "s1", month]).contains("total amount  7\n"));
    let (code, _, error) = run(&["get", "s1", "2020-01"]);
    assert!(code == Some(1) && error.contains("`snapshots list` has those that there are"), "{error}");

    // All events are of the contract id 42.
    let first = json(&["archive", "42", "--limit", "2"]);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = json(&["archive", "s42", "--limit", "2", "--cursor", cursor]);
    assert_ne!(first["data"][1]["id"], second["data"][0]["id"]);
    let (_, table, said) = run(&["archive", "42", "--limit", "2"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(said.ends_with(&format!("there are more: --cursor {cursor}\n")), "{said}");
    assert_eq!(run(&["archive", "42", "--limit", "2", "--quiet"]).2, "");
    let events = text(&["events", "42", "--event-type", "create", "--limit", "1"]);
    assert!(events.contains("archived") && events.lines().count() == 2, "{events}");
    assert_eq!(text(&["events", "unknown"]), "no events\n");
    let (code, _, error) = run(&["events", "42", "--cursor", "x"]);
    assert!(code == Some(1) && error.contains("cursor must be a nextCursor"), "{error}");
    let state = json(&["state", "s1", "--at", "9999-01-01T00:00:00Z"]);
    assert_eq!(state["data"]["snapshot"]["snapshotMonth"], month);
    assert!(
        text(&["state", "s1", "--at", "9999-01-01T00:00:00Z"]).contains("no event since, up to 9999-01-01T00:00:00Z")
    );
    assert_eq!(run(&["state", "s1"]).0, Some(2));

    let runs = json(&["runs"]);
    let id = runs["data"][0]["id"].as_str().unwrap();
    assert_eq!(json(&["run", id]), runs["data"][0]);
    assert!(text(&["runs"]).contains(id));
    assert!(text(&["run", id]).contains("600 archived"));
    let (code, _, error) = run(&["run", "6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e"]);
    assert!(code == Some(1) && error.contains("`snapshots runs` has those that there are"), "{error}");
    let months = json(&["months"]);
    let months = months.as_array().unwrap();
    assert_eq!(months.iter().map(|month| month["rows"].as_u64().unwrap()).sum::<u64>(), 600);
    assert!(text(&["months"]).starts_with("MONTH"));
    assert_eq!(text(&["holds"]), "no stream is under legal hold\n");
    text(&["hold", "--stream", "42", "--reason", "case 7"]);
    assert!(text(&["holds"]).contains("case 7"));
    assert_eq!(json(&["holds"])[0]["reason"], "case 7");

    let status = json(&["status"]);
    assert_eq!((&status["lastRun"]["logsArchived"], &status["backlog"]["backlogRows"]), (&json!(600), &json!(0)));
    assert!(text(&["maintain"]).contains("0 taken, 50 there already"));
    assert!(text(&["maintain", "--dry-run"]).ends_with("Nothing was written.\n"));
    assert!(text(&["verify"]).ends_with("all is as it was archived\n"));
    assert!(text(&["migrate"]).starts_with("all migrations were applied before\n"));
    assert_eq!(run(&["maintain", "--quiet"]).2, "");
    assert!(text(&["completions", "bash"]).contains("snapshots"));

    assert_eq!(run(&["status", "--output", "human", "--json"]).0, Some(2));
    let (code, said, error) = run(&["status", "--watch", "--json"]);
    assert!(code == Some(1) && said.is_empty() && error.contains("--watch is for people"), "{error}");
    // Whoever reads has had enough.
    let watch = ["status", "--watch"];
    let mut watching = snapshots(&folder, Some(&url)).args(watch).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(watching.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(watching.wait().unwrap().success());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_local_server_answers_as_http_asks_and_keeps_out_other_names_and_pages() {
    let host = Host::start();
    let folder = folder("manners");
    let url = host_with_archive(&host, &folder, "manners", 300);
    let serving = Serving::start(snapshots(&folder, Some(&url)));
    let archive = format!("{}/42/archive?limit=2&from=2025-01-01T00:00:00%2B00:00", serving.base());
    let (status, head, body) = exchange("GET", &archive, &[("X-Request-Id", "my-own")], "");
    assert_eq!(status, 200, "{body}");
    assert_eq!((header(&head, "X-Request-Id"), header(&head, "Cache-Control")), ("my-own", "private, no-cache"));
    let (status, _, nothing) = exchange("GET", &archive, &[("If-None-Match", header(&head, "ETag"))], "");
    assert_eq!((status, nothing.as_str()), (304, ""));

    let link = header(&head, "Link").strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    let (page, _) = archive.split_once('?').unwrap();
    let (status, _, next) = exchange("GET", &format!("{page}{link}"), &[], "");
    assert_eq!(status, 200, "{next}");
    let ids = |body: &str| {
        let answer: Value = serde_json::from_str(body).unwrap();
        answer["data"].as_array().unwrap().iter().map(|log| log["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&next).len(), 2, "the limit is kept");
    assert!(ids(&next).iter().all(|id| !ids(&body).contains(id)));

    let maintenance = format!("{}/maintenance", serving.base());
    let own = maintenance.split("/api").next().unwrap();
    for (headers, body, expected, code) in [
        ([("Content-Type", "text/plain")].as_slice(), "{}", 415, "unsupported_media_type"),
        (&[("Content-Type", "application/x-www-form-urlencoded")], "", 415, "unsupported_media_type"),
        (&[], "{}", 415, "unsupported_media_type"),
        (&[("Origin", "http://example.org")], "", 403, "forbidden"),
        (&[("Origin", "null")], "", 403, "forbidden"),
        (&[("Origin", "\u{fc}")], "", 403, "forbidden"),
        (&[("Host", "example.org")], "", 403, "forbidden"),
        (&[("Origin", own)], "", 200, "succeeded"),
        (&[("Host", "localhost:1")], "", 200, "succeeded"),
    ] {
        let (status, _, answer) = exchange("POST", &maintenance, headers, body);
        assert_eq!(status, expected, "{headers:?} {answer}");
        assert!(answer.contains(code), "{headers:?} {answer}");
    }
    assert_eq!(
        exchange("GET", &maintenance, &[("Host", "example.org")], "").0,
        403,
        "no page reads under another name"
    );
    assert_eq!(
        exchange("GET", &maintenance, &[("Origin", "http://example.org")], "").0,
        200,
        "its browser keeps the answer"
    );
    serving.stop(Signal::SIGINT);

    let mut command = snapshots(&folder, Some(&url));
    let refused = output(snapshots(&folder, Some(&url)).args(["serve", "--port", "0", "--allow-host", ""]));
    assert!(refused.0 == Some(2) && refused.2.contains("must be a host's name"), "{}", refused.2);
    command.args(["serve", "--port", "0", "--allow-host", "example.org:8443"]);
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
    let first = lines.find(|line| line.contains("curl ")).unwrap();
    let base = first.split_whitespace().last().unwrap();
    assert_eq!(exchange("GET", base, &[("Host", "Example.org")], "").0, 200);
    assert_eq!(exchange("GET", base, &[("Host", "example.com")], "").0, 403);
    kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(process.wait().unwrap().success());
    std::fs::remove_dir_all(folder).unwrap();
}

/// Runs a command on a terminal of 60 columns where `answer` is typed. Returns its exit code and what the terminal shows.
fn on_a_terminal(mut command: Command, answer: &str) -> (Option<i32>, String) {
    use std::io::Write;
    let size = nix::pty::Winsize { ws_row: 24, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = nix::pty::openpty(&size, None).unwrap();
    let end = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut process = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    // Else it would never end.
    drop((command, terminal.slave));
    let mut keyboard = std::fs::File::from(terminal.master.try_clone().unwrap());
    keyboard.write_all(answer.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // When the last end is closed, Linux says that of it as an error.
    let _ = std::fs::File::from(terminal.master).read_to_end(&mut shown);
    (process.wait().unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn on_a_terminal_it_asks_before_it_undoes_and_tables_fit() {
    let host = Host::start();
    let folder = folder("terminal");
    let url = host_with_archive(&host, &folder, "terminal", 300);
    let command = |arguments: &[&str]| {
        let mut command = snapshots(&folder, Some(&url));
        command.args(arguments).arg("--quiet");
        command
    };
    let restore = ["restore", "--stream", "42"];
    let (code, shown) = on_a_terminal(command(&restore), "n\n");
    assert!(code == Some(1) && shown.contains("[y/N]") && shown.contains("error: nothing was done"), "{shown}");
    assert_eq!(host.query("terminal", r#"SELECT count(*) FROM "EventLog""#).unwrap(), "0");
    let (code, shown) = on_a_terminal(command(&["months"]), "");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.lines().count() > 7 && shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
    let (code, shown) = on_a_terminal(command(&restore), "yes\n");
    assert!(code == Some(0) && shown.contains("300 logs moved back"), "{shown}");
    std::fs::remove_dir_all(folder).unwrap();
}
