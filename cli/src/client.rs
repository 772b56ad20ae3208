//! Speaks to the coordinators: to the one that leads, wherever in the list it is, and again after it was lost.

use std::time::Duration;

use starlift_common::problem::{Code, Problem};
use starlift_common::wire;
use starlift_link::dial::{Dialer, Link};
use starlift_proto as pb;
use starlift_proto::admin_service_client::AdminServiceClient;
use tokio::time::{Instant, sleep};
use tonic::{Code as GrpcCode, Response, Status, Streaming};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for a leader while there are coordinators of which none leads.
const NO_LEADER_FOR: Duration = Duration::from_secs(20);
/// How long a watched job may be out of sight: a coordinator may be restarting.
const LOST_FOR: Duration = Duration::from_secs(60);
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Reports of jobs with many tasks and warnings.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
const TASKS_PER_PAGE: u32 = 5000;
/// Names the leader's URL in an answer of `UNAVAILABLE`; empty when it is not known.
const LEADER: &str = "starlift-leader";

type Admin = AdminServiceClient<Link>;

/// One connection, made anew when it is lost.
pub(crate) struct Client {
    urls: Vec<String>,
    /// The URL it is connected to, which a coordinator may have named that no flag names.
    url: String,
    admin: Admin,
    dialer: Dialer,
}

impl Client {
    pub(crate) async fn connect(urls: &[String], dialer: Dialer) -> Result<Self, Problem> {
        let (url, admin) = first_reachable(&dialer, urls, "").await?;
        Ok(Self { urls: urls.to_vec(), url, admin, dialer })
    }

    pub(crate) async fn submit(&mut self, request: pb::SubmitRequest) -> Result<pb::JobStatus, Problem> {
        let reply = self.call(request, async |mut admin, request| admin.submit(request).await).await?;
        reply.job.ok_or_else(|| {
            Problem::new(Code::Internal, "the coordinator accepted the job without saying how it is")
        })
    }

    pub(crate) async fn jobs(&mut self) -> Result<Vec<pb::JobSummary>, Problem> {
        let request = pb::ListJobsRequest {};
        Ok(self.call(request, async |mut admin, request| admin.list_jobs(request).await).await?.jobs)
    }

    pub(crate) async fn job(&mut self, job_id: &str) -> Result<pb::JobStatus, Problem> {
        let request = pb::GetJobRequest { job_id: job_id.into() };
        self.call(request, async |mut admin, request| admin.get_job(request).await).await
    }

    /// All tasks, page by page.
    pub(crate) async fn tasks(&mut self, job_id: &str) -> Result<Vec<pb::TaskStatus>, Problem> {
        let mut tasks = Vec::new();
        loop {
            let offset = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
            let request = pb::ListTasksRequest { job_id: job_id.into(), offset, limit: TASKS_PER_PAGE };
            let page = self.call(request, async |mut admin, request| admin.list_tasks(request).await).await?;
            let is_last = page.tasks.is_empty();
            tasks.extend(page.tasks);
            if is_last || tasks.len() >= page.total as usize {
                return Ok(tasks);
            }
        }
    }

    pub(crate) async fn report(&mut self, job_id: &str) -> Result<pb::FinalReport, Problem> {
        let request = pb::GetReportRequest { job_id: job_id.into() };
        self.call(request, async |mut admin, request| admin.get_report(request).await).await
    }

    pub(crate) async fn workers(&mut self) -> Result<Vec<pb::WorkerStatus>, Problem> {
        let request = pb::ListWorkersRequest {};
        Ok(self.call(request, async |mut admin, request| admin.list_workers(request).await).await?.workers)
    }

    pub(crate) async fn cancel(&mut self, job_id: &str) -> Result<pb::JobStatus, Problem> {
        let request = pb::CancelJobRequest { job_id: job_id.into() };
        self.call(request, async |mut admin, request| admin.cancel_job(request).await).await
    }

    pub(crate) async fn pause(&mut self, job_id: &str) -> Result<pb::JobStatus, Problem> {
        let request = pb::PauseJobRequest { job_id: job_id.into() };
        self.call(request, async |mut admin, request| admin.pause_job(request).await).await
    }

    pub(crate) async fn resume(&mut self, job_id: &str) -> Result<pb::JobStatus, Problem> {
        let request = pb::ResumeJobRequest { job_id: job_id.into() };
        self.call(request, async |mut admin, request| admin.resume_job(request).await).await
    }

    pub(crate) async fn resolve(
        &mut self,
        request: pb::ResolveTaskRequest,
    ) -> Result<pb::JobStatus, Problem> {
        self.call(request, async |mut admin, request| admin.resolve_task(request).await).await
    }

    pub(crate) async fn drain(&mut self, worker_id: &str) -> Result<pb::WorkerStatus, Problem> {
        let request = pb::DrainWorkerRequest { worker_id: worker_id.into() };
        self.call(request, async |mut admin, request| admin.drain_worker(request).await).await
    }

