//! TLS to a source, with the meanings that `ssl` has in a data source. The provider is the process' default one.

use std::path::Path;
use std::sync::Arc;

use mysql_async::Error;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use starlift_common::datasource::SslMode;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Takes the client's part in a TLS handshake.
pub(super) async fn encrypt(
    ssl: &SslMode,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let other = |error: rustls::Error| Error::Other(Box::new(error));
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.ok_or_else(|| other(rustls::Error::General("no crypto provider".into())))?;
    let chain = match ssl {
        SslMode::VerifyCa { ca } => {
            let roots = authorities(ca)
                .await
                .map_err(|error| Error::Other(format!("{}: {error}", ca.display()).into()))?;
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            Some(verifier.build().map_err(|error| Error::Other(Box::new(error)))?)
        }
        SslMode::Prefer | SslMode::Disable => None,
    };
    let verifier = Arc::new(Verifier { chain, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // Only said, never compared.
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_) => ServerName::from(stream.peer_addr()?.ip()),
    };
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

/// The certificates of a file: PEM, or a single one as DER.
async fn authorities(file: &Path) -> Result<RootCertStore, Box<dyn std::error::Error + Send + Sync>> {
    let bytes = tokio::fs::read(file).await?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        roots.add(CertificateDer::from(bytes))?;
    }
    Ok(roots)
}

/// Verifies the chain, if any, and never the name: certificates of databases rarely hold the name they are reached by.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
