//! The door of a server: which connections are encrypted, which certificates and tokens are wanted, and who gets in. What
//! a call needs is said by its path; the servers know their paths.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, StatusCode, header};
use rustls::ServerConfig;
use starlift_common::problem::{Code, Problem};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::warn;

use crate::listen::{Peer, Tls};
use crate::session;
use crate::tls::{Certificate, ClientCerts, TlsFiles};
use crate::tokens::{self, Refusal, Role, Tokens};

/// As the flags say it.
#[derive(Debug, Clone, Default)]
pub struct GuardSettings {
    pub tls: TlsFiles,
    /// Callers must show a certificate of the authority in `tls`.
    pub mutual: bool,
    pub token_file: Option<PathBuf>,
}

/// What is in force. Cheap to clone; all clones see a reload.
#[derive(Debug, Clone)]
pub struct Guard {
    settings: Arc<GuardSettings>,
    force: Arc<RwLock<Force>>,
}

#[derive(Debug, Default)]
struct Force {
    grpc: Option<Arc<ServerConfig>>,
    http: Option<Arc<ServerConfig>>,
    tokens: Option<Arc<Tokens>>,
    certificate: Option<Certificate>,
}

impl Default for Guard {
    /// No encryption, and everybody gets in: for the loopback.
    fn default() -> Self {
        Self { settings: Arc::default(), force: Arc::default() }
    }
}

impl Guard {
    /// Reads all files that the settings name.
    pub fn new(settings: GuardSettings) -> Result<Self, Problem> {
        let force = Force::read(&settings)?;
        Ok(Self { settings: Arc::new(settings), force: Arc::new(RwLock::new(force)) })
    }

    /// Reads the files again. After an error everything stays as it was.
    pub fn reload(&self) -> Result<(), Problem> {
        let force = Force::read(&self.settings)?;
        *self.force.write().unwrap_or_else(PoisonError::into_inner) = force;
        Ok(())
    }

    /// Whether nothing that crosses the network can be read or asked for by a stranger.
    pub fn is_safe(&self) -> bool {
        self.is_encrypted() && self.has_tokens()
    }

    pub fn has_tokens(&self) -> bool {
        self.force.read().unwrap_or_else(PoisonError::into_inner).tokens.is_some()
    }

    pub fn is_encrypted(&self) -> bool {
        self.force.read().unwrap_or_else(PoisonError::into_inner).grpc.is_some()
    }

    /// What callers are shown; `None`: no encryption.
    pub fn certificate(&self) -> Option<Certificate> {
        self.force.read().unwrap_or_else(PoisonError::into_inner).certificate.clone()
    }

    /// Refuses to be open by accident: an address that other hosts can reach needs encryption and tokens, or
    /// `insecure`, which is warned of.
    pub fn allows(&self, bound: SocketAddr, insecure: bool) -> Result<(), Problem> {
        if bound.ip().is_loopback() || self.is_safe() {
            return Ok(());
        }
        if insecure {
            warn!(address = %bound, "--insecure: open to every host that can reach it, without encryption or access control");
            return Ok(());
        }
        let message = "refusing to be reachable from other hosts without encryption and access control";
        Err(Problem::new(Code::InvalidSettings, message).at(bound.to_string()).hint(
            "give --tls-cert, --tls-key and --token-file (`starlift tls init DIR` makes a first set), listen on \
             127.0.0.1, or pass --insecure inside a network you trust",
        ))
    }

    /// For the gRPC listener.
    pub fn grpc_tls(&self) -> Tls {
        let force = Arc::clone(&self.force);
        Arc::new(move || force.read().unwrap_or_else(PoisonError::into_inner).grpc.clone())
    }

    /// For the HTTP listener, whose probes need no certificate.
    pub fn http_tls(&self) -> Tls {
        let force = Arc::clone(&self.force);
        Arc::new(move || force.read().unwrap_or_else(PoisonError::into_inner).http.clone())
    }

    /// As whom a caller with this token may do what `needed` stands for. Where there are no tokens everybody is a user.
    pub fn admit(&self, token: Option<&[u8]>, needed: Role) -> Result<Role, Refusal> {
        let tokens = self.force.read().unwrap_or_else(PoisonError::into_inner).tokens.clone();
        tokens.map_or(Ok(Role::User), |tokens| tokens.admit(token, needed))
    }
}

