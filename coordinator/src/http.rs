//! The HTTP port: health, metrics and REST, which says and does the same as the admin service. JSON has the field names of the
//! wire. Errors are `{code, message, hint, pointer}`. What changes something takes JSON only: a page of somebody else's in a
//! browser cannot send that without being allowed to.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use starlift_common::datasource::LiveDatasources;
use starlift_common::ids::JobId;
use starlift_common::problem::{Code, Problem};
use starlift_common::wire;
use starlift_link::guard::{Guard, Needs, check_http};
use starlift_link::listen::{Incoming, Peer, Tls};
use starlift_link::tokens::Role;
use starlift_proto as pb;
use starlift_proto::admin_service_server::AdminService as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::CoordinatorError;
use crate::check::{Checks, NotChecked};
use crate::clock::Now;
use crate::driver::Stopped;
use crate::grpc::Services;
use crate::leader::{Desk, NotLeading};
use crate::metrics::Numbers;
use crate::proxy::{self, Proxy};
use crate::report::{self, TaskFilter};
use crate::state::State;

const SEND_JSON: &str = "send JSON, with the header `Content-Type: application/json`";

/// Most tasks in one answer, and how many come when the caller names no limit.
const LARGEST_PAGE: u32 = 1000;

/// What the handlers look at.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) desk: Desk,
    pub(crate) checks: Checks,
    pub(crate) datasources: LiveDatasources,
    pub(crate) services: Services,
    pub(crate) guard: Guard,
    pub(crate) proxy: Proxy,
}

/// Serves until `stop`; without a listener it only waits.
pub(crate) async fn serve(
    listener: Option<TcpListener>,
    views: Views,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let tls = views.guard.http_tls();
    serve_on(listener, router(views), tls, stop).await
}

/// As [`serve`], for a port that shows the numbers only, to everybody.
pub(crate) async fn serve_metrics(
    listener: Option<TcpListener>,
    desk: Desk,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    serve_on(listener, probes().with_state(desk), Arc::new(|| None), stop).await
}

async fn serve_on(
    listener: Option<TcpListener>,
    router: Router,
    tls: Tls,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let Some(listener) = listener else {
        stop.cancelled().await;
        return Ok(());
    };
    let incoming = Incoming::new(listener, tls).map_err(CoordinatorError::Http)?;
    axum::serve(incoming, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .map_err(CoordinatorError::Http)
}

/// What a request needs.
fn needs(method: &Method, path: &str) -> Option<Role> {
    match path {
        "/livez" | "/readyz" => None,
        _ if *method == Method::GET || *method == Method::HEAD => Some(Role::Read),
        _ => Some(Role::User),
    }
}

fn probes() -> Router<Desk> {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

fn router(views: Views) -> Router {
    let (desk, guard, proxy) = (views.desk.clone(), views.guard.clone(), views.proxy.clone());
    let doing = Router::new()
        .route("/api/v1/check", post(check))
        .route("/api/v1/jobs", post(submit))
        .route("/api/v1/jobs/{job}/{step}", post(steer))
        .with_state(views);
    let rest = Router::new()
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{job}", get(job))
        .route("/api/v1/jobs/{job}/tasks", get(tasks))
        .route("/api/v1/jobs/{job}/report", get(job_report))
        .route("/api/v1/workers", get(workers))
        .with_state(desk.clone())
        .merge(doing)
        .layer(from_fn_with_state(proxy, proxy::hand_on));
    Router::new()
        .merge(probes())
        .fallback(|| async {
            Refusal::new(StatusCode::NOT_FOUND, Problem::new(Code::InvalidSettings, "no such address"))
        })
        .with_state(desk)
        .merge(rest)
        .layer(from_fn_with_state((guard, needs as Needs), check_http))
}

/// What every handler gives: JSON, or why not.
type Answer = Result<Json<Value>, Refusal>;

pub(crate) struct Refusal {
    status: StatusCode,
    problem: Problem,
    /// Who can answer, where that is another coordinator.
    leader: Option<Arc<str>>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, problem: Problem) -> Self {
        Self { status, problem, leader: None }
    }
}

impl From<NotLeading> for Refusal {
    fn from(not_leading: NotLeading) -> Self {
        let problem = Problem::new(Code::NoCoordinator, not_leading.to_string());
        Self { status: StatusCode::SERVICE_UNAVAILABLE, problem, leader: not_leading.leader }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = self.problem.to_rest();
        if let Some(leader) = self.leader {
            body["leader"] = json!(&*leader);
        }
        (self.status, Json(body)).into_response()
    }
}

/// Looks at the state, if it is here.
async fn read<T: Send + 'static>(
    desk: &Desk,
    look: impl FnOnce(&State, Now) -> T + Send + 'static,
) -> Result<T, NotLeading> {
    desk.handle()?.read(look).await.map_err(|Stopped| desk.not_leading())
}

