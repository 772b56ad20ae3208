//! How fast a job and its workers are now, from the statuses heard in the last seconds. Pure: time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use starlift_proto as pb;
use tokio::time::Instant;

/// Long enough for several heartbeats of every worker, short enough to be called now.
const WINDOW: Duration = Duration::from_secs(10);

/// Statuses that are closer to each other count as one, so that a large job's window stays small.
const APART: Duration = Duration::from_millis(500);

/// A moving average over the differences of successive statuses. Bytes that are read again after a failure count
/// again, and a total that falls, as when a task is given back, never makes a speed negative.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// Oldest first; the last one is the newest status.
    samples: VecDeque<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    /// Cell bytes read.
    bytes: u64,
    /// Body bytes by worker.
    workers: BTreeMap<String, u64>,
}

impl Rates {
    pub(crate) fn note(&mut self, status: &pb::JobStatus, now: Instant) {
        let sample = Sample {
            at: now,
            bytes: status.progress.unwrap_or_default().bytes_read,
            workers: status.workers.iter().map(|share| (share.id.clone(), share.bytes)).collect(),
        };
        let before_last = self.samples.len().checked_sub(2).and_then(|index| self.samples.get(index));
        if before_last.is_some_and(|sample| now.saturating_duration_since(sample.at) < APART) {
            self.samples.pop_back();
        }
        self.samples.push_back(sample);
        // The one at the edge stays: the differences have to reach back over the whole window.
        while self.samples.get(1).is_some_and(|sample| now.saturating_duration_since(sample.at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Bytes read in a second; `None` before two statuses were heard.
    pub(crate) fn of_job(&self) -> Option<f64> {
        self.speed(|sample| Some(sample.bytes))
    }

    /// Bytes in a second that StarRocks has answered for; `None` of a worker that was heard of once at most.
    pub(crate) fn of_worker(&self, id: &str) -> Option<f64> {
        self.speed(|sample| sample.workers.get(id).copied())
    }

    fn speed(&self, bytes: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        let mut moved = 0;
        let mut took = Duration::ZERO;
        for (earlier, later) in self.samples.iter().zip(self.samples.iter().skip(1)) {
            if let (Some(before), Some(after)) = (bytes(earlier), bytes(later)) {
                moved += after.saturating_sub(before);
                took += later.at.saturating_duration_since(earlier.at);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
        (took > Duration::ZERO).then(|| moved as f64 / took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: u64, workers: &[(&str, u64)]) -> pb::JobStatus {
        let share = |(id, bytes): &(&str, u64)| pb::WorkerShare {
            id: (*id).into(),
            bytes: *bytes,
            ..Default::default()
        };
        pb::JobStatus {
            progress: Some(pb::Progress { bytes_read: bytes, ..Default::default() }),
            workers: workers.iter().map(share).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn one_status_has_no_speed() {
        let mut rates = Rates::default();
        assert_eq!(rates.of_job(), None);
        rates.note(&status(7_000, &[("a", 7_000)]), Instant::now());
        assert_eq!((rates.of_job(), rates.of_worker("a"), rates.of_worker("b")), (None, None, None));
    }

    #[test]
    fn what_was_before_the_window_does_not_count() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        // A gigabyte in the first second, then a thousand bytes in each.
        rates.note(&status(0, &[]), start);
        for second in 1..=60 {
            rates.note(&status(1_000_000_000 + second * 1_000, &[]), start + Duration::from_secs(second));
        }
        assert_eq!(rates.of_job(), Some(1_000.0));
        // Nothing more comes: after a window the job stands still.
        for second in 61..=71 {
            rates.note(&status(1_000_060_000, &[]), start + Duration::from_secs(second));
        }
        assert_eq!(rates.of_job(), Some(0.0));
    }

    #[test]
    fn statuses_in_quick_succession_are_kept_as_few() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for tick in 0..1_000 {
            rates.note(&status(tick * 200, &[("a", tick * 100)]), start + Duration::from_millis(tick * 200));
        }
        assert!(rates.samples.len() <= 30, "{}", rates.samples.len());
        let whole = |rate: Option<f64>| rate.unwrap().round();
        assert_eq!((whole(rates.of_job()), whole(rates.of_worker("a"))), (1_000.0, 500.0));
    }

    #[test]
    fn a_total_that_falls_or_begins_late_is_no_speed() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let second = |number| start + Duration::from_secs(number);
        rates.note(&status(5_000, &[("a", 5_000)]), second(0));
        rates.note(&status(1_000, &[("a", 1_000), ("late", 900_000)]), second(1));
        rates.note(&status(3_000, &[("a", 3_000), ("late", 900_500)]), second(2));
        assert_eq!(rates.of_job(), Some(1_000.0));
        assert_eq!((rates.of_worker("a"), rates.of_worker("late")), (Some(1_000.0), Some(500.0)));
    }
}
