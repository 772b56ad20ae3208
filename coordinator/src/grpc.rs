//! The wire: each call becomes one event or one look at the state, and its answer one message. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use starlift_common::datasource::LiveDatasources;
use starlift_common::ids::{InvalidJobId, JobId, TaskId, TaskKey, WorkerId};
use starlift_common::problem::{Code, Problem};
use starlift_common::script::Parsed;
use starlift_common::wire::{self, WireError};
use starlift_link::tokens::Role;
use starlift_proto as pb;
use starlift_proto::admin_service_server::{AdminService, AdminServiceServer};
use starlift_proto::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};

use crate::check::{Checks, NotChecked};
use crate::clock::Now;
use crate::driver::{Handle, Stopped};
use crate::leader::{Desk, NotLeading};
use crate::report::{self, TaskFilter};
use crate::state::{Answer, Event, Resolution, State, Ticket, WorkerInfo};
use crate::throttle::Buckets;

/// Longest wait for work that a worker may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Most tasks in one answer.
const LARGEST_PAGE: u32 = 10_000;

/// Longest script in its stored form, which every store can keep in one value.
const SCRIPT_BYTES: usize = 1_300_000;

/// Bounds of the pause between two statuses of a watched job.
const WATCH_PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// Names the leader's URL in an answer of `UNAVAILABLE`; empty when it is not known.
const LEADER: &str = "starlift-leader";

/// What a call needs. Whatever is not known here needs most.
pub(crate) fn needs(_: &http::Method, path: &str) -> Option<Role> {
    let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
    match service {
        "grpc.health.v1.Health" => None,
        WorkerServiceServer::<Services>::NAME => Some(Role::Worker),
        AdminServiceServer::<Services>::NAME => Some(match method {
            "ListJobs" | "GetJob" | "ListTasks" | "GetReport" | "ListWorkers" | "WatchJob" => Role::Read,
            _ => Role::User,
        }),
        _ => Some(Role::User),
    }
}

/// Both services, on the loop of this coordinator while it leads.
#[derive(Clone)]
pub(crate) struct Services {
    desk: Desk,
    checks: Checks,
    buckets: Buckets,
    datasources: LiveDatasources,
    shutdown: CancellationToken,
}

impl Services {
    pub(crate) fn new(
        desk: Desk,
        checks: Checks,
        datasources: LiveDatasources,
        shutdown: CancellationToken,
    ) -> Self {
        Self { desk, checks, buckets: Buckets::default(), datasources, shutdown }
    }

    fn handle(&self) -> Result<Handle, Status> {
        self.desk.handle().map_err(|not_leading| elsewhere(&not_leading))
    }

    async fn ask(&self, event: impl FnOnce(Ticket) -> Event) -> Result<Answer, Status> {
        self.handle()?.ask(event).await.map_err(|Stopped| self.not_leading())
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State, Now) -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.handle()?.read(look).await.map_err(|Stopped| self.not_leading())
    }

    fn not_leading(&self) -> Status {
        elsewhere(&self.desk.not_leading())
    }
}

