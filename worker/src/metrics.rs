//! The worker's metrics, as `/metrics` shows them. Counters only go up; nothing here is read by the program.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use starlift_link::readings::Readings;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: &'static str,
}

/// How an attempt can end.
const OUTCOMES: [&str; 9] = [
    "prepared",
    "loaded",
    "failed_transient",
    "failed_permanent",
    "failed_unknown",
    "distress",
    "given_back",
    "stale",
    "abandoned",
];

/// The calls whose failures are counted.
const CALLS: [&str; 3] = ["acquire", "heartbeat", "report"];

/// Handles for those who count, and the registry for those who ask.
pub(crate) struct Metrics {
    registry: Registry,
    pub rows_read: Counter,
    pub bytes_read: Counter,
    pub rows_sent: Counter,
    pub bytes_sent: Counter,
    pub load_seconds: Histogram,
    pub tasks_running: Gauge<i64>,
    pub leases_lost: Counter,
    pub rows_dirty: Counter,
    pub trials: Counter,
    tasks: Family<Outcome, Counter>,
    coordinator_failures: Family<Call, Counter>,
}

impl Metrics {
    pub(crate) fn new(slots: u32) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("starlift_worker"),
            rows_read: Counter::default(),
            bytes_read: Counter::default(),
            rows_sent: Counter::default(),
            bytes_sent: Counter::default(),
            // 10 ms to about 3 minutes
            load_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 15)),
            tasks_running: Gauge::default(),
            leases_lost: Counter::default(),
            rows_dirty: Counter::default(),
            trials: Counter::default(),
            tasks: Family::default(),
            coordinator_failures: Family::default(),
        };
        metrics.register(slots);
        // A series that begins with its first event hides that event from `increase`.
        for outcome in OUTCOMES {
            drop(metrics.tasks.get_or_create(&Outcome { outcome }));
        }
        for call in CALLS {
            drop(metrics.coordinator_failures.get_or_create(&Call { call }));
        }
        metrics
    }

    /// Shows what is noted of this process' files, too.
    pub(crate) fn with(mut self, readings: Readings) -> Self {
        self.registry.register_collector(Box::new(readings));
        self
    }

    fn register(&mut self, slots: u32) {
        let registry = &mut self.registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "the version that runs", version);
        let slots_gauge = Gauge::<i64>::default();
        slots_gauge.set(slots.into());
        registry.register("slots", "tasks it runs at once", slots_gauge);
        registry.register("tasks_running", "tasks it holds", self.tasks_running.clone());
        registry.register("rows_read", "rows read from sources", self.rows_read.clone());
        let help = "cell bytes read from sources";
        registry.register_with_unit("read", help, Unit::Bytes, self.bytes_read.clone());
        registry.register("rows_sent", "rows in loads that were answered OK", self.rows_sent.clone());
        let help = "body bytes of loads that were answered OK";
        registry.register_with_unit("sent", help, Unit::Bytes, self.bytes_sent.clone());
        let help = "from the first byte of a load to its answer";
        registry.register_with_unit("load", help, Unit::Seconds, self.load_seconds.clone());
        registry.register("leases_lost", "tasks stopped because their lease ended", self.leases_lost.clone());
        let help = "rows found to be bad, also by attempts that failed later";
        registry.register("rows_dirty", help, self.rows_dirty.clone());
        let help = "transactions that tried rows out and were rolled back";
        registry.register("trials", help, self.trials.clone());
        registry.register("tasks", "tasks that ended, by outcome", self.tasks.clone());
        let help = "calls to the coordinator without an answer";
        registry.register("coordinator_failures", help, self.coordinator_failures.clone());
    }

    pub(crate) fn task_ended(&self, outcome: &'static str) {
        self.tasks.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn coordinator_failed(&self, call: &'static str) {
        self.coordinator_failures.get_or_create(&Call { call }).inc();
    }

    /// OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _written = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown() {
        let metrics = Metrics::new(4);
        metrics.rows_read.inc_by(7);
        metrics.task_ended("prepared");
        let text = metrics.text();
        for line in [
            "starlift_worker_slots 4",
            "starlift_worker_rows_read_total 7",
            r#"tasks_total{outcome="prepared"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
