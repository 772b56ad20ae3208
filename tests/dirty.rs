//! Bad rows: told and refused under `exit`, left out and kept under `batchDirtyData`, within the job's error limit. The
//! good rows are all in the target or none of their task is, and no transaction is left open.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, job};
use crate::mariadb::MariaDb;
use crate::rows;
use crate::standin::Standin;

const ROWS: u64 = 30_000;
/// Every so many rows one is bad: its text too long, its quantity NULL, its amount out of range, in turn.
const STEP: u64 = 750;
const BAD: u64 = ROWS / STEP;

struct Place {
    source: MariaDb,
    target: Standin,
    cluster: Cluster,
    kept: TempDir,
}

impl Place {
    async fn start(flags: &[&str]) -> Self {
        let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
        let insert = format!(
            "INSERT INTO items SELECT seq, \
               IF(seq % {STEP} = 0 AND seq DIV {STEP} % 3 = 0, REPEAT('x', 30), CONCAT('c', seq)), \
               IF(seq % {STEP} = 0 AND seq DIV {STEP} % 3 = 1, NULL, seq % 10), \
               IF(seq % {STEP} = 0 AND seq DIV {STEP} % 3 = 2, 5000000000, seq * 3) \
             FROM seq_1_to_{ROWS}"
        );
        source
            .run(&[
                "CREATE TABLE items (id INT PRIMARY KEY, code VARCHAR(40), qty INT, amount BIGINT)",
                &insert,
            ])
            .await;
        target
            .run(&[
                "CREATE DATABASE dw",
                "CREATE TABLE dw.items (id INT NOT NULL, code VARCHAR(20) NULL, qty INT NOT NULL, amount INT NULL) \
                 DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 2",
            ])
            .await;
        let kept = tempfile::tempdir().expect("a temporary directory");
        let sources = [source.datasource("source"), target.datasource("target", "dw")];
        let mut cluster = Cluster::start_with(&sources, 0, 0, &["--attempts", "8"]).await;
        let dir = kept.path().display().to_string();
        cluster.add_worker(2, &[&["--dirty-dir", dir.as_str()], flags].concat());
        Self { source, target, cluster, kept }
    }

    /// The report of a job that empties the target and loads it.
    async fn run(&self, strategy: &str, error_limit: Value) -> Value {
        let columns = ["id", "code", "qty", "amount"];
        let script = job(
            "mysql",
            json!({ "datasource": "source", "table": "items", "column": columns, "splitPk": "id" }),
            json!({ "datasource": "target", "table": "items", "column": columns, "loadProps": {},
                    "maxBatchRows": 8000, "preSql": ["truncate table @table"], "strategyOnError": strategy }),
            json!({ "speed": { "concurrent": 2 }, "errorLimit": error_limit }),
        );
        let job_id = self.cluster.submit(&script).await;
        let report = self.cluster.finished(&job_id).await;
        self.target.wait_until_nothing_is_open().await;
        report
    }

    async fn assert_good_rows_alone(&self) {
        let columns = "SELECT id, code, qty, amount FROM";
        let good = format!("{columns} items WHERE id % {STEP} <> 0");
        let source = rows::read(self.source.connect().await, &good).await;
        assert_eq!(source.count, ROWS - BAD);
        let target = rows::read(self.target.connect().await, &format!("{columns} dw.items")).await;
        rows::assert_same(&source, &target);
    }

