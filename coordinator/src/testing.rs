//! A private etcd for unit tests: its own directory, free ports on the loopback, gone with the test.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::config::EtcdLocation;

pub(crate) struct Etcd {
    server: Child,
    endpoint: String,
    _dir: TempDir,
}

impl Etcd {
    /// Starts one and waits until it answers.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (endpoint, peer) = (free_address(), free_address());
        let (client_url, peer_url) = (format!("http://{endpoint}"), format!("http://{peer}"));
        let server = Command::new("etcd")
            .args(["--name", "test", "--data-dir"])
            .arg(dir.path())
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("test={peer_url}"), "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed; tests/servers.sh does that");
        let etcd = Self { server, endpoint, _dir: dir };
        let mut client = etcd.client().await;
        for _ in 0..600 {
            if client.get("x", None).await.is_ok() {
                return etcd;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("etcd does not answer");
    }

    pub(crate) async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.endpoint], None).await.unwrap()
    }

    pub(crate) fn location(&self, prefix: &str) -> EtcdLocation {
        EtcdLocation {
            endpoints: vec![self.endpoint.clone()],
            prefix: prefix.to_owned(),
            access: crate::config::EtcdAccess::default(),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}
