//! What unit tests share: a spec, and a StarRocks that does as it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, get};
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use starlift_common::datasource::Datasources;
use starlift_common::job::{CellKind, Delimiter, Format, LoadMode, LoadSpec, OnError};
use starlift_common::row::{Row, RowBuffer};
use starlift_remote::starrocks::client::Client;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::encode::testing::{Cells, buffer, cells};
use crate::source::{Mark, ReadError, RowSource};

/// CSV into two columns, with delimiters that the job did not name.
pub(crate) fn load_spec() -> LoadSpec {
    let delimiter = |byte| Delimiter::new(vec![byte]).expect("one byte below 0x80");
    LoadSpec {
        datasource: "target".into(),
        database: "shop".into(),
        table: "orders".into(),
        columns: vec!["id".into(), "na`me".into()],
        cell_kinds: vec![CellKind::Number, CellKind::Text],
        checks: Vec::new(),
        load_urls: vec!["http://127.0.0.1:1".into()],
        format: Format::Csv,
        column_separator: delimiter(1),
        row_delimiter: delimiter(2),
        named_delimiters: false,
        headers: BTreeMap::new(),
        max_batch_rows: 1000,
        max_batch_bytes: 1 << 20,
        label_prefix: "sl".into(),
        timeout_s: None,
        max_part_bytes: 8 << 30,
        on_error: OnError::Exit,
        mode: LoadMode::Transaction,
        prepared_timeout_s: None,
        compression: None,
    }
}

/// Hands out given rows, then ends or stalls.
pub(crate) struct Rows {
    all: Vec<Cells>,
    /// The next one.
    at: usize,
    current: RowBuffer,
    stalls: bool,
}

impl Rows {
    /// Rows `0, name`, `1, name` and so on.
    pub(crate) fn numbered(names: &[&str], stalls: bool) -> Self {
        let numbered = names.iter().enumerate();
        let all = numbered.map(|(id, name)| cells(&[Some(&id.to_string()), Some(name)])).collect();
        Self::new(all, stalls)
    }

    pub(crate) fn new(all: Vec<Cells>, stalls: bool) -> Self {
        Self { all, at: 0, current: RowBuffer::default(), stalls }
    }
}

impl RowSource for Rows {
    fn row(&mut self) -> Result<Option<Row<'_>>, ReadError> {
        let Some(cells) = self.all.get(self.at) else { return Ok(None) };
        self.at += 1;
        self.current = buffer(cells);
        Ok(Some(self.current.row()))
    }

    fn mark(&self) -> Mark {
        Mark { at: self.at, sequence: 0 }
    }

    fn rewind(&mut self, mark: Mark) {
        self.at = mark.at;
    }

    async fn fill(&mut self) -> Result<bool, ReadError> {
        if self.at == self.all.len() && self.stalls {
            std::future::pending::<()>().await;
        }
        Ok(self.at < self.all.len())
    }

    fn is_utf8(&self) -> bool {
        false
    }
}

/// A StarRocks of one node that keeps the states of labels, counts rows by their delimiter `\x02`, and fails on demand.
/// Rows that hold `bad` are filtered, those that hold `skip` unselected.
pub(crate) struct FakeStarrocks {
    pub address: String,
    state: Arc<Mutex<FakeState>>,
    connections: Arc<AtomicUsize>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct FakeState {
    address: String,
    /// `operation label`, in order.
    calls: Vec<String>,
    loads: BTreeMap<String, Loaded>,
    states: BTreeMap<String, &'static str>,
    /// The next call of that operation is answered so, after it was done.
    answers: BTreeMap<String, (StatusCode, String)>,
    forgets_after: Option<&'static str>,
    /// Refusals tell no counts.
    keeps_counts: bool,
    most_open: usize,
}

/// What a transaction was sent.
#[derive(Debug, Clone, Default)]
struct Loaded {
    good: Vec<String>,
    filtered: usize,
    unselected: usize,
    most_filtered: f64,
}

impl Loaded {
    fn take(&mut self, body: &[u8]) {
        for row in String::from_utf8_lossy(body).split_terminator('\u{2}') {
            match row {
                row if row.contains("bad") => self.filtered += 1,
                row if row.contains("skip") => self.unselected += 1,
                row => self.good.push(row.to_owned()),
            }
        }
    }

    /// The server's text if it refuses.
    fn judged(&self) -> Option<&'static str> {
        #[expect(clippy::cast_precision_loss, reason = "few rows")]
        let ratio = self.filtered as f64 / (self.filtered + self.good.len()).max(1) as f64;
        if self.filtered > 0 && ratio > self.most_filtered {
            Some("too many filtered rows")
        } else if self.good.is_empty() {
            Some("all partitions have no load data")
        } else {
            None
        }
    }
}

