//! Cut networks: a worker in a network namespace of its own, joined to the coordinator, the source and the target by one
//! cable each, any of which can be cut without the others. Needs root and `ip`; says so and does nothing otherwise.
//!
//! ```text
//!   host: loopback 10.a.b.1 coordinator | 10.a.b.2 MariaDB | 10.a.b.3 stand-in (FE, BE, MySQL port)
//!              |  .17              |  .21            |  .25           the host's ends of the cables
//!              |  .18              |  .22            |  .26           the namespace's ends
//!   namespace: worker
//! ```

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Outcome, starlift, until_ready, workspace, write_job};
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::process::{Process, binary, free_address, output, until};
use crate::standin::Standin;

const ROWS: u32 = 30_000;
/// What the source claims to hold: ten tasks' worth.
const ROWS_CLAIMED: u32 = 500_000;
const LEASE: &str = "2s";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cut_off_from_the_coordinator_doubles_nothing() {
    let Some(mut stage) = Stage::set(&[]).await else { return };
    let target = &stage.target;
    target.fault(json!({ "op": "prepare", "count": 2, "do": "hold" })).await;
    let job_id = stage.submit().await;
    until("the worker to be about to prepare two tasks", || async { target.held().await >= 2 }).await;

    // Both become PREPARED, but nobody hears of it.
    stage.island.cut(Cable::Coordinator);
    target.post("/faults/release").await;
    stage.add_worker_at_home();
    let report = stage.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert!(report["retries"].as_u64() >= Some(2), "{report:#}");
    assert_eq!(report["workers"].as_array().map(Vec::len), Some(1), "{report:#}");

    stage.island.join(Cable::Coordinator);
    stage.target.wait_until_nothing_is_open().await;
    assert_identical(&stage.source, &stage.target).await;
    // And it is a good worker again.
    stage.workers[1].kill();
    let job_id = stage.submit().await;
    assert_eq!(stage.finished(&job_id).await["state"], "SUCCEEDED");
    assert_identical(&stage.source, &stage.target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cut_off_from_the_target_in_the_middle_of_a_load_doubles_nothing() {
    let Some(mut stage) = Stage::set(&["--be-bytes-per-second", "300000"]).await else { return };
    let job_id = stage.submit().await;
    until("rows to be on their way", || async {
        stage.client(&["status", &job_id, "--json"]).await.json()["progress"]["rows_read"].as_u64() > Some(0)
            && stage.target.transactions().await.iter().any(|one| one.is_open())
    })
    .await;

    stage.island.cut(Cable::Target);
    stage.add_worker_at_home();
    until("the other worker to have done what it could get", || async {
        let tasks = &stage.client(&["status", &job_id, "--json"]).await.json()["tasks"];
        tasks["succeeded"].as_u64() >= tasks["total"].as_u64().map(|total| total - 2)
    })
    .await;
    let tasks = &stage.client(&["status", &job_id, "--json"]).await.json()["tasks"];
    assert_ne!(tasks["succeeded"], tasks["total"], "nothing was cut off: {tasks}");
    stage.island.join(Cable::Target);
    let report = stage.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    stage.target.wait_until_nothing_is_open().await;
    assert_identical(&stage.source, &stage.target).await;
}

/// The servers on addresses of their own, a coordinator beside them, one worker on the island.
struct Stage {
    workers: Vec<Process>,
    _coordinator: Process,
    target: Standin,
    source: MariaDb,
    dir: TempDir,
    url: String,
    // Last, so that nothing runs in it any more when it goes.
    island: Island,
}

impl Stage {
    /// `None` where namespaces cannot be made. `flags` are the stand-in's.
    async fn set(flags: &[&str]) -> Option<Self> {
        if let Err(reason) = can_make_namespaces() {
            // Past the capture of a test's output: whoever reads `make test` must see it.
            let _unheard = writeln!(std::io::stderr(), "NOT RUN: cut networks across namespaces: {reason}");
            return None;
        }
        let island = Island::make();
        let any_port = format!("{}:0", island.address(Cable::Target));
        let mut nodes = vec!["--fe-http", &any_port, "--be-http", &any_port, "--mysql", &any_port];
        nodes.extend(flags);
        let host = island.address(Cable::Source);
        let (mut source, target) = tokio::join!(MariaDb::start_on(&host), Standin::start(&nodes));
        fill_source(&source, ROWS).await;
        source.claim_rows("orders", ROWS_CLAIMED).await;
        create_target(&target).await;

        let dir = workspace(&datasources(&source, &target));
        let grpc = format!("{}:{}", island.address(Cable::Coordinator), free_address().port());
        let url = format!("http://{grpc}");
        let http = free_address().to_string();
        let mut command = starlift(dir.path());
        command.args([
            "coordinator",
            "--insecure",
            "--grpc",
            &grpc,
            "--http",
            &http,
            "--state",
            "file:state",
        ]);
        command.args(["--datasources", "datasources.toml", "--lease", LEASE, "--attempts", "20"]);
        let coordinator = Process::start("coordinator", &mut command, dir.path());
        until_ready(&http).await;
        let mut stage =
            Self { workers: Vec::new(), _coordinator: coordinator, target, source, dir, url, island };
        stage.add_worker_on_the_island();
        Some(stage)
    }

    fn add_worker_on_the_island(&mut self) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.island.name]).arg(binary("starlift"));
        self.add_worker("worker-on-the-island", command);
    }

    fn add_worker_at_home(&mut self) {
        self.add_worker("worker-at-home", starlift(self.dir.path()));
    }

    /// `command`: what runs the binary.
    fn add_worker(&mut self, name: &str, mut command: Command) {
        command.current_dir(self.dir.path()).env("STARLIFT_LOG", "info").env("NO_COLOR", "1");
        command.args(["worker", "--coordinator", &self.url, "--slots", "2"]);
        command.args(["--http", &free_address().to_string(), "--datasources", "datasources.toml"]);
        self.workers.push(Process::start(name, &mut command, self.dir.path()));
    }

    async fn submit(&self) -> String {
        let writer = json!({ "preSql": ["TRUNCATE TABLE @table"], "maxBatchSize": 200_000 });
        let file = write_job(self.dir.path(), &orders_job(writer, json!({ "speed": { "concurrent": 4 } })));
        let submitted = self.client(&["submit", &file.display().to_string(), "--json"]).await.succeeded();
        submitted.json()["job_id"].as_str().expect("a submitted job has an id").to_owned()
    }

    async fn finished(&self, job_id: &str) -> Value {
        self.client(&["watch", job_id, "--json"]).await.json()
    }

    async fn client(&self, arguments: &[&str]) -> Outcome {
        let mut command = starlift(self.dir.path());
        command.args(arguments).args(["--coordinator", &self.url]);
        output(command).await.into()
    }
}

