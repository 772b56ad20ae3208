//! `starlift-bench coordinator`: how much one coordinator bears. Starts a real `starlift coordinator` on a file or an
//! etcd of its own and speaks to it over gRPC as many workers, each on a connection of its own. Reads and loads no row:
//! the workers only say that they have. Jobs are planned for real, from a MariaDB whose statistics claim more rows than there
//! are and from the stand-in's catalogue; the FE that takes the commits is a few lines here which answer OK to
//! everything, so a commit costs the coordinator what it costs with StarRocks, and the server's own time is not measured.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};
use starlift_common::ids::JobId;
use starlift_common::label::Label;
use starlift_common::wire;
use starlift_proto as pb;
use starlift_proto::admin_service_client::AdminServiceClient;
use starlift_proto::worker_service_client::WorkerServiceClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// As a worker does by default.
const HEARTBEAT: Duration = Duration::from_secs(3);
const ACQUIRE_WAIT: Duration = Duration::from_secs(15);

/// How long servers may take to start, and jobs to be planned.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rows per task that the planner is to find: below this it makes fewer tasks.
const ROWS_PER_TASK: u64 = 50_000;

const USER: &str = "bench";
const TABLE: &str = "numbers";

/// How much one coordinator bears: grants and reports per second, latency, CPU, memory
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArgs {
    /// Where the coordinator keeps its state
    #[arg(long, value_enum, default_value = "file")]
    store: StoreKind,
    /// Simulated workers with one slot each
    #[arg(long, default_value_t = 1000)]
    workers: u32,
    /// Tasks of all jobs together
    #[arg(long, default_value_t = 100_000)]
    tasks: u32,
    /// Tasks of one job
    #[arg(long, default_value_t = 20_000)]
    job_tasks: u32,
    /// Grants and reports per second, together, while latency is measured [default: 5000 on a file, 1500 on etcd]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Longest time of each part, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Binary of the coordinator [default: `starlift` beside this one]
    #[arg(long)]
    starlift: Option<PathBuf>,
    /// Print one line of JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    File,
    Etcd,
}

/// What the workers report of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A range without rows: the task is done with the report.
    Empty,
    /// One prepared transaction, which the coordinator then commits.
    Prepared,
}

/// Measures and prints.
pub(crate) async fn run(args: &CoordinatorArgs) -> Result<()> {
    let results = measure(args).await?;
    if args.json {
        println!("{results}");
    } else {
        print_text(&results);
    }
    Ok(())
}

/// All numbers of one store, as one line of the machine-readable output holds them.
async fn measure(args: &CoordinatorArgs) -> Result<Value> {
    let stage = Stage::start(args).await?;
    let mut results = json!({
        "bench": "coordinator",
        "store": format!("{:?}", args.store).to_lowercase(),
        "workers": args.workers,
        "tasks": args.tasks,
    });
    results["empty"] = stage.measure(args, Work::Empty).await?;
    results["commits"] = stage.measure(args, Work::Prepared).await?;
    Ok(results)
}