    /// What every bad row's line says, by the files that the report names.
    fn lines(report: &Value) -> Vec<Value> {
        let files = report["dirty_files"].as_array().expect("files");
        let paths = files.iter().map(|file| {
            let (_host, path) = file.as_str().expect("text").split_once(':').expect("host:path");
            path
        });
        let text: String = paths.map(|path| std::fs::read_to_string(path).expect("the file")).collect();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn all_bad() -> BTreeSet<u64> {
    (1..=BAD).map(|row| row * STEP).collect()
}

fn keys(rows: &[Value]) -> BTreeSet<u64> {
    rows.iter().map(|row| row["key"].as_str().expect("text").parse().expect("a number")).collect()
}

/// The column that is at fault and words that the server has for it.
fn fault(key: u64) -> (&'static str, &'static str) {
    match key / STEP % 3 {
        0 => ("code", "too long"),
        1 => ("qty", "NULL value in non-nullable column"),
        _ => ("amount", "out of range"),
    }
}

fn files_under(dir: &Path) -> usize {
    let jobs = std::fs::read_dir(dir).expect("a directory").map(|job| job.expect("an entry").path());
    jobs.map(|job| std::fs::read_dir(job).expect("a directory").count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_left_out_and_kept_within_the_error_limit() {
    let place = Place::start(&[]).await;
    let report = place.run("batchDirtyData", json!({ "record": 100 })).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_eq!((&report["dirty_records"], &report["rows_read"]), (&json!(BAD), &json!(ROWS)));
    assert_eq!((&report["rows_loaded"], &report["rows_filtered"]), (&json!(ROWS - BAD), &json!(0)));
    place.assert_good_rows_alone().await;
    let bad = report["bad_rows"].as_array().expect("the first bad rows");
    assert_eq!(keys(bad), all_bad());
    let lines = Place::lines(&report);
    assert_eq!((lines.len() as u64, keys(&lines)), (BAD, all_bad()));
    for row in bad.iter().chain(&lines) {
        let (column, words) = fault(row["key"].as_str().expect("text").parse().expect("a number"));
        assert_eq!(row["column"], column, "{row}");
        assert!(row["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{row}");
    }
    assert!(lines.iter().all(|line| line["row"]["id"] == line["key"]), "{lines:?}");

    let files = files_under(place.kept.path());
    let report = place.run("batchDirtyData", json!({ "record": 10 })).await;
    assert_eq!(report["state"], "FAILED", "{report:#}");
    assert_eq!(report["error"]["code"], "TOO_MANY_DIRTY_RECORDS");
    let message = report["error"]["message"].as_str().expect("text");
    assert!(message.contains("too long") || message.contains("out of range"), "{message}");
    // Nothing of a task that found too many is in the target; another one may have been within the limit.
    let dirty = report["dirty_records"].as_u64().expect("a count");
    assert!(dirty <= 10, "{report:#}");
    assert_eq!(place.target.count("dw.items").await, report["rows_loaded"].as_u64().expect("a count"));
    assert!(report["rows_loaded"].as_u64() < Some(ROWS - BAD));
    assert!(files_under(place.kept.path()) <= files + 1, "a failed attempt leaves no file");

    let report = place.run("exit", json!({ "record": 1000 })).await;
    assert_eq!(report["state"], "FAILED", "{report:#}");
    assert_eq!(report["error"]["code"], "ROWS_REFUSED");
    let message = report["error"]["message"].as_str().expect("text");
    assert!(message.contains("Row:"), "the message quotes no row: {message}");
    assert_eq!(report["dirty_records"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_bad_rows_is_tolerated_and_masked_rows_show_no_value() {
    let place = Place::start(&["--mask-dirty"]).await;
    let report = place.run("BatchDirtyData", json!({ "percentage": 0.002 })).await;
    assert_eq!(
        (&report["state"], &report["dirty_records"]),
        (&json!("SUCCEEDED"), &json!(BAD)),
        "{report:#}"
    );
    place.assert_good_rows_alone().await;
    let lines = Place::lines(&report);
    assert_eq!(keys(&lines), all_bad());
    for line in lines.iter().chain(report["bad_rows"].as_array().expect("the first bad rows")) {
        assert!(!line.to_string().contains("xxx") && !line.to_string().contains("5000000000"), "{line}");
    }

    let report = place.run("batchDirtyData", json!({ "percentage": 0.001 })).await;
    assert_eq!(report["state"], "FAILED", "{report:#}");
    assert_eq!(report["error"]["code"], "TOO_MANY_DIRTY_RECORDS");
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_that_are_never_answered_are_explained_by_a_trial_with_one_row() {
    let place = Place::start(&[]).await;
    let words = "unknown column 'nonesuch' in table 'items'";
    for fault in [
        json!({ "op": "load", "label": "_t", "count": null, "do": "refuse", "status": "ANALYSIS_ERROR", "message": words }),
        json!({ "op": "load", "count": null, "do": "do_then_cut" }),
    ] {
        place.target.fault(fault).await;
    }
    let report = place.run("exit", json!({ "record": 0 })).await;
    assert_eq!(report["state"], "FAILED", "{report:#}");
    let message = report["error"]["message"].as_str().expect("text");
    assert!(message.contains("no answer") && message.contains(words), "{message}");
    // The first attempt is done again without a question; the second one learns that a third would not help.
    assert_eq!(report["retries"], 1, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_while_bad_rows_are_looked_for_make_none_of_them() {
    let place = Place::start(&[]).await;
    for (op, label) in [("prepare", "_t1"), ("begin", "_t2"), ("load", "_t0"), ("rollback", "_t3")] {
        place.target.fault(json!({ "op": op, "label": label, "count": 1, "do": "do_then_cut" })).await;
    }
    let report = place.run("batchDirtyData", json!({ "record": 100 })).await;
    assert_eq!(
        (&report["state"], &report["dirty_records"]),
        (&json!("SUCCEEDED"), &json!(BAD)),
        "{report:#}"
    );
    assert!(report["retries"].as_u64() >= Some(3), "{report:#}");
    place.assert_good_rows_alone().await;
}
