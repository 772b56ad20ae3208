//! The transaction interface of a backend: begin, load, prepare, one-phase commit, rollback. The sequencing rules are
//! those of a backend: one operation at a time per label, an error in the headers of a load rolls back, a broken
//! connection does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use serde::Serialize;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use crate::be::Node;
use crate::cluster::BeginRpc;
use crate::context::{Context, Work};
use crate::faults::Op;
use crate::faulty;
use crate::http::{self, Answer};
use crate::ingest::{Ingest, Outcome};
use crate::params::{self, Interface, LoadParams};
use crate::plan::Plan;
use crate::receive::{self, Received, millis_since};
use crate::transactions::Begin;

/// The answer of every operation; which keys it has depends on the operation.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    existing_job_status: Option<&'static str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begin_txn_time_ms: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    rows: Option<RowCounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_load_plan_time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_data_time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_data_time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_and_publish_time_ms: Option<u64>,
    #[serde(rename = "ErrorURL", skip_serializing_if = "Option::is_none")]
    error_url: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RowCounts {
    number_total_rows: u64,
    number_loaded_rows: u64,
    number_filtered_rows: u64,
    number_unselected_rows: u64,
}

/// An operation that did not go through: internal status code and text.
#[derive(Debug)]
struct Refused(&'static str, String);

impl Refused {
    fn internal(message: impl std::fmt::Display) -> Self {
        Self("INTERNAL_ERROR", message.to_string())
    }
}

impl From<Refused> for Report {
    fn from(Refused(status, message): Refused) -> Self {
        Self { status, message, ..Self::default() }
    }
}

/// How the last operation of a transaction on this backend ends it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Prepare { prepared_timeout_second: Option<u64> },
    Commit,
}

/// A context whose lock is held: nobody else works on the transaction.
struct Held {
    context: Arc<Context>,
    work: OwnedMutexGuard<Work>,
}

impl Node {
    pub(crate) async fn transaction(&self, request: Request<Incoming>, peer: SocketAddr, op: &str) -> Answer {
        let (head, body) = request.into_parts();
        let headers = &head.headers;
        let label = http::header(headers, "label").unwrap_or_default();
        if label.is_empty() {
            return reply(Refused("INVALID_ARGUMENT", "Empty label.".to_owned()));
        }
        let (op, name) = match op {
            "begin" => (Op::Begin, "begin"),
            "load" => (Op::Load, "load"),
            "prepare" => (Op::Prepare, "prepare"),
            "commit" => (Op::Commit, "commit"),
            "rollback" => (Op::Rollback, "rollback"),
            _ => {
                return reply(Refused("INVALID_ARGUMENT", format!("Unknown transaction operation: {op}")));
            }
        };
        let perform = async |cut_after| {
            self.cluster.requests.count(name);
            match op {
                Op::Begin => reply(self.begin(headers, peer, &label)),
                Op::Load => self.load(headers, body, &label, cut_after).await,
                Op::Prepare => match prepared_timeout_second(headers) {
                    Ok(prepared_timeout_second) => {
                        let ending = Ending::Prepare { prepared_timeout_second };
                        reply(self.end(headers, &label, ending).await)
                    }
                    Err(refused) => reply(refused),
                },
                Op::Commit => reply(self.end(headers, &label, Ending::Commit).await),
                _ => reply(self.rollback(headers, &label)),
            }
        };
        faulty::run(&self.cluster, op, &label, shape, perform).await
    }

    fn begin(&self, headers: &HeaderMap, peer: SocketAddr, label: &str) -> Report {
        if self.backend().contexts.get(label).is_some() {
            return Report {
                status: "LABEL_ALREADY_EXISTS",
                existing_job_status: Some(""),
                ..Report::default()
            };
        }
        let started = Instant::now();
        match self.try_begin(headers, peer, label) {
            Ok(txn) => Report {
                status: "OK",
                label: Some(label.to_owned()),
                txn_id: Some(txn),
                begin_txn_time_ms: Some(millis_since(started)),
                ..Report::default()
            },
            Err(report) => *report,
        }
    }

    fn try_begin(&self, headers: &HeaderMap, peer: SocketAddr, label: &str) -> Result<i64, Box<Report>> {
        let invalid = |message: &str| Box::new(Refused("INVALID_ARGUMENT", message.to_owned()).into());
        let Some(credentials) = http::basic_auth(headers) else {
            return Err(Box::new(Refused::internal("no valid Basic authorization").into()));
        };
        let db = http::header(headers, "db").unwrap_or_default();
        let table = http::header(headers, "table").unwrap_or_default();
        if db.is_empty() {
            return Err(invalid("No database selected."));
        }
        if table.is_empty() {
            return Err(invalid("No table selected."));
        }
        let timeout_second = params::timeout_second(headers).map_err(|message| invalid(&message))?;
        let idle_second =
            seconds(headers, "idle_transaction_timeout").map_err(|refused| Box::new(refused.into()))?;
        let begin = Begin { db: &db, table: &table, label, timeout_second, backend: self.index };
        let rpc = BeginRpc { credentials: &credentials, client_ip: peer.ip().to_string(), begin };
        let txn = self.cluster.begin(&rpc).map_err(|refused| {
            Box::new(Report {
                status: refused.code,
                existing_job_status: refused.existing_job_status,
                message: refused.message,
                ..Report::default()
            })
        })?;
        let now = self.cluster.now();
        self.backend().contexts.insert(Context {
            txn,
            label: label.to_owned(),
            db,
            table,
            begun: now,
            timeout: self.timeout_of(txn),
            idle_timeout: idle_second.map(Duration::from_secs),
            work: Arc::new(Mutex::new(Work::new(now))),
        });
        Ok(txn)
    }

