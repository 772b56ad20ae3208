//! A frontend's HTTP port: authenticates, redirects loads to backends, answers for the leader. It never reads a body
//! and never sends `100 Continue`. The other end of its redirects is `be.rs`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::accounts::Right;
use crate::cluster::Cluster;
use crate::faults::Op;
use crate::faulty;
use crate::http::{self, Answer};
use crate::transactions::{FrontendVerdict, TxnState};
use crate::view::ClusterView as _;

/// Opens frontend `index` for business.
pub(crate) fn serve(cluster: &Arc<Cluster>, index: usize, listener: TcpListener) {
    let handler =
        http::shared(cluster.clone(), move |cluster, request: Request<Incoming>, peer: SocketAddr| {
            let frontend = Frontend { cluster, index };
            // The body is dropped here, unread.
            let (head, _body) = request.into_parts();
            async move { frontend.answer(head, peer).await }
        });
    cluster.frontends[index].port.serve(listener, handler);
}

struct Frontend {
    cluster: Arc<Cluster>,
    index: usize,
}

type Head = hyper::http::request::Parts;
type Reply = Response<Full<Bytes>>;

impl Frontend {
    async fn answer(&self, head: Head, peer: SocketAddr) -> Answer {
        let path = http::segments(head.uri.path());
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let write = head.method == Method::PUT || head.method == Method::POST;
        match path.as_slice() {
            ["api", "health"] => self.health().into(),
            ["api", "bootstrap"] => http::json(&json!({"status": "OK", "msg": "Success"})).into(),
            ["api", db, table, "_stream_load"] if write => {
                closing(self.stream_load(&head, peer, db, table).await)
            }
            ["api", "transaction", op] if write => self.transaction(&head, peer, op).await,
            ["api", db, "get_load_state"] if head.method == Method::GET => {
                self.load_state(&head, peer, db).await
            }
            ["api", db, label, "_cancel"] if write => self.cancel(&head, peer, db, label).await,
            _ => http::with_type(StatusCode::NOT_FOUND, "text/html; charset=UTF-8", "Not Found").into(),
        }
    }

    fn health(&self) -> Reply {
        let backends = self.cluster.backends();
        let alive = backends.iter().filter(|backend| backend.alive).count();
        http::json(&json!({"status": "OK", "total_backend_num": backends.len(), "online_backend_num": alive}))
    }

    /// The order of checks is the server's: user, `Expect`, names, right to insert, backend.
    async fn stream_load(&self, head: &Head, peer: SocketAddr, db: &str, table: &str) -> Answer {
        if let Err(refused) = self.authenticate(head, peer) {
            return (*refused).into();
        }
        let expects =
            http::header(&head.headers, "expect").is_some_and(|it| it.eq_ignore_ascii_case("100-continue"));
        if !expects && head.version != Version::HTTP_10 {
            let message = "There is no 100-continue header";
            if self.cluster.config.no_transactions {
                return http::json(&json!({"status": "FAILED", "msg": message})).into();
            }
            return failed(&format!("class com.starrocks.common.DdlException: {message}")).into();
        }
        if db.is_empty() {
            return failed("class com.starrocks.common.DdlException: No database selected.").into();
        }
        if table.is_empty() {
            return failed("class com.starrocks.common.DdlException: No table selected.").into();
        }
        let user = http::basic_auth(&head.headers).map(|(user, _)| user).unwrap_or_default();
        if !self.cluster.may(&user, Right::Insert) {
            return unauthorized(&Right::Insert.denied(Some(table))).into();
        }
        match self.cluster.next_backend() {
            Some(backend) => self.redirect_to_backend(head, backend).await,
            None => failed("class com.starrocks.common.DdlException: No backend alive.").into(),
        }
    }

    async fn transaction(&self, head: &Head, peer: SocketAddr, op: &str) -> Answer {
        if self.cluster.config.no_transactions {
            return http::json(&json!({"status": "FAILED", "msg": "Not implemented"})).into();
        }
        if let Err(refused) = self.authenticate(head, peer) {
            return (*refused).into();
        }
        if let Some(redirect) = self.redirect_to_leader(head).await {
            return redirect;
        }
        let label = http::header(&head.headers, "label").unwrap_or_default();
        let db = http::header(&head.headers, "db").unwrap_or_default();
        if label.is_empty() {
            return failed_with_class("Empty label.").into();
        }
        if db.is_empty() {
            return failed_with_class("No database selected.").into();
        }
        match op {
            "begin" => self.begin(head, &db, &label).await,
            "load" | "prepare" => self.forward(head, &db, &label).await,
            "commit" => self.commit(head, &db, &label).await,
            "rollback" => self.rollback(head, &db, &label).await,
            _ => failed_with_class(&format!("Unknown transaction operation: {op}")).into(),
        }
    }

