//! Plain loads against a scripted server: every way in which the answer and the label's state can go together.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use starlift_common::datasource::{Datasources, LiveDatasources};
use starlift_common::ids::{JobId, TaskId, TaskKey};
use starlift_common::job::{LoadMode, ReadSpec, SourceKind};
use starlift_common::retry::FailureClass;
use starlift_common::task::{AttemptKey, TaskRange};
use starlift_remote::starrocks::clients::Clients;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::dirty::DirtySettings;
use crate::http::Status;
use crate::metrics::Metrics;
use crate::segment::SegmentPool;
use crate::testing::load_spec;

const LOST: &str = "";

/// An FE and a BE that play a script and note what they hear.
struct Server {
    script: Arc<Script>,
    frontend: String,
    _listening: [AbortOnDropHandle<()>; 2],
}

#[derive(Default)]
struct Script {
    backend: Mutex<String>,
    /// What the load is answered with; [`LOST`] is no answer.
    answer: Mutex<String>,
    /// What the label's state is, question after question; the last one stays.
    states: Mutex<VecDeque<&'static str>>,
    heard: Mutex<Vec<String>>,
}

impl Script {
    fn note(&self, call: &str) {
        self.heard.lock().expect("no panic").push(call.to_owned());
    }
}

impl Server {
    async fn start(answer: &str, states: &[&'static str]) -> Self {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let script = Arc::new(Script::default());
        answer.clone_into(&mut script.answer.lock().expect("no panic"));
        script.states.lock().expect("no panic").extend(states);
        let router = Router::new()
            .route("/api/{database}/{table}/_stream_load", any(stream_load))
            .route("/api/{database}/get_load_state", get(load_state))
            .route("/api/{database}/{label}/_cancel", post(cancel))
            .with_state(Arc::clone(&script));
        let (frontend, first) = listen(router.clone()).await;
        let (backend, second) = listen(router).await;
        *script.backend.lock().expect("no panic") = backend;
        Self { script, frontend, _listening: [first, second] }
    }

    fn heard(&self) -> Vec<String> {
        self.script.heard.lock().expect("no panic").clone()
    }
}

async fn listen(router: Router) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let server =
        tokio::spawn(async { axum::serve(listener, router).await.expect("it serves until dropped") });
    (address, AbortOnDropHandle::new(server))
}

async fn stream_load(
    State(script): State<Arc<Script>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if headers.contains_key(header::EXPECT) {
        assert_eq!(
            (&headers["connection"], &headers["content-length"]),
            (&"close".parse().unwrap(), &"0".parse().unwrap())
        );
        let backend = script.backend.lock().expect("no panic").clone();
        let location = format!("http://{backend}{}", uri.path());
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response();
    }
    match to_bytes(body, usize::MAX).await {
        Ok(body) => script.note(&format!("load {:?}", String::from_utf8_lossy(&body))),
        Err(_) => script.note("broken"),
    }
    match script.answer.lock().expect("no panic").as_str() {
        LOST => StatusCode::BAD_GATEWAY.into_response(),
        answer => answer.to_owned().into_response(),
    }
}

async fn load_state(State(script): State<Arc<Script>>) -> String {
    let mut states = script.states.lock().expect("no panic");
    let state = if states.len() > 1 { states.pop_front() } else { states.front().copied() };
    let state = state.unwrap_or("UNKNOWN");
    script.note(state);
    serde_json::json!({"status": "OK", "state": state}).to_string()
}

async fn cancel(State(script): State<Arc<Script>>) -> &'static str {
    script.note("cancel");
    r#"{"status":"OK","msg":"Success"}"#
}

/// An attempt on a scripted server.
struct Stage {
    server: Server,
    client: Client,
    grant: Grant,
    tools: Tools,
    control: Control,
}

