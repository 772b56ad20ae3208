//! What goes into the state and what comes out of it: events, answers, actions, and the changes to be saved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use starlift_common::ids::{JobId, TaskId, TaskKey, WorkerId};
use starlift_common::label::Label;
use starlift_common::problem::Problem;
use starlift_common::task::{AttemptKey, BadRow, Outcome, Progress};
use starlift_common::wire::Grant;

use crate::clock::Millis;
use crate::commit::Verdict;
use crate::plan::Plan;
use crate::record::{InFlight, JobRecord, Stage, SweepRecord, TaskRecord};
use crate::report::Report;
use crate::sweep::{Fates, Target};

/// What the state is told. Each event is decided in full before the next one is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Submit {
        ticket: Ticket,
        job: JobId,
        name: String,
        script: Arc<str>,
    },
    Cancel {
        ticket: Ticket,
        job: JobId,
    },
    Pause {
        ticket: Ticket,
        job: JobId,
    },
    /// Goes on with a paused job, or with what a failed one has left undone.
    Resume {
        ticket: Ticket,
        job: JobId,
    },
    /// A human's answer to what became of a task's commit.
    Resolve {
        ticket: Ticket,
        task: TaskKey,
        resolution: Resolution,
        reason: String,
    },
    /// The worker takes no further tasks and leaves when it has finished those it holds.
    Drain {
        ticket: Ticket,
        worker: WorkerId,
    },
    /// Planning ended; all faults found are in the error.
    Planned {
        job: JobId,
        result: Result<Box<Plan>, Vec<Problem>>,
    },
    /// A connection for the next statement is open; nothing was sent yet. The answer says whether it may be.
    StatementReady {
        ticket: Ticket,
        job: JobId,
        at: InFlight,
    },
    StatementDone {
        job: JobId,
        result: Result<(), Problem>,
    },
    /// Whether a statement sent earlier still runs cannot be established; nothing was sent after it.
    StatementStuck {
        job: JobId,
        problem: Problem,
    },
    /// A worker asks for work and waits until `until`.
    Acquire {
        ticket: Ticket,
        worker: WorkerInfo,
        free_slots: u32,
        until: Millis,
    },
    /// Whoever waits for work is to call again: something else goes out with the answer.
    Recall,
    /// Nobody waits for the answer any more.
    Gone {
        ticket: Ticket,
    },
    /// All that a worker holds, as it believes.
    Heartbeat {
        ticket: Ticket,
        worker: WorkerInfo,
        tasks: Vec<(AttemptKey, Progress)>,
    },
    Report {
        ticket: Ticket,
        attempt: AttemptKey,
        outcome: Outcome,
    },
    /// What became of the commit of one part.
    Committed {
        attempt: AttemptKey,
        part: u32,
        verdict: Verdict,
    },
    /// A decided commit takes long.
    CommitDelayed {
        attempt: AttemptKey,
        problem: Problem,
        /// The server asks for less load.
        in_distress: bool,
    },
    /// What was found out about the labels of a dead epoch.
    Swept {
        attempt: AttemptKey,
        fates: Fates,
    },
}

/// What a human found out about the part in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Its rows are in the target.
    Committed,
    /// None of the task's rows is in the target.
    Redo,
}

/// Names the place where an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A worker as it describes itself with every call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerInfo {
    pub id: WorkerId,
    /// For people.
    pub host: String,
    pub version: String,
    /// Tasks it runs at once.
    pub slots: u32,
    /// Its HTTP address; empty when it serves none.
    pub http: String,
    /// It wants no further tasks.
    pub draining: bool,
}