fn print_text(results: &Value) {
    println!(
        "coordinator, {} store, {} workers, {} tasks",
        results["store"].as_str().unwrap_or_default(),
        results["workers"],
        results["tasks"]
    );
    for (part, name) in [("empty", "tasks without rows"), ("commits", "tasks with a commit each")] {
        let part = &results[part];
        println!("  {name}");
        for phase in ["flat_out", "paced"] {
            let phase_of = &part[phase];
            println!(
                "    {phase:8} {:>8.0} grants/s {:>8.0} reports/s   grant p50 {:>6.1} ms, p99 {:>6.1} ms   \
                 coordinator {:.2} cores",
                number(&phase_of["grants_per_second"]),
                number(&phase_of["reports_per_second"]),
                number(&phase_of["grant_p50_ms"]),
                number(&phase_of["grant_p99_ms"]),
                number(&phase_of["coordinator_cores"]),
            );
        }
        println!(
            "    idle     {:.3} cores; memory {:.0} MB, at most {:.0} MB; {} tasks done",
            number(&part["idle_cores"]),
            number(&part["rss_mb"]),
            number(&part["peak_mb"]),
            part["tasks_done"]
        );
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// The servers around the coordinators to be measured.
struct Stage {
    dir: TempDir,
    binary: PathBuf,
    etcd: Option<(Server, String)>,
    _source: Server,
    _target: Server,
    _frontend: tokio_util::task::AbortOnDropHandle<()>,
}

impl Stage {
    async fn start(args: &CoordinatorArgs) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("starlift-bench").tempdir()?;
        let binary = match &args.starlift {
            Some(path) => path.clone(),
            None => beside("starlift")?,
        };
        let etcd = match args.store {
            StoreKind::File => None,
            StoreKind::Etcd => Some(start_etcd(dir.path()).await?),
        };
        let rows = u64::from(args.job_tasks) * ROWS_PER_TASK;
        let (source, source_port) = start_mariadb(dir.path(), rows).await?;
        let (target, target_port) = start_standin(dir.path()).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let fe = listener.local_addr()?;
        let datasources = format!(
            "[source]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = {source_port}\ndatabase = \"bench\"\n\
             username = \"{USER}\"\npassword = \"\"\n\
             [target]\ntype = \"starrocks\"\nhost = \"127.0.0.1\"\nport = {target_port}\ndatabase = \"bench\"\n\
             username = \"{USER}\"\npassword = \"\"\nload_url = [\"{fe}\"]\n"
        );
        std::fs::write(dir.path().join("datasources.toml"), datasources)?;
        let frontend = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(agree_to_all(listener)));
        Ok(Self { dir, binary, etcd, _source: source, _target: target, _frontend: frontend })
    }

    /// All phases on a new coordinator with an empty state.
    async fn measure(&self, args: &CoordinatorArgs, work: Work) -> Result<Value> {
        let name = format!("{work:?}").to_lowercase();
        let state = match &self.etcd {
            None => format!("file:{name}"),
            Some((_, endpoint)) => format!("etcd://{endpoint}/{name}"),
        };
        let (grpc, http) = (free_address()?, free_address()?);
        let mut command = Command::new(&self.binary);
        command.args(["coordinator", "--grpc", &grpc, "--http", &http, "--state", &state]);
        command.args(["--datasources", "datasources.toml"]).current_dir(self.dir.path());
        let coordinator = Server::start(&format!("coordinator-{name}"), &mut command, self.dir.path())?;
        let url = format!("http://{grpc}");
        let leading = async || {
            let mut admin = AdminServiceClient::connect(url.clone()).await?;
            admin.list_jobs(pb::ListJobsRequest {}).await?;
            Ok(admin)
        };
        let mut admin = coordinator.patiently(leading).await?;
        submit_all(&mut admin, args).await?;

        let crowd = Crowd::hire(&url, args.workers, work)?;
        let limit = Duration::from_secs(args.seconds);
        // Half of the tasks as fast as it goes, the other half at a given rate.
        let flat_out = crowd.phase(&coordinator, args.tasks / 2, None, limit).await?;
        let rate = args.rate.unwrap_or(match args.store {
            StoreKind::File => 5000,
            StoreKind::Etcd => 1500,
        });
        let pace = Duration::from_secs(2) * args.workers / rate;
        let paced = crowd.phase(&coordinator, args.tasks - args.tasks / 2, Some(pace), limit).await?;
        let idle_cores = crowd.idle(&coordinator, limit.min(Duration::from_secs(15))).await?;
        let jobs = admin.list_jobs(pb::ListJobsRequest {}).await?.into_inner().jobs;
        if let Some(job) = jobs.iter().find(|job| job.state == "FAILED" || job.state == "PAUSED") {
            bail!("job {} is {}\n{}", job.job_id, job.state, coordinator.log());
        }
        let memory = coordinator.memory()?;
        Ok(json!({
            "flat_out": flat_out,
            "paced": paced,
            "idle_cores": round(idle_cores, 3),
            "rss_mb": round(memory.resident, 1),
            "peak_mb": round(memory.peak, 1),
            "tasks_done": jobs.iter().map(|job| job.tasks_done).sum::<u32>(),
        }))
    }
}

