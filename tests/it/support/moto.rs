use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Config, Credentials, Region};

/// Serves until the test process has ended, in whatever way, and with it the other end of standard input.
const PROGRAM: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(['--host', '127.0.0.1', '--port', '0'])
";

/// Moto: AWS's services as a server on a free port of 127.0.0.1, with nothing in them. It goes with this.
pub(crate) struct Moto {
    process: Child,
    url: String,
    log: PathBuf,
}

impl Moto {
    /// Starts one with `variables` besides those of this process. Installs it first where it is not.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        tokio::task::spawn_blocking(|| start(variables)).await.unwrap()
    }

    /// Where it serves, for `AWS_ENDPOINT_URL`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How many calls of services it has answered. It counts before it answers.
    pub(crate) fn calls(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().matches("\"POST / HTTP").count()
    }

    /// What a function needs to use it.
    pub(crate) fn variables(&self) -> [(&str, &str); 5] {
        [
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "hunter2-session"),
        ]
    }

    /// Stores a secret, or its next version.
    pub(crate) async fn put_secret(&self, name: &str, value: &str) {
        let put = self.secrets().put_secret_value().secret_id(name).secret_string(value).send().await;
        if put.is_err_and(|error| error.into_service_error().is_resource_not_found_exception()) {
            self.secrets().create_secret().name(name).secret_string(value).send().await.unwrap();
        }
    }

    fn secrets(&self) -> Client {
        Client::from_conf(
            Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new("eu-west-1"))
                .credentials_provider(Credentials::new("key", "secret", None, None, "moto"))
                .endpoint_url(self.url())
                .build(),
        )
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.log);
    }
}

fn start(variables: Vec<(String, String)>) -> Moto {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("moto-{}-{}.log", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new(install().join("bin/python"));
    command.args(["-c", PROGRAM]).envs(variables);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let mut process = command.spawn().unwrap();
    loop {
        let said = fs::read_to_string(&log).unwrap();
        let url = said.split_once("Running on ").and_then(|(_, rest)| rest.split_once('\n'));
        if let Some((url, _)) = url {
            return Moto { process, url: url.into(), log };
        }
        assert!(process.try_wait().unwrap().is_none(), "moto does not start:\n{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The virtual environment that has moto, under the checkout's `.local`. Made when it is not there; other test processes
/// wait for it.
fn install() -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (folder, requirements) = (checkout.join(".local/moto"), checkout.join("tests/requirements.txt"));
    // Copied last: what is there is whole, and is what is wanted.
    let mark = folder.join("requirements.txt");
    let wanted = fs::read(&requirements).unwrap();
    let is_there = || fs::read(&mark).is_ok_and(|installed| installed == wanted);
    if is_there() {
        return folder;
    }
    fs::create_dir_all(checkout.join(".local")).unwrap();
    let lock = File::create(checkout.join(".local/moto.lock")).unwrap();
    lock.lock().unwrap();
    if is_there() {
        return folder;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    let can_make = || run(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_ok();
    if !can_make() {
        local_postgres::install_package("python3-venv").unwrap();
        assert!(can_make(), "no virtual environments: install Python 3 with venv (Debian, Ubuntu: python3-venv)");
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).unwrap();
    let mut pip = Command::new(folder.join("bin/pip"));
    run(pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements)).unwrap();
    fs::copy(&requirements, &mark).unwrap();
    folder
}

/// Runs a program; its error is what it said.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let said = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said()) }
}
