//! The control port: faults, outages, evictions and a look inside, as JSON over HTTP, for tests and demonstrations.
//! It has no counterpart in StarRocks and asks for no password.
//!
//! ```text
//! GET    /state                     transactions, nodes, how many are open
//! GET    /requests                  operations performed, by name
//! GET    /faults                    rules in force, how many requests are held
//! POST   /faults                    one rule, or an array of them (see `faults.rs`)
//! DELETE /faults                    removes every rule, releases what is held
//! POST   /faults/release            releases what is held
//! POST   /leader/{i}                frontend i leads; PREPARE transactions vanish
//! POST   /fe/{i}/down | up
//! POST   /be/{i}/down?notice_ms=N   | up
//! POST   /evict_labels              forgets every finished transaction; ?all=false only what is too old or too many
//! POST   /check_timeouts            one pass over the timeouts, at once
//! GET    /digest?table=db.t         rows and an order-independent hash of them; bytes too where rows are only counted
//! POST   /fill?table=db.t&rows=N    demonstration rows, visible at once
//! POST   /sql                       runs the SQL in the body
//! ```

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cluster::Cluster;
use crate::faults::Fault;
use crate::http::{self, Answer, Port};
use crate::view::ClusterView;

/// Opens the control port.
pub(crate) fn serve(cluster: &Arc<Cluster>, port: &Port, listener: TcpListener) {
    let handler = http::shared(cluster.clone(), |cluster, request: Request<Incoming>, _peer| async move {
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Answer::Cut,
        };
        let path = http::segments(head.uri.path());
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let answered = route(&cluster, &head.method, &path, head.uri.query(), body).await;
        answered.unwrap_or_else(|refused| http::json_with(refused.0, &json!({"error": refused.1}))).into()
    });
    port.serve(listener, handler);
}

type Reply = Response<Full<Bytes>>;

struct Refused(StatusCode, String);

impl Refused {
    fn bad(message: impl Display) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("{message:#}"))
    }
}

async fn route(
    cluster: &Arc<Cluster>,
    method: &Method,
    path: &[&str],
    query: Option<&str>,
    body: Bytes,
) -> Result<Reply, Refused> {
    let post = method == Method::POST;
    match path {
        ["state"] => Ok(state(cluster)),
        ["requests"] => Ok(http::json(&cluster.requests.all())),
        ["faults"] if post => add_faults(cluster, &body),
        ["faults"] if method == Method::DELETE => {
            cluster.faults.clear();
            done()
        }
        ["faults"] => Ok(http::json(&json!({"rules": cluster.faults.list(), "held": cluster.faults.held()}))),
        ["faults", "release"] if post => {
            cluster.faults.release();
            done()
        }
        ["leader", place] if post => {
            cluster.lead_by(index(place, cluster.frontends.len())?);
            done()
        }
        ["fe", place, "down"] if post => {
            cluster.frontend_down(index(place, cluster.frontends.len())?).await;
            done()
        }
        ["fe", place, "up"] if post => {
            cluster.frontend_up(index(place, cluster.frontends.len())?).await.map_err(Refused::bad)?;
            done()
        }
        ["be", place, "down"] if post => {
            let notice = match http::query_parameter(query, "notice_ms") {
                Some(text) => text.parse().map_err(Refused::bad)?,
                None => cluster.config.backend_death_notice_ms,
            };
            let place = index(place, cluster.backends.len())?;
            cluster.backend_down(place, Duration::from_millis(notice)).await;
            done()
        }
        ["be", place, "up"] if post => {
            cluster.backend_up(index(place, cluster.backends.len())?).await.map_err(Refused::bad)?;
            done()
        }
        ["evict_labels"] if post => {
            let all = http::query_parameter(query, "all").is_none_or(|text| text != "false");
            cluster.with_txns(|txns, now| if all { txns.evict_all() } else { txns.evict(now) });
            done()
        }
        ["check_timeouts"] if post => {
            cluster.expire();
            done()
        }
        ["digest"] => digest(cluster, query).await,
        ["fill"] if post => fill(cluster, query).await,
        ["sql"] if post => run_sql(cluster, &body).await,
        _ => Err(Refused(StatusCode::NOT_FOUND, "no such control call".to_owned())),
    }
}

