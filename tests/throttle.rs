//! One speed limit for all workers of a job: measured at the workers while tasks start, end, and wait for a server.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, job};
use crate::mariadb::MariaDb;
use crate::process::free_address;
use crate::standin::Standin;

/// `mbps` of the jobs.
const LIMIT: u64 = 4 << 20;

/// Each row carries so many bytes of text.
const TEXT: u32 = 150;

/// A source of about `megabytes`, and four workers with two slots each.
struct Track {
    cluster: Cluster,
    workers: Vec<String>,
    target: Standin,
    _source: MariaDb,
}

impl Track {
    async fn start(megabytes: u32) -> Self {
        let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&["--count-only"]));
        let rows = megabytes * (1 << 20) / TEXT;
        let insert = format!("INSERT INTO t SELECT seq, REPEAT('x', {TEXT}) FROM seq_1_to_{rows}");
        source.run(&["CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", &insert, "ANALYZE TABLE t"]).await;
        target.run(&["CREATE DATABASE dw", "CREATE TABLE dw.t (id INT, v STRING) DUPLICATE KEY(id)"]).await;
        let datasources = [source.datasource("source"), target.datasource("target", "dw")];
        let mut cluster = Cluster::start(&datasources, 0, 1).await;
        let mut workers = Vec::new();
        for _ in 0..4 {
            let http = free_address().to_string();
            cluster.add_worker_at(2, &http);
            workers.push(http);
        }
        Self { cluster, workers, target, _source: source }
    }

    /// Submits a job that may run five tasks at a time on eight slots, and answers its id.
    async fn submit(&self) -> String {
        let script: Value = job(
            "mysql",
            json!({ "datasource": "source", "table": "t", "column": ["id", "v"], "splitPk": "id", "splitFactor": 1 }),
            json!({ "datasource": "target", "table": "t", "column": ["id", "v"], "loadProps": {}, "maxBatchSize": 1_048_576 }),
            json!({ "speed": { "concurrent": 5, "throttle": true, "mbps": LIMIT >> 20 } }),
        );
        self.cluster.submit(&script).await
    }

    /// Cell bytes that all workers have read so far.
    async fn bytes_read(&self) -> u64 {
        let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
        let mut sum = 0;
        for worker in &self.workers {
            let page = http.get(format!("http://{worker}/metrics")).send().await.expect("a worker answers");
            let page = page.text().await.expect("text");
            let line = page.lines().find(|line| line.starts_with("starlift_worker_read_bytes_total"));
            let number = line.and_then(|line| line.rsplit_once(' ')).map(|(_, number)| number);
            sum += number.and_then(|number| number.parse::<u64>().ok()).expect("a counter");
        }
        sum
    }

    /// Bytes read by each moment of so many seconds, from the first byte on.
    async fn measure(&self, seconds: u64) -> Vec<(Duration, u64)> {
        while self.bytes_read().await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
        let start = Instant::now();
        let mut points = Vec::new();
        while start.elapsed() < Duration::from_secs(seconds) {
            points.push((start.elapsed(), self.bytes_read().await));
            sleep(Duration::from_millis(100)).await;
        }
        points
    }
}

/// Every window of that length holds the limit within so many percent.
#[track_caller]
fn assert_steady(points: &[(Duration, u64)], window: Duration, percent: u64) {
    let mut windows = 0;
    for (index, (from, before)) in points.iter().enumerate() {
        let Some((to, after)) = points[index..].iter().find(|(at, _)| *at >= *from + window) else { break };
        windows += 1;
        let took = u64::try_from((*to - *from).as_micros()).expect("seconds");
        let rate = (after - before) * 1_000_000 / took;
        assert!(
            rate * 100 >= LIMIT * (100 - percent) && rate * 100 <= LIMIT * (100 + percent),
            "{rate} bytes/s instead of {LIMIT} in the {window:?} from {from:?} on"
        );
    }
    assert!(windows >= 5, "only {windows} windows were measured");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_keep_one_limit() {
    let track = Track::start(40).await;
    let job_id = track.submit().await;
    let points = track.measure(6).await;
    assert_steady(&points, Duration::from_secs(4), 10);
    track.cluster.client(&["cancel", &job_id]).await.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute; run by make test-long"]
async fn four_workers_keep_one_limit_over_every_ten_seconds() {
    let track = Track::start(120).await;
    let job_id = track.submit().await;
    // One task after the other is held at the server for a while: its share must not be lost.
    track
        .target
        .fault(json!({ "op": "load", "label": "sl_", "count": null, "probability": 0.1, "seed": 7,
                               "do": "delay_before", "ms": 1500 }))
        .await;
    let points = track.measure(24).await;
    assert_steady(&points, Duration::from_secs(10), 5);
    track.cluster.client(&["cancel", &job_id]).await.succeeded();
}
