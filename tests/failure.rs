//! What breaks on the way: lost answers, cut connections, restarted coordinators, cancelled jobs. Afterwards the target
//! holds every row once, or the report says what it holds, and no transaction is left open.

use serde_json::json;

use crate::cluster::{Cluster, run, workspace};
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::process::until;
use crate::standin::Standin;

const ROWS: u32 = 20_000;

async fn small_source_and_target() -> (MariaDb, Standin) {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    (source, target)
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_broken_bodies_cost_no_row() {
    let (source, target) = small_source_and_target().await;
    for fault in [
        json!({ "op": "begin", "count": 2, "do": "do_then_cut" }),
        json!({ "op": "load", "count": 2, "do": "cut_body", "after_bytes": 4096 }),
        json!({ "op": "load", "count": 1, "do": "do_then_cut" }),
        json!({ "op": "prepare", "count": 1, "do": "do_then_cut" }),
        json!({ "op": "commit", "count": 2, "do": "do_then_cut" }),
        json!({ "op": "commit", "count": 1, "do": "refuse", "status": "FAILED", "message": "publish timeout: 20000" }),
    ] {
        target.fault(fault).await;
    }
    let sources = datasources(&source, &target);
    let cluster = Cluster::start_with(&sources, 1, 2, &["--attempts", "10"]).await;
    let script = orders_job(json!({}), json!({ "speed": { "concurrent": 2 } }));
    let report = cluster.submit_and_watch(&script).await.succeeded().json();
    assert!(report["retries"].as_u64() >= Some(3), "{report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pressure_never_fails_a_job() {
    let (source, target) = small_source_and_target().await;
    let pressure = "current running txns on db 10005 is 1000, larger than limit 1000";
    let fault =
        json!({ "op": "begin", "count": 4, "do": "refuse", "status": "INTERNAL_ERROR", "message": pressure });
    target.fault(fault).await;
    let dir = workspace(&datasources(&source, &target));
    let report = run(dir.path(), &orders_job(json!({}), json!({})), &[]).await.succeeded().json();
    assert_eq!(report["rows_loaded"], json!(ROWS));
    assert_identical(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_coordinator_goes_on_where_it_was() {
    let (source, target) = small_source_and_target().await;
    let mut cluster = Cluster::start(&datasources(&source, &target), 2, 2).await;
    target.fault(json!({ "op": "prepare", "count": null, "do": "delay_before", "ms": 500 })).await;
    let script =
        orders_job(json!({ "preSql": ["truncate table @table"] }), json!({ "speed": { "concurrent": 4 } }));
    let job_id = cluster.submit(&script).await;
    until("tasks to run", || async { cluster.status(&job_id).await["tasks"]["running"].as_u64() >= Some(1) })
        .await;
    cluster.restart_coordinator().await;

    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_database_is_read_again() {
    let (mut source, target) = small_source_and_target().await;
    let cluster = Cluster::start(&datasources(&source, &target), 1, 1).await;
    target.fault(json!({ "op": "load", "count": 1, "do": "hold" })).await;
    let job_id = cluster.submit(&orders_job(json!({ "maxBatchSize": 65_536 }), json!({}))).await;
    until("a load to be held", || async { target.transactions().await.iter().any(|one| one.is_open()) })
        .await;
    source.restart().await;
    target.post("/faults/release").await;

    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_through_its_lease_does_no_harm() {
    let (source, target) = small_source_and_target().await;
    let sources = datasources(&source, &target);
    let mut cluster = Cluster::start_with(&sources, 1, 2, &["--lease", "2s"]).await;
    target.fault(json!({ "op": "prepare", "count": 2, "do": "delay_before", "ms": 1000 })).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    until("a transaction to be open", || async {
        target.transactions().await.iter().any(|one| one.is_open())
    })
    .await;

    cluster.workers[0].signal("STOP");
    cluster.add_worker(2, &[]);
    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    cluster.workers[0].signal("CONT");
    target.wait_until_nothing_is_open().await;
    assert_identical(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_worker_finishes_what_it_holds_and_exits_well() {
    let (source, target) = small_source_and_target().await;
    let mut cluster = Cluster::start(&datasources(&source, &target), 1, 1).await;
    target.fault(json!({ "op": "prepare", "count": 1, "do": "delay_before", "ms": 1000 })).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    until("a transaction to be open", || async {
        target.transactions().await.iter().any(|one| one.is_open())
    })
    .await;

    cluster.workers[0].signal("TERM");
    assert!(cluster.workers[0].ended().await.success());
    until("the task it held to be committed", || async {
        cluster.status(&job_id).await["tasks"]["succeeded"].as_u64() >= Some(1)
    })
    .await;
    cluster.add_worker(1, &[]);
    assert_eq!(cluster.finished(&job_id).await["retries"], 0);
    assert_identical(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_nothing_open_and_says_what_is_there() {
    let (source, target) = small_source_and_target().await;
    let cluster = Cluster::start(&datasources(&source, &target), 2, 1).await;
    target.fault(json!({ "op": "prepare", "count": null, "do": "delay_before", "ms": 1500 })).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    until("a transaction to be open", || async {
        target.transactions().await.iter().any(|one| one.is_open())
    })
    .await;

    cluster.client(&["cancel", &job_id]).await.succeeded();
    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "CANCELLED", "{report:#}");
    target.wait_until_nothing_is_open().await;
    assert_eq!(report["rows_loaded"].as_u64(), Some(target.count("dw.orders").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_fail_the_job_and_are_shown() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    source
        .run(&[
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))",
            "INSERT INTO t VALUES (1, 'fine'), (2, 'far too long')",
        ])
        .await;
    target
        .run(&[
            "CREATE DATABASE dw",
            "CREATE TABLE dw.t (id INT, v VARCHAR(5) NULL) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1",
        ])
        .await;
    let dir = workspace(&datasources(&source, &target));
    let columns = ["id", "v"];
    let script = crate::cluster::job(
        "mysql",
        json!({ "datasource": "source", "table": "t", "column": columns, "splitPk": "id" }),
        json!({ "datasource": "target", "table": "t", "column": columns, "loadProps": {}, "postSql": ["truncate table @table"] }),
        json!({ "speed": { "concurrent": 1 } }),
    );
    let outcome = run(dir.path(), &script, &[]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let report = outcome.json();
    assert_eq!((&report["state"], &report["error"]["code"]), (&json!("FAILED"), &json!("ROWS_REFUSED")));
    assert!(
        report["error"]["message"].as_str().is_some_and(|text| text.contains("far too long")),
        "{report:#}"
    );
    assert_eq!(target.count("dw.t").await, 0);
    target.wait_until_nothing_is_open().await;
}
