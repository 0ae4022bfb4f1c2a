use std::time::{Duration, SystemTime, UNIX_EPOCH};

use local_postgres::Options;
use runtime_api::Function;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::lambda::with_history;
use crate::support::TestDatabase;
use crate::support::certificates::{Authority, start_postgres};
use crate::support::lambda::{sample_event, start_function};
use crate::support::moto::Moto;

/// A role whose password is in a secret.
struct Rotation {
    database: TestDatabase,
    role: String,
    moto: Moto,
}

impl Rotation {
    async fn start(password: &str) -> Self {
        let database = with_history().await;
        let role = format!("{}_rotating", database.config().get_dbname().unwrap());
        database.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{password}'")).await;
        let rotation = Self { database, role, moto: Moto::start(&[]).await };
        rotation.put_secret(password).await;
        rotation
    }

    /// Stores the secret in RDS's shape.
    async fn put_secret(&self, password: &str) {
        let database = self.database.config();
        let secret = json!({
            "engine": "postgres", "username": self.role, "password": password, "host": "127.0.0.1",
            "port": database.get_ports()[0], "dbname": database.get_dbname(), "dbInstanceIdentifier": "db",
        });
        self.moto.put_secret("the-database", &secret.to_string()).await;
    }

    /// Gives the role another password, and ends its connections: those that there are would go on.
    async fn alter_role(&self, password: &str) {
        let role = &self.role;
        self.database.execute(&format!("ALTER ROLE {role} PASSWORD '{password}'")).await;
        cut_connections(&self.database, role).await;
    }

    /// `get-snapshot`, with a log of all that there is to say.
    async fn start_function(&self) -> Function {
        // As the template has it: without a host, PGPORT says nothing.
        let own = [
            ("DATABASE_SECRET_ID", "the-database"),
            ("PGPORT", "1"),
            ("PGSSLMODE", "disable"),
            ("AWS_LAMBDA_LOG_LEVEL", "TRACE"),
        ];
        start_function("get-snapshot", &[self.moto.variables().as_slice(), &own].concat()).await
    }
}

async fn cut_connections(database: &TestDatabase, role: &str) {
    let sql = format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{role}'");
    database.execute(&sql).await;
}

async fn get_snapshot(function: &mut Function) -> u64 {
    function.invoke(&sample_event("get-snapshot")).await.status()
}

#[tokio::test]
async fn a_rotated_secret_is_fetched_once_without_a_restart() {
    let rotation = Rotation::start("hunter2-first").await;
    let mut function = rotation.start_function().await;
    let mut calls = rotation.moto.calls();
    for password in ["hunter2-second", "hunter2-third"] {
        for _ in 0..2 {
            assert_eq!(get_snapshot(&mut function).await, 200);
        }
        assert!(rotation.moto.calls() <= calls + 1, "only once");
        rotation.alter_role(password).await;
        rotation.put_secret(password).await;
        calls = rotation.moto.calls();
        assert_eq!(get_snapshot(&mut function).await, 200);
        assert_eq!(rotation.moto.calls(), calls + 1);
    }
    assert!(!function.log().contains("hunter2"), "a password is in the log");
}