impl Stage {
    async fn set(epoch: u64, answer: &str, states: &[&'static str]) -> Self {
        let server = Server::start(answer, states).await;
        let entries =
            "[target]\ntype = \"starrocks\"\nhost = \"127.0.0.1\"\nusername = \"u\"\npassword = \"p\"\n";
        let datasources = Datasources::parse(entries, &|_| None).expect("one entry");
        let target = datasources.get("target").expect("the entry above");
        let client = Client::new(target, std::slice::from_ref(&server.frontend)).expect("an address");
        let mut load = load_spec();
        load.mode = LoadMode::Plain;
        let task = TaskKey { job: JobId::from_parts(1, 1), task: TaskId(0) };
        let grant = Grant {
            attempt: AttemptKey { task, epoch: Epoch(epoch) },
            attempt_number: 1,
            lease: Duration::from_secs(15),
            read: ReadSpec {
                datasource: "nowhere".into(),
                kind: SourceKind::Mysql,
                database: "shop".into(),
                table: "orders".into(),
                hint: None,
                select: vec!["`id`".into(), "`name`".into()],
                names: vec!["id".into(), "name".into()],
                filter: None,
                key: None,
                time_zone: None,
                query: None,
            },
            range: TaskRange::Whole,
            load,
            rows_estimate: 0,
            bytes_per_second: None,
            dirty_allowed: 0,
        };
        let tools = Tools {
            datasources: LiveDatasources::default(),
            clients: Clients::new(LiveDatasources::default()),
            status: Arc::new(Status { metrics: Metrics::new(1), ready: AtomicBool::new(false) }),
            dirty: DirtySettings::default(),
            clock: crate::agent::now,
        };
        let control = Control::new(None);
        control.confirm();
        Self { server, client, grant, tools, control }
    }

    fn attempt(&self) -> PlainLoad<'_> {
        PlainLoad::new(&self.grant, &self.tools, &self.control, &self.client)
    }

    /// Loads these pieces as one pass does.
    async fn load(
        &self,
        attempt: &mut PlainLoad<'_>,
        pieces: Vec<Piece>,
    ) -> Result<Option<Counted>, Failure> {
        let times = TxnTimes::new(&self.grant.load, 0, None, self.grant.lease);
        let form = Rung::Planned.form(&self.grant.load, [0; 32]);
        let headers = LoadHeaders::new(&self.grant.load, &form, times).expect("plain headers");
        let (sender, received) = mpsc::channel(16);
        for piece in pieces {
            sender.try_send(piece).expect("room for a short script");
        }
        drop(sender);
        attempt.load(&headers, times.timeout(), received).await
    }

    /// Loads two rows, and tells how that ended: rows loaded, or what failed.
    async fn two_rows(&self) -> (Result<Option<u64>, Failure>, Standing) {
        let mut attempt = self.attempt();
        let loaded = self.load(&mut attempt, two_rows()).await.map(|counted| match counted {
            Some(Counted::Part(part)) => {
                assert_eq!((part.rows_sent, part.loads), (2, 1));
                Some(part.rows_loaded)
            }
            Some(Counted::Unselected(rows)) => {
                assert_eq!(rows, 2);
                Some(0)
            }
            Some(Counted::Unknown) => None,
            None => panic!("there were rows"),
        });
        (loaded, attempt.standing)
    }
}

fn two_rows() -> Vec<Piece> {
    vec![segment("1\x01a\x02"), segment("2\x01b\x02"), end(2), Piece::Finish]
}

fn segment(text: &str) -> Piece {
    let mut segment = SegmentPool::new(0).take();
    segment.bytes.extend_from_slice(text.as_bytes());
    Piece::Segment(segment)
}

fn end(rows: u64) -> Piece {
    Piece::End(BatchSize { rows, bytes: 4 * rows })
}

fn answer(status: &str, message: &str, loaded: u64) -> String {
    serde_json::json!({
        "Status": status, "Message": message, "TxnId": 7, "NumberTotalRows": loaded, "NumberLoadedRows": loaded,
    })
    .to_string()
}

