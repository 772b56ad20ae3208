//! What people are shown: the final report, which is stored, and the views of jobs, tasks and workers as they are now.
//! Pure; every number is taken from the state.

use serde::{Deserialize, Serialize};
use starlift_common::ids::{JobId, TaskId, TaskKey, WorkerId};
use starlift_common::job::JobState;
use starlift_common::problem::{Code, Problem};
use starlift_common::task::{AttemptKey, BadRow, LabelsBegun, Prepared, Progress};
use starlift_proto as pb;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::{Now, UnixMillis, whole_millis};
use crate::record::{Ending, Phase, PhaseRecord, Standing, TaskRecord};
use crate::state::State;
use crate::state::job::{Counts, Job, Totals};

/// Most tasks in the list of the slowest.
const SLOWEST: usize = 5;

/// The stored result of a job. Times are milliseconds; what the wire shows in seconds or per second is made from them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    pub state: JobState,
    pub started_at: UnixMillis,
    pub finished_at: UnixMillis,
    pub phases: Vec<(Phase, u64)>,
    pub rows_read: u64,
    /// Cell bytes.
    pub bytes_read: u64,
    pub rows_loaded: u64,
    /// Body bytes.
    pub bytes_loaded: u64,
    pub rows_filtered: u64,
    pub rows_unselected: u64,
    pub dirty_records: u64,
    pub loads: u64,
    pub transactions: u64,
    pub retries: u64,
    pub labels_to_sweep: u32,
    pub tasks_total: u32,
    pub tasks_succeeded: u32,
    pub tasks_failed: u32,
    pub workers: Vec<Share>,
    pub slowest_tasks: Vec<SlowTask>,
    /// `host:path` of the files that hold all dirty records.
    #[serde(default)]
    pub dirty_files: Vec<String>,
    pub warnings: Vec<String>,
    pub error: Option<Problem>,
}

/// What one worker did of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Share {
    pub worker: String,
    pub tasks: u32,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlowTask {
    pub task: TaskId,
    pub range: String,
    pub rows: u64,
    pub took_ms: u64,
}

/// Whether every row read is accounted for.
pub fn balanced(totals: &Totals) -> Result<(), Problem> {
    let accounted = totals.rows_loaded + totals.rows_filtered + totals.rows_unselected + totals.dirty_records;
    if totals.rows_read == accounted {
        return Ok(());
    }
    Err(Problem::new(
        Code::CountMismatch,
        format!(
            "{} rows were read and {accounted} are accounted for: {} loaded, {} filtered, {} unselected, {} dirty",
            totals.rows_read,
            totals.rows_loaded,
            totals.rows_filtered,
            totals.rows_unselected,
            totals.dirty_records
        ),
    )
    .hint("compare source and target before using the data"))
}

/// The report of a job that has just ended.
pub fn make(id: JobId, job: &Job, labels_to_sweep: u32, now: UnixMillis) -> Report {
    let record = job.record();
    let totals = job.totals();
    let counts = job.counts();
    let error = match &record.ending {
        Some(Ending::Failed(problem)) => Some(problem.clone()),
        Some(Ending::Cancelled) => Some(cancelled(id, counts)),
        None => None,
    };
    let mut warnings = record.warnings.clone();
    if totals.rows_filtered > 0 {
        warnings.push(format!(
            "StarRocks left out {} rows as faulty, as max_filter_ratio allows; they are not in the target",
            totals.rows_filtered
        ));
    }
    if totals.dirty_records > 0 {
        warnings.push(format!("{} dirty records are not in the target", totals.dirty_records));
    }
    Report {
        name: record.name.clone(),
        state: record.state,
        started_at: record.submitted_at,
        finished_at: now,
        phases: record.phases.iter().map(|phase| (phase.phase, whole_millis(spent_in(phase, now)))).collect(),
        rows_read: totals.rows_read,
        bytes_read: totals.bytes_read,
        rows_loaded: totals.rows_loaded,
        bytes_loaded: totals.bytes_loaded,
        rows_filtered: totals.rows_filtered,
        rows_unselected: totals.rows_unselected,
        dirty_records: totals.dirty_records,
        loads: totals.loads,
        transactions: totals.transactions,
        retries: totals.requests_repeated + attempts_beyond_the_first(job.tasks()),
        labels_to_sweep,
        tasks_total: counts.total(),
        tasks_succeeded: counts.done,
        tasks_failed: counts.failed + counts.undecided,
        workers: job.shares().values().cloned().collect(),
        slowest_tasks: slowest(job),
        dirty_files: dirty_files(job.tasks()),
        warnings,
        error,
    }
}

