//! What operators and autoscalers look at: every metric that is documented, and KEDA's questions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use serde_json::{Value, json};
use starlift_common::ids::JobId;
use starlift_proto::admin_service_client::AdminServiceClient;
use starlift_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use starlift_proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use starlift_proto::worker_service_client::WorkerServiceClient;
use starlift_proto::{ReportRequest, SubmitRequest, WorkerInfo};
use tokio::time::{Duration, sleep};
use tonic::Request;
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::etcd::Etcd;
use crate::mariadb::MariaDb;
use crate::migration::{create_target, datasources, fill_source, orders_job};
use crate::process::{free_address, until};
use crate::security::Renewed;
use crate::standin::Standin;

const ROWS: u32 = 20_000;
/// What the source claims to hold: ten tasks' worth.
const ROWS_CLAIMED: u32 = 500_000;
const WORKERS: usize = 8;
const PAGE: &str = include_str!("../docs/METRICS.md");

/// Every name in the first column of the tables.
fn documented() -> BTreeSet<String> {
    let name = |line: &str| {
        line.strip_prefix("| `starlift_")?.split_once('`').map(|(name, _)| format!("starlift_{name}"))
    };
    PAGE.lines().filter_map(name).collect()
}

/// The largest value that each metric was seen with: of a histogram its count, of a family the sum of its series.
#[derive(Default)]
struct Seen {
    most: Mutex<BTreeMap<String, f64>>,
}

impl Seen {
    fn read(&self, page: &str) {
        let histograms: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"))
            .collect();
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let sample = series.split_once('{').map_or(series, |(name, _)| name);
            let base = sample.rsplit_once('_').map_or("", |(base, _)| base);
            let name = match histograms.contains(base) {
                true if sample.ends_with("_count") => base,
                true => continue,
                false => sample,
            };
            *sums.entry(name.to_owned()).or_default() += value.parse::<f64>().expect("a number");
        }
        let mut all = self.most.lock().expect("no reader panics");
        for (name, value) in sums {
            let most = all.entry(name).or_default();
            *most = most.max(value);
        }
    }

    fn most(&self, name: &str) -> f64 {
        self.most.lock().expect("no reader panics").get(name).copied().unwrap_or_default()
    }
}

