//! HTTP plumbing shared by the three kinds of port: a port that can be closed and opened again, the answers, Basic
//! authentication, header texts. It knows no path and no rule; those are in `fe.rs`, `be.rs` and `control.rs`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// What a handler decides.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Response<Full<Bytes>>),
    /// Drop the connection without a word.
    Cut,
}

impl From<Response<Full<Bytes>>> for Answer {
    fn from(response: Response<Full<Bytes>>) -> Self {
        Self::Reply(response)
    }
}

/// A connection is to be dropped; hyper needs an error for that.
#[derive(Debug, thiserror::Error)]
#[error("connection cut on purpose")]
struct CutConnection;

/// A listening address that can go down and come back under the same number.
pub(crate) struct Port {
    pub(crate) addr: SocketAddr,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Port {
    /// Takes the address, so that its number is known; connections are served from `serve` on.
    pub(crate) async fn bind(address: &str) -> std::io::Result<(Self, TcpListener)> {
        let listener = TcpListener::bind(address).await?;
        let addr = listener.local_addr()?;
        Ok((Self { addr, running: Mutex::new(None) }, listener))
    }

    /// Serves until `close`. Each request runs in a task of its own, so that a client that goes away cannot leave an
    /// operation half done.
    pub(crate) fn serve<H, F>(&self, listener: TcpListener, handler: H)
    where
        H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let running = Running { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let (stop, tasks) = (running.stop.clone(), running.tasks.clone());
        running.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => match accepted {
                        Ok((socket, peer)) => {
                            let connection = serve_connection(socket, peer, handler.clone());
                            let stop = stop.clone();
                            tasks.spawn(async move {
                                tokio::select! { () = stop.cancelled() => (), () = connection => () }
                            });
                        }
                        Err(error) => warn!(%error, "accept failed"),
                    }
                }
            }
        });
        *self.lock() = Some(running);
    }

    /// Refuses new connections and drops the open ones; returns when the address is free.
    pub(crate) async fn close(&self) {
        let running = self.lock().take();
        if let Some(running) = running {
            running.stop.cancel();
            running.tasks.close();
            running.tasks.wait().await;
        }
    }

    /// As `close`, without waiting.
    pub(crate) fn abandon(&self) {
        if let Some(running) = self.lock().take() {
            running.stop.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve_connection<H, F>(socket: tokio::net::TcpStream, peer: SocketAddr, handler: H)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let service = service_fn(move |request| {
        let work = tokio::spawn(handler(request, peer));
        async move {
            match work.await {
                Ok(Answer::Reply(response)) => Ok(response),
                Ok(Answer::Cut) | Err(_) => Err(CutConnection),
            }
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .title_case_headers(true)
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "connection ended");
    }
}

/// A pretty-printed JSON answer with four blanks of indent, HTTP 200.
pub(crate) fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    json_with(StatusCode::OK, value)
}

pub(crate) fn json_with(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let mut text = Vec::with_capacity(512);
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
    if let Err(error) = value.serialize(&mut serializer) {
        warn!(%error, "an answer could not be written as JSON");
    }
    with_type(status, "application/json; charset=UTF-8", text)
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body)
}

pub(crate) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A header as text, `None` when absent. Bytes beyond ASCII are read as UTF-8, as column names may need.
pub(crate) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
}

/// User and password of `Authorization: Basic`; the user's `@cluster` suffix is dropped.
pub(crate) fn basic_auth(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let user = user.split_once('@').map_or(user, |(name, _cluster)| name);
    Some((user.to_owned(), password.to_owned()))
}

/// One query parameter, percent-decoded, with `+` as a blank.
pub(crate) fn query_parameter(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| percent_decoded(&value.replace('+', " ")))
    })
}

pub(crate) fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The path cut at its slashes, each segment percent-decoded.
pub(crate) fn segments(path: &str) -> Vec<String> {
    path.trim_start_matches('/').split('/').map(percent_decoded).collect()
}

/// Wraps a handler's shared state for `Port::serve`.
pub(crate) fn shared<S, F, Fut>(
    state: Arc<S>,
    handler: F,
) -> impl Fn(Request<Incoming>, SocketAddr) -> Fut + Clone + Send + Sync + 'static
where
    S: Send + Sync + 'static,
    F: Fn(Arc<S>, Request<Incoming>, SocketAddr) -> Fut + Clone + Send + Sync + 'static,
{
    move |request, peer| handler(state.clone(), request, peer)
}