impl Force {
    fn read(settings: &GuardSettings) -> Result<Self, Problem> {
        let tokens = match &settings.token_file {
            Some(path) => Some(Arc::new(Tokens::new(&tokens::read(path)?)?)),
            None => None,
        };
        if !settings.tls.has_identity()? {
            if settings.mutual {
                return Err(Problem::new(Code::InvalidSettings, "mutual TLS needs TLS")
                    .hint("give --tls-cert, --tls-key and --tls-ca"));
            }
            return Ok(Self { tokens, ..Self::default() });
        }
        let (demanded, wanted) = match settings.mutual {
            true => (ClientCerts::Demanded, ClientCerts::Wanted),
            false => (ClientCerts::Ignored, ClientCerts::Ignored),
        };
        let grpc = Some(Arc::new(settings.tls.server(demanded, b"h2")?));
        let http = Some(Arc::new(settings.tls.server(wanted, b"http/1.1")?));
        Ok(Self { grpc, http, tokens, certificate: settings.tls.certificate()? })
    }
}

/// What a call needs, by its path; `None`: nothing.
pub type Needs = fn(&http::Method, &str) -> Option<Role>;

impl Refusal {
    fn is_about_right(self) -> bool {
        matches!(self, Self::WrongRole { .. } | Self::ForeignName)
    }

    fn problem(self) -> Problem {
        let hint = match self {
            Self::NoToken => "give --token-file, or send `Authorization: Bearer TOKEN`",
            Self::UnknownToken => "compare it with the token file of the coordinator",
            Self::WrongRole { .. } => "use the token file of that role",
            Self::NoCertificate => "give --tls-cert and --tls-key",
            Self::ForeignName => "call it localhost or 127.0.0.1, or give the server a --token-file",
        };
        Problem::new(Code::AccessDenied, self.to_string()).hint(hint)
    }

    fn grpc(self) -> Status {
        let message = self.to_string();
        let details = starlift_common::wire::status_details(&self.problem()).into();
        let code =
            if self.is_about_right() { tonic::Code::PermissionDenied } else { tonic::Code::Unauthenticated };
        Status::with_details(code, message, details)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = if self.is_about_right() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        (status, [(header::WWW_AUTHENTICATE, "Bearer")], Json(self.problem().to_rest())).into_response()
    }
}

/// Middleware for axum; the server must tell [`Peer`]s.
pub async fn check_http(
    State((guard, needs)): State<(Guard, Needs)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let Some(needed) = needs(request.method(), request.uri().path()) else { return next.run(request).await };
    if guard.settings.mutual && !peer.has_certificate {
        return Refusal::NoCertificate.into_response();
    }
    let (headers, authority) = (request.headers(), request.uri().authority());
    // A page of somebody else's in a browser of this host may have its own name lead here.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| authority.map(http::uri::Authority::as_str));
    if peer.address.ip().is_loopback() && !guard.has_tokens() && !host.is_none_or(is_of_this_host) {
        return Refusal::ForeignName.into_response();
    }
    match guard.admit(token_of(headers).as_deref(), needed) {
        Ok(_) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The token that a request over HTTP shows: of a script in `authorization`, of a browser in the cookie of its session.
pub fn token_of(headers: &HeaderMap) -> Option<Vec<u8>> {
    match headers.get(header::AUTHORIZATION) {
        Some(authorization) => tokens::bearer(authorization.as_bytes()).map(<[u8]>::to_vec),
        None => session::token(headers),
    }
}

/// Whether a `Host` header names the loopback.
fn is_of_this_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The same for tonic.
#[derive(Clone)]
pub struct GrpcGuard {
    pub guard: Guard,
    pub needs: Needs,
}

impl<S> Layer<S> for GrpcGuard {
    type Service = GuardedGrpc<S>;

    fn layer(&self, inner: S) -> GuardedGrpc<S> {
        GuardedGrpc { inner, door: self.clone() }
    }
}

#[derive(Clone)]
pub struct GuardedGrpc<S> {
    inner: S,
    door: GrpcGuard,
}

impl<S> Service<http::Request<Body>> for GuardedGrpc<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<http::Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let admitted = match (self.door.needs)(request.method(), request.uri().path()) {
            None => Ok(()),
            Some(needed) => {
                let authorization = request.headers().get(header::AUTHORIZATION);
                let token = authorization.and_then(|value| tokens::bearer(value.as_bytes()));
                self.door.guard.admit(token, needed).map(|_| ())
            }
        };
        match admitted {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(refusal) => Either::Right(ready(Ok(refusal.grpc().into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_are_of_this_host() {
        for host in ["localhost", "LocalHost:9471", "127.0.0.1:9471", "127.9.9.9", "[::1]:9471"] {
            assert!(is_of_this_host(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9471",
            "127.0.0.1.evil.example",
            "10.0.0.5:9471",
            "",
            "a b",
        ] {
            assert!(!is_of_this_host(host), "{host}");
        }
    }
}
