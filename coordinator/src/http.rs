//! The HTTP port: health, metrics and the REST views, all of them looks at the state, and the check of a job. JSON has the
//! field names of the wire. Errors are `{code, message, hint, pointer}`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use starlift_common::datasource::LiveDatasources;
use starlift_common::ids::JobId;
use starlift_common::problem::{Code, Problem};
use starlift_link::guard::{Guard, Needs, check_http};
use starlift_link::listen::{Incoming, Peer, Tls};
use starlift_link::tokens::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::CoordinatorError;
use crate::check::{Checks, NotChecked};
use crate::clock::Now;
use crate::driver::Stopped;
use crate::leader::{Desk, NotLeading};
use crate::metrics::Numbers;
use crate::proxy::{self, Proxy};
use crate::report;
use crate::state::State;

/// Most tasks in one answer, and how many come when the caller names no limit.
const LARGEST_PAGE: u32 = 1000;

/// What the handlers look at.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) desk: Desk,
    pub(crate) checks: Checks,
    pub(crate) datasources: LiveDatasources,
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
    let check = Router::new().route("/api/v1/check", post(check)).with_state(views);
    let rest = Router::new()
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{job}", get(job))
        .route("/api/v1/jobs/{job}/tasks", get(tasks))
        .route("/api/v1/jobs/{job}/report", get(job_report))
        .route("/api/v1/workers", get(workers))
        .with_state(desk.clone())
        .merge(check)
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
        let Problem { code, message, place, hint } = self.problem;
        let mut body = json!({"code": code.as_str(), "message": message, "hint": hint, "pointer": place});
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
    let reply = read(&desk, move |state, now| report::tasks(state, id, page.offset, limit, now)).await?;
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
    script: String,
) -> Answer {
    let Query(Patience { wait_ms }) = patience.map_err(malformed)?;
    let (wait, handle) = (Duration::from_millis(wait_ms), views.desk.handle()?);
    let datasources = views.datasources.now();
    let checked = Box::pin(views.checks.run(&script, wait, &handle, &datasources)).await;
    checked.map(|reply| Json(json!(reply))).map_err(|why| match why {
        NotChecked::Refused(problem) => Refusal::new(StatusCode::BAD_REQUEST, problem),
        NotChecked::Stopped => views.desk.not_leading().into(),
    })
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
