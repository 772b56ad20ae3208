//! One job in memory: its record, its tasks, and the sums that are kept so that no request scans the tasks. Decides how
//! far a job can move; what makes it move stands in [`super`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use starlift_common::ids::{JobId, TaskId, TaskKey, WorkerId};
use starlift_common::job::{CommitMode, JobState, LoadMode};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::Backoff;
use starlift_common::task::{AttemptKey, BAD_ROW_BYTES_MAX, BAD_ROWS_MAX, BadRow, Prepared};
use starlift_common::wire::Grant;

use super::{Action, Forgotten, StoredJob};
use crate::clock::{UnixMillis, whole_millis};
use crate::commit::Facts;
use crate::plan::Plan;
use crate::pressure::Table;
use crate::queue::Queue;
use crate::record::{Ending, InFlight, JobRecord, Pause, Phase, PhaseRecord, Stage, Standing, TaskRecord};
use crate::report::{Report, Share};

/// Between failed attempts of a task.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };

/// Bytes per second below which a task is not worth its connections.
const TASK_SPEED_LEAST: u64 = 64 << 10;

/// After the server asked for less load.
const DISTRESS: Backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_secs(60) };

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    id: JobId,
    record: JobRecord,
    script: Arc<str>,
    plan: Option<Arc<Plan>>,
    /// Where its tasks load; known with the plan.
    table: Option<Table>,
    /// Rows the source holds, by estimate.
    rows_estimate: u64,
    /// One per task of the plan; empty before there is one.
    tasks: Vec<TaskRecord>,
    queue: Queue,
    counts: Counts,
    totals: Totals,
    /// What each worker has done of it, by finished tasks.
    shares: BTreeMap<WorkerId, Share>,
    /// A statement of preSql or postSql is being prepared or run by this process.
    statement_runs: bool,
    /// How often in a row the server asked for less load, by task.
    distress: BTreeMap<TaskId, u32>,
    report: Option<Arc<Report>>,
    /// The first bad rows of tasks that are decided.
    bad_rows: BTreeMap<TaskId, Arc<[BadRow]>>,
    /// An ended job's statement could not be stopped; the job ends all the same.
    statement_given_up: bool,
}

/// Tasks by standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Counts {
    pub waiting: u32,
    pub running: u32,
    pub committing: u32,
    pub done: u32,
    pub failed: u32,
    pub undecided: u32,
}

impl Counts {
    pub fn total(&self) -> u32 {
        self.waiting + self.running + self.committing + self.done + self.failed + self.undecided
    }

    /// Adds those of another job.
    pub fn add(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.running += other.running;
        self.committing += other.committing;
        self.done += other.done;
        self.failed += other.failed;
        self.undecided += other.undecided;
    }

    fn of(&mut self, standing: &Standing) -> &mut u32 {
        match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Running => &mut self.running,
            Standing::Committing { .. } => &mut self.committing,
            Standing::Done { .. } => &mut self.done,
            Standing::Failed => &mut self.failed,
            Standing::Undecided { .. } => &mut self.undecided,
        }
    }
}

/// What is in the target for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Totals {
    pub rows_read: u64,
    /// Cell bytes of finished tasks.
    pub bytes_read: u64,
    pub rows_loaded: u64,
    /// Body bytes.
    pub bytes_loaded: u64,
    pub rows_filtered: u64,
    pub rows_unselected: u64,
    pub loads: u64,
    pub transactions: u64,
    /// Requests repeated inside the attempts that succeeded.
    pub requests_repeated: u64,
    /// Rows that finished tasks have left out as bad.
    pub dirty_records: u64,
    /// The same of all tasks whose commit is decided: what the error limit counts.
    pub dirty_decided: u64,
}

impl Totals {
    /// What a task in this standing adds.
    fn of(standing: &Standing) -> Self {
        let mut totals = Self::default();
        for part in standing.committed_parts() {
            totals.rows_read += part.rows_sent;
            totals.rows_loaded += part.rows_loaded;
            totals.bytes_loaded += part.bytes_sent;
            totals.rows_filtered += part.rows_filtered;
            totals.rows_unselected += part.rows_unselected;
            totals.loads += u64::from(part.loads);
            totals.transactions += 1;
        }
        if let Standing::Done { prepared } = standing {
            totals.bytes_read = prepared.bytes_read;
            totals.requests_repeated = prepared.retries;
            totals.dirty_records = prepared.dirty_records;
            totals.rows_read += prepared.dirty_records + prepared.apart.total();
            totals.rows_filtered += prepared.apart.filtered;
            totals.rows_unselected += prepared.apart.unselected;
        }
        if let Standing::Committing { prepared, .. }
        | Standing::Undecided { prepared, .. }
        | Standing::Done { prepared } = standing
        {
            totals.dirty_decided = prepared.dirty_records;
        }
        totals
    }

