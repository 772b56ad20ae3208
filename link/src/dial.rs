//! Connections to coordinators: `http://` as it is, `https://` with the files of this process, and its token with every
//! call. Certificates are read at every connection, so that renewed ones need no restart.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use starlift_common::problem::{Code, Problem};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::Wire;
use crate::listen::is_about_tls;
use crate::tls::TlsFiles;
use crate::tokens::{self, Role};

/// A silent peer is noticed after twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// How long a call waits to hear what the other side thinks of this one's certificate; see [`Dialer::greeted`].
const FIRST_WORD: Duration = Duration::from_secs(1);
/// An alert can be lost with the connection that it was sent on.
const UNGREETED: &str = "connection lost before the first word";

/// As the flags say it.
#[derive(Debug, Clone, Default)]
pub struct DialSettings {
    pub tls: TlsFiles,
    /// Whose certificate the other side must show, where that is not the host in its URL.
    pub server_name: Option<String>,
    pub token_file: Option<PathBuf>,
    /// The token may travel unencrypted to another host.
    pub insecure: bool,
}

/// Cheap to clone; all clones see a reload.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    settings: Arc<DialSettings>,
    token: Arc<RwLock<Option<MetadataValue<Ascii>>>>,
}

/// What carries calls to one coordinator.
pub type Link = InterceptedService<Channel, Bearer>;

/// An address that nothing is sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    #[error("`{address}` is no coordinator address; write http://host:port or https://host:port")]
    Unreadable { address: String },
    #[error(
        "the token would travel unencrypted to {address}; write https://, or pass --insecure inside a network you trust"
    )]
    Cleartext { address: String },
}

impl Dialer {
    /// Reads all files that the settings name; the token is that of `role`.
    pub fn new(settings: DialSettings, role: Role) -> Result<Self, Problem> {
        if settings.tls.ca.is_some() {
            settings.tls.client(b"h2")?;
        }
        let token = token(&settings, role)?;
        Ok(Self { settings: Arc::new(settings), token: Arc::new(RwLock::new(token)) })
    }

    /// Reads the token again. After an error the old one stays.
    pub fn reload(&self, role: Role) -> Result<(), Problem> {
        let token = token(&self.settings, role)?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    /// Connects at the first call, and again whenever the connection is lost.
    pub fn lazily(&self, address: &str, patience: Duration) -> Result<Link, InvalidAddress> {
        Ok(self.with_token(self.channel(address, patience)?))
    }

    /// The same on a channel that is there already.
    pub fn with_token(&self, channel: Channel) -> Link {
        InterceptedService::new(channel, Bearer { token: Arc::clone(&self.token) })
    }

    /// [`Self::lazily`] without the token: for calls that bring their caller's.
    pub fn channel(&self, address: &str, patience: Duration) -> Result<Channel, InvalidAddress> {
        let (target, endpoint) = self.endpoint(address)?;
        let dialer = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (dialer, target) = (dialer.clone(), target.clone());
            async move { dialer.greeted(&target, patience, FIRST_WORD).await.map(TokioIo::new) }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// Connects now.
    pub async fn connect(&self, address: &str, patience: Duration) -> Result<Link, Problem> {
        let invalid = |error: InvalidAddress| Problem::new(Code::InvalidSettings, error.to_string());
        let (target, _) = self.endpoint(address).map_err(invalid)?;
        // The stream is made once to see why it cannot be made; a channel would not tell.
        let stream = self.greeted(&target, patience, patience).await;
        drop(stream.map_err(|error| unreachable(address, &error))?);
        self.lazily(address, patience).map_err(invalid)
    }

    fn endpoint(&self, address: &str) -> Result<(Target, Endpoint), InvalidAddress> {
        let target = Target::parse(address)?;
        let has_token = self.token.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if has_token && !target.is_encrypted && !target.is_here() && !self.settings.insecure {
            return Err(InvalidAddress::Cleartext { address: address.to_owned() });
        }
        // Encryption is the connector's business, so the channel knows of none.
        let endpoint = Endpoint::from_shared(format!("http://{}", target.authority()))
            .map_err(|_| InvalidAddress::Unreadable { address: address.to_owned() })?;
        Ok((target, endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE)))
    }

    /// A connection for whatever is spoken on it.
    pub async fn stream(&self, target: &Target, protocol: &[u8], patience: Duration) -> io::Result<Wire> {
        in_time(patience, async {
            Ok(match target.is_encrypted {
                true => Box::pin(self.encrypted(target, protocol).await?) as Wire,
                false => Box::pin(bare(target).await?),
            })
        })
        .await
    }

    /// A connection for HTTP/2, where the server speaks first. With TLS 1.3 the handshake is over for the caller before
    /// the server has seen his certificate: a refusal comes in the place of that first word, and whoever writes before he
    /// has read sees only a broken connection. Proxies may want to be spoken to first, so silence for as long as
    /// `first_word` is no failure.
    async fn greeted(&self, target: &Target, patience: Duration, first_word: Duration) -> io::Result<Wire> {
        if !target.is_encrypted {
            return self.stream(target, b"h2", patience).await;
        }
        let mut stream = in_time(patience, self.encrypted(target, b"h2")).await?;
        match timeout(first_word, stream.fill_buf()).await {
            Ok(Ok([])) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, UNGREETED)),
            Ok(Err(refusal)) if is_about_tls(&refusal) => Err(refusal),
            Ok(Err(lost)) => Err(io::Error::new(lost.kind(), format!("{UNGREETED}: {lost}"))),
            Ok(Ok(_)) | Err(_) => Ok(Box::pin(stream) as Wire),
        }
    }

    async fn encrypted(&self, target: &Target, protocol: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        let stream = bare(target).await?;
        let config = self.settings.tls.client(protocol).map_err(io::Error::other)?;
        let name = self.settings.server_name.as_ref().unwrap_or(&target.host);
        let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

async fn bare(target: &Target) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn in_time<T>(patience: Duration, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
    timeout(patience, connecting).await.unwrap_or_else(|_| late())
}

fn token(settings: &DialSettings, role: Role) -> Result<Option<MetadataValue<Ascii>>, Problem> {
    let Some(path) = &settings.token_file else { return Ok(None) };
    let place = path.display().to_string();
    let token = tokens::of_role(tokens::read(path)?, role).ok_or_else(|| {
        let message = format!("the token file has no line for the role `{}`", role.as_str());
        Problem::new(Code::InvalidSettings, message).at(place.clone())
    })?;
    let mut header = MetadataValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_| Problem::new(Code::InvalidSettings, "the token cannot be sent").at(place))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn unreachable(address: &str, error: &io::Error) -> Problem {
    let causes = crate::causes(error);
    let hint = match hint_at_certificates(&causes) {
        Some(hint) => hint,
        None if causes.contains("--tls-") => "",
        None => {
            "start one with `starlift coordinator`, or name it with --coordinator URL; `starlift run` needs none"
        }
    };
    Problem::new(Code::NoCoordinator, format!("cannot reach the coordinator: {causes}"))
        .at(address)
        .hint(hint)
}

/// What to look at where a connection fails on a certificate.
fn hint_at_certificates(causes: &str) -> Option<&'static str> {
    if causes.contains("CertificateRequired") {
        Some("the coordinator wants a certificate: give --tls-cert and --tls-key")
    } else if causes.contains("alert: CertificateExpired") {
        Some("the coordinator says that this certificate has expired: renew --tls-cert, or set the clocks")
    } else if causes.contains("alert") {
        Some("the coordinator does not take this certificate: compare --tls-cert with its --tls-ca")
    } else if causes.contains("certificate") {
        Some("compare --tls-ca and --tls-server-name with the coordinator's certificate")
    } else if causes.contains(UNGREETED) {
        Some("this certificate may have been refused: the coordinator's log says so if it was")
    } else {
        None
    }
}

