//! The decisions: jobs, tasks, leases and dead labels, and what follows from every event. Pure: [`State::apply`] takes
//! events and the time, changes itself, and says what must be saved and what must be done afterwards. It opens nothing,
//! waits for nothing, and gives the same answer to the same input.
//!
//! The caller (`driver.rs`) saves [`Turn::changes`] before it performs any of [`Turn::actions`]; that order is the
//! whole of exactly once. What a task's results mean for its job stands in [`job`], what events mean stands here.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use starlift_common::ids::{JobId, WorkerId};
use starlift_common::job::JobState;
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::FailureClass;
use starlift_common::task::{AttemptKey, Outcome, Prepared, Progress};

use crate::clock::{Millis, Now};
use crate::commit::Verdict;
use crate::lease::Leases;
use crate::plan::Plan;
use crate::record::{InFlight, JobRecord, Standing, StatementsRecord, SweepRecord};
use crate::sweep::{Fate, Sweeps};

mod assign;
pub mod event;
pub mod job;
mod round;

pub use event::{
    Action, Answer, Change, Event, Journal, Rules, StoredJob, TaskOrder, Ticket, Turn, WorkerInfo,
};
use job::Job;
use round::{Round, Touched};

/// Everything the coordinator knows. Equal states decide alike; what is kept only to be shown is not hashed.
#[derive(Debug, Clone)]
pub struct State {
    rules: Rules,
    jobs: BTreeMap<JobId, Job>,
    leases: Leases,
    sweeps: Sweeps,
    workers: BTreeMap<WorkerId, Worker>,
    parked: Vec<Parked>,
    heard: BTreeMap<AttemptKey, Progress>,
    counters: Counters,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.rules, &self.jobs, &self.leases, &self.sweeps, &self.workers, &self.parked).hash(hasher);
    }
}

/// A worker as last heard of. Known again from its next call after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Worker {
    pub info: WorkerInfo,
    pub heard: Millis,
    /// Tasks it holds.
    pub running: u32,
    /// Rows and bytes that its committed tasks have loaded since this coordinator started.
    pub rows: u64,
    pub bytes: u64,
}

/// A request for work that waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Parked {
    ticket: Ticket,
    worker: WorkerId,
    free_slots: u32,
    until: Millis,
}

/// Counted since this coordinator started, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    pub grants: u64,
    pub lease_expiries: u64,
    pub stale_reports: u64,
    pub failures_transient: u64,
    pub failures_permanent: u64,
    pub failures_distress: u64,
    pub rows_read: u64,
    pub bytes_read: u64,
    pub rows_loaded: u64,
    pub bytes_loaded: u64,
    pub transactions: u64,
}

impl State {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            jobs: BTreeMap::new(),
            leases: Leases::default(),
            sweeps: Sweeps::default(),
            workers: BTreeMap::new(),
            parked: Vec::new(),
            heard: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// Goes on where the journal ends: every live lease gets one full term, whatever was under way is begun again.
    pub fn restore(rules: Rules, journal: Journal, now: Now) -> (Self, Turn) {
        let mut state = Self::new(rules);
        for (id, stored) in journal.jobs {
            let job = Job::restore(id, stored);
            for (task, record) in job.running_tasks() {
                let attempt = AttemptKey { task, epoch: record.epoch };
                let worker = record.worker.clone().unwrap_or_else(|| WorkerId(String::new()));
                state.leases.resume(attempt, worker, now.monotonic, rules.lease);
            }
            state.jobs.insert(id, job);
        }
        state.sweeps = Sweeps::restore(journal.sweeps, now.monotonic);
        let mut round = Round::new(now);
        let ids: Vec<JobId> = state.jobs.keys().copied().collect();
        for id in ids {
            state.resume(id, &mut round);
        }
        let turn = state.finish_round(round);
        (state, turn)
    }

    /// Decides all events, in their order, then whatever the time has brought.
    pub fn apply(&mut self, events: Vec<Event>, now: Now) -> Turn {
        let mut round = Round::new(now);
        for event in events {
            self.decide(event, &mut round);
        }
        self.expire(&mut round);
        self.sweep(&mut round);
        self.assign(&mut round);
        self.dismiss(&mut round);
        self.finish_round(round)
    }

