//! Every process on a host of its own: a network namespace with one address and one cable to a common switch. Backends are
//! known by names that no worker can resolve, and are reached through a relay of the test that is slow and sometimes hangs
//! up. Needs root and `ip`; says so and does nothing otherwise.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{Outcome, starlift, until_ready, workspace, write_job};
use crate::etcd;
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, fill_source, orders_job};
use crate::netns::{can_make_namespaces, ip};
use crate::process::{Process, binary, output, until, within};
use crate::standin::Standin;

const ROWS: u32 = 40_000;
/// What the source claims to hold: many tasks' worth.
const ROWS_CLAIMED: u32 = 800_000;
const BACKENDS: [&str; 2] = ["be-0.starrocks.internal:8040", "be-1.starrocks.internal:8040"];
const GRPC: u16 = 9470;
const HTTP: u16 = 9471;
const COORDINATORS: [&str; 2] = ["c1", "c2"];
const WORKERS: [&str; 2] = ["w1", "w2"];
const SLOTS: u32 = 2;

/// All coordinators and workers are restarted, one after the other, under a running job.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_over_hosts_loses_nothing_and_reads_little_again() {
    if let Err(reason) = can_make_namespaces() {
        let _unheard = writeln!(std::io::stderr(), "NOT RUN: hosts in namespaces: {reason}");
        return;
    }
    let net = Net::make(&["db", "sr", "etcd", "c1", "c2", "w1", "w2"]);
    let (db, sr) = (net.address("db"), net.address("sr"));
    let any_port = format!("{sr}:0");
    let backends = format!("{any_port},{any_port}");
    let (database, starrocks) = (net.name("db"), net.name("sr"));
    let advertised = BACKENDS.join(",");
    let flags = [
        "--fe-http",
        &any_port,
        "--be-http",
        &backends,
        "--mysql",
        &any_port,
        "--control",
        &any_port,
        "--advertise-be",
        &advertised,
        "--be-bytes-per-second",
        "110000",
    ];
    let (mut source, target) = tokio::join!(
        MariaDb::start_in(Some(&database), &db, &[]),
        Standin::start_in(Some(&starrocks), &flags)
    );
    fill_source(&source, ROWS).await;
    source.claim_rows("orders", ROWS_CLAIMED).await;
    create_target(&target).await;

    let entries = [source.datasource("source"), target.datasource("target", "dw")];
    let mut stage = Stage { dir: workspace(&entries), net, servers: Vec::new(), logs: String::new() };
    stage.start_etcd().await;
    for host in COORDINATORS {
        stage.start_coordinator(host).await;
    }
    for host in WORKERS {
        stage.start_worker(host);
    }

    // Nobody can reach what the FE redirects to, and that is said before anything is changed.
    let refused = stage.client(&["submit", &stage.job(), "--watch", "--json"]).await;
    assert_eq!(refused.code, 3, "{refused:?}");
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "BACKEND_UNREACHABLE", "{error:#}");
    assert!(error.to_string().contains("address_map"), "{error:#}");
    assert_eq!(target.count("dw.orders").await, 0);

    let relays = [
        Relay::start(&stage.net, &target.addresses.be_http[0]).await,
        Relay::start(&stage.net, &target.addresses.be_http[1]).await,
    ];
    let map = format!(
        "address_map = {{ \"{}\" = \"{}\", \"{}\" = \"{}\" }}\n",
        BACKENDS[0], relays[0].address, BACKENDS[1], relays[1].address
    );
    let entries = [entries[0].clone(), entries[1].clone() + &map];
    std::fs::write(stage.dir.path().join("datasources.toml"), entries.join("\n")).expect("it is writable");
    for (host, server) in &stage.servers {
        if host != "etcd" {
            server.signal("HUP");
            until("the data sources to be read again", || async { server.log().contains("were read again") })
                .await;
        }
    }

    let submitted = stage.client(&["submit", &stage.job(), "--json"]).await.succeeded().json();
    let job_id = submitted["job_id"].as_str().expect("an id").to_owned();
    stage.until_loaded(&job_id, 1).await;
    let mut loaded = 0;
    for host in ["w1", "c1", "w2", "c2"] {
        loaded = stage.until_loaded(&job_id, loaded + 1).await;
        stage.stop(host).await;
        if host.starts_with('c') { stage.start_coordinator(host).await } else { stage.start_worker(host) }
    }
    // Whoever leaves ends or hands over what it has: nothing was read again.
    assert_eq!(stage.attempts_failed(), "");
    // Now everything on its way to the backends is cut, and a cable is pulled for longer than a lease.
    relays.iter().for_each(Relay::hang_up);
    stage.net.cut("w2");
    sleep(Duration::from_secs(7)).await;
    stage.net.join("w2");

    let report = stage.client(&["watch", &job_id, "--json"]).await.json();
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_eq!(report["rows_loaded"], ROWS, "{report:#}");
    // What was in flight at either cut, and once more what met a connection that was dead already.
    let in_flight = u64::from(SLOTS) * WORKERS.len() as u64;
    assert!(report["retries"].as_u64() <= Some(3 * in_flight), "{report:#}\n{}", stage.attempts_failed());
    target.wait_until_nothing_is_open().await;
    assert_identical(&source, &target).await;
    assert!(
        relays.iter().all(|relay| relay.carried.load(Ordering::Relaxed) > 1_000_000),
        "rows took another way"
    );
}

