//! A faithful single-process StarRocks: several frontends and backends over HTTP, one MySQL port, one
//! transaction state machine, and a store whose rows appear atomically. It never shares code with the product.
//! Start reading at `cluster.rs` (what the nodes share), then `fe.rs` and `be.rs` (what a client meets).

pub mod accounts;
mod be;
mod catalog;
mod civil;
mod cluster;
mod config;
mod context;
mod control;
mod convert;
mod csv;
mod expr;
mod faults;
mod faulty;
mod fe;
mod http;
mod ingest;
mod json;
pub mod mysql;
mod numeric;
mod packed;
mod params;
mod plan;
mod receive;
mod render;
mod sql;
pub mod store;
mod stream_load;
mod transaction_load;
pub mod transactions;
pub mod types;
pub mod view;
mod walk;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::cluster::Cluster;
pub use crate::config::Config;
pub use crate::faults::{Action, Fault, Faults, Op};
use crate::http::Port;
use crate::mysql::MysqlSettings;
use crate::store::Store;
use crate::view::TxnView;

/// A running server. Dropping it stops everything; `shutdown` also waits.
pub struct Standin {
    cluster: Arc<Cluster>,
    control: Port,
    addresses: Addresses,
    /// Removed when the server is dropped.
    _temporary: Option<TempDir>,
}

/// Where a server listens, as `serve` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub mysql: SocketAddr,
    pub fe_http: Vec<SocketAddr>,
    pub be_http: Vec<SocketAddr>,
    pub control: SocketAddr,
}

impl Standin {
    /// Opens the store, runs the start-up SQL, binds every port and serves until dropped.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        anyhow::ensure!(!config.fe_http.is_empty(), "at least one frontend is needed");
        let (store, temporary) = open_store(&config).await?;
        let (frontends, frontend_listeners) = bind_all(&config.fe_http).await?;
        let (backends, backend_listeners) = bind_all(&config.be_http).await?;
        let (control, control_listener) = bind(&config.control).await?;
        let mysql = TcpListener::bind(&config.mysql)
            .await
            .with_context(|| format!("cannot bind {}", config.mysql))?;
        let addresses = Addresses {
            mysql: mysql.local_addr()?,
            fe_http: frontends.iter().map(|port| port.addr).collect(),
            be_http: backends.iter().map(|port| port.addr).collect(),
            control: control.addr,
        };
        let cluster = Cluster::new(config, store, frontends, backends);
        // The cluster is new, so the cell is empty.
        let _ = cluster.mysql_port.set(addresses.mysql.port());
        for (index, listener) in frontend_listeners.into_iter().enumerate() {
            fe::serve(&cluster, index, listener);
        }
        for (index, listener) in backend_listeners.into_iter().enumerate() {
            be::serve(&cluster, index, listener);
        }
        control::serve(&cluster, &control, control_listener);
        let settings = MysqlSettings {
            credentials: (cluster.config.user.clone(), cluster.config.password.clone()),
            server_version: "8.0.33".to_owned(),
            cluster: Some(cluster.clone()),
        };
        tokio::spawn(mysql::serve(mysql, cluster.store.clone(), settings, cluster.stop.clone()));
        tokio::spawn(cluster.clone().keep_time());
        Ok(Self { cluster, control, addresses, _temporary: temporary })
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The scripted faults.
    pub fn faults(&self) -> &Faults {
        &self.cluster.faults
    }

    /// The tables, to look into or to prepare.
    pub fn store(&self) -> &Store {
        &self.cluster.store
    }

    /// Every remembered transaction, oldest first.
    pub fn transactions(&self) -> Vec<TxnView> {
        self.cluster.all_transactions()
    }

    /// How often an operation was performed: `begin`, `load`, `prepare`, `commit`, `rollback`, `get_load_state`,
    /// `cancel`, `stream_load`, `fe_redirect`.
    pub fn requests(&self, operation: &str) -> u64 {
        self.cluster.requests.all().get(operation).copied().unwrap_or(0)
    }

    /// Frontend `index` leads from now on; PREPARE transactions vanish.
    pub fn lead_by(&self, index: usize) {
        self.cluster.lead_by(index);
    }

    /// Backend `index` dies; the frontend notices after `notice`.
    pub async fn backend_down(&self, index: usize, notice: Duration) {
        self.cluster.backend_down(index, notice).await;
    }

    pub async fn backend_up(&self, index: usize) -> std::io::Result<()> {
        self.cluster.backend_up(index).await
    }

    pub async fn frontend_down(&self, index: usize) {
        self.cluster.frontend_down(index).await;
    }

    pub async fn frontend_up(&self, index: usize) -> std::io::Result<()> {
        self.cluster.frontend_up(index).await
    }

    /// Forgets every finished transaction.
    pub fn evict_labels(&self) {
        self.cluster.with_txns(|txns, _| txns.evict_all());
    }

    /// Stops all ports and waits until they are closed.
    pub async fn shutdown(self) {
        self.cluster.stop.cancel();
        self.cluster.faults.release();
        for port in self.ports() {
            port.close().await;
        }
    }

    fn ports(&self) -> impl Iterator<Item = &Port> {
        let frontends = self.cluster.frontends.iter().map(|node| &node.port);
        let backends = self.cluster.backends.iter().map(|node| &node.port);
        frontends.chain(backends).chain([&self.control])
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.cluster.stop.cancel();
        self.ports().for_each(Port::abandon);
    }
}

async fn open_store(config: &Config) -> anyhow::Result<(Store, Option<TempDir>)> {
    let temporary = match config.data_dir {
        Some(_) => None,
        None => Some(tempfile::tempdir().context("cannot make a temporary directory for the tables")?),
    };
    let dir = match (&config.data_dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.path().to_owned(),
        (None, None) => Path::new(".").to_owned(),
    };
    let mut scripts = Vec::new();
    for file in &config.init_sql_files {
        let script =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        scripts.push((file.display().to_string(), script));
    }
    scripts.extend(config.init_sql.iter().map(|sql| ("start-up SQL".to_owned(), sql.clone())));
    let store = tokio::task::spawn_blocking(move || -> anyhow::Result<Store> {
        let store =
            Store::open(&dir).with_context(|| format!("cannot open the tables in {}", dir.display()))?;
        for (name, script) in scripts {
            store.execute_script(&script).with_context(|| format!("{name} failed"))?;
        }
        Ok(store)
    })
    .await??;
    Ok((store, temporary))
}

async fn bind(address: &str) -> anyhow::Result<(Port, TcpListener)> {
    Port::bind(address).await.with_context(|| format!("cannot bind {address}"))
}

async fn bind_all(addresses: &[String]) -> anyhow::Result<(Vec<Port>, Vec<TcpListener>)> {
    let mut ports = Vec::new();
    let mut listeners = Vec::new();
    for address in addresses {
        let (port, listener) = bind(address).await?;
        ports.push(port);
        listeners.push(listener);
    }
    Ok((ports, listeners))
}