    pub fn jobs(&self) -> impl Iterator<Item = (JobId, &Job)> {
        self.jobs.iter().map(|(id, job)| (*id, job))
    }

    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub fn sweeps(&self) -> &Sweeps {
        &self.sweeps
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What a running attempt was last heard to have done.
    pub fn progress(&self, attempt: AttemptKey) -> Progress {
        self.heard.get(&attempt).copied().unwrap_or_default()
    }

    /// Requests for work that wait for an answer.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    fn decide(&mut self, event: Event, round: &mut Round) {
        match event {
            Event::Submit { ticket, job, name, script } => self.submit(ticket, job, name, script, round),
            Event::Cancel { ticket, job } => self.cancel(ticket, job, round),
            Event::Planned { job, result } => self.planned(job, result, round),
            Event::StatementReady { ticket, job, at } => self.statement_ready(ticket, job, at, round),
            Event::StatementDone { job, result } => self.statement_done(job, result, round),
            Event::Acquire { ticket, worker, free_slots, until } => {
                let id = worker.id.clone();
                if free_slots >= worker.slots {
                    self.holds_only(&id, &BTreeSet::new(), round);
                }
                self.hear(worker, round.now.monotonic);
                self.parked.push(Parked { ticket, worker: id, free_slots, until });
            }
            Event::Gone { ticket } => self.parked.retain(|parked| parked.ticket != ticket),
            Event::Heartbeat { ticket, worker, tasks } => self.heartbeat(ticket, worker, &tasks, round),
            Event::Report { ticket, attempt, outcome } => self.report(ticket, attempt, outcome, round),
            Event::Committed { attempt, part, verdict } => self.committed(attempt, part, verdict, round),
            Event::Swept { attempt, fates } => self.swept(attempt, &fates, round),
        }
    }

    fn submit(&mut self, ticket: Ticket, id: JobId, name: String, script: Arc<str>, round: &mut Round) {
        match self.jobs.get(&id) {
            Some(job) if job.script() == &script => round.answer(ticket, Answer::Accepted),
            Some(_) => {
                let problem =
                    Problem::new(Code::JobChanged, format!("job {id} was submitted with another script"))
                        .hint("submit the changed script as a new job");
                round.answer(ticket, Answer::Refused(problem));
            }
            None => {
                let record = JobRecord {
                    name,
                    submitted_at: round.now.unix,
                    state: JobState::Pending,
                    ending: None,
                    phases: Vec::new(),
                    statements: StatementsRecord::default(),
                    warnings: Vec::new(),
                };
                self.jobs.insert(id, Job::new(id, record, script));
                round.touch(Touched::Script(id));
                round.touch(Touched::Job(id));
                round.answer(ticket, Answer::Accepted);
                self.advance(id, round);
            }
        }
    }

    fn cancel(&mut self, ticket: Ticket, id: JobId, round: &mut Round) {
        let Some(job) = self.jobs.get(&id) else {
            round.answer(ticket, Answer::Refused(unknown_job(id)));
            return;
        };
        if !job.state().is_final() {
            self.end_job(id, crate::record::Ending::Cancelled, round);
        }
        round.answer(ticket, Answer::Accepted);
    }

