//! What people do to running jobs: pause, resume, resolve, drain, interrupt. Finished work is never done again, and
//! nothing goes on that was told to stand still.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::{Cluster, Outcome, job, run, starlift, workspace, write_job};
use crate::etcd::Etcd;
use crate::faults::transaction;
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::process::{Process, output, until};
use crate::standin::Standin;

const ROWS: u32 = 6_000;

const NO_JOB: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

/// A source of [`ROWS`] rows, which is cut in two tasks: number 0 has the keys, number 1 the NULL keys. The target also
/// has a table `ran`, in which statements leave a trace.
async fn source_and_target() -> (MariaDb, Standin) {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    target.run(&["CREATE TABLE dw.ran (n INT) DUPLICATE KEY(n)"]).await;
    (source, target)
}

/// Where the tasks of a job stand, and under which epochs.
fn epochs(tasks: &Value, state: &str) -> Vec<(u64, u64)> {
    let tasks = tasks.as_array().expect("a list of tasks");
    let there = tasks.iter().filter(|task| task["state"] == state);
    there.filter_map(|task| Some((task["task_id"].as_u64()?, task["epoch"].as_u64()?))).collect()
}

async fn tasks(cluster: &Cluster, job_id: &str) -> Value {
    cluster.client(&["tasks", job_id, "--json"]).await.succeeded().json()
}

/// A command about a job that `starlift run` has left in its state directory.
async fn offline(dir: &Path, arguments: &[&str]) -> Outcome {
    let mut command = starlift(dir);
    command.args(arguments).args(["--state", ".starlift", "--json"]);
    output(command).await.into()
}