    fn add(&mut self, other: Self) {
        self.change(other, u64::wrapping_add);
    }

    fn subtract(&mut self, other: Self) {
        self.change(other, u64::wrapping_sub);
    }

    fn change(&mut self, other: Self, change: impl Fn(u64, u64) -> u64) {
        self.rows_read = change(self.rows_read, other.rows_read);
        self.bytes_read = change(self.bytes_read, other.bytes_read);
        self.rows_loaded = change(self.rows_loaded, other.rows_loaded);
        self.bytes_loaded = change(self.bytes_loaded, other.bytes_loaded);
        self.rows_filtered = change(self.rows_filtered, other.rows_filtered);
        self.rows_unselected = change(self.rows_unselected, other.rows_unselected);
        self.loads = change(self.loads, other.loads);
        self.transactions = change(self.transactions, other.transactions);
        self.requests_repeated = change(self.requests_repeated, other.requests_repeated);
        self.dirty_records = change(self.dirty_records, other.dirty_records);
        self.dirty_decided = change(self.dirty_decided, other.dirty_decided);
    }
}

impl Job {
    pub(super) fn new(id: JobId, record: JobRecord, script: Arc<str>) -> Self {
        Self {
            id,
            record,
            script,
            plan: None,
            table: None,
            rows_estimate: 0,
            tasks: Vec::new(),
            queue: Queue::new(1),
            counts: Counts::default(),
            totals: Totals::default(),
            shares: BTreeMap::new(),
            statement_runs: false,
            distress: BTreeMap::new(),
            report: None,
            bad_rows: BTreeMap::new(),
            statement_given_up: false,
        }
    }

    pub(super) fn restore(id: JobId, stored: StoredJob) -> Self {
        let mut job = Self::new(id, stored.record, stored.script);
        job.report = stored.report;
        job.bad_rows = stored.bad_rows.into_iter().map(|(task, rows)| (TaskId(task), rows)).collect();
        let Some(plan) = stored.plan else { return job };
        job.take_plan(plan.clone());
        let mut records = stored.tasks;
        for index in (0u32..).take(plan.tasks.len()) {
            let record = records.remove(&index).unwrap_or_default();
            *job.counts.of(&record.standing) += 1;
            job.totals.add(Totals::of(&record.standing));
            if record.standing == Standing::Running {
                job.queue.adopt();
            }
            job.tasks.push(record);
            job.note_share(TaskId(index));
        }
        if matches!(job.state(), JobState::Running | JobState::Committing) {
            job.queue_waiting();
        }
        job
    }

    pub fn record(&self) -> &JobRecord {
        &self.record
    }

    pub fn script(&self) -> &Arc<str> {
        &self.script
    }

    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Rows the source holds, by the plan's estimate.
    pub fn rows_estimate(&self) -> u64 {
        self.rows_estimate
    }

    pub fn state(&self) -> JobState {
        self.record.state
    }

    /// As people see it: a job that stands still is paused, whatever it was doing.
    pub fn shown_state(&self) -> JobState {
        if self.record.pause.is_some() && !self.state().is_final() { JobState::Paused } else { self.state() }
    }