fn cancelled(id: JobId, counts: Counts) -> Problem {
    let message = format!("the job was cancelled; {} of {} tasks are committed", counts.done, counts.total());
    Problem::new(Code::Cancelled, message).at(id.to_string())
}

fn attempts_beyond_the_first(tasks: &[TaskRecord]) -> u64 {
    tasks.iter().map(|task| task.epoch.0.saturating_sub(1)).sum()
}

fn slowest(job: &Job) -> Vec<SlowTask> {
    let mut slow: Vec<SlowTask> = (0u32..)
        .zip(job.tasks())
        .filter_map(|(task, record)| match &record.standing {
            Standing::Done { prepared } => Some((TaskId(task), prepared.rows_read, record.took_ms)),
            _ => None,
        })
        .map(|(task, rows, took_ms)| SlowTask { task, range: job.range_text(task), rows, took_ms })
        .collect();
    slow.sort_by_key(|task| (Reverse(task.took_ms), task.task));
    slow.truncate(SLOWEST);
    slow
}

fn dirty_files(tasks: &[TaskRecord]) -> Vec<String> {
    let file = |task: &TaskRecord| match &task.standing {
        Standing::Done { prepared } => Some(prepared.dirty_file.clone()).filter(|file| !file.is_empty()),
        _ => None,
    };
    let files: BTreeSet<String> = tasks.iter().filter_map(file).collect();
    files.into_iter().collect()
}

fn spent_in(phase: &PhaseRecord, now: UnixMillis) -> Duration {
    phase.ended.unwrap_or(now).since(phase.began)
}

impl Report {
    /// The wire form; `bad_rows` are those kept with the job.
    fn to_wire<'a>(&self, id: JobId, bad_rows: impl Iterator<Item = &'a BadRow>) -> pb::FinalReport {
        let phase = |wanted: Phase| {
            let spent: u64 =
                self.phases.iter().filter(|(phase, _)| *phase == wanted).map(|(_, ms)| *ms).sum();
            seconds(Duration::from_millis(spent))
        };
        let transfer = phase(Phase::Transfer) + phase(Phase::Commit);
        pb::FinalReport {
            job_id: id.to_string(),
            name: self.name.clone(),
            state: self.state.as_str().to_owned(),
            started_at: rfc3339(self.started_at),
            finished_at: rfc3339(self.finished_at),
            elapsed_seconds: seconds(self.finished_at.since(self.started_at)),
            phases: Some(pb::Phases {
                plan: phase(Phase::Plan),
                pre_sql: phase(Phase::PreSql),
                transfer: phase(Phase::Transfer),
                commit: phase(Phase::Commit),
                post_sql: phase(Phase::PostSql),
            }),
            rows_read: self.rows_read,
            bytes_read: self.bytes_read,
            rows_loaded: self.rows_loaded,
            bytes_loaded: self.bytes_loaded,
            rows_filtered: self.rows_filtered,
            rows_unselected: self.rows_unselected,
            dirty_records: self.dirty_records,
            loads: self.loads,
            transactions: self.transactions,
            retries: self.retries,
            labels_to_sweep: self.labels_to_sweep,
            tasks: Some(pb::TaskCounts {
                total: self.tasks_total,
                succeeded: self.tasks_succeeded,
                failed: self.tasks_failed,
                running: 0,
                waiting: self.tasks_total - self.tasks_succeeded - self.tasks_failed,
                prepared: 0,
            }),
            workers: self.workers.iter().map(Share::to_wire).collect(),
            slowest_tasks: self.slowest_tasks.iter().map(SlowTask::to_wire).collect(),
            avg_rows_per_second: per_second(self.rows_read, transfer),
            avg_bytes_per_second: per_second(self.bytes_read, transfer),
            warnings: self.warnings.clone(),
            error: self.error.as_ref().map(Into::into),
            bad_rows: bad_rows.map(Into::into).collect(),
            dirty_files: self.dirty_files.clone(),
        }
    }
}

