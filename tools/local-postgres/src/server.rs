use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::{Error, Result, at, last_lines};

/// The server's superuser.
const USER: &str = "snapshots";

/// Starts the server, waits until nobody uses it any more, and takes it down. Each user holds a shared lock on a file,
/// which the system gives back when the process ends, in whatever way; this waits for an exclusive one.
const SUPERVISOR: &str = r#"
bin=$1 data=$2 log=$3 port=$4 users=$5 remove=$6
"$bin/pg_ctl" -D "$data" -l "$log" -o "-p $port" -w -t 60 -s start || exit 1
exec 9<"$users"
flock -x 9
"$bin/pg_ctl" -D "$data" -m fast -w -s stop
[ -z "$remove" ] || rm -rf "$remove"
"#;

/// What a new server's folder is given besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines for `postgresql.conf`.
    pub settings: Vec<String>,
    /// Files beside it, by name, such as a certificate's. Only the server can read them.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A running server. It listens on 127.0.0.1 only, unless the settings say otherwise, and asks for a password that is
/// made up when the folder is. Up to PostgreSQL 14, too, its databases let nobody but their owner create in `public`.
#[derive(Debug)]
pub struct Server {
    binaries: Binaries,
    account: Account,
    folder: PathBuf,
    port: u16,
    password: String,
    /// Locked: this process uses the server.
    _users: File,
}

impl Server {
    /// The server with its data in `folder`, which is made when it is not there; its data stays. If another process has
    /// started it, that one is used.
    ///
    /// As root the server runs as another user; where that user could not reach `folder`, the data is put under
    /// `/var/tmp`, and `folder` becomes a link to it.
    ///
    /// # Errors
    ///
    /// [`Error`] when there are no binaries, the folder cannot be used, or the server does not start.
    pub fn start(folder: &Path, options: &Options) -> Result<Self> {
        Self::start_in(folder, options, false)
    }

    /// A new server of this process's own, without any data; it leaves nothing behind. Not durable, and faster for it.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn start_ephemeral(options: &Options) -> Result<Self> {
        let mut options = options.clone();
        options.settings.extend(
            ["fsync = off", "synchronous_commit = off", "full_page_writes = off", "max_connections = 300"]
                .map(String::from),
        );
        let name = format!("local-postgres-{}-{:016x}", std::process::id(), random());
        Self::start_in(&std::env::temp_dir().join(name), &options, true)
    }

    fn start_in(folder: &Path, options: &Options, ephemeral: bool) -> Result<Self> {
        let binaries = Binaries::find_or_install()?;
        let (folder, account) = make_folder(folder)?;
        let users = lock_file(&folder, "users.lock", account)?;
        users.lock_shared().map_err(at(&folder))?;
        // Held while the server is looked for, made or started: two processes may do so at once.
        let starting = lock_file(&folder, "start.lock", account)?;
        starting.lock().map_err(at(&folder))?;
        let password_file = folder.join("password");
        if !folder.join("data").exists() {
            init(&binaries, account, &folder, options)?;
        }
        let password = fs::read_to_string(&password_file).map_err(at(&password_file))?;
        let port = match running_port(&folder.join("data")) {
            Some(port) => port,
            None => start(&binaries, account, &folder, ephemeral)?,
        };
        Ok(Self { binaries, account, folder, port, password, _users: users })
    }

    /// The connection text for one of its databases; `postgres` is always there.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server at once, as a crash would: it recovers when it is started again.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when it was not running.
    pub fn stop_immediately(&self) -> Result<()> {
        let mut pg_ctl = self.account.command(&self.binaries.program("pg_ctl"));
        pg_ctl.arg("-D").arg(self.folder.join("data")).args(["-m", "immediate", "-w", "-s", "stop"]);
        run(pg_ctl, "pg_ctl")
    }
}

/// Makes `folder` for the account that the server will run as, or a link to where that account can reach it.
fn make_folder(folder: &Path) -> Result<(PathBuf, Account)> {
    let folder = std::path::absolute(folder).map_err(at(folder))?;
    let account = Account::for_data(&folder.join("data"));
    if !folder.exists() {
        let parent = folder.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(at(parent))?;
        if account.can_reach(&folder) {
            make_private(&folder, account)?;
        } else {
            let mut hasher = DefaultHasher::new();
            folder.hash(&mut hasher);
            let reachable = Path::new("/var/tmp").join(format!("local-postgres-{:016x}", hasher.finish()));
            if !reachable.exists() {
                make_private(&reachable, account)?;
            }
            // A link whose target was removed is no folder, but in the way.
            let _ = fs::remove_file(&folder);
            symlink(&reachable, &folder).map_err(at(&folder))?;
        }
    }
    let real = folder.canonicalize().map_err(at(&folder))?;
    Ok((real, account))
}