    pub fn ending(&self) -> Option<&Ending> {
        self.record.ending.as_ref()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub fn shares(&self) -> &BTreeMap<WorkerId, Share> {
        &self.shares
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    pub fn report(&self) -> Option<&Arc<Report>> {
        self.report.as_ref()
    }

    /// Task records in the order of the plan.
    pub fn tasks(&self) -> &[TaskRecord] {
        &self.tasks
    }

    pub fn task(&self, task: TaskId) -> &TaskRecord {
        &self.tasks[task.index()]
    }

    /// `None` when the plan has no such task; for what comes from outside.
    pub fn find_task(&self, task: TaskId) -> Option<&TaskRecord> {
        self.tasks.get(task.index())
    }

    /// The key range of a task, for people.
    pub fn range_text(&self, task: TaskId) -> String {
        self.plan.as_ref().map_or_else(String::new, |plan| plan.tasks[task.index()].range.to_string())
    }

    /// What a message about one attempt of a task needs.
    pub fn facts(&self, attempt: AttemptKey) -> Facts<'_> {
        let plan = self.plan.as_deref().expect("only planned jobs have attempts");
        let task = &plan.tasks[attempt.task.task.index()];
        Facts { attempt, read: &plan.shards[task.shard as usize], range: &task.range, load: &plan.load }
    }

    /// How long a transaction of a task may live at the most: with the smallest share of a speed limit.
    pub(super) fn lifetime(&self, task: TaskId) -> Duration {
        let plan = self.plan.as_deref().expect("only planned jobs have attempts");
        let share = plan.bytes_per_second.map(|limit| limit / u64::from(plan.concurrent.max(1)));
        Duration::from_secs(plan.load.transaction_timeout_s(plan.tasks[task.index()].rows_estimate, share))
    }

    pub fn running_tasks(&self) -> impl Iterator<Item = (TaskKey, &TaskRecord)> {
        self.numbered().filter(|(_, record)| record.standing == Standing::Running)
    }

    /// Tasks that wait for `resolve`.
    pub fn undecided_tasks(&self) -> impl Iterator<Item = TaskId> {
        let undecided = |record: &TaskRecord| matches!(record.standing, Standing::Undecided { .. });
        // Hardly ever any; then the tasks are not looked at.
        let most = self.counts.undecided as usize;
        self.numbered().filter(move |(_, record)| undecided(record)).map(|(task, _)| task.task).take(most)
    }

    pub fn bad_rows(&self) -> &BTreeMap<TaskId, Arc<[BadRow]>> {
        &self.bad_rows
    }

    pub fn is_plain(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.load.mode == LoadMode::Plain)
    }

    /// Whether a decided commit is in effect: at once, or from the state `COMMITTING` on.
    pub(super) fn commits_now(&self) -> bool {
        let at_once = self.plan.as_ref().is_some_and(|plan| plan.commit == CommitMode::Task);
        at_once
            || !matches!(
                self.state(),
                JobState::Pending | JobState::Planning | JobState::PreSql | JobState::Running
            )
    }

    /// The label of one prepared part.
    pub(super) fn label_of(&self, attempt: AttemptKey, part: u32) -> Option<Label> {
        let prefix = &self.plan.as_ref()?.load.label_prefix;
        let (Standing::Committing { prepared, .. } | Standing::Undecided { prepared, .. }) =
            &self.task(attempt.task.task).standing
        else {
            return None;
        };
        let number = Label::part_number(prefix, attempt, &prepared.parts.get(part as usize)?.label)?;
        Some(Label::part(prefix, attempt, number))
    }

    /// Tasks whose commit is decided and not finished: what they have prepared, and the index of the next part.
    pub(super) fn committing(&self) -> impl Iterator<Item = (AttemptKey, &Prepared, u32)> {
        self.numbered().filter_map(|(task, record)| match &record.standing {
            Standing::Committing { prepared, committed } => {
                Some((AttemptKey { task, epoch: record.epoch }, prepared, *committed))
            }
            _ => None,
        })
    }

    /// The last attempt of every task that waits or has failed, where there was one.
    pub(super) fn attempted(&self) -> Vec<AttemptKey> {
        let is_open = |record: &TaskRecord| matches!(record.standing, Standing::Waiting | Standing::Failed);
        self.numbered()
            .filter(|(_, record)| is_open(record) && record.epoch.0 > 0)
            .map(|(task, record)| AttemptKey { task, epoch: record.epoch })
            .collect()
    }

    /// What is stored of it.
    pub(super) fn forgotten(&self) -> Forgotten {
        let granted = self.numbered().filter(|(_, record)| **record != TaskRecord::default());
        Forgotten {
            planned: self.plan.as_ref().map(|plan| plan.tasks.len()),
            tasks: granted.map(|(task, _)| task.task).collect(),
            bad_rows: self.bad_rows.keys().copied().collect(),
        }
    }

