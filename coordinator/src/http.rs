//! The HTTP port: health, metrics and the REST views, all of them looks at the state. JSON has the field names of the
//! wire. Errors are `{code, message, hint, pointer}`.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use starlift_common::ids::JobId;
use starlift_common::problem::{Code, Problem};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::CoordinatorError;
use crate::driver::{Handle, Stopped};
use crate::metrics::Numbers;
use crate::report;

/// Most tasks in one answer, and how many come when the caller names no limit.
const LARGEST_PAGE: u32 = 1000;

/// Serves until `stop`; without a listener it only waits.
pub(crate) async fn serve(
    listener: Option<TcpListener>,
    handle: Handle,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let Some(listener) = listener else {
        stop.cancelled().await;
        return Ok(());
    };
    axum::serve(listener, router(handle))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .map_err(CoordinatorError::Http)
}

fn router(handle: Handle) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{job}", get(job))
        .route("/api/v1/jobs/{job}/tasks", get(tasks))
        .route("/api/v1/jobs/{job}/report", get(job_report))
        .route("/api/v1/workers", get(workers))
        .fallback(|| async {
            Refusal::new(StatusCode::NOT_FOUND, Problem::new(Code::InvalidSettings, "no such address"))
        })
        .with_state(handle)
}

/// What every handler gives: JSON, or why not.
type Answer = Result<Json<Value>, Refusal>;

struct Refusal {
    status: StatusCode,
    problem: Problem,
}

impl Refusal {
    fn new(status: StatusCode, problem: Problem) -> Self {
        Self { status, problem }
    }
}

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Problem::new(Code::NoCoordinator, stopped.to_string()))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Problem { code, message, place, hint } = self.problem;
        let body = json!({"code": code.as_str(), "message": message, "hint": hint, "pointer": place});
        (self.status, Json(body)).into_response()
    }
}

/// Ready when the loop turns: its answer is one save old at most.
async fn ready(Shared(handle): Shared<Handle>) -> Result<&'static str, Refusal> {
    handle.read(|_, _| ()).await?;
    Ok("ok\n")
}

async fn metrics(Shared(handle): Shared<Handle>) -> Result<Response, Refusal> {
    let numbers = handle.read(|state, _| Numbers::of(state)).await?;
    let page = numbers.render().map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Problem::new(Code::Internal, error.to_string()))
    })?;
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content)], page).into_response())
}

async fn jobs(Shared(handle): Shared<Handle>) -> Answer {
    let jobs = handle.read(report::summaries).await?;
    Ok(Json(json!({ "jobs": jobs })))
}

async fn job(Shared(handle): Shared<Handle>, Path(id): Path<String>) -> Answer {
    let id = parse(&id)?;
    let status = handle.read(move |state, now| report::status(state, id, now)).await?;
    status.map(|status| Json(json!(status))).ok_or_else(|| unknown(id))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    offset: u32,
    limit: Option<u32>,
}

async fn tasks(
    Shared(handle): Shared<Handle>,
    Path(id): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer {
    let Query(page) = page.map_err(|rejection| {
        Refusal::new(StatusCode::BAD_REQUEST, Problem::new(Code::InvalidSettings, rejection.body_text()))
    })?;
    let id = parse(&id)?;
    let limit = page.limit.unwrap_or(LARGEST_PAGE).min(LARGEST_PAGE);
    let reply = handle.read(move |state, now| report::tasks(state, id, page.offset, limit, now)).await?;
    reply.map(|reply| Json(json!({ "tasks": reply.tasks, "total": reply.total }))).ok_or_else(|| unknown(id))
}

async fn job_report(Shared(handle): Shared<Handle>, Path(id): Path<String>) -> Answer {
    let id = parse(&id)?;
    let found = handle
        .read(move |state, _| state.job(id).map(|job| job.report().map(|report| report.to_wire(id))))
        .await?;
    match found {
        Some(Some(report)) => Ok(Json(json!(report))),
        Some(None) => Err(Refusal::new(StatusCode::CONFLICT, report::not_ended(id))),
        None => Err(unknown(id)),
    }
}

async fn workers(Shared(handle): Shared<Handle>) -> Answer {
    let workers = handle.read(report::workers).await?;
    Ok(Json(json!({ "workers": workers })))
}

fn parse(text: &str) -> Result<JobId, Refusal> {
    text.parse().map_err(|error: starlift_common::ids::InvalidJobId| {
        Refusal::new(StatusCode::BAD_REQUEST, Problem::new(Code::UnknownJob, error.to_string()))
    })
}

fn unknown(id: JobId) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, crate::state::unknown_job(id))
}
