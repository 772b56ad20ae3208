//! What a worker is told at its start. Checked by [`crate::run`], passed down, never looked up.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use starlift_common::datasource::LiveDatasources;
use starlift_common::ids::WorkerId;
use starlift_link::dial::Dialer;
use starlift_link::guard::Guard;
use starlift_link::readings::Readings;
use ulid::Ulid;

/// Tasks at once for each core where nothing else is said: while one waits for a server, another computes.
const SLOTS_PER_CORE: u32 = 2;
/// How long a leaving worker lets its tasks run where nothing else is said.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(600);

/// Settings of one worker process.
#[derive(Debug, Clone)]
pub struct Config {
    /// `http://host:port`; any of them may lead, all are tried. Never empty.
    pub coordinators: Vec<String>,
    /// Tasks run at once, at least 1.
    pub slots: u32,
    /// The same entries as on the coordinator.
    pub datasources: LiveDatasources,
    /// After a shutdown request: how long running tasks may go on before they are given back.
    pub drain_timeout: Duration,
    /// Where all rows that a server refuses are kept, one file per attempt; `None`: nowhere.
    pub dirty_dir: Option<PathBuf>,
    /// Lengths stand for values wherever refused rows are told.
    pub mask_dirty: bool,
    /// Unique per process.
    pub worker_id: WorkerId,
    /// Name of the machine, for people.
    pub host: String,
    /// How coordinators are reached.
    pub dialer: Dialer,
    /// Who may look at the HTTP port.
    pub guard: Guard,
    /// What `/metrics` tells of its files.
    pub readings: Readings,
}

impl Config {
    /// Defaults, two slots for each core among them, and an id made of the machine's name and random letters.
    pub fn new(coordinators: Vec<String>, datasources: LiveDatasources) -> Self {
        let host = host_name();
        let worker_id = WorkerId(format!("{host}-{}", random_piece()).into());
        Self {
            coordinators,
            slots: default_slots(),
            datasources,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            dirty_dir: None,
            mask_dirty: false,
            worker_id,
            host,
            dialer: Dialer::default(),
            guard: Guard::default(),
            readings: Readings::default(),
        }
    }
}

/// By the cores that this process may use; on a machine that does not tell them, as for two.
fn default_slots() -> u32 {
    let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
    u32::try_from(cores).map_or(u32::MAX, |cores| cores.saturating_mul(SLOTS_PER_CORE))
}

/// Ten letters and digits, 50 random bits: the end of a ULID.
fn random_piece() -> String {
    let text = Ulid::from_parts(0, fastrand::u128(..)).to_string().to_ascii_lowercase();
    text[text.len() - 10..].to_owned()
}

fn host_name() -> String {
    let file = |path: &str| std::fs::read_to_string(path).ok();
    let name = std::env::var("HOSTNAME").ok().or_else(|| file("/proc/sys/kernel/hostname"));
    let name = name.or_else(|| file("/etc/hostname")).unwrap_or_default();
    match name.trim() {
        "" => "worker".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_of_one_machine_have_two_ids() {
        let config = || Config::new(vec!["http://127.0.0.1:9470".into()], LiveDatasources::default());
        assert_ne!(config().worker_id, config().worker_id);
    }
}
