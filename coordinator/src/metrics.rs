//! What `/metrics` shows, in the text form of OpenMetrics. Made anew from the state at every scrape, so it cannot drift.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use starlift_link::readings::Readings;

use crate::clock::Now;
use crate::driver::Saves;
use crate::state::job::Counts;
use crate::state::{Counters, State};
use starlift_common::job::JobState;

/// Every state is shown, also one that no job is in: an absent series alarms nobody.
const JOB_STATES: [JobState; 10] = [
    JobState::Pending,
    JobState::Planning,
    JobState::PreSql,
    JobState::Running,
    JobState::Committing,
    JobState::PostSql,
    JobState::Succeeded,
    JobState::Failed,
    JobState::Cancelled,
    JobState::Paused,
];

/// The numbers of one scrape.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Numbers {
    /// 1 on the coordinator that leads; a follower shows it with nothing else to count.
    leader: u64,
    jobs: BTreeMap<&'static str, u64>,
    tasks: BTreeMap<&'static str, u64>,
    workers: u64,
    slots: u64,
    slots_busy: u64,
    queue_depth: u64,
    waiting_workers: u64,
    labels_to_sweep: u64,
    tables_held_back: u64,
    stalled_seconds: u64,
    saves: u64,
    save_micros: u64,
    saves_failed: u64,
    counters: Counters,
}

impl Numbers {
    /// Looks at the jobs, not at their tasks.
    pub(crate) fn of(state: &State, now: Now) -> Self {
        let jobs = JOB_STATES.iter().map(|state| (state.as_str(), 0)).collect();
        let mut numbers = Self { leader: 1, counters: state.counters(), jobs, ..Self::default() };
        let mut tasks = Counts::default();
        for (id, job) in state.jobs() {
            *numbers.jobs.entry(job.shown_state().as_str()).or_default() += 1;
            numbers.labels_to_sweep += u64::from(state.sweeps().labels_of(id));
            if job.state().is_final() {
                // The tasks of ended jobs are in their reports, but what waits for a human must be seen until it is settled.
                tasks.undecided += job.counts().undecided;
                continue;
            }
            tasks.add(job.counts());
            numbers.queue_depth += job.queue().depth() as u64;
        }
        numbers.tasks = BTreeMap::from([
            ("WAITING", u64::from(tasks.waiting)),
            ("RUNNING", u64::from(tasks.running)),
            ("COMMITTING", u64::from(tasks.committing)),
            ("DONE", u64::from(tasks.done)),
            ("FAILED", u64::from(tasks.failed)),
            ("UNDECIDED", u64::from(tasks.undecided)),
        ]);
        for worker in state.workers() {
            numbers.workers += 1;
            numbers.slots += u64::from(worker.info.slots);
            numbers.slots_busy += u64::from(worker.running);
        }
        numbers.waiting_workers = state.parked() as u64;
        numbers.tables_held_back = state.pressure().capped() as u64;
        numbers.stalled_seconds = state.stalled(now).as_secs();
        numbers
    }

    /// Adds how the journal has kept up, which a follower that led before tells, too.
    pub(crate) fn with(self, saves: &Saves) -> Self {
        let [saves, save_micros, saves_failed] =
            [&saves.done, &saves.micros, &saves.failed].map(|count| count.load(Ordering::Relaxed));
        Self { saves, save_micros, saves_failed, ..self }
    }