impl Share {
    /// Nothing yet.
    pub fn of(worker: &WorkerId) -> Self {
        Self { worker: worker.to_string(), ..Self::default() }
    }

    /// Counts a committed task.
    pub fn add(&mut self, prepared: &Prepared) {
        self.tasks += 1;
        self.rows += prepared.parts.iter().map(|part| part.rows_loaded).sum::<u64>();
        self.bytes += prepared.parts.iter().map(|part| part.bytes_sent).sum::<u64>();
    }

    fn to_wire(&self) -> pb::WorkerShare {
        pb::WorkerShare {
            id: self.worker.clone(),
            tasks: self.tasks,
            rows: self.rows,
            bytes: self.bytes,
            running: 0,
        }
    }
}

impl SlowTask {
    fn to_wire(&self) -> pb::SlowTask {
        pb::SlowTask {
            id: self.task.0,
            range: self.range.clone(),
            rows: self.rows,
            seconds: seconds(Duration::from_millis(self.took_ms)),
        }
    }
}

/// A job's report, if it has ended; `None` when there is no such job.
pub fn of(state: &State, id: JobId) -> Option<Option<pb::FinalReport>> {
    let job = state.job(id)?;
    let bad_rows = job.bad_rows().values().flat_map(|rows| rows.iter());
    Some(job.report().map(|report| report.to_wire(id, bad_rows)))
}

/// The problem of asking for a report too early.
pub fn not_ended(id: JobId) -> Problem {
    Problem::new(Code::JobNotEnded, format!("job {id} has not ended yet"))
        .hint(format!("`starlift watch {id}` waits for its end"))
}

/// All jobs, oldest first.
pub fn summaries(state: &State, now: Now) -> Vec<pb::JobSummary> {
    state.jobs().map(|(id, job)| summary(state, id, job, now)).collect()
}

fn summary(state: &State, id: JobId, job: &Job, now: Now) -> pb::JobSummary {
    let progress = progress(state, id, job, now.unix);
    pb::JobSummary {
        job_id: id.to_string(),
        name: job.record().name.clone(),
        state: job.shown_state().as_str().to_owned(),
        submitted_at: rfc3339(job.record().submitted_at),
        elapsed_seconds: seconds(elapsed(job, now.unix)),
        rows_loaded: job.totals().rows_loaded,
        tasks_total: job.counts().total(),
        tasks_done: job.counts().done,
        rows_estimate: progress.rows_estimate,
        rows_read: progress.rows_read,
        rows_per_second: progress.rows_per_second,
        eta_seconds: progress.eta_seconds,
        dirty_records: job.totals().dirty_decided,
    }
}

/// Which jobs somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// By name; none: all.
    pub states: BTreeSet<String>,
    /// Part of the name or the id, without regard to case.
    pub search: String,
    pub offset: usize,
    pub limit: usize,
}

/// One page of the jobs that pass a filter.
#[derive(Debug, Default, Serialize)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<pb::JobSummary>,
    /// That pass the whole filter.
    pub total: usize,
    /// How many of those found by the search are in which state.
    pub states: BTreeMap<&'static str, usize>,
}

