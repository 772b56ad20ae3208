//! A worker: leases tasks from a coordinator, reads each task's rows over the MySQL protocol and loads them into
//! StarRocks in transactions that it prepares and never commits.
//!
//! Decides nothing about a job, stores nothing, knows no other worker. Follow a task from [`run`] through `agent.rs` and
//! `copy.rs`, a row through `source.rs`, `encode`, `batch.rs`, `compress.rs` and `load.rs`, a bad row through `trial.rs`,
//! `isolate.rs` and `dirty.rs`.

mod agent;
mod batch;
mod budget;
mod check;
mod compress;
mod config;
mod control;
mod coordinators;
mod copy;
mod dirty;
mod encode;
mod failure;
mod http;
mod isolate;
mod load;
mod metrics;
mod mysql;
mod plain;
#[doc(hidden)]
pub mod row_path;
mod segment;
mod source;
mod speed;
#[cfg(test)]
mod testing;
mod trial;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use starlift_link::guard::Guard;
use starlift_remote::starrocks::clients::Clients;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

pub use crate::config::{Config, DEFAULT_DRAIN_TIMEOUT};
pub use starlift_link::dial::InvalidAddress;

use crate::agent::Agent;
use crate::coordinators::Coordinators;
use crate::copy::Tools;
use crate::dirty::DirtySettings;
use crate::http::Status;
use crate::metrics::Metrics;

/// Why a worker cannot run. Whatever happens to tasks or coordinators later is no reason to end.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("a worker needs at least one coordinator address")]
    NoCoordinator,
    #[error("a worker needs at least one slot")]
    NoSlots,
    #[error(transparent)]
    InvalidAddress(#[from] InvalidAddress),
    #[error("cannot serve HTTP")]
    Http(#[source] io::Error),
}

/// The ports of a worker.
#[derive(Default)]
pub struct Listeners {
    /// Health and metrics.
    pub http: Option<TcpListener>,
    /// The same, open to everybody.
    pub metrics: Option<TcpListener>,
}

/// Works until `shutdown` is cancelled or the coordinator asks the worker to leave; running tasks are then finished or,
/// after [`Config::drain_timeout`], given back. Both listeners serve `/livez`, `/readyz` and
/// `/metrics`. Nothing of it runs on
/// after it returned or was dropped, but for statements still to be killed at a source (at most 10 s).
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), WorkerError> {
    let Listeners { http, metrics } = listeners;
    if config.coordinators.is_empty() {
        return Err(WorkerError::NoCoordinator);
    }
    if config.slots == 0 {
        return Err(WorkerError::NoSlots);
    }
    let coordinators = Coordinators::new(&config.coordinators, config.dialer.clone())?;
    let metrics_page = Metrics::new(config.slots).with(config.readings.clone());
    let status = Arc::new(Status { metrics: metrics_page, ready: AtomicBool::new(false) });
    let http_address = match &http {
        Some(listener) => reachable(listener.local_addr().map_err(WorkerError::Http)?, &config.host),
        None => String::new(),
    };
    let http_ends = CancellationToken::new();
    let mut servers = Vec::new();
    for (listener, guard) in [(http, config.guard.clone()), (metrics, Guard::default())] {
        if let Some(listener) = listener {
            let server = http::serve(listener, guard, Arc::clone(&status), http_ends.clone());
            servers.push(AbortOnDropHandle::new(tokio::spawn(server)));
        }
    }
    let tools = Arc::new(Tools {
        datasources: config.datasources.clone(),
        clients: Clients::new(config.datasources.clone()),
        status,
        dirty: DirtySettings {
            dir: config.dirty_dir.clone(),
            host: config.host.clone(),
            masked: config.mask_dirty,
        },
        clock: agent::now,
    });
    info!(worker_id = %config.worker_id, slots = config.slots, http = %http_address, "worker started");
    let agent = Agent::new(config, http_address, coordinators, tools);
    agent.run(shutdown).await;
    http_ends.cancel();
    drop(servers);
    info!("worker ended");
    Ok(())
}

/// The address as others reach it: a listener on all interfaces is known by the machine's name.
fn reachable(address: SocketAddr, host: &str) -> String {
    if address.ip().is_unspecified() { format!("{host}:{}", address.port()) } else { address.to_string() }
}
