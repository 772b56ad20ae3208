//! From samples to the table that is printed: medians, ratios, and what each of them must be. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// What one run of one case took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) rows: u64,
    /// Bytes of text in the cells.
    pub(crate) text: u64,
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    /// 0 where it was not asked for.
    pub(crate) peak_mb: f64,
}

impl Sample {
    fn cpu_per_million(&self) -> f64 {
        self.cpu_s / million(self.rows)
    }

    fn wall_per_million(&self) -> f64 {
        self.wall_s / million(self.rows)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
fn million(count: u64) -> f64 {
    count as f64 / 1e6
}

/// All samples, by case.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Cases in the order of their first sample.
    order: Vec<String>,
    samples: BTreeMap<String, Vec<Sample>>,
    /// Cases that could not be run, and why.
    missing: Vec<(String, String)>,
    /// What must hold beside the ratios of the cases.
    others: Vec<Claim>,
}

/// One line of what must hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    pub(crate) text: String,
    /// `None` where a case is missing.
    pub(crate) value: Option<f64>,
    pub(crate) bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Claim {
    pub(crate) fn holds(&self) -> Option<bool> {
        self.value.map(|value| match self.bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        })
    }
}

impl Results {
    pub(crate) fn add(&mut self, case: &str, sample: Sample) {
        if !self.samples.contains_key(case) {
            self.order.push(case.to_owned());
        }
        self.samples.entry(case.to_owned()).or_default().push(sample);
    }

    /// What a coordinator with `store` has shown, as `starlift-bench coordinator --json` prints it.
    pub(crate) fn add_coordinator(&mut self, store: &str, shown: &Value) {
        let least = if store == "etcd" { 1_500.0 } else { 5_000.0 };
        for (part, name) in [("empty", "tasks without rows"), ("commits", "tasks with a commit")] {
            let part = &shown[part];
            let text = |what: &str| format!("{store}, {name}: {what}");
            let flat_out = &part["flat_out"];
            let both = flat_out["grants_per_second"].as_f64().zip(flat_out["reports_per_second"].as_f64());
            self.others.extend([
                at_least(&text("grants + reports/s"), least, both.map(|(grants, reports)| grants + reports)),
                at_most(&text("grant p99, ms"), 50.0, part["paced"]["grant_p99_ms"].as_f64()),
                at_most(&text("memory, MB"), 400.0, part["peak_mb"].as_f64()),
                at_most(&text("idle, cores"), 0.3, part["idle_cores"].as_f64()),
            ]);
        }
    }

    /// Says why a case has no samples; the first reason stays.
    pub(crate) fn miss(&mut self, case: &str, why: &str) {
        if !self.missing.iter().any(|(known, _)| known == case) {
            self.missing.push((case.to_owned(), why.to_owned()));
        }
    }

    pub(crate) fn is_missing(&self, case: &str) -> bool {
        self.missing.iter().any(|(known, _)| known == case)
    }

