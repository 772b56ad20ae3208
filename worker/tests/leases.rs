//! A whole worker against a scripted coordinator: what it takes, renews, reports, and when it falls silent. Sources are
//! unknown, or accept connections and never speak, so that no database is needed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use starlift_common::datasource::{Datasources, LiveDatasources};
use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey};
use starlift_common::job::{CellKind, Delimiter, Format, LoadMode, LoadSpec, OnError, ReadSpec, SourceKind};
use starlift_common::problem::Code;
use starlift_common::task::{AttemptKey, LabelsBegun, Outcome, TaskRange};
use starlift_common::wire::{self, Grant};
use starlift_proto as pb;
use starlift_proto::worker_service_server::{WorkerService, WorkerServiceServer};
use starlift_worker::{Config, Listeners};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// How heartbeats are answered.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Renew,
    Stop,
    Silent,
}

/// A coordinator that plays a script and notes what it hears.
struct Script {
    grants: Mutex<Vec<Grant>>,
    mood: Mutex<Mood>,
    /// So many reports are left without an answer.
    reports_to_lose: Mutex<u32>,
    heartbeats: Mutex<Vec<pb::HeartbeatRequest>>,
    reports: Mutex<Vec<(AttemptKey, Outcome)>>,
    heard: Notify,
}

#[derive(Clone)]
struct Coordinator(Arc<Script>);

