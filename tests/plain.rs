//! Servers before 2.4, which have no transactions: each task is one Stream Load that commits by itself. Every row
//! arrives once all the same, whoever dies and whatever answer gets lost, as long as the server remembers the labels.

use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{Cluster, run, workspace};
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::process::{output, until};
use crate::standin::{self, Standin};

const ROWS: u32 = 20_000;

/// A source that is cut into several tasks, and an old target with further flags.
async fn source_and_old_target(flags: &[&str]) -> (MariaDb, Standin) {
    let old = ["--no-transactions", "--starrocks-version", "2.3.1", "--fe-http", "127.0.0.1:0,127.0.0.1:0"];
    let flags: Vec<&str> = old.iter().chain(flags).copied().collect();
    let (mut source, target) = tokio::join!(MariaDb::start(), Standin::start(&flags));
    fill_source(&source, ROWS).await;
    source.claim_rows("orders", 250_000).await;
    create_target(&target).await;
    (source, target)
}

async fn has_open_load(target: &Standin) -> bool {
    target.transactions().await.iter().any(|load| load.state == "PREPARE")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_gets_every_row_once_and_a_warning() {
    let (source, target) = source_and_old_target(&[]).await;
    let dir = workspace(&datasources(&source, &target));
    for format in ["csv", "json"] {
        let script = orders_job(
            json!({ "loadProps": { "format": format }, "preSql": ["truncate table @table"] }),
            json!({}),
        );
        let report = run(dir.path(), &script, &["--workers", "2"]).await.succeeded().json();
        assert_eq!(
            (&report["rows_read"], &report["rows_loaded"]),
            (&json!(ROWS), &json!(ROWS)),
            "{report:#}"
        );
        assert!(report["warnings"].to_string().contains("no transactions of Stream Load"), "{report:#}");
        assert_identical(&source, &target).await;
        let job_id = report["job_id"].as_str().expect("a report names its job");
        let loads =
            target.transactions().await.into_iter().filter(|load| load.label.contains(job_id)).count();
        assert_eq!(report["tasks"]["total"].as_u64(), Some(loads as u64), "one load per task: {report:#}");
        assert!(loads >= 5, "{loads} tasks");
    }

    let script = orders_job(
        json!({ "strategyOnError": "batchDirtyData" }),
        json!({ "starlift": { "commit": "job" } }),
    );
    let refused = run(dir.path(), &script, &[]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stdout.contains("batchDirtyData needs transactions"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_plain_loads_cost_no_row_and_double_none() {
    let (source, target) = source_and_old_target(&["--wrapped-begin-errors"]).await;
    for fault in [
        json!({ "op": "stream_load", "count": 2, "do": "do_then_cut" }),
        json!({ "op": "stream_load", "count": 1, "do": "do_then_answer",
                "status": "Fail", "message": "Commit transaction fail: Transaction status unknown" }),
        json!({ "op": "stream_load", "count": 1, "do": "cut_body", "after_bytes": 4096 }),
        json!({ "op": "get_load_state", "count": 1, "do": "cut" }),
    ] {
        target.fault(fault).await;
    }
    let cluster = Cluster::start(&datasources(&source, &target), 2, 2).await;
    let report = cluster.submit_and_watch(&orders_job(json!({}), json!({}))).await.succeeded().json();
    assert_eq!(report["rows_loaded"], json!(ROWS), "{report:#}");
    assert_identical(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_plain_load_costs_no_row_and_doubles_none() {
    let (source, target) = source_and_old_target(&["--be-bytes-per-second", "400000"]).await;
    let sources = datasources(&source, &target);
    let mut cluster = Cluster::start_with(&sources, 1, 2, &["--lease", "2s"]).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    until("a load to run", || has_open_load(&target)).await;
    cluster.workers[0].kill();
    cluster.add_worker(4, &[]);

    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert!(report["retries"].as_u64() >= Some(1), "{report:#}");
    assert_identical(&source, &target).await;
    assert!(!has_open_load(&target).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_asleep_in_a_plain_load_finds_its_label_taken() {
    let (source, target) = source_and_old_target(&[]).await;
    let mut cluster = Cluster::start_with(&datasources(&source, &target), 1, 1, &["--lease", "2s"]).await;
    target.fault(json!({ "op": "stream_load", "count": 1, "do": "hold" })).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    until("a load to be held", || async { target.held().await == 1 }).await;
    cluster.workers[0].signal("STOP");
    cluster.add_worker(2, &[]);

    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    // The first request goes on only now that another one has loaded its rows under the same label.
    target.clear_faults().await;
    cluster.workers[0].signal("CONT");
    until("the late load to be over", || async { target.held().await == 0 && !has_open_load(&target).await })
        .await;
    assert_identical(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_label_stops_a_job_of_plain_loads() {
    let (source, target) = source_and_old_target(&[]).await;
    let mut cluster = Cluster::start(&datasources(&source, &target), 0, 1).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    let answer = somebodys_load(&target, &format!("sl_{job_id}_2")).await;
    assert_eq!(answer["Status"], "Success", "{answer:#}");
    // One at a time: a plain load that is on its way when the job ends may still be done.
    cluster.add_worker(1, &[]);
    let report = cluster.finished(&job_id).await;
    assert_eq!(
        (&report["state"], &report["error"]["code"]),
        (&json!("FAILED"), &json!("FOREIGN_LABEL")),
        "{report:#}"
    );
    assert_eq!(report["rows_loaded"].as_u64().map(|rows| rows + 1), Some(target.count("dw.orders").await));
}

/// One row, loaded by somebody else.
async fn somebodys_load(target: &Standin, label: &str) -> Value {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--request", "PUT", "--data-binary", "7,7"]);
    command.args(["--user", &format!("{}:{}", standin::USER, standin::PASSWORD)]);
    command.args(["--header", "columns: id,shop", "--header", "column_separator: ,"]);
    command.args(["--header", &format!("label: {label}")]);
    command.arg(format!("http://{}/api/dw/orders/_stream_load", target.addresses.be_http[0]));
    let answer = output(command).await;
    serde_json::from_slice(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}
