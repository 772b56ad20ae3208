//! Certificates and keys from files, as rustls wants them. The provider is the process' default one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use der::asn1::{GeneralizedTime, UtcTime};
use der::{AnyRef, Decode, SliceReader, Tag};
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

/// What this process shows to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub path: PathBuf,
    /// Unix time in seconds: the last moment at which it is good.
    pub expires_s: u64,
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

    /// The first certificate of its file, which says who this process is; those behind it are the authority's affair.
    pub fn certificate(&self) -> Result<Option<Certificate>, Problem> {
        let Some((path, _)) = self.identity()? else { return Ok(None) };
        let chain = chain(path)?;
        let expires_s = chain.first().map_or(Ok(0), |leaf| not_after(leaf)).map_err(|error| {
            bad(path, &format!("cannot tell until when the certificate is good: {error}"))
        })?;
        Ok(Some(Certificate { path: path.to_owned(), expires_s }))
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

/// The end of a certificate's validity as Unix time in seconds: RFC 5280, section 4.1. Nothing else of it is looked at, as
/// whether it is any good is for the other side to say.
fn not_after(certificate: &[u8]) -> der::Result<u64> {
    let certificate = AnyRef::from_der(certificate)?;
    let signed = AnyRef::decode(&mut SliceReader::new(certificate.value())?)?;
    let mut fields = SliceReader::new(signed.value())?;
    // Certificates of the first version do not say their version.
    if Tag::peek(&fields)? != Tag::Integer {
        let _version = AnyRef::decode(&mut fields)?;
    }
    let [_serial, _signature, _issuer] =
        [AnyRef::decode(&mut fields)?, AnyRef::decode(&mut fields)?, AnyRef::decode(&mut fields)?];
    let validity = AnyRef::decode(&mut fields)?;
    let mut times = SliceReader::new(validity.value())?;
    let _not_before = AnyRef::decode(&mut times)?;
    // Two digits of a year until 2049, four from then on.
    let end = match Tag::peek(&times)? {
        Tag::UtcTime => UtcTime::decode(&mut times)?.to_unix_duration(),
        _ => GeneralizedTime::decode(&mut times)?.to_unix_duration(),
    };
    Ok(end.as_secs())
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
    use rcgen::{CertificateParams, date_time_ymd};

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

    #[test]
    fn a_certificate_says_when_it_expires_in_this_century_and_later() {
        let authority = Authority::new();
        for (year, month, day, expires_s) in [
            (1999, 12, 31, 946_598_400),
            (2026, 12, 31, 1_798_675_200),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a good name");
            params.not_before = date_time_ymd(1990, 1, 1);
            params.not_after = date_time_ymd(year, month, day);
            let files = authority.issue_with("dated", params);
            let certificate = files.certificate().expect("it is readable").expect("there is one");
            assert_eq!(certificate.expires_s, expires_s, "{year}-{month}-{day}");
            assert_eq!(Some(certificate.path), files.cert);
        }
        assert_eq!(TlsFiles::default().certificate(), Ok(None));
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_breaks_nothing() {
        let authority = Authority::new();
        let files = authority.issue("a", &["localhost"]);
        let good = chain(&files.cert.expect("it was written")).expect("it is readable").remove(0);
        assert!(not_after(&good).is_ok());
        for length in 0..good.len() {
            assert!(not_after(&good[..length]).is_err(), "the first {length} bytes");
        }
        assert!(not_after(b"\x30\x02\x30\x00").is_err());
    }
}