    fn planned(&mut self, id: JobId, result: Result<Box<Plan>, Vec<Problem>>, round: &mut Round) {
        // A cancelled job is not planned any more, and a plan is never replaced.
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.state() == JobState::Planning) else {
            return;
        };
        match result {
            Ok(plan) => {
                job.adopt_plan(Arc::from(plan));
                round.touch(Touched::Plan(id));
                round.touch(Touched::Job(id));
                self.advance(id, round);
            }
            Err(problems) => self.fail_job(id, joined(&problems), round),
        }
    }

    fn statement_ready(&mut self, ticket: Ticket, id: JobId, at: InFlight, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.awaits_statement()) else {
            round.answer(ticket, Answer::SendStatement(false));
            return;
        };
        job.statement_sent(at);
        round.touch(Touched::Job(id));
        round.answer(ticket, Answer::SendStatement(true));
    }

    fn statement_done(&mut self, id: JobId, result: Result<(), Problem>, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.statement_ended(result.is_ok());
        round.touch(Touched::Job(id));
        match result {
            Ok(()) => self.advance(id, round),
            Err(problem) => self.fail_job(id, problem, round),
        }
    }

    fn heartbeat(
        &mut self,
        ticket: Ticket,
        worker: WorkerInfo,
        tasks: &[(AttemptKey, Progress)],
        round: &mut Round,
    ) {
        let held: BTreeSet<AttemptKey> = tasks.iter().map(|(attempt, _)| *attempt).collect();
        self.holds_only(&worker.id, &held, round);
        self.hear(worker, round.now.monotonic);
        let mut orders = Vec::with_capacity(tasks.len());
        for (attempt, progress) in tasks {
            let renewed =
                self.leases.renew(*attempt, progress.parts_begun, round.now.monotonic, self.rules.lease);
            if renewed.is_ok() {
                self.heard.insert(*attempt, *progress);
            } else if self.sweeps.heard(*attempt, progress.parts_begun) {
                round.touch(Touched::Sweep(*attempt));
            }
            let bytes_per_second = self.jobs.get(&attempt.task.job).and_then(Job::speed_share);
            orders.push(TaskOrder { attempt: *attempt, go_on: renewed.is_ok(), bytes_per_second });
        }
        round.answer(ticket, Answer::Orders(orders));
    }

    /// A worker that no longer names a dead epoch has stopped it.
    fn holds_only(&mut self, worker: &WorkerId, held: &BTreeSet<AttemptKey>, round: &mut Round) {
        for attempt in self.sweeps.stopped_by_silence(worker, held) {
            round.touch(Touched::Sweep(attempt));
        }
    }

    fn report(&mut self, ticket: Ticket, attempt: AttemptKey, outcome: Outcome, round: &mut Round) {
        if self.leases.check(attempt).is_err() {
            let repeated = self.is_decided(attempt, &outcome);
            if !repeated {
                self.counters.stale_reports += 1;
                self.stale_report(attempt, &outcome, round);
            }
            round.answer(ticket, Answer::Reported(repeated));
            return;
        }
        match outcome {
            Outcome::Prepared(prepared) => match self.verify(attempt, &prepared) {
                Ok(()) => self.prepared(attempt, prepared, round),
                Err(problem) => {
                    let leftover = Leftover { parts: part_count(&prepared), stopped: true };
                    self.attempt_failed(attempt, FailureClass::Transient, problem, Some(leftover), round);
                }
            },
            Outcome::Failed { class, problem, parts_begun, all_rolled_back } => {
                let leftover = Leftover::of_report(parts_begun, all_rolled_back);
                self.attempt_failed(attempt, class, problem, leftover, round);
            }
            Outcome::GivenBack { parts_begun, all_rolled_back } => {
                self.close_epoch(attempt, Leftover::of_report(parts_begun, all_rolled_back), round);
                if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
                    job.requeue(attempt.task.task, None);
                }
            }
        }
        round.answer(ticket, Answer::Reported(true));
    }

    /// Whether this very result was taken before and only its answer was lost: a worker that is told otherwise would
    /// roll back what is being committed.
    fn is_decided(&self, attempt: AttemptKey, outcome: &Outcome) -> bool {
        let record = self.jobs.get(&attempt.task.job).and_then(|job| job.find_task(attempt.task.task));
        match (outcome, record) {
            (Outcome::Prepared(shown), Some(record)) if record.epoch == attempt.epoch => {
                match &record.standing {
                    Standing::Committing { prepared, .. } | Standing::Done { prepared } => prepared == shown,
                    _ => false,
                }
            }
            _ => false,
        }
    }

    /// A word under a dead epoch changes no task; it only tells what is left to sweep.
    fn stale_report(&mut self, attempt: AttemptKey, outcome: &Outcome, round: &mut Round) {
        let (parts, all_rolled_back) = match outcome {
            Outcome::Prepared(prepared) => (part_count(prepared), false),
            Outcome::Failed { parts_begun, all_rolled_back, .. }
            | Outcome::GivenBack { parts_begun, all_rolled_back } => (*parts_begun, *all_rolled_back),
        };
        if self.sweeps.stopped(attempt, parts, all_rolled_back) {
            round.touch(Touched::Sweep(attempt));
        } else if let Some(leftover) =
            Leftover::of_report(parts, all_rolled_back).filter(|_| self.is_dead(attempt))
        {
            let worker =
                self.jobs.get(&attempt.task.job).and_then(|job| job.task(attempt.task.task).worker.clone());
            self.add_sweep(attempt, worker, leftover, round);
        }
    }

    /// Whether the epoch was granted once and can never be committed any more.
    fn is_dead(&self, attempt: AttemptKey) -> bool {
        let record = self.jobs.get(&attempt.task.job).and_then(|job| job.find_task(attempt.task.task));
        record.is_some_and(|record| match record.standing {
            Standing::Waiting | Standing::Failed { .. } => attempt.epoch <= record.epoch,
            Standing::Running | Standing::Committing { .. } | Standing::Done { .. } => {
                attempt.epoch < record.epoch
            }
        })
    }

    fn verify(&self, attempt: AttemptKey, prepared: &Prepared) -> Result<(), Problem> {
        let plan = self.jobs.get(&attempt.task.job).and_then(Job::plan);
        let prefix = plan.map_or("", |plan| plan.load.label_prefix.as_str());
        crate::commit::verify(prefix, attempt, prepared)
    }

    /// The decision to commit. It is saved in this turn's write, and carried out only after it.
    fn prepared(&mut self, attempt: AttemptKey, prepared: Prepared, round: &mut Round) {
        let Some(worker) = self.end_lease(attempt, round) else { return };
        let task = attempt.task.task;
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let empty = prepared.parts.is_empty();
        job.set_took(task, worker.held);
        job.queue_mut().raise_cap(round.now.monotonic);
        job.set_standing(task, Standing::Committing { prepared, committed: 0 });
        if empty {
            self.task_done(attempt, round);
        } else {
            round.commit(attempt, 0, job);
        }
        self.advance(attempt.task.job, round);
    }

    fn committed(&mut self, attempt: AttemptKey, part: u32, verdict: Verdict, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let record = job.task(attempt.task.task);
        let Standing::Committing { prepared, committed } = &record.standing else { return };
        if record.epoch != attempt.epoch || *committed != part {
            return; // an answer that was acted upon before
        }
        let (prepared, committed) = (prepared.clone(), *committed);
        match verdict {
            Verdict::Committed => {
                let committed = committed + 1;
                let all = committed >= part_count(&prepared);
                job.set_standing(attempt.task.task, Standing::Committing { prepared, committed });
                round.touch(Touched::Task(attempt.task));
                self.counters.transactions += 1;
                if all {
                    self.task_done(attempt, round);
                } else {
                    round.commit(attempt, committed, job);
                }
            }
            Verdict::Aborted { reason } if committed == 0 => {
                let problem = crate::commit::aborted(attempt, part, &prepared, &reason);
                let leftover = Leftover { parts: part_count(&prepared), stopped: true };
                self.reopen(attempt, &problem, leftover, round);
            }
            Verdict::Aborted { reason } => {
                let problem = crate::commit::partly_aborted(job.facts(attempt), part, &prepared, &reason);
                self.task_failed(attempt, prepared.parts[..committed as usize].to_vec(), problem, round);
            }
            Verdict::Unknown => {
                let problem = crate::commit::unknown(job.facts(attempt), part, &prepared);
                self.task_failed(attempt, prepared.parts[..committed as usize].to_vec(), problem, round);
            }
        }
        self.advance(attempt.task.job, round);
    }

    fn swept(&mut self, attempt: AttemptKey, fates: &[Fate], round: &mut Round) {
        let lifetime =
            self.jobs.get(&attempt.task.job).map_or(Duration::ZERO, |job| job.lifetime(attempt.task.task));
        if let Some(part) = self.sweeps.settle(attempt, fates, lifetime, round.now) {
            let facts = self.jobs.get(&attempt.task.job).map(|job| job.facts(attempt));
            if let Some(problem) = facts.map(|facts| crate::sweep::foreign_commit(facts, part)) {
                self.fail_job(attempt.task.job, problem, round);
            }
        }
        round.touch(Touched::Sweep(attempt));
    }

    /// One attempt is over and has not prepared everything.
    fn attempt_failed(
        &mut self,
        attempt: AttemptKey,
        class: FailureClass,
        problem: Problem,
        leftover: Option<Leftover>,
        round: &mut Round,
    ) {
        let now = round.now.monotonic;
        self.close_epoch(attempt, leftover, round);
        let attempts = self.rules.attempts;
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let task = attempt.task.task;
        match class {
            FailureClass::Distress => {
                self.counters.failures_distress += 1;
                job.queue_mut().lower_cap(now);
                let delay = job.note_distress(attempt, problem);
                job.requeue(task, Some(now.plus(delay)));
            }
            FailureClass::Transient => {
                self.counters.failures_transient += 1;
                let failures = job.note_failure(task, problem.clone());
                if failures >= attempts {
                    self.task_failed(attempt, Vec::new(), job::spent(attempt, failures, &problem), round);
                } else {
                    let delay = job::retry_delay(attempt, failures);
                    job.requeue(task, Some(now.plus(delay)));
                }
            }
            FailureClass::Permanent => {
                self.counters.failures_permanent += 1;
                job.note_failure(task, problem.clone());
                self.task_failed(attempt, Vec::new(), problem, round);
            }
        }
    }

    /// The server gave the decided transaction up before anything of the task was committed: a new attempt may load it.
    fn reopen(&mut self, attempt: AttemptKey, problem: &Problem, leftover: Leftover, round: &mut Round) {
        self.counters.failures_transient += 1;
        let worker =
            self.jobs.get(&attempt.task.job).and_then(|job| job.task(attempt.task.task).worker.clone());
        self.add_sweep(attempt, worker, leftover, round);
        let attempts = self.rules.attempts;
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        round.touch(Touched::Task(attempt.task));
        let failures = job.note_failure(attempt.task.task, problem.clone());
        job.set_standing(attempt.task.task, Standing::Waiting);
        if failures >= attempts {
            self.task_failed(attempt, Vec::new(), job::spent(attempt, failures, problem), round);
        } else {
            job.requeue(
                attempt.task.task,
                Some(round.now.monotonic.plus(job::retry_delay(attempt, failures))),
            );
        }
    }

    fn task_done(&mut self, attempt: AttemptKey, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let task = attempt.task.task;
        let Standing::Committing { prepared, .. } = job.task(task).standing.clone() else { return };
        let rows: u64 = prepared.parts.iter().map(|part| part.rows_loaded).sum();
        let bytes: u64 = prepared.parts.iter().map(|part| part.bytes_sent).sum();
        self.counters.rows_read += prepared.rows_read;
        self.counters.bytes_read += prepared.bytes_read;
        self.counters.rows_loaded += rows;
        self.counters.bytes_loaded += bytes;
        let worker = job.task(task).worker.as_ref().and_then(|worker| self.workers.get_mut(worker));
        if let Some(worker) = worker {
            worker.rows += rows;
            worker.bytes += bytes;
        }
        job.set_standing(task, Standing::Done { prepared });
        round.touch(Touched::Task(attempt.task));
    }

    /// A failed task fails its job; `committed` are those of its parts that stay in the target.
    fn task_failed(
        &mut self,
        attempt: AttemptKey,
        committed: Vec<starlift_common::task::PreparedPart>,
        problem: Problem,
        round: &mut Round,
    ) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        job.note_problem(attempt.task.task, problem.clone());
        job.set_standing(attempt.task.task, Standing::Failed { committed });
        round.touch(Touched::Task(attempt.task));
        let place = job.range_text(attempt.task.task);
        let problem = if problem.place.is_empty() { problem.at(place) } else { problem };
        self.fail_job(attempt.task.job, problem, round);
    }

    fn fail_job(&mut self, id: JobId, problem: Problem, round: &mut Round) {
        self.end_job(id, crate::record::Ending::Failed(problem), round);
    }

    /// Nothing new is begun for the job; commits already decided go on, then it ends. The first reason stays.
    fn end_job(&mut self, id: JobId, ending: crate::record::Ending, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.state().is_final()) else { return };
        if job.ending().is_none() {
            job.set_ending(ending);
            round.touch(Touched::Job(id));
            if job.statement_is_running() {
                round.act(Action::StopStatement { job: id });
            }
            let running: Vec<AttemptKey> = self.leases.of_job(id).collect();
            for attempt in running {
                let parts = self.leases.get(attempt.task).map_or(0, |lease| lease.parts_begun);
                self.close_epoch(attempt, Some(Leftover { parts, stopped: false }), round);
            }
            if let Some(job) = self.jobs.get_mut(&id) {
                job.queue_mut().clear();
            }
        }
        self.advance(id, round);
    }

    /// Ends an attempt's right to speak. What it may have left at the server goes onto the sweep list in the same write.
    fn close_epoch(&mut self, attempt: AttemptKey, leftover: Option<Leftover>, round: &mut Round) {
        let Some(ended) = self.end_lease(attempt, round) else { return };
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            job.set_standing(attempt.task.task, Standing::Waiting);
        }
        if let Some(leftover) = leftover {
            self.add_sweep(attempt, Some(ended.worker), leftover, round);
        }
    }

    fn add_sweep(
        &mut self,
        attempt: AttemptKey,
        worker: Option<WorkerId>,
        leftover: Leftover,
        round: &mut Round,
    ) {
        let record = SweepRecord {
            worker: worker.unwrap_or_else(|| WorkerId(String::new())),
            parts: leftover.parts,
            stopped: leftover.stopped,
            closed_at: round.now.unix,
        };
        self.sweeps.add(attempt, record, round.now.monotonic);
        round.touch(Touched::Sweep(attempt));
    }

    fn end_lease(&mut self, attempt: AttemptKey, round: &mut Round) -> Option<EndedLease> {
        let lease = self.leases.end(attempt).ok()?;
        self.heard.remove(&attempt);
        if let Some(worker) = self.workers.get_mut(&lease.worker) {
            worker.running = worker.running.saturating_sub(1);
        }
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            job.queue_mut().release();
        }
        round.touch(Touched::Task(attempt.task));
        Some(EndedLease { held: round.now.monotonic.since(lease.granted), worker: lease.worker })
    }

    fn hear(&mut self, info: WorkerInfo, now: Millis) {
        match self.workers.get_mut(&info.id) {
            Some(worker) => {
                worker.info = info;
                worker.heard = now;
            }
            None => {
                // After a restart it may hold tasks that it was granted before.
                let held = self.leases.iter().filter(|(_, lease)| lease.worker == info.id).count();
                let running = u32::try_from(held).unwrap_or(u32::MAX);
                self.workers.insert(info.id.clone(), Worker { info, heard: now, running, rows: 0, bytes: 0 });
            }
        }
    }

    fn expire(&mut self, round: &mut Round) {
        for attempt in self.leases.expired(round.now.monotonic) {
            let Some(lease) = self.leases.get(attempt.task) else { continue }; // its job has just failed
            self.counters.lease_expiries += 1;
            if !lease.heard {
                // The grant was lost on its way: a worker begins nothing before its first heartbeat is answered.
                self.close_epoch(attempt, None, round);
                if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
                    job.requeue(attempt.task.task, None);
                }
                continue;
            }
            let leftover = Leftover { parts: lease.parts_begun, stopped: false };
            let problem = Problem::new(
                Code::LeaseExpired,
                format!("worker {} was not heard of for {} s", lease.worker, self.rules.lease.as_secs()),
            )
            .hint("see whether the worker still runs and reaches the coordinator");
            self.attempt_failed(attempt, FailureClass::Transient, problem, Some(leftover), round);
        }
        let forget = self.rules.lease * FORGET_WORKER_AFTER;
        let now = round.now.monotonic;
        self.workers.retain(|_, worker| worker.running > 0 || now.since(worker.heard) < forget);
    }

    fn sweep(&mut self, round: &mut Round) {
        for (attempt, parts) in self.sweeps.due(round.now.monotonic) {
            if let Some(plan) = self.jobs.get(&attempt.task.job).and_then(Job::plan) {
                round.act(Action::Sweep { attempt, parts, plan: plan.clone() });
            }
        }
    }

    /// Does whatever a stored job was in the middle of.
    fn resume(&mut self, id: JobId, round: &mut Round) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.state() == JobState::Planning {
            round.act(Action::Plan { job: id, script: job.script().clone() });
        }
        for (attempt, part) in job.undecided_commits() {
            round.commit(attempt, part, job);
        }
        self.advance(id, round);
    }

    /// Moves a job as far as it can go now.
    fn advance(&mut self, id: JobId, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let before = job.state();
        if let Some(action) = job.advance(round.now.unix) {
            round.act(action);
        }
        if job.state() != before {
            round.touch(Touched::Job(id));
        }
        if job.state().is_final() && job.report().is_none() {
            let report = crate::report::make(id, job, self.sweeps.labels_of(id), round.now.unix);
            job.set_report(Arc::new(report));
            round.touch(Touched::Job(id));
            round.touch(Touched::Report(id));
        }
    }

    fn finish_round(&mut self, round: Round) -> Turn {
        let changes = round.touched.into_iter().filter_map(|touched| self.change(touched)).collect();
        Turn { changes, actions: round.actions }
    }

    /// The present value of a record that was touched.
    fn change(&self, touched: Touched) -> Option<Change> {
        Some(match touched {
            Touched::Script(id) => Change::Script(id, self.jobs.get(&id)?.script().clone()),
            Touched::Plan(id) => Change::Plan(id, self.jobs.get(&id)?.plan()?.clone()),
            Touched::Job(id) => Change::Job(id, self.jobs.get(&id)?.record().clone()),
            Touched::Task(task) => Change::Task(task, self.jobs.get(&task.job)?.task(task.task).clone()),
            Touched::Sweep(attempt) => match self.sweeps.get(attempt) {
                Some(record) => Change::Sweep(attempt, record.clone()),
                None => Change::Swept(attempt),
            },
            Touched::Report(id) => Change::Report(id, self.jobs.get(&id)?.report()?.clone()),
        })
    }
}