    /// Remembers when the first task was prepared; true when this is it.
    pub(super) fn note_first_prepared(&mut self, now: UnixMillis) -> bool {
        let is_first = self.record.first_prepared.is_none();
        self.record.first_prepared.get_or_insert(now);
        is_first
    }

    /// What fails a job whose prepared transactions would expire before they are committed together.
    pub(super) fn prepared_too_old(&self, now: UnixMillis) -> Option<Problem> {
        let plan = self.plan.as_ref().filter(|_| !self.commits_now() && self.record.ending.is_none())?;
        let lifetime = Duration::from_secs(plan.prepared_lifetime_s.into());
        let age = now.since(self.record.first_prepared?);
        if age < lifetime / 10 * 8 {
            return None;
        }
        let message = format!(
            "the first task was prepared {} s ago, StarRocks keeps it for {} s, and {} of {} tasks are not prepared yet",
            age.as_secs(),
            lifetime.as_secs(),
            self.counts.waiting + self.counts.running,
            self.counts.total()
        );
        Some(Problem::new(Code::PreparedTooOld, message).hint(
            "nothing was committed; use commit \"task\", more workers, or raise prepared_transaction_default_timeout_second",
        ))
    }

    /// Whether the job may still have so many bad rows more. A share is held against what is read so far or expected,
    /// whichever is more, so that the first tasks are not judged by themselves; the end is exact.
    pub(super) fn check_error_limit(&self, prepared: &Prepared) -> Result<(), Problem> {
        let rows = self.totals.rows_read.saturating_add(prepared.rows_read);
        let expected = self.rows_estimate.max(rows);
        self.within_error_limit(self.totals.dirty_decided.saturating_add(prepared.dirty_records), expected)
    }

    fn within_error_limit(&self, dirty: u64, rows: u64) -> Result<(), Problem> {
        let Some(limit) = self.plan.as_ref().map(|plan| plan.error_limit) else { return Ok(()) };
        let allowed = limit.allowed(rows);
        if dirty <= allowed {
            return Ok(());
        }
        let message = format!("{dirty} dirty records, and errorLimit allows {allowed} of {rows} rows");
        Err(Problem::new(Code::TooManyDirtyRecords, message)
            .hint("the report shows the first bad rows; mend them, or raise errorLimit"))
    }

    /// Bad rows that a task may still find, when it starts now.
    fn dirty_allowed(&self) -> u64 {
        let Some(plan) = self.plan.as_ref() else { return 0 };
        let rows = self.rows_estimate.max(self.totals.rows_read);
        match plan.error_limit.allowed(rows) {
            u64::MAX => u64::MAX,
            allowed => allowed.saturating_sub(self.totals.dirty_decided),
        }
    }

    /// Keeps a task's bad rows as far as there is room; says whether any was kept.
    pub(super) fn keep_bad_rows(&mut self, task: TaskId, mut rows: Vec<BadRow>) -> bool {
        self.bad_rows.remove(&task);
        let kept = self.bad_rows.values().flat_map(|rows| rows.iter());
        let (mut count, mut bytes) = kept.fold((0, 0), |(count, bytes), row| (count + 1, bytes + row.size()));
        rows.retain(|row| {
            count += 1;
            bytes += row.size();
            count <= BAD_ROWS_MAX && bytes <= BAD_ROW_BYTES_MAX
        });
        if !rows.is_empty() {
            self.bad_rows.insert(task, rows.into());
        }
        self.bad_rows.contains_key(&task)
    }

    pub(super) fn warn(&mut self, warning: String) {
        if !self.record.warnings.contains(&warning) {
            self.record.warnings.push(warning);
        }
    }

    pub(super) fn pause(&mut self, reason: Option<Problem>) {
        self.record.pause.get_or_insert(Pause { reason });
    }