async fn done(cluster: &Cluster, job_id: &str) -> u64 {
    cluster.status(job_id).await["tasks"]["succeeded"].as_u64().expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_finishes_what_runs_and_starts_nothing_until_it_is_resumed() {
    let (mut source, target) = source_and_target().await;
    source.run(&["CREATE TABLE small (id INT PRIMARY KEY)", "INSERT INTO small VALUES (1), (2)"]).await;
    target.run(&["CREATE TABLE dw.small (id INT) DUPLICATE KEY(id)"]).await;
    source.claim_rows("orders", 600_000).await;
    let cluster = Cluster::start(&datasources(&source, &target), 1, 2).await;
    target.fault(json!({ "op": "prepare", "count": null, "do": "hold" })).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({ "speed": { "concurrent": 2 } }))).await;
    until("two tasks to run", || async { target.held().await == 2 }).await;

    let paused = cluster.client(&["pause", &job_id]).await.succeeded();
    assert!(paused.stdout.contains("2 tasks that run are finished"), "{paused:?}");
    assert!(paused.stdout.contains(&format!("starlift resume {job_id}")), "{paused:?}");
    let mut watch = cluster.watch(&job_id);
    target.clear_faults().await;
    until("what ran to be committed", || async { done(&cluster, &job_id).await == 2 }).await;
    let count = target.count("dw.orders").await;

    // The workers are free: another job passes by.
    let columns = json!(["id"]);
    let small = job(
        "mysql",
        json!({ "datasource": "source", "table": "small", "column": columns }),
        json!({ "datasource": "target", "table": "small", "column": columns, "loadProps": {} }),
        json!({}),
    );
    cluster.submit_and_watch(&small).await.succeeded();
    let status = cluster.status(&job_id).await;
    assert_eq!((&status["state"], &status["paused_in"]), (&json!("PAUSED"), &json!("RUNNING")), "{status:#}");
    assert_eq!((&status["tasks"]["succeeded"], &status["tasks"]["running"]), (&json!(2), &json!(0)));
    assert!(status["tasks"]["waiting"].as_u64() >= Some(5), "{status:#}");
    assert_eq!(target.count("dw.orders").await, count);
    let listed = cluster.client(&["list"]).await.succeeded();
    assert!(listed.stdout.contains("PAUSED"), "{listed:?}");

    let resumed = cluster.client(&["resume", &job_id]).await.succeeded();
    assert!(resumed.stdout.contains("2 of "), "{resumed:?}");
    let report = cluster.finished(&job_id).await;
    assert_eq!((&report["state"], &report["retries"]), (&json!("SUCCEEDED"), &json!(0)), "{report:#}");
    assert_identical(&source, &target).await;
    assert!(watch.ended().await.success(), "{}", watch.log());
    assert!(watch.log().contains("was paused by request in RUNNING"), "{}", watch.log());
    assert!(watch.log().contains("Records read"), "{}", watch.log());
    for command in ["pause", "resume"] {
        let refused = cluster.client(&[command, &job_id, "--json"]).await;
        assert_eq!((refused.code, &refused.json()["error"]["code"]), (2, &json!("WRONG_STATE")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_resumed_with_what_it_has_not_done() {
    let (source, target) = source_and_target().await;
    let cluster = Cluster::start_with(&datasources(&source, &target), 1, 2, &["--attempts", "1"]).await;
    target.fault(json!({ "op": "begin", "label": "_0_1_0", "do": "hold" })).await;
    let refusal = json!({ "op": "prepare", "label": "_0_1_0", "do": "refuse", "status": "INTERNAL_ERROR", "message": "out of luck" });
    target.fault(refusal).await;
    let job_id =
        cluster.submit(&orders_job(json!({ "preSql": ["insert into dw.ran values (1)"] }), json!({}))).await;
    until("the other task to be done", || async { done(&cluster, &job_id).await == 1 }).await;
    target.post("/faults/release").await;

    let watched = cluster.client(&["watch", &job_id]).await;
    assert_eq!(watched.code, 1, "{watched:?}");
    assert!(watched.stdout.contains("out of luck"), "{watched:?}");
    assert!(watched.stderr.contains(&format!("starlift resume {job_id}")), "{watched:?}");
    let before = tasks(&cluster, &job_id).await;
    assert_eq!(epochs(&before, "DONE"), [(1, 1)], "{before:#}");
    assert_eq!(epochs(&before, "FAILED"), [(0, 1)], "{before:#}");

    cluster.client(&["resume", &job_id]).await.succeeded();
    let report = cluster.finished(&job_id).await;
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_eq!(epochs(&tasks(&cluster, &job_id).await, "DONE"), [(0, 2), (1, 1)]);
    assert_eq!(target.count("dw.ran").await, 1, "a preSql that had completed was run again");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_post_sql_is_mended_and_the_same_run_does_only_the_rest() {
    let (source, target) = source_and_target().await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(
        json!({
            "preSql": ["insert into dw.ran values (1)"],
            "postSql": ["insert into dw.ran values (2)", "insert into dw.later values (3)", "insert into dw.ran values (4)"],
        }),
        json!({}),
    );
    let failed = run(dir.path(), &script, &[]).await;
    assert_eq!((failed.code, &failed.json()["error"]["code"]), (1, &json!("POST_SQL_FAILED")), "{failed:?}");
    assert!(failed.stderr.contains("the same `starlift run` again"), "{failed:?}");
    let job_id = failed.json()["job_id"].as_str().expect("a report names its job").to_owned();
    let other = run(dir.path(), &orders_job(json!({}), json!({})), &[]).await;
    assert_eq!(
        (other.code, &other.json()["error"]["code"]),
        (2, &json!("JOB_CHANGED")),
        "rows would be doubled"
    );
    let status = offline(dir.path(), &["status", &job_id]).await.succeeded().json();
    assert_eq!((&status["state"], &status["tasks"]["succeeded"]), (&json!("FAILED"), &json!(2)));
    target.run(&["CREATE TABLE dw.later (n INT) DUPLICATE KEY(n)"]).await;

    let resumed = run(dir.path(), &script, &[]).await.succeeded();
    assert!(resumed.stderr.contains(&format!("resuming job {job_id}, which had failed")), "{resumed:?}");
    assert_eq!(resumed.json()["job_id"], json!(job_id));
    let tasks = offline(dir.path(), &["tasks", &job_id]).await.succeeded().json();
    assert_eq!(epochs(&tasks, "DONE"), [(0, 1), (1, 1)]);
    assert_eq!((target.count("dw.ran").await, target.count("dw.later").await), (3, 1));
    assert_identical(&source, &target).await;

    // A job that has succeeded is done: the same command is another job.
    let again = run(dir.path(), &script, &[]).await.succeeded().json();
    assert_ne!(again["job_id"], json!(job_id));
}

/// Lets the server forget the commit of task 0, after `meanwhile`; its answer is lost by `fault`.
async fn forget_commit(target: &Standin, fault: &str, others_done: impl AsyncFn() -> bool) {
    target.fault(json!({ "op": "commit", "label": "_0_1_0", "do": fault })).await;
    target.fault(json!({ "op": "get_load_state", "label": "_0_1_0", "count": null, "do": "hold" })).await;
    until("the label to be asked for", || async { target.held().await >= 1 && others_done().await }).await;
}

/// A job that waits for a human says everything that a human needs.
fn assert_tells_the_facts(report: &Value, job_id: &str) {
    let error = &report["error"];
    assert_eq!(
        (&report["state"], &error["code"]),
        (&json!("FAILED"), &json!("OUTCOME_UNKNOWN")),
        "{report:#}"
    );
    let text = format!("{} {} {}", error["message"], error["place"], error["hint"]);
    for fact in [
        &format!("sl_{job_id}_0_1_0"),
        "TxnId",
        "5880 rows",
        "(-inf, +inf)",
        "SELECT COUNT(*) FROM `dw`.`orders`",
    ] {
        assert!(text.contains(fact), "{fact} is missing: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_commit_that_was_done_is_resolved_and_its_rows_count_once() {
    let (source, target) = source_and_target().await;
    let cluster = Cluster::start(&datasources(&source, &target), 1, 2).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    forget_commit(&target, "do_then_cut", async || done(&cluster, &job_id).await == 1).await;
    target.post("/evict_labels").await;
    target.clear_faults().await;

    assert_tells_the_facts(&cluster.finished(&job_id).await, &job_id);
    let status = cluster.status(&job_id).await;
    assert_eq!(status["undecided_tasks"], json!([0]), "{status:#}");
    let command = format!("starlift resolve {job_id} 0 --committed|--redo");
    for show in ["status", "tasks", "watch"] {
        let shown = cluster.client(&[show, &job_id]).await;
        assert!(format!("{}{}", shown.stdout, shown.stderr).contains(&command), "{shown:?}");
    }
    let refused = cluster.client(&["resume", &job_id, "--json"]).await;
    assert_eq!((refused.code, &refused.json()["error"]["code"]), (2, &json!("WRONG_STATE")));

    let counted = target.count("dw.orders WHERE id IS NOT NULL").await;
    assert_eq!(counted, 5_880, "the statement of the message tells that the commit was done");
    let answer = ["resolve", &job_id, "0", "--committed", "--reason", "COUNT(*) is 5880"];
    let resolved = cluster.client(&answer).await.succeeded();
    assert!(resolved.stdout.contains(&format!("starlift resume {job_id}")), "{resolved:?}");
    cluster.client(&answer).await.succeeded(); // its answer might have been lost
    let other = ["resolve", &job_id, "0", "--redo", "--reason", "on second thoughts"];
    assert_eq!(cluster.client(&other).await.code, 2, "there is nothing to resolve any more");
    cluster.client(&["resume", &job_id]).await.succeeded();
    let report = cluster.finished(&job_id).await;
    assert_eq!((&report["state"], &report["rows_loaded"]), (&json!("SUCCEEDED"), &json!(ROWS)), "{report:#}");
    assert!(report["warnings"].to_string().contains("COUNT(*) is 5880"), "{report:#}");
    assert_eq!(epochs(&tasks(&cluster, &job_id).await, "DONE"), [(0, 1), (1, 1)]);
    assert_identical(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_commit_that_was_not_done_is_redone_by_the_same_run() {
    let (source, target) = source_and_target().await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(json!({ "preSql": ["insert into dw.ran values (1)"] }), json!({}));
    let (first, ()) = tokio::join!(run(dir.path(), &script, &[]), async {
        let published = async || target.transactions().await.iter().any(|one| one.state == "VISIBLE");
        forget_commit(&target, "cut", published).await;
        let label = target.transactions().await.into_iter().find(|one| one.state == "PREPARED");
        let label = label.expect("the transaction whose commit was cut").label;
        assert_eq!(transaction(&target, "rollback", &label).await["Status"], "OK");
        target.post("/evict_labels").await;
        target.clear_faults().await;
    });
    let job_id = first.json()["job_id"].as_str().expect("a report names its job").to_owned();
    assert_tells_the_facts(&first.json(), &job_id);
    let answer = format!("starlift resolve {job_id} 0 --committed|--redo --reason TEXT --state .starlift");
    assert!(first.stderr.contains(&answer), "{first:?}");
    let refused = run(dir.path(), &script, &[]).await;
    assert_eq!((refused.code, &refused.json()["error"]["code"]), (2, &json!("WRONG_STATE")));
    assert!(refused.json()["error"]["hint"].to_string().contains(&answer), "{refused:?}");

    assert_eq!(target.count("dw.orders WHERE id IS NOT NULL").await, 0);
    let unsaid = offline(dir.path(), &["resolve", &job_id, "1", "--redo", "--reason", "mistaken"]).await;
    assert_eq!((unsaid.code, &unsaid.json()["error"]["code"]), (2, &json!("WRONG_STATE")));
    offline(dir.path(), &["resolve", &job_id, "0", "--redo", "--reason", "COUNT(*) is 0"]).await.succeeded();
    let report = run(dir.path(), &script, &[]).await.succeeded().json();
    assert_eq!((&report["job_id"], &report["rows_loaded"]), (&json!(job_id), &json!(ROWS)), "{report:#}");
    let tasks = offline(dir.path(), &["tasks", &job_id]).await.succeeded().json();
    assert_eq!(epochs(&tasks, "DONE"), [(0, 2), (1, 1)]);
    let stored = offline(dir.path(), &["report", &job_id]).await.succeeded().json();
    assert_eq!(stored, report);
    assert_eq!(target.count("dw.ran").await, 1);
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_is_resumed_by_the_same_command() {
    let (source, target) = source_and_target().await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(json!({ "preSql": ["insert into dw.ran values (1)"] }), json!({}));
    let file = write_job(dir.path(), &script);
    target.fault(json!({ "op": "prepare", "label": "_0_1_0", "do": "hold" })).await;
    let mut command = starlift(dir.path());
    command.arg("run").arg(&file).args(["--datasources", "datasources.toml"]);
    let mut killed = Process::start("run", &mut command, dir.path());
    until("one of two tasks to be committed", || async {
        target.held().await == 1 && target.transactions().await.iter().any(|one| one.state == "VISIBLE")
    })
    .await;
    let in_use = offline(dir.path(), &["status", NO_JOB]).await;
    assert_eq!((in_use.code, &in_use.json()["error"]["code"]), (3, &json!("STORE_FAILED")), "the run has it");
    killed.kill();
    let none = offline(dir.path(), &["status", NO_JOB]).await;
    assert_eq!((none.code, &none.json()["error"]["code"]), (2, &json!("UNKNOWN_JOB")));
    target.clear_faults().await;

    let report = run(dir.path(), &script, &[]).await.succeeded();
    assert!(report.stderr.contains("resuming job"), "{report:?}");
    let report = report.json();
    assert_eq!(report["rows_loaded"], json!(ROWS), "{report:#}");
    let job_id = report["job_id"].as_str().expect("a report names its job");
    let tasks = offline(dir.path(), &["tasks", job_id]).await.succeeded().json();
    assert_eq!(epochs(&tasks, "DONE"), [(0, 2), (1, 1)]);
    assert_eq!(target.count("dw.ran").await, 1, "a preSql that had completed was run again");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_interrupts_a_run_twice_does_not_wait() {
    let (source, target) = source_and_target().await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(json!({}), json!({}));
    let file = write_job(dir.path(), &script);
    // Giving a task back takes as long as its rollback.
    target.fault(json!({ "op": "prepare", "label": "_0_1_0", "do": "hold" })).await;
    target.fault(json!({ "op": "rollback", "label": "_0_1_0", "count": null, "do": "hold" })).await;
    let mut command = starlift(dir.path());
    command.arg("run").arg(&file).args(["--datasources", "datasources.toml"]);
    let mut interrupted = Process::start("run", &mut command, dir.path());
    until("a task to be held", || async { target.held().await == 1 }).await;
    interrupted.signal("INT");
    until("it to be given back", || async { target.held().await == 2 }).await;
    interrupted.signal("INT");
    assert_eq!(interrupted.ended().await.code(), Some(130));
    assert!(interrupted.log().contains("To resume:"), "{}", interrupted.log());
    assert!(!interrupted.log().contains("worker ended"), "it waited: {}", interrupted.log());
    target.clear_faults().await;

    let report = run(dir.path(), &script, &[]).await.succeeded().json();
    assert_eq!(report["rows_loaded"], json!(ROWS), "{report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_finishes_what_it_has_and_leaves_while_the_job_goes_on() {
    let (mut source, target) = source_and_target().await;
    source.claim_rows("orders", 600_000).await;
    let mut cluster = Cluster::start(&datasources(&source, &target), 2, 1).await;
    target.fault(json!({ "op": "prepare", "count": null, "do": "hold" })).await;
    let job_id = cluster.submit(&orders_job(json!({}), json!({}))).await;
    until("both workers to hold a task", || async { target.held().await == 2 }).await;
    let workers = cluster.client(&["workers", "--json"]).await.succeeded().json();
    let ids = workers.as_array().expect("a list").iter().filter_map(|worker| worker["worker_id"].as_str());
    let ids: Vec<&str> = ids.collect();
    let first = ids.iter().position(|id| cluster.workers[0].log().contains(*id)).expect("its log names it");

    let drained = cluster.client(&["drain", ids[first]]).await.succeeded();
    assert!(drained.stdout.contains("ends when the task that it runs is done"), "{drained:?}");
    let shown = cluster.client(&["workers"]).await.succeeded().stdout;
    let line = shown.lines().find(|line| line.contains(ids[first])).expect("it is still there");
    assert!(line.contains("draining"), "{shown}");
    target.clear_faults().await;
    assert!(cluster.workers[0].ended().await.success(), "{}", cluster.workers[0].log());

    let report = cluster.finished(&job_id).await;
    assert_eq!((&report["state"], &report["retries"]), (&json!("SUCCEEDED"), &json!(0)), "{report:#}");
    assert_identical(&source, &target).await;
    // One that has nothing leaves at once, and one that nobody knows is an error.
    cluster.client(&["drain", ids[1 - first]]).await.succeeded();
    assert!(cluster.workers[1].ended().await.success());
    let unknown = cluster.client(&["drain", "nobody", "--json"]).await;
    assert_eq!((unknown.code, &unknown.json()["error"]["code"]), (2, &json!("UNKNOWN_WORKER")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_any_moment_goes_on_in_the_end() {
    let (mut source, target) = source_and_target().await;
    source.claim_rows("orders", 600_000).await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(
        json!({ "preSql": ["truncate table @table", "insert into dw.ran values (1)"] }),
        json!({ "speed": { "concurrent": 2 } }),
    );
    let file = write_job(dir.path(), &script);
    for op in ["begin", "load", "prepare", "commit"] {
        target.fault(json!({ "op": op, "count": null, "do": "delay_before", "ms": 20 })).await;
    }
    // Any moment is as good as any other: in the plan, in a statement, in the transfer, between decision and commit.
    for moment in [30, 70, 110, 160, 220, 290, 370, 460] {
        let mut command = starlift(dir.path());
        command.arg("run").arg(&file).args(["--datasources", "datasources.toml"]);
        let mut killed = Process::start("run", &mut command, dir.path());
        sleep(Duration::from_millis(moment)).await;
        killed.kill();
    }
    let report = run(dir.path(), &script, &[]).await.succeeded().json();
    assert_eq!(report["rows_loaded"], json!(ROWS), "{report:#}");
    assert_identical(&source, &target).await;
    target.wait_until_nothing_is_open().await;
}

/// REST says and does what the commands do, through a coordinator that follows as well.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_submitted_and_steered_over_rest() {
    let (source, target, etcd) = tokio::join!(MariaDb::start(), Standin::start(&[]), Etcd::start());
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    let cluster = Cluster::start_pair(&datasources(&source, &target), &etcd.state("starlift"), 1, 2).await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
    let follower = cluster.rest_of(1);
    let post = async |path: &str, body: Value| -> (u16, Value) {
        let reply = http.post(format!("{follower}{path}")).json(&body).send().await.expect("an answer");
        (reply.status().as_u16(), reply.json().await.expect("JSON"))
    };

    target.fault(json!({ "op": "prepare", "count": null, "do": "hold" })).await;
    let script = orders_job(json!({}), json!({}));
    let job_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let submission = json!({ "script": script, "name": "by rest", "job_id": job_id });
    for attempt in 0..2 {
        let (status, job) = post("/api/v1/jobs", submission.clone()).await;
        assert_eq!(
            (status, &job["job_id"], &job["name"]),
            (200, &json!(job_id), &json!("by rest")),
            "{attempt}: {job}"
        );
    }
    until("both tasks to be held", || async { target.held().await == 2 }).await;
    let paused = post(&format!("/api/v1/jobs/{job_id}/pause"), json!({})).await;
    assert_eq!((paused.0, &paused.1["state"]), (200, &json!("PAUSED")), "{paused:?}");
    let resumed = post(&format!("/api/v1/jobs/{job_id}/resume"), json!({})).await;
    assert_eq!((resumed.0, &resumed.1["state"]), (200, &json!("RUNNING")), "{resumed:?}");
    target.clear_faults().await;
    assert_eq!(cluster.finished(job_id).await["state"], "SUCCEEDED");
    assert_identical(&source, &target).await;

    // Without an id of its own every submission is another job; the script may come as text.
    let text = json!({ "script": script.to_string() });
    let (_, second) = post("/api/v1/jobs", text.clone()).await;
    let (_, third) = post("/api/v1/jobs", text).await;
    assert_ne!(second["job_id"], third["job_id"]);
    let cancelled =
        post(&format!("/api/v1/jobs/{}/cancel", third["job_id"].as_str().expect("an id")), json!({})).await;
    assert_eq!(cancelled.0, 200, "{cancelled:?}");

    let wrong = json!({ "script": { "type": "job", "version": "2.0", "steps": [] } });
    for (path, body, status, code) in [
        ("/api/v1/jobs".to_owned(), wrong, 400, "INVALID_SCRIPT"),
        ("/api/v1/jobs".to_owned(), json!({ "name": "x" }), 422, "INVALID_SETTINGS"),
        (format!("/api/v1/jobs/{job_id}/resume"), json!({}), 409, "WRONG_STATE"),
        (format!("/api/v1/jobs/{job_id}/forget"), json!({}), 404, "INVALID_SETTINGS"),
        ("/api/v1/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAW/pause".to_owned(), json!({}), 404, "UNKNOWN_JOB"),
    ] {
        let (answered, refusal) = post(&path, body).await;
        assert_eq!((answered, &refusal["code"]), (status, &json!(code)), "{path}: {refusal}");
        assert!(!refusal["message"].to_string().is_empty());
    }
    // What a page in a browser can send without asking, and by which name it could call, changes nothing.
    let plain = http.post(format!("{follower}/api/v1/jobs")).body(submission.to_string()).send().await;
    assert_eq!(plain.expect("an answer").status().as_u16(), 415);
    let request = http.get(format!("{follower}/api/v1/jobs")).header("Host", "evil.example").send().await;
    assert_eq!(request.expect("an answer").status().as_u16(), 403);
}
