//! Certificates and keys from files, as rustls wants them. The provider is the process' default one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use starlift_common::problem::{Code, Problem};

/// The files of one process, PEM all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Its certificate, followed by those between it and the authority.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The authority that the other side's certificate must come from.
    pub ca: Option<PathBuf>,
}

/// What a server wants to see of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCerts {
    Ignored,
    /// One without a certificate gets through the handshake, and is told later that he needs one.
    Wanted,
    Demanded,
}

impl TlsFiles {
    /// Certificate and key, when there are any; one without the other is a mistake.
    fn identity(&self) -> Result<Option<(&Path, &Path)>, Problem> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (None, None) => Ok(None),
            _ => Err(Problem::new(Code::InvalidSettings, "a certificate and its key go together")
                .hint("give both --tls-cert and --tls-key")),
        }
    }

    /// Whether a server can encrypt with them.
    pub fn has_identity(&self) -> Result<bool, Problem> {
        Ok(self.identity()?.is_some())
    }

    /// For a server that speaks `protocol`.
    pub fn server(&self, clients: ClientCerts, protocol: &[u8]) -> Result<ServerConfig, Problem> {
        let Some((cert, key)) = self.identity()? else {
            return Err(Problem::new(Code::InvalidSettings, "a server needs a certificate")
                .hint("give --tls-cert and --tls-key; `starlift tls init DIR` makes a first set"));
        };
        let builder = ServerConfig::builder();
        let builder = match clients {
            ClientCerts::Ignored => builder.with_no_client_auth(),
            ClientCerts::Wanted | ClientCerts::Demanded => {
                let ca = self.ca.as_deref().ok_or_else(|| {
                    Problem::new(Code::InvalidSettings, "mutual TLS needs the authority of the clients")
                        .hint("give --tls-ca")
                })?;
                let mut verifier = WebPkiClientVerifier::builder(Arc::new(authorities(ca)?));
                if clients == ClientCerts::Wanted {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier = verifier.build().map_err(|error| bad(ca, &error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain(cert)?, private_key(key)?)
            .map_err(|error| bad(cert, &format!("certificate and key are of no use together: {error}")))?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }

    /// For a caller that speaks `protocol`.
    pub fn client(&self, protocol: &[u8]) -> Result<ClientConfig, Problem> {
        let ca = self.ca.as_deref().ok_or_else(|| {
            Problem::new(Code::InvalidSettings, "https needs the authority that the server's certificate comes from")
                .hint("give --tls-ca; for certificates of public authorities the system's bundle, e.g. /etc/ssl/certs/ca-certificates.crt")
        })?;
        let builder = ClientConfig::builder().with_root_certificates(authorities(ca)?);
        let mut config = match self.identity()? {
            Some((cert, key)) => {
                builder.with_client_auth_cert(chain(cert)?, private_key(key)?).map_err(|error| {
                    bad(cert, &format!("certificate and key are of no use together: {error}"))
                })?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

fn bad(path: &Path, message: &str) -> Problem {
    Problem::new(Code::InvalidSettings, message).at(path.display().to_string())
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = read.map_err(|error| bad(path, &format!("cannot read the certificate: {error}")))?;
    if chain.is_empty() { Err(bad(path, "there is no certificate in this file")) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| bad(path, &format!("cannot read the key: {error}")))
}

fn authorities(path: &Path) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| bad(path, &format!("cannot use the authority: {error}")))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    #[test]
    fn what_is_missing_or_does_not_fit_is_named() {
        let authority = Authority::new();
        let one = authority.issue("a", &["localhost"]);
        let other = authority.issue("b", &["localhost"]);
        assert!(one.server(ClientCerts::Demanded, b"h2").is_ok());
        assert!(one.client(b"h2").is_ok());
        let refused = |files: &TlsFiles| files.server(ClientCerts::Demanded, b"h2").unwrap_err().to_string();
        assert!(refused(&TlsFiles { key: None, ..one.clone() }).contains("--tls-key"));
        assert!(refused(&TlsFiles { ca: None, ..one.clone() }).contains("--tls-ca"));
        let swapped = TlsFiles { key: other.key.clone(), ..one.clone() };
        assert!(refused(&swapped).contains("of no use together"), "{}", refused(&swapped));
        let no_key = TlsFiles { key: one.cert.clone(), ..one.clone() };
        assert!(refused(&no_key).contains("cannot read the key"), "{}", refused(&no_key));
        let nowhere = TlsFiles { ca: Some("/nowhere/ca.crt".into()), ..one };
        assert!(refused(&nowhere).starts_with("/nowhere/ca.crt: cannot read"), "{}", refused(&nowhere));
    }
}
