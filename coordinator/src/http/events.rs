//! A job as it goes, as server-sent events: `status` whenever it has changed, `tasks` with the whole map of its tasks,
//! `changes` with what has changed in it, `end` after the last.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State as Shared};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use serde::Deserialize;
use serde_json::{Value, json};
use starlift_common::ids::JobId;
use starlift_proto as pb;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

use super::{Refusal, Views, Wanted, parse, read, unknown};
use crate::clock::Now;
use crate::grpc::is_final;
use crate::report;
use crate::state::State;

/// Bounds of the pause between two looks at the job, and the usual one.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
const USUAL_PAUSE_MS: u64 = 500;

#[derive(Deserialize)]
pub(super) struct Pace {
    interval_ms: Option<u64>,
}

pub(super) async fn events(
    Shared(views): Shared<Views>,
    Path(id): Path<String>,
    Wanted(Pace { interval_ms }): Wanted<Pace>,
) -> Result<Response, Refusal> {
    let pause = interval_ms.unwrap_or(USUAL_PAUSE_MS).clamp(*PAUSE_MS.start(), *PAUSE_MS.end());
    let id = parse(&id)?;
    let first = look(&views, id, None).await?.ok_or_else(|| unknown(id))?;
    // What nobody reads is not looked at either.
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let stop = views.stop.clone();
        let telling = tell(&views, id, first, Duration::from_millis(pause), &sender);
        // The listener leaves, or this coordinator does: in both cases nobody is to be told.
        let _ = stop.run_until_cancelled(telling).await;
    });
    let events = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default());
    Ok(events.into_response())
}

/// Until the job has ended, nobody listens, or this coordinator no longer knows.
async fn tell(
    views: &Views,
    id: JobId,
    first: Seen,
    pause: Duration,
    sender: &mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut viewer = Viewer::default();
    let mut seen = first;
    loop {
        for (name, data) in viewer.news(seen) {
            let event = Event::default().event(name).data(data.to_string());
            if sender.send(Ok(event)).await.is_err() || name == "end" {
                return;
            }
        }
        sleep(pause).await;
        match look(views, id, Some(viewer.letters.len())).await {
            Ok(Some(next)) => seen = next,
            Ok(None) | Err(_) => return,
        }
    }
}

/// A job at one moment.
struct Seen {
    status: pb::JobStatus,
    /// One for each task.
    letters: Vec<u8>,
    /// Rows of each task by estimate, if there are more or fewer tasks than before.
    rows: Option<Vec<u64>>,
}

async fn look(views: &Views, id: JobId, known: Option<usize>) -> Result<Option<Seen>, Refusal> {
    Ok(read(&views.desk, move |state, now| see(state, id, known, now)).await?)
}

fn see(state: &State, id: JobId, known: Option<usize>, now: Now) -> Option<Seen> {
    let letters = report::task_letters(state, id)?;
    let rows = if known == Some(letters.len()) { None } else { report::task_rows(state, id) };
    Some(Seen { status: report::status(state, id, now)?, letters, rows })
}

/// What one listener knows.
#[derive(Default)]
struct Viewer {
    letters: Vec<u8>,
    status: Option<pb::JobStatus>,
}

impl Viewer {
    /// The events that bring the listener up to date.
    fn news(&mut self, seen: Seen) -> Vec<(&'static str, Value)> {
        let mut news = Vec::new();
        if let Some(rows) = seen.rows {
            let states = String::from_utf8_lossy(&seen.letters);
            news.push(("tasks", json!({ "states": states, "rows": rows })));
        } else {
            let changed =
                self.letters.iter().zip(&seen.letters).enumerate().filter(|(_, (old, new))| old != new);
            let changed: Vec<Value> =
                changed.map(|(task, (_, new))| json!([task, char::from(*new).to_string()])).collect();
            if !changed.is_empty() {
                news.push(("changes", changed.into()));
            }
        }
        self.letters = seen.letters;
        if self.status.as_ref() != Some(&seen.status) {
            news.push(("status", json!(seen.status)));
        }
        if is_final(&seen.status.state) {
            news.push(("end", json!({})));
        }
        self.status = Some(seen.status);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &str, letters: &str, rows: Option<Vec<u64>>) -> Seen {
        let status = pb::JobStatus { state: state.into(), ..pb::JobStatus::default() };
        Seen { status, letters: letters.into(), rows }
    }

    #[test]
    fn a_listener_is_told_all_at_first_and_then_what_has_changed() {
        let mut viewer = Viewer::default();
        let mut told = |seen| {
            let news = viewer.news(seen);
            news.iter().map(|(name, data)| format!("{name} {}", data["states"])).collect::<Vec<_>>()
        };
        assert_eq!(told(seen("PLANNING", "", Some(vec![]))), ["tasks \"\"", "status null"]);
        assert_eq!(told(seen("PLANNING", "", None)), Vec::<String>::new());
        assert_eq!(told(seen("RUNNING", "WW", Some(vec![5, 6]))), ["tasks \"WW\"", "status null"]);
        assert_eq!(told(seen("RUNNING", "RW", None)), ["changes null"]);
        assert_eq!(told(seen("SUCCEEDED", "DD", None)), ["changes null", "status null", "end null"]);
        assert_eq!(viewer.news(seen("SUCCEEDED", "DF", None))[0].1, json!([[1, "F"]]));
    }
}
