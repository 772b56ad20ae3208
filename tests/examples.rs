//! The jobs of `examples/`, run as they stand there against servers that bear the names they use.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{run, workspace};
use crate::mariadb::MariaDb;
use crate::rows;
use crate::standin::Standin;

fn example(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_goes_to_starrocks_by_parameter_and_by_json() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    source
        .run(&[
            "CREATE TABLE orders (id BIGINT UNSIGNED PRIMARY KEY, buyer_id INT, amount DECIMAL(12,2), `key` VARCHAR(40), \
             created_at DATETIME(3) NOT NULL) DEFAULT CHARSET utf8mb4",
            "INSERT INTO orders SELECT seq + 18446744073709540000, seq % 7, seq / 100, CONCAT('k\\t', seq), \
             TIMESTAMPADD(HOUR, seq, '2026-01-01') FROM seq_1_to_2000",
            "CREATE TABLE articles (id INT PRIMARY KEY, title VARCHAR(80), body TEXT, price DECIMAL(20,6), changed_at DATETIME(6)) \
             DEFAULT CHARSET utf8mb4",
            "INSERT INTO articles SELECT seq, ELT(1 + seq % 3, '商品', 'x\"y\\\\z', ''), IF(seq % 4, REPEAT('ß\\n', seq % 90), NULL), \
             seq * 12345678.654321, TIMESTAMPADD(MICROSECOND, seq, '2026-02-03 04:05:06') FROM seq_1_to_1000",
        ])
        .await;
    target
        .run(&[
            "CREATE DATABASE dw",
            "CREATE TABLE dw.orders (id LARGEINT, buyer_id INT NULL, amount DECIMAL(12,2) NULL, order_key VARCHAR(160) NULL, \
             channel VARCHAR(8) NULL, created_at DATETIME) DUPLICATE KEY(id)",
            "CREATE TABLE dw.articles (id INT, title VARCHAR(320) NULL, body STRING NULL, price DECIMAL(20,6) NULL, \
             changed_at DATETIME NULL) DUPLICATE KEY(id)",
        ])
        .await;
    let dir = workspace(&[source.datasource("shop"), target.datasource("warehouse", "dw")]);

    let mut orders = example("mysql-to-starrocks.json");
    // A fresh MariaDB knows time zones by their offset only.
    orders["setting"]["common"]["column"]["timeZone"] = json!("+08:00");
    let february = ["--param", "from=2026-02-01", "--param", "to=2026-03-01"];
    let report = run(dir.path(), &orders, &february).await.succeeded().json();
    assert_eq!(report["rows_loaded"], 28 * 24);
    // The same day range again replaces its rows instead of doubling them.
    run(dir.path(), &orders, &february).await.succeeded();
    let wanted = "SELECT id, buyer_id, amount, `key`, 'web', SUBSTR(created_at, 1, 19) FROM orders \
                  WHERE created_at >= '2026-02-01' AND created_at < '2026-03-01'";
    let found = "SELECT id, buyer_id, amount, order_key, channel, created_at FROM dw.orders";
    rows::assert_same(
        &rows::read(source.connect().await, wanted).await,
        &rows::read(target.connect().await, found).await,
    );

    let report = run(dir.path(), &example("json-load.json"), &[]).await.succeeded().json();
    assert_eq!(report["rows_loaded"], 1000);
    let columns = "SELECT id, title, body, price, changed_at FROM";
    rows::assert_same(
        &rows::read(source.connect().await, &format!("{columns} articles")).await,
        &rows::read(target.connect().await, &format!("{columns} dw.articles")).await,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn starrocks_goes_to_starrocks_with_named_delimiters() {
    let (source, target) = (Standin::start(&[]).await, Standin::start(&[]).await);
    let table = "CREATE TABLE didb1.table1 (id INT, name VARCHAR(40) NULL) DUPLICATE KEY(id)";
    source.run(&["CREATE DATABASE didb1", table]).await;
    source
        .run(&[
            "INSERT INTO didb1.table1 VALUES (7, 'left out'), (101, 'tab\\there'), (102, NULL), (103, '')",
        ])
        .await;
    target.run(&["CREATE DATABASE didb1", table, "INSERT INTO didb1.table1 VALUES (1, 'gone')"]).await;
    // The job names an FE that only the address map can reach.
    let reachable = &target.addresses.fe_http[0];
    let mapped = format!("address_map = {{ \"fe.example:8030\" = \"{reachable}\" }}\n");
    let entry = target.datasource("starrocks_public", "didb1") + &mapped;
    let dir = workspace(&[source.datasource("starrocks_datasource", "didb1"), entry]);

    let report = run(dir.path(), &example("delimiters.json"), &[]).await.succeeded().json();
    assert_eq!(report["rows_loaded"], 3);
    rows::assert_same(
        &rows::read(source.connect().await, "SELECT id, name FROM didb1.table1 WHERE id > 100").await,
        &rows::read(target.connect().await, "SELECT id, name FROM didb1.table1").await,
    );
}