/// Submits the jobs and waits until every task may be granted.
async fn submit_all(admin: &mut AdminServiceClient<Channel>, args: &CoordinatorArgs) -> Result<()> {
    let jobs = args.tasks.div_ceil(args.job_tasks);
    let factor = args.job_tasks.div_ceil(args.workers);
    let columns = ["id"];
    let script = json!({
        "type": "job", "version": "2.0",
        "steps": [
            { "stepType": "mysql", "name": "Reader", "category": "reader", "parameter": {
                "datasource": "source", "table": TABLE, "column": columns, "splitPk": "id", "splitFactor": factor } },
            { "stepType": "starrocks", "name": "Writer", "category": "writer", "parameter": {
                "datasource": "target", "table": TABLE, "column": columns, "loadProps": {} } },
        ],
        "setting": { "speed": { "concurrent": args.workers }, "errorLimit": { "record": 0 } },
        "order": { "hops": [{ "from": "Reader", "to": "Writer" }] },
    });
    for number in 0..jobs {
        let submit = pb::SubmitRequest {
            script: script.to_string(),
            name: format!("bench-{number}"),
            job_id: JobId::from_parts(number.into(), fastrand::u128(..1 << 80)).to_string(),
        };
        admin.submit(submit).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let jobs = admin.list_jobs(pb::ListJobsRequest {}).await?.into_inner().jobs;
        if jobs.iter().all(|job| job.state == "RUNNING") {
            let tasks: u32 = jobs.iter().map(|job| job.tasks_total).sum();
            ensure!(tasks >= args.tasks, "the plans have {tasks} tasks, not {}", args.tasks);
            return Ok(());
        }
        if let Some(job) = jobs.iter().find(|job| job.state == "FAILED") {
            let status = admin.get_job(pb::GetJobRequest { job_id: job.job_id.clone() }).await?.into_inner();
            bail!("a job could not be planned: {:?}", status.error);
        }
        ensure!(Instant::now() < deadline, "planning does not end");
        sleep(Duration::from_millis(100)).await;
    }
}

/// What all workers of a phase add up.
#[derive(Default)]
struct Sums {
    grants: AtomicU64,
    reports: AtomicU64,
    /// Tasks that may still be asked for.
    left: AtomicI64,
}

/// The simulated workers.
struct Crowd {
    workers: Vec<Arc<Worker>>,
    work: Work,
}

struct Worker {
    client: WorkerServiceClient<Channel>,
    info: pb::WorkerInfo,
    /// The task it holds.
    held: Mutex<Option<pb::TaskProgress>>,
}

