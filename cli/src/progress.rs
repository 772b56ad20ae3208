//! Live progress on stderr: a picture in place on a terminal, one line every ten seconds elsewhere.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use starlift_common::problem::Problem;
use starlift_proto as pb;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::Client;
use crate::output::{self, Home, bytes, count, seconds};
use crate::rates::Rates;
use crate::screen::Screen;
use crate::view;

const LINE_EVERY: Duration = Duration::from_secs(10);

/// How often a watched job is asked for and drawn anew.
const INTERVAL: Duration = Duration::from_millis(200);

/// Statuses come all the time; a coordinator that is silent for so long is away.
const SILENCE: Duration = Duration::from_secs(3);

/// Shows one job's way to its end. When it is dropped, the picture is gone.
pub(crate) struct Progress<'a> {
    screen: &'a Screen,
    in_place: bool,
    home: Home<'a>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    last: Option<(pb::JobStatus, Instant)>,
    rates: Rates,
    ticks: usize,
    last_line: Option<(String, Instant)>,
    /// What was last said of a job that stands still.
    standstill: Option<String>,
}

impl<'a> Progress<'a> {
    /// With `json` nothing is drawn in place: stderr then belongs to log collectors.
    pub(crate) fn start(screen: &'a Screen, json: bool, home: Home<'a>) -> Self {
        Self { screen, in_place: !json && screen.understands_codes(), home, seen: RefCell::default() }
    }

    /// Follows the job to its end. Statuses that `is_shown` refuses are kept from the screen.
    pub(crate) async fn follow(
        &self,
        client: &mut Client,
        job_id: &str,
        is_shown: impl Fn(&pb::JobStatus) -> bool,
    ) -> Result<pb::FinalReport, Problem> {
        let show = |status: &pb::JobStatus| {
            if is_shown(status) {
                self.show(status);
            }
        };
        tokio::select! {
            report = client.follow(job_id, INTERVAL, show) => report,
            never = self.keep_drawing() => match never {},
        }
    }

    fn show(&self, status: &pb::JobStatus) {
        let now = Instant::now();
        let mut seen = self.seen.borrow_mut();
        if self.in_place {
            seen.rates.note(status, now);
            seen.last = Some((status.clone(), now));
        } else if seen.line_is_due(status, now) {
            self.screen.print(&format!("{:<10} {}\n", status.state, line(status)));
        }
        self.tell_standstill(&mut seen, status);
    }

    /// Draws at its own pace: the window may change and the coordinator may be away.
    async fn keep_drawing(&self) -> Infallible {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut seen = self.seen.borrow_mut();
            seen.ticks += 1;
            let Some((status, heard)) = &seen.last else { continue };
            let style = self.screen.style();
            self.screen.draw(|width| {
                let mut lines = view::frame(status, &seen.rates, width, style, seen.ticks);
                let silent = heard.elapsed();
                if silent > SILENCE {
                    lines.push(view::silence(silent.as_secs_f64(), width, style));
                }
                lines
            });
        }
    }

    /// Says once why the job is paused; it may be resumed from elsewhere.
    fn tell_standstill(&self, seen: &mut Seen, status: &pb::JobStatus) {
        let standstill = (status.state == "PAUSED").then(|| output::standstill(status, self.home));
        if seen.standstill == standstill {
            return;
        }
        if let Some(text) = &standstill {
            self.screen.print(text);
        }
        seen.standstill = standstill;
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.screen.clear();
    }
}

impl Seen {
    /// Every ten seconds, and whenever the job's state changed.
    fn line_is_due(&mut self, status: &pb::JobStatus, now: Instant) -> bool {
        let is_due = self
            .last_line
            .as_ref()
            .is_none_or(|(state, last)| *state != status.state || now - *last >= LINE_EVERY);
        if is_due {
            self.last_line = Some((status.state.clone(), now));
        }
        is_due
    }
}

/// What can be done about a job that did not succeed goes to stderr, whatever stdout is for.
pub(crate) async fn tell_next_steps(client: &mut Client, job_id: &str, home: Home<'_>) {
    // The report is printed; without this answer only the advice is missing.
    if let Ok(status) = client.job(job_id).await {
        eprint!("{}", output::next_steps(&status, home));
    }
}

/// `620,000/1,000,000 rows  61.0 MB/s  tasks 12/20  ETA 3 s`
fn line(status: &pb::JobStatus) -> String {
    let progress = status.progress.unwrap_or_default();
    let tasks = status.tasks.unwrap_or_default();
    let rows = match progress.rows_estimate {
        0 => format!("{} rows", count(progress.rows_loaded)),
        estimate => {
            format!("{}/{} rows", count(progress.rows_loaded), count(estimate.max(progress.rows_loaded)))
        }
    };
    let mut parts = vec![rows];
    if progress.bytes_per_second > 0.0 {
        parts.push(format!("{}/s", bytes(progress.bytes_per_second)));
    }
    if tasks.total > 0 {
        parts.push(format!("tasks {}/{}", tasks.succeeded, tasks.total));
    }
    if let Some(eta) = progress.eta_seconds.filter(|_| status.state != "PAUSED") {
        parts.push(format!("ETA {}", seconds(eta)));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rows_speed_tasks_and_time_left() {
        let progress = pb::Progress {
            rows_estimate: 1_000_000,
            rows_loaded: 620_000,
            bytes_per_second: 61e6,
            eta_seconds: Some(3.2),
            ..Default::default()
        };
        let tasks = pb::TaskCounts { total: 20, succeeded: 12, ..Default::default() };
        let status = pb::JobStatus { progress: Some(progress), tasks: Some(tasks), ..Default::default() };
        assert_eq!(line(&status), "620,000/1,000,000 rows  58.2 MB/s  tasks 12/20  ETA 3 s");
        assert_eq!(line(&pb::JobStatus::default()), "0 rows");
    }
}