pub fn page(state: &State, filter: &JobFilter, now: Now) -> JobPage {
    let search = filter.search.to_lowercase();
    let is_found = |id: JobId, job: &Job| {
        search.is_empty()
            || job.record().name.to_lowercase().contains(&search)
            || id.to_string().to_lowercase().contains(&search)
    };
    let mut page = JobPage::default();
    let found: Vec<(JobId, &Job)> = state.jobs().filter(|(id, job)| is_found(*id, job)).collect();
    for (id, job) in found.into_iter().rev() {
        let name = job.shown_state().as_str();
        *page.states.entry(name).or_default() += 1;
        if !filter.states.is_empty() && !filter.states.contains(name) {
            continue;
        }
        if page.total >= filter.offset && page.jobs.len() < filter.limit {
            page.jobs.push(summary(state, id, job, now));
        }
        page.total += 1;
    }
    page
}

/// A job as it is now; `None` when there is no such job.
pub fn status(state: &State, id: JobId, now: Now) -> Option<pb::JobStatus> {
    let job = state.job(id)?;
    let record = job.record();
    let is_paused = job.shown_state() == JobState::Paused;
    let error = match &record.ending {
        Some(Ending::Failed(problem)) => Some(problem.clone()),
        Some(Ending::Cancelled) => Some(cancelled(id, job.counts())),
        None => record.pause.as_ref().and_then(|pause| pause.reason.clone()),
    };
    Some(pb::JobStatus {
        job_id: id.to_string(),
        name: record.name.clone(),
        state: job.shown_state().as_str().to_owned(),
        submitted_at: rfc3339(record.submitted_at),
        elapsed_seconds: seconds(elapsed(job, now.unix)),
        progress: Some(progress(state, id, job, now.unix)),
        tasks: Some(counts(job.counts())),
        phases: record
            .phases
            .iter()
            .map(|phase| pb::Phase {
                name: phase.phase.as_str().to_owned(),
                seconds: seconds(spent_in(phase, now.unix)),
            })
            .collect(),
        warnings: record.warnings.clone(),
        error: error.as_ref().map(Into::into),
        labels_to_sweep: state.sweeps().labels_of(id),
        paused_in: if is_paused { record.state.as_str().to_owned() } else { String::new() },
        dirty_records: job.totals().dirty_decided,
        undecided_tasks: job.undecided_tasks().map(|task| task.0).collect(),
        workers: shares_now(state, id, job),
    })
}

/// What the workers have committed of a job, and what they have under way.
fn shares_now(state: &State, id: JobId, job: &Job) -> Vec<pb::WorkerShare> {
    let committed = job.shares().iter().map(|(worker, share)| (worker.clone(), share.to_wire()));
    let mut shares: BTreeMap<WorkerId, pb::WorkerShare> = committed.collect();
    for attempt in state.leases().of_job(id) {
        let Some(lease) = state.leases().get(attempt.task) else { continue };
        let heard = state.progress(attempt);
        let share = shares.entry(lease.worker.clone()).or_insert_with(|| Share::of(&lease.worker).to_wire());
        share.running += 1;
        share.rows += heard.rows_sent;
        share.bytes += heard.bytes_sent;
    }
    shares.into_values().collect()
}

/// Which tasks of a job somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// By name; none: all.
    pub states: BTreeSet<String>,
    /// Those that took longest first, and not in the order of their ids.
    pub slowest_first: bool,
    pub offset: usize,
    pub limit: usize,
}

/// One page of a job's tasks that pass the filter, and how many pass.
pub fn tasks(state: &State, id: JobId, filter: &TaskFilter, now: Now) -> Option<pb::ListTasksReply> {
    let job = state.job(id)?;
    let mut found: Vec<(TaskId, &TaskRecord)> = (0u32..)
        .zip(job.tasks())
        .map(|(task, record)| (TaskId(task), record))
        .filter(|(_, record)| {
            filter.states.is_empty() || filter.states.contains(standing_name(&record.standing))
        })
        .collect();
    let key = |task: TaskId| TaskKey { job: id, task };
    if filter.slowest_first {
        found.sort_by_cached_key(|(task, record)| (Reverse(took(state, key(*task), record, now)), *task));
    }
    let total = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let tasks = found
        .into_iter()
        .skip(filter.offset)
        .take(filter.limit)
        .map(|(task, record)| task_status(state, job, key(task), record, now))
        .collect();
    Some(pb::ListTasksReply { tasks, total })
}

