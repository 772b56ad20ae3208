//! Packed bodies: every row arrives whatever it is packed with and in whichever form, bad rows are still found, and a
//! server that does not unpack gets the rows as they are, with a warning in place of garbage.

use serde_json::json;

use crate::cluster::{run, workspace};
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::standin::Standin;

const ROWS: u32 = 20_000;

async fn source_and_target(flags: &[&str]) -> (MariaDb, Standin) {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(flags));
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    (source, target)
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_rows_arrive_in_either_form() {
    let (source, target) = source_and_target(&[]).await;
    let dir = workspace(&datasources(&source, &target));
    let mut bytes = Vec::new();
    let mut on_the_way = Vec::new();
    for format in ["csv", "json"] {
        for compression in ["none", "LZ4_FRAME", "zstd", "gzip"] {
            let script = orders_job(
                json!({
                    "loadProps": { "format": format, "compression": compression },
                    "maxBatchSize": 262_144,
                    "preSql": ["truncate table @table"]
                }),
                json!({}),
            );
            let report = run(dir.path(), &script, &[]).await.succeeded().json();
            assert_eq!(report["rows_loaded"], json!(ROWS), "{format} {compression}: {report:#}");
            assert!(!report["warnings"].to_string().contains("compression"), "{report:#}");
            assert_eq!(report["retries"], json!(0), "{report:#}");
            bytes.push(report["bytes_loaded"].as_u64().expect("a number"));
            assert_identical(&source, &target).await;
            let job_id = report["job_id"].as_str().expect("a report names its job");
            let loads = target.transactions().await;
            let loads = loads.iter().filter(|one| one.label.contains(job_id) && one.state == "VISIBLE");
            on_the_way.push(loads.map(|one| one.load_bytes).sum::<u64>());
        }
    }
    target.wait_until_nothing_is_open().await;
    for (bytes, on_the_way) in bytes.chunks(4).zip(on_the_way.chunks(4)) {
        assert_eq!(bytes, [bytes[0]; 4], "counted before they are packed");
        assert!(
            on_the_way[1..].iter().all(|packed| *packed < bytes[0] / 2),
            "{on_the_way:?} of {}",
            bytes[0]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_unpack_gets_the_rows_as_they_are() {
    let (source, target) = source_and_target(&[]).await;
    let dir = workspace(&datasources(&source, &target));
    // Only the plan's own trial is answered so; packed rows after it would be taken, but must not come.
    let unknown = json!({ "op": "load", "label": "_check_", "count": 1, "do": "refuse",
                          "status": "INTERNAL_ERROR", "message": "unknown data format, format=lz4" });
    let ignored = json!({ "op": "prepare", "label": "_check_", "count": 1, "do": "do_then_answer",
                          "status": "OK", "message": "" });
    for (fault, format, words) in [
        (unknown, "csv", "unknown data format, format=lz4"),
        (ignored, "json", "of 7 rows sent the server counted 0"),
    ] {
        target.fault(fault).await;
        let script = orders_job(
            json!({
                "loadProps": { "format": format, "compression": "lz4_frame" },
                "preSql": ["truncate table @table"]
            }),
            json!({}),
        );
        let report = run(dir.path(), &script, &[]).await.succeeded().json();
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("without compression lz4_frame") && warnings.contains(words), "{report:#}");
        assert_eq!(report["rows_loaded"], json!(ROWS), "{report:#}");
        assert_identical(&source, &target).await;
    }
    target.wait_until_nothing_is_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_found_in_packed_bodies_too() {
    let (source, target) = source_and_target(&[]).await;
    source.run(&["UPDATE orders SET city = REPEAT('x', 40) WHERE shop = 5"]).await;
    target
        .run(&[
            "DROP TABLE dw.orders",
            "CREATE TABLE dw.orders (id BIGINT NULL, shop INT NOT NULL, amount DECIMAL(18,4) NULL, ratio DOUBLE NULL, \
             remark VARCHAR(800) NULL, city VARCHAR(39) NULL, created DATETIME NULL, day DATE NULL, note STRING NULL) \
             DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 4",
        ])
        .await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(
        json!({ "loadProps": { "compression": "zstd" }, "strategyOnError": "batchDirtyData" }),
        json!({ "errorLimit": { "record": 100_000 } }),
    );
    let report = run(dir.path(), &script, &[]).await.succeeded().json();
    let bad = (1..=ROWS).filter(|row| row % 97 == 5).count();
    assert_eq!(report["dirty_records"], json!(bad), "{report:#}");
    assert_eq!(report["rows_loaded"], json!(ROWS as usize - bad), "{report:#}");
    assert_eq!(target.count("dw.orders").await, u64::from(ROWS) - bad as u64);
}
