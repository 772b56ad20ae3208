//! `commit = "job"`: readers see none of a job's rows or all of them, whatever fails in between.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::process::until;
use crate::standin::Standin;

const ROWS: u32 = 20_000;
/// 30 % of the 20 open transactions that the target allows. By its size the table would make 20 tasks.
const TASKS: u64 = 6;

async fn source_and_target() -> (MariaDb, Standin) {
    // By itself this server would keep what is prepared for a minute.
    let mut flags =
        vec!["--starrocks-version", "3.5.4", "--prepared-transaction-default-timeout-second", "60"];
    flags.extend(["--max-running-txn-num-per-db", "20"]);
    let (mut source, target) = tokio::join!(MariaDb::start(), Standin::start(&flags));
    fill_source(&source, ROWS).await;
    source.claim_rows("orders", 1_000_000).await;
    create_target(&target).await;
    (source, target)
}

/// All tasks at once.
fn one_commit() -> Value {
    orders_job(json!({}), json!({ "speed": { "concurrent": 6 }, "starlift": { "commit": "job" } }))
}

async fn count(target: &Standin, state: &str) -> u64 {
    target.transactions().await.iter().filter(|transaction| transaction.state == state).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_visible_before_the_last_task_is_prepared() {
    let (source, target) = source_and_target().await;
    let cluster = Cluster::start(&datasources(&source, &target), 2, 3).await;
    target.fault(json!({ "op": "prepare", "count": 1, "do": "hold" })).await;
    let job_id = cluster.submit(&one_commit()).await;
    until("all tasks but one to be prepared", || async { count(&target, "PREPARED").await == TASKS - 1 })
        .await;
    assert_eq!((target.held().await, target.count("dw.orders").await), (1, 0));
    assert_eq!(cluster.status(&job_id).await["state"], "RUNNING");
    let mut prepared = target.transactions().await;
    prepared.retain(|transaction| transaction.state == "PREPARED");
    assert!(prepared.iter().all(|transaction| transaction.prepared_timeout_ms == 86_400_000), "{prepared:?}");

    target.clear_faults().await;
    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_eq!(report["tasks"]["total"].as_u64(), Some(TASKS), "{report:#}");
    assert!(report["warnings"].to_string().contains("6 transactions open"), "{report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_among_the_commits_finishes_them() {
    let (source, target) = source_and_target().await;
    let mut cluster = Cluster::start(&datasources(&source, &target), 2, 3).await;
    target.fault(json!({ "op": "commit", "count": 2, "do": "hold" })).await;
    let job_id = cluster.submit(&one_commit()).await;
    until("commits to be held", || async { target.held().await == 2 }).await;
    cluster.coordinator.kill();
    let committed = target.count("dw.orders").await;
    assert!(committed < u64::from(ROWS), "{committed} rows are visible already");

    target.clear_faults().await;
    cluster.restart_coordinator().await;
    let report = cluster.finished(&job_id).await;
    assert_eq!((&report["state"], &report["rows_loaded"]), (&json!("SUCCEEDED"), &json!(ROWS)), "{report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_for_good_leaves_nothing_visible_and_nothing_open() {
    let (source, target) = source_and_target().await;
    let cluster = Cluster::start(&datasources(&source, &target), 2, 3).await;
    // Task 3, held until the others are prepared.
    target.fault(json!({ "op": "load", "label": "_3_1_", "count": 1, "do": "hold" })).await;
    target
        .fault(json!({ "op": "prepare", "label": "_3_1_", "count": null, "do": "refuse",
                       "status": "INTERNAL_ERROR", "message": "too many filtered rows" }))
        .await;
    let job_id = cluster.submit(&one_commit()).await;
    until("all other tasks to be prepared", || async { count(&target, "PREPARED").await == TASKS - 1 }).await;
    target.post("/faults/release").await;

    let report = cluster.finished(&job_id).await;
    assert_eq!(
        (&report["state"], &report["error"]["code"]),
        (&json!("FAILED"), &json!("ROWS_REFUSED")),
        "{report:#}"
    );
    assert_eq!(report["rows_loaded"], 0, "{report:#}");
    target.wait_until_nothing_is_open().await;
    assert_eq!((target.count("dw.orders").await, count(&target, "VISIBLE").await), (0, 0));
}