    fn timeout_of(&self, txn: i64) -> Duration {
        self.cluster.with_txns(|txns, _| txns.get(txn).map(|txn| txn.timeout)).unwrap_or_default()
    }

    async fn load(&self, headers: &HeaderMap, body: Incoming, label: &str, cut_after: Option<u64>) -> Answer {
        let mut held = match self.hold_for_load(headers, label) {
            Ok(held) => held,
            Err(refused) => return reply(refused),
        };
        let ingest = match self.open_load(headers, &mut held) {
            Ok(ingest) => ingest,
            Err(refused) => {
                self.roll_back(&mut held, &refused.1);
                return reply(refused);
            }
        };
        let receiving = Instant::now();
        let before = ingest.bytes();
        let received = match receive::receive(self, body, ingest, cut_after).await {
            Ok((ingest, received)) => {
                let bytes = ingest.bytes() - before;
                held.work.ingest = Some(ingest);
                held.work.last_active = self.cluster.now();
                held.work.timings.receive_ms += millis_since(receiving);
                (received, bytes)
            }
            Err(message) => {
                self.roll_back(&mut held, &message);
                return reply(Refused::internal(message));
            }
        };
        // A broken connection leaves the transaction as it is, with part of the bytes in it.
        match received {
            (Received::Complete, bytes) => reply(Report {
                status: "OK",
                label: Some(label.to_owned()),
                txn_id: Some(held.context.txn),
                load_bytes: Some(bytes),
                stream_load_plan_time_ms: Some(held.work.timings.plan_ms),
                received_data_time_ms: Some(held.work.timings.receive_ms),
                ..Report::default()
            }),
            (Received::Broken | Received::Cut, _) => Answer::Cut,
        }
    }

    /// The checks that leave the transaction untouched when they fail.
    fn hold_for_load(&self, headers: &HeaderMap, label: &str) -> Result<Held, Refused> {
        let missing = || Refused("TXN_NOT_EXISTS", format!("Transaction with label {label} not exists"));
        let context = self.backend().contexts.get(label).ok_or_else(missing)?;
        same_name("database", &http::header(headers, "db").unwrap_or_default(), &context.db)?;
        same_name("table", &http::header(headers, "table").unwrap_or_default(), &context.table)?;
        let held = hold(context)?;
        if held.work.closed {
            return Err(missing());
        }
        Ok(held)
    }

    /// The checks after the lock: an error rolls back. The first load plans and starts the write.
    fn open_load(&self, headers: &HeaderMap, held: &mut Held) -> Result<Ingest, Refused> {
        let Held { context, work } = held;
        if self.cluster.now().saturating_sub(context.begun) > context.timeout {
            return Err(Refused("ABORTED", "The load is timeout, and will be aborted".to_owned()));
        }
        let credentials = http::basic_auth(headers);
        let Some(credentials) = credentials else {
            return Err(Refused::internal("no valid Basic authorization"));
        };
        receive::check_size(self, headers, work.declared_bytes).map_err(Refused::internal)?;
        work.declared_bytes += receive::declared_length(headers);
        let params = LoadParams::read(headers, Interface::Transaction).map_err(Refused::internal)?;
        match &work.params {
            Some(first) if *first != params => return Err(Refused::internal("load request not equal last.")),
            Some(_) => {
                return work.ingest.take().ok_or_else(|| Refused::internal("the ingest stopped"));
            }
            None => {}
        }
        if !self.cluster.is_user(&credentials) {
            return Err(Refused("ANALYSIS_ERROR", format!("Access denied for {}", credentials.0)));
        }
        let planning = Instant::now();
        work.max_filter_ratio = params::max_filter_ratio(headers).map_err(Refused::internal)?;
        let table = self.cluster.store.table(&context.db, &context.table).map_err(Refused::internal)?;
        let plan = Plan::new(&params, &table).map_err(Refused::internal)?;
        let ingest =
            Ingest::new(&self.cluster.store, &table, context.txn, plan, self.cluster.config.count_only)
                .map_err(Refused::internal)?;
        work.params = Some(params);
        work.timings.plan_ms = millis_since(planning);
        Ok(ingest)
    }

