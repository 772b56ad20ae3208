//! The commands against a live cluster: each prints one JSON document, plan touches nothing, REST agrees with gRPC.

use serde_json::{Value, json};

use crate::cluster::{Cluster, Outcome, run, starlift, workspace, write_job};
use crate::mariadb::MariaDb;
use crate::migration::{
    assert_identical, create_target, datasources, fill_source, orders_job, run_and_interrupt,
};
use crate::process::output;
use crate::standin::Standin;

#[tokio::test(flavor = "multi_thread")]
async fn every_command_answers_and_rest_agrees() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    fill_source(&source, 2_000).await;
    create_target(&target).await;
    let cluster = Cluster::start(&datasources(&source, &target), 1, 2).await;
    let report = cluster.submit_and_watch(&orders_job(json!({}), json!({}))).await.succeeded().json();
    let job_id = report["job_id"].as_str().expect("a report names its job");

    let listed = cluster.client(&["list", "--json"]).await.succeeded().json();
    assert!(listed.to_string().contains(job_id), "{listed}");
    let tasks = cluster.client(&["tasks", job_id, "--json"]).await.succeeded().json();
    assert!(tasks.to_string().contains("key is NULL"), "a nullable key has a task of its own: {tasks}");
    let workers = cluster.client(&["workers", "--json"]).await.succeeded().json();
    assert!(workers.to_string().contains("worker_id"), "{workers}");
    let status = cluster.status(job_id).await;
    assert_eq!(status["state"], "SUCCEEDED");
    assert_eq!(status["progress"]["rows_loaded"], report["rows_loaded"]);

    let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
    let get = |path: String| http.get(format!("{}{path}", cluster.rest())).send();
    let rest: Value =
        get(format!("/api/v1/jobs/{job_id}")).await.expect("REST answers").json().await.expect("JSON");
    assert_eq!((&rest["job_id"], &rest["state"]), (&status["job_id"], &status["state"]));
    let jobs = get("/api/v1/jobs".into()).await.expect("REST answers").text().await.expect("text");
    assert!(jobs.contains(job_id));
    assert_eq!(get("/livez".into()).await.expect("it lives").status(), 200);
    let metrics = get("/metrics".into()).await.expect("metrics").text().await.expect("text");
    assert!(metrics.contains("starlift_"), "{metrics}");

    let unknown = cluster.client(&["status", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "--json"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_shows_the_tasks_and_touches_nothing() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    fill_source(&source, 2_000).await;
    create_target(&target).await;
    target.run(&["INSERT INTO dw.orders (id, shop) VALUES (1, 1)"]).await;
    let dir = workspace(&datasources(&source, &target));
    let file = write_job(dir.path(), &orders_job(json!({ "preSql": ["truncate table @table"] }), json!({})));
    for flag in ["--json", "--datasources=datasources.toml"] {
        let mut command = starlift(dir.path());
        command.arg("plan").arg(&file).args(["--datasources", "datasources.toml"]);
        if flag == "--json" {
            command.arg(flag);
        }
        let outcome = Outcome::from(output(command).await).succeeded();
        assert!(outcome.stdout.contains("IS NULL"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("FROM `shop`.`orders`"), "{}", outcome.stdout);
    }
    assert_eq!(target.count("dw.orders").await, 1);
    let open = target.transactions().await.iter().filter(|one| one.is_open()).count();
    assert_eq!(open, 0, "planning left a transaction open");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_is_resumed_by_the_same_command_and_by_no_other_job() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    fill_source(&source, 2_000).await;
    create_target(&target).await;
    target.run(&["CREATE TABLE dw.ran (n INT) DUPLICATE KEY(n)"]).await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(json!({ "preSql": ["insert into dw.ran values (1)"] }), json!({}));
    let log = run_and_interrupt(dir.path(), &script, &target).await;
    assert!(log.contains("To resume:"), "{log}");

    let other = orders_job(json!({ "maxBatchRows": 7 }), json!({}));
    let refused = run(dir.path(), &other, &[]).await;
    assert_eq!((refused.code, &refused.json()["error"]["code"]), (2, &json!("JOB_CHANGED")));

    let report = run(dir.path(), &script, &[]).await.succeeded().json();
    assert_eq!(report["rows_loaded"], 2_000);
    assert_eq!(target.count("dw.ran").await, 1, "a preSql that had completed was run again");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_makes_no_sense_is_refused_with_what_would() {
    let dir = workspace(&[]);
    let job = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let elsewhere = ["--state", "elsewhere"];
    for (arguments, hint) in [
        (vec!["resolve", job, "3", "--reason", "seen"], "--committed"),
        (vec!["resolve", job, "3", "--committed", "--redo", "--reason", "seen"], "cannot be used with"),
        (vec!["resolve", job, "3", "--redo"], "--reason"),
        ([&["status", job], &elsewhere[..]].concat(), "--state"),
        ([&["tasks", job], &elsewhere[..]].concat(), "--state"),
        ([&["resolve", job, "3", "--redo", "--reason", "seen"], &elsewhere[..]].concat(), "--state"),
    ] {
        let mut command = starlift(dir.path());
        command.args(&arguments);
        let outcome = Outcome::from(output(command).await);
        assert_eq!(outcome.code, 2, "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(hint), "{arguments:?}: {outcome:?}");
    }
    assert!(!dir.path().join("elsewhere").exists(), "looking for a job makes no directory");
}
