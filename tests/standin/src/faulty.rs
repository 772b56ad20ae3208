//! Performs an operation under the scripted faults: instead of it, before it, after it. Which fault strikes is decided
//! in `faults.rs`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};

use crate::cluster::Cluster;
use crate::faults::{Action, Op};
use crate::http::{self, Answer};

/// Runs `perform`, which is told after how many body bytes to cut the connection; `shape` makes an answer of the
/// operation's own kind from a status and a message.
pub(crate) async fn run(
    cluster: &Cluster,
    op: Op,
    label: &str,
    shape: impl Fn(&str, &str) -> Response<Full<Bytes>>,
    perform: impl AsyncFnOnce(Option<u64>) -> Answer,
) -> Answer {
    let Some(action) = cluster.faults.strike(op, label).await else {
        return perform(None).await;
    };
    match action {
        Action::Refuse { status, message } => shape(&status, &message).into(),
        Action::Http { code, body } => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            http::text(code, body).into()
        }
        Action::Cut => Answer::Cut,
        Action::CutBody { after_bytes } => perform(Some(after_bytes)).await,
        Action::DoThenCut => {
            perform(None).await;
            Answer::Cut
        }
        Action::DoThenAnswer { status, message } => {
            perform(None).await;
            shape(&status, &message).into()
        }
        Action::DelayAfter { ms } => {
            let answer = perform(None).await;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            answer
        }
        Action::Hold | Action::DelayBefore { .. } => perform(None).await,
    }
}