#[tokio::test]
async fn a_wrong_secret_is_fetched_once_more_and_then_refused() {
    let rotation = Rotation::start("hunter2-first").await;
    let mut function = rotation.start_function().await;
    assert_eq!(get_snapshot(&mut function).await, 200);

    rotation.alter_role("hunter2-second").await;
    let calls = rotation.moto.calls();
    assert_eq!(get_snapshot(&mut function).await, 503);
    assert_eq!(rotation.moto.calls(), calls + 1);
    let refusal = format!("password authentication failed for user \\\"{}\\\"", rotation.role);
    assert!(function.log().contains(&refusal), "{refusal}");

    rotation.put_secret("hunter2-second").await;
    assert_eq!(get_snapshot(&mut function).await, 200);

    // It cannot be read any more.
    rotation.alter_role("hunter2-third").await;
    rotation.moto.put_secret("the-database", "hunter2-third").await;
    assert_eq!(get_snapshot(&mut function).await, 503);
    let log = function.log();
    assert!(log.contains("the-database is not a JSON object with username and password"), "{log}");
    assert!(!log.contains("hunter2"), "a password is in the log");
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_stops_the_start_with_a_line_that_names_it() {
    let moto = Moto::start(&[]).await;
    moto.put_secret("text", "hunter2").await;
    moto.put_secret("half", r#"{"username": "hunter2"}"#).await;
    for (id, problem) in [
        ("absent", "ResourceNotFoundException"),
        ("text", "text is not a JSON object with username and password"),
        ("half", "half is not a JSON object with username and password"),
    ] {
        let variables = [moto.variables().as_slice(), &[("DATABASE_SECRET_ID", id)]].concat();
        let mut function = start_function("get-snapshot", &variables).await;
        assert_eq!(function.exit_code().await, Some(78), "{id}");
        // The reader of the log may still be a line behind.
        while function.log().is_empty() {
            tokio::task::yield_now().await;
        }
        let log = function.log();
        assert!(log.contains(id) && log.contains(problem) && !log.contains("hunter2"), "{log}");
    }
}

#[tokio::test]
async fn each_connection_has_a_token_of_its_own() {
    // As RDS does, the front asks for a token in clear text within TLS; behind it is a server that trusts everybody.
    let options = Options {
        settings: Vec::new(),
        files: vec![("pg_hba.conf".into(), b"host all all 127.0.0.1/32 trust\n".to_vec())],
    };
    let server = start_postgres(options).await;
    let database = TestDatabase::adopt_host(server.url("postgres")).await;
    database.migrate().await;
    database.execute("CREATE ROLE reader LOGIN SUPERUSER").await;
    let authority = Authority::new();
    let (certificate, key) = authority.certify_localhost();
    let tls = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = listener.local_addr().unwrap().port().to_string();
    let (tokens, mut received) = mpsc::unbounded_channel();
    tokio::spawn(ask_for_tokens(listener, TlsAcceptor::from(std::sync::Arc::new(tls)), server.port(), tokens));

    let root = authority.write_pem();
    let variables = [
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-key"),
        ("AWS_SESSION_TOKEN", "hunter2-session"),
        ("AWS_LAMBDA_LOG_LEVEL", "TRACE"),
        ("DATABASE_IAM_AUTH", "true"),
        ("PGHOST", "localhost"),
        ("PGPORT", &front),
        ("PGUSER", "reader"),
        ("PGDATABASE", "postgres"),
        ("PGSSLROOTCERT", root.to_str().unwrap()),
    ];
    let mut function = start_function("get-snapshot", &variables).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        // There is no snapshot. The second invocation has the first one's connection.
        for _ in 0..2 {
            assert_eq!(get_snapshot(&mut function).await, 404);
        }
        let token = received.recv().await.unwrap();
        assert!(received.try_recv().is_err(), "one connection");
        assert!(token.starts_with(&format!("localhost:{front}/?Action=connect&DBUser=reader&")), "{token}");
        for part in [
            "&X-Amz-Credential=AKIDEXAMPLE%2F",
            "%2Feu-west-1%2Frds-db%2Faws4_request&",
            "&X-Amz-Security-Token=hunter2-session",
            "&X-Amz-Expires=900",
        ] {
            assert!(token.contains(part), "{token}");
        }
        seen.push(token);
        cut_connections(&database, "reader").await;
        // A token says the second that it was signed in.
        let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let now = second();
        while second() == now {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_ne!(seen[0], seen[1]);
    let log = function.log();
    let signature = |token: &String| token.split_once("X-Amz-Signature=").unwrap().1[..64].to_owned();
    for private in [signature(&seen[0]), signature(&seen[1]), "hunter2".into()] {
        assert!(!log.contains(&private), "{private} is in the log");
    }

    let plain = [variables.as_slice(), &[("PGSSLMODE", "prefer")]].concat();
    assert_eq!(start_function("get-snapshot", &plain).await.exit_code().await, Some(78));
}

/// Takes a password from each connection and gives the connection on to the server at `port`.
async fn ask_for_tokens(listener: TcpListener, tls: TlsAcceptor, port: u16, tokens: mpsc::UnboundedSender<String>) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (tls, tokens) = (tls.clone(), tokens.clone());
        tokio::spawn(async move {
            // Whether there is TLS; there is.
            read_sized(&mut socket).await;
            socket.write_all(b"S").await.unwrap();
            let mut client = tls.accept(socket).await.unwrap();
            let startup = read_sized(&mut client).await;
            // A password, please, in clear text.
            client.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'p');
            let password = String::from_utf8(read_sized(&mut client).await).unwrap();
            tokens.send(password.trim_end_matches('\0').into()).unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            server.write_i32(i32::try_from(startup.len()).unwrap() + 4).await.unwrap();
            server.write_all(&startup).await.unwrap();
            // It ends with an error when either side is gone.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

/// The rest of a message, after the size that it starts with.
async fn read_sized(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let size = stream.read_i32().await.unwrap();
    let mut rest = vec![0; usize::try_from(size - 4).unwrap()];
    stream.read_exact(&mut rest).await.unwrap();
    rest
}