    /// Takes a paused or failed job up again; returns the tasks that changed. Why not, otherwise.
    pub(super) fn resume(&mut self, now: UnixMillis) -> Result<Vec<TaskId>, String> {
        if !self.state().is_final() && self.record.pause.take().is_some() {
            return Ok(Vec::new());
        }
        match self.state() {
            JobState::Failed => {}
            state if state.is_final() => return Err("it is over".into()),
            _ if self.record.ending.is_some() => return Err("it is about to end".into()),
            _ => return Ok(Vec::new()), // it runs
        }
        let undecided: Vec<String> = self.undecided_tasks().map(|task| task.to_string()).collect();
        if !undecided.is_empty() {
            return Err(format!("resolve these tasks first: {}", undecided.join(", ")));
        }
        self.record.pause = None;
        self.record.ending = None;
        self.report = None;
        self.statement_given_up = false;
        self.record.first_prepared = None;
        let mut touched = Vec::new();
        for index in (0u32..).take(self.tasks.len()) {
            let task = TaskId(index);
            let record = &self.tasks[task.index()];
            let open = matches!(record.standing, Standing::Waiting | Standing::Failed);
            if open && (record.failures > 0 || record.standing == Standing::Failed) {
                self.forget_failures(task);
                self.set_standing(task, Standing::Waiting);
                touched.push(task);
            }
        }
        let all_loaded = self.counts.done == self.counts.total();
        let state = match self.plan.as_deref() {
            None => JobState::Pending,
            Some(plan) if (self.record.statements.pre_done as usize) < plan.pre_sql.len() => JobState::PreSql,
            Some(_) if all_loaded => JobState::Committing,
            Some(_) => JobState::Running,
        };
        self.record_phase(state, now);
        if state == JobState::Running {
            self.queue_waiting();
        }
        Ok(touched)
    }

    /// The retry budget is whole again.
    pub(super) fn forget_failures(&mut self, task: TaskId) {
        let record = &mut self.tasks[task.index()];
        record.failures = 0;
        record.problem = None;
    }

    fn numbered(&self) -> impl Iterator<Item = (TaskKey, &TaskRecord)> {
        (0u32..).zip(&self.tasks).map(|(task, record)| (TaskKey { job: self.id, task: TaskId(task) }, record))
    }

    pub(super) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    pub(super) fn set_report(&mut self, report: Arc<Report>) {
        self.report = Some(report);
    }

    pub(super) fn adopt_plan(&mut self, plan: Arc<Plan>) {
        self.record.warnings.clone_from(&plan.warnings);
        self.tasks = vec![TaskRecord::default(); plan.tasks.len()];
        self.counts =
            Counts { waiting: u32::try_from(plan.tasks.len()).unwrap_or(u32::MAX), ..Counts::default() };
        self.take_plan(plan);
    }

    fn take_plan(&mut self, plan: Arc<Plan>) {
        self.queue = Queue::new(at_once(&plan));
        self.table = Some(Table::of(&plan.load));
        self.rows_estimate = plan.rows_estimate();
        self.plan = Some(plan);
    }

    pub(super) fn set_ending(&mut self, ending: Ending) {
        self.record.ending = Some(ending);
    }

    pub(super) fn set_standing(&mut self, task: TaskId, standing: Standing) {
        let record = &mut self.tasks[task.index()];
        *self.counts.of(&record.standing) -= 1;
        *self.counts.of(&standing) += 1;
        self.totals.subtract(Totals::of(&record.standing));
        self.totals.add(Totals::of(&standing));
        record.standing = standing;
        self.note_share(task);
    }

    /// Counts a task for its worker that has just come to its end, which it never leaves.
    fn note_share(&mut self, task: TaskId) {
        let TaskRecord { standing: Standing::Done { prepared }, worker: Some(worker), .. } =
            &self.tasks[task.index()]
        else {
            return;
        };
        self.shares.entry(worker.clone()).or_insert_with(|| Share::of(worker)).add(prepared);
    }

    pub(super) fn set_took(&mut self, task: TaskId, took: Duration) {
        self.tasks[task.index()].took_ms = whole_millis(took);
        self.distress.remove(&task);
    }

    /// Remembers a failure that counts; returns how many there are.
    pub(super) fn note_failure(&mut self, task: TaskId, problem: Problem) -> u32 {
        let record = &mut self.tasks[task.index()];
        record.failures += 1;
        record.problem = Some(problem);
        record.failures
    }

    pub(super) fn note_problem(&mut self, task: TaskId, problem: Problem) {
        self.tasks[task.index()].problem = Some(problem);
    }

    /// Remembers that the server asked for less load; returns how long the task waits.
    pub(super) fn note_distress(&mut self, attempt: AttemptKey, problem: Problem) -> Duration {
        self.note_problem(attempt.task.task, problem);
        let times = self.distress.entry(attempt.task.task).or_default();
        *times += 1;
        DISTRESS.delay(*times - 1, jitter(attempt))
    }