impl FakeStarrocks {
    pub(crate) async fn start() -> Self {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let state = FakeState { address: address.clone(), ..FakeState::default() };
        let state = Arc::new(Mutex::new(state));
        let router = Router::new()
            .route("/api/transaction/{operation}", any(FakeState::operate))
            .route("/api/{database}/get_load_state", get(FakeState::load_state))
            .route("/api/_load_error_log", get(FakeState::error_log))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&state));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let server =
            tokio::spawn(async { axum::serve(listener, router).await.expect("it serves until dropped") });
        Self { address, state, connections, _server: AbortOnDropHandle::new(server) }
    }

    pub(crate) fn client(&self) -> Client {
        let entries =
            "[target]\ntype = \"starrocks\"\nhost = \"127.0.0.1\"\nusername = \"u\"\npassword = \"p\"\n";
        let datasources = Datasources::parse(entries, &|_| None).expect("one entry");
        let datasource = datasources.get("target").expect("the entry above");
        Client::new(datasource, &[format!("http://{}", self.address)]).expect("an address")
    }

    /// The next `operation` is done and answered with this instead of the truth.
    pub(crate) fn answer_next(&self, operation: &str, status: u16, body: &str) {
        let status = StatusCode::from_u16(status).expect("a status");
        self.state().answers.insert(operation.to_owned(), (status, body.to_owned()));
    }

    /// Labels are forgotten whenever this operation was called.
    pub(crate) fn forget_labels_after(&self, operation: &'static str) {
        self.state().forgets_after = Some(operation);
    }

    /// Connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// A refusal for want of rows tells no counts from now on.
    pub(crate) fn keep_counts(&self) {
        self.state().keeps_counts = true;
    }

    /// Rows in prepared transactions, in order.
    pub(crate) fn prepared_rows(&self) -> Vec<String> {
        let state = self.state();
        let prepared = state.states.iter().filter(|(_, name)| **name == "PREPARED");
        prepared.flat_map(|(label, _)| state.loads[label].good.clone()).collect()
    }

    /// Most transactions that were open at once.
    pub(crate) fn most_open(&self) -> usize {
        self.state().most_open
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().expect("no test panics here")
    }
}

impl FakeState {
    async fn operate(
        State(state): State<Arc<Mutex<Self>>>,
        Path(operation): Path<String>,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, String) {
        let label = headers["label"].to_str().expect("ASCII").to_owned();
        let mut state = state.lock().expect("no test panics here");
        let part = label.rsplit('_').next().expect("a label ends with its part");
        state.calls.push(format!("{operation} {part}"));
        let loaded = state.loads.entry(label.clone()).or_default();
        loaded.take(&body);
        if let Some(ratio) = headers.get("max_filter_ratio") {
            loaded.most_filtered = ratio.to_str().expect("ASCII").parse().expect("a number");
        }
        let loaded = loaded.clone();
        let refusal = if operation == "prepare" { loaded.judged() } else { None };
        let new_state = match operation.as_str() {
            "prepare" if refusal.is_none() => "PREPARED",
            "prepare" | "rollback" => "ABORTED",
            _ => "PREPARE",
        };
        state.states.insert(label, new_state);
        let open = state.states.values().filter(|state| **state != "ABORTED").count();
        state.most_open = state.most_open.max(open);
        if state.forgets_after == Some(operation.as_str()) {
            state.states.clear();
        }
        let mut answer = serde_json::json!({"Status": "OK", "TxnId": 7});
        if let Some(refusal) = refusal {
            answer["Status"] = "INTERNAL_ERROR".into();
            answer["Message"] = refusal.into();
        }
        if refusal.is_none() || !state.keeps_counts {
            answer["NumberLoadedRows"] = loaded.good.len().into();
            answer["NumberFilteredRows"] = loaded.filtered.into();
            answer["NumberUnselectedRows"] = loaded.unselected.into();
        }
        if loaded.filtered > 0 {
            answer["ErrorURL"] = format!("http://{}/api/_load_error_log?file=x", state.address).into();
        }
        state.answers.remove(&operation).unwrap_or((StatusCode::OK, answer.to_string()))
    }

    async fn error_log() -> &'static str {
        "Error: Value 'bad' is out of range. The type of 'id' is INT. Row: bad\n"
    }

    async fn load_state(
        State(state): State<Arc<Mutex<Self>>>,
        Query(query): Query<BTreeMap<String, String>>,
    ) -> String {
        let state = state.lock().expect("no test panics here");
        let name = state.states.get(&query["label"]).unwrap_or(&"UNKNOWN");
        serde_json::json!({"status": "OK", "state": name}).to_string()
    }
}
