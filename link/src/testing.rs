//! A certificate authority for tests.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::tls::TlsFiles;

pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        // Another test may have been first.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.path().join("ca.crt"), certificate.pem()).expect("it is writable");
        Self { dir, issuer: Issuer::new(params, key) }
    }

    /// For both sides of a connection.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) -> TlsFiles {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.issue_with(file, CertificateParams::new(names).expect("good names"))
    }

    pub(crate) fn issue_with(&self, file: &str, mut params: CertificateParams) -> TlsFiles {
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |ending: &str, text: String| {
            let path = self.dir.path().join(format!("{file}.{ending}"));
            std::fs::write(&path, text).expect("it is writable");
            Some(path)
        };
        TlsFiles {
            cert: write("crt", certificate.pem()),
            key: write("key", key.serialize_pem()),
            ca: Some(self.dir.path().join("ca.crt")),
        }
    }
}
