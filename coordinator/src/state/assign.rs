//! Which waiting task goes to which waiting worker: fair among jobs, spread over workers, within every job's cap.

use std::collections::{BTreeMap, BTreeSet};

use starlift_common::ids::{JobId, WorkerId};
use starlift_common::wire::Grant;

use super::State;
use super::event::{Answer, Ticket};
use super::job::Job;
use super::round::{Round, Touched};
use crate::pressure::Pressure;

/// Jobs that may start a task now, the one that runs the fewest first. None joins while grants are made, because a
/// grant only ever takes room away.
type Ready = BTreeSet<(u32, JobId)>;

impl State {
    /// Hands ready tasks to waiting workers, one by one: each goes to the worker that holds the fewest, from the job
    /// that runs the fewest.
    pub(super) fn assign(&mut self, round: &mut Round) {
        let now = round.now.monotonic;
        for job in self.jobs.values_mut() {
            job.queue_mut().wake(now);
        }
        if self.askers.is_empty() {
            return;
        }
        let mut ready: Ready = self
            .jobs
            .iter()
            .filter(|(_, job)| may_start(job, &self.pressure))
            .map(|(id, job)| (job.queue().running(), *id))
            .collect();
        let mut grants: BTreeMap<Ticket, Vec<Grant>> = BTreeMap::new();
        // Every grant moves its worker back in the order, and whoever gets nothing is not asked again.
        let mut passed_over = None;
        while !ready.is_empty()
            && let Some(place) = self.askers.next(passed_over)
        {
            let (_, ticket) = place;
            let Some(asker) = self.askers.get(ticket) else { break };
            let (worker, free_slots) = (asker.worker.clone(), asker.free_slots);
            let Some(grant) = self.grant_to(&worker, &mut ready, round) else {
                passed_over = Some(place);
                continue;
            };
            let granted = grants.entry(ticket).or_default();
            granted.push(grant);
            if granted.len() >= usize::try_from(free_slots).unwrap_or(usize::MAX) {
                self.askers.is_served(ticket);
            }
        }
        for (ticket, grants) in grants {
            self.askers.remove(ticket);
            round.answer(ticket, Answer::Granted { grants, drain: false });
        }
    }

    /// The next task for this worker, from the first ready job that has one for it.
    fn grant_to(&mut self, worker: &WorkerId, ready: &mut Ready, round: &mut Round) -> Option<Grant> {
        let others_wait = self.askers.others_wait(worker);
        let mut spent = Vec::new();
        let mut granted = None;
        for &(running, id) in ready.iter() {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if !may_start(job, &self.pressure) {
                spent.push((running, id));
            } else if let Some(grant) = job.grant(worker, others_wait, self.rules.lease) {
                granted = Some(((running, id), grant));
                break;
            }
        }
        for job in spent {
            ready.remove(&job);
        }
        let ((running, id), grant) = granted?;
        ready.remove(&(running, id));
        ready.insert((running + 1, id));
        let attempt = grant.attempt;
        self.leases.grant(attempt, worker.clone(), round.now.monotonic, self.rules.lease);
        if let Some(table) = self.jobs.get(&id).and_then(Job::table) {
            self.pressure.started(table);
        }
        if let Some(known) = self.workers.get_mut(worker) {
            known.running += 1;
            self.askers.set_load(worker, known.running);
        }
        self.counters.grants += 1;
        round.touch(Touched::Task(attempt.task));
        Some(grant)
    }

    /// Answers the requests for work that have waited long enough.
    pub(super) fn dismiss(&mut self, round: &mut Round) {
        while let Some(ticket) = self.askers.take_ended(round.now.monotonic) {
            round.answer(ticket, Answer::Granted { grants: Vec::new(), drain: false });
        }
    }

    /// Answers all requests for work as if their wait was over.
    pub(super) fn recall(&mut self, round: &mut Round) {
        while let Some(ticket) = self.askers.take_first() {
            round.answer(ticket, Answer::Granted { grants: Vec::new(), drain: false });
        }
    }

    /// The worker takes no further tasks: answers its requests for work.
    pub(super) fn send_away(&mut self, worker: &WorkerId, round: &mut Round) {
        for ticket in self.askers.take_of(worker) {
            round.answer(ticket, Answer::Granted { grants: Vec::new(), drain: true });
        }
    }
}

fn may_start(job: &Job, pressure: &Pressure) -> bool {
    job.grants_tasks() && job.queue().has_ready() && job.table().is_some_and(|table| pressure.has_room(table))
}
