use local_postgres::{Options, Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use snapshot_service::database::connect_pool;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn each_sslmode_checks_what_it_means_in_libpq() {
    let (signer, stranger) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &signer).unwrap();
    let options = Options {
        settings: ["ssl = on", "ssl_cert_file = 'server.crt'", "ssl_key_file = 'server.key'"].map(String::from).into(),
        files: vec![
            ("server.crt".into(), certificate.pem().into_bytes()),
            ("server.key".into(), key.serialize_pem().into_bytes()),
        ],
    };
    let server = tokio::task::spawn_blocking(move || Server::start_ephemeral(&options)).await.unwrap().unwrap();

    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (good, wrong, none) = (folder.join("good-ca.pem"), folder.join("wrong-ca.pem"), folder.join("no-ca.pem"));
    std::fs::write(&good, signer.pem()).unwrap();
    std::fs::write(&wrong, stranger.pem()).unwrap();
    std::fs::write(&none, "nothing").unwrap();
    let (good, wrong) = (good.display(), wrong.display());

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
