//! The HTTP port: health, metrics, the console's files, and REST, which says and does the same as the admin service. JSON
//! has the field names of the wire; `openapi.json` beside this file describes it. Errors are `{code, message, hint,
//! pointer}`. What changes something takes JSON only: a page of somebody else's in a browser cannot send that without being
//! allowed to.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request, State as Shared};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use starlift_common::datasource::LiveDatasources;
use starlift_common::ids::JobId;
use starlift_common::problem::{Code, Problem};
use starlift_common::script::MAX_BYTES;
use starlift_link::guard::{Guard, Needs, check_http};
use starlift_link::listen::{Incoming, Peer, Tls};
use starlift_link::readings::Readings;
use starlift_link::tokens::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::CoordinatorError;
use crate::check::Checks;
use crate::clock::Now;
use crate::driver::{Clock, Stopped};
use crate::grpc::Services;
use crate::history::Histories;
use crate::leader::{Desk, NotLeading};
use crate::metrics::Numbers;
use crate::proxy::{self, Proxy};
use crate::state::State;

mod catalogue;
mod console;
mod events;
mod jobs;
pub(crate) mod refusal;
mod scripts;
mod session;

use refusal::Refusal;

/// Largest body taken: a script, each of whose characters may need two in JSON, and its parameters.
const BODY_BYTES: usize = 2 * MAX_BYTES + (1 << 20);

const SEND_JSON: &str = "send JSON, with the header `Content-Type: application/json`";

/// What health and metrics look at.
#[derive(Clone)]
pub(crate) struct Probes {
    pub(crate) desk: Desk,
    pub(crate) readings: Readings,
}

/// What the handlers look at.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) desk: Desk,
    pub(crate) checks: Checks,
    pub(crate) datasources: LiveDatasources,
    pub(crate) services: Services,
    pub(crate) guard: Guard,
    pub(crate) readings: Readings,
    pub(crate) proxy: Proxy,
    pub(crate) histories: Histories,
    /// This coordinator's own URL for workers and commands.
    pub(crate) grpc: Arc<str>,
    pub(crate) clock: Clock,
    /// Ends streams that have no end of their own.
    pub(crate) stop: CancellationToken,
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
    probed: Probes,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    serve_on(listener, probes().with_state(probed), Arc::new(|| None), stop).await
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

/// What a request needs. Whoever may only look sees no scripts, and no tables of other servers.
fn needs(method: &Method, path: &str) -> Option<Role> {
    let is_read = *method == Method::GET || *method == Method::HEAD;
    match path {
        "/livez" | "/readyz" => None,
        "/api/v1/session" if !is_read => None,
        "/api/v1/datasources" | "/metrics" if is_read => Some(Role::Read),
        _ if path.starts_with("/api/v1/datasources/") || path.ends_with("/script") => Some(Role::User),
        _ if path.starts_with("/api/") => Some(if is_read { Role::Read } else { Role::User }),
        // The console's files hold nothing but the console.
        _ if is_read => None,
        _ => Some(Role::User),
    }
}

