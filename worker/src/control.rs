//! What the agent and a running task share: orders one way, progress the other. No channel between them is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use starlift_common::task::{LabelsBegun, Progress};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::budget::Purse;

/// One task's orders and progress.
pub(crate) struct Control {
    /// The lease is over or the coordinator said stop: no further load, prepare or report.
    pub stop: CancellationToken,
    /// The worker is leaving: roll back and hand the task to another.
    pub give_back: CancellationToken,
    pub progress: ProgressCell,
    /// Where reading is paid for in a job with a speed limit.
    pub purse: Option<Arc<Purse>>,
    confirmed: watch::Sender<bool>,
    /// The task's own share of the limit; 0 = no limit.
    bytes_per_second: AtomicU64,
}

impl Control {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        let control = Self {
            stop: CancellationToken::new(),
            give_back: CancellationToken::new(),
            progress: ProgressCell::default(),
            purse: None,
            confirmed: watch::Sender::new(false),
            bytes_per_second: AtomicU64::default(),
        };
        control.set_speed(bytes_per_second.unwrap_or_default());
        control
    }

    /// The first heartbeat was answered: from now on transactions may begin.
    pub(crate) fn confirm(&self) {
        self.confirmed.send_replace(true);
    }

    pub(crate) async fn confirmed(&self) {
        let mut confirmed = self.confirmed.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _confirmed = confirmed.wait_for(|confirmed| *confirmed).await;
    }

    pub(crate) fn set_speed(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    pub(crate) fn speed(&self) -> Option<u64> {
        Some(self.bytes_per_second.load(Ordering::Relaxed)).filter(|speed| *speed > 0)
    }
}

/// [`Progress`] that one side writes while the other reads. The fields need not fit each other at every moment.
#[derive(Debug, Default)]
pub(crate) struct ProgressCell {
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
    rows_sent: AtomicU64,
    bytes_sent: AtomicU64,
    parts_begun: AtomicU32,
    trials_begun: AtomicU32,
}

impl ProgressCell {
    pub(crate) fn read(&self, rows: u64, bytes: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, rows: u64, bytes: u64) {
        self.rows_sent.fetch_add(rows, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_begun(&self, begun: LabelsBegun) {
        self.parts_begun.store(begun.parts, Ordering::Relaxed);
        self.trials_begun.store(begun.trials, Ordering::Relaxed);
    }

    /// The range is read again from its start. Labels are not given back.
    pub(crate) fn start_over(&self) {
        for count in [&self.rows_read, &self.bytes_read, &self.rows_sent, &self.bytes_sent] {
            count.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Progress {
        Progress {
            rows_read: self.rows_read.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            rows_sent: self.rows_sent.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            begun: LabelsBegun {
                parts: self.parts_begun.load(Ordering::Relaxed),
                trials: self.trials_begun.load(Ordering::Relaxed),
            },
        }
    }
}
