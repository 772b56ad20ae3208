//! A private etcd: its own data directory, free ports, gone with the test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, free_address, until, within};

pub(crate) struct Etcd {
    endpoint: String,
    peer: String,
    server: Process,
    http: reqwest::Client,
    dir: TempDir,
}

/// What lies below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) keys: usize,
    /// Keys and values.
    pub(crate) bytes: usize,
    /// Of the whole store: rises by one with every transaction that changes something.
    pub(crate) revision: u64,
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (endpoint, peer) = (free_address().to_string(), free_address().to_string());
        let server = Process::start("etcd", &mut server_command(&dir, &endpoint, &peer), dir.path());
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build();
        let etcd = Self { endpoint, peer, server, http: http.expect("a plain HTTP client"), dir };
        etcd.wait_until_it_answers().await;
        etcd
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again after [`Etcd::kill`], on the same data and addresses.
    pub(crate) async fn start_again(&mut self) {
        let mut command = server_command(&self.dir, &self.endpoint, &self.peer);
        self.server = Process::start("etcd-again", &mut command, self.dir.path());
        self.wait_until_it_answers().await;
    }

    /// The `--state` of a coordinator that keeps its keys below `prefix`.
    pub(crate) fn state(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}", self.endpoint)
    }

    /// What lies below `prefix/` now.
    pub(crate) async fn usage(&self, prefix: &str) -> Usage {
        let range = json!({
            "key": BASE64_STANDARD.encode(format!("{prefix}/")),
            "range_end": BASE64_STANDARD.encode(format!("{prefix}0")),
        });
        let answer = self.range(&range).await.expect("etcd answers");
        let bytes_of = |pair: &Value, part: &str| {
            BASE64_STANDARD.decode(pair[part].as_str().unwrap_or_default()).expect("base64").len()
        };
        let pairs = answer["kvs"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let bytes = pairs.iter().map(|pair| bytes_of(pair, "key") + bytes_of(pair, "value")).sum();
        let revision = answer["header"]["revision"].as_str().expect("a revision").parse().expect("a number");
        Usage { keys: pairs.len(), bytes, revision }
    }

    async fn wait_until_it_answers(&self) {
        let anything = json!({ "key": BASE64_STANDARD.encode("x") });
        until("etcd to answer", || async { self.range(&anything).await.is_ok() }).await;
    }

    async fn range(&self, request: &Value) -> Result<Value, reqwest::Error> {
        let url = format!("http://{}/v3/kv/range", self.endpoint);
        self.http.post(url).json(request).send().await?.error_for_status()?.json().await
    }
}

fn server_command(dir: &TempDir, endpoint: &str, peer: &str) -> Command {
    command(None, &dir.path().join("data"), &format!("http://{endpoint}"), peer)
}

/// An etcd of one member, in a network namespace where one is named. `peer` is `host:port`.
pub(crate) fn command(namespace: Option<&str>, data: &Path, client_url: &str, peer: &str) -> Command {
    let peer_url = format!("http://{peer}");
    let mut command = within(namespace, "etcd");
    command
        .args(["--name", "test", "--data-dir"])
        .arg(data)
        .args(["--listen-client-urls", client_url, "--advertise-client-urls", client_url])
        .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
        .args(["--initial-cluster", &format!("test={peer_url}"), "--log-level", "error"]);
    command
}