fn make_private(folder: &Path, account: Account) -> Result<()> {
    fs::create_dir(folder).map_err(at(folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(at(folder))?;
    account.own(folder)
}

fn lock_file(folder: &Path, name: &str, account: Account) -> Result<File> {
    let path = folder.join(name);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(at(&path))?;
    account.own(&path)?;
    Ok(file)
}

/// Makes the data folder, under another name until it is whole.
fn init(binaries: &Binaries, account: Account, folder: &Path, options: &Options) -> Result<()> {
    let new = folder.join("data.new");
    if new.exists() {
        fs::remove_dir_all(&new).map_err(at(&new))?;
    }
    let password = folder.join("password");
    write_private(&password, format!("{:016x}{:016x}", random(), random()).as_bytes(), account)?;
    let mut initdb = account.command(&binaries.program("initdb"));
    initdb.args(["-U", USER, "-E", "UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync"]);
    initdb.arg("--pwfile").arg(&password).arg("-D").arg(&new);
    run(initdb, "initdb")?;
    if binaries.leave_public_open() {
        close_public(binaries, account, &new)?;
    }
    for (name, contents) in &options.files {
        write_private(&new.join(name), contents, account)?;
    }
    let own = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''";
    let settings = options.settings.join("\n");
    let file = new.join("postgresql.conf");
    let defaults = fs::read_to_string(&file).map_err(at(&file))?;
    fs::write(&file, format!("{defaults}\n{own}\n{settings}\n")).map_err(at(&file))?;
    fs::rename(&new, folder.join("data")).map_err(at(&new))
}

/// Makes the schema `public` of each new database what it is as of PostgreSQL 15: the database's owner owns it, and nobody
/// else creates in it. Leaves `template0` as initdb made it.
fn close_public(binaries: &Binaries, account: Account, data: &Path) -> Result<()> {
    for database in ["template1", "postgres"] {
        let mut postgres = account.command(&binaries.program("postgres"));
        // Ends at the first error, with another exit code than 0.
        postgres.args(["--single", "-F", "-c", "exit_on_error=on", "-D"]).arg(data).arg(database);
        let failed = |error: std::io::Error| Error::Program { program: "postgres".into(), output: error.to_string() };
        let (input, mut statement) = std::io::pipe().map_err(failed)?;
        // Single-user mode takes a line for a statement.
        for line in ["REVOKE CREATE ON SCHEMA public FROM PUBLIC", "ALTER SCHEMA public OWNER TO pg_database_owner"] {
            writeln!(statement, "{line}").map_err(failed)?;
        }
        drop(statement);
        run_with_input(postgres, "postgres", input)?;
    }
    Ok(())
}

fn write_private(path: &Path, contents: &[u8], account: Account) -> Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(at(path))?;
    file.write_all(contents).map_err(at(path))?;
    account.own(path)
}

/// Starts the server under its supervisor and waits until it answers.
fn start(binaries: &Binaries, account: Account, folder: &Path, ephemeral: bool) -> Result<u16> {
    if which::which("flock").is_err() {
        let output = "not found: install util-linux".into();
        return Err(Error::Program { program: "flock".into(), output });
    }
    let (data, log) = (folder.join("data"), folder.join("log"));
    for last_try in [false, false, true] {
        let port = free_port()?;
        let mut supervisor = account.command(Path::new("sh"));
        supervisor.args(["-c", SUPERVISOR, "sh"]).arg(binaries.folder()).arg(&data).arg(&log).arg(port.to_string());
        supervisor.arg(folder.join("users.lock")).arg(if ephemeral { folder.as_os_str() } else { "".as_ref() });
        supervisor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut supervisor = supervisor.spawn().map_err(at("sh"))?;
        loop {
            if running_port(&data) == Some(port) {
                return Ok(port);
            }
            let ended = supervisor.try_wait().map_err(at("sh"))?.is_some();
            if ended && last_try {
                let said = fs::read(&log).unwrap_or_default();
                let output = format!("{}: {}", log.display(), last_lines(&said));
                return Err(Error::Program { program: "postgres".into(), output });
            }
            if ended {
                // Somebody else may have taken the port.
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    unreachable!("the last try returns")
}

/// The port of the server that runs on `data`, once it is ready.
fn running_port(data: &Path) -> Option<u16> {
    // Lines: process, folder, start time, port, socket folder, listen address, shared memory, status.
    let lines = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let lines: Vec<&str> = lines.lines().collect();
    let process = lines.first()?.parse().ok()?;
    let port = lines.get(3)?.parse().ok()?;
    // The file of a server that was killed stays behind; its port may be somebody else's by now.
    let runs = || !matches!(kill(Pid::from_raw(process), None), Err(Errno::ESRCH));
    let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    (lines.get(7)?.trim() == "ready" && runs() && answers()).then_some(port)
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(at("127.0.0.1"))?;
    listener.local_addr().map(|address| address.port()).map_err(at("127.0.0.1"))
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("every Unix has /dev/urandom");
    u64::from_ne_bytes(bytes)
}

fn run(command: std::process::Command, program: &str) -> Result<()> {
    run_with_input(command, program, Stdio::null())
}

fn run_with_input(mut command: std::process::Command, program: &str, input: impl Into<Stdio>) -> Result<()> {
    let failed = |output: String| Error::Program { program: program.into(), output };
    let output = command.stdin(input).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() { Ok(()) } else { Err(failed(last_lines(&output.stderr))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_shared_goes_with_its_last_user_and_keeps_its_data() {
        let name = format!("local-postgres-test-{:016x}", random());
        let folder = std::env::temp_dir().join(name);
        let first = Server::start(&folder, &Options::default()).expect("a server");
        let second = Server::start(&folder, &Options::default()).expect("the same server");
        assert_eq!(first.port(), second.port());
        drop(first);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, second.port())).is_ok(), "gone with its first user");

        let (port, password) = (second.port(), second.password.clone());
        drop(second);
        let again = Server::start(&folder, &Options::default()).expect("a server again");
        assert_eq!(again.password, password);
        assert!(again.port() != port || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        again.stop_immediately().expect("it was running");
        drop(again);

        let recovered = Server::start(&folder, &Options::default()).expect("a server after a crash");
        drop(recovered);
        // The supervisor is still taking the server down; its exclusive lock ends with that.
        let users = File::open(folder.join("users.lock")).expect("the lock file");
        while folder.join("data/postmaster.pid").exists() {
            users.lock().expect("a lock");
            users.unlock().expect("no lock");
        }
        fs::remove_dir_all(&folder).expect("nobody uses it");
    }
}
