//! Live progress on stderr: one line in place on a terminal, one line every ten seconds elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use starlift_proto as pb;
use tokio::time::Instant;

use crate::output::{self, Home, bytes, count, seconds};

const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows one job's way to its end.
pub(crate) struct Progress<'a> {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    last_state: String,
    home: Home<'a>,
    /// What was last said of a job that stands still.
    standstill: Option<String>,
}

impl<'a> Progress<'a> {
    /// With `json` nothing is drawn in place: stderr then belongs to log collectors.
    pub(crate) fn start(json: bool, home: Home<'a>) -> Self {
        let in_place = !json
            && std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let bar = in_place.then(|| {
            let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let bar = if colours { "{bar:24.cyan/black.bright}" } else { "{bar:24}" };
            let style = ProgressStyle::with_template(&format!("{{prefix:<10}} {bar} {{msg}}"));
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(5));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, last_line: None, last_state: String::new(), home, standstill: None }
    }

    pub(crate) fn show(&mut self, status: &pb::JobStatus) {
        if let Some(bar) = &self.bar {
            let progress = status.progress.unwrap_or_default();
            bar.set_length(progress.rows_estimate.max(progress.rows_loaded).max(1));
            bar.set_position(progress.rows_loaded);
            bar.set_prefix(status.state.clone());
            bar.set_message(line(status));
        } else if self.is_due(status) {
            eprintln!("{:<10} {}", status.state, line(status));
        }
        self.tell_standstill(status);
    }

    /// Says once why the job is paused; it may be resumed from elsewhere.
    fn tell_standstill(&mut self, status: &pb::JobStatus) {
        let standstill = (status.state == "PAUSED").then(|| output::standstill(status, self.home));
        if self.standstill == standstill {
            return;
        }
        if let Some(text) = &standstill {
            match &self.bar {
                Some(bar) => bar.suspend(|| eprint!("{text}")),
                None => eprint!("{text}"),
            }
        }
        self.standstill = standstill;
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Every ten seconds, and whenever the job's state changed.
    fn is_due(&mut self, status: &pb::JobStatus) -> bool {
        let now = Instant::now();
        let is_due =
            self.last_state != status.state || self.last_line.is_none_or(|last| now - last >= LINE_EVERY);
        if is_due {
            self.last_line = Some(now);
            self.last_state.clone_from(&status.state);
        }
        is_due
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
