//! Why a request over HTTP gets no answer: `{code, message, hint, pointer}`, whatever was asked.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use starlift_common::problem::{Code, Problem};
use starlift_common::wire;
use tonic::Status;

use crate::leader::NotLeading;

pub(crate) struct Refusal {
    status: StatusCode,
    problem: Box<Problem>,
    /// All that were found, where there are several.
    problems: Vec<Problem>,
    /// Who can answer, where that is another coordinator.
    leader: Option<Arc<str>>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, problem: Problem) -> Self {
        Self { status, problem: Box::new(problem), problems: Vec::new(), leader: None }
    }

    /// What somebody has sent is at fault, in every one of these ways.
    pub(super) fn of_input(problems: Vec<Problem>) -> Self {
        let first = problems.first().cloned();
        let first = first.unwrap_or_else(|| Problem::new(Code::Internal, "refused without a reason"));
        Self { problems, ..Self::new(StatusCode::BAD_REQUEST, first) }
    }
}

impl From<NotLeading> for Refusal {
    fn from(not_leading: NotLeading) -> Self {
        let problem = Problem::new(Code::NoCoordinator, not_leading.to_string());
        Self { leader: not_leading.leader, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, problem) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = self.problem.to_rest();
        if !self.problems.is_empty() {
            body["problems"] = self.problems.iter().map(Problem::to_rest).collect();
        }
        if let Some(leader) = self.leader {
            body["leader"] = json!(&*leader);
        }
        (self.status, Json(body)).into_response()
    }
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
