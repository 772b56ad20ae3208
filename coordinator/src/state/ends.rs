//! How attempts end, and what follows for their tasks: prepared and decided, failed and tried again, given up. A word
//! under a dead epoch changes nothing but what is left to sweep.

use std::time::Duration;

use starlift_common::ids::{JobId, WorkerId};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::FailureClass;
use starlift_common::task::{AttemptKey, BadRow, LabelsBegun, Outcome, Prepared};

use super::State;
use super::event::{Answer, Ticket};
use super::job::{self, Job};
use super::round::{Round, Touched};
use crate::commit::Verdict;
use crate::record::{Standing, SweepRecord};
use crate::sweep::Fates;

/// What a dead epoch may have left open at the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leftover {
    pub(super) begun: LabelsBegun,
    pub(super) first_part: u32,
    /// The worker does nothing more under the epoch.
    pub(super) stopped: bool,
}

impl Leftover {
    pub(super) fn of_lost(begun: LabelsBegun) -> Self {
        Self { begun, first_part: 0, stopped: false }
    }

    /// A worker that reports has stopped; nothing is left when nothing was begun or all of it was rolled back.
    fn of_report(begun: LabelsBegun, all_rolled_back: bool) -> Option<Self> {
        (!begun.is_none() && !all_rolled_back).then_some(Self { begun, first_part: 0, stopped: true })
    }

    /// The prepared parts from `first` on, counted as in the report.
    fn of_prepared(prefix: &str, attempt: AttemptKey, prepared: &Prepared, first: u32) -> Self {
        let number = |index: u32| {
            let part = prepared.parts.get(index as usize)?;
            Label::part_number(prefix, attempt, &part.label)
        };
        let parts = part_count(prepared).checked_sub(1).and_then(number).map_or(0, |last| last + 1);
        let first_part = if first == 0 { 0 } else { number(first).unwrap_or(parts) };
        Self { begun: LabelsBegun { parts, trials: 0 }, first_part, stopped: true }
    }
}

pub(super) struct EndedLease {
    worker: WorkerId,
    held: Duration,
}

impl State {
    pub(super) fn report(
        &mut self,
        ticket: Ticket,
        attempt: AttemptKey,
        outcome: Outcome,
        round: &mut Round,
    ) {
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
            Outcome::Prepared { prepared, bad_rows } => match self.verify(attempt, &prepared) {
                Ok(()) => self.prepared(attempt, prepared, bad_rows, round),
                Err(problem) => {
                    let leftover = self.prepared_leftover(attempt, &prepared, 0);
                    self.attempt_failed(attempt, FailureClass::Transient, problem, Some(leftover), round);
                }
            },
            Outcome::Loaded { prepared, counted } => self.loaded(attempt, prepared, counted, round),
            Outcome::Failed { class, problem, begun, all_rolled_back } => {
                let leftover = Leftover::of_report(begun, all_rolled_back);
                self.attempt_failed(attempt, class, problem, leftover, round);
            }
            Outcome::GivenBack { begun, all_rolled_back } => {
                self.close_epoch(attempt, Leftover::of_report(begun, all_rolled_back), round);
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
            (
                Outcome::Prepared { prepared: shown, .. } | Outcome::Loaded { prepared: shown, .. },
                Some(record),
            ) if record.epoch == attempt.epoch => match &record.standing {
                Standing::Committing { prepared, .. } | Standing::Done { prepared } => prepared == shown,
                _ => false,
            },
            _ => false,
        }
    }

    /// A word under a dead epoch changes no task; it only tells what is left to sweep.
    fn stale_report(&mut self, attempt: AttemptKey, outcome: &Outcome, round: &mut Round) {
        let (begun, all_rolled_back) = match outcome {
            Outcome::Prepared { prepared, .. } => (self.prepared_leftover(attempt, prepared, 0).begun, false),
            // Its label is that of every attempt; the next one asks for it.
            Outcome::Loaded { .. } => return,
            Outcome::Failed { begun, all_rolled_back, .. }
            | Outcome::GivenBack { begun, all_rolled_back } => (*begun, *all_rolled_back),
        };
        if self.sweeps.stopped(attempt, begun, all_rolled_back, round.now.monotonic) {
            round.touch(Touched::Sweep(attempt));
        } else if let Some(leftover) =
            Leftover::of_report(begun, all_rolled_back).filter(|_| self.is_dead(attempt))
        {
            let worker = self.worker_of(attempt);
            self.add_sweep(attempt, worker, leftover, round);
        }
    }

    /// Whether the epoch was granted once and can never be committed any more.
    fn is_dead(&self, attempt: AttemptKey) -> bool {
        let record = self.jobs.get(&attempt.task.job).and_then(|job| job.find_task(attempt.task.task));
        record.is_some_and(|record| match record.standing {
            Standing::Waiting | Standing::Failed => attempt.epoch <= record.epoch,
            Standing::Running
            | Standing::Committing { .. }
            | Standing::Undecided { .. }
            | Standing::Done { .. } => attempt.epoch < record.epoch,
        })
    }