/// Ready when the loop turns (its answer is one save old at most), or when whoever asks can be told who leads.
async fn ready(Shared(desk): Shared<Desk>) -> Result<&'static str, Refusal> {
    match read(&desk, |_, _| ()).await {
        Ok(()) | Err(NotLeading { leader: Some(_) }) => Ok("ok\n"),
        Err(nobody) => Err(nobody.into()),
    }
}

/// A follower has nothing to count but that it follows.
async fn metrics(Shared(desk): Shared<Desk>) -> Result<Response, Refusal> {
    let numbers = read(&desk, Numbers::of).await.unwrap_or_default().with(desk.saves());
    let page = numbers.render().map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Problem::new(Code::Internal, error.to_string()))
    })?;
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content)], page).into_response())
}

async fn jobs(Shared(desk): Shared<Desk>) -> Answer {
    let jobs = read(&desk, report::summaries).await?;
    Ok(Json(json!({ "jobs": jobs })))
}

async fn job(Shared(desk): Shared<Desk>, Path(id): Path<String>) -> Answer {
    let id = parse(&id)?;
    let status = read(&desk, move |state, now| report::status(state, id, now)).await?;
    status.map(|status| Json(json!(status))).ok_or_else(|| unknown(id))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    offset: u32,
    limit: Option<u32>,
}

async fn tasks(
    Shared(desk): Shared<Desk>,
    Path(id): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer {
    let Query(page) = page.map_err(malformed)?;
    let id = parse(&id)?;
    let limit = page.limit.unwrap_or(LARGEST_PAGE).min(LARGEST_PAGE);
    let reply = read(&desk, move |state, now| {
        report::tasks(
            state,
            id,
            &TaskFilter { offset: page.offset as usize, limit: limit as usize, ..TaskFilter::default() },
            now,
        )
    })
    .await?;
    reply.map(|reply| Json(json!({ "tasks": reply.tasks, "total": reply.total }))).ok_or_else(|| unknown(id))
}

async fn job_report(Shared(desk): Shared<Desk>, Path(id): Path<String>) -> Answer {
    let id = parse(&id)?;
    match read(&desk, move |state, _| report::of(state, id)).await? {
        Some(Some(report)) => Ok(Json(json!(report))),
        Some(None) => Err(Refusal::new(StatusCode::CONFLICT, report::not_ended(id))),
        None => Err(unknown(id)),
    }
}

async fn workers(Shared(desk): Shared<Desk>) -> Answer {
    let workers = read(&desk, report::workers).await?;
    Ok(Json(json!({ "workers": workers })))
}

#[derive(Deserialize)]
struct Patience {
    /// 0: the usual time.
    #[serde(default)]
    wait_ms: u64,
}

/// Checks the script in the body, from here and from every worker.
async fn check(
    Shared(views): Shared<Views>,
    patience: Result<Query<Patience>, QueryRejection>,
    headers: HeaderMap,
    script: String,
) -> Answer {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        let problem = Problem::new(Code::InvalidSettings, "the script does not come as JSON");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem.hint(SEND_JSON)));
    }
    let Query(Patience { wait_ms }) = patience.map_err(malformed)?;
    let (wait, handle) = (Duration::from_millis(wait_ms), views.desk.handle()?);
    let datasources = views.datasources.now();
    let checked = Box::pin(views.checks.run(&script, wait, &handle, &datasources)).await;
    checked.map(|reply| Json(json!(reply))).map_err(|why| match why {
        NotChecked::Refused(problem) => Refusal::new(StatusCode::BAD_REQUEST, problem),
        NotChecked::Stopped => views.desk.not_leading().into(),
    })
}