/// Pages of the coordinator and of all workers.
async fn scrape(cluster: &Cluster, workers: &[String], seen: &Seen) {
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().expect("a client");
    let addresses = workers.iter().map(|address| format!("http://{address}")).chain([cluster.rest()]);
    for address in addresses {
        // One that is stopped, or not up again yet, is asked again a moment later.
        if let Ok(page) = http.get(format!("{address}/metrics")).send().await
            && let Ok(text) = page.text().await
        {
            seen.read(&text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_is_there_and_moves() {
    let (mut source, target) =
        tokio::join!(MariaDb::start(), Standin::start(&["--be-bytes-per-second", "1000000"]));
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    // What strict mode refuses: a row for the worker's dirty file and trials.
    source
        .run(&[
            "ALTER TABLE orders MODIFY remark VARCHAR(2000)",
            "UPDATE orders SET remark = REPEAT('x', 900) WHERE shop = 1 AND id > 0 LIMIT 1",
        ])
        .await;
    source.claim_rows("orders", ROWS_CLAIMED).await;
    let mut cluster =
        Cluster::start_with(&datasources(&source, &target), 0, 1, &["--lease", "2s", "--attempts", "10"])
            .await;
    let workers: Vec<String> = (0..WORKERS).map(|_| free_address().to_string()).collect();
    for address in &workers {
        cluster.add_worker_at(1, address);
    }
    let seen = Seen::default();
    until("idle workers to wait for work", || async {
        cluster
            .page(0, "/metrics")
            .await
            .is_some_and(|(_, page)| page.contains(&format!("waiting_workers {WORKERS}")))
    })
    .await;
    scrape(&cluster, &workers, &seen).await;

    // Several times: an answer that comes before the body was sent may be lost with its connection.
    target.fault(json!({ "op": "load", "count": 5, "do": "refuse", "status": "INTERNAL_ERROR",
        "message": "Failed to load data into tablet 7, because of too many versions, current/limit: 1001/1000" })).await;
    target.fault(json!({ "op": "prepare", "count": 1, "do": "refuse", "status": "INTERNAL_ERROR", "message": "out of luck" })).await;
    target.fault(json!({ "op": "rollback", "count": 4, "do": "delay_before", "ms": 1500 })).await;
    let script = orders_job(
        json!({ "maxBatchSize": 100_000, "strategyOnError": "batchDirtyData" }),
        json!({ "errorLimit": { "record": 10 }, "speed": { "concurrent": 10 } }),
    );
    let job_id = cluster.submit(&script).await;
    until("the target's table to be spared", || async {
        scrape(&cluster, &workers, &seen).await;
        seen.most("starlift_coordinator_tables_held_back") > 0.0
    })
    .await;
    stale_report(&cluster, &job_id).await;
    // All fall silent for longer than a lease, which also lets the job stand still; then two come back too late.
    for worker in &cluster.workers {
        worker.signal("STOP");
    }
    until("the leases to have run out and the job to have stood still", || async {
        scrape(&cluster, &[], &seen).await;
        seen.most("starlift_coordinator_lease_expiries_total") > 0.0
            && seen.most("starlift_coordinator_stalled_seconds") > 1.0
    })
    .await;
    for worker in &cluster.workers {
        worker.signal("CONT");
    }
    let mut rounds = 0;
    loop {
        scrape(&cluster, &workers, &seen).await;
        let status = cluster.status(&job_id).await;
        if status["state"] == "SUCCEEDED" || rounds > 600 {
            assert_eq!(status["state"], "SUCCEEDED", "{status:#}");
            break;
        }
        rounds += 1;
        sleep(Duration::from_millis(50)).await;
    }
    scrape(&cluster, &workers, &seen).await;
    cluster.restart_coordinator().await;
    until("the workers to have missed the coordinator", || async {
        scrape(&cluster, &workers, &seen).await;
        seen.most("starlift_worker_coordinator_failures_total") > 0.0
    })
    .await;

    failed_save(&seen).await;
    files_not_taken_up(&cluster, &seen).await;

    let most = seen.most.into_inner().expect("no reader panics");
    let exported: BTreeSet<String> = most.keys().cloned().collect();
    assert_eq!(exported, documented(), "left: exported, right: docs/METRICS.md");
    let still: Vec<&String> = most.iter().filter(|(_, most)| **most == 0.0).map(|(name, _)| name).collect();
    assert_eq!(still, Vec::<&String>::new(), "these never moved");
}

/// A coordinator whose etcd dies under a submission.
async fn failed_save(seen: &Seen) {
    let mut etcd = Etcd::start().await;
    let cluster = Cluster::start_pair(&[], &etcd.state("starlift"), 0, 1).await;
    let leader = cluster.url().split_once(',').expect("two addresses").0.to_owned();
    let mut admin = AdminServiceClient::new(channel(&leader).await);
    etcd.kill();
    let script = include_str!("scripts/e1-minimal.json").to_owned();
    let mut request =
        Request::new(SubmitRequest { script, name: "x".into(), job_id: JobId::from_parts(1, 1).to_string() });
    request.set_timeout(Duration::from_secs(10));
    assert!(admin.submit(request).await.is_err(), "what is not saved is not answered");
    until("the failed save to be told", || async {
        scrape(&cluster, &[], seen).await;
        seen.most("starlift_coordinator_saves_failed_total") > 0.0
    })
    .await;
}

/// Servers with a certificate, whose data sources are spoilt.
async fn files_not_taken_up(cluster: &Cluster, seen: &Seen) {
    let renewed = Renewed::start(90).await;
    renewed.read_again("datasources.toml", "no table");
    renewed.show("reloads_failed_total{file=\"datasources\"} 1").await;
    scrape(cluster, &renewed.metrics, seen).await;
}

/// A report under an epoch that never was.
async fn stale_report(cluster: &Cluster, job_id: &str) {
    let mut worker = WorkerServiceClient::new(channel(&cluster.url()).await);
    let request = ReportRequest {
        worker_id: "late".into(),
        job_id: job_id.into(),
        task_id: 0,
        epoch: 99,
        ..given_back()
    };
    let reply = worker.report(request).await.expect("an answer").into_inner();
    assert!(!reply.accepted);
}

fn given_back() -> ReportRequest {
    ReportRequest {
        outcome: Some(starlift_proto::report_request::Outcome::GivenBack(Default::default())),
        ..ReportRequest::default()
    }
}

async fn channel(url: &str) -> Channel {
    Channel::from_shared(url.to_owned()).expect("an address").connect().await.expect("it listens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_an_older_version_gets_no_task_and_is_told_why() {
    let cluster = Cluster::start(&[], 0, 1).await;
    let mut client = WorkerServiceClient::new(channel(&cluster.url()).await);
    let worker =
        WorkerInfo { worker_id: "old".into(), version: "0.0.9".into(), slots: 1, ..WorkerInfo::default() };
    let request = starlift_proto::AcquireRequest { worker: Some(worker), free_slots: 1, wait_ms: 0 };
    let refused = client.acquire(request).await.expect_err("it speaks no protocol that would do");
    assert!(refused.message().contains("0.0.9 is too old"), "{refused:?}");
}

/// What KEDA would make of it: replicas = metric over target, none when it is not active.
async fn replicas(scaler: &str) -> u64 {
    let mut keda = ExternalScalerClient::new(channel(&format!("http://{scaler}")).await);
    let scaled = ScaledObjectRef {
        name: "starlift-worker".into(),
        namespace: "data".into(),
        scaler_metadata: [("tasksPerWorker".to_owned(), "2".to_owned())].into(),
    };
    let is_active = keda.is_active(scaled.clone()).await.expect("an answer").into_inner().result;
    let spec =
        keda.get_metric_spec(scaled.clone()).await.expect("an answer").into_inner().metric_specs.remove(0);
    let request = GetMetricsRequest {
        scaled_object_ref: Some(scaled),
        metric_name: format!("s0-{}", spec.metric_name),
    };
    let value = keda.get_metrics(request).await.expect("an answer").into_inner().metric_values.remove(0);
    assert_eq!((spec.target_size, spec.target_size_float), (2, 2.0));
    assert_eq!(is_active, value.metric_value > 0, "{value:?}");
    u64::try_from(value.metric_value).expect("a count").div_ceil(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn keda_scales_with_the_unfinished_tasks_and_to_none_after_them() {
    let (mut source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    let etcd = Etcd::start().await;
    fill_source(&source, ROWS).await;
    source.claim_rows("orders", ROWS_CLAIMED).await;
    create_target(&target).await;
    let scalers = [free_address().to_string(), free_address().to_string()];
    let sources = datasources(&source, &target);
    let mut cluster = Cluster::start_pair_with(&sources, &etcd.state("starlift"), 0, 1, &|number| {
        vec!["--scaler".to_owned(), scalers[number].clone()]
    })
    .await;
    for scaler in &scalers {
        assert_eq!(replicas(scaler).await, 0);
    }
    let mut changes = ExternalScalerClient::new(channel(&format!("http://{}", scalers[1])).await)
        .stream_is_active(ScaledObjectRef::default())
        .await
        .expect("a stream")
        .into_inner();
    assert!(!changes.message().await.expect("open").expect("a first word").result);

    let job_id = cluster.submit(&orders_job(json!({}), json!({ "speed": { "concurrent": 4 } }))).await;
    assert!(changes.message().await.expect("open").expect("a change").result);
    until("the job to be planned", || async { cluster.status(&job_id).await["state"] == "RUNNING" }).await;
    let total = cluster.status(&job_id).await["tasks"]["total"].as_u64().expect("a count");
    assert!(total > 3, "{total} tasks are too few to be told apart");
    // The one that follows knows as well as the one that leads.
    for scaler in &scalers {
        assert_eq!(replicas(scaler).await, total.div_ceil(2));
    }
    target.fault(json!({ "op": "prepare", "label": "_0_1_0", "do": "hold" })).await;
    cluster.add_worker(4, &[]);
    until("all tasks but one to be done", || async {
        let status: Value = cluster.status(&job_id).await;
        status["tasks"]["succeeded"].as_u64() == Some(total - 1)
    })
    .await;
    for scaler in &scalers {
        assert_eq!(replicas(scaler).await, 1);
    }
    target.clear_faults().await;
    assert_eq!(cluster.finished(&job_id).await["state"], "SUCCEEDED");
    for scaler in &scalers {
        assert_eq!(replicas(scaler).await, 0);
    }
    assert!(!changes.message().await.expect("open").expect("a change").result);
}