    async fn begin(&self, head: &Head, db: &str, label: &str) -> Answer {
        match self.cluster.assign_backend(db, label) {
            Some(backend) => self.redirect_to_backend(head, backend).await,
            None => failed_with_class("No backend alive.").into(),
        }
    }

    async fn forward(&self, head: &Head, db: &str, label: &str) -> Answer {
        match self.cluster.backend_of(db, label) {
            Some(backend) => self.redirect_to_backend(head, backend).await,
            None => failed_with_class(&format!(
                "Can't find the transaction with db [{db}] and label[{label}]. The possible reasons: \
                 1. FE leader is started or switched; 2. The transaction timeouts and is cleaned."
            ))
            .into(),
        }
    }

    async fn commit(&self, head: &Head, db: &str, label: &str) -> Answer {
        let patience = match http::header(&head.headers, "timeout").map(|text| text.parse::<u64>()) {
            None => Duration::from_millis(self.cluster.config.fe_commit_wait_ms),
            Some(Ok(seconds)) => Duration::from_secs(seconds),
            Some(Err(_)) => return failed_with_class("Invalid timeout format").into(),
        };
        // A transaction in PREPARE is the backend's to commit, and a fault strikes there.
        if let Some(backend) = self.preparing_backend(db, label) {
            return self.redirect_to_backend(head, backend).await;
        }
        let perform = async |_| {
            self.cluster.requests.count("commit");
            match self.cluster.with_txns(|txns, now| txns.commit_from_frontend(now, db, label)) {
                FrontendVerdict::Done { id } => {
                    self.cluster.publish(id);
                    if self.cluster.wait_visible(id, patience).await {
                        return done(id, label, "").into();
                    }
                    failed_with_class(&format!("publish timeout: {}", patience.as_millis())).into()
                }
                verdict => self.settled(head, db, label, verdict).await,
            }
        };
        faulty::run(&self.cluster, Op::Commit, label, transaction_shape, perform).await
    }

    async fn rollback(&self, head: &Head, db: &str, label: &str) -> Answer {
        if let Some(backend) = self.preparing_backend(db, label) {
            return self.redirect_to_backend(head, backend).await;
        }
        let perform = async |_| {
            self.cluster.requests.count("rollback");
            match self.cluster.with_txns(|txns, now| txns.rollback_from_frontend(now, db, label)) {
                FrontendVerdict::Done { id } => {
                    self.cluster.discard(&[id]);
                    done(id, label, "").into()
                }
                verdict => self.settled(head, db, label, verdict).await,
            }
        };
        faulty::run(&self.cluster, Op::Rollback, label, transaction_shape, perform).await
    }

    /// The answers that change nothing.
    async fn settled(&self, head: &Head, db: &str, label: &str, verdict: FrontendVerdict) -> Answer {
        match verdict {
            FrontendVerdict::Redirect { backend } => self.redirect_to_backend(head, backend).await,
            FrontendVerdict::Done { id } => done(id, label, "").into(),
            FrontendVerdict::Already { id, message } => done(id, label, &message).into(),
            FrontendVerdict::Refused { message } => failed_with_class(&message).into(),
            FrontendVerdict::NotFound => {
                failed_with_class(&format!("No transaction found with db[{db}] and label[{label}]")).into()
            }
        }
    }

    fn preparing_backend(&self, db: &str, label: &str) -> Option<usize> {
        self.cluster.with_txns(|txns, _| {
            let txn = txns.latest(db, label)?;
            (txn.state == TxnState::Prepare).then_some(txn.backend)
        })
    }

    async fn load_state(&self, head: &Head, peer: SocketAddr, db: &str) -> Answer {
        if let Err(refused) = self.authenticate(head, peer) {
            return (*refused).into();
        }
        if !self.cluster.config.no_transactions
            && let Some(redirect) = self.redirect_to_leader(head).await
        {
            return redirect;
        }
        let label = http::query_parameter(head.uri.query(), "label").unwrap_or_default();
        if label.is_empty() {
            return rest_result("FAILED", "1", "No label selected.").into();
        }
        let perform = async |_| {
            self.cluster.requests.count("get_load_state");
            self.state_of(db, &label).into()
        };
        faulty::run(&self.cluster, Op::GetLoadState, &label, rest_shape, perform).await
    }

    fn state_of(&self, db: &str, label: &str) -> Reply {
        if !self.cluster.store.database_exists(db) {
            return rest_result("FAILED", "1", &format!("unknown database, database={db}"));
        }
        // An old frontend answers by itself, and PREPARE is in no follower's journal.
        let follows = self.cluster.leader_index() != self.index;
        let known = self.cluster.with_txns(|txns, _| {
            let txn = txns.latest(db, label).filter(|txn| !follows || txn.state != TxnState::Prepare);
            txn.map(|txn| (txn.state.name(), txn.reason.clone()))
        });
        let (state, reason) = known.unwrap_or(("UNKNOWN", String::new()));
        let mut answer: HashMap<&str, Value> = [("state", state), ("status", "OK"), ("code", "0")]
            .into_iter()
            .chain([("msg", "Success"), ("message", "OK")])
            .map(|(key, value)| (key, Value::from(value)))
            .collect();
        if self.cluster.config.load_state_reason && !reason.is_empty() {
            answer.insert("reason", reason.into());
        }
        http::json(&answer)
    }

