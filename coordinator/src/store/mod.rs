//! What survives a restart, and where. Backends keep bytes under text keys and know nothing of jobs; the layout is here.
//!
//! | key | value | written |
//! |---|---|---|
//! | `format` | version of this layout | once |
//! | `script/JOB` | the job file's text | at submit |
//! | `plan/JOB` | the plan without its tasks | after planning |
//! | `range/JOB/PAGE` | the tasks of the plan, 2,000 to a page | with the plan |
//! | `job/JOB` | [`JobRecord`](crate::record::JobRecord) | at every change of state or statement |
//! | `task/JOB/TASK` | [`TaskRecord`](crate::record::TaskRecord) | at grant, at the decision, at the end |
//! | `sweep/JOB/TASK/EPOCH` | [`SweepRecord`](crate::record::SweepRecord), deleted when closed | when an epoch dies |
//! | `dirty/JOB/TASK` | the first [`BadRow`]s of a task | with its decision |
//! | `report/JOB` | [`Report`](crate::report::Report), deleted when the job is resumed | when the job ends |
//!
//! Not stored: progress, workers, leases' ends (every live lease gets a full term after a restart), the order of the
//! queue (rebuilt from the plan), secrets (jobs name data sources). Values are JSON; readers ignore unknown fields.
//!
//! A save is whole or not there, in every backend: records of one turn may depend on each other, and a reader never sees
//! a part of it. How etcd keeps that promise although its transactions are small stands in [`etcd`].

pub mod etcd;
pub mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey};
use starlift_common::problem::{Code, Problem};
use starlift_common::task::{AttemptKey, BadRow, TaskPlan};

use crate::plan::Plan;
use crate::state::{Change, Forgotten, Journal, StoredJob};

/// Of this layout. A newer one is refused, not guessed at.
const FORMAT: u32 = 1;

const FORMAT_KEY: &str = "format";

const TASKS_PER_PAGE: usize = 2000;

/// Keeps the journal. One writer at a time; a backend makes sure of that or says so when it cannot. After an error of
/// either call the store is done with, and so is whatever its caller holds in memory: a new one is opened and read.
pub trait Store: Send + Sync + 'static {
    /// Every stored pair, in the order of keys.
    fn load(&self) -> impl Future<Output = Result<Vec<(String, Vec<u8>)>, StoreError>> + Send;

    /// Makes all writes durable, or none; no key occurs twice. After an error either may be the case.
    fn save(&self, writes: Vec<Write>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// One pair to put, or to take away when `value` is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub value: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another process uses the state in {}", path.display())]
    Locked { path: PathBuf },
    #[error("cannot open the state in {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot {operation} the state")]
    Failed {
        operation: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("etcd did not {operation}")]
    Etcd {
        operation: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("another coordinator leads")]
    Deposed,
    #[error("{key} takes {bytes} bytes; etcd keeps at most {most} in one value")]
    TooLarge { key: String, bytes: usize, most: usize },
    #[error("stored value {key} is unreadable")]
    Corrupt {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("stored key {key} is unknown")]
    UnknownKey { key: String },
    #[error("stored job {job} lacks its {part}")]
    Incomplete { job: JobId, part: &'static str },
    #[error("the state is of format {found}; this version knows format {FORMAT}")]
    Format { found: u32 },
}

impl StoreError {
    /// Whether trying again cannot help: somebody has to mend something first.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Open { .. } | Self::Failed { .. } | Self::Etcd { .. } | Self::Deposed => false,
            Self::Locked { .. }
            | Self::TooLarge { .. }
            | Self::Corrupt { .. }
            | Self::UnknownKey { .. }
            | Self::Incomplete { .. }
            | Self::Format { .. } => true,
        }
    }

    /// The same for people: with all causes, and what to do.
    pub fn problem(&self) -> Problem {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let hint = match self {
            Self::Locked { .. } => {
                "choose another directory with --state, or stop the coordinator or `starlift run` that uses this one"
            }
            Self::Open { .. } | Self::Failed { .. } => {
                "see whether the directory is writable and the disk has room"
            }
            Self::Etcd { .. } => {
                "see whether etcd is healthy and can be reached at the address given with --state"
            }
            Self::Deposed => "wait; the coordinator follows the one that leads",
            Self::TooLarge { .. } => "use a --state directory for this job",
            Self::Format { .. } => "use the version of starlift that wrote it, or a new --state directory",
            Self::Corrupt { .. } | Self::UnknownKey { .. } | Self::Incomplete { .. } => {
                "the state was damaged or written by another program; restore it or use a new --state directory"
            }
        };
        Problem::new(Code::StoreFailed, message).hint(hint)
    }
}

