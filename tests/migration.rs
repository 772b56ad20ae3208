//! The main job on real input: a MariaDB table full of awkward values goes into StarRocks, every row once.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Cluster, job, run, starlift, workspace, write_job};
use crate::mariadb::MariaDb;
use crate::process::{Process, until};
use crate::rows;
use crate::standin::Standin;

/// Rows of the large table; the job must survive a killed worker in the middle of it.
pub(crate) const ROWS: u32 = 200_000;

pub(crate) const COLUMNS: &str = "id, shop, amount, ratio, remark, city, created, day, note";

/// A table with NULL and negative keys, doubled keys, text of several scripts, tabs, newlines, backslashes, quotes,
/// empty strings beside NULLs, decimals and microseconds.
pub(crate) async fn fill_source(source: &MariaDb, rows: u32) {
    let insert = format!(
        "INSERT INTO orders SELECT \
           IF(seq % 50 = 0, NULL, CAST(seq AS SIGNED) * 3 - {rows}), \
           seq % 97, \
           (seq * 7919 % 1000003) / 1000 - 500, \
           SQRT(seq) * IF(seq % 2, 1, -1), \
           IF(seq % 11 = 0, NULL, CONCAT('r', seq, '\\t', 'tab\\nline\\\\back ''q\" ', REPEAT('x', seq % 40))), \
           ELT(1 + seq % 6, '東京', 'Zürich', 'Ελλάδα', '😀🚀', '', 'الرياض'), \
           TIMESTAMPADD(MICROSECOND, seq * 1000003, '2020-02-29 23:59:59'), \
           DATE_ADD('1999-12-31', INTERVAL seq % 9000 DAY), \
           IF(seq % 3 = 0, NULL, '\\r\\n,;|') \
         FROM seq_1_to_{rows}"
    );
    source
        .run(&[
            "CREATE TABLE orders (id BIGINT NULL, shop INT NOT NULL, amount DECIMAL(18,4), ratio DOUBLE, \
             remark VARCHAR(200), city VARCHAR(40), created DATETIME(6), day DATE, note TEXT, KEY (id)) \
             DEFAULT CHARSET utf8mb4",
            &insert,
        ])
        .await;
}

/// The same columns at the target.
pub(crate) async fn create_target(target: &Standin) {
    target
        .run(&[
            "CREATE DATABASE dw",
            "CREATE TABLE dw.orders (id BIGINT NULL, shop INT NOT NULL, amount DECIMAL(18,4) NULL, ratio DOUBLE NULL, \
             remark VARCHAR(800) NULL, city VARCHAR(160) NULL, created DATETIME NULL, day DATE NULL, note STRING NULL) \
             DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 4",
        ])
        .await;
}

/// Reads `orders` by `id` and loads it; `writer` and `setting` are merged into the defaults.
pub(crate) fn orders_job(writer: Value, setting: Value) -> Value {
    let columns: Vec<&str> = COLUMNS.split(", ").collect();
    let mut target = json!({ "datasource": "target", "table": "orders", "column": columns, "loadProps": {} });
    merge(&mut target, writer);
    let mut settings = json!({ "speed": { "concurrent": 4 }, "errorLimit": { "record": 0 } });
    merge(&mut settings, setting);
    let reader = json!({ "datasource": "source", "table": "orders", "column": columns, "splitPk": "id" });
    job("mysql", reader, target, settings)
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// The data sources `source` and `target`.
pub(crate) fn datasources(source: &MariaDb, target: &Standin) -> Vec<String> {
    vec![source.datasource("source"), target.datasource("target", "dw")]
}

/// `starlift run` of an `orders` job of two tasks, interrupted when one of them is committed. Answers what it said.
pub(crate) async fn run_and_interrupt(dir: &Path, script: &Value, target: &Standin) -> String {
    // The task with keys is held before its end; the one with NULL keys is done by then.
    target.fault(json!({ "op": "prepare", "label": "_0_1_0", "count": 1, "do": "hold" })).await;
    let mut command = starlift(dir);
    command.arg("run").arg(write_job(dir, script)).args([
        "--datasources",
        "datasources.toml",
        "--slots",
        "2",
    ]);
    let mut interrupted = Process::start("run", &mut command, dir);
    until("one of two tasks to be committed", || async {
        target.transactions().await.iter().any(|one| one.label.starts_with("sl_") && one.state == "VISIBLE")
    })
    .await;
    interrupted.signal("INT");
    assert_eq!(interrupted.ended().await.code(), Some(130));
    target.post("/faults/release").await;
    interrupted.log()
}

/// Panics unless the target holds the source's rows, each as often.
pub(crate) async fn assert_identical(source: &MariaDb, target: &Standin) {
    let wanted = rows::read(source.connect().await, &format!("SELECT {COLUMNS} FROM shop.orders")).await;
    let found = rows::read(target.connect().await, &format!("SELECT {COLUMNS} FROM dw.orders")).await;
    rows::assert_same(&wanted, &found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_costs_no_row_and_doubles_none() {
    let (source, target) =
        (MariaDb::start().await, Standin::start(&["--fe-http", "127.0.0.1:0,127.0.0.1:0"]).await);
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    let sources = datasources(&source, &target);
    let mut cluster = Cluster::start_with(&sources, 3, 2, &["--lease", "5s"]).await;

    // Small batches and a pause before each prepare keep every worker busy long enough to be hit.
    target.fault(json!({ "op": "prepare", "count": null, "do": "delay_before", "ms": 300 })).await;
    let script =
        orders_job(json!({ "maxBatchSize": 1_048_576, "preSql": ["truncate table @table"] }), json!({}));
    let job_id = cluster.submit(&script).await;
    crate::process::until("the transfer to be under way", || async {
        cluster.status(&job_id).await["tasks"]["running"].as_u64() >= Some(3)
    })
    .await;
    cluster.workers[0].kill();

    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_eq!((&report["rows_read"], &report["rows_loaded"]), (&json!(ROWS), &json!(ROWS)));
    assert!(report["retries"].as_u64() >= Some(1), "the killed worker's task was granted again: {report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
    for worker in &cluster.workers[1..] {
        let peak = worker.peak_memory();
        assert!((1..200 << 20).contains(&peak), "a worker's peak memory is {peak} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_prints_one_report_that_agrees_with_the_server() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    fill_source(&source, 5_000).await;
    create_target(&target).await;
    let dir = workspace(&datasources(&source, &target));

    for (format, part) in [("csv", "dw.orders"), ("json", "dw.orders")] {
        let script = orders_job(
            json!({ "loadProps": { "format": format }, "preSql": ["truncate table @table"] }),
            json!({ "speed": { "concurrent": 2 } }),
        );
        let report = run(dir.path(), &script, &["--workers", "2"]).await.succeeded().json();
        assert_eq!(report["state"], "SUCCEEDED");
        assert_eq!(report["rows_loaded"].as_u64(), Some(target.count(part).await), "{format}");
        let transactions = target.transactions().await;
        let job_id = report["job_id"].as_str().expect("a report names its job");
        let visible =
            transactions.iter().filter(|one| one.label.contains(job_id) && one.state == "VISIBLE").count();
        assert_eq!(report["transactions"].as_u64(), Some(visible as u64), "{format}");
        assert_identical(&source, &target).await;
    }
}
