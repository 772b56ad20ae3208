//! A Starlift cluster of real processes on the loopback, and the jobs that tests give it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, binary, free_address, output, until};

/// A coordinator, its workers, and a directory with data sources and job files.
pub(crate) struct Cluster {
    pub(crate) coordinator: Process,
    /// Further coordinators, where they share an etcd.
    pub(crate) peers: Vec<Peer>,
    pub(crate) workers: Vec<Process>,
    grpc: String,
    http: String,
    dir: TempDir,
}

/// A coordinator beside the first.
pub(crate) struct Peer {
    _process: Process,
    grpc: String,
    http: String,
}

/// What a command of `starlift` printed and how it exited.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The one document that `--json` prints.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("no JSON document ({error}) in:\n{}\n{}", self.stdout, self.stderr)
        })
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Cluster {
    /// Starts a coordinator and `workers` workers with `slots` each.
    pub(crate) async fn start(datasources: &[String], workers: usize, slots: u32) -> Self {
        Self::start_with(datasources, workers, slots, &[]).await
    }

    /// As [`Cluster::start`], with further flags for the coordinator.
    pub(crate) async fn start_with(
        datasources: &[String],
        workers: usize,
        slots: u32,
        flags: &[&str],
    ) -> Self {
        let dir = workspace(datasources);
        let grpc = free_address().to_string();
        let http = free_address().to_string();
        let mut command = coordinator_command(dir.path(), &grpc, &http, "file:state");
        let coordinator = Process::start("coordinator", command.args(flags), dir.path());
        let mut cluster = Self { coordinator, peers: Vec::new(), workers: Vec::new(), grpc, http, dir };
        cluster.wait_until_ready().await;
        for _ in 0..workers {
            cluster.add_worker(slots, &[]);
        }
        cluster
    }

    /// Two coordinators that keep their state at `state` in an etcd, the first of which leads, and `workers` workers
    /// that know both.
    pub(crate) async fn start_pair(datasources: &[String], state: &str, workers: usize, slots: u32) -> Self {
        Self::start_pair_with(datasources, state, workers, slots, &|_| Vec::new()).await
    }

    /// As [`Cluster::start_pair`], with further flags for each coordinator by its number.
    pub(crate) async fn start_pair_with(
        datasources: &[String],
        state: &str,
        workers: usize,
        slots: u32,
        flags: &dyn Fn(usize) -> Vec<String>,
    ) -> Self {
        let dir = workspace(datasources);
        let [grpc, http, peer_grpc, peer_http] = std::array::from_fn(|_| free_address().to_string());
        let mut command = coordinator_command(dir.path(), &grpc, &http, state);
        let coordinator = Process::start("coordinator", command.args(flags(0)), dir.path());
        let mut cluster = Self { coordinator, peers: Vec::new(), workers: Vec::new(), grpc, http, dir };
        until("the first coordinator to lead", || async { cluster.leads(0).await }).await;
        let mut command = coordinator_command(cluster.dir.path(), &peer_grpc, &peer_http, state);
        let process = Process::start("coordinator-2", command.args(flags(1)), cluster.dir.path());
        cluster.peers.push(Peer { _process: process, grpc: peer_grpc, http: peer_http });
        until("the second coordinator to follow", || async { cluster.is_ready(1).await }).await;
        for _ in 0..workers {
            cluster.add_worker(slots, &[]);
        }
        cluster
    }

    /// Whether the coordinator with this number says that it leads.
    pub(crate) async fn leads(&self, number: usize) -> bool {
        let page = self.page(number, "/metrics").await;
        page.is_some_and(|(_, text)| text.contains("starlift_coordinator_leader 1"))
    }

    /// Whether the coordinator with this number leads or knows who does.
    pub(crate) async fn is_ready(&self, number: usize) -> bool {
        self.page(number, "/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    /// Status and text of a page; `None` without an answer in a second.
    pub(crate) async fn page(&self, number: usize, path: &str) -> Option<(u16, String)> {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build();
        let address = if number == 0 { &self.http } else { &self.peers[number - 1].http };
        let request = http.expect("a plain HTTP client").get(format!("http://{address}{path}"));
        let reply = request.send().await.ok()?;
        Some((reply.status().as_u16(), reply.text().await.ok()?))
    }

    pub(crate) fn add_worker(&mut self, slots: u32, flags: &[&str]) {
        self.start_worker(slots, "datasources.toml", flags);
    }

    /// A worker with a data source file of its own.
    pub(crate) fn add_worker_with(&mut self, slots: u32, datasources: &str) {
        self.start_worker(slots, datasources, &[]);
    }

    /// A worker whose metrics stand at `http`.
    pub(crate) fn add_worker_at(&mut self, slots: u32, http: &str) {
        self.start_worker_at(slots, http, "datasources.toml", &[]);
    }

    fn start_worker(&mut self, slots: u32, datasources: &str, flags: &[&str]) {
        self.start_worker_at(slots, &free_address().to_string(), datasources, flags);
    }

    fn start_worker_at(&mut self, slots: u32, http: &str, datasources: &str, flags: &[&str]) {
        let name = format!("worker-{}", self.workers.len() + 1);
        let mut command = starlift(self.dir.path());
        command.args(["worker", "--coordinator", &self.url(), "--slots", &slots.to_string()]);
        command.args(["--http", http, "--datasources", datasources]).args(flags);
        self.workers.push(Process::start(&name, &mut command, self.dir.path()));
    }

    /// SIGKILL and a new start on the same state and addresses.
    pub(crate) async fn restart_coordinator(&mut self) {
        self.coordinator.kill();
        let mut command = coordinator_command(self.dir.path(), &self.grpc, &self.http, "file:state");
        self.coordinator = Process::start("coordinator-again", &mut command, self.dir.path());
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&self) {
        until_ready(&self.http).await;
    }

    /// The addresses of all coordinators, as `--coordinator` takes them.
    pub(crate) fn url(&self) -> String {
        let all = std::iter::once(&self.grpc).chain(self.peers.iter().map(|peer| &peer.grpc));
        all.map(|grpc| format!("http://{grpc}")).collect::<Vec<_>>().join(",")
    }

    /// `http://host:port` of the coordinator's REST side.
    pub(crate) fn rest(&self) -> String {
        self.rest_of(0)
    }

    /// The same of the coordinator with this number.
    pub(crate) fn rest_of(&self, number: usize) -> String {
        let address = if number == 0 { &self.http } else { &self.peers[number - 1].http };
        format!("http://{address}")
    }

    /// Runs a client command such as `submit` to its end.
    pub(crate) async fn client(&self, arguments: &[&str]) -> Outcome {
        self.client_of(&self.url(), arguments).await
    }

    /// The same with other addresses than those of all coordinators.
    pub(crate) async fn client_of(&self, urls: &str, arguments: &[&str]) -> Outcome {
        let mut command = starlift(self.dir.path());
        command.args(arguments).args(["--coordinator", urls]);
        output(command).await.into()
    }

    /// Submits the script and answers its job id.
    pub(crate) async fn submit(&self, script: &Value) -> String {
        let file = self.write_job(script);
        let outcome = self.client(&["submit", &file.display().to_string(), "--json"]).await.succeeded();
        outcome.json()["job_id"].as_str().expect("a submitted job has an id").to_owned()
    }

    /// Submits and waits for the end; the final report is on stdout.
    pub(crate) async fn submit_and_watch(&self, script: &Value) -> Outcome {
        let file = self.write_job(script);
        self.client(&["submit", &file.display().to_string(), "--watch", "--json"]).await
    }

    /// `starlift watch`, in the background; both its outputs are in its log.
    pub(crate) fn watch(&self, job_id: &str) -> Process {
        let mut command = starlift(self.dir.path());
        command.args(["watch", job_id, "--coordinator", &self.url()]);
        Process::start("watch", &mut command, self.dir.path())
    }

    /// The job's status now.
    pub(crate) async fn status(&self, job_id: &str) -> Value {
        self.client(&["status", job_id, "--json"]).await.succeeded().json()
    }

    /// Waits for the end of the job and answers its report.
    pub(crate) async fn finished(&self, job_id: &str) -> Value {
        let watched = self.client(&["watch", job_id, "--json"]).await;
        let report = self.client(&["report", job_id, "--json"]).await.succeeded().json();
        assert_eq!(watched.code == 0, report["state"] == "SUCCEEDED", "{watched:?}");
        report
    }

    fn write_job(&self, script: &Value) -> PathBuf {
        write_job(self.dir.path(), script)
    }
}

/// Waits until the coordinator whose REST side this is leads or follows.
pub(crate) async fn until_ready(http: &str) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
    let url = format!("http://{http}/readyz");
    until("the coordinator to be ready", || async {
        client.get(&url).send().await.is_ok_and(|reply| reply.status().is_success())
    })
    .await;
}

/// A temporary directory with a data source file.
pub(crate) fn workspace(datasources: &[String]) -> TempDir {
    // Whoever starts a cluster asks it over HTTP.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("datasources.toml"), datasources.join("\n")).expect("it is writable");
    dir
}

pub(crate) fn write_job(dir: &Path, script: &Value) -> PathBuf {
    let file = dir.join("job.json");
    std::fs::write(&file, script.to_string()).expect("the test's directory is writable");
    file
}

/// `starlift` with nothing inherited that could change what it does.
pub(crate) fn starlift(dir: &Path) -> Command {
    let mut command = Command::new(binary("starlift"));
    command.current_dir(dir).env("NO_COLOR", "1").env("STARLIFT_LOG", "info");
    command
}

/// `starlift run` in one process, to its end.
pub(crate) async fn run(dir: &Path, script: &Value, flags: &[&str]) -> Outcome {
    let file = write_job(dir, script);
    let mut command = starlift(dir);
    command.arg("run").arg(file).args(["--json", "--datasources", "datasources.toml"]).args(flags);
    output(command).await.into()
}

/// `starlift plan`, to its end.
pub(crate) async fn output_of_plan(dir: &Path, script: &Value) -> Outcome {
    let file = write_job(dir, script);
    let mut command = starlift(dir);
    command.arg("plan").arg(file).args(["--json", "--datasources", "datasources.toml"]);
    output(command).await.into()
}

fn coordinator_command(dir: &Path, grpc: &str, http: &str, state: &str) -> Command {
    let mut command = starlift(dir);
    command.args(["coordinator", "--grpc", grpc, "--http", http, "--state", state]);
    command.args(["--datasources", "datasources.toml"]);
    command
}

/// A job script from its two `parameter` objects and its `setting`.
#[expect(clippy::needless_pass_by_value, reason = "the parts are written in place by every caller")]
pub(crate) fn job(reader_type: &str, reader: Value, writer: Value, setting: Value) -> Value {
    json!({
        "type": "job",
        "version": "2.0",
        "steps": [
            { "stepType": reader_type, "name": "Reader", "category": "reader", "parameter": reader },
            { "stepType": "starrocks", "name": "Writer", "category": "writer", "parameter": writer },
        ],
        "setting": setting,
        "order": { "hops": [{ "from": "Reader", "to": "Writer" }] },
    })
}