/// Reads the whole journal; an empty store is a new one, and gets its format.
pub async fn load(store: &impl Store) -> Result<Journal, StoreError> {
    let pairs = store.load().await?;
    if pairs.is_empty() {
        store.save(vec![put(FORMAT_KEY.to_owned(), &FORMAT)]).await?;
    }
    decode(pairs)
}

/// Makes all changes durable, or none.
pub async fn save(store: &impl Store, changes: &[Change]) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    store.save(encode(changes)).await
}

pub(crate) fn encode(changes: &[Change]) -> Vec<Write> {
    let mut writes = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            Change::Script(job, script) => writes.push(put(format!("script/{job}"), script)),
            Change::Plan(job, plan) => writes.extend(encode_plan(*job, plan)),
            Change::Job(job, record) => writes.push(put(format!("job/{job}"), record)),
            Change::Task(task, record) => {
                writes.push(put(format!("task/{}/{:06}", task.job, task.task.0), record));
            }
            Change::Sweep(attempt, record) => writes.push(put(sweep_key(*attempt), record)),
            Change::Swept(attempt) => writes.push(Write { key: sweep_key(*attempt), value: None }),
            Change::Report(job, report) => writes.push(put(report_key(*job), report)),
            Change::Forgotten(job, stored) => writes.extend(forget(*job, stored)),
            Change::NoReport(job) => writes.push(Write { key: report_key(*job), value: None }),
            Change::BadRows(task, rows) => {
                writes.push(put(format!("dirty/{}/{:06}", task.job, task.task.0), rows));
            }
        }
    }
    writes
}

fn encode_plan(job: JobId, plan: &Plan) -> Vec<Write> {
    let pages = plan.tasks.chunks(TASKS_PER_PAGE).enumerate();
    let mut writes: Vec<Write> =
        pages.map(|(page, tasks)| put(format!("range/{job}/{page:04}"), &tasks)).collect();
    // The head comes last: a plan is there when it is.
    writes.push(put(format!("plan/{job}"), &Plan { tasks: Vec::new(), ..plan.clone() }));
    writes
}

/// Takes away all that is stored of a job.
fn forget(job: JobId, stored: &Forgotten) -> Vec<Write> {
    let mut keys = vec![format!("job/{job}"), format!("report/{job}"), format!("script/{job}")];
    if let Some(tasks) = stored.planned {
        keys.push(format!("plan/{job}"));
        keys.extend((0..tasks.div_ceil(TASKS_PER_PAGE)).map(|page| format!("range/{job}/{page:04}")));
    }
    keys.extend(stored.tasks.iter().map(|task| format!("task/{job}/{:06}", task.0)));
    keys.extend(stored.bad_rows.iter().map(|task| format!("dirty/{job}/{:06}", task.0)));
    keys.into_iter().map(|key| Write { key, value: None }).collect()
}

fn sweep_key(attempt: AttemptKey) -> String {
    format!("sweep/{}/{:06}/{:06}", attempt.task.job, attempt.task.task.0, attempt.epoch.0)
}

fn report_key(job: JobId) -> String {
    format!("report/{job}")
}

fn put(key: String, value: &impl Serialize) -> Write {
    let bytes = serde_json::to_vec(value).expect("records hold only what JSON can hold");
    Write { key, value: Some(bytes) }
}

/// A job's pieces as they come by key.
#[derive(Default)]
struct Pieces {
    script: Option<Arc<str>>,
    plan: Option<Plan>,
    ranges: Vec<TaskPlan>,
    record: Option<crate::record::JobRecord>,
    tasks: BTreeMap<u32, crate::record::TaskRecord>,
    report: Option<Arc<crate::report::Report>>,
    bad_rows: BTreeMap<u32, Arc<[BadRow]>>,
}