#[tokio::test]
async fn a_body_goes_to_the_be_alone_and_its_rows_are_counted() {
    for status in ["Success", "Publish Timeout"] {
        let stage = Stage::set(1, &answer(status, "OK", 2), &[]).await;
        assert_eq!(stage.two_rows().await.0.expect("loaded"), Some(2));
        assert_eq!(stage.server.heard(), ["UNKNOWN", r#"load "1\u{1}a\u{2}2\u{1}b\u{2}""#]);
    }
}

#[tokio::test]
async fn a_label_in_use_is_foreign_to_a_first_attempt_in_both_forms() {
    for conflict in [
        answer("Label Already Exists", "Label [x] has already been used.", 0),
        answer("Fail", "cancel stream task for exception: Label [x] has already been used.", 0),
    ] {
        let stage = Stage::set(1, &conflict, &["UNKNOWN", "VISIBLE"]).await;
        let (loaded, standing) = stage.two_rows().await;
        assert!(matches!(loaded, Err(Failure::ForeignLabel { .. })), "{loaded:?}");
        assert_eq!(standing, Standing::Nothing);
        assert_eq!(stage.server.heard().len(), 2, "it is left alone");
    }
}

/// The refusal of such a label can get lost with the connection, because it comes before the body was read.
#[tokio::test]
async fn nothing_is_sent_under_a_label_that_the_server_knows_already() {
    for state in ["VISIBLE", "COMMITTED", "PREPARE"] {
        let stage = Stage::set(1, LOST, &[state]).await;
        let (loaded, standing) = stage.two_rows().await;
        assert!(matches!(loaded, Err(Failure::ForeignLabel { .. })), "{loaded:?}");
        assert_eq!((standing, stage.server.heard()), (Standing::Nothing, vec![state.to_owned()]));
    }
    let stage = Stage::set(1, &answer("Success", "OK", 2), &["ABORTED"]).await;
    assert_eq!(stage.two_rows().await.0.expect("a label that holds nothing is free"), Some(2));
}

#[tokio::test]
async fn a_label_in_use_by_an_earlier_attempt_is_asked_for() {
    let conflict = answer("Label Already Exists", "Label [x] has already been used.", 0);
    let stage = Stage::set(2, &conflict, &["VISIBLE"]).await;
    assert_eq!(stage.two_rows().await.0.expect("loaded by the other"), None);
    let stage = Stage::set(2, &conflict, &["ABORTED"]).await;
    let failure = stage.two_rows().await.0.expect_err("to be done again");
    assert_eq!(failure.class(), FailureClass::Transient);
}

#[tokio::test]
async fn a_later_attempt_finds_its_predecessors_load_before_it_reads_a_row() {
    for state in ["VISIBLE", "COMMITTED"] {
        let stage = Stage::set(2, LOST, &[state]).await;
        let outcome = stage.attempt().run().await;
        assert_eq!(outcome, Outcome::Loaded { prepared: Prepared::default(), counted: false });
        assert_eq!(stage.server.heard(), ["cancel", state]);
    }
}

#[tokio::test]
async fn a_later_attempt_cancels_what_runs_until_it_is_gone() {
    let stage = Stage::set(2, LOST, &["PREPARE", "ABORTED"]).await;
    let outcome = stage.attempt().run().await;
    assert_eq!(stage.server.heard(), ["cancel", "PREPARE", "cancel", "ABORTED"]);
    // Only then does it look for its source, which nobody knows.
    let Outcome::Failed { problem, begun, all_rolled_back, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((problem.code, begun.is_none(), all_rolled_back), (Code::UnknownDatasource, true, true));
}

#[tokio::test]
async fn a_follower_that_knows_nothing_is_not_believed_before_the_leader_was_found() {
    let stage = Stage::set(2, LOST, &["UNKNOWN", "VISIBLE"]).await;
    assert!(matches!(stage.attempt().run().await, Outcome::Loaded { counted: false, .. }));
    assert_eq!(stage.server.heard(), ["cancel", "UNKNOWN", "cancel", "VISIBLE"]);
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_the_labels_state() {
    let in_doubt = answer("Fail", "Commit transaction fail, Transaction status unknown", 0);
    for lost in [LOST, &in_doubt] {
        for state in ["VISIBLE", "COMMITTED"] {
            let stage = Stage::set(1, lost, &["UNKNOWN", state]).await;
            assert_eq!(stage.two_rows().await.0.expect("loaded"), Some(2));
        }
        let stage = Stage::set(1, lost, &["UNKNOWN", "PREPARE", "VISIBLE"]).await;
        assert_eq!(stage.two_rows().await.0.expect("it was given time"), Some(2));
        assert_eq!(stage.server.heard()[2..], ["PREPARE", "VISIBLE"]);

        let stage = Stage::set(1, lost, &["UNKNOWN", "ABORTED"]).await;
        let (loaded, standing) = stage.two_rows().await;
        assert!(matches!(loaded, Err(Failure::Call { .. })) && standing == Standing::Nothing, "{loaded:?}");

        let stage = Stage::set(1, lost, &["UNKNOWN"]).await;
        let (loaded, standing) = stage.two_rows().await;
        let failure = loaded.expect_err("in doubt");
        assert_eq!((failure.class(), standing), (FailureClass::Unknown, Standing::Whole));
    }
}

#[tokio::test]
async fn rows_that_may_have_been_left_out_are_not_guessed() {
    let mut stage = Stage::set(1, LOST, &["UNKNOWN", "VISIBLE"]).await;
    stage.grant.load.headers.insert("max_filter_ratio".into(), "0.5".into());
    assert_eq!(stage.two_rows().await.0.expect("loaded"), None);
}

#[tokio::test]
async fn a_refusal_keeps_its_own_meaning_when_nothing_is_known_of_the_label() {
    for (words, class) in [
        ("current running txns on db 1 is 100, larger than limit 100", FailureClass::Distress),
        ("too many filtered rows", FailureClass::Permanent),
    ] {
        let stage = Stage::set(1, &answer("Fail", words, 0), &["UNKNOWN"]).await;
        let (loaded, standing) = stage.two_rows().await;
        assert_eq!((loaded.expect_err("refused").class(), standing), (class, Standing::Nothing));
    }
}

#[tokio::test]
async fn a_load_whose_rows_were_all_unselected_is_done() {
    let empty = answer("Fail", "all partitions have no load data", 0);
    let mut stage = Stage::set(1, &empty, &["ABORTED"]).await;
    let (loaded, _) = stage.two_rows().await;
    assert!(matches!(loaded, Err(Failure::Counts { sent: 2, accounted: 0, .. })), "{loaded:?}");
    stage.grant.load.headers.insert("where".into(), "id > 9".into());
    assert_eq!(stage.two_rows().await.0.expect("nothing to load"), Some(0));
}

#[tokio::test]
async fn a_body_never_ends_before_the_reading_side_has() {
    let stage = Stage::set(1, &answer("Success", "OK", 2), &["ABORTED"]).await;
    let mut attempt = stage.attempt();
    let cut_off = vec![segment("1\x01a\x02"), end(1)];
    assert!(matches!(stage.load(&mut attempt, cut_off).await, Err(Failure::Internal(_))));
    let second_body = vec![segment("1\x01a\x02"), end(1), segment("2\x01b\x02"), end(1), Piece::Finish];
    let failure = stage.load(&mut attempt, second_body).await.expect_err("one body is all it takes");
    assert_eq!(failure.class(), FailureClass::Permanent);
    assert_eq!(attempt.standing, Standing::Open);
    assert!(!stage.server.heard().iter().any(|call| call.starts_with("load")), "{:?}", stage.server.heard());
}

#[tokio::test]
async fn a_range_without_rows_is_never_sent() {
    let stage = Stage::set(1, LOST, &[]).await;
    let mut attempt = stage.attempt();
    assert!(matches!(stage.load(&mut attempt, vec![Piece::Finish]).await, Ok(None)));
    assert!(stage.server.heard().is_empty());
}

#[tokio::test]
async fn an_attempt_that_was_told_to_stop_does_not_touch_the_label() {
    let stage = Stage::set(2, LOST, &["PREPARE"]).await;
    stage.control.stop.cancel();
    let end = run(&stage.grant, &stage.tools, &stage.control, &stage.client).await;
    assert!(matches!(end, End::Abandoned) && stage.server.heard().is_empty());
}

#[tokio::test]
async fn an_attempt_that_is_given_back_closes_what_may_run() {
    let stage = Stage::set(2, LOST, &["ABORTED"]).await;
    stage.control.give_back.cancel();
    let outcome = stage.attempt().run().await;
    assert!(matches!(outcome, Outcome::GivenBack { all_rolled_back: true, .. }), "{outcome:?}");
    assert_eq!(stage.server.heard(), ["cancel", "ABORTED"]);
}
