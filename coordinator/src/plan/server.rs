//! What the target's version and settings mean for a plan: which interface loads it, into how many tasks a job may be
//! cut, how long prepared rows last. Pure. Defaults are those of the server's manual where it does not tell.

use std::fmt;

use starlift_common::job::{
    CommitMode, Format, JobSpec, LoadMode, LoadSpec, OnError, RelationSpec, TIMEOUT_MAX_S,
};
use starlift_common::problem::{Code, Problem};
use starlift_common::task::TaskPlan;

use super::{PART_BYTES, PREPARED_LIFETIME_DEFAULT_S};
use crate::ranges::{Cut, Size, TASKS_MOST};

/// Of the open transactions that a database allows, what one job may hold, in percent: others load there too.
const OPEN_SHARE: u64 = 30;

/// From here on `prepare` takes `prepared_timeout`.
const PREPARED_TIMEOUT_SINCE: Version = Version(3, 5, 4);

/// Below this StarRocks forgets labels so soon that a doubtful commit may not be settled any more.
const LABELS_KEPT_LEAST: u64 = 10_000;

/// The only body of a plain load: how large it should become, and where the worker gives up. The server keeps the whole
/// of a JSON body in memory.
const PLAIN_JSON_BYTES: u64 = 64 << 20;
const PLAIN_JSON_BYTES_MOST: u64 = 4 * PLAIN_JSON_BYTES;

/// `major.minor.patch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads `SELECT current_version()`, e.g. `3.3.5-6d81f75`; `None` for builds without a number.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.').next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self(major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What the server says of itself; `None`: it does not, or the account may not ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    pub version: Option<Version>,
    /// `begin` is known there.
    pub has_transactions: bool,
    /// `max_running_txn_num_per_db`.
    pub open_transactions: Option<u64>,
    /// `label_keep_max_num`.
    pub labels_kept: Option<u64>,
    /// `prepared_transaction_default_timeout_second`.
    pub prepared_s: Option<u32>,
}

impl ServerFacts {
    pub(super) fn mode(&self) -> LoadMode {
        if self.has_transactions { LoadMode::Transaction } else { LoadMode::Plain }
    }

    fn is_older_than(&self, major: u32, minor: u32) -> bool {
        self.version.is_some_and(|version| version < Version(major, minor, 0))
    }

    fn open_transactions(&self) -> u64 {
        self.open_transactions.unwrap_or(if self.is_older_than(3, 1) { 100 } else { 1000 })
    }

    /// `streaming_load_max_mb` as the BE has it by default: a BE's settings cannot be asked.
    fn body_bytes(&self) -> u64 {
        let is_old = self.is_older_than(3, 0) || !self.has_transactions;
        if is_old { 10_240 << 20 } else { 102_400 << 20 }
    }

    /// Tasks that a job may have.
    pub(super) fn tasks_most(&self, spec: &JobSpec) -> u64 {
        match spec.settings.commit {
            CommitMode::Task => TASKS_MOST,
            CommitMode::Job => (self.open_transactions() * OPEN_SHARE / 100).max(1),
        }
    }

    /// How the job's table is to be cut.
    pub(super) fn cut(&self, spec: &JobSpec) -> Cut {
        let wanted = u64::from(spec.settings.concurrent) * u64::from(spec.source.split_factor);
        let body_bytes = match self.mode() {
            LoadMode::Transaction => u64::MAX,
            // Half of it, because the size is an estimate.
            LoadMode::Plain => self.plain_body_bytes(spec.target.load.format) / 2,
        };
        Cut { wanted, body_bytes, tasks_most: self.tasks_most(spec) }
    }

    fn plain_body_bytes(&self, format: Format) -> u64 {
        match format {
            Format::Csv => self.body_bytes(),
            Format::Json => PLAIN_JSON_BYTES,
        }
    }

    /// [`LoadSpec::max_part_bytes`].
    pub(super) fn part_bytes(&self, format: Format) -> u64 {
        match (self.mode(), format) {
            (LoadMode::Transaction, _) => PART_BYTES,
            (LoadMode::Plain, Format::Csv) => self.body_bytes(),
            (LoadMode::Plain, Format::Json) => PLAIN_JSON_BYTES_MOST,
        }
    }

