//! The console's files, which are part of the binary. Open to everybody: what they show comes from REST, and that asks for
//! a token. The browser is told to run and load nothing that does not come from here.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use starlift_common::problem::{Code, Problem};

use super::Refusal;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Name, media type, content.
type File = (&'static str, &'static str, &'static [u8]);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $kind:ident,)*) => {
        &[$(($name, $kind, include_bytes!(concat!("../../../console/", $name))),)*]
    };
}

const FILES: &[File] = files! {
    "index.html": HTML,
    "editor.css": CSS,
    "form.css": CSS,
    "job.css": CSS,
    "lists.css": CSS,
    "new.css": CSS,
    "parts.css": CSS,
    "style.css": CSS,
    "api.js": SCRIPT,
    "app.js": SCRIPT,
    "chart.js": SCRIPT,
    "check.js": SCRIPT,
    "dom.js": SCRIPT,
    "draft.js": SCRIPT,
    "editor.js": SCRIPT,
    "faults.js": SCRIPT,
    "fields.js": SCRIPT,
    "fits.js": SCRIPT,
    "form.js": SCRIPT,
    "job-tasks.js": SCRIPT,
    "job-view.js": SCRIPT,
    "job.js": SCRIPT,
    "jobs.js": SCRIPT,
    "lines.js": SCRIPT,
    "load.js": SCRIPT,
    "login.js": SCRIPT,
    "mapping.js": SCRIPT,
    "new.js": SCRIPT,
    "numbers.js": SCRIPT,
    "parameters.js": SCRIPT,
    "place.js": SCRIPT,
    "plan.js": SCRIPT,
    "report.js": SCRIPT,
    "results.js": SCRIPT,
    "script.js": SCRIPT,
    "sources.js": SCRIPT,
    "taskmap.js": SCRIPT,
    "theme.js": SCRIPT,
    "workers.js": SCRIPT,
    "favicon.svg": SVG,
};

/// Every address that is none of REST's.
pub(super) async fn file(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let name = uri.path().trim_start_matches('/');
    let name = if name.is_empty() { "index.html" } else { name };
    let found = FILES.iter().find(|(known, _, _)| *known == name);
    let is_read = method == Method::GET || method == Method::HEAD;
    match found.filter(|_| is_read) {
        Some(file) => serve(file, &headers),
        None => {
            let problem = Problem::new(Code::InvalidSettings, "no such address");
            Refusal::new(StatusCode::NOT_FOUND, problem).into_response()
        }
    }
}

/// The description of REST.
pub(super) async fn openapi(headers: HeaderMap) -> Response {
    serve(&("openapi.json", "application/json", include_bytes!("openapi.json")), &headers)
}

fn serve((_, kind, content): &File, headers: &HeaderMap) -> Response {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response =
        if is_known { StatusCode::NOT_MODIFIED.into_response() } else { (*content).into_response() };
    for (name, value) in [
        (header::CONTENT_TYPE, *kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = tag.parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_of_rest_is_of_this_version_and_knows_every_code() {
        let described: serde_json::Value =
            serde_json::from_slice(include_bytes!("openapi.json")).expect("it is JSON");
        assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(described["components"]["schemas"]["Code"]["enum"], serde_json::json!(codes));
    }

    #[test]
    fn every_file_of_the_console_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../console");
        let there =
            std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").file_name());
        let mut there: Vec<String> = there.filter_map(|name| name.into_string().ok()).collect();
        let mut served: Vec<&str> = FILES.iter().map(|(name, _, _)| *name).collect();
        there.sort_unstable();
        served.sort_unstable();
        assert_eq!(there, served);
    }
}
