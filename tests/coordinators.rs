//! Several coordinators on one etcd: whichever of them leads, and however often that changes, every row arrives once and
//! running tasks go on.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{Cluster, job};
use crate::etcd::Etcd;
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::process::until;
use crate::rows;
use crate::standin::Standin;

const ROWS: u32 = 10_000;

/// What the source claims to hold, so that the planner makes ten tasks of it.
const ROWS_CLAIMED: u32 = 500_000;

/// How long nobody may lead after a leader's sudden death, at default settings.
const TAKEOVER: Duration = Duration::from_secs(10);

/// The servers of one test, and a job that is under way on two coordinators.
struct Stage {
    source: MariaDb,
    target: Standin,
    etcd: Etcd,
    cluster: Cluster,
    job_id: String,
}

impl Stage {
    /// Every task takes a second, four run at a time.
    async fn with_a_running_job() -> Self {
        let (mut source, target, etcd) = tokio::join!(MariaDb::start(), Standin::start(&[]), Etcd::start());
        fill_source(&source, ROWS).await;
        source.claim_rows("orders", ROWS_CLAIMED).await;
        create_target(&target).await;
        let cluster =
            Cluster::start_pair(&datasources(&source, &target), &etcd.state("test/starlift"), 2, 2).await;
        target.fault(json!({ "op": "prepare", "count": null, "do": "delay_before", "ms": 1000 })).await;
        let script = orders_job(json!({ "preSql": ["truncate table @table"] }), json!({}));
        let job_id = cluster.submit(&script).await;
        let stage = Self { source, target, etcd, cluster, job_id };
        until("four tasks to run after the first were committed", || async {
            let tasks = stage.cluster.status(&stage.job_id).await["tasks"].clone();
            tasks["running"].as_u64() >= Some(4) && tasks["succeeded"].as_u64() >= Some(1)
        })
        .await;
        stage
    }

    /// The report of the job, which has put every row into the target and left nothing open.
    async fn finished_well(&self) -> Value {
        let report = self.cluster.finished(&self.job_id).await;
        assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
        assert_eq!(report["rows_loaded"], json!(ROWS), "{report:#}");
        assert_identical(&self.source, &self.target).await;
        self.target.wait_until_nothing_is_open().await;
        report
    }

