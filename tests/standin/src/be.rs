//! A backend's HTTP port: which path goes to which operation. Plain stream loads are in `stream_load.rs`, the
//! transaction interface in `transaction_load.rs`, what both share in `receive.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use crate::cluster::{Backend, Cluster};
use crate::http::{self, Answer};

/// Opens backend `index` for business.
pub(crate) fn serve(cluster: &Arc<Cluster>, index: usize, listener: TcpListener) {
    let handler = http::shared(cluster.clone(), move |cluster, request, peer| async move {
        let node = Node { cluster, index };
        node.answer(request, peer).await
    });
    cluster.backends[index].port.serve(listener, handler);
}

/// One backend, from inside.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) index: usize,
}

impl Node {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let path = http::segments(request.uri().path());
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let write = request.method() == Method::PUT || request.method() == Method::POST;
        let read = request.method() == Method::GET || request.method() == Method::HEAD;
        match path.as_slice() {
            ["api", "health"] if read => http::json(&json!({"status": "OK", "msg": "To Be Added"})).into(),
            ["api", "_load_error_log"] if read => self.error_log(request.uri().query()).into(),
            ["api", "update_config"] if write => self.update_config(request.uri().query()).into(),
            ["api", db, table, "_stream_load"] if write => {
                let (db, table) = ((*db).to_owned(), (*table).to_owned());
                self.stream_load(request, peer, &db, &table).await
            }
            ["api", "transaction", ..] if self.cluster.config.no_transactions => not_found().into(),
            ["api", "transaction", "list"] if write => {
                http::json(&json!({"labels": self.backend().contexts.labels()})).into()
            }
            ["api", "transaction", op] if write => {
                let op = (*op).to_owned();
                self.transaction(request, peer, &op).await
            }
            _ => not_found().into(),
        }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.cluster.backends[self.index]
    }

    fn error_log(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let name = http::query_parameter(query, "file").unwrap_or_default();
        match self.backend().error_logs.read(&name) {
            Some(lines) => http::with_type(StatusCode::OK, "text/plain", lines),
            None => not_found(),
        }
    }

    /// Keeps the lines and returns their ErrorURL; `None` without lines.
    pub(crate) fn error_url(&self, lines: &[String]) -> Option<String> {
        let file = self.backend().error_logs.keep(lines)?;
        Some(format!("http://{}/api/_load_error_log?file={file}", self.backend().advertised))
    }

    fn update_config(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let max_mb = http::query_parameter(query, "streaming_load_max_mb").and_then(|text| text.parse().ok());
        match max_mb {
            Some(max_mb) => {
                self.backend().streaming_load_max_mb.store(max_mb, Ordering::Relaxed);
                http::json(&json!({"status": "OK", "msg": ""}))
            }
            None => http::json(&json!({"status": "BAD", "msg": "no such mutable config"})),
        }
    }
}

fn not_found() -> Response<Full<Bytes>> {
    http::text(StatusCode::NOT_FOUND, "Not Found")
}