/// The tasks of a job for a map of all of them: one letter each for its state, the first of its name, in the order of
/// their ids.
pub fn task_letters(state: &State, id: JobId) -> Option<Vec<u8>> {
    let letter = |task: &TaskRecord| standing_name(&task.standing).as_bytes()[0];
    Some(state.job(id)?.tasks().iter().map(letter).collect())
}

/// How many rows each task of a job is expected to hold.
pub fn task_rows(state: &State, id: JobId) -> Option<Vec<u64>> {
    let plan = state.job(id)?.plan();
    Some(plan.map_or_else(Vec::new, |plan| plan.tasks.iter().map(|task| task.rows_estimate).collect()))
}

/// All workers heard of lately.
pub fn workers(state: &State, now: Now) -> Vec<pb::WorkerStatus> {
    let mut held: BTreeMap<&WorkerId, Vec<pb::HeldTask>> = BTreeMap::new();
    for (task, lease) in state.leases().iter() {
        let heard = state.progress(AttemptKey { task, epoch: lease.epoch });
        held.entry(&lease.worker).or_default().push(pb::HeldTask {
            job_id: task.job.to_string(),
            task_id: task.task.0,
            rows_read: heard.rows_read,
            bytes_read: heard.bytes_read,
        });
    }
    state
        .workers()
        .map(|worker| pb::WorkerStatus {
            worker_id: worker.info.id.to_string(),
            host: worker.info.host.clone(),
            version: worker.info.version.clone(),
            slots: worker.info.slots,
            running: worker.running,
            draining: worker.is_draining(),
            seconds_since_heard: seconds(now.monotonic.since(worker.heard)),
            rows: worker.rows,
            bytes: worker.bytes,
            http: worker.info.http.clone(),
            tasks: held.remove(&worker.info.id).unwrap_or_default(),
        })
        .collect()
}

fn task_status(state: &State, job: &Job, task: TaskKey, record: &TaskRecord, now: Now) -> pb::TaskStatus {
    let attempt = AttemptKey { task, epoch: record.epoch };
    let progress = progress_of(state, attempt, record);
    pb::TaskStatus {
        task_id: task.task.0,
        state: standing_name(&record.standing).to_owned(),
        range: job.range_text(task.task),
        epoch: record.epoch.0,
        attempts: record.failures,
        worker_id: record.worker.as_ref().map(ToString::to_string).unwrap_or_default(),
        rows_estimate: job.plan().map_or(0, |plan| plan.tasks[task.task.index()].rows_estimate),
        rows_read: progress.rows_read,
        rows_loaded: progress.rows_sent,
        seconds: seconds(took(state, task, record, now)),
        error: record.problem.as_ref().map(Into::into),
    }
}

/// The attempt that runs or succeeded.
fn took(state: &State, task: TaskKey, record: &TaskRecord, now: Now) -> Duration {
    match (&record.standing, state.leases().get(task)) {
        (Standing::Running, Some(lease)) => now.monotonic.since(lease.granted),
        _ => Duration::from_millis(record.took_ms),
    }
}

/// What a task has done: a running one as last heard, a finished one exactly.
fn progress_of(state: &State, attempt: AttemptKey, record: &TaskRecord) -> Progress {
    match &record.standing {
        Standing::Waiting | Standing::Failed => Progress::default(),
        Standing::Running => state.progress(attempt),
        Standing::Committing { prepared, .. }
        | Standing::Undecided { prepared, .. }
        | Standing::Done { prepared } => Progress {
            rows_read: prepared.rows_read,
            bytes_read: prepared.bytes_read,
            rows_sent: prepared.parts.iter().map(|part| part.rows_loaded).sum(),
            bytes_sent: prepared.parts.iter().map(|part| part.bytes_sent).sum(),
            begun: LabelsBegun::default(),
        },
    }
}

