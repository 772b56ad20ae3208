//! The stand-in StarRocks as a process of its own, with its control port.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use serde::Deserialize;
use tempfile::TempDir;

use crate::process::{Process, binary, until, within};

pub(crate) const USER: &str = "root";
pub(crate) const PASSWORD: &str = "st4rs";

/// What `serve` prints when it is ready: addresses `host:port`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) mysql: String,
    pub(crate) fe_http: Vec<String>,
    pub(crate) be_http: Vec<String>,
    pub(crate) control: String,
}

/// A transaction as the control port lists it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Transaction {
    pub(crate) label: String,
    pub(crate) state: String,
    /// How long it stays when it is prepared.
    pub(crate) prepared_timeout_ms: u64,
    /// Body bytes as they came.
    pub(crate) load_bytes: u64,
}

impl Transaction {
    /// Neither aborted nor published: it holds a slot at the server.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state.as_str(), "ABORTED" | "VISIBLE" | "COMMITTED")
    }
}

pub(crate) struct Standin {
    pub(crate) addresses: Addresses,
    http: reqwest::Client,
    _server: Process,
    _dir: TempDir,
}

impl Standin {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_in(None, flags).await
    }

    /// In a network namespace; its addresses must be reachable from here.
    pub(crate) async fn start_in(namespace: Option<&str>, flags: &[&str]) -> Self {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports = dir.path().join("ports.json");
        let mut command = within(namespace, binary("starrocks-standin"));
        command.arg("serve").arg("--port-file").arg(&ports).args(["--password", PASSWORD]).args(flags);
        let server = Process::start("standin", &mut command, dir.path());
        let read =
            || std::fs::read(&ports).ok().and_then(|text| serde_json::from_slice::<Addresses>(&text).ok());
        until("the stand-in to be ready", || async { read().is_some() }).await;
        let addresses = read().expect("it was there a moment ago");
        let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
        Self { addresses, http, _server: server, _dir: dir }
    }

    pub(crate) async fn connect(&self) -> Conn {
        let (host, port) = self.addresses.mysql.rsplit_once(':').expect("host:port");
        let options = OptsBuilder::default()
            .ip_or_hostname(host)
            .tcp_port(port.parse().expect("a port"))
            .user(Some(USER))
            .pass(Some(PASSWORD))
            .prefer_socket(false);
        Conn::new(options).await.expect("the stand-in accepts its own user")
    }

    pub(crate) async fn run(&self, statements: &[&str]) {
        let mut conn = self.connect().await;
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        conn.disconnect().await.expect("a clean goodbye");
    }

    pub(crate) async fn count(&self, table: &str) -> u64 {
        let mut conn = self.connect().await;
        let count = conn.query_first(format!("SELECT COUNT(*) FROM {table}")).await;
        count.expect("a count").expect("one row")
    }

    pub(crate) async fn transactions(&self) -> Vec<Transaction> {
        #[derive(Deserialize)]
        struct State {
            transactions: Vec<Transaction>,
        }
        let reply = self.http.get(self.control("/state")).send().await.expect("the control port answers");
        reply.json::<State>().await.expect("the control port speaks JSON").transactions
    }

    /// Waits until no transaction holds a slot any more.
    pub(crate) async fn wait_until_nothing_is_open(&self) {
        until("all transactions to be closed", || async {
            self.transactions().await.iter().all(|transaction| !transaction.is_open())
        })
        .await;
    }

    pub(crate) async fn fault(&self, fault: serde_json::Value) {
        let reply = self
            .http
            .post(self.control("/faults"))
            .json(&fault)
            .send()
            .await
            .expect("the control port answers");
        assert!(reply.status().is_success(), "{fault}: {}", reply.text().await.unwrap_or_default());
    }

    /// Removes every fault and lets go of what is held.
    pub(crate) async fn clear_faults(&self) {
        let reply = self.http.delete(self.control("/faults")).send().await.expect("the control port answers");
        assert!(reply.status().is_success(), "{}", reply.text().await.unwrap_or_default());
    }

    /// How many requests wait for `/faults/release`.
    pub(crate) async fn held(&self) -> u64 {
        let reply = self.http.get(self.control("/faults")).send().await.expect("the control port answers");
        let faults: serde_json::Value = reply.json().await.expect("the control port speaks JSON");
        faults["held"].as_u64().expect("a count")
    }

    pub(crate) async fn post(&self, path: &str) {
        let request = self.http.post(self.control(path)).timeout(Duration::from_secs(10));
        let reply = request.send().await.expect("the control port answers");
        assert!(reply.status().is_success(), "{path}: {}", reply.text().await.unwrap_or_default());
    }

    fn control(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.control)
    }

    /// The data source entry for a job.
    pub(crate) fn datasource(&self, name: &str, database: &str) -> String {
        let (host, port) = self.addresses.mysql.rsplit_once(':').expect("host:port");
        let load_urls = serde_json::to_string(&self.addresses.fe_http).expect("strings");
        format!(
            "[{name}]\ntype = \"starrocks\"\nhost = \"{host}\"\nport = {port}\nload_url = {load_urls}\n\
             database = \"{database}\"\nusername = \"{USER}\"\npassword = \"{PASSWORD}\"\n"
        )
    }
}