#[tonic::async_trait]
impl WorkerService for Coordinator {
    async fn acquire(
        &self,
        request: Request<pb::AcquireRequest>,
    ) -> Result<Response<pb::AcquireReply>, Status> {
        let free = usize::try_from(request.get_ref().free_slots).expect("a few slots");
        let grants: Vec<pb::TaskGrant> = {
            let mut waiting = self.0.grants.lock().expect("no panic");
            let count = waiting.len().min(free);
            waiting.drain(..count).map(|grant| (&grant).into()).collect()
        };
        if grants.is_empty() {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(pb::AcquireReply { grants, ..Default::default() }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatReply>, Status> {
        let request = request.into_inner();
        let mood = *self.0.mood.lock().expect("no panic");
        let order = if mood == Mood::Stop { pb::Order::Stop } else { pb::Order::Continue };
        let order = |line: &pb::TaskProgress| pb::TaskOrder {
            job_id: line.job_id.clone(),
            task_id: line.task_id,
            epoch: line.epoch,
            order: order.into(),
            bytes_per_second: 0,
        };
        let orders = request.tasks.iter().map(order).collect();
        self.0.heartbeats.lock().expect("no panic").push(request);
        self.0.heard.notify_waiters();
        match mood {
            Mood::Silent => Err(Status::unavailable("not today")),
            Mood::Renew | Mood::Stop => {
                Ok(Response::new(pb::HeartbeatReply { orders, ..Default::default() }))
            }
        }
    }

    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportReply>, Status> {
        let heard = wire::outcome(request.into_inner()).expect("a readable report");
        self.0.reports.lock().expect("no panic").push(heard);
        self.0.heard.notify_waiters();
        let mut to_lose = self.0.reports_to_lose.lock().expect("no panic");
        if *to_lose > 0 {
            *to_lose -= 1;
            return Err(Status::unavailable("lost"));
        }
        Ok(Response::new(pb::ReportReply { accepted: true }))
    }

    async fn spend(&self, _: Request<pb::SpendRequest>) -> Result<Response<pb::SpendReply>, Status> {
        Err(Status::not_found("no job here has a speed limit"))
    }

    async fn report_check(
        &self,
        _: Request<pb::ReportCheckRequest>,
    ) -> Result<Response<pb::ReportCheckReply>, Status> {
        Ok(Response::new(pb::ReportCheckReply {}))
    }
}

/// A worker under test, its coordinator, and a source that never speaks.
struct Stage {
    script: Arc<Script>,
    worker: JoinHandle<()>,
    shutdown: CancellationToken,
    _silent: TcpListener,
}

impl Stage {
    /// One task from `source`, under a lease of `lease_ms`.
    async fn set(
        source: &str,
        lease_ms: u64,
        mood: Mood,
        reports_to_lose: u32,
        drain_timeout: Duration,
    ) -> Self {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = silent.local_addr().expect("bound").port();
        let entries = format!(
            "[silent]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = {port}\nusername = \"u\"\npassword = \"p\"\n\
             [target]\ntype = \"starrocks\"\nhost = \"127.0.0.1\"\nport = 1\nusername = \"u\"\npassword = \"p\"\n"
        );
        let datasources = Datasources::parse(&entries, &|_| None).expect("two entries");
        let script = Arc::new(Script {
            grants: Mutex::new(vec![grant(source, Duration::from_millis(lease_ms))]),
            mood: Mutex::new(mood),
            reports_to_lose: Mutex::new(reports_to_lose),
            heartbeats: Mutex::default(),
            reports: Mutex::default(),
            heard: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = WorkerServiceServer::new(Coordinator(Arc::clone(&script)));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        // The first address is dead: workers try all they know.
        let addresses = vec!["http://127.0.0.1:1".to_owned(), format!("http://{address}")];
        let config =
            Config { slots: 1, drain_timeout, ..Config::new(addresses, LiveDatasources::new(datasources)) };
        let shutdown = CancellationToken::new();
        let worker = starlift_worker::run(config, Listeners::default(), shutdown.clone());
        let worker = tokio::spawn(async { worker.await.expect("nothing is wrong with the settings") });
        Self { script, worker, shutdown, _silent: silent }
    }

    async fn until(&self, holds: impl Fn(&Script) -> bool) {
        let waiting = async {
            loop {
                let heard = self.script.heard.notified();
                if holds(&self.script) {
                    return;
                }
                heard.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .expect("the worker says what is waited for");
    }

    /// Shuts the worker down and returns all reports it made.
    async fn end(self) -> Vec<Outcome> {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.worker)
            .await
            .expect("the worker ends")
            .expect("no panic");
        let reports = self.script.reports.lock().expect("no panic");
        reports.iter().map(|(_, outcome)| outcome.clone()).collect()
    }
}

fn grant(source: &str, lease: Duration) -> Grant {
    let delimiter = |byte| Delimiter::new(vec![byte]).expect("one byte");
    Grant {
        attempt: AttemptKey {
            task: TaskKey { job: JobId::from_parts(1, 1), task: TaskId(7) },
            epoch: Epoch(3),
        },
        attempt_number: 1,
        lease,
        read: ReadSpec {
            datasource: source.into(),
            kind: SourceKind::Mysql,
            database: "shop".into(),
            table: "orders".into(),
            hint: None,
            select: vec!["`id`".into()],
            names: vec!["id".into()],
            filter: None,
            key: None,
            time_zone: None,
            query: None,
        },
        range: TaskRange::Whole,
        load: LoadSpec {
            datasource: "target".into(),
            database: "shop".into(),
            table: "orders".into(),
            columns: vec!["id".into()],
            cell_kinds: vec![CellKind::Number],
            checks: Vec::new(),
            load_urls: vec!["http://127.0.0.1:1".into()],
            format: Format::Csv,
            column_separator: delimiter(1),
            row_delimiter: delimiter(2),
            named_delimiters: false,
            headers: std::collections::BTreeMap::new(),
            max_batch_rows: 10,
            max_batch_bytes: 1000,
            label_prefix: "sl".into(),
            timeout_s: None,
            max_part_bytes: 1000,
            on_error: OnError::Exit,
            mode: LoadMode::Transaction,
            prepared_timeout_s: None,
            compression: None,
        },
        rows_estimate: 0,
        bytes_per_second: None,
        dirty_allowed: 0,
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_failure_is_reported_until_the_report_is_answered() {
    let stage = Stage::set("nowhere", 15_000, Mood::Renew, 2, LONG).await;
    stage.until(|script| script.reports.lock().expect("no panic").len() == 3).await;
    let reports = stage.end().await;
    assert_eq!(reports.len(), 3);
    for report in reports {
        let Outcome::Failed {
            problem,
            begun: LabelsBegun { parts: 0, trials: 0 },
            all_rolled_back: true,
            ..
        } = report
        else {
            panic!("{report:?}");
        };
        assert_eq!(problem.code, Code::UnknownDatasource);
    }
}

#[tokio::test]
async fn the_first_heartbeat_comes_with_the_grant_and_others_before_the_lease_ends() {
    let stage = Stage::set("silent", 1000, Mood::Renew, 0, Duration::ZERO).await;
    stage.until(|script| script.heartbeats.lock().expect("no panic").len() >= 8).await;
    {
        let heartbeats = stage.script.heartbeats.lock().expect("no panic");
        let line = &heartbeats[0].tasks[0];
        assert_eq!((line.task_id, line.epoch, line.parts_begun), (7, 3, 0));
    }
    // Eight heartbeats take longer than a lease, and the worker still holds the task: it gives it back when told to go.
    let reports = stage.end().await;
    assert!(
        matches!(
            reports[..],
            [Outcome::GivenBack { begun: LabelsBegun { parts: 0, trials: 0 }, all_rolled_back: true }]
        ),
        "{reports:?}"
    );
}

#[tokio::test]
async fn a_task_whose_lease_was_never_renewed_ends_without_a_report() {
    let stage = Stage::set("silent", 500, Mood::Silent, 0, LONG).await;
    stage.until(|script| !script.heartbeats.lock().expect("no panic").is_empty()).await;
    // Given up by the lease alone: the drain would wait ten minutes.
    assert!(stage.end().await.is_empty());
}

#[tokio::test]
async fn a_task_that_is_told_to_stop_ends_without_a_report() {
    let stage = Stage::set("silent", 60_000, Mood::Stop, 0, LONG).await;
    stage.until(|script| !script.heartbeats.lock().expect("no panic").is_empty()).await;
    assert!(stage.end().await.is_empty());
}
