//! Carries out what the state has decided: starts the right effect, bounds how many run at once, and tells the state
//! how it ended. Decides nothing; when it is dropped, everything it has started stops.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use starlift_common::datasource::LiveDatasources;
use starlift_common::ids::JobId;
use starlift_common::job::LoadSpec;
use starlift_common::problem::{Code, Problem};
use starlift_remote::starrocks::client::Client;
use starlift_remote::starrocks::clients::Clients;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, error_span, warn};

use crate::commit;
use crate::driver::Handle;
use crate::state::{Action, Event};
use crate::{statements, sweep};

/// Commits at once into one table: each makes the leader FE publish a version.
const COMMITS_PER_TABLE: usize = 8;

/// Dead epochs looked at once, over all jobs.
const SWEEPS: usize = 8;

pub(crate) struct Performer {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    /// The statements that run, by job.
    statements: BTreeMap<JobId, CancellationToken>,
}

/// Data source, database and table.
type TableKey = (String, String, String);

struct Shared {
    handle: Handle,
    datasources: LiveDatasources,
    clients: Clients,
    commits: Mutex<BTreeMap<TableKey, Arc<Semaphore>>>,
    sweeps: Semaphore,
}

impl Performer {
    pub(crate) fn new(handle: Handle, datasources: LiveDatasources) -> Self {
        let shared = Shared {
            handle,
            clients: Clients::new(datasources.clone()),
            datasources,
            commits: Mutex::default(),
            sweeps: Semaphore::new(SWEEPS),
        };
        Self { shared: Arc::new(shared), tasks: JoinSet::new(), statements: BTreeMap::new() }
    }

    /// Starts the effect of one action; never waits.
    pub(crate) fn perform(&mut self, action: Action) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                error!(%error, "an effect ended without telling; it is begun again at the next start");
            }
        }
        let shared = self.shared.clone();
        match action {
            Action::Answer { .. } => {}
            Action::Plan { job, script } => {
                self.spawn(job, async move {
                    let result = crate::plan_script(&script, job, &shared.datasources.now()).await;
                    shared.tell(Event::Planned { job, result: result.map(Box::new) }).await;
                });
            }
            Action::RunStatement { job, stage, index, plan, in_flight } => {
                let stop = CancellationToken::new();
                self.statements.insert(job, stop.clone());
                self.spawn(job, async move {
                    let statement = statements::Statement { job, stage, index, plan: &plan };
                    let datasources = shared.datasources.now();
                    let running = statements::run(&statement, in_flight, &datasources, &shared.handle, &stop);
                    shared.tell(running.await).await;
                });
            }
            Action::StopStatement { job } => {
                if let Some(stop) = self.statements.remove(&job) {
                    stop.cancel();
                }
            }
            Action::KillStatement { job, plan, in_flight } => self.spawn(job, async move {
                let killed =
                    statements::make_sure_it_is_gone(&plan, &in_flight, &shared.datasources.now()).await;
                shared
                    .tell(match killed {
                        Ok(()) => {
                            let stopped =
                                Problem::new(Code::Cancelled, "the statement was stopped with its job");
                            Event::StatementDone { job, result: Err(stopped) }
                        }
                        Err(problem) => {
                            warn!(error = %problem, "a statement of an ended job could not be stopped");
                            Event::StatementStuck { job, problem }
                        }
                    })
                    .await;
            }),
            Action::Commit { attempt, part, label, plan } => self.spawn(attempt.task.job, async move {
                let gate = shared.commit_gate(&plan.load);
                let Ok(_permit) = gate.acquire().await else { return };
                // Many may wait at the gate: what the call itself needs is made behind it.
                let call = async {
                    let client = shared.client(&plan.load).await;
                    let notice = |problem, in_distress| {
                        shared.handle.mention(Event::CommitDelayed { attempt, problem, in_distress });
                    };
                    let verdict = commit::carry_out(&client, &plan.load, &label, &notice).await;
                    shared.tell(Event::Committed { attempt, part, verdict }).await;
                };
                Box::pin(call).await;
            }),
            Action::Sweep { attempt, target, plan } => self.spawn(attempt.task.job, async move {
                let Ok(_permit) = shared.sweeps.acquire().await else { return };
                let look = async {
                    let client = shared.client(&plan.load).await;
                    let fates = sweep::carry_out(&client, &plan.load, attempt, target).await;
                    shared.tell(Event::Swept { attempt, fates }).await;
                };
                Box::pin(look).await;
            }),
        }
    }

    /// Ends everything that runs, and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    fn spawn(&mut self, job: JobId, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work.instrument(error_span!("job", job_id = %job)));
    }
}

impl Shared {
    async fn tell(&self, event: Event) {
        // A stopped loop has saved what was decided; the next start carries it out again.
        let _ = self.handle.tell(event).await;
    }

    /// The client for a target. A decided commit has no way back, so a client that cannot be made now is tried again.
    async fn client(&self, load: &LoadSpec) -> Arc<Client> {
        loop {
            match self.clients.get(load) {
                Ok(client) => return client,
                Err(problem) => warn!(error = %problem, "the target cannot be reached yet"),
            }
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        }
    }

    fn commit_gate(&self, load: &LoadSpec) -> Arc<Semaphore> {
        let key = (load.datasource.clone(), load.database.clone(), load.table.clone());
        let mut gates = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        gates.entry(key).or_insert_with(|| Arc::new(Semaphore::new(COMMITS_PER_TABLE))).clone()
    }
}