/// What must be done, once the changes are saved.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Answer {
        ticket: Ticket,
        answer: Answer,
    },
    /// Ends in [`Event::Planned`].
    Plan {
        job: JobId,
        script: Arc<str>,
    },
    /// Ends in [`Event::StatementDone`], after an [`Event::StatementReady`]; or in [`Event::StatementStuck`].
    RunStatement {
        job: JobId,
        stage: Stage,
        index: u32,
        plan: Arc<Plan>,
        in_flight: Option<InFlight>,
    },
    /// Stop the statement that runs for this job; it ends in [`Event::StatementDone`] all the same.
    StopStatement {
        job: JobId,
    },
    /// Make sure that a statement sent before a restart runs no more; ends in [`Event::StatementDone`] or
    /// [`Event::StatementStuck`].
    KillStatement {
        job: JobId,
        plan: Arc<Plan>,
        in_flight: InFlight,
    },
    /// Ends in [`Event::Committed`].
    Commit {
        attempt: AttemptKey,
        /// Index among the prepared parts.
        part: u32,
        label: Label,
        plan: Arc<Plan>,
    },
    /// Ends in [`Event::Swept`].
    Sweep {
        attempt: AttemptKey,
        target: Target,
        plan: Arc<Plan>,
    },
}

/// What a waiting caller is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Accepted,
    /// The request was understood and refused; nothing was changed.
    Refused(Problem),
    Granted {
        grants: Vec<Grant>,
        drain: bool,
    },
    /// One order per line of the heartbeat, in its order.
    Orders {
        orders: Vec<TaskOrder>,
        drain: bool,
    },
    /// Whether the report was taken; false: the epoch is stale.
    Reported(bool),
    /// The statement's place is saved: it may be sent. False: the job is ending.
    SendStatement(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskOrder {
    pub attempt: AttemptKey,
    /// The lease is renewed; otherwise the worker abandons the task.
    pub go_on: bool,
    /// The task's share of the job's speed limit, now.
    pub bytes_per_second: Option<u64>,
}

/// What one call of [`State::apply`](super::State::apply) leads to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    /// Saved together, before any action.
    pub changes: Vec<Change>,
    pub actions: Vec<Action>,
}

/// The new value of one stored record.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Script(JobId, Arc<str>),
    Plan(JobId, Arc<Plan>),
    Job(JobId, JobRecord),
    Task(TaskKey, TaskRecord),
    Sweep(AttemptKey, SweepRecord),
    /// The dead epoch's labels are all closed.
    Swept(AttemptKey),
    Report(JobId, Arc<Report>),
    /// The job goes on: its report does not hold any more.
    NoReport(JobId),
    /// The first bad rows of a task that is decided.
    BadRows(TaskKey, Arc<[BadRow]>),
    /// An old ended job makes room.
    Forgotten(JobId, Arc<Forgotten>),
}

/// What is stored of a job that is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Forgotten {
    /// Tasks of its plan; `None`: it was never planned.
    pub planned: Option<usize>,
    /// Tasks that were ever granted.
    pub tasks: Vec<TaskId>,
    /// Tasks with bad rows.
    pub bad_rows: Vec<TaskId>,
}

/// What was stored, read back at start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Journal {
    pub jobs: BTreeMap<JobId, StoredJob>,
    pub sweeps: BTreeMap<AttemptKey, SweepRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredJob {
    pub record: JobRecord,
    pub script: Arc<str>,
    pub plan: Option<Arc<Plan>>,
    /// Tasks that were ever granted.
    pub tasks: BTreeMap<u32, TaskRecord>,
    pub report: Option<Arc<Report>>,
    pub bad_rows: BTreeMap<u32, Arc<[BadRow]>>,
}

/// The rules that do not depend on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    pub lease: Duration,
    /// Attempts of a task that may fail before it fails for good.
    pub attempts: u32,
    /// How long a begin that its worker has given up may still be on its way: a label that is unknown so soon after the
    /// worker stopped may come into being yet.
    pub late_begin: Duration,
    /// Ended jobs that stay to be looked at, and for how long. The report of an older one is gone.
    pub keep_jobs: usize,
    pub keep_for: Duration,
}

impl Rules {
    /// As long as a worker waits for the answer to a begin.
    pub const LATE_BEGIN: Duration = Duration::from_secs(60);
    pub const KEEP_JOBS: usize = 200;
    pub const KEEP_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

    pub const fn new(lease: Duration, attempts: u32) -> Self {
        let (late_begin, keep_jobs, keep_for) = (Self::LATE_BEGIN, Self::KEEP_JOBS, Self::KEEP_FOR);
        Self { lease, attempts, late_begin, keep_jobs, keep_for }
    }
}
