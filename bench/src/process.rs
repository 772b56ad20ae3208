//! Processes that a measurement starts: ended by their id when it is over, whatever way it ends, and asked for the
//! processor time that they took, theirs alone. Linux only: the answers stand under `/proc`, to a hundredth of a second.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep};

/// Ticks per second in `/proc/PID/stat`, the same on every Linux that programs can be told of.
const TICKS: f64 = 100.0;

/// How long servers may take to start or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a process took from its start to its end, or until it was asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub(crate) wall_s: f64,
    /// User and system time of all threads.
    pub(crate) cpu_s: f64,
    /// Most memory resident at once, in MB (2^20 bytes). 0 when asked after the end.
    pub(crate) peak_mb: f64,
}

/// A child with both outputs in one log file.
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    started: Instant,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned(), log, started })
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Since its start.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let (_, cpu_s) = self.stat()?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let kib: f64 = line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        Ok(Usage { wall_s: self.started.elapsed().as_secs_f64(), cpu_s, peak_mb: kib / 1024.0 })
    }

    /// Waits for the end by itself, which must be a success, within `limit`.
    pub(crate) async fn finished(mut self, limit: Duration) -> Result<(Usage, String)> {
        // A process that has ended and was not waited for yet still tells what it took.
        while self.stat()?.0 != 'Z' {
            if self.started.elapsed() > limit {
                bail!("{} did not end within {} s:\n{}", self.name, limit.as_secs(), tail(&self.log()));
            }
            sleep(Duration::from_millis(2)).await;
        }
        let wall_s = self.started.elapsed().as_secs_f64();
        let (_, cpu_s) = self.stat()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}:\n{}", self.name, tail(&self.log()));
        Ok((Usage { wall_s, cpu_s, peak_mb: 0.0 }, self.log()))
    }

    /// Tries until it works; fails when the process ends or [`PATIENCE`] is over.
    pub(crate) async fn patiently<T>(&self, attempt: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if self.stat()?.0 == 'Z' || Instant::now() > deadline {
                return Err(error.context(format!("{} does not answer:\n{}", self.name, tail(&self.log()))));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// State, and seconds of processor time.
    fn stat(&self) -> Result<(char, f64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .with_context(|| format!("{} cannot be looked at", self.name))?;
        // The name before the parenthesis may hold blanks.
        let fields: Vec<&str> = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let state = fields.first().and_then(|field| field.chars().next()).unwrap_or('?');
        let ticks = |place: usize| fields.get(place).and_then(|field| field.parse().ok()).unwrap_or(0.0);
        Ok((state, (ticks(11) + ticks(12)) / TICKS))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM, so that a database closes its files; the process may have ended by itself.
        if let Ok(None) = self.child.try_wait() {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        }
        for _ in 0..3000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A binary of this workspace, built beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is missing; `make bench` builds it", path.display());
    Ok(path)
}

/// A port of the loopback that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
