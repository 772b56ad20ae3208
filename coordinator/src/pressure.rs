//! How many tasks may load into one target table at once. Pure. A server in distress halves it, every good task lets it
//! rise by one, slowly; all jobs that load into the table share it. What counts as distress is said in
//! `starlift_common::retry`.

use std::collections::BTreeMap;
use std::time::Duration;

use starlift_common::job::LoadSpec;

use crate::clock::Millis;

/// Between two lowerings of a table's cap: failures under load come in crowds.
const PAUSE: Duration = Duration::from_secs(10);

/// Before the cap rises: a calm server deserves some time.
const CALM: Duration = Duration::from_secs(5);

/// A target table, over all jobs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    pub datasource: String,
    pub database: String,
    pub table: String,
}

impl Table {
    pub fn of(load: &LoadSpec) -> Self {
        Self {
            datasource: load.datasource.clone(),
            database: load.database.clone(),
            table: load.table.clone(),
        }
    }
}

/// The tables that are being loaded, or that were in distress.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Pressure {
    gauges: BTreeMap<Table, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Gauge {
    running: u32,
    limit: Option<Limit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Limit {
    /// Most tasks at once for now.
    cap: u32,
    /// Tasks that ran when the server first asked for less: from here on the cap is of no use any more.
    known_bad: u32,
    changed: Millis,
}

impl Pressure {
    /// Whether one more task may start.
    pub fn has_room(&self, table: &Table) -> bool {
        self.gauges
            .get(table)
            .is_none_or(|gauge| gauge.limit.as_ref().is_none_or(|limit| gauge.running < limit.cap))
    }

    /// The table's cap, while it has one.
    pub fn cap(&self, table: &Table) -> Option<u32> {
        self.gauges.get(table)?.limit.as_ref().map(|limit| limit.cap)
    }

    /// Tables that have a cap at the moment.
    pub fn capped(&self) -> usize {
        self.gauges.values().filter(|gauge| gauge.limit.is_some()).count()
    }

    pub fn started(&mut self, table: &Table) {
        match self.gauges.get_mut(table) {
            Some(gauge) => gauge.running += 1,
            None => drop(self.gauges.insert(table.clone(), Gauge { running: 1, limit: None })),
        }
    }

    pub fn ended(&mut self, table: &Table) {
        let Some(gauge) = self.gauges.get_mut(table) else { return };
        gauge.running = gauge.running.saturating_sub(1);
        if *gauge == Gauge::default() {
            self.gauges.remove(table);
        }
    }

    /// The server asked for less load.
    pub fn distress(&mut self, table: &Table, now: Millis) {
        let gauge = self.gauges.entry(table.clone()).or_default();
        let running = gauge.running.max(1);
        match &mut gauge.limit {
            Some(limit) if now.since(limit.changed) < PAUSE => {}
            Some(limit) => {
                limit.cap = (limit.cap.min(running) / 2).max(1);
                limit.changed = now;
            }
            None => gauge.limit = Some(Limit { cap: (running / 2).max(1), known_bad: running, changed: now }),
        }
    }

    /// A task went well.
    pub fn relief(&mut self, table: &Table, now: Millis) {
        let Some(gauge) = self.gauges.get_mut(table) else { return };
        let Some(limit) = gauge.limit.as_mut().filter(|limit| now.since(limit.changed) >= CALM) else {
            return;
        };
        limit.cap += 1;
        limit.changed = now;
        if limit.cap > limit.known_bad {
            gauge.limit = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Table {
        Table { datasource: "dw".into(), database: "dw".into(), table: name.into() }
    }

    fn at(seconds: u64) -> Millis {
        Millis(seconds * 1000)
    }

    fn loaded(tasks: u32) -> Pressure {
        let mut pressure = Pressure::default();
        for _ in 0..tasks {
            pressure.started(&table("orders"));
        }
        pressure
    }

    #[test]
    fn a_crowd_of_distressed_tasks_halves_the_cap_once() {
        let mut pressure = loaded(8);
        for _ in 0..8 {
            pressure.distress(&table("orders"), at(0));
            pressure.ended(&table("orders"));
        }
        assert_eq!(pressure.cap(&table("orders")), Some(4));
        assert!(pressure.has_room(&table("orders")));
        assert_eq!(pressure.cap(&table("items")), None);
    }

    #[test]
    fn distress_that_goes_on_leaves_one_task_and_never_none() {
        let mut pressure = loaded(8);
        for turn in 0..9 {
            pressure.distress(&table("orders"), at(turn * 10));
        }
        assert_eq!(pressure.cap(&table("orders")), Some(1));
    }

    #[test]
    fn a_calm_server_gets_its_tasks_back_one_by_one_until_the_cap_is_lifted() {
        let mut pressure = loaded(4);
        pressure.distress(&table("orders"), at(0));
        pressure.relief(&table("orders"), at(4));
        assert_eq!(pressure.cap(&table("orders")), Some(2));
        for turn in 1..=2 {
            pressure.relief(&table("orders"), at(turn * 10));
        }
        assert_eq!(pressure.cap(&table("orders")), Some(4));
        pressure.relief(&table("orders"), at(30));
        assert_eq!(pressure.cap(&table("orders")), None);
    }

    #[test]
    fn an_idle_table_without_a_cap_is_forgotten() {
        let mut pressure = loaded(1);
        pressure.ended(&table("orders"));
        assert_eq!(pressure, Pressure::default());
    }
}