/// A worker that holds nothing is forgotten when it was silent for so many lease terms.
const FORGET_WORKER_AFTER: u32 = 20;

/// What a dead epoch may have left open at the server.
#[derive(Debug, Clone, Copy)]
struct Leftover {
    parts: u32,
    stopped: bool,
}

impl Leftover {
    /// A worker that reports has stopped; nothing is left when nothing was begun or all of it was rolled back.
    fn of_report(parts: u32, all_rolled_back: bool) -> Option<Self> {
        (parts > 0 && !all_rolled_back).then_some(Self { parts, stopped: true })
    }
}

struct EndedLease {
    worker: WorkerId,
    held: Duration,
}

fn part_count(prepared: &Prepared) -> u32 {
    u32::try_from(prepared.parts.len()).unwrap_or(u32::MAX)
}

/// The problem of an id that no job has.
pub fn unknown_job(id: JobId) -> Problem {
    Problem::new(Code::UnknownJob, format!("there is no job {id}"))
        .hint("`starlift list` shows the jobs of this coordinator")
}

/// Several faults as one: the first one's code, everybody's words.
pub fn joined(problems: &[Problem]) -> Problem {
    match problems {
        [] => Problem::new(Code::Internal, "planning failed without a reason"),
        [only] => only.clone(),
        [first, ..] => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Problem::new(first.code, format!("{} problems:\n{}", problems.len(), lines.join("\n")))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
