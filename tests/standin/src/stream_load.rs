//! The plain `_stream_load` of a backend: one request is one transaction. Every answer is HTTP 200; `Status` decides.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use serde::Serialize;
use tokio::time::Instant;

use crate::be::Node;
use crate::cluster::{BeginRefused, BeginRpc};
use crate::faults::Op;
use crate::faulty;
use crate::http::{self, Answer};
use crate::ingest::{Ingest, Outcome};
use crate::params::{self, Interface, LoadParams};
use crate::plan::Plan;
use crate::receive::{self, Received, millis_since};
use crate::transactions::Begin;

/// The answer, in the order a backend prints it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    txn_id: i64,
    label: String,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    existing_job_status: Option<&'static str>,
    message: String,
    number_total_rows: u64,
    number_loaded_rows: u64,
    number_filtered_rows: u64,
    number_unselected_rows: u64,
    load_bytes: u64,
    load_time_ms: u64,
    begin_txn_time_ms: u64,
    stream_load_plan_time_ms: u64,
    read_data_time_ms: u64,
    write_data_time_ms: u64,
    commit_and_publish_time_ms: u64,
    #[serde(rename = "ErrorURL", skip_serializing_if = "Option::is_none")]
    error_url: Option<String>,
}

impl Report {
    fn new(label: &str) -> Self {
        Self { txn_id: -1, label: label.to_owned(), status: "Fail".to_owned(), ..Self::default() }
    }

    fn fail(mut self, message: impl Into<String>) -> Response<Full<Bytes>> {
        self.message = message.into();
        http::json(&self)
    }
}

/// A stream load that has its transaction.
struct Begun {
    txn: i64,
    timeout: Duration,
    max_filter_ratio: f64,
    report: Report,
    started: Instant,
}

impl Node {
    pub(crate) async fn stream_load(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        db: &str,
        table: &str,
    ) -> Answer {
        let (head, body) = request.into_parts();
        let label = match http::header(&head.headers, "label") {
            Some(label) if !label.is_empty() => label,
            _ => generated_label(),
        };
        let shape = |status: &str, message: &str| {
            let mut report = Report::new(&label);
            status.clone_into(&mut report.status);
            report.fail(message)
        };
        let perform = async |cut_after| {
            self.cluster.requests.count("stream_load");
            self.load_once(&head.headers, body, peer, Place { db, table, label: &label }, cut_after).await
        };
        faulty::run(&self.cluster, Op::StreamLoad, &label, shape, perform).await
    }

    async fn load_once(
        &self,
        headers: &HeaderMap,
        body: Incoming,
        peer: SocketAddr,
        place: Place<'_>,
        cut_after: Option<u64>,
    ) -> Answer {
        let started = Instant::now();
        let report = Report::new(place.label);
        let Some(credentials) = http::basic_auth(headers) else {
            return report.fail("no valid Basic authorization").into();
        };
        if let Err(message) = receive::check_size(self, headers, 0) {
            return report.fail(message).into();
        }
        let timeout_second = match params::timeout_second(headers) {
            Ok(seconds) => seconds,
            Err(message) => return report.fail(message).into(),
        };
        let Place { db, table, label } = place;
        let begin = Begin { db, table, label, timeout_second, backend: self.index };
        let rpc = BeginRpc { credentials: &credentials, client_ip: peer.ip().to_string(), begin };
        let mut begun = match self.cluster.begin(&rpc) {
            Ok(txn) => self.begun(txn, report, started),
            Err(refused) => return refusal(report, refused).into(),
        };
        match self.plan_once(headers, place, &mut begun) {
            Ok(ingest) => self.take_body(body, ingest, begun, cut_after).await,
            Err(message) => self.give_up(begun, &message),
        }
    }

    fn begun(&self, txn: i64, mut report: Report, started: Instant) -> Begun {
        report.txn_id = txn;
        report.begin_txn_time_ms = millis_since(started);
        let timeout = self.cluster.with_txns(|txns, _| txns.get(txn).map(|txn| txn.timeout));
        Begun { txn, timeout: timeout.unwrap_or_default(), max_filter_ratio: 0.0, report, started }
    }

