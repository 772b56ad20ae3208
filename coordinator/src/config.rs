//! What a coordinator is told at its start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use starlift_common::datasource::Datasources;

/// Where the journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateLocation {
    /// A directory on this machine, used by one coordinator at a time.
    File(PathBuf),
}

/// Everything [`crate::run`] needs besides its listeners.
#[derive(Debug, Clone)]
pub struct Config {
    pub state: StateLocation,
    pub datasources: Arc<Datasources>,
    /// How long a worker may be silent before its tasks are given to others.
    pub lease: Duration,
    /// Attempts of a task that may fail before its job does.
    pub attempts: u32,
    /// The address that others reach this coordinator by; for logs.
    pub advertise: Option<String>,
}

impl Config {
    /// Five heartbeats of a worker; shorter ones mistake a busy network for a dead worker.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(15);
    pub const DEFAULT_ATTEMPTS: u32 = 3;

    pub fn new(state: StateLocation, datasources: Arc<Datasources>) -> Self {
        Self {
            state,
            datasources,
            lease: Self::DEFAULT_LEASE,
            attempts: Self::DEFAULT_ATTEMPTS,
            advertise: None,
        }
    }
}
