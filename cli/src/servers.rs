//! `starlift coordinator` and `starlift worker`: ports, certificates, tokens, signals; and then the server itself.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use starlift_common::datasource::LiveDatasources;
use starlift_common::problem::{Code, Problem};
use starlift_coordinator::{self as coordinator, StateLocation};
use starlift_link::dial::Dialer;
use starlift_link::guard::{Guard, GuardSettings};
use starlift_link::readings::{self, Readings};
use starlift_link::tokens::Role;
use starlift_worker as worker;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::args::{CoordinatorArgs, LinkArgs, WorkerArgs};
use crate::end::{End, Outcome, one};
use crate::files;
use crate::process::{stopped_by_signal, unix_time};
use crate::reminder::{Reminder, Reminders};

/// Connections that may wait to be accepted: after a change of leader all workers come at once. The system may allow fewer.
const BACKLOG: u32 = 4096;
/// How often certificates and tokens are read again: where they are renewed, nobody need send a signal.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) async fn coordinator(args: CoordinatorArgs) -> Outcome {
    let keep_jobs = args.keep_jobs();
    let files = Files::read(args.datasources.path, &args.link, args.mutual_tls, Role::Read)?;
    let guard = &files.guard;
    let insecure = args.link.insecure;
    let listeners = coordinator::Listeners {
        grpc: listen("--grpc", &args.grpc, guard, insecure).await?,
        http: Some(listen("--http", &args.http, guard, insecure).await?),
        metrics: listen_openly("--metrics", args.metrics.as_deref()).await?,
        scaler: listen_openly("--scaler", args.scaler.as_deref()).await?,
    };
    let is_everywhere = listeners.grpc.local_addr().is_ok_and(|bound| bound.ip().is_unspecified());
    if is_everywhere && args.advertise.is_none() && matches!(args.state, StateLocation::Etcd(_)) {
        let message = "others cannot be told how to reach this coordinator: it listens on every address";
        let problem = Problem::new(Code::InvalidSettings, message).at(args.grpc);
        return Err(one(problem.hint("name one with --advertise http://HOST:PORT")));
    }
    let mut config = coordinator::Config::new(args.etcd.added_to(args.state)?, files.datasources.clone());
    config.keep_jobs = keep_jobs;
    config.leader_ttl = args.leader_ttl;
    config.lease = args.lease;
    config.attempts = args.attempts;
    config.advertise = args.advertise;
    config.advertise_http = args.advertise_http;
    config.keep_for = DAY * args.keep_days;
    (config.guard, config.dialer) = (guard.clone(), files.dialer.clone());
    config.readings = files.readings.clone();
    let _reading = AbortOnDropHandle::new(tokio::spawn(files.keep_up()));
    coordinator::run(config, listeners, stopped_by_signal()).await.map_err(|error| one(error.problem()))?;
    Ok(End::Done)
}

pub(crate) async fn worker(args: WorkerArgs) -> Outcome {
    let files = Files::read(args.datasources.path, &args.link, false, Role::Worker)?;
    let guard = &files.guard;
    let listeners = worker::Listeners {
        http: Some(listen("--http", &args.http, guard, args.link.insecure).await?),
        metrics: listen_openly("--metrics", args.metrics.as_deref()).await?,
    };
    let mut config = worker::Config::new(args.coordinator.urls, files.datasources.clone());
    config.slots = args.slots.unwrap_or(config.slots);
    config.drain_timeout = args.drain_timeout;
    config.dirty_dir = args.dirty.dirty_dir;
    config.mask_dirty = args.dirty.mask_dirty;
    (config.guard, config.dialer) = (guard.clone(), files.dialer.clone());
    config.readings = files.readings.clone();
    let _reading = AbortOnDropHandle::new(tokio::spawn(files.keep_up()));
    worker::run(config, listeners, stopped_by_signal()).await.map_err(|error| one(worker_problem(&error)))?;
    Ok(End::Done)
}

/// A worker ends by itself only when it cannot start.
pub(crate) fn worker_problem(error: &worker::WorkerError) -> Problem {
    Problem::new(Code::InvalidSettings, format!("the worker cannot start: {error}"))
}

/// What a server reads at its start and again while it runs.
struct Files {
    path: PathBuf,
    datasources: LiveDatasources,
    guard: Guard,
    dialer: Dialer,
    role: Role,
    readings: Readings,
    reminders: Reminders,
}