impl Crowd {
    fn hire(url: &str, workers: u32, work: Work) -> Result<Self> {
        let hire = |number| {
            let channel = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).connect_lazy();
            let info = pb::WorkerInfo {
                worker_id: format!("worker-{number:04}.starlift.svc"),
                host: format!("10.0.{}.{}", number / 256, number % 256),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                slots: 1,
                http: format!("10.0.{}.{}:9472", number / 256, number % 256),
                draining: false,
                protocol: starlift_common::wire::PROTOCOL,
            };
            let client = WorkerServiceClient::new(channel);
            Ok(Arc::new(Worker { client, info, held: Mutex::new(None) }))
        };
        Ok(Self { workers: (0..workers).map(hire).collect::<Result<_>>()?, work })
    }

    /// Works off so many tasks, each worker one at a time: one after the other, or one per `pace`.
    async fn phase(
        &self,
        coordinator: &Server,
        tasks: u32,
        pace: Option<Duration>,
        limit: Duration,
    ) -> Result<Value> {
        let sums = Arc::new(Sums { left: AtomicI64::new(tasks.into()), ..Sums::default() });
        let stop = CancellationToken::new();
        let (mut working, mut beating) = (JoinSet::new(), JoinSet::new());
        let began = Instant::now();
        let cpu_before = coordinator.cpu()?;
        for worker in &self.workers {
            beating.spawn(worker.clone().beat());
            working.spawn(worker.clone().work(self.work, pace, sums.clone(), stop.clone()));
        }
        let end = sleep(limit);
        tokio::pin!(end);
        let mut waits: Vec<u32> = Vec::with_capacity(tasks as usize);
        loop {
            tokio::select! {
                ended = working.join_next() => match ended {
                    None => break,
                    Some(ended) => waits.extend(ended??),
                },
                () = &mut end, if !stop.is_cancelled() => stop.cancel(),
            }
        }
        let took = began.elapsed().as_secs_f64();
        let cores = (coordinator.cpu()? - cpu_before) / took;
        waits.sort_unstable();
        let quantile = |hundredths: usize| {
            let rank = (waits.len() * hundredths / 100).min(waits.len().saturating_sub(1));
            waits.get(rank).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
        };
        let per_second = |count: &AtomicU64| count_of(count) / took;
        Ok(json!({
            "seconds": round(took, 2),
            "grants_per_second": round(per_second(&sums.grants), 1),
            "reports_per_second": round(per_second(&sums.reports), 1),
            "grant_p50_ms": round(quantile(50), 2),
            "grant_p99_ms": round(quantile(99), 2),
            "coordinator_cores": round(cores, 3),
        }))
    }

    /// CPU of a coordinator whose workers hold a task or wait for one, and send heartbeats.
    async fn idle(&self, coordinator: &Server, time: Duration) -> Result<f64> {
        let mut waiting = JoinSet::new();
        for worker in &self.workers {
            waiting.spawn(worker.clone().beat());
            let worker = worker.clone();
            waiting.spawn(async move {
                loop {
                    // Nothing is left to be granted: only the wait counts.
                    if worker.acquire().await.is_err() {
                        return;
                    }
                }
            });
        }
        sleep(Duration::from_secs(2)).await;
        let (began, before) = (Instant::now(), coordinator.cpu()?);
        sleep(time).await;
        Ok((coordinator.cpu()? - before) / began.elapsed().as_secs_f64())
    }
}

impl Worker {
    /// Sends heartbeats until it is dropped, at a moment of its own in every interval.
    async fn beat(self: Arc<Self>) {
        sleep(HEARTBEAT.mul_f64(fastrand::f64())).await;
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A lost one shows in the task, which is then given to another.
            let _ = self.heartbeat().await;
        }
    }

    async fn heartbeat(&self) -> Result<()> {
        let tasks = self.held.lock().await.iter().cloned().collect();
        let request = pb::HeartbeatRequest { worker: Some(self.info.clone()), tasks };
        self.client.clone().heartbeat(request).await?;
        Ok(())
    }

    async fn acquire(&self) -> Result<Option<pb::TaskGrant>> {
        let wait_ms = u32::try_from(ACQUIRE_WAIT.as_millis()).unwrap_or(u32::MAX);
        let request = pb::AcquireRequest { worker: Some(self.info.clone()), free_slots: 1, wait_ms };
        Ok(self.client.clone().acquire(request).await?.into_inner().grants.pop())
    }

    /// Returns how long each grant was waited for, in microseconds.
    async fn work(
        self: Arc<Self>,
        work: Work,
        pace: Option<Duration>,
        sums: Arc<Sums>,
        stop: CancellationToken,
    ) -> Result<Vec<u32>> {
        let mut waits = Vec::new();
        let mut due = Instant::now() + pace.unwrap_or_default().mul_f64(fastrand::f64());
        while !stop.is_cancelled() && sums.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            sleep_until(due).await;
            let asked = Instant::now();
            let Some(grant) = self.acquire().await? else { break };
            waits.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
            sums.grants.fetch_add(1, Ordering::Relaxed);
            let progress = pb::TaskProgress {
                job_id: grant.job_id.clone(),
                task_id: grant.task_id,
                epoch: grant.epoch,
                parts_begun: 1,
                ..pb::TaskProgress::default()
            };
            *self.held.lock().await = Some(progress);
            // A worker begins nothing before its first heartbeat is answered.
            self.heartbeat().await?;
            let report = report(&self.info.worker_id, &grant, work)?;
            let reply = self.client.clone().report(report).await?.into_inner();
            ensure!(reply.accepted, "the report of task {} was refused", grant.task_id);
            *self.held.lock().await = None;
            sums.reports.fetch_add(1, Ordering::Relaxed);
            due = pace.map_or(due, |pace| (due + pace).max(Instant::now()));
        }
        Ok(waits)
    }
}

