//! Faults at chosen moments: labels that somebody else has used, cancelled jobs, killed connections. Afterwards nothing
//! is open, and the report says what the target holds.

use std::process::Command;

use mysql_async::prelude::Queryable;
use serde_json::{Value, json};

use crate::cluster::{Cluster, run, workspace};
use crate::etcd::Etcd;
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::process::{output, until};
use crate::standin::{self, Standin};

const ROWS: u32 = 20_000;

async fn source_and_target(rows: u32) -> (MariaDb, Standin) {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    fill_source(&source, rows).await;
    create_target(&target).await;
    (source, target)
}

/// One call of the transaction interface, made by somebody else.
pub(crate) async fn transaction(target: &Standin, call: &str, label: &str) -> Value {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--location-trusted", "--request", "POST"]);
    command.args(["--user", &format!("{}:{}", standin::USER, standin::PASSWORD)]);
    command.args(["--header", "Expect: 100-continue", "--header", "db: dw", "--header", "table: orders"]);
    command.args(["--header", &format!("label: {label}")]);
    command.arg(format!("http://{}/api/transaction/{call}", target.addresses.fe_http[0]));
    let answer = output(command).await;
    serde_json::from_slice(&answer.stdout).unwrap_or_else(|error| panic!("{call}: {error}: {answer:?}"))
}