    /// Puts a task back to the waiting ones, unless the job is ending.
    pub(super) fn requeue(&mut self, task: TaskId, due: Option<crate::clock::Millis>) {
        if self.has_work() {
            let rows = self.rows_estimate_of(task);
            self.queue.push(task, rows, due);
        }
    }

    fn rows_estimate_of(&self, task: TaskId) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.tasks[task.index()].rows_estimate)
    }

    fn queue_waiting(&mut self) {
        for index in (0u32..).take(self.tasks.len()) {
            if self.tasks[index as usize].standing == Standing::Waiting {
                self.requeue(TaskId(index), None);
            }
        }
    }

    /// Whether tasks of this job may start now.
    pub fn grants_tasks(&self) -> bool {
        self.has_work() && self.record.pause.is_none()
    }

    /// Whether tasks that wait will start, now or when the job is resumed.
    fn has_work(&self) -> bool {
        self.record.ending.is_none() && matches!(self.state(), JobState::Running | JobState::Committing)
    }

    /// Starts the next task on this worker under a new epoch. One that it failed at goes to others when any ask.
    pub(super) fn grant(&mut self, worker: &WorkerId, others_ask: bool, lease: Duration) -> Option<Grant> {
        let plan = self.plan.clone()?;
        let tasks = &self.tasks;
        let avoid = |task: TaskId| {
            let record: &TaskRecord = &tasks[task.index()];
            others_ask && record.failures > 0 && record.worker.as_ref() == Some(worker)
        };
        let task = self.queue.pop(avoid)?;
        self.set_standing(task, Standing::Running);
        let record = &mut self.tasks[task.index()];
        record.epoch = record.epoch.next();
        record.worker = Some(worker.clone());
        let attempt = AttemptKey { task: TaskKey { job: self.id, task }, epoch: record.epoch };
        let attempt_number = record.failures + 1;
        let task = &plan.tasks[task.index()];
        Some(Grant {
            attempt,
            attempt_number,
            lease,
            read: plan.shards[task.shard as usize].clone(),
            range: task.range.clone(),
            load: plan.load.clone(),
            rows_estimate: task.rows_estimate,
            bytes_per_second: self.speed_share(),
            dirty_allowed: self.dirty_allowed(),
        })
    }

    /// One running task's share of the job's speed limit, to which it keeps where it gets no slice of the whole
    /// ([`crate::throttle`]).
    pub fn speed_share(&self) -> Option<u64> {
        let limit = self.plan.as_ref()?.bytes_per_second?;
        Some((limit / self.queue.width()).max(1))
    }

    pub(super) fn statement_is_running(&self) -> bool {
        self.statement_runs
    }

    /// Whether a prepared statement may still be sent.
    pub(super) fn awaits_statement(&self) -> bool {
        self.statement_runs
            && self.record.ending.is_none()
            && matches!(self.state(), JobState::PreSql | JobState::PostSql)
    }

    pub(super) fn statement_sent(&mut self, at: InFlight) {
        self.record.statements.in_flight = Some(at);
    }

    /// The statement's place stays known: whoever goes on must first make sure that it is gone.
    pub(super) fn statement_stuck(&mut self, problem: Problem) {
        self.statement_runs = false;
        if self.record.ending.is_some() {
            self.statement_given_up = true;
            self.warn(format!("a statement sent earlier may still run at the target: {problem}"));
        } else {
            self.pause(Some(problem));
        }
    }

    pub(super) fn statement_ended(&mut self, completed: bool) {
        self.statement_runs = false;
        match self.stage() {
            Some((stage, _)) if completed => self.record.statements.advance(stage),
            _ => self.record.statements.in_flight = None,
        }
    }

    fn stage(&self) -> Option<(Stage, &[String])> {
        let plan = self.plan.as_ref()?;
        match self.state() {
            JobState::PreSql => Some((Stage::Pre, &plan.pre_sql)),
            JobState::PostSql => Some((Stage::Post, &plan.post_sql)),
            _ => None,
        }
    }

    /// Moves the job as far as it can go now; the returned action is the one thing to wait for next.
    pub(super) fn advance(&mut self, now: UnixMillis) -> Option<Action> {
        loop {
            if let Some(ending) = &self.record.ending {
                let state = match ending {
                    Ending::Failed(_) => JobState::Failed,
                    Ending::Cancelled => JobState::Cancelled,
                };
                if self.state().is_final() || self.statement_runs {
                    return None;
                }
                let in_flight = self.record.statements.in_flight.clone().filter(|_| !self.statement_given_up);
                if let Some(in_flight) = in_flight {
                    self.statement_runs = true;
                    return Some(Action::KillStatement { job: self.id, plan: self.plan.clone()?, in_flight });
                }
                if self.counts.committing == 0 {
                    self.enter(state, now);
                }
                return None;
            }
            if self.record.pause.is_some() {
                return None;
            }
            match self.state() {
                JobState::Pending => {
                    self.enter(JobState::Planning, now);
                    return Some(Action::Plan { job: self.id, script: self.script.clone() });
                }
                JobState::Planning if self.plan.is_some() => self.enter(JobState::PreSql, now),
                JobState::PreSql | JobState::PostSql => {
                    if let Some(action) = self.next_statement() {
                        return Some(action);
                    }
                    if self.statement_runs {
                        return None;
                    }
                    match self.state() {
                        JobState::PreSql => {
                            self.enter(JobState::Running, now);
                            self.queue_waiting();
                        }
                        _ => self.enter(JobState::Succeeded, now),
                    }
                }
                JobState::Running if self.counts.waiting + self.counts.running == 0 => {
                    self.enter(JobState::Committing, now);
                }
                JobState::Committing if self.counts.done == self.counts.total() => {
                    let exact = self.within_error_limit(self.totals.dirty_records, self.totals.rows_read);
                    if let Err(problem) = crate::report::balanced(&self.totals).and(exact) {
                        self.record.ending = Some(Ending::Failed(problem));
                    } else {
                        self.enter(JobState::PostSql, now);
                    }
                }
                _ => return None,
            }
        }
    }

    /// Starts the next statement of the present stage, if there is one and none runs.
    fn next_statement(&mut self) -> Option<Action> {
        let (stage, statements) = self.stage()?;
        let index = self.record.statements.done(stage);
        if self.statement_runs || index as usize >= statements.len() {
            return None;
        }
        self.statement_runs = true;
        let in_flight = self.record.statements.in_flight.clone();
        Some(Action::RunStatement { job: self.id, stage, index, plan: self.plan.clone()?, in_flight })
    }

    fn enter(&mut self, state: JobState, now: UnixMillis) {
        assert!(self.state().may_become(state), "job {} cannot go from {} to {state}", self.id, self.state());
        self.record_phase(state, now);
    }

    fn record_phase(&mut self, state: JobState, now: UnixMillis) {
        if let Some(last) = self.record.phases.last_mut() {
            last.ended.get_or_insert(now);
        }
        if let Some(phase) = Phase::of(state) {
            self.record.phases.push(PhaseRecord { phase, began: now, ended: None });
        }
        self.record.state = state;
    }
}

/// Tasks at once under a speed limit: rather fewer than such that crawl.
fn at_once(plan: &Plan) -> u32 {
    let by_speed = plan.bytes_per_second.map_or(u64::MAX, |limit| limit / TASK_SPEED_LEAST);
    u32::try_from(by_speed).unwrap_or(u32::MAX).clamp(1, plan.concurrent.max(1))
}

/// How long a failed task waits for its next attempt; `failures` is at least 1.
pub(super) fn retry_delay(attempt: AttemptKey, failures: u32) -> Duration {
    RETRY.delay(failures.saturating_sub(1), jitter(attempt))
}

/// Between 0 and 1, different from attempt to attempt, and the same for the same one: the state stays deterministic.
fn jitter(attempt: AttemptKey) -> f64 {
    let seed = (u64::from(attempt.task.task.0) << 32) ^ attempt.epoch.0;
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    f64::from(u32::try_from(mixed >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

/// The last failure of a task that has no attempt left.
pub(super) fn spent(attempt: AttemptKey, failures: u32, problem: &Problem) -> Problem {
    let message = format!("task {} failed {failures} times: {}", attempt.task.task, problem.message);
    Problem { message, ..problem.clone() }
}
