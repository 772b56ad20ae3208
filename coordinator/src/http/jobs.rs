//! Jobs, tasks and workers: looking and steering.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use starlift_common::problem::{Code, Problem};
use starlift_proto as pb;
use starlift_proto::admin_service_server::AdminService as _;
use tonic::Request;

use super::{Answer, Nothing, Refusal, Sent, Views, Wanted, parse, read, unknown};
use crate::report::{self, JobFilter, TaskFilter};

/// Most jobs or tasks in one answer.
const LARGEST_PAGE: usize = 1000;
/// How many come where no number is named.
const USUAL_PAGE: usize = 100;

/// Which part of a list is wanted; all of it may be left out.
#[derive(Deserialize)]
pub(super) struct Part {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
    /// Names, with commas between them.
    #[serde(default)]
    state: String,
    #[serde(default)]
    search: String,
    #[serde(default)]
    order: Order,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Id,
    Slowest,
}

impl Part {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(USUAL_PAGE).min(LARGEST_PAGE)
    }

    fn states(&self) -> BTreeSet<String> {
        self.state.split(',').filter(|name| !name.is_empty()).map(str::to_ascii_uppercase).collect()
    }
}

pub(super) async fn list(Shared(views): Shared<Views>, Wanted(wanted): Wanted<Part>) -> Answer {
    let (states, limit) = (wanted.states(), wanted.limit());
    let filter = JobFilter { states, search: wanted.search, offset: wanted.offset, limit };
    let page = read(&views.desk, move |state, now| report::page(state, &filter, now)).await?;
    Ok(Json(json!(page)))
}

pub(super) async fn status(Shared(views): Shared<Views>, Path(id): Path<String>) -> Answer {
    let id = parse(&id)?;
    let status = read(&views.desk, move |state, now| report::status(state, id, now)).await?;
    status.map(|status| Json(json!(status))).ok_or_else(|| unknown(id))
}

pub(super) async fn tasks(
    Shared(views): Shared<Views>,
    Path(id): Path<String>,
    Wanted(wanted): Wanted<Part>,
) -> Answer {
    let id = parse(&id)?;
    let (states, limit) = (wanted.states(), wanted.limit());
    let slowest_first = matches!(wanted.order, Order::Slowest);
    let filter = TaskFilter { states, slowest_first, offset: wanted.offset, limit };
    let reply = read(&views.desk, move |state, now| report::tasks(state, id, &filter, now)).await?;
    reply.map(|reply| Json(json!({ "tasks": reply.tasks, "total": reply.total }))).ok_or_else(|| unknown(id))
}

pub(super) async fn report(Shared(views): Shared<Views>, Path(id): Path<String>) -> Answer {
    let id = parse(&id)?;
    match read(&views.desk, move |state, _| report::of(state, id)).await? {
        Some(Some(report)) => Ok(Json(json!(report))),
        Some(None) => Err(Refusal::new(StatusCode::CONFLICT, report::not_ended(id))),
        None => Err(unknown(id)),
    }
}

/// As it was submitted. Accounts stand in data sources, not in scripts.
pub(super) async fn script(Shared(views): Shared<Views>, Path(id): Path<String>) -> Answer {
    let id = parse(&id)?;
    let script = read(&views.desk, move |state, _| state.job(id).map(|job| job.script().clone()));
    script.await?.map(|script| Json(json!({ "script": &*script }))).ok_or_else(|| unknown(id))
}

pub(super) async fn throughput(Shared(views): Shared<Views>, Path(id): Path<String>) -> Answer {
    let id = parse(&id)?;
    let is_known = read(&views.desk, move |state, _| state.job(id).is_some()).await?;
    if !is_known {
        return Err(unknown(id));
    }
    Ok(Json(json!({ "samples": views.histories.of(id) })))
}

pub(super) async fn workers(Shared(views): Shared<Views>) -> Answer {
    let workers = read(&views.desk, report::workers).await?;
    Ok(Json(json!({ "workers": workers })))
}

pub(super) async fn cancel(
    Shared(views): Shared<Views>,
    Path(job_id): Path<String>,
    Sent(Nothing {}): Sent<Nothing>,
) -> Answer {
    let reply = views.services.cancel_job(Request::new(pb::CancelJobRequest { job_id })).await?;
    Ok(Json(json!(reply.into_inner())))
}

pub(super) async fn pause(
    Shared(views): Shared<Views>,
    Path(job_id): Path<String>,
    Sent(Nothing {}): Sent<Nothing>,
) -> Answer {
    let reply = views.services.pause_job(Request::new(pb::PauseJobRequest { job_id })).await?;
    Ok(Json(json!(reply.into_inner())))
}

pub(super) async fn resume(
    Shared(views): Shared<Views>,
    Path(job_id): Path<String>,
    Sent(Nothing {}): Sent<Nothing>,
) -> Answer {
    let reply = views.services.resume_job(Request::new(pb::ResumeJobRequest { job_id })).await?;
    Ok(Json(json!(reply.into_inner())))
}

pub(super) async fn drain(
    Shared(views): Shared<Views>,
    Path(worker_id): Path<String>,
    Sent(Nothing {}): Sent<Nothing>,
) -> Answer {
    let reply = views.services.drain_worker(Request::new(pb::DrainWorkerRequest { worker_id })).await?;
    Ok(Json(json!(reply.into_inner())))
}

/// What a person says of a task whose commit the server has forgotten.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verdict {
    answer: VerdictAnswer,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum VerdictAnswer {
    Committed,
    Redo,
}

pub(super) async fn resolve(
    Shared(views): Shared<Views>,
    Path((job_id, task)): Path<(String, String)>,
    Sent(Verdict { answer, reason }): Sent<Verdict>,
) -> Answer {
    let task_id = task.parse().map_err(|_| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            Problem::new(Code::UnknownTask, format!("there is no task {task}")),
        )
    })?;
    let resolution = match answer {
        VerdictAnswer::Committed => pb::Resolution::Committed,
        VerdictAnswer::Redo => pb::Resolution::Redo,
    };
    let request = pb::ResolveTaskRequest { job_id, task_id, resolution: resolution.into(), reason };
    Ok(Json(json!(views.services.resolve_task(Request::new(request)).await?.into_inner())))
}
