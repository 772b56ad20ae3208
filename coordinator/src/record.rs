//! What must survive a restart, in the form it is stored: the coordinator's journal of decisions. Progress is not here;
//! it is heard again from the workers. Fields only ever get added, with a default.

use serde::{Deserialize, Serialize};
use starlift_common::ids::{Epoch, WorkerId};
use starlift_common::job::JobState;
use starlift_common::problem::Problem;
use starlift_common::task::{LabelsBegun, Prepared, PreparedPart};

use crate::clock::UnixMillis;

/// One job, without its script, plan and tasks, which are stored under keys of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobRecord {
    /// For people.
    pub name: String,
    pub submitted_at: UnixMillis,
    pub state: JobState,
    /// Set once the job is to end other than by success; it ends when the commits already decided are done.
    pub ending: Option<Ending>,
    /// Those begun so far, in order.
    pub phases: Vec<PhaseRecord>,
    pub statements: StatementsRecord,
    pub warnings: Vec<String>,
    /// Set while the job stands still; decided commits go on.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// Where all tasks are committed together: when the first of them was prepared.
    #[serde(default)]
    pub first_prepared: Option<UnixMillis>,
}

/// Why a job stands still.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Pause {
    /// `None`: somebody asked for it.
    pub reason: Option<Problem>,
}

/// How a job is going to end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Failed(Problem),
    Cancelled,
}

/// A part of a job's life that reports show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Plan,
    PreSql,
    Transfer,
    Commit,
    PostSql,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::PreSql => "pre_sql",
            Self::Transfer => "transfer",
            Self::Commit => "commit",
            Self::PostSql => "post_sql",
        }
    }

    /// The phase that a job in `state` is in; `None` before the first and after the last.
    pub fn of(state: JobState) -> Option<Self> {
        match state {
            JobState::Planning => Some(Self::Plan),
            JobState::PreSql => Some(Self::PreSql),
            JobState::Running => Some(Self::Transfer),
            JobState::Committing => Some(Self::Commit),
            JobState::PostSql => Some(Self::PostSql),
            JobState::Pending
            | JobState::Succeeded
            | JobState::Failed
            | JobState::Cancelled
            | JobState::Paused => None,
        }
    }
}

/// When a phase began and ended, by the wall clock: durations survive a restart this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PhaseRecord {
    pub phase: Phase,
    pub began: UnixMillis,
    pub ended: Option<UnixMillis>,
}

/// Which of the two statement lists is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Pre,
    Post,
}

impl Stage {
    /// The parameter of the writer step that holds the list.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Pre => "preSql",
            Self::Post => "postSql",
        }
    }
}

/// How far the statements before and after the transfer have come.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct StatementsRecord {
    /// Statements of `preSql` that are completed.
    pub pre_done: u32,
    pub post_done: u32,
    /// The next statement may be running at the server, on this connection.
    pub in_flight: Option<InFlight>,
}

impl StatementsRecord {
    pub fn done(&self, stage: Stage) -> u32 {
        match stage {
            Stage::Pre => self.pre_done,
            Stage::Post => self.post_done,
        }
    }

    /// The next statement is completed.
    pub fn advance(&mut self, stage: Stage) {
        self.in_flight = None;
        match stage {
            Stage::Pre => self.pre_done += 1,
            Stage::Post => self.post_done += 1,
        }
    }
}

/// Where a statement was sent: whoever resumes must first make sure that it runs no more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InFlight {
    /// The FE, as the data source names it.
    pub host: String,
    /// `CONNECTION_ID()` on that FE.
    pub connection_id: u64,
}

/// One task. A task that was never granted has no stored record: it is the default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Of the latest grant.
    pub epoch: Epoch,
    /// Attempts that count against the retry budget.
    pub failures: u32,
    /// Who was granted it last.
    pub worker: Option<WorkerId>,
    /// The last failure.
    pub problem: Option<Problem>,
    /// Milliseconds from the last grant to the report of its end.
    pub took_ms: u64,
    pub standing: Standing,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No attempt is allowed to speak.
    #[default]
    Waiting,
    /// Leased to the record's worker under the record's epoch.
    Running,
    /// The decision to commit, taken once and never taken back while the server can still carry it out. Where all tasks
    /// are committed together it takes effect with the job's state `COMMITTING`; until then it may be given up.
    Committing {
        prepared: Prepared,
        /// So many parts, from the first, are known to be committed.
        committed: u32,
    },
    Done {
        prepared: Prepared,
    },
    /// The retry budget is spent, or trying again cannot help. Nothing of it is in the target.
    Failed,
    /// What became of a decided commit cannot be told from here, or only a part of it was done. Waits for a human.
    Undecided {
        prepared: Prepared,
        /// So many parts, from the first, are known to be committed; the next one is in question.
        committed: u32,
        /// The part in question is known to have been rolled back.
        rolled_back: bool,
    },
}

impl Standing {
    /// Parts of the task that are in the target for good.
    pub fn committed_parts(&self) -> &[PreparedPart] {
        match self {
            Self::Waiting | Self::Running | Self::Failed => &[],
            Self::Committing { prepared, committed } | Self::Undecided { prepared, committed, .. } => {
                let count = usize::try_from(*committed).unwrap_or(usize::MAX).min(prepared.parts.len());
                &prepared.parts[..count]
            }
            Self::Done { prepared } => &prepared.parts,
        }
    }
}

/// An epoch that ended without commit, whose transactions may still be open at the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SweepRecord {
    pub worker: WorkerId,
    /// What the worker was heard to have begun; there may be more while `stopped` is false.
    #[serde(flatten)]
    pub begun: LabelsBegun,
    /// Parts before this one are committed and no concern of the sweep.
    #[serde(default)]
    pub first_part: u32,
    /// The worker has said, or shown by its heartbeat, that it does nothing more under this epoch.
    pub stopped: bool,
    pub closed_at: UnixMillis,
}