    /// The text that a scraper reads, with what is noted of this process' files.
    pub(crate) fn render(self, readings: Readings) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("starlift_coordinator");
        registry.register_collector(Box::new(self));
        registry.register_collector(Box::new(readings));
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        by_state(&mut encoder, "jobs", "Jobs by state", &self.jobs)?;
        by_state(&mut encoder, "tasks", "Tasks of unfinished jobs by state", &self.tasks)?;
        let stalled = "How long the unfinished job that has not got on for longest has stood still";
        let gauges = [
            ("leader", "Whether this coordinator leads", None, self.leader),
            ("workers", "Workers heard of lately", None, self.workers),
            ("slots", "Tasks that the workers can run at once", None, self.slots),
            ("slots_busy", "Tasks that the workers hold", None, self.slots_busy),
            ("queue_depth", "Tasks that wait for a worker or for their next attempt", None, self.queue_depth),
            ("waiting_workers", "Requests for work that wait for a task", None, self.waiting_workers),
            ("labels_to_sweep", "Dead labels that are not known to be closed", None, self.labels_to_sweep),
            (
                "tables_held_back",
                "Target tables that get fewer tasks at once for now",
                None,
                self.tables_held_back,
            ),
            ("stalled", stalled, Some(Unit::Seconds), self.stalled_seconds),
        ];
        for (name, help, unit, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let encoder = encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?;
            gauge.encode(encoder)?;
        }
        let mut build =
            encoder.encode_descriptor("build", "The version that runs", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let counters = &self.counters;
        #[expect(clippy::cast_precision_loss, reason = "nobody saves for 285 years")]
        let seconds = ConstCounter::new(self.save_micros as f64 / 1e6);
        let help = "What these saves took together";
        let encoder_of_seconds =
            encoder.encode_descriptor("save", help, Some(&Unit::Seconds), seconds.metric_type())?;
        seconds.encode(encoder_of_seconds)?;
        let counted = [
            ("saves", "Saves of the state that were done", None, self.saves),
            (
                "saves_failed",
                "Saves of the state that failed, each of which ends a term",
                None,
                self.saves_failed,
            ),
            ("grants", "Tasks leased", None, counters.grants),
            ("lease_expiries", "Leases that ran out", None, counters.lease_expiries),
            ("stale_reports", "Reports under a dead epoch", None, counters.stale_reports),
            ("transactions", "Transactions committed", None, counters.transactions),
            ("dirty_records", "Rows left out as bad", None, counters.dirty_records),
            ("rows_read", "Rows read by committed tasks", None, counters.rows_read),
            ("read", "Cell bytes read by committed tasks", Some(Unit::Bytes), counters.bytes_read),
            ("rows_loaded", "Rows loaded by committed tasks", None, counters.rows_loaded),
            ("loaded", "Body bytes loaded by committed tasks", Some(Unit::Bytes), counters.bytes_loaded),
        ];
        for (name, help, unit, value) in counted {
            let counter = ConstCounter::new(value);
            let encoder = encoder.encode_descriptor(name, help, unit.as_ref(), counter.metric_type())?;
            counter.encode(encoder)?;
        }
        let failures = [
            ("transient", counters.failures_transient),
            ("permanent", counters.failures_permanent),
            ("distress", counters.failures_distress),
            ("unknown", counters.failures_unknown),
        ];
        let kind = ConstCounter::new(0u64).metric_type();
        let mut family =
            encoder.encode_descriptor("attempts_failed", "Attempts that failed, by class", None, kind)?;
        for (class, value) in failures {
            ConstCounter::new(value).encode(family.encode_family(&[("class", class)])?)?;
        }
        Ok(())
    }
}

fn by_state(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: &BTreeMap<&'static str, u64>,
) -> Result<(), fmt::Error> {
    let kind = ConstGauge::new(0i64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (state, value) in values {
        let gauge = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
        gauge.encode(family.encode_family(&[("state", *state)])?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_every_number_with_its_unit() {
        let numbers = Numbers { jobs: BTreeMap::from([("RUNNING", 2)]), slots: 8, ..Numbers::default() };
        let page = numbers.render(Readings::default()).expect("text");
        assert!(page.contains("starlift_coordinator_jobs{state=\"RUNNING\"} 2"), "{page}");
        assert!(page.contains("starlift_coordinator_slots 8"), "{page}");
        assert!(page.contains("starlift_coordinator_loaded_bytes_total 0"), "{page}");
        assert!(page.contains("starlift_coordinator_attempts_failed_total{class=\"distress\"} 0"), "{page}");
    }
}