/// Whether a statement with this text runs at the target.
async fn runs(target: &Standin, text: &str) -> bool {
    let mut conn = target.connect().await;
    let listed: Vec<mysql_async::Row> = conn.query("SHOW PROCESSLIST").await.expect("the list");
    let mut statements = listed.iter().filter_map(|row| row.get::<Option<String>, _>("Info").flatten());
    statements.any(|statement| statement.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_the_journal_never_began_stops_the_job() {
    let (source, target) = source_and_target(ROWS).await;
    let mut cluster = Cluster::start(&datasources(&source, &target), 0, 1).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    let label = format!("sl_{job_id}_0_1_0");
    assert_eq!(transaction(&target, "begin", &label).await["Status"], "OK");
    cluster.add_worker(2, &[]);

    let report = cluster.finished(&job_id).await;
    assert_eq!((&report["state"], &report["error"]["code"]), (&json!("FAILED"), &json!("FOREIGN_LABEL")));
    assert!(report["error"]["message"].as_str().is_some_and(|text| text.contains(&label)), "{report:#}");
    // It was not touched.
    let foreign = target.transactions().await.into_iter().find(|one| one.label == label);
    assert_eq!(foreign.map(|one| one.state).as_deref(), Some("PREPARE"));
    assert_eq!(transaction(&target, "rollback", &label).await["Status"], "OK");
    target.wait_until_nothing_is_open().await;
    assert_eq!(report["rows_loaded"].as_u64(), Some(target.count("dw.orders").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cancelled_at_any_moment_leaves_nothing_open_and_says_what_is_there() {
    let (mut source, target) = source_and_target(ROWS).await;
    source.claim_rows("orders", 600_000).await;
    let cluster = Cluster::start(&datasources(&source, &target), 2, 2).await;
    for op in ["begin", "load", "prepare", "commit", "publish"] {
        // Of a dozen tasks some are done by then, some run, some wait.
        target.fault(json!({ "op": op, "count": 3, "do": "delay_before", "ms": 20 })).await;
        target.fault(json!({ "op": op, "count": null, "do": "hold" })).await;
        let job_id =
            cluster.submit(&orders_job(json!({ "preSql": ["TRUNCATE TABLE @table"] }), json!({}))).await;
        until(op, || async { target.held().await >= 1 }).await;
        cluster.client(&["cancel", &job_id]).await.succeeded();
        target.clear_faults().await;

        let report = cluster.finished(&job_id).await;
        assert_eq!(report["state"], "CANCELLED", "{op}: {report:#}");
        target.wait_until_nothing_is_open().await;
        let tasks = cluster.client(&["tasks", &job_id, "--json"]).await.succeeded().json();
        let done: Vec<&Value> =
            tasks.as_array().expect("tasks").iter().filter(|task| task["state"] == "DONE").collect();
        let rows: u64 = done.iter().filter_map(|task| task["rows_loaded"].as_u64()).sum();
        assert_eq!(rows, target.count("dw.orders").await, "{op}: {tasks:#}");
        assert_eq!(report["rows_loaded"].as_u64(), Some(rows), "{op}: {report:#}");
        assert_eq!(report["tasks"]["succeeded"].as_u64(), Some(done.len() as u64), "{op}: {report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cancelled_inside_a_statement_stops_the_statement() {
    let (source, target) = source_and_target(1_000).await;
    target.run(&["INSERT INTO dw.orders (id, shop) VALUES (1, 1)"]).await;
    let cluster = Cluster::start(&datasources(&source, &target), 1, 1).await;
    let statements = json!({ "preSql": ["SELECT SLEEP(600)", "TRUNCATE TABLE @table"] });
    let job_id = cluster.submit(&orders_job(statements, json!({}))).await;
    let runs = async || runs(&target, "SLEEP(600)").await;
    until("the statement to run", &runs).await;
    cluster.client(&["cancel", &job_id]).await.succeeded();
    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "CANCELLED", "{report:#}");
    until("the statement to be gone", async || !runs().await).await;
    assert_eq!(target.count("dw.orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_reading_connection_costs_an_attempt_and_no_row() {
    // More than all buffers between database and worker can hold.
    let (source, target) = source_and_target(200_000).await;
    target.fault(json!({ "op": "load", "count": 1, "do": "hold" })).await;
    let dir = workspace(&datasources(&source, &target));
    let mut script = orders_job(json!({ "maxBatchSize": 1_000_000 }), json!({}));
    script["steps"][0]["parameter"].as_object_mut().expect("an object").remove("splitPk");
    let kill = async {
        until("a load to be held", || async { target.held().await >= 1 }).await;
        let mut conn = source.connect().await;
        let others =
            "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND command = 'Query'";
        let reading: Vec<u64> = conn.query(others).await.expect("the list of connections");
        assert_eq!(reading.len(), 1, "one task reads");
        conn.query_drop(format!("KILL {}", reading[0])).await.expect("it was there a moment ago");
        target.post("/faults/release").await;
    };
    let (outcome, ()) = tokio::join!(run(dir.path(), &script, &[]), kill);
    let report = outcome.succeeded().json();
    assert!(report["retries"].as_u64() >= Some(1), "{report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_slept_inside_a_statement_does_not_empty_what_its_successor_loaded() {
    let (source, target) = source_and_target(ROWS).await;
    target
        .run(&[
            "CREATE TABLE dw.naps (seconds INT) DUPLICATE KEY(seconds) DISTRIBUTED BY HASH(seconds) BUCKETS 1",
            "INSERT INTO dw.naps VALUES (600)",
        ])
        .await;
    let etcd = Etcd::start().await;
    let sources = datasources(&source, &target);
    let cluster = Cluster::start_pair(&sources, &etcd.state("statement"), 1, 2).await;
    let slow = "SELECT SLEEP(seconds) FROM dw.naps";
    let statements = json!({ "preSql": [slow, "TRUNCATE TABLE @table"] });
    let job_id = cluster.submit(&orders_job(statements, json!({}))).await;
    until("the slow statement to run", || runs(&target, slow)).await;

    cluster.coordinator.signal("STOP");
    // Slow only for the one that sleeps, who would go on with the next statement.
    target.run(&["TRUNCATE TABLE dw.naps", "INSERT INTO dw.naps VALUES (0)"]).await;
    until("the other coordinator to lead", || cluster.leads(1)).await;
    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_identical(&source, &target).await;
    assert!(!runs(&target, slow).await, "the statement of the first one was stopped");

    cluster.coordinator.signal("CONT");
    until("the first coordinator to follow", || async {
        cluster.is_ready(0).await && !cluster.leads(0).await
    })
    .await;
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}