fn report(worker_id: &str, grant: &pb::TaskGrant, work: Work) -> Result<pb::ReportRequest> {
    let attempt = wire::attempt_key(&grant.job_id, grant.task_id, grant.epoch)?;
    let prefix = grant.load.as_ref().map_or("sl", |load| load.label_prefix.as_str());
    let part = pb::PreparedPart {
        label: Label::part(prefix, attempt, 0).as_str().to_owned(),
        txn_id: 1_000_000 + i64::from(grant.task_id),
        rows_sent: ROWS_PER_TASK,
        rows_loaded: ROWS_PER_TASK,
        bytes_sent: ROWS_PER_TASK * 10,
        loads: 1,
        ..pb::PreparedPart::default()
    };
    let prepared = match work {
        Work::Empty => pb::Prepared::default(),
        Work::Prepared => pb::Prepared {
            parts: vec![part],
            rows_read: ROWS_PER_TASK,
            bytes_read: ROWS_PER_TASK * 10,
            ..pb::Prepared::default()
        },
    };
    Ok(pb::ReportRequest {
        worker_id: worker_id.to_owned(),
        job_id: grant.job_id.clone(),
        task_id: grant.task_id,
        epoch: grant.epoch,
        outcome: Some(pb::report_request::Outcome::Prepared(prepared)),
    })
}

/// An FE that answers OK to every call without a body, and calls every label visible.
async fn agree_to_all(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(agree(stream));
    }
}

async fn agree(mut stream: TcpStream) {
    const BODY: &str = r#"{"Status":"OK","Message":"","TxnId":1,"state":"VISIBLE"}"#;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (mut read, mut filled) = (vec![0u8; 16 << 10], 0);
    loop {
        match stream.read(&mut read[filled..]).await {
            Ok(count) if count > 0 => filled += count,
            _ => return, // the other side has gone, or sends what no client of ours does
        }
        // Requests come one by one: the next one only after the answer.
        if read[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// A child process with its log; killed when dropped.
struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

struct Memory {
    /// Megabytes, now and at most.
    resident: f64,
    peak: f64,
}

impl Server {
    fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let errors = output.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = child.with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Tries until it works.
    async fn patiently<T>(&self, attempt: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("{} does not answer:\n{}", self.name, self.log())));
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("{path}: {}", self.log()))
    }

    /// User and system time so far, in seconds.
    fn cpu(&self) -> Result<f64> {
        /// Ticks per second: `USER_HZ`, the same on every Linux that matters.
        const HZ: f64 = 100.0;
        let stat = self.proc("stat")?;
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks =
            fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0));
        Ok(ticks.sum::<f64>() / HZ)
    }

    fn memory(&self) -> Result<Memory> {
        let status = self.proc("status")?;
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0)
                / 1024.0
        };
        Ok(Memory { resident: megabytes("VmRSS:"), peak: megabytes("VmHWM:") })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start_etcd(dir: &Path) -> Result<(Server, String)> {
    let (endpoint, peer) = (free_address()?, free_address()?);
    let (client_url, peer_url) = (format!("http://{endpoint}"), format!("http://{peer}"));
    let mut command = Command::new("etcd");
    command.args(["--name", "bench", "--data-dir"]).arg(dir.join("etcd"));
    command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
    command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
    command.args(["--initial-cluster", &format!("bench={peer_url}"), "--log-level", "error"]);
    let etcd = Server::start("etcd", &mut command, dir)?;
    etcd.patiently(async || {
        TcpStream::connect(&endpoint).await?;
        Ok(())
    })
    .await?;
    Ok((etcd, endpoint))
}

