//! Which waiting task goes to which waiting worker: fair among jobs, spread over workers, within every job's cap.

use std::collections::{BTreeMap, BTreeSet};

use starlift_common::ids::{JobId, WorkerId};
use starlift_common::wire::Grant;

use super::event::{Answer, Ticket};
use super::round::{Round, Touched};
use super::{Parked, State, Worker};
use crate::pressure::Table;

impl State {
    /// Hands ready tasks to waiting workers, one by one: each goes to the worker that holds the fewest, from the job
    /// that runs the fewest.
    pub(super) fn assign(&mut self, round: &mut Round) {
        let now = round.now.monotonic;
        for job in self.jobs.values_mut() {
            job.queue_mut().wake(now);
        }
        let mut grants: BTreeMap<Ticket, Vec<Grant>> = BTreeMap::new();
        let mut passed_over = BTreeSet::new();
        while let Some(parked) = self.next_asker(&grants, &passed_over) {
            match self.grant_to(&parked.worker, round) {
                Some(grant) => grants.entry(parked.ticket).or_default().push(grant),
                None => {
                    passed_over.insert(parked.ticket);
                }
            }
        }
        self.parked.retain(|parked| !grants.contains_key(&parked.ticket));
        for (ticket, grants) in grants {
            round.answer(ticket, Answer::Granted { grants, drain: false });
        }
    }

    fn next_asker(
        &self,
        grants: &BTreeMap<Ticket, Vec<Grant>>,
        passed_over: &BTreeSet<Ticket>,
    ) -> Option<Parked> {
        let free = |parked: &Parked| {
            let taken = grants.get(&parked.ticket).map_or(0, Vec::len);
            taken < usize::try_from(parked.free_slots).unwrap_or(usize::MAX)
        };
        let running = |parked: &Parked| self.workers.get(&parked.worker).map_or(0, |worker| worker.running);
        self.parked
            .iter()
            .filter(|parked| {
                !passed_over.contains(&parked.ticket) && free(parked) && !self.is_draining(&parked.worker)
            })
            .min_by_key(|parked| (running(parked), parked.ticket))
            .cloned()
    }

    fn is_draining(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(Worker::is_draining)
    }

    fn grant_to(&mut self, worker: &WorkerId, round: &mut Round) -> Option<Grant> {
        let now = round.now.monotonic;
        let others = self.others_ask(worker);
        let mut candidates: Vec<(u32, JobId)> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.grants_tasks() && job.queue().has_ready())
            .filter(|(_, job)| job.plan().is_some_and(|plan| self.pressure.has_room(&Table::of(&plan.load))))
            .map(|(id, job)| (job.queue().running(), *id))
            .collect();
        candidates.sort_unstable();
        for (_, id) in candidates {
            let job = self.jobs.get_mut(&id).expect("taken from the map above");
            if let Some(grant) = job.grant(worker, others, self.rules.lease) {
                let attempt = grant.attempt;
                self.leases.grant(attempt, worker.clone(), now, self.rules.lease);
                self.pressure.started(&Table::of(&grant.load));
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.running += 1;
                }
                self.counters.grants += 1;
                round.touch(Touched::Task(attempt.task));
                return Some(grant);
            }
        }
        None
    }

    /// Whether another worker waits for work: then a failed task is kept for it.
    fn others_ask(&self, worker: &WorkerId) -> bool {
        self.parked.iter().any(|parked| parked.worker != *worker && !self.is_draining(&parked.worker))
    }

    /// Answers the requests for work that have waited long enough or want none.
    pub(super) fn dismiss(&mut self, round: &mut Round) {
        let now = round.now.monotonic;
        let (stay, go): (Vec<Parked>, Vec<Parked>) =
            std::mem::take(&mut self.parked).into_iter().partition(|parked| {
                parked.until > now && parked.free_slots > 0 && !self.is_draining(&parked.worker)
            });
        self.parked = stay;
        for parked in go {
            let drain = self.is_draining(&parked.worker);
            round.answer(parked.ticket, Answer::Granted { grants: Vec::new(), drain });
        }
    }
}
