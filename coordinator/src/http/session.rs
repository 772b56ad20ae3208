//! Signing in and out, for browsers; scripts send their token with every request.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use starlift_link::guard::token_of;
use starlift_link::session::cookie;
use starlift_link::tokens::{Refusal as Unwanted, Role};

use super::{Sent, Views};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    token: String,
}

/// Who the caller is, as whom it was let in.
pub(super) async fn show(Shared(views): Shared<Views>, headers: HeaderMap) -> Result<Json<Value>, Unwanted> {
    Ok(Json(document(&views, views.guard.admit(token_of(&headers).as_deref(), Role::Read)?)))
}

pub(super) async fn begin(
    Shared(views): Shared<Views>,
    Sent(Login { token }): Sent<Login>,
) -> Result<Response, Unwanted> {
    let token = token.trim();
    let role = views.guard.admit(Some(token.as_bytes()), Role::Read)?;
    Ok(with_cookie(&views, Some(token), Json(document(&views, role)).into_response()))
}

pub(super) async fn end(Shared(views): Shared<Views>) -> Response {
    with_cookie(&views, None, StatusCode::NO_CONTENT.into_response())
}

fn document(views: &Views, role: Role) -> Value {
    json!({
        "role": role.as_str(),
        "login": views.guard.has_tokens(),
        "version": env!("CARGO_PKG_VERSION"),
        "grpc": views.grpc,
    })
}

fn with_cookie(views: &Views, token: Option<&str>, mut response: Response) -> Response {
    response.headers_mut().insert(header::SET_COOKIE, cookie(token, views.guard.is_encrypted()));
    response
}