/// Why a call got no answer, with its causes and what to look at: a line for the log of who calls on.
pub fn told(status: &Status) -> String {
    let Some(source) = std::error::Error::source(status) else { return status.to_string() };
    let causes = crate::causes(source);
    match hint_at_certificates(&causes) {
        Some(hint) => format!("{causes} ({hint})"),
        None => causes,
    }
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub is_encrypted: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl Target {
    /// `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`, which is unencrypted.
    pub fn parse(address: &str) -> Result<Self, InvalidAddress> {
        let unreadable = || InvalidAddress::Unreadable { address: address.to_owned() };
        let text = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let uri: Uri = text.parse().map_err(|_| unreadable())?;
        let (is_encrypted, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(unreadable()),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(unreadable)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(unreadable());
        }
        Ok(Self { is_encrypted, host, port: authority.port_u16().unwrap_or(port) })
    }

    /// `HOST:PORT`.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn is_here(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Puts the token into every call.
#[derive(Debug, Clone)]
pub struct Bearer {
    token: Arc<RwLock<Option<MetadataValue<Ascii>>>>,
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &*self.token.read().unwrap_or_else(PoisonError::into_inner) {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_call_is_told_with_what_the_other_side_said_of_the_certificate() {
        let lost = |cause: io::Error| told(&Status::from_error(Box::new(cause)));
        let alert =
            |alert| lost(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert)));
        let refused = alert(rustls::AlertDescription::UnknownCA);
        assert!(refused.contains("UnknownCA (") && refused.contains("compare --tls-cert"), "{refused}");
        let expired = alert(rustls::AlertDescription::CertificateExpired);
        assert!(expired.contains("renew --tls-cert"), "{expired}");
        // The alert may be lost on its way.
        let broken = lost(io::Error::new(io::ErrorKind::BrokenPipe, format!("{UNGREETED}: broken pipe")));
        assert!(broken.contains("may have been refused"), "{broken}");
        let alone = lost(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(alone, "connection refused");
        let answered = Status::unavailable("another coordinator leads");
        assert_eq!(told(&answered), answered.to_string());
    }
}