/// A job to be run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission {
    /// The job file: its text, or the object itself.
    script: Value,
    #[serde(default)]
    name: String,
    /// Whoever makes one can submit the job again without running it twice.
    job_id: Option<String>,
}

async fn submit(Shared(views): Shared<Views>, submission: Result<Json<Submission>, JsonRejection>) -> Answer {
    let Json(Submission { script, name, job_id }) = submission.map_err(unreadable)?;
    let script = script.as_str().map_or_else(|| script.to_string(), str::to_owned);
    let job_id = match job_id {
        Some(given) => given,
        None => {
            let unix = read(&views.desk, |_, now| now.unix).await?;
            JobId::from_parts(unix.0, fastrand::u128(..)).to_string()
        }
    };
    let request = pb::SubmitRequest { script, name, job_id };
    let reply = views.services.submit(Request::new(request)).await?;
    Ok(Json(json!(reply.into_inner().job)))
}

/// Nothing needs to be said about the step, but it must be said in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn steer(
    Shared(views): Shared<Views>,
    Path((job_id, step)): Path<(String, String)>,
    nothing: Result<Json<Nothing>, JsonRejection>,
) -> Answer {
    let Json(Nothing {}) = nothing.map_err(unreadable)?;
    let services = &views.services;
    let reply = match step.as_str() {
        "cancel" => services.cancel_job(Request::new(pb::CancelJobRequest { job_id })).await,
        "pause" => services.pause_job(Request::new(pb::PauseJobRequest { job_id })).await,
        "resume" => services.resume_job(Request::new(pb::ResumeJobRequest { job_id })).await,
        _ => {
            let problem = Problem::new(Code::InvalidSettings, format!("a job cannot {step}"));
            return Err(Refusal::new(StatusCode::NOT_FOUND, problem.hint("cancel, pause or resume")));
        }
    };
    Ok(Json(json!(reply?.into_inner())))
}

/// What the admin service has refused.
impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let (code, http) = match status.code() {
            tonic::Code::NotFound => (Code::UnknownJob, StatusCode::NOT_FOUND),
            tonic::Code::AlreadyExists | tonic::Code::FailedPrecondition => {
                (Code::WrongState, StatusCode::CONFLICT)
            }
            tonic::Code::Unavailable => (Code::NoCoordinator, StatusCode::SERVICE_UNAVAILABLE),
            tonic::Code::InvalidArgument => (Code::InvalidScript, StatusCode::BAD_REQUEST),
            _ => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
        };
        let told = wire::problem_of_status(status.details());
        Self::new(http, told.unwrap_or_else(|| Problem::new(code, status.message())))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given to `map_err`")]
fn unreadable(rejection: JsonRejection) -> Refusal {
    let problem = Problem::new(Code::InvalidSettings, rejection.body_text());
    Refusal::new(rejection.status(), problem.hint(SEND_JSON))
}

fn parse(text: &str) -> Result<JobId, Refusal> {
    text.parse().map_err(|error: starlift_common::ids::InvalidJobId| {
        Refusal::new(StatusCode::BAD_REQUEST, Problem::new(Code::UnknownJob, error.to_string()))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "given to `map_err`")]
fn malformed(rejection: QueryRejection) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, Problem::new(Code::InvalidSettings, rejection.body_text()))
}

fn unknown(id: JobId) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, crate::state::unknown_job(id))
}