    /// Waits for every worker, but no longer than `wait`.
    pub(crate) async fn check(&mut self, script: String, wait: Duration) -> Result<pb::CheckReply, Problem> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = pb::CheckRequest { script, wait_ms };
        self.call(request, async |mut admin, request| admin.check(request).await).await
    }

    /// Follows a job to its final state and answers its report; `show` sees every status on the way. Goes on over a
    /// coordinator that is away for less than a minute.
    pub(crate) async fn follow(
        &mut self,
        job_id: &str,
        interval: Duration,
        mut show: impl FnMut(&pb::JobStatus),
    ) -> Result<pb::FinalReport, Problem> {
        let mut seen = Instant::now();
        loop {
            let lost = match self.watch(job_id, interval).await {
                Ok(mut stream) => loop {
                    match stream.message().await {
                        Ok(Some(status)) => {
                            seen = Instant::now();
                            show(&status);
                            if is_final(&status.state) {
                                return self.report(job_id).await;
                            }
                        }
                        Ok(None) => break Problem::new(Code::NoCoordinator, "the coordinator has left"),
                        Err(status) => break explain(&status),
                    }
                },
                Err(problem) => problem,
            };
            if lost.code != Code::NoCoordinator || seen.elapsed() > LOST_FOR {
                return Err(lost);
            }
            sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn watch(&mut self, job_id: &str, interval: Duration) -> Result<Streaming<pb::JobStatus>, Problem> {
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let request = pb::WatchJobRequest { job_id: job_id.into(), interval_ms };
        self.call(request, async |mut admin, request| admin.watch_job(request).await).await
    }

    /// Calls the leader: goes on to the one that is named, or to the next address that answers. Every call may be
    /// repeated: a submission carries its job's id, and what is asked of a job is asked of its state.
    async fn call<Q: Clone, A>(
        &mut self,
        request: Q,
        call: impl AsyncFn(Admin, Q) -> Result<Response<A>, Status>,
    ) -> Result<A, Problem> {
        let began = Instant::now();
        let mut tried = 0;
        loop {
            let status = match call(self.admin.clone(), request.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let problem = explain(&status);
            if problem.code != Code::NoCoordinator {
                return Err(problem);
            }
            tried += 1;
            let leader = leader_named_by(&status);
            let is_follower = leader.is_some();
            match leader.filter(|leader| !leader.is_empty() && *leader != self.url) {
                // A leader that has just died may still be named.
                Some(leader) => {
                    if let Ok(link) = self.dialer.connect(&leader, CONNECT_TIMEOUT).await {
                        (self.url, self.admin) = (leader, admin(link));
                    } else {
                        (self.url, self.admin) = first_reachable(&self.dialer, &self.urls, &self.url).await?;
                    }
                }
                None => (self.url, self.admin) = first_reachable(&self.dialer, &self.urls, &self.url).await?,
            }
            // Without a follower's word nobody says that there will be a leader.
            if began.elapsed() > NO_LEADER_FOR || (!is_follower && tried > self.urls.len()) {
                return Err(problem);
            }
            if tried > 1 {
                sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}

/// Connects to the first address after `last` that can be reached, or to `last` itself in the end.
async fn first_reachable(dialer: &Dialer, urls: &[String], last: &str) -> Result<(String, Admin), Problem> {
    let mut failure = Problem::new(Code::NoCoordinator, "no coordinator address is given");
    let start = urls.iter().position(|url| url == last).map_or(0, |position| position + 1);
    for url in urls.iter().cycle().skip(start).take(urls.len()) {
        match dialer.connect(url, CONNECT_TIMEOUT).await {
            Ok(link) => return Ok((url.clone(), admin(link))),
            Err(problem) => failure = problem,
        }
    }
    Err(failure)
}

fn admin(link: Link) -> Admin {
    AdminServiceClient::new(link).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// `Some` when the call met a coordinator that does not lead; empty when it knows no leader either.
fn leader_named_by(status: &Status) -> Option<String> {
    status.metadata().get(LEADER)?.to_str().ok().map(str::to_owned)
}

fn is_final(state: &str) -> bool {
    matches!(state, "SUCCEEDED" | "FAILED" | "CANCELLED")
}

/// What a refused call means: the coordinator's own problem where it sent one.
fn explain(status: &Status) -> Problem {
    if let Some(problem) = wire::problem_of_status(status.details()) {
        return problem;
    }
    let code = match status.code() {
        GrpcCode::NotFound => Code::UnknownJob,
        GrpcCode::InvalidArgument | GrpcCode::AlreadyExists | GrpcCode::FailedPrecondition => {
            Code::InvalidScript
        }
        GrpcCode::Unavailable | GrpcCode::Unknown | GrpcCode::Cancelled => Code::NoCoordinator,
        GrpcCode::Unimplemented => {
            let problem = Problem::new(Code::Unsupported, "the coordinator is too old to know this command");
            return problem.hint("bring all coordinators to the version of this command line");
        }
        _ => Code::Internal,
    };
    let causes = std::error::Error::source(status).map(starlift_link::causes);
    let message = causes
        .map_or_else(|| status.message().to_owned(), |causes| format!("{}: {causes}", status.message()));
    Problem::new(code, message)
}
