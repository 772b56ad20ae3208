//! The state directory of `starlift run` while no process uses it: what its journal says of a job, and a human's word
//! added to it. Contacts nothing and starts nothing; the next `starlift run` there acts upon what it finds.

use std::path::Path;
use std::time::Duration;

use starlift_common::ids::{InvalidJobId, JobId, TaskId, TaskKey};
use starlift_common::problem::{Code, Problem};
use starlift_coordinator::Config;
use starlift_coordinator::clock::{Millis, Now, UnixMillis, whole_millis};
use starlift_coordinator::report::{self, TaskFilter};
use starlift_coordinator::state::{Action, Answer, Event, Resolution, Rules, State, Ticket, unknown_job};
use starlift_coordinator::store::file::FileStore;
use starlift_coordinator::store::{self, StoreError};
use starlift_proto as pb;

use crate::run;

/// Locks the directory while it is open.
pub(crate) struct Journal {
    store: FileStore,
    state: State,
    now: Now,
}

impl Journal {
    /// Opens what a `starlift run` has left; nothing is made where there is nothing.
    pub(crate) async fn open(directory: &Path, unix: Duration) -> Result<Self, Problem> {
        if run::remembered(directory)?.is_none() {
            return Err(Problem::new(Code::InvalidSettings, "no `starlift run` has kept a job there")
                .at(directory.display().to_string())
                .hint("give the directory that the run was given with --state"));
        }
        let failed = |error: StoreError| error.problem();
        let store = FileStore::open(directory).map_err(failed)?;
        let journal = store::load(&store).await.map_err(failed)?;
        let rules = Rules::new(Config::DEFAULT_LEASE, Config::DEFAULT_ATTEMPTS);
        let now = Now { monotonic: Millis::default(), unix: UnixMillis(whole_millis(unix)) };
        // What would have to be done next is left to the next run, and so are the changes that go with it.
        let (state, _) = State::restore(rules, journal, now);
        Ok(Self { store, state, now })
    }

    pub(crate) fn job(&self, job_id: &str) -> Result<pb::JobStatus, Problem> {
        let id = parse(job_id)?;
        report::status(&self.state, id, self.now).ok_or_else(|| unknown(id))
    }

    pub(crate) fn tasks(&self, job_id: &str) -> Result<Vec<pb::TaskStatus>, Problem> {
        let id = parse(job_id)?;
        let reply = report::tasks(
            &self.state,
            id,
            &TaskFilter { limit: usize::MAX, ..TaskFilter::default() },
            self.now,
        );
        reply.map(|reply| reply.tasks).ok_or_else(|| unknown(id))
    }

    pub(crate) fn report(&self, job_id: &str) -> Result<pb::FinalReport, Problem> {
        let id = parse(job_id)?;
        report::of(&self.state, id).ok_or_else(|| unknown(id))?.ok_or_else(|| {
            Problem::new(Code::JobNotEnded, format!("job {id} has not ended yet"))
                .hint("the same `starlift run` again goes on with it")
        })
    }

    /// Adds the answer to the journal, and says how the job stands with it.
    pub(crate) async fn resolve(
        &mut self,
        job_id: &str,
        task_id: u32,
        resolution: Resolution,
        reason: String,
    ) -> Result<pb::JobStatus, Problem> {
        let job = parse(job_id)?;
        let task = TaskKey { job, task: TaskId(task_id) };
        let event = Event::Resolve { ticket: Ticket(0), task, resolution, reason };
        let turn = self.state.apply(vec![event], self.now);
        for action in turn.actions {
            if let Action::Answer { answer: Answer::Refused(problem), .. } = action {
                return Err(problem);
            }
        }
        store::save(&self.store, &turn.changes).await.map_err(|error| error.problem())?;
        self.job(job_id)
    }
}

fn parse(job_id: &str) -> Result<JobId, Problem> {
    job_id.parse().map_err(|error: InvalidJobId| Problem::new(Code::UnknownJob, error.to_string()))
}

fn unknown(id: JobId) -> Problem {
    unknown_job(id).hint("the directory holds other jobs; give the one that the job was run with")
}