pub(crate) fn decode(pairs: Vec<(String, Vec<u8>)>) -> Result<Journal, StoreError> {
    let mut jobs: BTreeMap<JobId, Pieces> = BTreeMap::new();
    let mut journal = Journal::default();
    for (key, value) in pairs {
        let unknown = || StoreError::UnknownKey { key: key.clone() };
        let parts: Vec<&str> = key.split('/').collect();
        if let [FORMAT_KEY] = parts[..] {
            let found: u32 = get(&key, &value)?;
            if found > FORMAT {
                return Err(StoreError::Format { found });
            }
            continue;
        }
        let job: JobId = parts.get(1).and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
        let pieces = jobs.entry(job).or_default();
        match parts[..] {
            ["script", _] => pieces.script = Some(get::<String>(&key, &value)?.into()),
            ["plan", _] => pieces.plan = Some(get(&key, &value)?),
            // Pages come in the order of their keys.
            ["range", _, _] => pieces.ranges.extend(get::<Vec<TaskPlan>>(&key, &value)?),
            ["job", _] => pieces.record = Some(get(&key, &value)?),
            ["task", _, task] => {
                pieces.tasks.insert(task.parse().map_err(|_| unknown())?, get(&key, &value)?);
            }
            ["sweep", _, task, epoch] => {
                let task = TaskKey { job, task: TaskId(task.parse().map_err(|_| unknown())?) };
                let epoch = Epoch(epoch.parse().map_err(|_| unknown())?);
                journal.sweeps.insert(AttemptKey { task, epoch }, get(&key, &value)?);
            }
            ["dirty", _, task] => {
                pieces.bad_rows.insert(task.parse().map_err(|_| unknown())?, get(&key, &value)?);
            }
            ["report", _] => pieces.report = Some(get(&key, &value)?),
            _ => return Err(unknown()),
        }
    }
    for (job, pieces) in jobs {
        journal.jobs.insert(job, assemble(job, pieces)?);
    }
    Ok(journal)
}

fn assemble(job: JobId, pieces: Pieces) -> Result<StoredJob, StoreError> {
    let incomplete = |part| StoreError::Incomplete { job, part };
    let plan = pieces.plan.map(|plan| Arc::new(Plan { tasks: pieces.ranges, ..plan }));
    let task_count = plan.as_ref().map_or(0, |plan| plan.tasks.len());
    if pieces.tasks.keys().next_back().is_some_and(|last| *last as usize >= task_count) {
        return Err(incomplete("ranges"));
    }
    Ok(StoredJob {
        record: pieces.record.ok_or_else(|| incomplete("record"))?,
        script: pieces.script.ok_or_else(|| incomplete("script"))?,
        plan,
        tasks: pieces.tasks,
        report: pieces.report,
        bad_rows: pieces.bad_rows,
    })
}