    /// The median over the samples of a case.
    fn median(&self, case: &str, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.samples.get(case)?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            Some(values[middle])
        } else {
            Some(f64::midpoint(values[middle - 1], values[middle]))
        }
    }

    fn cpu(&self, case: &str) -> Option<f64> {
        self.median(case, Sample::cpu_per_million)
    }

    fn wall(&self, case: &str) -> Option<f64> {
        self.median(case, Sample::wall_per_million)
    }

    /// Everything that must hold, with the numbers found.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        // Too few rows take no time that could be measured.
        let ratio = |left: Option<f64>, right: Option<f64>| Some(left? / right.filter(|right| *right > 0.0)?);
        let floors =
            |table: &str| Some(self.cpu(&format!("{table} raw x1"))? + self.cpu(&format!("{table} curl"))?);
        let (csv, sling) = ("lineitem csv 2 slots", "lineitem sling");
        let mut claims = vec![
            at_most(
                "reader floor (a) / mysql_async (b), CPU: else void",
                0.3,
                ratio(self.cpu("lineitem raw x1"), self.cpu("lineitem mysql_async")),
            ),
            at_most(
                "worker / floors (a)+(c), lineitem CSV, CPU",
                1.8,
                ratio(self.cpu(csv), floors("lineitem")),
            ),
            at_most(
                "worker / mysql_async (b) alone, CPU",
                0.6,
                ratio(self.cpu(csv), self.cpu("lineitem mysql_async")),
            ),
            at_least("Sling / worker, CPU", 50.0, ratio(self.cpu(sling), self.cpu(csv))),
            at_least(
                "Sling / whole job, wall",
                15.0,
                ratio(self.wall(sling), self.wall("lineitem job 2 slots")),
            ),
            at_most(
                "2 slots / raw reader with 2 connections, wall",
                1.35,
                ratio(self.wall(csv), self.wall("lineitem raw x2")),
            ),
        ];
        for table in ["wide", "narrow"] {
            let case = format!("{table} csv 2 slots");
            let text = format!("worker / floors (a)+(c), {table} CSV, CPU");
            claims.push(at_most(&text, 1.8, ratio(self.cpu(&case), floors(table))));
        }
        claims.push(at_most("JSON / CSV, CPU", 3.0, ratio(self.cpu("lineitem json 2 slots"), self.cpu(csv))));
        let added = |more: &str, less: &str| Some(self.cpu(more)? - self.cpu(less)?);
        let packing = added("lineitem lz4 alone", "lineitem read alone");
        claims.push(at_most(
            "lz4 on top of CSV / lz4 alone, CPU",
            1.3,
            ratio(added("lineitem csv+lz4 2 slots", csv), packing),
        ));
        claims.push(at_most(
            "5 MiB batches / 64 MiB batches, CPU",
            1.05,
            ratio(self.cpu("lineitem csv 2 slots 5 MiB"), self.cpu(csv)),
        ));
        for case in ["lineitem csv 4 slots", "lineitem_large csv 4 slots", "texts csv 4 slots"] {
            let peak =
                self.samples.get(case).map(|all| all.iter().map(|one| one.peak_mb).fold(0.0, f64::max));
            claims.push(at_most(&format!("peak memory, {case}, MB"), 150.0, peak));
        }
        for (workers, case) in
            [(2.0, "scaling 2 workers"), (4.0, "scaling 4 workers"), (8.0, "scaling 8 workers")]
        {
            let faster = ratio(self.wall("scaling 1 workers"), self.wall(case));
            claims.push(at_least(&format!("efficiency, {case}"), 0.95, faster.map(|times| times / workers)));
        }
        claims.extend_from_slice(&self.others);
        claims
    }

    /// The whole table.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:<32} {:>4} {:>9} {:>9} {:>10} {:>8} {:>8}",
            "case", "runs", "CPU s/M", "wall s", "rows/s", "MB/s", "peak MB"
        );
        for case in &self.order {
            let number = |of: &dyn Fn(&Sample) -> f64| self.median(case, of).unwrap_or(0.0);
            let wall = number(&|one| one.wall_s);
            let rate = |of: &dyn Fn(&Sample) -> f64| number(&|one| of(one) / one.wall_s.max(1e-9));
            let peak = number(&|one| one.peak_mb);
            let peak = if peak > 0.0 { format!("{peak:.0}") } else { "-".to_owned() };
            let _ = writeln!(
                text,
                "{case:<32} {:>4} {:>9.3} {wall:>9.2} {:>10.0} {:>8.1} {peak:>8}",
                self.samples.get(case).map_or(0, Vec::len),
                number(&Sample::cpu_per_million),
                rate(&|one| million(one.rows) * 1e6),
                rate(&|one| million(one.text)),
            );
        }
        for (case, why) in &self.missing {
            let _ = writeln!(text, "{case:<32} not run: {why}");
        }
        text.push('\n');
        for claim in self.claims() {
            let (sign, bound) = match claim.bound {
                Bound::AtMost(bound) => ("<=", bound),
                Bound::AtLeast(bound) => (">=", bound),
            };
            let verdict = match claim.holds() {
                Some(true) => "pass",
                Some(false) => "FAIL",
                None => "not measured",
            };
            let value = claim.value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            let _ = writeln!(text, "{:<56} {value:>8} {sign} {bound:<6} {verdict}", claim.text);
        }
        text
    }
}

fn at_most(text: &str, most: f64, value: Option<f64>) -> Claim {
    Claim { text: text.to_owned(), value, bound: Bound::AtMost(most) }
}

fn at_least(text: &str, least: f64, value: Option<f64>) -> Claim {
    Claim { text: text.to_owned(), value, bound: Bound::AtLeast(least) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_s: f64) -> Sample {
        Sample { rows: 2_000_000, text: 1, wall_s: 1.0, cpu_s, peak_mb: 10.0 }
    }

    #[test]
    fn ratios_are_of_medians_per_million_rows() {
        let mut results = Results::default();
        for (case, times) in [
            ("lineitem raw x1", [0.2, 9.0, 0.3]),
            ("lineitem curl", [0.1, 0.1, 0.1]),
            ("lineitem mysql_async", [2.0, 1.5, 2.5]),
            ("lineitem csv 2 slots", [0.6, 0.6, 5.0]),
        ] {
            times.into_iter().for_each(|cpu| results.add(case, sample(cpu)));
        }
        let claims = results.claims();
        let near = |claim: &Claim, wanted: f64| (claim.value.unwrap() - wanted).abs() < 1e-9;
        assert!(near(&claims[0], 0.15) && claims[0].holds() == Some(true), "{:?}", claims[0]);
        assert!(near(&claims[1], 1.5) && claims[1].holds() == Some(true), "{:?}", claims[1]);
        assert!(near(&claims[2], 0.3), "{:?}", claims[2]);
        assert_eq!(claims[3].holds(), None);
        assert!(
            results.render().contains("lineitem mysql_async                3     1.000"),
            "{}",
            results.render()
        );
    }

    #[test]
    fn a_coordinator_is_judged_by_its_store() {
        let flat_out = serde_json::json!({ "grants_per_second": 1_000.0, "reports_per_second": 900.0 });
        let shown = serde_json::json!({ "empty": { "flat_out": flat_out, "idle_cores": 0.31 } });
        let verdicts = |store: &str| {
            let mut results = Results::default();
            results.add_coordinator(store, &shown);
            results.others.iter().map(Claim::holds).collect::<Vec<_>>()
        };
        let not_measured = vec![None; 4];
        let rest = [None, None, Some(false)];
        assert_eq!(verdicts("etcd"), [vec![Some(true)], rest.to_vec(), not_measured.clone()].concat());
        assert_eq!(verdicts("file"), [vec![Some(false)], rest.to_vec(), not_measured].concat());
    }

    #[test]
    fn a_case_that_could_not_run_says_why_once() {
        let mut results = Results::default();
        results.miss("lineitem sling", "no network");
        results.miss("lineitem sling", "again");
        assert!(results.is_missing("lineitem sling"));
        assert!(results.render().contains("not run: no network"));
        assert!(!results.render().contains("again"));
    }
}