impl Files {
    /// `role`: whose token it sends.
    fn read(path: PathBuf, link: &LinkArgs, mutual: bool, role: Role) -> Result<Self, Vec<Problem>> {
        let datasources = LiveDatasources::new(files::load_datasources(&path)?);
        let settings = GuardSettings { tls: link.tls(), mutual, token_file: link.token_file.clone() };
        let guard = Guard::new(settings).map_err(one)?;
        let dialer = Dialer::new(link.dial(), role).map_err(one)?;
        let readings = Readings::new(guard.clone(), now_s());
        let mut files =
            Self { path, datasources, guard, dialer, role, readings, reminders: Reminders::default() };
        files.remind();
        Ok(files)
    }

    /// Certificates and tokens every minute, the data sources too when SIGHUP asks for it. A file with faults changes
    /// nothing.
    async fn keep_up(mut self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut asked = match signal(SignalKind::hangup()) {
            Ok(asked) => Some(asked),
            Err(error) => {
                warn!(%error, "SIGHUP cannot be waited for");
                None
            }
        };
        loop {
            let hangup = async {
                match &mut asked {
                    Some(asked) => asked.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => {}
                _ = hangup => self.read_datasources(),
            }
            self.read_certificates_and_tokens();
        }
    }

    fn read_certificates_and_tokens(&mut self) {
        let mut is_good = true;
        for read in [self.guard.reload(), self.dialer.reload(self.role)] {
            if let Err(problem) = read {
                is_good = false;
                warn!(error = %problem, "certificates or tokens cannot be read again, the old ones stay in force");
            }
        }
        self.readings.note(readings::Files::CertificatesAndTokens, is_good, now_s());
        self.remind();
    }

    fn read_datasources(&self) {
        let read = files::load_datasources(&self.path);
        self.readings.note(readings::Files::Datasources, read.is_ok(), now_s());
        match read {
            Ok(read) => {
                let differ = self.datasources.replace(read);
                info!(differ, "data sources were read again");
            }
            Err(problems) => {
                for problem in problems {
                    warn!(error = %problem, "data sources cannot be read again, the old ones stay in force");
                }
            }
        }
    }

    /// Says so while there is time when the certificate that is in force runs out.
    fn remind(&mut self) {
        let Some(certificate) = self.guard.certificate() else { return };
        let Some(reminder) = self.reminders.due(&certificate, now_s()) else { return };
        let file = certificate.path.display();
        // What expires far beyond what is a date here is not reminded of.
        let end =
            i64::try_from(certificate.expires_s).ok().and_then(|end_s| Timestamp::from_second(end_s).ok());
        let expires = end.unwrap_or(Timestamp::MAX);
        match reminder {
            Reminder::RunsOut => {
                warn!(%file, %expires, "the certificate runs out, put a new one in its place");
            }
            Reminder::IsOver => {
                warn!(%file, %expires, "the certificate has expired, put a new one in its place");
            }
        }
    }
}

/// Unix time in seconds, as certificates count it.
fn now_s() -> u64 {
    unix_time().as_secs()
}

async fn bind(address: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the name has no address");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // An earlier process's connections may linger on this port.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Binds before anything else is set up, so that a taken port is told at once.
async fn listen(
    flag: &str,
    address: &str,
    guard: &Guard,
    insecure: bool,
) -> Result<TcpListener, Vec<Problem>> {
    let listener = listen_anywhere(flag, address).await?;
    let bound = listener.local_addr();
    let bound =
        bound.map_err(|error| one(Problem::new(Code::InvalidSettings, error.to_string()).at(address)))?;
    guard.allows(bound, insecure).map_err(|problem| one(problem.at(address)))?;
    Ok(listener)
}

/// A port that tells numbers only, and is there only when somebody asked for it.
async fn listen_openly(flag: &str, address: Option<&str>) -> Result<Option<TcpListener>, Vec<Problem>> {
    match address {
        Some(address) => listen_anywhere(flag, address).await.map(Some),
        None => Ok(None),
    }
}

async fn listen_anywhere(flag: &str, address: &str) -> Result<TcpListener, Vec<Problem>> {
    bind(address).await.map_err(|error| {
        let problem = Problem::new(Code::InvalidSettings, format!("cannot listen: {error}")).at(address);
        one(problem.hint(format!("choose a free address of this machine with {flag} HOST:PORT")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_are_never_open_to_other_hosts_by_accident() {
        let guard = Guard::default();
        assert!(listen("--http", "127.0.0.1:0", &guard, false).await.is_ok());
        let refused = listen("--http", "0.0.0.0:0", &guard, false).await.unwrap_err();
        assert!(refused[0].hint.contains("--insecure"), "{refused:?}");
        assert!(listen("--http", "0.0.0.0:0", &guard, true).await.is_ok());
    }
}
