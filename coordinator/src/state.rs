//! The decisions: jobs, tasks, leases and dead labels, and what follows from every event. Pure: [`State::apply`] takes
//! events and the time, changes itself, and says what must be saved and what must be done afterwards. It opens nothing,
//! waits for nothing, and gives the same answer to the same input.
//!
//! The caller (`driver.rs`) saves [`Turn::changes`] before it performs any of [`Turn::actions`]; that order is the
//! whole of exactly once. How attempts end stands in `ends`, what people may ask in `steer`, how far a job can move in
//! [`job`], who gets which task in `assign`; here is the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use starlift_common::ids::{JobId, WorkerId};
use starlift_common::job::JobState;
use starlift_common::problem::{Code, Problem};
use starlift_common::task::{AttemptKey, LabelsBegun, Progress};

use crate::clock::{Millis, Now, UnixMillis};
use crate::lease::Leases;
use crate::plan::Plan;
use crate::pressure::Pressure;
use crate::record::{Ending, InFlight, JobRecord, Standing, StatementsRecord, TaskRecord};
use crate::sweep::Sweeps;

mod askers;
mod assign;
mod ends;
pub mod event;
pub mod job;
mod round;
mod steer;

use askers::Askers;
use ends::Leftover;
pub use event::{
    Action, Answer, Change, Event, Forgotten, Journal, Resolution, Rules, StoredJob, TaskOrder, Ticket, Turn,
    WorkerInfo,
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
    pressure: Pressure,
    workers: BTreeMap<WorkerId, Worker>,
    /// When each worker was last heard, the longest silent first.
    silence: BTreeSet<(Millis, WorkerId)>,
    askers: Askers,
    heard: BTreeMap<AttemptKey, Progress>,
    /// When each unfinished job last got on: rows were read, a task ended, its state changed.
    moved: BTreeMap<JobId, Millis>,
    /// When ended jobs are looked at again for those that are too old.
    next_look: Millis,
    counters: Counters,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.rules, &self.jobs, &self.leases, &self.sweeps).hash(hasher);
        (&self.pressure, &self.workers, &self.askers).hash(hasher);
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
    /// Somebody asked for it to leave; it hears of it with its next call.
    pub told_to_drain: bool,
}

impl Worker {
    /// Whether it gets no further tasks.
    pub fn is_draining(&self) -> bool {
        self.info.draining || self.told_to_drain
    }
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
    pub failures_unknown: u64,
    pub rows_read: u64,
    pub bytes_read: u64,
    pub rows_loaded: u64,
    pub bytes_loaded: u64,
    pub transactions: u64,
    pub dirty_records: u64,
}

