use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use local_postgres::{Options, Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use uuid::Uuid;

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        // One of the same name would be taken for this one, until its signature is looked at.
        parameters.distinguished_name.push(DnType::CommonName, Uuid::new_v4().to_string());
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `localhost` alone, and its key.
    pub(crate) fn certify_localhost(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate, key)
    }

    /// A file with its own certificate.
    pub(crate) fn write_pem(&self) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("ca-{}.pem", NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// A PostgreSQL that answers with TLS, as `localhost`.
    pub(crate) async fn start_postgres(&self) -> Server {
        let (certificate, key) = self.certify_localhost();
        let settings = ["ssl = on", "ssl_cert_file = 'server.crt'", "ssl_key_file = 'server.key'"];
        let options = Options {
            settings: settings.map(String::from).into(),
            files: vec![
                ("server.crt".into(), certificate.pem().into_bytes()),
                ("server.key".into(), key.serialize_pem().into_bytes()),
            ],
        };
        start_postgres(options).await
    }
}

/// A PostgreSQL of the test's own.
pub(crate) async fn start_postgres(options: Options) -> Server {
    tokio::task::spawn_blocking(move || Server::start_ephemeral(&options)).await.unwrap().unwrap()
}
