use serde_json::json;
use snapshot_service::database::connect_pool;

use crate::support::TestDatabase;
use crate::support::certificates::Authority;
use crate::support::lambda::{sample_event, start_function};
use crate::support::moto::Moto;

#[tokio::test]
async fn each_sslmode_checks_what_it_means_in_libpq() {
    let signer = Authority::new();
    let server = signer.start_postgres().await;
    let (good, wrong) = (signer.write_pem(), Authority::new().write_pem());
    let (good, wrong) = (good.display(), wrong.display());
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let none = folder.join("no-ca.pem");
    std::fs::write(&none, "nothing").unwrap();

    for (host, parameters, encrypted) in [
        ("localhost", "sslmode=disable".to_owned(), Some(false)),
        ("localhost", "sslmode=prefer".into(), Some(true)),
        ("127.0.0.1", "sslmode=require".into(), Some(true)),
        ("localhost", format!("sslmode=require&sslrootcert={good}"), Some(true)),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={good}"), Some(true)),
        ("localhost", format!("sslmode=require&sslrootcert={wrong}"), None),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={good}"), Some(true)),
        ("localhost", format!("sslmode=verify-ca&sslrootcert={wrong}"), None),
        ("localhost", format!("sslmode=verify-full&sslrootcert={good}"), Some(true)),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={good}"), None),
        ("localhost", format!("sslmode=verify-full&sslrootcert={wrong}"), None),
        ("localhost", "sslmode=verify-full".into(), None),
    ] {
        let url = format!("{}?{parameters}", server.url("postgres").replace("127.0.0.1", host));
        let pool = connect_pool(&url.parse().unwrap(), "tls", 1).await.unwrap();
        let answer = match pool.get().await {
            Ok(client) => {
                let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                Some(client.query_one(ssl, &[]).await.unwrap().get::<_, bool>(0))
            }
            Err(_) => None,
        };
        assert_eq!(answer, encrypted, "{host} with {parameters}");
    }

    for unusable in [none, folder.join("absent.pem")] {
        let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.url("postgres"), unusable.display());
        let error = connect_pool(&url.parse().unwrap(), "tls", 1).await.unwrap_err();
        assert!(matches!(error, snapshot_service::Error::Tls(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_function_answers_only_from_the_database_that_its_authority_names() {
    let signer = Authority::new();
    let server = signer.start_postgres().await;
    let database = TestDatabase::adopt_host(server.url("postgres")).await;
    database.migrate().await;
    let (good, wrong) = (signer.write_pem(), Authority::new().write_pem());
    let (good, wrong) = (good.to_str().unwrap(), wrong.to_str().unwrap());
    let url = database.config();
    let (user, password) = (url.get_user().unwrap(), std::str::from_utf8(url.get_password().unwrap()).unwrap());
    let port = server.port().to_string();
    let moto = Moto::start(&[]).await;
    moto.put_secret("the-database", &json!({"username": user, "password": password}).to_string()).await;

    let given = [("PGUSER", user), ("PGPASSWORD", password), ("PGSSLMODE", "verify-full")];
    // Without an sslmode.
    let secret = [moto.variables().as_slice(), &[("DATABASE_SECRET_ID", "the-database")]].concat();
    for credentials in [given.as_slice(), &secret] {
        for (host, root, refusal) in [
            ("localhost", Some(good), None),
            ("127.0.0.1", Some(good), Some("not valid for name")),
            ("localhost", Some(wrong), Some("UnknownIssuer")),
            ("localhost", None, Some("UnknownIssuer")),
        ] {
            let place = [("PGHOST", host), ("PGPORT", &port), ("PGDATABASE", "postgres")];
            let mut variables = [credentials, &place].concat();
            variables.extend(root.map(|root| ("PGSSLROOTCERT", root)));
            let mut function = start_function("get-snapshot", &variables).await;
            let outcome = function.invoke(&sample_event("get-snapshot")).await;
            // There is no snapshot.
            let status = if refusal.is_some() { 503 } else { 404 };
            assert_eq!(outcome.status(), status, "{host} {root:?} {outcome:?}");
            let log = function.log();
            assert!(log.contains(refusal.unwrap_or_default()), "{refusal:?}: {log}");
        }
    }
}