fn probes() -> Router<Probes> {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

fn router(views: Views) -> Router {
    let probed = Probes { desk: views.desk.clone(), readings: views.readings.clone() };
    let (guard, proxy) = (views.guard.clone(), views.proxy.clone());
    let of_leader = Router::new()
        .route("/api/v1/jobs", get(jobs::list).post(scripts::submit))
        .route("/api/v1/jobs/{job}", get(jobs::status))
        .route("/api/v1/jobs/{job}/tasks", get(jobs::tasks))
        .route("/api/v1/jobs/{job}/tasks/{task}/resolve", post(jobs::resolve))
        .route("/api/v1/jobs/{job}/report", get(jobs::report))
        .route("/api/v1/jobs/{job}/script", get(jobs::script))
        .route("/api/v1/jobs/{job}/throughput", get(jobs::throughput))
        .route("/api/v1/jobs/{job}/events", get(events::events))
        .route("/api/v1/jobs/{job}/cancel", post(jobs::cancel))
        .route("/api/v1/jobs/{job}/pause", post(jobs::pause))
        .route("/api/v1/jobs/{job}/resume", post(jobs::resume))
        .route("/api/v1/workers", get(jobs::workers))
        .route("/api/v1/workers/{worker}/drain", post(jobs::drain))
        .route("/api/v1/check", post(scripts::check))
        .route("/api/v1/datasources/{name}/check", post(catalogue::check))
        .layer(from_fn_with_state(proxy, proxy::hand_on));
    // What any coordinator knows, whoever leads.
    let of_everybody = Router::new()
        .route("/api/v1/session", get(session::show).post(session::begin).delete(session::end))
        .route("/api/v1/openapi.json", get(console::openapi))
        .route("/api/v1/validate", post(scripts::validate))
        .route("/api/v1/plan", post(scripts::plan))
        .route("/api/v1/mapping", post(catalogue::mapping))
        .route("/api/v1/datasources", get(catalogue::list))
        .route("/api/v1/datasources/{name}/databases", get(catalogue::databases))
        .route("/api/v1/datasources/{name}/databases/{database}/tables", get(catalogue::tables))
        .route("/api/v1/datasources/{name}/databases/{database}/tables/{table}", get(catalogue::columns));
    of_leader
        .merge(of_everybody)
        .fallback(console::file)
        .method_not_allowed_fallback(|| async {
            let problem = Problem::new(Code::InvalidSettings, "the address does not take this method");
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, problem)
        })
        .with_state(views)
        .merge(probes().with_state(probed))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state((guard, needs as Needs), check_http))
}

/// What every handler gives: JSON, or why not.
type Answer = Result<Json<Value>, Refusal>;

/// Looks at the state, if it is here.
async fn read<T: Send + 'static>(
    desk: &Desk,
    look: impl FnOnce(&State, Now) -> T + Send + 'static,
) -> Result<T, NotLeading> {
    desk.handle()?.read(look).await.map_err(|Stopped| desk.not_leading())
}

/// Ready when the loop turns (its answer is one save old at most), or when whoever asks can be told who leads.
async fn ready(Shared(Probes { desk, .. }): Shared<Probes>) -> Result<&'static str, Refusal> {
    match read(&desk, |_, _| ()).await {
        Ok(()) | Err(NotLeading { leader: Some(_) }) => Ok("ok\n"),
        Err(nobody) => Err(nobody.into()),
    }
}

/// A follower has nothing to count but that it follows, and its own files.
async fn metrics(Shared(Probes { desk, readings }): Shared<Probes>) -> Result<Response, Refusal> {
    let numbers = read(&desk, Numbers::of).await.unwrap_or_default().with(desk.saves());
    let page = numbers.render(readings).map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Problem::new(Code::Internal, error.to_string()))
    })?;
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content)], page).into_response())
}

/// What a request says in its body.
struct Sent<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        Json::from_request(request, state).await.map(|Json(said)| Self(said)).map_err(|rejection| {
            let problem = Problem::new(Code::InvalidSettings, rejection.body_text());
            Refusal::new(rejection.status(), problem.hint(SEND_JSON))
        })
    }
}

/// What a request says behind the `?` of its address.
struct Wanted<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Wanted<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let wanted = Query::from_request_parts(parts, state).await;
        wanted.map(|Query(wanted)| Self(wanted)).map_err(|rejection| {
            Refusal::new(rejection.status(), Problem::new(Code::InvalidSettings, rejection.body_text()))
        })
    }
}

/// Nothing needs to be said about a step, but it must be said in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn parse(text: &str) -> Result<JobId, Refusal> {
    text.parse().map_err(|error: starlift_common::ids::InvalidJobId| {
        Refusal::new(StatusCode::NOT_FOUND, Problem::new(Code::UnknownJob, error.to_string()))
    })
}

fn unknown(id: JobId) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, crate::state::unknown_job(id))
}
