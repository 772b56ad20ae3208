//! `/livez`, `/readyz` and `/metrics`. Tells, never takes orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use starlift_link::guard::{Guard, Needs, check_http};
use starlift_link::listen::{Incoming, Peer};
use starlift_link::tokens::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What the endpoints tell.
pub(crate) struct Status {
    pub metrics: Metrics,
    /// A coordinator answers, and the worker takes tasks. Set by the agent.
    pub ready: AtomicBool,
}

/// Serves until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    guard: Guard,
    status: Arc<Status>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(status)
        .layer(from_fn_with_state((guard.clone(), needs as Needs), check_http));
    let incoming = Incoming::new(listener, guard.http_tls())?;
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(incoming, service).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

fn needs(_: &Method, path: &str) -> Option<Role> {
    if matches!(path, "/livez" | "/readyz") { None } else { Some(Role::Read) }
}

async fn readyz(State(status): State<Arc<Status>>) -> (StatusCode, &'static str) {
    if status.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no coordinator answers, or the worker is draining\n")
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], status.metrics.text())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        answer
    }

    #[tokio::test]
    async fn a_worker_is_ready_only_while_the_agent_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let status = Arc::new(Status { metrics: Metrics::new(3), ready: AtomicBool::new(false) });
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Guard::default(), Arc::clone(&status), shutdown.clone()));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        status.ready.store(true, Ordering::Relaxed);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("starlift_worker_slots 3"));
        shutdown.cancel();
        assert!(server.await.expect("no panic").is_ok());
    }
}