struct Stage {
    servers: Vec<(String, Process)>,
    /// Of those that were stopped.
    logs: String,
    dir: TempDir,
    // Last, so that nothing runs in it any more when it goes.
    net: Net,
}

impl Stage {
    fn job(&self) -> String {
        let writer = json!({ "maxBatchSize": 400_000 });
        let script = orders_job(writer, json!({ "speed": { "concurrent": 4 } }));
        write_job(self.dir.path(), &script).display().to_string()
    }

    async fn start_etcd(&mut self) {
        let (client, peer) = (self.at("etcd", 2379), self.at("etcd", 2380));
        let namespace = self.net.name("etcd");
        let mut command = etcd::command(
            Some(&namespace),
            &self.dir.path().join("etcd"),
            &format!("http://{client}"),
            &peer,
        );
        self.start("etcd", &mut command);
        until("etcd to listen", || async { TcpStream::connect(&client).await.is_ok() }).await;
    }

    async fn start_coordinator(&mut self, host: &str) {
        let (grpc, http) = (self.at(host, GRPC), self.at(host, HTTP));
        let state = format!("etcd://{}/starlift", self.at("etcd", 2379));
        let mut command = self.starlift(host);
        command.args(["coordinator", "--insecure", "--grpc", &grpc, "--http", &http, "--state", &state]);
        command.args([
            "--datasources",
            "datasources.toml",
            "--lease",
            "6s",
            "--leader-ttl",
            "2s",
            "--attempts",
            "10",
        ]);
        self.start(host, &mut command);
        until_ready(&http).await;
    }

    fn start_worker(&mut self, host: &str) {
        let mut command = self.starlift(host);
        command.args(["worker", "--insecure", "--coordinator", &self.urls(), "--slots", &SLOTS.to_string()]);
        command.args(["--http", &self.at(host, HTTP + 1), "--datasources", "datasources.toml"]);
        self.start(host, &mut command);
    }

    fn starlift(&self, host: &str) -> Command {
        let mut command = within(Some(&self.net.name(host)), binary("starlift"));
        command.current_dir(self.dir.path()).env("NO_COLOR", "1").env("STARLIFT_LOG", "info");
        command
    }

    fn start(&mut self, host: &str, command: &mut Command) {
        let process = Process::start(host, command, self.dir.path());
        self.servers.push((host.to_owned(), process));
    }

    /// SIGTERM; a worker first ends the tasks that it holds.
    async fn stop(&mut self, host: &str) {
        let place = self.servers.iter().position(|(name, _)| name == host).expect("it was started");
        let (_, mut server) = self.servers.remove(place);
        server.signal("TERM");
        let status = server.ended().await;
        assert!(status.success(), "{host}: {status}\n{}", server.log());
        self.logs += &server.log();
    }

    /// What all coordinators and workers have ever said of failed attempts.
    fn attempts_failed(&self) -> String {
        let logs = self.servers.iter().map(|(_, server)| server.log()).chain([self.logs.clone()]);
        let logs = logs.collect::<Vec<_>>().join("\n");
        logs.lines().filter(|line| line.contains("attempt failed")).collect::<Vec<_>>().join("\n")
    }

    fn at(&self, host: &str, port: u16) -> String {
        format!("{}:{port}", self.net.address(host))
    }

    fn urls(&self) -> String {
        COORDINATORS.map(|host| format!("http://{}", self.at(host, GRPC))).join(",")
    }