    fn verify(&self, attempt: AttemptKey, prepared: &Prepared) -> Result<(), Problem> {
        crate::commit::verify(self.prefix(attempt), attempt, prepared)
    }

    fn prefix(&self, attempt: AttemptKey) -> &str {
        let plan = self.jobs.get(&attempt.task.job).and_then(Job::plan);
        plan.map_or("", |plan| plan.load.label_prefix.as_str())
    }

    /// What is left when prepared parts, from `first` on, are given up.
    pub(super) fn prepared_leftover(&self, attempt: AttemptKey, prepared: &Prepared, first: u32) -> Leftover {
        Leftover::of_prepared(self.prefix(attempt), attempt, prepared, first)
    }

    fn worker_of(&self, attempt: AttemptKey) -> Option<WorkerId> {
        self.jobs.get(&attempt.task.job).and_then(|job| job.task(attempt.task.task).worker.clone())
    }

    /// The decision to commit. It is saved in this turn's write, and carried out only after it. The error limit comes
    /// first: what would pass it is never committed.
    fn prepared(
        &mut self,
        attempt: AttemptKey,
        prepared: Prepared,
        bad_rows: Vec<BadRow>,
        round: &mut Round,
    ) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let task = attempt.task.task;
        if prepared.dirty_records > 0 && job.keep_bad_rows(task, bad_rows) {
            round.touch(Touched::BadRows(attempt.task));
        }
        if let Err(problem) = job.check_error_limit(&prepared) {
            let leftover = self.prepared_leftover(attempt, &prepared, 0);
            self.attempt_failed(attempt, FailureClass::Permanent, problem, Some(leftover), round);
            return;
        }
        let Some(ended) = self.end_lease(attempt, round) else { return };
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        if let Some(table) = job.table() {
            self.pressure.relief(table, round.now.monotonic);
        }
        let empty = prepared.parts.is_empty();
        job.set_took(task, ended.held);
        job.set_standing(task, Standing::Committing { prepared, committed: 0 });
        if empty {
            self.task_done(attempt, round);
        } else if job.commits_now() {
            round.commit(attempt, 0, job);
        } else if job.note_first_prepared(round.now.unix) {
            round.touch(Touched::Job(attempt.task.job));
        }
        self.advance(attempt.task.job, round);
    }

    /// Plain mode: the worker's request was the commit.
    fn loaded(&mut self, attempt: AttemptKey, prepared: Prepared, counted: bool, round: &mut Round) {
        let Some(ended) = self.end_lease(attempt, round) else { return };
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let task = attempt.task.task;
        job.set_took(task, ended.held);
        if !counted {
            job.warn(format!(
                "task {task} was found loaded by an earlier attempt; its rows are in the target and in none of these counts"
            ));
            round.touch(Touched::Job(attempt.task.job));
        }
        job.set_standing(task, Standing::Committing { prepared, committed: 0 });
        self.task_done(attempt, round);
        self.advance(attempt.task.job, round);
    }

    pub(super) fn committed(&mut self, attempt: AttemptKey, part: u32, verdict: Verdict, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let record = job.task(attempt.task.task);
        let Standing::Committing { prepared, committed } = &record.standing else { return };
        if record.epoch != attempt.epoch || *committed != part {
            return; // an answer that was acted upon before
        }
        let (prepared, committed) = (prepared.clone(), *committed);
        let is_reported = job.report().is_some();
        match verdict {
            Verdict::Committed => self.part_committed(attempt, prepared, committed, round),
            Verdict::Aborted { reason } if committed == 0 => {
                let problem = crate::commit::aborted(attempt, part, &prepared, &reason);
                let leftover = self.prepared_leftover(attempt, &prepared, 0);
                self.reopen(attempt, &problem, leftover, round);
            }
            Verdict::Aborted { reason } => {
                let problem = crate::commit::partly_aborted(job.facts(attempt), part, &prepared, &reason);
                let standing = Standing::Undecided { prepared, committed, rolled_back: true };
                self.task_stopped(attempt, standing, problem, round);
            }
            Verdict::Unknown => {
                let problem = crate::commit::unknown(job.facts(attempt), part, &prepared);
                let standing = Standing::Undecided { prepared, committed, rolled_back: false };
                self.task_stopped(attempt, standing, problem, round);
            }
        }
        self.advance(attempt.task.job, round);
        if is_reported {
            // A task that was settled by hand after the job's end: its further parts belong into the report.
            self.renew_report(attempt.task.job, round);
        }
    }

    /// One more part is in the target; the next one follows.
    pub(super) fn part_committed(
        &mut self,
        attempt: AttemptKey,
        prepared: Prepared,
        committed: u32,
        round: &mut Round,
    ) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
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

    /// Shown while it lasts, and kept nowhere.
    pub(super) fn commit_delayed(
        &mut self,
        attempt: AttemptKey,
        problem: Problem,
        in_distress: bool,
        round: &mut Round,
    ) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        if let Some(table) = job.table().filter(|_| in_distress) {
            self.counters.failures_distress += 1;
            self.pressure.distress(table, round.now.monotonic);
        }
        let waits = job.find_task(attempt.task.task).is_some_and(|record| {
            record.epoch == attempt.epoch && matches!(record.standing, Standing::Committing { .. })
        });
        if waits {
            job.note_problem(attempt.task.task, problem);
        }
    }

    pub(super) fn swept(&mut self, attempt: AttemptKey, fates: &Fates, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let lifetime = job.lifetime(attempt.task.task);
        round.touch(Touched::Sweep(attempt));
        let Some(foreign) = self.sweeps.settle(attempt, fates, lifetime, self.rules.late_begin, round.now)
        else {
            return;
        };
        let id = attempt.task.job;
        if job.is_plain() {
            job.warn(format!(
                "task {} ended up in the target although its job had been ended: its only load was already on its way",
                attempt.task.task
            ));
            self.renew_report(id, round);
        } else {
            let problem = crate::sweep::foreign_commit(job.facts(attempt), foreign);
            job.warn(problem.to_string());
            self.renew_report(id, round);
            self.fail_job(id, problem, round);
        }
    }

    /// One attempt is over and has not prepared everything.
    pub(super) fn attempt_failed(
        &mut self,
        attempt: AttemptKey,
        class: FailureClass,
        problem: Problem,
        leftover: Option<Leftover>,
        round: &mut Round,
    ) {
        let now = round.now.monotonic;
        if class == FailureClass::Distress
            && let Some(table) = self.jobs.get(&attempt.task.job).and_then(Job::table)
        {
            // Before the attempt ends: it counts among those that were too many.
            self.pressure.distress(table, now);
        }
        self.close_epoch(attempt, leftover, round);
        let attempts = self.rules.attempts;
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let task = attempt.task.task;
        match class {
            FailureClass::Distress => {
                self.counters.failures_distress += 1;
                let delay = job.note_distress(attempt, problem);
                job.requeue(task, Some(now.plus(delay)));
            }
            FailureClass::Transient | FailureClass::Unknown => {
                match class {
                    FailureClass::Unknown => self.counters.failures_unknown += 1,
                    _ => self.counters.failures_transient += 1,
                }
                let failures = job.note_failure(task, problem.clone());
                if failures >= attempts {
                    let problem = job::spent(attempt, failures, &problem);
                    self.task_stopped(attempt, Standing::Failed, problem, round);
                } else {
                    let delay = job::retry_delay(attempt, failures);
                    job.requeue(task, Some(now.plus(delay)));
                }
            }
            FailureClass::Permanent => {
                self.counters.failures_permanent += 1;
                job.note_failure(task, problem.clone());
                self.task_stopped(attempt, Standing::Failed, problem, round);
            }
        }
    }

    /// The server gave the decided transaction up before anything of the task was committed: a new attempt may load it.
    fn reopen(&mut self, attempt: AttemptKey, problem: &Problem, leftover: Leftover, round: &mut Round) {
        self.counters.failures_transient += 1;
        self.give_up_decision(attempt, leftover, round);
        let attempts = self.rules.attempts;
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let failures = job.note_failure(attempt.task.task, problem.clone());
        if failures >= attempts {
            self.task_stopped(attempt, Standing::Failed, job::spent(attempt, failures, problem), round);
        } else {
            let due = round.now.monotonic.plus(job::retry_delay(attempt, failures));
            job.requeue(attempt.task.task, Some(due));
        }
    }

    /// Nothing of the attempt is or will be committed: the task waits again, and its labels are swept.
    pub(super) fn give_up_decision(&mut self, attempt: AttemptKey, leftover: Leftover, round: &mut Round) {
        let worker = self.worker_of(attempt);
        self.add_sweep(attempt, worker, leftover, round);
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            job.set_standing(attempt.task.task, Standing::Waiting);
            round.touch(Touched::Task(attempt.task));
        }
    }

    /// A plain load of a task that failed or was lost may still be on its way when the job ends.
    pub(super) fn sweep_plain_loads(&mut self, id: JobId, round: &mut Round) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.is_plain()) else { return };
        let leftover = Leftover { begun: LabelsBegun { parts: 1, trials: 0 }, first_part: 0, stopped: true };
        for attempt in job.attempted() {
            if self.sweeps.get(attempt).is_none() {
                self.add_sweep(attempt, self.worker_of(attempt), leftover, round);
            }
        }
    }

    /// Everything that is prepared and not to be committed before the whole job: given up with the job.
    pub(super) fn give_up_prepared(&mut self, id: JobId, round: &mut Round) {
        let Some(job) = self.jobs.get(&id).filter(|job| !job.commits_now()) else { return };
        let given_up: Vec<(AttemptKey, Leftover)> = job
            .committing()
            .map(|(attempt, prepared, _)| (attempt, self.prepared_leftover(attempt, prepared, 0)))
            .collect();
        for (attempt, leftover) in given_up {
            self.give_up_decision(attempt, leftover, round);
        }
    }

    pub(super) fn task_done(&mut self, attempt: AttemptKey, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        let task = attempt.task.task;
        let Standing::Committing { prepared, .. } = job.task(task).standing.clone() else { return };
        let rows: u64 = prepared.parts.iter().map(|part| part.rows_loaded).sum();
        let bytes: u64 = prepared.parts.iter().map(|part| part.bytes_sent).sum();
        self.counters.rows_read += prepared.rows_read;
        self.counters.bytes_read += prepared.bytes_read;
        self.counters.rows_loaded += rows;
        self.counters.bytes_loaded += bytes;
        self.counters.dirty_records += prepared.dirty_records;
        let worker = job.task(task).worker.as_ref().and_then(|worker| self.workers.get_mut(worker));
        if let Some(worker) = worker {
            worker.rows += rows;
            worker.bytes += bytes;
        }
        job.set_standing(task, Standing::Done { prepared });
        round.touch(Touched::Task(attempt.task));
    }

    /// A task that cannot go on stops its job.
    fn task_stopped(&mut self, attempt: AttemptKey, standing: Standing, problem: Problem, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(&attempt.task.job) else { return };
        job.note_problem(attempt.task.task, problem.clone());
        job.set_standing(attempt.task.task, standing);
        round.touch(Touched::Task(attempt.task));
        let place = job.range_text(attempt.task.task);
        let problem = if problem.place.is_empty() { problem.at(place) } else { problem };
        self.fail_job(attempt.task.job, problem, round);
    }

    /// Ends an attempt's right to speak. What it may have left at the server goes onto the sweep list in the same write.
    pub(super) fn close_epoch(&mut self, attempt: AttemptKey, leftover: Option<Leftover>, round: &mut Round) {
        let Some(ended) = self.end_lease(attempt, round) else { return };
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            job.set_standing(attempt.task.task, Standing::Waiting);
            // All attempts of a plain load have one label: the next one must find it as it is.
            if job.is_plain() && job.ending().is_none() {
                return;
            }
        }
        if let Some(leftover) = leftover {
            self.add_sweep(attempt, Some(ended.worker), leftover, round);
        }
    }

    pub(super) fn add_sweep(
        &mut self,
        attempt: AttemptKey,
        worker: Option<WorkerId>,
        leftover: Leftover,
        round: &mut Round,
    ) {
        let record = SweepRecord {
            worker: worker.unwrap_or_default(),
            begun: leftover.begun,
            first_part: leftover.first_part,
            stopped: leftover.stopped,
            closed_at: round.now.unix,
        };
        self.sweeps.add(attempt, record, round.now.monotonic);
        round.touch(Touched::Sweep(attempt));
    }

    pub(super) fn end_lease(&mut self, attempt: AttemptKey, round: &mut Round) -> Option<EndedLease> {
        let lease = self.leases.end(attempt).ok()?;
        self.heard.remove(&attempt);
        if let Some(worker) = self.workers.get_mut(&lease.worker) {
            worker.running = worker.running.saturating_sub(1);
            self.askers.set_load(&lease.worker, worker.running);
        }
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            job.queue_mut().release();
            if let Some(table) = job.table() {
                self.pressure.ended(table);
            }
        }
        round.touch(Touched::Task(attempt.task));
        Some(EndedLease { held: round.now.monotonic.since(lease.granted), worker: lease.worker })
    }

    pub(super) fn expire(&mut self, round: &mut Round) {
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
            let leftover = Leftover::of_lost(lease.begun);
            let problem = Problem::new(
                Code::LeaseExpired,
                format!("worker {} was not heard of for {} s", lease.worker, self.rules.lease.as_secs()),
            )
            .hint("see whether the worker still runs and reaches the coordinator");
            self.attempt_failed(attempt, FailureClass::Transient, problem, Some(leftover), round);
        }
        let too_old: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|(id, job)| Some((*id, job.prepared_too_old(round.now.unix)?)))
            .collect();
        for (id, problem) in too_old {
            self.fail_job(id, problem, round);
        }
    }
}

fn part_count(prepared: &Prepared) -> u32 {
    u32::try_from(prepared.parts.len()).unwrap_or(u32::MAX)
}