fn get<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|source| StoreError::Corrupt { key: key.to_owned(), source })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::election::Ballot;
    use crate::leader::Election as _;
    use crate::record::{JobRecord, StatementsRecord, SweepRecord, TaskRecord};
    use crate::testing::Etcd;
    use starlift_common::ids::WorkerId;
    use starlift_common::job::JobState;
    use starlift_common::task::{Key, KeyRange, LabelsBegun, TaskRange};

    fn pair(key: &str, value: Option<&str>) -> Write {
        Write { key: key.into(), value: value.map(|text| text.as_bytes().to_vec()) }
    }

    /// What every backend must do. `open` opens the same place again after the store before was dropped.
    async fn keeps_what_was_saved<S: Store>(open: impl AsyncFn() -> S) {
        let store = open().await;
        assert_eq!(store.load().await.unwrap(), [], "a new store is empty");
        store.save(vec![pair("b", Some("1")), pair("a", Some("2"))]).await.unwrap();
        store.save(vec![pair("a", Some("3")), pair("b", None), pair("c", Some(""))]).await.unwrap();
        let expected = [("a".to_owned(), b"3".to_vec()), ("c".to_owned(), Vec::new())];
        assert_eq!(store.load().await.unwrap(), expected, "the last value counts, in the order of keys");
        drop(store);
        let store = open().await;
        assert_eq!(store.load().await.unwrap(), expected, "it is there after opening again");
        store.save(vec![pair("absent", None)]).await.unwrap();
        let many: Vec<Write> = (0..5000).map(|number| pair(&format!("n/{number:06}"), Some("x"))).collect();
        store.save(many).await.unwrap();
        assert_eq!(store.load().await.unwrap().len(), 5002, "one save may have many pairs");
        let large = vec![b'x'; 1_000_000];
        let wide = (0..40).map(|number| Write { key: format!("w/{number:02}"), value: Some(large.clone()) });
        store.save(wide.collect()).await.unwrap();
        let pairs = store.load().await.unwrap();
        assert_eq!(pairs.len(), 5042, "one save may have many bytes");
        assert!(pairs.is_sorted() && pairs[5041] == ("w/39".to_owned(), large));
    }

    #[tokio::test]
    async fn the_file_store_keeps_what_was_saved() {
        let directory = tempfile::tempdir().unwrap();
        keeps_what_was_saved(async || file::FileStore::open(&directory.path().join("state")).unwrap()).await;
    }

    #[tokio::test]
    async fn the_etcd_store_keeps_what_was_saved() {
        let etcd = Etcd::start().await;
        let ballot = Ballot::new(
            etcd.location("starlift/suite"),
            crate::leader::Leader::at("http://a:1"),
            Duration::from_secs(60),
        );
        let ballot = tokio::sync::Mutex::new(ballot);
        // Every new term ends the one before.
        keeps_what_was_saved(async || ballot.lock().await.campaign(|_| {}).await.unwrap().store).await;
        let neighbours = Ballot::new(
            etcd.location("starlift"),
            crate::leader::Leader::at("http://b:1"),
            Duration::from_secs(60),
        )
        .campaign(|_| {})
        .await
        .unwrap();
        assert_eq!(neighbours.store.load().await.unwrap(), [], "another prefix is another journal");
    }

    #[tokio::test]
    async fn a_file_in_use_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let _held = file::FileStore::open(directory.path()).unwrap();
        let error = file::FileStore::open(directory.path()).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }));
        assert_eq!(error.problem().code, Code::StoreFailed);
    }

    fn attempt(task: u32) -> AttemptKey {
        AttemptKey { task: TaskKey { job: JobId::from_parts(1, 2), task: TaskId(task) }, epoch: Epoch(3) }
    }

    fn changes(plan: &Arc<Plan>) -> Vec<Change> {
        let job = attempt(0).task.job;
        let record = JobRecord {
            name: "orders".into(),
            submitted_at: UnixMillis(5),
            state: JobState::Running,
            ending: None,
            phases: Vec::new(),
            statements: StatementsRecord::default(),
            warnings: vec!["w".into()],
            pause: None,
            first_prepared: None,
        };
        let sweep = SweepRecord {
            worker: WorkerId("w1".into()),
            begun: LabelsBegun { parts: 2, trials: 1 },
            first_part: 0,
            stopped: false,
            closed_at: UnixMillis(9),
        };
        vec![
            Change::Script(job, "{\"type\": \"job\"}".into()),
            Change::Plan(job, plan.clone()),
            Change::Task(attempt(2500).task, TaskRecord { epoch: Epoch(3), ..TaskRecord::default() }),
            Change::Sweep(attempt(1), sweep.clone()),
            Change::Sweep(attempt(2), sweep),
            Change::Swept(attempt(2)),
            Change::Job(job, record),
        ]
    }

    fn pairs(writes: Vec<Write>) -> Vec<(String, Vec<u8>)> {
        let mut pairs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for Write { key, value } in writes {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        pairs.into_iter().collect()
    }

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        let mut plan = crate::state::tests::plan(5000, 0);
        let widest = KeyRange { lower: Some(Key::integer(i128::MIN)), upper: Some(Key::literal("'it'")) };
        plan.tasks[4999].range = TaskRange::Keys(widest);
        let plan = Arc::new(plan);
        let journal = decode(pairs(encode(&changes(&plan)))).unwrap();
        let job = &journal.jobs[&attempt(0).task.job];
        assert_eq!(job.plan.as_ref(), Some(&plan));
        assert_eq!(&*job.script, "{\"type\": \"job\"}");
        assert_eq!(job.tasks[&2500].epoch, Epoch(3));
        assert_eq!(journal.sweeps.keys().collect::<Vec<_>>(), [&attempt(1)]);
    }

    #[test]
    fn a_task_stays_small() {
        let record = crate::state::tests::done_record();
        let bytes = serde_json::to_vec(&record).unwrap().len();
        assert!(bytes < 600, "{bytes} bytes");
    }

    #[test]
    fn a_damaged_or_newer_journal_is_refused() {
        let damaged = decode(vec![("job/x".into(), b"{}".to_vec())]);
        assert!(matches!(damaged, Err(StoreError::UnknownKey { .. })));
        let newer = decode(vec![("format".into(), b"99".to_vec())]);
        assert!(matches!(newer, Err(StoreError::Format { found: 99 })));
        let job = attempt(0).task.job;
        let half = decode(vec![(format!("script/{job}"), b"\"x\"".to_vec())]);
        assert!(matches!(half, Err(StoreError::Incomplete { part: "record", .. })));
    }
}
