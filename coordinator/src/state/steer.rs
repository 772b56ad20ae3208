//! What people ask of a running system: cancel, pause, resume, resolve, drain. Each is decided at once and answered
//! with what it led to, or refused with the reason; asking twice is harmless.

use starlift_common::ids::{JobId, TaskKey, WorkerId};
use starlift_common::problem::{Code, Problem};
use starlift_common::task::AttemptKey;

use super::event::{Answer, Resolution, Ticket};
use super::job::Job;
use super::round::{Round, Touched};
use super::{State, unknown_job};
use crate::record::{Ending, Standing};

impl State {
    pub(super) fn cancel(&mut self, ticket: Ticket, id: JobId, round: &mut Round) {
        let answer = self.job(id).map(|job| job.state().is_final()).ok_or_else(|| unknown_job(id));
        if answer == Ok(false) {
            self.end_job(id, Ending::Cancelled, round);
        }
        round.answer(ticket, answered(answer.map(|_| ())));
    }

    pub(super) fn pause(&mut self, ticket: Ticket, id: JobId, round: &mut Round) {
        let paused = self.jobs.get_mut(&id).ok_or_else(|| unknown_job(id)).and_then(|job| {
            if job.state().is_final() || job.ending().is_some() {
                return Err(wrong_state(id, job, "it cannot be paused any more"));
            }
            job.pause(None);
            Ok(())
        });
        if paused.is_ok() {
            round.touch(Touched::Job(id));
        }
        round.answer(ticket, answered(paused));
    }

    /// A paused job goes on where it stands; a failed one with its unfinished tasks and statements. What was completed
    /// is not done again.
    pub(super) fn resume(&mut self, ticket: Ticket, id: JobId, round: &mut Round) {
        let resumed = self.jobs.get_mut(&id).ok_or_else(|| unknown_job(id)).and_then(|job| {
            let touched = job.resume(round.now.unix).map_err(|why| wrong_state(id, job, &why))?;
            for task in touched {
                round.touch(Touched::Task(TaskKey { job: id, task }));
            }
            round.touch(Touched::Job(id));
            round.touch(Touched::Report(id));
            Ok(())
        });
        if resumed.is_ok() {
            if self.job(id).is_some_and(Job::is_plain) {
                // All attempts of a plain load have one label, which the next one needs.
                for attempt in self.sweeps.drop_job(id) {
                    round.touch(Touched::Sweep(attempt));
                }
            }
            self.advance(id, round);
        }
        round.answer(ticket, answered(resumed));
    }

    /// Takes a human's word for what the server cannot tell any more. The job goes on by `resume`.
    pub(super) fn resolve(
        &mut self,
        ticket: Ticket,
        task: TaskKey,
        resolution: Resolution,
        reason: &str,
        round: &mut Round,
    ) {
        let resolved = self.settle_by_hand(task, resolution, reason, round);
        round.answer(ticket, answered(resolved));
    }

    fn settle_by_hand(
        &mut self,
        task: TaskKey,
        resolution: Resolution,
        reason: &str,
        round: &mut Round,
    ) -> Result<(), Problem> {
        let id = task.job;
        let job = self.jobs.get_mut(&id).ok_or_else(|| unknown_job(id))?;
        let unknown = || {
            Problem::new(Code::UnknownTask, format!("job {id} has no task {}", task.task))
                .hint(format!("`starlift tasks {id}` lists them"))
        };
        let record = job.find_task(task.task).ok_or_else(unknown)?;
        let attempt = AttemptKey { task, epoch: record.epoch };
        let word = match resolution {
            Resolution::Committed => "committed",
            Resolution::Redo => "to be loaded again",
        };
        let note = format!("task {} counts as {word}, by hand: {}", task.task, reason.trim());
        let Standing::Undecided { prepared, committed, rolled_back } = record.standing.clone() else {
            if job.record().warnings.contains(&note) {
                return Ok(()); // said before; only the answer was lost
            }
            return Err(wrong_state(id, job, &format!("task {} has nothing to resolve", task.task)));
        };
        if reason.trim().is_empty() {
            return Err(Problem::new(Code::InvalidSettings, "a resolution needs its reason, for the record"));
        }
        if resolution == Resolution::Committed && rolled_back {
            let why = "StarRocks says that the transaction in question was rolled back, so it cannot count as committed";
            return Err(wrong_state(id, job, why));
        }
        job.warn(note);
        match resolution {
            Resolution::Committed => self.part_committed(attempt, prepared, committed, round),
            Resolution::Redo => {
                job.forget_failures(task.task);
                let leftover = self.prepared_leftover(attempt, &prepared, committed);
                self.give_up_decision(attempt, leftover, round);
            }
        }
        round.touch(Touched::Job(id));
        self.renew_report(id, round);
        Ok(())
    }

    pub(super) fn drain(&mut self, ticket: Ticket, id: &WorkerId, round: &mut Round) {
        let drained = match self.workers.get_mut(id) {
            Some(worker) => {
                worker.told_to_drain = true;
                self.send_away(id, round);
                Ok(())
            }
            None => Err(Problem::new(Code::UnknownWorker, format!("no worker {id} was heard of lately"))
                .hint("`starlift workers` lists them")),
        };
        round.answer(ticket, answered(drained));
    }
}

fn answered(result: Result<(), Problem>) -> Answer {
    result.map_or_else(Answer::Refused, |()| Answer::Accepted)
}

fn wrong_state(id: JobId, job: &Job, why: &str) -> Problem {
    Problem::new(Code::WrongState, format!("job {id} is {}: {why}", job.shown_state()))
        .hint(format!("`starlift status {id}` tells how it stands"))
}