impl State {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            jobs: BTreeMap::new(),
            leases: Leases::default(),
            sweeps: Sweeps::default(),
            pressure: Pressure::default(),
            workers: BTreeMap::new(),
            silence: BTreeSet::new(),
            askers: Askers::default(),
            heard: BTreeMap::new(),
            moved: BTreeMap::new(),
            next_look: Millis::default(),
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
                let worker = record.worker.clone().unwrap_or_default();
                state.leases.resume(attempt, worker, now.monotonic, rules.lease);
                if let Some(table) = job.table() {
                    state.pressure.started(table);
                }
            }
            if !job.state().is_final() {
                state.moved.insert(id, now.monotonic);
            }
            state.jobs.insert(id, job);
        }
        state.sweeps = Sweeps::restore(journal.sweeps, now.monotonic);
        let mut round = Round::new(now);
        let ids: Vec<JobId> = state.jobs.keys().copied().collect();
        for id in ids {
            state.take_up(id, &mut round);
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
        self.forget_workers(now.monotonic);
        self.forget(&mut round);
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

    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What a running attempt was last heard to have done.
    pub fn progress(&self, attempt: AttemptKey) -> Progress {
        self.heard.get(&attempt).copied().unwrap_or_default()
    }

    /// How long that job has stood still which should get on and has not for longest; zero when there is none.
    pub fn stalled(&self, now: Now) -> Duration {
        let should_move = |id: &JobId| {
            self.jobs.get(id).is_some_and(|job| {
                let state = job.shown_state();
                !state.is_final() && !matches!(state, JobState::Paused | JobState::Pending)
            })
        };
        let oldest = self.moved.iter().filter(|(id, _)| should_move(id)).map(|(_, moved)| *moved).min();
        oldest.map_or(Duration::ZERO, |moved| Duration::from_millis(now.monotonic.0.saturating_sub(moved.0)))
    }

    /// Requests for work that wait for an answer.
    pub fn parked(&self) -> usize {
        self.askers.len()
    }

    fn decide(&mut self, event: Event, round: &mut Round) {
        match event {
            Event::Submit { ticket, job, name, script } => self.submit(ticket, job, name, script, round),
            Event::Cancel { ticket, job } => self.cancel(ticket, job, round),
            Event::Pause { ticket, job } => self.pause(ticket, job, round),
            Event::Resume { ticket, job } => self.resume(ticket, job, round),
            Event::Resolve { ticket, task, resolution, reason } => {
                self.resolve(ticket, task, resolution, &reason, round);
            }
            Event::Drain { ticket, worker } => self.drain(ticket, &worker, round),
            Event::Planned { job, result } => self.planned(job, result, round),
            Event::StatementReady { ticket, job, at } => self.statement_ready(ticket, job, at, round),
            Event::StatementDone { job, result } => self.statement_done(job, result, round),
            Event::StatementStuck { job, problem } => self.statement_stuck(job, problem, round),
            Event::Acquire { ticket, worker, free_slots, until } => {
                self.acquire(ticket, worker, free_slots, until, round);
            }
            Event::Recall => self.recall(round),
            Event::Gone { ticket } => self.askers.remove(ticket),
            Event::Heartbeat { ticket, worker, tasks } => self.heartbeat(ticket, worker, &tasks, round),
            Event::Report { ticket, attempt, outcome } => self.report(ticket, attempt, outcome, round),
            Event::Committed { attempt, part, verdict } => self.committed(attempt, part, verdict, round),
            Event::CommitDelayed { attempt, problem, in_distress } => {
                self.commit_delayed(attempt, problem, in_distress, round);
            }
            Event::Swept { attempt, fates } => self.swept(attempt, &fates, round),
        }
    }

    fn acquire(
        &mut self,
        ticket: Ticket,
        worker: WorkerInfo,
        free_slots: u32,
        until: Millis,
        round: &mut Round,
    ) {
        if free_slots >= worker.slots {
            self.holds_only(&worker.id, &BTreeSet::new(), round);
        }
        let id = self.hear(worker, round);
        let (drain, load) =
            self.workers.get(&id).map_or((false, 0), |worker| (worker.is_draining(), worker.running));
        if drain || free_slots == 0 {
            round.answer(ticket, Answer::Granted { grants: Vec::new(), drain });
        } else {
            self.askers.add(ticket, id, free_slots, until, load);
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
                    pause: None,
                    first_prepared: None,
                };
                self.jobs.insert(id, Job::new(id, record, script));
                round.touch(Touched::Script(id));
                round.touch(Touched::Job(id));
                round.answer(ticket, Answer::Accepted);
                self.advance(id, round);
            }
        }
    }

    fn planned(&mut self, id: JobId, result: Result<Box<Plan>, Vec<Problem>>, round: &mut Round) {
        // A cancelled job is not planned any more, and a plan is never replaced.
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.state() == JobState::Planning) else {
            return;
        };
        match result {
            Ok(mut plan) => {
                let slots: u32 = self.workers.values().map(|worker| worker.info.slots).sum();
                if (1..plan.concurrent).contains(&slots) {
                    plan.warnings.push(format!(
                        "setting.speed.concurrent is {}, but all workers together have {slots} slots now: more workers, or \
                         more --slots, would make use of it",
                        plan.concurrent
                    ));
                }
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

    /// A statement may still run at the server: nothing may follow it before that is settled.
    fn statement_stuck(&mut self, id: JobId, problem: Problem, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.statement_stuck(problem);
        round.touch(Touched::Job(id));
        self.advance(id, round);
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
        let id = self.hear(worker, round);
        let mut orders = Vec::with_capacity(tasks.len());
        for (attempt, progress) in tasks {
            let renewed = self.leases.renew(*attempt, progress.begun, round.now.monotonic, self.rules.lease);
            if renewed.is_ok() {
                let before = self.heard.insert(*attempt, *progress).unwrap_or_default();
                if progress.rows_read > before.rows_read {
                    self.moved.insert(attempt.task.job, round.now.monotonic);
                }
            } else if self.sweeps.heard(*attempt, progress.begun) {
                round.touch(Touched::Sweep(*attempt));
            }
            let bytes_per_second = self.jobs.get(&attempt.task.job).and_then(Job::speed_share);
            orders.push(TaskOrder { attempt: *attempt, go_on: renewed.is_ok(), bytes_per_second });
        }
        let drain = self.workers.get(&id).is_some_and(Worker::is_draining);
        round.answer(ticket, Answer::Orders { orders, drain });
    }

    /// A worker that no longer names a dead epoch has stopped it.
    fn holds_only(&mut self, worker: &WorkerId, held: &BTreeSet<AttemptKey>, round: &mut Round) {
        for attempt in self.sweeps.stopped_by_silence(worker, held, round.now.monotonic) {
            round.touch(Touched::Sweep(attempt));
        }
    }

    fn fail_job(&mut self, id: JobId, problem: Problem, round: &mut Round) {
        self.end_job(id, Ending::Failed(problem), round);
    }

    /// Nothing new is begun for the job; commits already decided go on, then it ends. The first reason stays.
    fn end_job(&mut self, id: JobId, ending: Ending, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.state().is_final()) else { return };
        if job.ending().is_none() {
            job.set_ending(ending);
            round.touch(Touched::Job(id));
            if job.statement_is_running() {
                round.act(Action::StopStatement { job: id });
            }
            let running: Vec<AttemptKey> = self.leases.of_job(id).collect();
            for attempt in running {
                let begun = self.leases.get(attempt.task).map_or(LabelsBegun::default(), |lease| lease.begun);
                self.close_epoch(attempt, Some(Leftover::of_lost(begun)), round);
            }
            self.give_up_prepared(id, round);
            self.sweep_plain_loads(id, round);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.queue_mut().clear();
            }
        }
        self.advance(id, round);
    }

    /// Notes what a worker says of itself. Returns its id as it is kept, which all that refers to it shares.
    fn hear(&mut self, info: WorkerInfo, round: &mut Round) -> WorkerId {
        let now = round.now.monotonic;
        let (id, is_draining) = match self.workers.get_mut(&info.id) {
            Some(worker) => {
                let id = worker.info.id.clone();
                self.silence.remove(&(worker.heard, id.clone()));
                worker.info = WorkerInfo { id: id.clone(), ..info };
                worker.heard = now;
                (id, worker.is_draining())
            }
            None => {
                // After a restart it may hold tasks that it was granted before.
                let held = self.leases.iter().filter(|(_, lease)| lease.worker == info.id).count();
                let running = u32::try_from(held).unwrap_or(u32::MAX);
                let (id, is_draining) = (info.id.clone(), info.draining);
                let worker = Worker { info, heard: now, running, rows: 0, bytes: 0, told_to_drain: false };
                self.workers.insert(id.clone(), worker);
                (id, is_draining)
            }
        };
        self.silence.insert((now, id.clone()));
        if is_draining {
            self.send_away(&id, round);
        }
        id
    }

    /// Forgets the workers that hold nothing and were silent for long; those that were about to leave, soon.
    fn forget_workers(&mut self, now: Millis) {
        let patience = |worker: &Worker| {
            self.rules.lease * if worker.is_draining() { FORGET_LEAVING_AFTER } else { FORGET_WORKER_AFTER }
        };
        let may_be_over =
            |(heard, _): &&(Millis, WorkerId)| now.since(*heard) >= self.rules.lease * FORGET_LEAVING_AFTER;
        let is_over = |(heard, id): &&(Millis, WorkerId)| {
            self.workers.get(id).is_some_and(|worker| now.since(*heard) >= patience(worker))
        };
        let silent: Vec<_> = self.silence.iter().take_while(may_be_over).filter(is_over).cloned().collect();
        for entry in silent {
            if self.workers.get(&entry.1).is_some_and(|worker| worker.running == 0) {
                self.workers.remove(&entry.1);
                self.silence.remove(&entry);
            }
        }
    }

    fn sweep(&mut self, round: &mut Round) {
        for (attempt, target) in self.sweeps.due(round.now) {
            if let Some(plan) = self.jobs.get(&attempt.task.job).and_then(Job::plan) {
                round.act(Action::Sweep { attempt, target, plan: plan.clone() });
            }
        }
    }

    /// Does whatever a stored job was in the middle of.
    fn take_up(&mut self, id: JobId, round: &mut Round) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.state() == JobState::Planning {
            round.act(Action::Plan { job: id, script: job.script().clone() });
        }
        self.commit_decided(id, round);
        self.advance(id, round);
    }

    /// The next part of every task whose commit is decided and in effect.
    fn commit_decided(&self, id: JobId, round: &mut Round) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.commits_now()) else { return };
        for (attempt, _, part) in job.committing() {
            round.commit(attempt, part, job);
        }
    }

    /// Moves a job as far as it can go now.
    fn advance(&mut self, id: JobId, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (before, committed_before) = (job.state(), job.commits_now());
        if let Some(action) = job.advance(round.now.unix) {
            round.act(action);
        }
        let is_over = job.state().is_final() && job.report().is_none();
        if job.state() != before {
            round.touch(Touched::Job(id));
        }
        if !committed_before {
            self.commit_decided(id, round);
        }
        if is_over {
            self.make_report(id, round.now.unix, round);
        }
    }

    /// Lets the oldest ended jobs go when there are many, and the old ones in any case; those with labels still to be
    /// swept stay. Looks for them when a job has ended or a label was closed, and every minute.
    fn forget(&mut self, round: &mut Round) {
        let may_be_more = |touched: &Touched| matches!(touched, Touched::Report(_) | Touched::Sweep(_));
        let is_due = round.now.monotonic >= self.next_look;
        if is_due {
            self.next_look = round.now.monotonic.plus(LOOK_EVERY);
        }
        let are_many = self.jobs.len() > self.rules.keep_jobs && round.touched.iter().any(may_be_more);
        if !is_due && !are_many {
            return;
        }
        let mut ended: Vec<(UnixMillis, JobId)> = self
            .jobs
            .iter()
            .filter(|(id, job)| job.state().is_final() && self.sweeps.labels_of(**id) == 0)
            .filter_map(|(id, job)| Some((job.report()?.finished_at, *id)))
            .collect();
        ended.sort_unstable();
        let many = ended.len().saturating_sub(self.rules.keep_jobs);
        let keep_for = u64::try_from(self.rules.keep_for.as_millis()).unwrap_or(u64::MAX);
        let is_old = |finished_at: UnixMillis| finished_at.0.saturating_add(keep_for) <= round.now.unix.0;
        let leave: Vec<JobId> = (0..)
            .zip(ended)
            .take_while(|(place, (finished_at, _))| *place < many || is_old(*finished_at))
            .map(|(_, (_, id))| id)
            .collect();
        for id in leave {
            if let Some(job) = self.jobs.remove(&id) {
                round.forgotten.push((id, job.forgotten()));
            }
        }
    }

    fn make_report(&mut self, id: JobId, finished_at: UnixMillis, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let report = crate::report::make(id, job, self.sweeps.labels_of(id), finished_at);
        job.set_report(Arc::new(report));
        round.touch(Touched::Job(id));
        round.touch(Touched::Report(id));
    }

    /// Something about an ended job has changed: its report says so, with the time at which the job ended.
    fn renew_report(&mut self, id: JobId, round: &mut Round) {
        match self.jobs.get(&id).and_then(Job::report).map(|report| report.finished_at) {
            Some(finished_at) => self.make_report(id, finished_at, round),
            None => round.touch(Touched::Job(id)),
        }
    }

    fn finish_round(&mut self, round: Round) -> Turn {
        self.note_moves(&round);
        let changes = round.touched.into_iter().filter_map(|touched| self.change(touched));
        let forgotten = round.forgotten.into_iter().map(|(id, job)| Change::Forgotten(id, Arc::new(job)));
        Turn { changes: changes.chain(forgotten).collect(), actions: round.actions }
    }

    /// A task that was only granted or handed back has not brought its job further.
    fn note_moves(&mut self, round: &Round) {
        for touched in &round.touched {
            let id = match touched {
                Touched::Job(id) | Touched::Plan(id) => *id,
                Touched::Task(key) => {
                    let task = self.jobs.get(&key.job).and_then(|job| job.find_task(key.task));
                    let is_idle =
                        |task: &TaskRecord| matches!(task.standing, Standing::Waiting | Standing::Running);
                    if task.is_none_or(is_idle) {
                        continue;
                    }
                    key.job
                }
                _ => continue,
            };
            if self.jobs.get(&id).is_some_and(|job| !job.state().is_final()) {
                self.moved.insert(id, round.now.monotonic);
            } else {
                self.moved.remove(&id);
            }
        }
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
            Touched::Report(id) => match self.jobs.get(&id)?.report() {
                Some(report) => Change::Report(id, report.clone()),
                None => Change::NoReport(id),
            },
            Touched::BadRows(task) => {
                Change::BadRows(task, self.jobs.get(&task.job)?.bad_rows().get(&task.task)?.clone())
            }
        })
    }
}

/// Between two looks for ended jobs that are too old to be kept.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A worker that holds nothing is forgotten when it was silent for so many lease terms.
const FORGET_WORKER_AFTER: u32 = 20;
/// The same for one that was draining: it has most likely left.
const FORGET_LEAVING_AFTER: u32 = 2;

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
