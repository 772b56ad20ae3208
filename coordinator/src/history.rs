//! How fast a job has gone, for the chart of whoever opens its page: counts at some moments, kept in memory while the job
//! runs and for a while after it. Nothing of it is stored; a new leader begins anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use starlift_common::ids::JobId;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::leader::Desk;
use crate::report;
use crate::state::State;

/// Most moments kept of one job: when there are more, every second one goes and they are taken half as often.
const SAMPLES: usize = 600;
/// Jobs of which something is kept; the oldest are forgotten first.
const JOBS: usize = 200;
const EVERY: Duration = Duration::from_secs(1);

/// What a job had done at one moment, running tasks as last heard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Since the job was submitted.
    pub(crate) seconds: f64,
    pub(crate) rows_read: u64,
    pub(crate) bytes_read: u64,
    pub(crate) rows_loaded: u64,
    pub(crate) bytes_loaded: u64,
}

/// The moments of one job, in order.
#[derive(Debug, Default)]
struct History {
    samples: Vec<Sample>,
    /// One of so many samples offered is kept.
    stride: u32,
    skipped: u32,
    has_ended: bool,
}

impl History {
    fn add(&mut self, sample: Sample) {
        if self.skipped < self.stride {
            self.skipped += 1;
            return;
        }
        self.skipped = 0;
        self.samples.push(sample);
        if self.samples.len() > SAMPLES {
            let mut is_kept = false;
            self.samples.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.stride = 2 * self.stride + 1;
        }
    }

    /// The last moment counts however long ago the one before was.
    fn end(&mut self, sample: Sample) {
        self.skipped = self.stride;
        self.add(sample);
        self.has_ended = true;
    }
}

/// The moments of all jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histories {
    jobs: Arc<Mutex<BTreeMap<JobId, History>>>,
}

impl Histories {
    pub(crate) fn of(&self, job: JobId) -> Vec<Sample> {
        self.lock().get(&job).map(|history| history.samples.clone()).unwrap_or_default()
    }

    /// Looks at all jobs again and again while this coordinator leads.
    pub(crate) async fn record(&self, desk: &Desk, stop: &CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let Ok(handle) = desk.handle() else { continue };
            let watched = self.running();
            if let Ok(seen) = handle.read(move |state, now| seen(state, &watched, now)).await {
                self.take(seen);
            }
        }
    }

    /// Jobs whose end has not been seen.
    fn running(&self) -> Vec<JobId> {
        self.lock().iter().filter(|(_, history)| !history.has_ended).map(|(id, _)| *id).collect()
    }

    fn take(&self, seen: Vec<Seen>) {
        let mut jobs = self.lock();
        for Seen { job, sample, has_ended } in seen {
            let history = jobs.entry(job).or_default();
            if has_ended {
                history.end(sample);
            } else {
                history.add(sample);
                // A failed job may be resumed.
                history.has_ended = false;
            }
        }
        while jobs.len() > JOBS {
            jobs.pop_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, History>> {
        // Whatever a panicking holder left behind is a chart.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Seen {
    job: JobId,
    sample: Sample,
    has_ended: bool,
}

/// All jobs that are not over, and those `watched` that are over now.
fn seen(state: &State, watched: &[JobId], now: Now) -> Vec<Seen> {
    let wanted = state.jobs().filter(|(id, job)| job.report().is_none() || watched.contains(id));
    wanted
        .map(|(id, job)| {
            let (progress, elapsed) = report::so_far(state, id, job, now.unix);
            let sample = Sample {
                seconds: elapsed,
                rows_read: progress.rows_read,
                bytes_read: progress.bytes_read,
                rows_loaded: progress.rows_loaded,
                bytes_loaded: progress.bytes_loaded,
            };
            Seen { job: id, sample, has_ended: job.report().is_some() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u32) -> Sample {
        let rows = u64::from(seconds);
        Sample {
            seconds: seconds.into(),
            rows_read: rows,
            bytes_read: rows,
            rows_loaded: rows,
            bytes_loaded: rows,
        }
    }

    #[test]
    fn a_long_job_keeps_its_beginning_and_its_end_in_bounded_space() {
        let mut history = History::default();
        for second in 0..100_000 {
            history.add(sample(second));
        }
        history.end(sample(100_000));
        let seconds: Vec<f64> = history.samples.iter().map(|sample| sample.seconds).collect();
        assert!((SAMPLES / 2..=SAMPLES + 1).contains(&seconds.len()), "{}", seconds.len());
        assert_eq!((seconds[0], seconds[seconds.len() - 1]), (0.0, 100_000.0));
        assert!(seconds.is_sorted());
        let gaps: Vec<f64> = seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let widest = gaps.iter().copied().fold(0.0, f64::max);
        assert!(widest <= 512.0, "{widest}");
    }

    #[test]
    fn the_oldest_jobs_are_forgotten() {
        let histories = Histories::default();
        let of = |number| JobId::from_parts(number, 0);
        for number in 0..=JOBS as u64 {
            histories.take(vec![Seen { job: of(number), sample: sample(1), has_ended: number % 2 == 0 }]);
        }
        assert!(histories.of(of(0)).is_empty());
        assert_eq!(histories.of(of(1)), [sample(1)]);
        assert_eq!(histories.running().len(), JOBS / 2);
    }
}