pub(crate) fn can_make_namespaces() -> Result<(), String> {
    let id = Command::new("id").arg("-u").output().map_err(|error| format!("cannot run id: {error}"))?;
    if !id.stdout.starts_with(b"0\n") {
        return Err("only root may make network namespaces; run the tests as root to include them".into());
    }
    // Root of a container may lack the right to.
    let name = format!("starlift-try-{}", fastrand::u32(..));
    let made = Command::new("ip").args(["netns", "add", &name]).output();
    let made = made.expect("ip of the package iproute2 starts");
    let _gone = Command::new("ip").args(["netns", "delete", &name]).output();
    let words = String::from_utf8_lossy(&made.stderr);
    if !made.status.success() && words.contains("not permitted") {
        return Err(format!("this root may not make network namespaces: {}", words.trim()));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cable {
    Coordinator,
    Source,
    Target,
}

impl Cable {
    const ALL: [Self; 3] = [Self::Coordinator, Self::Source, Self::Target];
}

/// A network namespace and its three cables. Gone when dropped.
struct Island {
    name: String,
    /// Unique on this machine: part of every name.
    id: String,
    /// The first three numbers of every address.
    net: String,
}

impl Island {
    fn make() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let id = format!("{process}{}", char::from(b'a' + u8::try_from(number).expect("a few")));
        let island =
            Self { name: format!("starlift-{id}"), id, net: format!("10.{}.{}", 64 + process % 128, number) };
        ip(&["netns", "add", &island.name]);
        let inside = |arguments: &[&str]| ip(&[&["-n", &island.name][..], arguments].concat());
        inside(&["link", "set", "lo", "up"]);
        for cable in Cable::ALL {
            let (outer, inner) = (island.end(cable, 'h'), island.end(cable, 'n'));
            let (outer_address, inner_address) =
                (island.end_address(cable, 17), island.end_address(cable, 18));
            let service = format!("{}/32", island.address(cable));
            ip(&["address", "add", &service, "dev", "lo"]);
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &island.name]);
            ip(&["address", "add", &format!("{outer_address}/30"), "dev", &outer]);
            ip(&["link", "set", &outer, "up"]);
            inside(&["address", "add", &format!("{inner_address}/30"), "dev", &inner]);
            inside(&["link", "set", &inner, "up"]);
            inside(&["route", "add", &service, "via", &outer_address, "dev", &inner]);
        }
        island
    }

    /// Where the host serves what this cable leads to.
    fn address(&self, cable: Cable) -> String {
        format!("{}.{}", self.net, 1 + cable as u32)
    }

    fn end_address(&self, cable: Cable, first: u32) -> String {
        format!("{}.{}", self.net, first + 4 * cable as u32)
    }

    /// Name of one end's device: the host's `h` or the namespace's `n`.
    fn end(&self, cable: Cable, side: char) -> String {
        format!("sl{}{side}{}", self.id, cable as u32)
    }

    /// Nothing gets through any more, and neither side is told.
    fn cut(&self, cable: Cable) {
        ip(&["link", "set", &self.end(cable, 'h'), "down"]);
    }

    fn join(&self, cable: Cable) {
        ip(&["link", "set", &self.end(cable, 'h'), "up"]);
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        let run = |arguments: &[&str]| drop(Command::new("ip").args(arguments).output());
        for cable in Cable::ALL {
            run(&["link", "delete", &self.end(cable, 'h')]);
            run(&["address", "delete", &format!("{}/32", self.address(cable)), "dev", "lo"]);
        }
        run(&["netns", "delete", &self.name]);
    }
}

pub(crate) fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().expect("ip of the package iproute2 starts");
    assert!(done.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr));
}