    /// No attempt was begun a second time: every label is of the first epoch.
    async fn assert_no_attempt_was_repeated(&self, report: &Value) {
        assert_eq!(report["retries"], 0, "{report:#}");
        for transaction in self.target.transactions().await {
            let is_probe = !transaction.label.contains(&self.job_id) || transaction.state == "ABORTED";
            assert!(is_probe || transaction.label.ends_with("_1_0"), "{transaction:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_tasks_go_on_when_the_leader_is_killed() {
    let mut stage = Stage::with_a_running_job().await;
    let killed = Instant::now();
    stage.cluster.coordinator.kill();
    until("the other coordinator to lead", || stage.cluster.leads(1)).await;
    assert!(killed.elapsed() < TAKEOVER, "nobody led for {:?}", killed.elapsed());

    let report = stage.finished_well().await;
    stage.assert_no_attempt_was_repeated(&report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_through_its_lease_steps_down_and_does_no_harm() {
    let stage = Stage::with_a_running_job().await;
    let stopped = Instant::now();
    stage.cluster.coordinator.signal("STOP");
    until("the other coordinator to lead", || stage.cluster.leads(1)).await;
    assert!(stopped.elapsed() < TAKEOVER, "nobody led for {:?}", stopped.elapsed());
    stage.cluster.coordinator.signal("CONT");
    until("the first one to follow", || async {
        stage.cluster.is_ready(0).await && !stage.cluster.leads(0).await
    })
    .await;
    assert!(stage.cluster.coordinator.log().contains("leadership is lost"));

    let report = stage.finished_well().await;
    stage.assert_no_attempt_was_repeated(&report).await;
    assert!(stage.cluster.leads(1).await && !stage.cluster.leads(0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_etcd_holds_a_job_up_and_does_not_fail_it() {
    let mut stage = Stage::with_a_running_job().await;
    stage.etcd.kill();
    until("the leader to notice", || async { !stage.cluster.leads(0).await }).await;
    assert!(!stage.cluster.is_ready(0).await, "nobody is known to lead");
    stage.etcd.start_again().await;
    stage.finished_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_leader_through_a_follower_and_past_a_dead_address() {
    let etcd = Etcd::start().await;
    let mut cluster = Cluster::start_pair(&[], &etcd.state("starlift"), 0, 1).await;
    let (leader, follower) = {
        let urls = cluster.url();
        let (leader, follower) = urls.split_once(',').expect("two addresses");
        (leader.to_owned(), follower.to_owned())
    };
    let list = ["list", "--json"];
    for urls in [&follower, &format!("http://127.0.0.1:1,{follower}"), &format!("{follower},{leader}")] {
        assert_eq!(cluster.client_of(urls, &list).await.succeeded().json(), json!([]), "{urls}");
    }
    let without_scheme = follower.trim_start_matches("http://").to_owned();
    cluster.client_of(&without_scheme, &list).await.succeeded();

    // A follower hands REST requests on, and does not take part of the answer for itself.
    for (path, status, text) in [("/api/v1/jobs", 200, "\"jobs\":[]"), ("/api/v1/jobs/x", 404, "UNKNOWN_JOB")]
    {
        let (answered, page) = cluster.page(1, path).await.expect("a follower answers");
        assert!(answered == status && page.contains(text), "{path}: {answered} {page}");
    }
    assert!(cluster.is_ready(1).await && !cluster.leads(1).await);
    assert_eq!(cluster.page(1, "/livez").await.map(|(status, _)| status), Some(200));

    // A leader that is asked to leave lets its successor lead at once.
    let asked = Instant::now();
    cluster.coordinator.signal("TERM");
    until("the follower to lead", || cluster.leads(1)).await;
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(cluster.coordinator.ended().await.success());
    cluster.client(&list).await.succeeded();
    let nobody = cluster.client_of(&leader, &list).await;
    assert_eq!(nobody.code, 3, "{nobody:?}");
}

/// The largest journal that is promised to be small, with another leader in the middle.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make test-long"]
async fn twenty_thousand_tasks_fit_into_etcd_and_survive_a_change_of_leader() {
    const TASKS: u32 = 20_000;
    // With fewer rows than this for each task there would be fewer tasks: boundaries are looked for, not made up.
    const ROWS: u32 = 10 * TASKS;
    let (mut source, target, etcd) = tokio::join!(MariaDb::start(), Standin::start(&[]), Etcd::start());
    source
        .run(&[
            "CREATE TABLE narrow (id INT PRIMARY KEY, v VARCHAR(20))",
            &format!("INSERT INTO narrow SELECT seq, CONCAT('v', seq) FROM seq_1_to_{ROWS}"),
        ])
        .await;
    source.claim_rows("narrow", TASKS * 50_000).await;
    target
        .run(&[
            "CREATE DATABASE dw",
            "CREATE TABLE dw.narrow (id INT, v VARCHAR(80) NULL) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1",
        ])
        .await;
    let columns = ["id", "v"];
    let script = job(
        "mysql",
        json!({ "datasource": "source", "table": "narrow", "column": columns, "splitPk": "id", "splitFactor": 100 }),
        json!({ "datasource": "target", "table": "narrow", "column": columns, "loadProps": {} }),
        json!({ "speed": { "concurrent": TASKS / 100 } }),
    );
    let mut cluster =
        Cluster::start_pair(&datasources(&source, &target), &etcd.state("starlift"), 4, 16).await;
    let before = etcd.usage("starlift").await;
    let began = Instant::now();
    let job_id = cluster.submit(&script).await;
    let succeeded = async || cluster.status(&job_id).await["tasks"]["succeeded"].as_u64();
    while succeeded().await < Some(u64::from(TASKS / 3)) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(began.elapsed() < Duration::from_secs(600), "the first third takes too long");
    }
    let killed = Instant::now();
    cluster.coordinator.kill();
    until("the other coordinator to lead", || cluster.leads(1)).await;
    let takeover = killed.elapsed();

    let report = cluster.finished(&job_id).await;
    let after = etcd.usage("starlift").await;
    let revisions = after.revision - before.revision;
    println!(
        "{TASKS} tasks in {:.1} s; takeover after {:.1} s; {} keys, {:.1} MB, {revisions} revisions ({:.2} per task)",
        began.elapsed().as_secs_f64(),
        takeover.as_secs_f64(),
        after.keys,
        f64::from(u32::try_from(after.bytes).expect("less than 4 GB")) / 1e6,
        f64::from(u32::try_from(revisions).expect("less than 2^32")) / f64::from(TASKS),
    );
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_eq!((&report["tasks"]["total"], &report["rows_loaded"]), (&json!(TASKS), &json!(ROWS)));
    assert!(takeover < TAKEOVER);
    assert!(after.bytes <= 16_000_000, "{after:?}");
    assert!(revisions <= 6 * u64::from(TASKS), "{revisions} revisions");
    let wanted = rows::read(source.connect().await, "SELECT id, v FROM shop.narrow").await;
    let found = rows::read(target.connect().await, "SELECT id, v FROM dw.narrow").await;
    rows::assert_same(&wanted, &found);
    target.wait_until_nothing_is_open().await;
}