fn standing_name(standing: &Standing) -> &'static str {
    match standing {
        Standing::Waiting => "WAITING",
        Standing::Running => "RUNNING",
        Standing::Committing { .. } => "COMMITTING",
        Standing::Done { .. } => "DONE",
        Standing::Failed => "FAILED",
        Standing::Undecided { .. } => "UNDECIDED",
    }
}

fn counts(counts: Counts) -> pb::TaskCounts {
    pb::TaskCounts {
        total: counts.total(),
        succeeded: counts.done,
        failed: counts.failed + counts.undecided,
        running: counts.running,
        waiting: counts.waiting,
        prepared: counts.committing,
    }
}

/// What a job has done, and seconds since it was submitted.
pub fn so_far(state: &State, id: JobId, job: &Job, now: UnixMillis) -> (pb::Progress, f64) {
    (progress(state, id, job, now), seconds(elapsed(job, now)))
}

/// Sums of the finished tasks, and of the running ones as last heard: a job never has many of those.
fn progress(state: &State, id: JobId, job: &Job, now: UnixMillis) -> pb::Progress {
    let mut totals = job.totals();
    for attempt in state.leases().of_job(id) {
        let heard = state.progress(attempt);
        totals.rows_read += heard.rows_read;
        totals.bytes_read += heard.bytes_read;
        totals.rows_loaded += heard.rows_sent;
        totals.bytes_loaded += heard.bytes_sent;
    }
    let transfer = |phase: &&PhaseRecord| matches!(phase.phase, Phase::Transfer | Phase::Commit);
    let spent: Duration = job.record().phases.iter().filter(transfer).map(|phase| spent_in(phase, now)).sum();
    let rows_estimate = job.rows_estimate();
    let rows_per_second = per_second(totals.rows_read, seconds(spent));
    pb::Progress {
        rows_estimate,
        rows_read: totals.rows_read,
        bytes_read: totals.bytes_read,
        rows_loaded: totals.rows_loaded,
        bytes_loaded: totals.bytes_loaded,
        rows_per_second,
        bytes_per_second: per_second(totals.bytes_read, seconds(spent)),
        eta_seconds: eta(job.state(), rows_estimate, totals.rows_read, rows_per_second),
    }
}

fn eta(state: JobState, rows_estimate: u64, rows_read: u64, rows_per_second: f64) -> Option<f64> {
    let known = state == JobState::Running && rows_read > 0 && rows_per_second > 0.0 && rows_estimate > 0;
    known.then(|| as_f64(rows_estimate.saturating_sub(rows_read)) / rows_per_second)
}

fn elapsed(job: &Job, now: UnixMillis) -> Duration {
    let end = job.report().map_or(now, |report| report.finished_at);
    end.since(job.record().submitted_at)
}

fn seconds(duration: Duration) -> f64 {
    // Whole milliseconds, so that a report does not show digits nobody measured.
    as_f64(whole_millis(duration)) / 1000.0
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (as_f64(count) / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

/// For rates and shares only; counts stay integers.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// UTC, to the millisecond.
pub fn rfc3339(moment: UnixMillis) -> String {
    let millis = i64::try_from(moment.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| String::new(), |timestamp| timestamp.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_nobody_accounts_for_is_a_mismatch() {
        let totals = Totals {
            rows_read: 10,
            rows_loaded: 7,
            rows_filtered: 2,
            rows_unselected: 1,
            ..Totals::default()
        };
        assert_eq!(balanced(&totals), Ok(()));
        let lost = Totals { rows_loaded: 6, ..totals };
        assert_eq!(balanced(&lost).unwrap_err().code, Code::CountMismatch);
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(rfc3339(UnixMillis(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn a_rate_over_no_time_is_zero() {
        assert_eq!(per_second(10, 0.0), 0.0);
        assert_eq!(per_second(10, 4.0), 2.5);
    }
}