    async fn cancel(&self, head: &Head, peer: SocketAddr, db: &str, in_path: &str) -> Answer {
        if let Err(refused) = self.authenticate(head, peer) {
            return (*refused).into();
        }
        if let Some(redirect) = self.redirect_to_leader(head).await {
            return redirect;
        }
        let label = http::query_parameter(head.uri.query(), "label").unwrap_or_else(|| in_path.to_owned());
        let perform = async |_| {
            self.cluster.requests.count("cancel");
            match self.cluster.with_txns(|txns, now| txns.cancel(now, db, &label)) {
                Ok(id) => {
                    self.cluster.discard(&[id]);
                    rest_result("OK", "0", "Success").into()
                }
                Err(message) => rest_result("FAILED", "1", &message).into(),
            }
        };
        faulty::run(&self.cluster, Op::Cancel, &label, rest_shape, perform).await
    }

    fn authenticate(&self, head: &Head, peer: SocketAddr) -> Result<(), Box<Reply>> {
        let message = match http::basic_auth(&head.headers) {
            None => "Need auth information.".to_owned(),
            Some(credentials) if self.cluster.is_user(&credentials) => return Ok(()),
            Some((user, _)) => format!("Access denied for {user}@{}", peer.ip()),
        };
        Err(Box::new(unauthorized(&message)))
    }

    /// `None` on the leader itself.
    async fn redirect_to_leader(&self, head: &Head) -> Option<Answer> {
        let leader = self.cluster.leader_index();
        if leader == self.index {
            return None;
        }
        let host = self.cluster.frontends[leader].port.addr.to_string();
        Some(self.redirect(head, &host).await)
    }

    async fn redirect_to_backend(&self, head: &Head, backend: usize) -> Answer {
        self.redirect(head, &self.cluster.backends[backend].advertised).await
    }

    /// 307 with path and query copied, no userinfo, an empty body.
    async fn redirect(&self, head: &Head, host: &str) -> Answer {
        let label = http::header(&head.headers, "label").unwrap_or_default();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let location = format!("http://{host}{path}");
        let perform = async |_| {
            self.cluster.requests.count("fe_redirect");
            redirect_reply(&location).into()
        };
        faulty::run(&self.cluster, Op::FeRedirect, &label, transaction_shape, perform).await
    }
}

/// Login and rights are refused alike; only the words differ.
fn unauthorized(message: &str) -> Reply {
    let body = json!({"status": "FAILED", "code": "1", "msg": message, "message": message});
    let mut reply = http::json_with(StatusCode::UNAUTHORIZED, &body);
    reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"\""));
    reply
}

fn redirect_reply(location: &str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::new()));
    *reply.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    match HeaderValue::from_str(location) {
        Ok(location) => {
            headers.insert(LOCATION, location);
        }
        Err(_) => *reply.status_mut() = StatusCode::BAD_REQUEST,
    }
    reply
}

/// A frontend closes the connection after every stream load answer.
fn closing(answer: Answer) -> Answer {
    match answer {
        Answer::Reply(mut reply) => {
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            Answer::Reply(reply)
        }
        Answer::Cut => Answer::Cut,
    }
}

/// `Status`, `Message` and more from a hash map: the order of keys is arbitrary, as it is in a frontend.
fn result(status: &str, message: &str) -> HashMap<&'static str, Value> {
    HashMap::from([("Status", Value::from(status)), ("Message", Value::from(message))])
}

fn done(id: i64, label: &str, message: &str) -> Reply {
    let mut answer = result("OK", message);
    answer.insert("TxnId", id.into());
    answer.insert("Label", label.into());
    http::json(&answer)
}

fn failed(message: &str) -> Reply {
    http::json(&result("FAILED", message))
}

fn failed_with_class(message: &str) -> Reply {
    failed(&format!("class com.starrocks.common.StarRocksException: {message}"))
}

fn transaction_shape(status: &str, message: &str) -> Reply {
    http::json(&result(status, message))
}

fn rest_shape(status: &str, message: &str) -> Reply {
    rest_result(status, "1", message)
}

fn rest_result(status: &str, code: &str, message: &str) -> Reply {
    let short = if status == "OK" { "OK" } else { message };
    http::json(&HashMap::from([("status", status), ("code", code), ("msg", message), ("message", short)]))
}