fn done() -> Result<Reply, Refused> {
    Ok(http::json(&json!({"status": "OK"})))
}

fn index(text: &str, count: usize) -> Result<usize, Refused> {
    match text.parse() {
        Ok(place) if place < count => Ok(place),
        _ => Err(Refused::bad(format!("no node {text}; there are {count}, counted from 0"))),
    }
}

fn state(cluster: &Cluster) -> Reply {
    let transactions = cluster.all_transactions();
    let open =
        transactions.iter().filter(|txn| matches!(txn.state, "PREPARE" | "PREPARED" | "COMMITTED")).count();
    let frontends: Vec<Value> = cluster
        .frontends()
        .iter()
        .map(|it| json!({"http": format!("{}:{}", it.host, it.http_port), "leader": it.leader, "alive": it.alive}))
        .collect();
    let backends: Vec<Value> = cluster
        .backends
        .iter()
        .zip(cluster.backends())
        .map(|(node, seen)| {
            json!({
                "http": node.port.addr.to_string(), "advertised": node.advertised,
                "up": node.up.load(Ordering::SeqCst), "alive": seen.alive, "contexts": node.contexts.labels(),
            })
        })
        .collect();
    http::json(&json!({
        "open": open, "transactions": transactions, "frontends": frontends, "backends": backends,
    }))
}

fn add_faults(cluster: &Cluster, body: &[u8]) -> Result<Reply, Refused> {
    let value: Value = serde_json::from_slice(body).map_err(Refused::bad)?;
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    let faults: Vec<Fault> =
        values.into_iter().map(serde_json::from_value).collect::<Result<_, _>>().map_err(Refused::bad)?;
    faults.into_iter().for_each(|fault| cluster.faults.push(fault));
    done()
}

async fn digest(cluster: &Cluster, query: Option<&str>) -> Result<Reply, Refused> {
    let (db, table) = table_parameter(query)?;
    if cluster.config.count_only {
        let (digest, bytes) = cluster.store.table(&db, &table).map_err(Refused::bad)?.counted();
        let text =
            format!("{{\"rows\":{},\"bytes\":{bytes},\"hash\":\"{:016x}\"}}\n", digest.rows, digest.hash);
        return Ok(http::text(StatusCode::OK, text));
    }
    let store = cluster.store.clone();
    let digest = blocking(move || store.digest(&db, &table)).await?;
    Ok(http::text(
        StatusCode::OK,
        format!("{{\"rows\":{},\"hash\":\"{:016x}\"}}\n", digest.rows, digest.hash),
    ))
}

async fn fill(cluster: &Cluster, query: Option<&str>) -> Result<Reply, Refused> {
    let (db, table) = table_parameter(query)?;
    let rows = http::query_parameter(query, "rows").unwrap_or_default();
    let rows: u64 = rows.parse().map_err(|_| Refused::bad(format!("rows={rows} is not a number")))?;
    let store = cluster.store.clone();
    blocking(move || store.fill_demo(&db, &table, rows)).await?;
    done()
}

async fn run_sql(cluster: &Cluster, body: &[u8]) -> Result<Reply, Refused> {
    let sql = String::from_utf8(body.to_vec()).map_err(Refused::bad)?;
    let store = cluster.store.clone();
    blocking(move || store.execute_script(&sql)).await?;
    done()
}

fn table_parameter(query: Option<&str>) -> Result<(String, String), Refused> {
    let name = http::query_parameter(query, "table").unwrap_or_default();
    match name.split_once('.') {
        Some((db, table)) => Ok((db.to_owned(), table.to_owned())),
        None => Err(Refused::bad(format!("table={name} is not of the form db.table"))),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::store::StoreError> + Send + 'static,
) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Refused::bad)?
        .map_err(|error| Refused::bad(anyhow::Error::new(error)))
}