/// A MariaDB that seems to hold a table of so many rows: source and target of the plans.
async fn start_mariadb(dir: &Path, rows: u64) -> Result<(Server, u16)> {
    let data = dir.join("mariadb");
    std::fs::create_dir_all(&data)?;
    let places =
        [format!("--datadir={}", data.join("data").display()), format!("--tmpdir={}", data.display())];
    let as_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let user: &[&str] = if as_root { &["--user=root"] } else { &[] };
    let mut install = Command::new("mariadb-install-db");
    install.arg("--no-defaults").args(&places).args(user);
    install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
    let installed = install.output().context("mariadb-install-db")?;
    ensure!(installed.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&installed.stderr));

    // It claims to hold more than it does, which it believes itself once it has started again.
    let init = data.join("init.sql");
    let mut statements = File::create(&init)?;
    writeln!(statements, "CREATE DATABASE bench;")?;
    writeln!(
        statements,
        "CREATE TABLE bench.{TABLE} (id BIGINT PRIMARY KEY) STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0;"
    )?;
    writeln!(statements, "INSERT INTO bench.{TABLE} SELECT seq FROM bench.seq_1_to_100000;")?;
    writeln!(statements, "ANALYZE TABLE bench.{TABLE};")?;
    writeln!(
        statements,
        "UPDATE mysql.innodb_table_stats SET n_rows = {rows} WHERE table_name = '{TABLE}';"
    )?;
    writeln!(statements, "CREATE USER {USER}@'%' IDENTIFIED BY '';")?;
    writeln!(statements, "GRANT ALL ON *.* TO {USER}@'%';")?;
    let port = free_port()?;
    let server = ["/usr/sbin/mariadbd", "/usr/sbin/mysqld"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(server.unwrap_or("mariadbd"));
    command.arg("--no-defaults").args(&places).args(user);
    command.arg(format!("--socket={}", data.join("socket").display()));
    command.arg(format!("--pid-file={}", data.join("pid").display()));
    command.args([
        &format!("--port={port}"),
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--skip-log-bin",
    ]);
    let mut filling = Command::new(command.get_program());
    filling.args(command.get_args()).arg(format!("--init-file={}", init.display()));
    let filling = Server::start("mariadb-filling", &mut filling, dir)?;
    filling.patiently(async || ask(port).await).await?;
    drop(filling);
    let mariadb = Server::start("mariadb", &mut command, dir)?;
    mariadb.patiently(async || ask(port).await).await?;
    Ok((mariadb, port))
}

/// A StarRocks catalogue with the target table.
async fn start_standin(dir: &Path) -> Result<(Server, u16)> {
    let port = free_port()?;
    let mut command = Command::new(beside("starrocks-standin")?);
    command.args(["serve", "--user", USER, "--mysql", &format!("127.0.0.1:{port}")]);
    command.args(["--init-sql", "CREATE DATABASE bench"]);
    let table =
        format!("CREATE TABLE bench.{TABLE} (id BIGINT) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1");
    command.args(["--init-sql", &table]);
    let standin = Server::start("standin", &mut command, dir)?;
    standin.patiently(async || ask(port).await).await?;
    Ok((standin, port))
}

/// Whether the table is there.
async fn ask(port: u16) -> Result<()> {
    let options = mysql_async::OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some(USER))
        .prefer_socket(false);
    let mut conn = mysql_async::Conn::new(options).await?;
    conn.query_drop(format!("SELECT 1 FROM bench.{TABLE} LIMIT 1")).await?;
    Ok(conn.disconnect().await?)
}

/// A binary of this workspace, built into the same directory as this one.
fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is missing; build it in the same profile", path.display());
    Ok(path)
}

fn free_port() -> Result<u16> {
    Ok(StdListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn free_address() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
fn count_of(count: &AtomicU64) -> f64 {
    count.load(Ordering::Relaxed) as f64
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
