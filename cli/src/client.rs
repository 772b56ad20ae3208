//! Speaks to the coordinators: the first that answers is used, and a lost one is looked for again.

use std::time::Duration;

use starlift_common::problem::{Code, Problem};
use starlift_common::wire;
use starlift_proto as pb;
use starlift_proto::admin_service_client::AdminServiceClient;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code as GrpcCode, Status, Streaming};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a watched job may be out of sight: a coordinator may be restarting.
const LOST_FOR: Duration = Duration::from_secs(60);
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Reports of jobs with many tasks and warnings.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
const TASKS_PER_PAGE: u32 = 5000;

/// One connection, made anew when it is lost.
pub(crate) struct Client {
    urls: Vec<String>,
    admin: AdminServiceClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(urls: &[String]) -> Result<Self, Problem> {
        let mut last = Problem::new(Code::NoCoordinator, "no coordinator address is given");
        for url in urls {
            match connect_to(url).await {
                Ok(channel) => {
                    let admin = AdminServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
                    return Ok(Self { urls: urls.to_vec(), admin });
                }
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    pub(crate) async fn submit(&mut self, request: pb::SubmitRequest) -> Result<pb::JobStatus, Problem> {
        let reply = self.admin.submit(request).await.map_err(|status| explain(&status))?.into_inner();
        reply.job.ok_or_else(|| {
            Problem::new(Code::Internal, "the coordinator accepted the job without saying how it is")
        })
    }

    pub(crate) async fn jobs(&mut self) -> Result<Vec<pb::JobSummary>, Problem> {
        let reply = self.admin.list_jobs(pb::ListJobsRequest {}).await.map_err(|status| explain(&status))?;
        Ok(reply.into_inner().jobs)
    }

    pub(crate) async fn job(&mut self, job_id: &str) -> Result<pb::JobStatus, Problem> {
        let request = pb::GetJobRequest { job_id: job_id.into() };
        Ok(self.admin.get_job(request).await.map_err(|status| explain(&status))?.into_inner())
    }

    /// All tasks, page by page.
    pub(crate) async fn tasks(&mut self, job_id: &str) -> Result<Vec<pb::TaskStatus>, Problem> {
        let mut tasks = Vec::new();
        loop {
            let offset = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
            let request = pb::ListTasksRequest { job_id: job_id.into(), offset, limit: TASKS_PER_PAGE };
            let page = self.admin.list_tasks(request).await.map_err(|status| explain(&status))?.into_inner();
            let is_last = page.tasks.is_empty();
            tasks.extend(page.tasks);
            if is_last || tasks.len() >= page.total as usize {
                return Ok(tasks);
            }
        }
    }

    pub(crate) async fn report(&mut self, job_id: &str) -> Result<pb::FinalReport, Problem> {
        let request = pb::GetReportRequest { job_id: job_id.into() };
        Ok(self.admin.get_report(request).await.map_err(|status| explain(&status))?.into_inner())
    }

    pub(crate) async fn workers(&mut self) -> Result<Vec<pb::WorkerStatus>, Problem> {
        let reply =
            self.admin.list_workers(pb::ListWorkersRequest {}).await.map_err(|status| explain(&status))?;
        Ok(reply.into_inner().workers)
    }

    pub(crate) async fn cancel(&mut self, job_id: &str) -> Result<pb::JobStatus, Problem> {
        let request = pb::CancelJobRequest { job_id: job_id.into() };
        Ok(self.admin.cancel_job(request).await.map_err(|status| explain(&status))?.into_inner())
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
                        }
                        Ok(None) => break None,
                        Err(status) => break Some(explain(&status)),
                    }
                },
                Err(problem) => Some(problem),
            };
            match lost {
                None => return self.report(job_id).await,
                Some(problem) if problem.code != Code::NoCoordinator || seen.elapsed() > LOST_FOR => {
                    return Err(problem);
                }
                Some(_) => sleep(RECONNECT_PAUSE).await,
            }
            if let Ok(again) = Self::connect(&self.urls).await {
                *self = again;
            }
        }
    }

    async fn watch(&mut self, job_id: &str, interval: Duration) -> Result<Streaming<pb::JobStatus>, Problem> {
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let request = pb::WatchJobRequest { job_id: job_id.into(), interval_ms };
        Ok(self.admin.watch_job(request).await.map_err(|status| explain(&status))?.into_inner())
    }
}

async fn connect_to(url: &str) -> Result<Channel, Problem> {
    let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let endpoint = Endpoint::from_shared(with_scheme).map_err(|error| {
        Problem::new(Code::InvalidSettings, format!("`{url}` is not an address: {error}"))
            .hint("write --coordinator http://host:9470")
    })?;
    endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).connect().await.map_err(|error| {
        Problem::new(Code::NoCoordinator, format!("cannot reach the coordinator: {}", innermost(&error)))
            .at(url)
            .hint("start one with `starlift coordinator`, or name it with --coordinator URL; `starlift run` needs none")
    })
}

/// The cause of all causes; the outer ones only say that something went wrong.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
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
        _ => Code::Internal,
    };
    Problem::new(code, status.message())
}