    fn plan_once(&self, headers: &HeaderMap, place: Place<'_>, begun: &mut Begun) -> Result<Ingest, String> {
        let planning = Instant::now();
        begun.max_filter_ratio = params::max_filter_ratio(headers)?;
        let params = LoadParams::read(headers, Interface::StreamLoad)?;
        let table = self.cluster.store.table(place.db, place.table).map_err(|error| error.to_string())?;
        let plan = Plan::new(&params, &table).map_err(|error| error.to_string())?;
        let ingest =
            Ingest::new(&self.cluster.store, &table, begun.txn, plan, self.cluster.config.count_only)
                .map_err(|error| error.to_string())?;
        begun.report.stream_load_plan_time_ms = millis_since(planning);
        Ok(ingest)
    }

    async fn take_body(
        &self,
        body: Incoming,
        ingest: Ingest,
        mut begun: Begun,
        cut_after: Option<u64>,
    ) -> Answer {
        let reading = Instant::now();
        let (ingest, received) = match receive::receive(self, body, ingest, cut_after).await {
            Ok(done) => done,
            Err(message) => return self.give_up(begun, &message),
        };
        begun.report.read_data_time_ms = millis_since(reading);
        match received {
            Received::Complete => {}
            Received::Broken => return self.give_up(begun, "receive body don't equal with body bytes"),
            Received::Cut => {
                self.give_up(begun, "receive body don't equal with body bytes");
                return Answer::Cut;
            }
        }
        let writing = Instant::now();
        let outcome = match tokio::task::spawn_blocking(move || ingest.finish()).await {
            Ok(outcome) => outcome,
            Err(_) => return self.give_up(begun, "the ingest stopped"),
        };
        begun.report.write_data_time_ms = millis_since(writing);
        self.commit_once(begun, &outcome).await
    }

    async fn commit_once(&self, mut begun: Begun, outcome: &Outcome) -> Answer {
        let counts = outcome.counts;
        begun.report.number_total_rows = counts.total();
        begun.report.number_loaded_rows = counts.loaded;
        begun.report.number_filtered_rows = counts.filtered;
        begun.report.number_unselected_rows = counts.unselected;
        begun.report.load_bytes = counts.bytes;
        begun.report.error_url = self.error_url(&outcome.errors);
        if let Err(message) = receive::judge(self, outcome, begun.max_filter_ratio) {
            return self.give_up(begun, &message);
        }
        let committing = Instant::now();
        let id = begun.txn;
        if let Err(error) = self.cluster.with_txns(|txns, now| txns.commit_from_backend(now, id, counts)) {
            return self.give_up(begun, &error.to_string());
        }
        self.cluster.publish(id);
        let visible = self.cluster.wait_visible(id, receive::publish_patience(self, begun.timeout)).await;
        let Begun { mut report, started, .. } = begun;
        report.commit_and_publish_time_ms = millis_since(committing);
        report.load_time_ms = millis_since(started);
        let (status, message) = if visible {
            ("Success", "OK")
        } else {
            ("Publish Timeout", "Publish timeout. The data will be visible after a while")
        };
        (report.status, report.message) = (status.to_owned(), message.to_owned());
        http::json(&report).into()
    }

    fn give_up(&self, mut begun: Begun, message: &str) -> Answer {
        self.cluster.abort(begun.txn, message);
        begun.report.load_time_ms = millis_since(begun.started);
        begun.report.fail(message).into()
    }
}

/// What a stream load names.
#[derive(Clone, Copy)]
struct Place<'a> {
    db: &'a str,
    table: &'a str,
    label: &'a str,
}

fn refusal(mut report: Report, refused: BeginRefused) -> Response<Full<Bytes>> {
    if refused.existing_job_status.is_some() {
        "Label Already Exists".clone_into(&mut report.status);
        report.existing_job_status = refused.existing_job_status;
    }
    report.fail(refused.message)
}

/// Shaped like a UUID, as a backend makes one up.
fn generated_label() -> String {
    let bits = format!("{:032x}", fastrand::u128(..));
    format!("{}-{}-{}-{}-{}", &bits[..8], &bits[8..12], &bits[12..16], &bits[16..20], &bits[20..])
}