#[tonic::async_trait]
impl WorkerService for Services {
    async fn acquire(
        &self,
        request: Request<pb::AcquireRequest>,
    ) -> Result<Response<pb::AcquireReply>, Status> {
        let request = request.into_inner();
        understands_enough(request.worker.as_ref())?;
        let worker = worker_info(request.worker)?;
        let handle = self.handle()?;
        let checks = self.checks.orders_for(&worker.id, handle.deadline(Duration::ZERO));
        // What is to be checked does not wait for work.
        let wait =
            if checks.is_empty() { Duration::from_millis(request.wait_ms.into()) } else { Duration::ZERO };
        let (free_slots, until) = (request.free_slots, handle.deadline(wait.min(LONGEST_WAIT)));
        let ask = self.ask(|ticket| Event::Acquire { ticket, worker, free_slots, until });
        let answer = tokio::select! {
            answer = ask => answer?,
            () = self.shutdown.cancelled() => return Err(self.not_leading()),
        };
        match answer {
            Answer::Granted { grants, drain } => {
                let grants = grants.iter().map(Into::into).collect();
                Ok(Response::new(pb::AcquireReply { grants, drain, checks }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatReply>, Status> {
        let request = request.into_inner();
        let worker = worker_info(request.worker)?;
        let tasks = request
            .tasks
            .iter()
            .map(wire::attempt_progress)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| malformed(&error))?;
        let checks = self.checks.orders_for(&worker.id, self.handle()?.deadline(Duration::ZERO));
        match self.ask(|ticket| Event::Heartbeat { ticket, worker, tasks }).await? {
            Answer::Orders { orders, drain } => {
                let orders = orders.into_iter().map(order).collect();
                Ok(Response::new(pb::HeartbeatReply { orders, drain, checks }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportReply>, Status> {
        let (attempt, outcome) = wire::outcome(request.into_inner()).map_err(|error| malformed(&error))?;
        match self.ask(|ticket| Event::Report { ticket, attempt, outcome }).await? {
            Answer::Reported(accepted) => Ok(Response::new(pb::ReportReply { accepted })),
            other => Err(unexpected(&other)),
        }
    }

    async fn spend(&self, request: Request<pb::SpendRequest>) -> Result<Response<pb::SpendReply>, Status> {
        let pb::SpendRequest { worker_id, job_id, tasks } = request.into_inner();
        let (job, worker, handle) = (job_id_of(&job_id)?, WorkerId(worker_id.into()), self.handle()?);
        let now = || Duration::from_millis(handle.deadline(Duration::ZERO).0);
        if let Some(slice) = self.buckets.take(job, worker.clone(), tasks, now()) {
            return Ok(Response::new(spend_reply(slice)));
        }
        let limit = self.read(move |state, _| state.job(job).and_then(|job| job.plan()?.bytes_per_second));
        let limit = limit.await?.ok_or_else(|| Status::not_found("the job has no speed limit"))?;
        self.buckets.add(job, limit, now());
        let slice = self.buckets.take(job, worker, tasks, now());
        slice.map(|slice| Response::new(spend_reply(slice))).ok_or_else(|| Status::aborted("ask again"))
    }

    async fn report_check(
        &self,
        request: Request<pb::ReportCheckRequest>,
    ) -> Result<Response<pb::ReportCheckReply>, Status> {
        self.handle()?;
        self.checks.answered(request.into_inner());
        Ok(Response::new(pb::ReportCheckReply {}))
    }
}

#[tonic::async_trait]
impl AdminService for Services {
    type WatchJobStream = ReceiverStream<Result<pb::JobStatus, Status>>;

    async fn submit(&self, request: Request<pb::SubmitRequest>) -> Result<Response<pb::SubmitReply>, Status> {
        let pb::SubmitRequest { script, name, job_id } = request.into_inner();
        let job = job_id_of(&job_id)?;
        if let Err(problems) = starlift_common::script::parse(&script).and_then(Parsed::to_run) {
            return Err(refused(&crate::state::joined(&problems)));
        }
        if stored_length(&script) > SCRIPT_BYTES {
            let message = "the job script is too large to be kept";
            let problem = Problem::new(Code::InvalidScript, message);
            return Err(refused(&problem.hint(format!("as JSON text it may take {SCRIPT_BYTES} bytes"))));
        }
        let script: Arc<str> = script.into();
        match self.ask(|ticket| Event::Submit { ticket, job, name, script }).await? {
            Answer::Accepted => Ok(Response::new(pb::SubmitReply { job: Some(self.status(job).await?) })),
            Answer::Refused(problem) => Err(refused(&problem)),
            other => Err(unexpected(&other)),
        }
    }

    async fn list_jobs(
        &self,
        _: Request<pb::ListJobsRequest>,
    ) -> Result<Response<pb::ListJobsReply>, Status> {
        let jobs = self.read(report::summaries).await?;
        Ok(Response::new(pb::ListJobsReply { jobs }))
    }

    async fn get_job(&self, request: Request<pb::GetJobRequest>) -> Result<Response<pb::JobStatus>, Status> {
        let job = job_id_of(&request.into_inner().job_id)?;
        Ok(Response::new(self.status(job).await?))
    }

    async fn watch_job(
        &self,
        request: Request<pb::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let request = request.into_inner();
        let job = job_id_of(&request.job_id)?;
        let first = self.status(job).await?;
        let pause = u64::from(request.interval_ms).clamp(*WATCH_PAUSE_MS.start(), *WATCH_PAUSE_MS.end());
        let (sender, receiver) = mpsc::channel(1);
        let farewell = sender.clone();
        let watch = watch(self.clone(), job, first, Duration::from_millis(pause), sender);
        let services = self.clone();
        tokio::spawn(async move {
            if services.shutdown.run_until_cancelled(watch).await.is_none() {
                // The listener may be gone as well.
                let _ = farewell.try_send(Err(services.not_leading()));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_tasks(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksReply>, Status> {
        let request = request.into_inner();
        let job = job_id_of(&request.job_id)?;
        let limit = if request.limit == 0 { LARGEST_PAGE } else { request.limit.min(LARGEST_PAGE) };
        let filter =
            TaskFilter { offset: request.offset as usize, limit: limit as usize, ..TaskFilter::default() };
        let look = move |state: &_, now| report::tasks(state, job, &filter, now);
        let reply = self.read(look).await?;
        reply.map(Response::new).ok_or_else(|| unknown_job(job))
    }

    async fn get_report(
        &self,
        request: Request<pb::GetReportRequest>,
    ) -> Result<Response<pb::FinalReport>, Status> {
        let job = job_id_of(&request.into_inner().job_id)?;
        match self.read(move |state, _| report::of(state, job)).await? {
            Some(Some(report)) => Ok(Response::new(report)),
            Some(None) => Err(refused(&report::not_ended(job))),
            None => Err(unknown_job(job)),
        }
    }

    async fn list_workers(
        &self,
        _: Request<pb::ListWorkersRequest>,
    ) -> Result<Response<pb::ListWorkersReply>, Status> {
        let workers = self.read(report::workers).await?;
        Ok(Response::new(pb::ListWorkersReply { workers }))
    }

    async fn cancel_job(
        &self,
        request: Request<pb::CancelJobRequest>,
    ) -> Result<Response<pb::JobStatus>, Status> {
        let job = job_id_of(&request.into_inner().job_id)?;
        self.steer(job, |ticket| Event::Cancel { ticket, job }).await
    }

    async fn pause_job(
        &self,
        request: Request<pb::PauseJobRequest>,
    ) -> Result<Response<pb::JobStatus>, Status> {
        let job = job_id_of(&request.into_inner().job_id)?;
        self.steer(job, |ticket| Event::Pause { ticket, job }).await
    }

    async fn resume_job(
        &self,
        request: Request<pb::ResumeJobRequest>,
    ) -> Result<Response<pb::JobStatus>, Status> {
        let job = job_id_of(&request.into_inner().job_id)?;
        self.steer(job, |ticket| Event::Resume { ticket, job }).await
    }

    async fn resolve_task(
        &self,
        request: Request<pb::ResolveTaskRequest>,
    ) -> Result<Response<pb::JobStatus>, Status> {
        let request = request.into_inner();
        let resolution = match request.resolution() {
            pb::Resolution::Committed => Resolution::Committed,
            pb::Resolution::Redo => Resolution::Redo,
            pb::Resolution::Unspecified => {
                return Err(Status::invalid_argument("the resolution is missing: committed or redo"));
            }
        };
        let job = job_id_of(&request.job_id)?;
        let task = TaskKey { job, task: TaskId(request.task_id) };
        self.steer(job, |ticket| Event::Resolve { ticket, task, resolution, reason: request.reason }).await
    }

    async fn drain_worker(
        &self,
        request: Request<pb::DrainWorkerRequest>,
    ) -> Result<Response<pb::WorkerStatus>, Status> {
        let worker = WorkerId(request.into_inner().worker_id.into());
        let id = worker.clone();
        match self.ask(|ticket| Event::Drain { ticket, worker }).await? {
            Answer::Accepted => {}
            Answer::Refused(problem) => return Err(refused(&problem)),
            other => return Err(unexpected(&other)),
        }
        let workers = self.read(report::workers).await?;
        let found = workers.into_iter().find(|worker| *worker.worker_id == *id.0);
        found
            .map(Response::new)
            .ok_or_else(|| refused(&Problem::new(Code::UnknownWorker, format!("worker {} has left", id.0))))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<pb::CheckReply>, Status> {
        let pb::CheckRequest { script, wait_ms } = request.into_inner();
        let (wait, handle) = (Duration::from_millis(wait_ms.into()), self.handle()?);
        let datasources = self.datasources.now();
        let checked = Box::pin(self.checks.run(&script, wait, &handle, &datasources));
        match self.shutdown.run_until_cancelled(checked).await {
            Some(Ok(reply)) => Ok(Response::new(reply)),
            Some(Err(NotChecked::Refused(problem))) => Err(refused(&problem)),
            Some(Err(NotChecked::Stopped)) | None => Err(self.not_leading()),
        }
    }
}

impl Services {
    /// Tells the state what somebody asks of a job, and answers with what became of it.
    async fn steer(
        &self,
        job: JobId,
        event: impl FnOnce(Ticket) -> Event,
    ) -> Result<Response<pb::JobStatus>, Status> {
        match self.ask(event).await? {
            Answer::Accepted => Ok(Response::new(self.status(job).await?)),
            Answer::Refused(problem) => Err(refused(&problem)),
            other => Err(unexpected(&other)),
        }
    }

    async fn status(&self, job: JobId) -> Result<pb::JobStatus, Status> {
        let status = self.read(move |state, now| report::status(state, job, now)).await?;
        status.ok_or_else(|| unknown_job(job))
    }
}

/// Sends the status again whenever it has changed, until the job has ended or nobody listens.
async fn watch(
    services: Services,
    job: JobId,
    first: pb::JobStatus,
    pause: Duration,
    sender: mpsc::Sender<Result<pb::JobStatus, Status>>,
) {
    let mut status = first;
    loop {
        let ended = is_final(&status.state);
        if sender.send(Ok(status.clone())).await.is_err() || ended {
            return;
        }
        loop {
            tokio::time::sleep(pause).await;
            match services.status(job).await {
                Ok(next) if next == status => {}
                Ok(next) => {
                    status = next;
                    break;
                }
                Err(error) => {
                    // The listener may be gone as well.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            }
        }
    }
}

pub(crate) fn is_final(state: &str) -> bool {
    use starlift_common::job::JobState::{Cancelled, Failed, Succeeded};
    [Succeeded, Failed, Cancelled].iter().any(|last| last.as_str() == state)
}

/// A worker of another version could overlook what it must not. What it holds already it may finish.
fn understands_enough(worker: Option<&pb::WorkerInfo>) -> Result<(), Status> {
    let Some(old) = worker.filter(|worker| worker.protocol < wire::PROTOCOL_LEAST) else { return Ok(()) };
    let message = format!(
        "worker {} of version {} is too old for this coordinator: it speaks protocol {}, at least {} is needed",
        old.worker_id,
        old.version,
        old.protocol,
        wire::PROTOCOL_LEAST
    );
    Err(refused(&Problem::new(Code::Unsupported, message).hint("bring workers to the new version first")))
}

fn worker_info(worker: Option<pb::WorkerInfo>) -> Result<WorkerInfo, Status> {
    let worker = worker.filter(|worker| !worker.worker_id.is_empty());
    let worker = worker.ok_or_else(|| Status::invalid_argument("the worker does not say who it is"))?;
    Ok(WorkerInfo {
        id: WorkerId(worker.worker_id.into()),
        host: worker.host,
        version: worker.version,
        slots: worker.slots,
        http: worker.http,
        draining: worker.draining,
    })
}

fn order(order: crate::state::TaskOrder) -> pb::TaskOrder {
    let verdict = if order.go_on { pb::Order::Continue } else { pb::Order::Stop };
    pb::TaskOrder {
        job_id: order.attempt.task.job.to_string(),
        task_id: order.attempt.task.task.0,
        epoch: order.attempt.epoch.0,
        order: verdict.into(),
        bytes_per_second: order.bytes_per_second.unwrap_or_default(),
    }
}

fn spend_reply(slice: crate::throttle::Slice) -> pb::SpendReply {
    let wait_us = u64::try_from(slice.wait.as_micros()).unwrap_or(u64::MAX);
    pb::SpendReply { bytes: slice.bytes, wait_us }
}

fn stored_length(script: &str) -> usize {
    script.len() + script.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | ..b' ')).count()
}

fn job_id_of(text: &str) -> Result<JobId, Status> {
    text.parse().map_err(|error: InvalidJobId| refused(&Problem::new(Code::UnknownJob, error.to_string())))
}

fn malformed(error: &WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(crate) fn elsewhere(not_leading: &NotLeading) -> Status {
    let mut status = Status::unavailable(not_leading.to_string());
    let leader = not_leading.leader.as_deref().unwrap_or_default();
    // An address that a header cannot hold is as good as none.
    let value = leader.parse().unwrap_or_else(|_| MetadataValue::from_static(""));
    status.metadata_mut().insert(LEADER, value);
    status
}

fn unknown_job(job: JobId) -> Status {
    refused(&crate::state::unknown_job(job))
}

fn unexpected(answer: &Answer) -> Status {
    Status::internal(format!("the state gave an answer of another kind: {answer:?}"))
}

/// The problem travels in the status's details, so that the caller gets its code, place and hint.
fn refused(problem: &Problem) -> Status {
    let code = match problem.code {
        Code::UnknownJob | Code::UnknownTask | Code::UnknownWorker => tonic::Code::NotFound,
        Code::JobChanged => tonic::Code::AlreadyExists,
        Code::JobNotEnded | Code::WrongState => tonic::Code::FailedPrecondition,
        _ => tonic::Code::InvalidArgument,
    };
    Status::with_details(code, problem.to_string(), wire::status_details(problem).into())
}
