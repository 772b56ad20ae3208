//! A coordinator that follows hands on what people ask of it: calls of the admin service and of REST go to the leader as
//! they came, with their caller's token, and the answer comes back as it is. Workers are not proxied: they hold on to
//! their leader themselves.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use hyper_util::rt::TokioIo;
use starlift_common::problem::{Code, Problem};
use starlift_link::causes;
use starlift_link::dial::{Dialer, Link, Target};
use starlift_proto::admin_service_server::AdminServiceServer;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tower::{Layer, Service};
use tracing::debug;

use crate::grpc::{Services, elsewhere};
use crate::http::refusal::Refusal;
use crate::leader::{Desk, NotLeading};

/// Marks what was handed on once, so that two coordinators that take each other for the leader do not hand it on for ever.
const HANDED_ON: &str = "starlift-handed-on";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the leader may think about a REST request; a check may wait ten minutes for its workers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(660);

/// A leader's URL, and what carries calls there.
type Way = (Arc<str>, Channel);

/// Hands calls on to the leader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proxy {
    desk: Desk,
    dialer: Dialer,
    channel: Arc<Mutex<Option<Way>>>,
}

impl Proxy {
    pub(crate) fn new(desk: Desk, dialer: Dialer) -> Self {
        Self { desk, dialer, channel: Arc::default() }
    }

    /// What carries calls of this coordinator's own, under its own token.
    pub(crate) fn link(&self) -> Option<Link> {
        Some(self.dialer.with_token(self.channel()?))
    }

    /// What carries calls to another coordinator that leads; `None` when there is none.
    fn channel(&self) -> Option<Channel> {
        let leader = self.desk.leader()?.grpc;
        let mut known = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, channel)) = known.as_ref().filter(|(url, _)| *url == leader) {
            return Some(channel.clone());
        }
        match self.dialer.channel(&leader, CONNECT_TIMEOUT) {
            Ok(channel) => {
                *known = Some((leader, channel.clone()));
                Some(channel)
            }
            Err(error) => {
                debug!(%error, "the leader cannot be asked for others");
                None
            }
        }
    }
}

impl<S> Layer<S> for Proxy {
    type Service = Proxied<S>;

    fn layer(&self, inner: S) -> Proxied<S> {
        Proxied { inner, proxy: self.clone() }
    }
}

/// The services of this coordinator, and behind them those of the leader.
#[derive(Clone)]
pub(crate) struct Proxied<S> {
    inner: S,
    proxy: Proxy,
}

impl<S> Service<http::Request<Body>> for Proxied<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let is_admin = request
            .uri()
            .path()
            .strip_prefix('/')
            .and_then(|path| path.strip_prefix(AdminServiceServer::<Services>::NAME))
            .is_some_and(|rest| rest.starts_with('/'));
        let wants_leader = is_admin && !request.headers().contains_key(HANDED_ON);
        let Some(mut channel) = wants_leader.then(|| self.proxy.channel()).flatten() else {
            return Box::pin(self.inner.call(request));
        };
        request.headers_mut().insert(HANDED_ON, HeaderValue::from_static("1"));
        let desk = self.proxy.desk.clone();
        Box::pin(async move {
            let answer = async {
                std::future::poll_fn(|context| channel.poll_ready(context)).await?;
                channel.call(request).await
            };
            Ok(answer.await.unwrap_or_else(|error| {
                debug!(error = %causes(&error), "the leader did not answer");
                leader_is_gone(&desk).into_http()
            }))
        })
    }
}

/// Whoever asks tries again, here or elsewhere.
fn leader_is_gone(desk: &Desk) -> Status {
    elsewhere(&NotLeading { leader: desk.not_leading().leader })
}

/// The same for REST.
pub(crate) async fn hand_on(State(proxy): State<Proxy>, mut request: Request, next: Next) -> Response {
    let leader = proxy.desk.leader().and_then(|leader| leader.http);
    let Some(leader) = leader.filter(|_| !request.headers().contains_key(HANDED_ON)) else {
        return next.run(request).await;
    };
    request.headers_mut().insert(HANDED_ON, HeaderValue::from_static("1"));
    let asked = timeout(ANSWER_TIMEOUT, ask(&proxy.dialer, &leader, request)).await;
    match asked.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))) {
        Ok(answer) => answer,
        Err(error) => {
            let message = format!("the leading coordinator does not answer: {}", causes(&error));
            let problem = Problem::new(Code::NoCoordinator, message).at(&*leader);
            Refusal::new(http::StatusCode::BAD_GATEWAY, problem).into_response()
        }
    }
}

async fn ask(dialer: &Dialer, leader: &str, mut request: Request) -> io::Result<Response> {
    let target = Target::parse(leader).map_err(io::Error::other)?;
    let stream = dialer.stream(&target, b"http/1.1", CONNECT_TIMEOUT).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the answer's body, or with its reader.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "the connection to the leader broke");
        }
    });
    let host = HeaderValue::try_from(target.authority()).map_err(io::Error::other)?;
    request.headers_mut().insert(header::HOST, host);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok(answer.map(axum::body::Body::new))
}
