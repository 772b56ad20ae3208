//! What one turn gathers before it is handed over: the records it touched, each to be saved once, and the actions.

use std::collections::BTreeSet;

use starlift_common::ids::{JobId, TaskKey};
use starlift_common::task::AttemptKey;

use super::event::{Action, Answer, Forgotten, Ticket};
use super::job::Job;
use crate::clock::Now;

/// What one call of [`State::apply`](super::State::apply) gathers.
pub(super) struct Round {
    pub(super) now: Now,
    pub(super) touched: BTreeSet<Touched>,
    pub(super) actions: Vec<Action>,
    pub(super) forgotten: Vec<(JobId, Forgotten)>,
}

/// A record to be saved at the end of the round, once, however often it was touched. The order is that of the writes:
/// a job's own record comes after all that it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Touched {
    Script(JobId),
    Plan(JobId),
    Report(JobId),
    BadRows(TaskKey),
    Task(TaskKey),
    Sweep(AttemptKey),
    Job(JobId),
}

impl Round {
    pub(super) fn new(now: Now) -> Self {
        Self { now, touched: BTreeSet::new(), actions: Vec::new(), forgotten: Vec::new() }
    }

    pub(super) fn touch(&mut self, touched: Touched) {
        self.touched.insert(touched);
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.act(Action::Answer { ticket, answer });
    }

    pub(super) fn commit(&mut self, attempt: AttemptKey, part: u32, job: &Job) {
        if let (Some(plan), Some(label)) = (job.plan(), job.label_of(attempt, part)) {
            self.act(Action::Commit { attempt, part, label, plan: plan.clone() });
        }
    }
}
