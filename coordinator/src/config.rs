//! What a coordinator is told at its start.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use starlift_common::datasource::LiveDatasources;
use starlift_link::dial::Dialer;
use starlift_link::guard::Guard;
use starlift_link::readings::Readings;
use starlift_link::tls::TlsFiles;

use crate::state::Rules;

/// Where the journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateLocation {
    /// A directory on this machine, used by one coordinator at a time.
    File(PathBuf),
    /// An etcd cluster, shared by any number of coordinators of which one leads.
    Etcd(EtcdLocation),
}

/// Keys in an etcd cluster that may serve others, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdLocation {
    /// `host:port` of its members, never empty.
    pub endpoints: Vec<String>,
    /// All keys lie below it; it has no slash at either end. Coordinators that share it are one cluster.
    pub prefix: String,
    pub access: EtcdAccess,
}

/// How etcd lets us in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdAccess {
    /// Encrypted when it names the authority of etcd's certificates.
    pub tls: TlsFiles,
    /// User, and the file that holds its password.
    pub user: Option<(String, PathBuf)>,
}

/// A place that no journal can be kept in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidState {
    #[error("cannot keep state in {scheme}; write file:DIR or etcd://HOST:PORT[,HOST:PORT]/PREFIX")]
    Scheme { scheme: String },
    #[error("names no directory; write file:DIR, e.g. file:/var/lib/starlift")]
    NoDirectory,
    #[error("`{endpoint}` is no etcd address; write etcd://HOST:PORT[,HOST:PORT]/PREFIX")]
    Endpoint { endpoint: String },
    #[error("names no prefix for the keys; write etcd://HOST:PORT[,HOST:PORT]/PREFIX")]
    NoPrefix,
}

impl FromStr for StateLocation {
    type Err = InvalidState;

    /// `file:DIR`, a directory alone, or `etcd://HOST:PORT[,HOST:PORT]/PREFIX`.
    fn from_str(text: &str) -> Result<Self, InvalidState> {
        match text.split_once("://") {
            Some(("etcd", rest)) => EtcdLocation::parse(rest).map(Self::Etcd),
            Some((scheme, _)) => Err(InvalidState::Scheme { scheme: scheme.to_owned() }),
            None => match text.strip_prefix("file:").unwrap_or(text) {
                "" => Err(InvalidState::NoDirectory),
                directory => Ok(Self::File(directory.into())),
            },
        }
    }
}

impl EtcdLocation {
    fn parse(text: &str) -> Result<Self, InvalidState> {
        let (endpoints, prefix) = text.split_once('/').unwrap_or((text, ""));
        let is_address = |endpoint: &&str| {
            endpoint.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('@') && port.parse::<u16>().is_ok()
            })
        };
        let endpoints: Vec<&str> = endpoints.split(',').collect();
        if let Some(bad) = endpoints.iter().find(|endpoint| !is_address(endpoint)) {
            return Err(InvalidState::Endpoint { endpoint: (*bad).to_owned() });
        }
        let prefix = prefix.trim_matches('/').to_owned();
        if prefix.is_empty() {
            return Err(InvalidState::NoPrefix);
        }
        let endpoints = endpoints.into_iter().map(str::to_owned).collect();
        Ok(Self { endpoints, prefix, access: EtcdAccess::default() })
    }
}

/// Everything [`crate::run`] needs besides its listeners.
#[derive(Debug, Clone)]
pub struct Config {
    pub state: StateLocation,
    pub datasources: LiveDatasources,
    /// How long a worker may be silent before its tasks are given to others.
    pub lease: Duration,
    /// Attempts of a task that may fail before its job does.
    pub attempts: u32,
    /// URL under which workers, commands and other coordinators reach this one; by default from its gRPC listener.
    pub advertise: Option<String>,
    /// How long a leading coordinator may be silent before another takes over; whole seconds. Only with etcd.
    pub leader_ttl: Duration,
    /// The same for the HTTP address.
    pub advertise_http: Option<String>,
    /// Ended jobs that stay to be looked at, and for how long.
    pub keep_jobs: usize,
    pub keep_for: Duration,
    /// Who gets in, and how.
    pub guard: Guard,
    /// How other coordinators are reached.
    pub dialer: Dialer,
    /// What `/metrics` tells of its files.
    pub readings: Readings,
}

impl Config {
    /// Five heartbeats of a worker; shorter ones mistake a busy network for a dead worker.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(15);
    pub const DEFAULT_ATTEMPTS: u32 = 3;
    /// A third of a worker's lease, so that a new leader is found before tasks are given up.
    pub const DEFAULT_LEADER_TTL: Duration = Duration::from_secs(5);

    pub fn new(state: StateLocation, datasources: LiveDatasources) -> Self {
        Self {
            state,
            datasources,
            lease: Self::DEFAULT_LEASE,
            attempts: Self::DEFAULT_ATTEMPTS,
            advertise: None,
            leader_ttl: Self::DEFAULT_LEADER_TTL,
            advertise_http: None,
            keep_jobs: Rules::KEEP_JOBS,
            keep_for: Rules::KEEP_FOR,
            guard: Guard::default(),
            dialer: Dialer::default(),
            readings: Readings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_in_a_directory_or_in_etcd() {
        assert_eq!("file:/a/b".parse(), Ok(StateLocation::File("/a/b".into())));
        assert_eq!("c".parse(), Ok(StateLocation::File("c".into())));
        let etcd = EtcdLocation {
            endpoints: vec!["h1:2379".into(), "[::1]:2380".into()],
            prefix: "starlift/prod".into(),
            access: EtcdAccess::default(),
        };
        assert_eq!("etcd://h1:2379,[::1]:2380/starlift/prod/".parse(), Ok(StateLocation::Etcd(etcd)));
    }

    #[test]
    fn a_place_that_is_none_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<StateLocation>().unwrap_err();
        assert_eq!(refused("file:"), InvalidState::NoDirectory);
        assert_eq!(refused("s3://bucket/x"), InvalidState::Scheme { scheme: "s3".into() });
        assert_eq!(refused("etcd://h:2379"), InvalidState::NoPrefix);
        assert_eq!(refused("etcd://h:2379//"), InvalidState::NoPrefix);
        for text in ["etcd://h/p", "etcd://:1/p", "etcd://h:1,/p", "etcd:///p", "etcd://u:p@h:1/p"] {
            assert!(matches!(refused(text), InvalidState::Endpoint { .. }), "{text}");
        }
    }
}