    /// What `prepare` asks for, and how long the server keeps what is prepared; both in seconds. A job that commits
    /// all at the end wants four times its own estimate.
    pub(super) fn prepared(&self, spec: &JobSpec, load: &LoadSpec, rows: u64) -> (Option<u32>, u32) {
        let by_itself = self.prepared_s.unwrap_or(PREPARED_LIFETIME_DEFAULT_S);
        let takes_timeout = self.version.is_some_and(|version| version >= PREPARED_TIMEOUT_SINCE);
        if spec.settings.commit == CommitMode::Task || !takes_timeout {
            return (None, by_itself);
        }
        let each = rows / u64::from(spec.settings.concurrent.max(1));
        let wanted = load.estimated_s(each, speed_share(spec)).saturating_mul(4).min(TIMEOUT_MAX_S);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).max(PREPARED_LIFETIME_DEFAULT_S);
        (Some(wanted), wanted)
    }

    /// What the job asks for and this server cannot give.
    pub(super) fn faults(&self, spec: &JobSpec) -> Vec<Problem> {
        if self.has_transactions {
            return Vec::new();
        }
        let refused = |what: &str, hint: &str| {
            let message = format!("{what} needs transactions of Stream Load, which the target does not know");
            Problem::new(Code::Unsupported, message).hint(format!("{hint}; StarRocks has them from 2.4 on"))
        };
        let mut faults = Vec::new();
        if spec.target.on_error == OnError::BatchDirtyData {
            faults.push(refused("strategyOnError batchDirtyData", "use strategyOnError exit"));
        }
        if spec.settings.commit == CommitMode::Job {
            faults.push(refused("commit \"job\"", "use commit \"task\""));
        }
        faults
    }

    /// Tasks that are too large for what this server takes at once.
    pub(super) fn too_large(
        &self,
        spec: &JobSpec,
        load: &LoadSpec,
        tasks: &[TaskPlan],
        size: Size,
    ) -> Option<Problem> {
        let rows = tasks.iter().map(|task| task.rows_estimate).max().unwrap_or(0);
        let bytes = share_of(size, rows);
        match (self.mode(), spec.settings.commit) {
            (LoadMode::Plain, _) => {
                let most = self.plain_body_bytes(load.format);
                (bytes > most).then(|| {
                    let message = format!(
                        "a task holds about {} MiB, and a load without transactions takes at most {} MiB",
                        bytes >> 20,
                        most >> 20
                    );
                    Problem::new(Code::InvalidSettings, message)
                        .at(names(spec))
                        .hint("name a splitPk, or use format csv")
                })
            }
            (LoadMode::Transaction, CommitMode::Task) => None,
            (LoadMode::Transaction, CommitMode::Job) => {
                let seconds = load.estimated_s(rows, speed_share(spec));
                let half = load.transaction_timeout_s(rows, speed_share(spec)) / 2;
                if bytes <= PART_BYTES && seconds <= half {
                    return None;
                }
                let message = format!(
                    "with commit \"job\" one of the {} tasks holds about {} MiB and takes about {seconds} s; a \
                     transaction takes {} MiB and {half} s",
                    tasks.len(),
                    bytes >> 20,
                    PART_BYTES >> 20
                );
                let hint = format!(
                    "use commit \"task\", name a splitPk, raise timeout in loadProps, or raise \
                     max_running_txn_num_per_db ({} now) at the target",
                    self.open_transactions()
                );
                Some(Problem::new(Code::InvalidSettings, message).at(names(spec)).hint(hint))
            }
        }
    }

    /// What an operator should know before the job runs.
    pub(super) fn warnings(&self, spec: &JobSpec, tasks: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.has_transactions {
            let version = self.version.map(|version| format!(" ({version})")).unwrap_or_default();
            warnings.push(format!(
                "the target{version} knows no transactions of Stream Load: each task is one load that commits by \
                 itself, and is loaded exactly once only as long as the server remembers its label"
            ));
        }
        if let Some(kept) = self.labels_kept.filter(|kept| *kept < LABELS_KEPT_LEAST) {
            warnings.push(match self.mode() {
                LoadMode::Transaction => format!(
                    "the target remembers only {kept} labels (label_keep_max_num); set it to {LABELS_KEPT_LEAST} or \
                     more, so that a commit whose answer is lost can be settled"
                ),
                LoadMode::Plain => format!(
                    "the target remembers only {kept} labels (label_keep_max_num) and the job has {tasks} tasks: a load \
                     whose answer is lost may be DOUBLED once its label is forgotten; set it to {LABELS_KEPT_LEAST} or \
                     more before the job starts"
                ),
            });
        }
        if spec.settings.commit == CommitMode::Job {
            let count = if tasks == 1 { "1 transaction".into() } else { format!("{tasks} transactions") };
            warnings.push(format!(
                "commit \"job\" keeps {count} open until the last task is prepared; the target allows {} in a database",
                self.open_transactions()
            ));
        }
        warnings
    }
}

/// What the job reads, for messages.
fn names(spec: &JobSpec) -> String {
    let relations = &spec.source.relations;
    let first = relations.first().map(RelationSpec::name).unwrap_or_default();
    if relations.len() > 1 { format!("{first} and {} others", relations.len() - 1) } else { first }
}

/// A task's share of the job's speed limit while all slots are busy.
fn speed_share(spec: &JobSpec) -> Option<u64> {
    spec.settings.bytes_per_second.map(|limit| limit / u64::from(spec.settings.concurrent.max(1)))
}

/// Bytes of so many of the table's rows.
fn share_of(size: Size, rows: u64) -> u64 {
    let bytes = u128::from(size.bytes) * u128::from(rows) / u128::from(size.rows.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_without_its_commit() {
        assert_eq!(Version::parse("3.3.5-6d81f75"), Some(Version(3, 3, 5)));
        assert_eq!(Version::parse("2.3"), Some(Version(2, 3, 0)));
        assert_eq!(Version::parse("main-1a2b"), None);
        assert!(Version(3, 10, 0) > PREPARED_TIMEOUT_SINCE);
    }
}