    /// prepare, or commit without prepare: the context is gone afterwards, whatever the outcome.
    async fn end(&self, headers: &HeaderMap, label: &str, ending: Ending) -> Report {
        let mut held = match self.hold_for_end(headers, label) {
            Ok(held) => held,
            Err(refused) => return refused.into(),
        };
        let started = Instant::now();
        let Some(ingest) = held.work.ingest.take() else {
            let message = format!("transaction {label} hasn't send any data yet");
            self.roll_back(&mut held, &message);
            return Refused::internal(message).into();
        };
        let Ok(outcome) = tokio::task::spawn_blocking(move || ingest.finish()).await else {
            self.roll_back(&mut held, "the ingest stopped");
            return Refused::internal("the ingest stopped").into();
        };
        let mut report = self.counted(&held, &outcome);
        report.write_data_time_ms = Some(millis_since(started));
        if let Err(message) = receive::judge(self, &outcome, held.work.max_filter_ratio) {
            self.roll_back(&mut held, &message);
            (report.status, report.message) = ("INTERNAL_ERROR", message);
            return report;
        }
        let ended = self.end_at_leader(&mut held, &outcome, ending).await;
        report.commit_and_publish_time_ms = Some(millis_since(started));
        report.load_time_ms = Some(millis_since(started) + held.work.timings.receive_ms);
        match ended {
            Ok(()) => report.status = "OK",
            Err(Refused(status, message)) => (report.status, report.message) = (status, message),
        }
        report
    }

    fn hold_for_end(&self, headers: &HeaderMap, label: &str) -> Result<Held, Refused> {
        let missing = || Refused("TXN_NOT_EXISTS", format!("transaction with label {label} not exists"));
        let context = self.backend().contexts.get(label).ok_or_else(missing)?;
        let db = http::header(headers, "db").unwrap_or_default();
        same_name("database", &db, &context.db)
            .map_err(|Refused(_, text)| Refused("INVALID_ARGUMENT", text))?;
        let held = hold(context)?;
        if held.work.closed {
            return Err(missing());
        }
        Ok(held)
    }

    async fn end_at_leader(&self, held: &mut Held, outcome: &Outcome, ending: Ending) -> Result<(), Refused> {
        let id = held.context.txn;
        let counts = outcome.counts;
        let moved = self.cluster.with_txns(|txns, now| match ending {
            Ending::Prepare { prepared_timeout_second } => {
                txns.prepare(now, id, counts, prepared_timeout_second)
            }
            Ending::Commit => txns.commit_from_backend(now, id, counts),
        });
        if let Err(error) = moved {
            self.roll_back(held, &error.to_string());
            return Err(Refused::internal(error));
        }
        self.close(held);
        if ending == Ending::Commit {
            self.cluster.publish(id);
            let patience = receive::publish_patience(self, held.context.timeout);
            if !self.cluster.wait_visible(id, patience).await {
                let text = "Publish timeout. The data will be visible after a while";
                return Err(Refused("PUBLISH_TIMEOUT", text.to_owned()));
            }
        }
        Ok(())
    }

    fn counted(&self, held: &Held, outcome: &Outcome) -> Report {
        let counts = outcome.counts;
        Report {
            label: Some(held.context.label.clone()),
            txn_id: Some(held.context.txn),
            rows: Some(RowCounts {
                number_total_rows: counts.total(),
                number_loaded_rows: counts.loaded,
                number_filtered_rows: counts.filtered,
                number_unselected_rows: counts.unselected,
            }),
            load_bytes: Some(counts.bytes),
            stream_load_plan_time_ms: Some(held.work.timings.plan_ms),
            received_data_time_ms: Some(held.work.timings.receive_ms),
            error_url: self.error_url(&outcome.errors),
            ..Report::default()
        }
    }

    fn rollback(&self, headers: &HeaderMap, label: &str) -> Report {
        match self.hold_for_end(headers, label) {
            Ok(mut held) => {
                self.roll_back(&mut held, "User Aborted");
                Report { status: "OK", label: Some(label.to_owned()), ..Report::default() }
            }
            Err(refused) => refused.into(),
        }
    }

    fn roll_back(&self, held: &mut Held, reason: &str) {
        self.close(held);
        // Drops the writer before the rows are discarded.
        held.work.ingest = None;
        self.cluster.abort(held.context.txn, reason);
    }

    fn close(&self, held: &mut Held) {
        held.work.closed = true;
        self.backend().contexts.remove(&held.context);
    }
}

fn hold(context: Arc<Context>) -> Result<Held, Refused> {
    match context.work.clone().try_lock_owned() {
        Ok(work) => Ok(Held { context, work }),
        Err(_) => {
            Err(Refused("TXN_IN_PROCESSING", "Transaction in processing, please retry later".to_owned()))
        }
    }
}

fn same_name(what: &str, asked: &str, own: &str) -> Result<(), Refused> {
    if asked == own {
        return Ok(());
    }
    Err(Refused("INVALID_ARGUMENT", format!("Request {what} {asked} not equal transaction {what} {own}")))
}

fn prepared_timeout_second(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    seconds(headers, "prepared_timeout")
}

fn seconds(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Refused> {
    http::header(headers, name)
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|_| Refused("INVALID_ARGUMENT", format!("Invalid {name} format"))))
        .transpose()
}

fn reply(report: impl Into<Report>) -> Answer {
    http::json(&report.into()).into()
}

fn shape(status: &str, message: &str) -> Response<Full<Bytes>> {
    http::json(&serde_json::json!({"Status": status, "Message": message}))
}
