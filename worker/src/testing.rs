//! What unit tests share: a spec, and a StarRocks that does as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, get};
use bytes::Bytes;
use starlift_common::datasource::Datasources;
use starlift_common::job::{CellKind, Delimiter, Format, LoadMode, LoadSpec, OnError};
use starlift_remote::starrocks::client::Client;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// CSV into two columns, with delimiters that the job did not name.
pub(crate) fn load_spec() -> LoadSpec {
    let delimiter = |byte| Delimiter::new(vec![byte]).expect("one byte below 0x80");
    LoadSpec {
        datasource: "target".into(),
        database: "shop".into(),
        table: "orders".into(),
        columns: vec!["id".into(), "na`me".into()],
        cell_kinds: vec![CellKind::Number, CellKind::Text],
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
    }
}

/// A StarRocks of one node that keeps the states of labels, counts rows by their delimiter `\x02`, and fails on demand.
pub(crate) struct FakeStarrocks {
    pub address: String,
    state: Arc<Mutex<FakeState>>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct FakeState {
    /// `operation label`, in order.
    calls: Vec<String>,
    rows: BTreeMap<String, usize>,
    states: BTreeMap<String, &'static str>,
    /// The next call of that operation is answered so, after it was done.
    answers: BTreeMap<String, (StatusCode, String)>,
    forgets_after: Option<&'static str>,
}

impl FakeStarrocks {
    pub(crate) async fn start() -> Self {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let state = Arc::<Mutex<FakeState>>::default();
        let router = Router::new()
            .route("/api/transaction/{operation}", any(FakeState::operate))
            .route("/api/{database}/get_load_state", get(FakeState::load_state))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&state));
        let server =
            tokio::spawn(async { axum::serve(listener, router).await.expect("it serves until dropped") });
        Self { address, state, _server: AbortOnDropHandle::new(server) }
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

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
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
        let rows = state.rows.entry(label.clone()).or_default();
        *rows += body.iter().filter(|byte| **byte == 2).count();
        let rows = *rows;
        let new_state = match operation.as_str() {
            "prepare" => "PREPARED",
            "rollback" => "ABORTED",
            _ => "PREPARE",
        };
        state.states.insert(label, new_state);
        if state.forgets_after == Some(operation.as_str()) {
            state.states.clear();
        }
        let answer = serde_json::json!({"Status": "OK", "TxnId": 7, "NumberLoadedRows": rows}).to_string();
        state.answers.remove(&operation).unwrap_or((StatusCode::OK, answer))
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
