//! Chaos: whole jobs while processes are killed and stopped, answers are lost or late, and every server restarts. All of
//! a round is drawn from its seed; afterwards the target must equal the source and nothing may be open.
//!
//! ```text
//! STARLIFT_CHAOS_ROUNDS   how many rounds (default 3)
//! STARLIFT_CHAOS_SEED     seed of the first one; the next have the next numbers (default: drawn anew)
//! STARLIFT_CHAOS_BINARY   another build of `starlift` to put to the test
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cluster::{Outcome, workspace, write_job};
use crate::etcd::Etcd;
use crate::mariadb::MariaDb;
use crate::migration::{COLUMNS, create_target, datasources, fill_source, orders_job};
use crate::process::{self, Process, free_address, output, until};
use crate::rows::{self, Rows};
use crate::standin::Standin;

const COORDINATORS: usize = 2;
const WORKERS: usize = 4;
const SLOTS: u32 = 2;
const FRONTENDS: usize = 2;
const BACKENDS: usize = 3;
const ROWS: u32 = 12_000;
/// What the source claims to hold, so that the planner makes some forty tasks of it.
const ROWS_CLAIMED: u32 = 2_500_000;
/// How fast one load may be sent: slow enough that the storm meets every task.
const LOAD_BYTES_PER_SECOND: u32 = 45_000;
const LEASE: &str = "3s";
/// How long a silent coordinator keeps the lead.
const LEADER_TTL: &str = "2s";
/// How long things break in a round.
const STORM: Duration = Duration::from_secs(5);
/// How long answers go on being lost after that, unless the job ends sooner.
const DRIZZLE: Duration = Duration::from_secs(6);
/// How long the job may go on once nothing breaks any more.
const CALM: Duration = Duration::from_secs(60);
/// Between two questions how the job stands.
const PAUSE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn chaos_costs_no_row_and_doubles_none() {
    let rounds = number("STARLIFT_CHAOS_ROUNDS").unwrap_or(3);
    let first = number("STARLIFT_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let mut stage = Stage::set().await;
    for seed in (first..).take(usize::try_from(rounds).expect("not that many rounds")) {
        let started = Instant::now();
        let mut round = Round::start(&mut stage, seed).await;
        match round.play().await {
            Ok(line) => println!("seed {seed}: {line}, {:.1} s", started.elapsed().as_secs_f64()),
            Err(finding) => {
                let kept = round.keep_logs();
                panic!("seed {seed}: {finding}\nlogs: {}", kept.display());
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// What breaks, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    KillWorker(usize),
    StopWorker(usize),
    ContinueWorker(usize),
    KillCoordinator(usize),
    StartCoordinator(usize),
    StopCoordinator(usize),
    ContinueCoordinator(usize),
    RestartEtcd,
    RestartDatabase,
    KillReadingConnections,
    LeadBy(usize),
    FrontendDown(usize),
    FrontendUp(usize),
    BackendDown(usize),
    BackendUp(usize),
    /// The next request of that kind waits.
    Hold(&'static str),
    Release,
}

/// The acts of a storm, in the order of their time since its start.
fn storm(random: &mut Rng) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    let mut at = Duration::from_millis(300);
    while at < STORM {
        let mut add = |after_ms: u64, act: Act| acts.push((at + Duration::from_millis(after_ms), act));
        let beyond_the_lease = random.u64(3_500..5_500);
        let (worker, coordinator) = (random.usize(..WORKERS), random.usize(..COORDINATORS));
        let (frontend, backend) = (random.usize(..FRONTENDS), random.usize(..BACKENDS));
        match random.u32(..20) {
            0..4 => add(0, Act::KillWorker(worker)),
            4..7 => {
                add(0, Act::StopWorker(worker));
                add(beyond_the_lease, Act::ContinueWorker(worker));
            }
            7..10 => {
                add(0, Act::KillCoordinator(coordinator));
                add(random.u64(100..3_000), Act::StartCoordinator(coordinator));
            }
            10..12 => {
                add(0, Act::StopCoordinator(coordinator));
                add(random.u64(500..6_000), Act::ContinueCoordinator(coordinator));
            }
            12 => add(0, Act::RestartEtcd),
            13 => add(0, Act::RestartDatabase),
            14 => add(0, Act::KillReadingConnections),
            15 => add(0, Act::LeadBy(frontend)),
            16 => {
                add(0, Act::FrontendDown(frontend));
                add(random.u64(300..2_000), Act::FrontendUp(frontend));
            }
            17..19 => {
                add(0, Act::BackendDown(backend));
                add(random.u64(300..2_000), Act::BackendUp(backend));
            }
            _ => {
                let op = ["begin", "load", "prepare", "commit", "rollback"][random.usize(..5)];
                add(0, Act::Hold(op));
                add(random.u64(1_000..5_000), Act::Release);
            }
        }
        at += Duration::from_millis(random.u64(150..900));
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}

/// One request in ten is lost, answered late, or misunderstood; how, is drawn for each kind of request. `in_parts`:
/// loads are slow besides, so that tasks grow old enough for a second part.
fn weather(random: &mut Rng, in_parts: bool) -> Value {
    let publish_timeout =
        json!({ "do": "do_then_answer", "status": "FAILED", "message": "publish timeout: 20000" });
    let pressure = json!({ "do": "refuse", "status": "INTERNAL_ERROR",
        "message": "current running txns on db 10005 is 1000, larger than limit 1000" });
    let mut rules = Vec::new();
    for op in ["begin", "load", "prepare", "commit", "rollback", "get_load_state"] {
        let mut actions = vec![
            json!({ "do": "do_then_cut" }),
            json!({ "do": "cut" }),
            json!({ "do": "http", "code": 502, "body": "bad gateway" }),
            json!({ "do": "delay_before", "ms": random.u64(200..3_000) }),
            json!({ "do": "delay_after", "ms": random.u64(200..3_000) }),
        ];
        actions.extend(match op {
            "begin" => Some(pressure.clone()),
            "load" => Some(json!({ "do": "cut_body", "after_bytes": random.u64(..20_000) })),
            "commit" => Some(publish_timeout.clone()),
            _ => None,
        });
        random.shuffle(&mut actions);
        for mut rule in actions.into_iter().take(2) {
            rule["op"] = json!(op);
            rule["count"] = Value::Null;
            rule["probability"] = json!(0.05);
            rule["seed"] = json!(random.u64(..));
            rules.push(rule);
        }
    }
    if in_parts {
        rules.push(json!({ "op": "load", "count": null, "do": "delay_before", "ms": 400 }));
    }
    json!(rules)
}

/// The job of a round: how it is loaded differs, what it must come to does not.
fn script(random: &mut Rng, seed: u64, in_parts: bool) -> Value {
    let mut load = json!({ "format": if random.u32(..3) == 0 { "json" } else { "csv" } });
    let mut batch_bytes = random.u32(20_000..400_000);
    if in_parts {
        // A part is closed at half of it, between two batches.
        load["timeout"] = json!("4");
        batch_bytes = random.u32(12_000..20_000);
    }
    // One commit for all needs each task in one transaction.
    let commit = if !in_parts && random.u32(..3) == 0 { "job" } else { "task" };
    let writer = json!({
        "loadProps": load,
        "maxBatchSize": batch_bytes,
        "preSql": [
            format!("INSERT INTO dw.begun VALUES ({seed})"),
            "SELECT SLEEP(1)",
            "TRUNCATE TABLE @table",
        ],
        "postSql": [format!("INSERT INTO dw.ended SELECT {seed}, COUNT(*) FROM dw.orders")],
    });
    let concurrent = WORKERS * SLOTS as usize;
    let setting = json!({ "speed": { "concurrent": concurrent }, "starlift": { "commit": commit } });
    let mut script = orders_job(writer, setting);
    // Tasks that last long enough for several parts, or many that are short.
    script["steps"][0]["parameter"]["splitFactor"] = json!(if in_parts { 2 } else { 5 });
    script
}

/// The servers that all rounds share.
struct Stage {
    source: MariaDb,
    target: Standin,
    etcd: Etcd,
    wanted: Rows,
    binary: PathBuf,
}

impl Stage {
    async fn set() -> Self {
        let nodes = |count: usize| vec!["127.0.0.1:0"; count].join(",");
        let (frontends, backends, speed) =
            (nodes(FRONTENDS), nodes(BACKENDS), LOAD_BYTES_PER_SECOND.to_string());
        let flags = [
            "--fe-http",
            &frontends,
            "--be-http",
            &backends,
            "--be-bytes-per-second",
            &speed,
            "--backend-death-notice-ms",
            "500",
            "--label-keep-max-num",
            "20000",
        ];
        let (mut source, target, etcd) =
            tokio::join!(MariaDb::start(), Standin::start(&flags), Etcd::start());
        fill_source(&source, ROWS).await;
        source.claim_rows("orders", ROWS_CLAIMED).await;
        create_target(&target).await;
        target
            .run(&[
                "CREATE TABLE dw.begun (seed BIGINT) DUPLICATE KEY(seed) DISTRIBUTED BY HASH(seed) BUCKETS 1",
                "CREATE TABLE dw.ended (seed BIGINT, found BIGINT) DUPLICATE KEY(seed) \
                 DISTRIBUTED BY HASH(seed) BUCKETS 1",
            ])
            .await;
        let wanted = rows::read(source.connect().await, &format!("SELECT {COLUMNS} FROM shop.orders")).await;
        let binary = std::env::var_os("STARLIFT_CHAOS_BINARY").filter(|path| !path.is_empty());
        Self {
            source,
            target,
            etcd,
            wanted,
            binary: binary.map_or_else(|| process::binary("starlift"), PathBuf::from),
        }
    }

    async fn value(&self, query: &str) -> Option<u64> {
        self.target.connect().await.query_first::<Option<u64>, _>(query).await.expect("a query").flatten()
    }
}

/// A coordinator of a round, which comes back under its own addresses.
struct Coordinator {
    grpc: String,
    http: String,
    /// `None` between a kill and the next start.
    process: Option<Process>,
}

/// One job, and the processes that run it.
struct Round<'a> {
    stage: &'a mut Stage,
    seed: u64,
    random: Rng,
    dir: TempDir,
    coordinators: Vec<Coordinator>,
    workers: Vec<Process>,
    started: usize,
}

impl<'a> Round<'a> {
    async fn start(stage: &'a mut Stage, seed: u64) -> Self {
        let dir = workspace(&datasources(&stage.source, &stage.target));
        let coordinators = (0..COORDINATORS).map(|_| Coordinator {
            grpc: free_address().to_string(),
            http: free_address().to_string(),
            process: None,
        });
        let coordinators = coordinators.collect();
        let random = Rng::with_seed(seed);
        let mut round = Self { stage, seed, random, dir, coordinators, workers: Vec::new(), started: 0 };
        for place in 0..COORDINATORS {
            round.start_coordinator(place);
        }
        round.wait_until_ready().await;
        for _ in 0..WORKERS {
            let worker = round.new_worker();
            round.workers.push(worker);
        }
        round
    }

    /// One line about what happened, or what is wrong.
    async fn play(&mut self) -> Result<String, String> {
        // What an earlier job left there must go before the first row comes.
        self.stage.target.run(&["INSERT INTO dw.orders (id, shop) VALUES (-1, -1), (NULL, -1)"]).await;
        let in_parts = self.random.u32(..3) == 0;
        let script = script(&mut self.random, self.seed, in_parts);
        let weather = weather(&mut self.random, in_parts);
        let acts = storm(&mut self.random);
        self.stage.target.fault(weather).await;
        let job_id = self.submit(&script).await?;
        let summary = self.rage(&acts).await;
        self.mend().await;
        let calm = Instant::now();
        let drizzled = self.finished(&job_id, DRIZZLE).await;
        self.stage.target.clear_faults().await;
        let report = match drizzled {
            Ok(report) => report,
            Err(_) => self.finished(&job_id, CALM).await?,
        };
        let ended = calm.elapsed();
        self.wait_until_nothing_is_open().await?;
        let closed = calm.elapsed() - ended;
        self.judge(&report).await?;
        Ok(format!(
            "{summary}; job ended {:.1} s later, last transaction {:.1} s after it; {} rows in {} tasks and {} \
             transactions, {} retries",
            ended.as_secs_f64(),
            closed.as_secs_f64(),
            report["rows_loaded"],
            report["tasks"]["total"],
            report["transactions"],
            report["retries"]
        ))
    }

    async fn submit(&self, script: &Value) -> Result<String, String> {
        let file = write_job(self.dir.path(), script);
        let submitted = self.client(&["submit", &file.display().to_string(), "--json"]).await;
        if submitted.code != 0 {
            return Err(format!("the job was not accepted: {submitted:?}"));
        }
        Ok(submitted.json()["job_id"].as_str().unwrap_or_default().to_owned())
    }

    /// Lets everything happen at its time, and answers what that was.
    async fn rage(&mut self, acts: &[(Duration, Act)]) -> String {
        let start = Instant::now();
        let mut told: Vec<String> = Vec::new();
        for (at, act) in acts {
            sleep_until(start + *at).await;
            self.perform(*act).await;
            told.push(format!("{:.1} {act:?}", at.as_secs_f64()));
        }
        told.join(", ")
    }

    async fn perform(&mut self, act: Act) {
        let target = &self.stage.target;
        match act {
            Act::KillWorker(place) => {
                self.workers[place].kill();
                self.workers[place] = self.new_worker();
            }
            Act::StopWorker(place) => self.workers[place].signal("STOP"),
            Act::ContinueWorker(place) => self.workers[place].signal("CONT"),
            Act::KillCoordinator(place) => self.coordinators[place].process = None,
            Act::StartCoordinator(place) => self.start_coordinator(place),
            Act::StopCoordinator(place) => self.signal_coordinator(place, "STOP"),
            Act::ContinueCoordinator(place) => self.signal_coordinator(place, "CONT"),
            Act::RestartEtcd => {
                self.stage.etcd.kill();
                self.stage.etcd.start_again().await;
            }
            Act::RestartDatabase if self.is_planned().await => self.stage.source.restart().await,
            Act::KillReadingConnections if self.is_planned().await => self.kill_reading_connections().await,
            // Planning has no second attempt: a source that is away then fails the job, which has changed nothing.
            Act::RestartDatabase | Act::KillReadingConnections => {}
            Act::LeadBy(place) => target.post(&format!("/leader/{place}")).await,
            Act::FrontendDown(place) => target.post(&format!("/fe/{place}/down")).await,
            Act::FrontendUp(place) => target.post(&format!("/fe/{place}/up")).await,
            Act::BackendDown(place) => target.post(&format!("/be/{place}/down")).await,
            Act::BackendUp(place) => target.post(&format!("/be/{place}/up")).await,
            Act::Hold(op) => target.fault(json!({ "op": op, "do": "hold" })).await,
            Act::Release => target.post("/faults/release").await,
        }
    }

    /// Whether the job's first statement was sent: from then on everything is tried again.
    async fn is_planned(&self) -> bool {
        let query = format!("SELECT COUNT(*) FROM dw.begun WHERE seed = {}", self.seed);
        self.stage.value(&query).await != Some(0)
    }

    async fn kill_reading_connections(&self) {
        let mut conn = self.stage.source.connect().await;
        let others = "SELECT id FROM information_schema.processlist \
                      WHERE user = 'loader' AND id <> CONNECTION_ID() AND command = 'Query'";
        let ids: Vec<u64> = conn.query(others).await.expect("the list of connections");
        for id in ids {
            // It may have ended meanwhile.
            let _already_gone = conn.query_drop(format!("KILL {id}")).await;
        }
        let _farewell = conn.disconnect().await;
    }

    /// The end of the storm: everything runs.
    async fn mend(&mut self) {
        for place in 0..FRONTENDS {
            self.perform(Act::FrontendUp(place)).await;
        }
        for place in 0..BACKENDS {
            self.perform(Act::BackendUp(place)).await;
        }
        self.stage.target.post("/faults/release").await;
        for worker in &self.workers {
            worker.signal("CONT");
        }
        for place in 0..COORDINATORS {
            self.signal_coordinator(place, "CONT");
            self.start_coordinator(place);
        }
    }

    /// Waits for the job's end and answers its report.
    async fn finished(&self, job_id: &str, patience: Duration) -> Result<Value, String> {
        let deadline = Instant::now() + patience;
        let mut last = Value::Null;
        while Instant::now() < deadline {
            let asked = self.client(&["status", job_id, "--json"]).await;
            last = if asked.code == 0 { asked.json() } else { json!(asked.stderr) };
            let state = last["state"].as_str().unwrap_or_default();
            if matches!(state, "SUCCEEDED" | "FAILED" | "CANCELLED") {
                let report = self.client(&["report", job_id, "--json"]).await;
                if report.code == 0 {
                    return Ok(report.json());
                }
            }
            sleep(PAUSE).await;
        }
        Err(format!("the job has not ended {} s after the last fault: {last:#}", patience.as_secs()))
    }

    async fn wait_until_nothing_is_open(&self) -> Result<(), String> {
        let target = &self.stage.target;
        if timeout(Duration::from_secs(60), target.wait_until_nothing_is_open()).await.is_ok() {
            return Ok(());
        }
        let open: Vec<_> = target.transactions().await.into_iter().filter(|one| one.is_open()).collect();
        Err(format!("transactions are open a minute after the job's end: {open:?}"))
    }

    /// Compares what the report says with what the target holds, and that with the source.
    async fn judge(&self, report: &Value) -> Result<(), String> {
        let found =
            rows::read(self.stage.target.connect().await, &format!("SELECT {COLUMNS} FROM dw.orders")).await;
        let has_emptied_it = report["phases"]["transfer"].as_f64() > Some(0.0);
        if has_emptied_it && report["rows_loaded"].as_u64() != Some(found.count) {
            return Err(format!(
                "rows differ: the target has {} rows, the report of a job that {} counts {}; {report:#}",
                found.count, report["state"], report["rows_loaded"]
            ));
        }
        if report["state"] != "SUCCEEDED" {
            return Err(format!("the job did not succeed: {report:#}"));
        }
        if let Some(difference) = rows::difference(&self.stage.wanted, &found) {
            return Err(format!("rows differ: {difference}"));
        }
        if report["rows_read"].as_u64() != Some(u64::from(ROWS)) || report["tasks"]["failed"] != 0 {
            return Err(format!("the report counts something else: {report:#}"));
        }
        // A statement whose answer was lost is sent again, so there may be several, but none before the last row.
        let query = format!("SELECT MIN(found) FROM dw.ended WHERE seed = {}", self.seed);
        match self.stage.value(&query).await {
            Some(count) if count == u64::from(ROWS) => Ok(()),
            other => Err(format!("postSql found {other:?} rows, not {ROWS}")),
        }
    }

    fn new_worker(&mut self) -> Process {
        let urls: Vec<String> = self.coordinators.iter().map(|one| format!("http://{}", one.grpc)).collect();
        let mut command = self.starlift();
        command.args(["worker", "--coordinator", &urls.join(","), "--slots", &SLOTS.to_string()]);
        command.args(["--http", &free_address().to_string(), "--datasources", "datasources.toml"]);
        self.process("worker", command)
    }

    /// Starts it unless it runs.
    fn start_coordinator(&mut self, place: usize) {
        if self.coordinators[place].process.is_some() {
            return;
        }
        let Coordinator { grpc, http, .. } = &self.coordinators[place];
        let mut command = self.starlift();
        // Each round has keys of its own; seeds may come again.
        let prefix = self.dir.path().file_name().unwrap_or_default().display();
        let state = self.stage.etcd.state(&prefix.to_string());
        command.args(["coordinator", "--grpc", grpc, "--http", http, "--state", &state]);
        command.args(["--datasources", "datasources.toml", "--attempts", "100"]);
        command.args(["--lease", LEASE, "--leader-ttl", LEADER_TTL]);
        let process = self.process(&format!("coordinator-{place}"), command);
        self.coordinators[place].process = Some(process);
    }

    fn signal_coordinator(&self, place: usize, signal: &str) {
        if let Some(process) = &self.coordinators[place].process {
            process.signal(signal);
        }
    }

    /// A log of its own for every process of the round.
    fn process(&mut self, name: &str, mut command: Command) -> Process {
        self.started += 1;
        Process::start(&format!("{:02}-{name}", self.started), &mut command, self.dir.path())
    }

    fn starlift(&self) -> Command {
        let mut command = Command::new(&self.stage.binary);
        command.current_dir(self.dir.path()).env("NO_COLOR", "1").env("STARLIFT_LOG", "info");
        command
    }

    /// Runs a client command to its end.
    async fn client(&self, arguments: &[&str]) -> Outcome {
        let urls: Vec<String> = self.coordinators.iter().map(|one| format!("http://{}", one.grpc)).collect();
        let mut command = self.starlift();
        command.args(arguments).args(["--coordinator", &urls.join(",")]);
        output(command).await.into()
    }

    async fn wait_until_ready(&self) {
        let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
        for coordinator in &self.coordinators {
            let url = format!("http://{}/readyz", coordinator.http);
            until("the coordinators to be ready", || async {
                http.get(&url).send().await.is_ok_and(|reply| reply.status().is_success())
            })
            .await;
        }
    }

    fn keep_logs(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        Path::to_owned(self.dir.path())
    }
}

#[test]
fn a_storm_is_drawn_from_its_seed_alone() {
    let drawn = |seed| {
        let mut random = Rng::with_seed(seed);
        (storm(&mut random), weather(&mut random, true), script(&mut random, seed, true))
    };
    assert_eq!(drawn(7), drawn(7));
    assert_ne!(drawn(7).0, drawn(8).0);
}