    /// Waits until so many tasks are committed; answers how many are.
    async fn until_loaded(&self, job_id: &str, tasks: u64) -> u64 {
        let mut done = 0;
        loop {
            let status = self.client(&["status", job_id, "--json"]).await;
            if status.code == 0 {
                let status: Value = status.json();
                assert_ne!(status["state"], "FAILED", "{status:#}");
                let tasks = &status["tasks"];
                let [succeeded, total] = ["succeeded", "total"].map(|key| tasks[key].as_u64().unwrap_or(0));
                assert!(total == 0 || succeeded < total, "it was over too soon");
                done = succeeded.max(done);
            }
            if done >= tasks {
                return done;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn client(&self, arguments: &[&str]) -> Outcome {
        let mut command = starlift(self.dir.path());
        command.args(arguments).args(["--coordinator", &self.urls()]);
        output(command).await.into()
    }
}

/// Carries connections to a backend: every piece a little late, and none for ever.
struct Relay {
    address: SocketAddr,
    carried: Arc<AtomicU64>,
    cuts: watch::Sender<()>,
    _running: AbortOnDropHandle<()>,
}

impl Relay {
    async fn start(net: &Net, backend: &str) -> Self {
        let listener = TcpListener::bind((net.here(), 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (carried, cuts) = (Arc::<AtomicU64>::default(), watch::Sender::new(()));
        let (count, all_cuts, backend) = (Arc::clone(&carried), cuts.clone(), backend.to_owned());
        let running = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                let (backend, count, mut cut) = (backend.clone(), Arc::clone(&count), all_cuts.subscribe());
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(backend).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = carry(near_in, far_out, &count) => {}
                        () = carry(far_in, near_out, &count) => {}
                        _ = cut.changed() => {}
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, carried, cuts, _running: AbortOnDropHandle::new(running) }
    }

    /// Ends every connection that there is; later ones live.
    fn hang_up(&self) {
        self.cuts.send_replace(());
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    carried: &AtomicU64,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        sleep(Duration::from_millis(2)).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        carried.fetch_add(length as u64, Ordering::Relaxed);
    }
    // An end in one direction is not the end of the other.
    if to.shutdown().await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// A switch in a namespace of its own, and a cable to every host and to here. Gone when dropped.
struct Net {
    /// Unique on this machine: part of every name.
    id: String,
    /// The first three numbers of every address.
    prefix: String,
    hosts: Vec<&'static str>,
}

impl Net {
    fn make(hosts: &[&'static str]) -> Self {
        let process = std::process::id();
        let net = Self {
            id: format!("{process}"),
            prefix: format!("10.{}.77", 192 + process % 60),
            hosts: hosts.to_vec(),
        };
        let switch = net.name("switch");
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "bridge", "up"]);
        for host in hosts {
            let name = net.name(host);
            ip(&["netns", "add", &name]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            let plug = net.plug(host);
            ip(&[
                "-n", &name, "link", "add", "cable", "type", "veth", "peer", "name", &plug, "netns", &switch,
            ]);
            ip(&["-n", &name, "address", "add", &format!("{}/24", net.address(host)), "dev", "cable"]);
            ip(&["-n", &name, "link", "set", "cable", "up"]);
            net.plug_in(&plug);
        }
        let (cable, plug) = (format!("slh{}", net.id), net.plug("here"));
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", &plug, "netns", &switch]);
        ip(&["address", "add", &format!("{}/24", net.here()), "dev", &cable]);
        ip(&["link", "set", &cable, "up"]);
        net.plug_in(&plug);
        net
    }

    fn plug_in(&self, plug: &str) {
        ip(&["-n", &self.name("switch"), "link", "set", plug, "master", "bridge"]);
        ip(&["-n", &self.name("switch"), "link", "set", plug, "up"]);
    }

    /// The namespace of a host.
    fn name(&self, host: &str) -> String {
        format!("starlift-{}-{host}", self.id)
    }

    /// The switch's end of a host's cable.
    fn plug(&self, host: &str) -> String {
        format!("p-{host}")
    }

    fn address(&self, host: &str) -> String {
        let place = self.hosts.iter().position(|known| *known == host).expect("it was made");
        format!("{}.{}", self.prefix, place + 1)
    }

    /// The address of the test itself.
    fn here(&self) -> String {
        format!("{}.254", self.prefix)
    }

    /// Nothing gets through any more, and neither side is told.
    fn cut(&self, host: &str) {
        ip(&["-n", &self.name("switch"), "link", "set", &self.plug(host), "down"]);
    }

    fn join(&self, host: &str) {
        ip(&["-n", &self.name("switch"), "link", "set", &self.plug(host), "up"]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let run = |arguments: &[&str]| drop(Command::new("ip").args(arguments).output());
        run(&["link", "delete", &format!("slh{}", self.id)]);
        for host in self.hosts.iter().copied().chain(["switch"]) {
            run(&["netns", "delete", &self.name(host)]);
        }
    }
}
