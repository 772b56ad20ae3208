//! The example jobs of the script reference, run as they stand against servers that bear the names they use. The fifth, a
//! DataX file, is run in `datax.rs`.

use std::path::Path;

use mysql_async::prelude::Queryable;
use serde_json::{Value, json};

use crate::cluster::{output_of_plan, run, workspace};
use crate::mariadb::MariaDb;
use crate::standin::{self, Standin};

fn script(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The FEs that the jobs name, all of them at one address.
fn address_map(reachable: &str) -> String {
    let named =
        ["10.0.0.11:8030", "10.0.0.12:8030", "10.0.0.13:8030", "fe1.internal:8030", "fe2.internal:8030"];
    let entries: Vec<String> = named.iter().map(|name| format!("\"{name}\" = \"{reachable}\"")).collect();
    format!("address_map = {{ {} }}\n", entries.join(", "))
}

async fn first(target: &Standin, sql: &str) -> String {
    let mut conn = target.connect().await;
    let row: Option<mysql_async::Row> =
        conn.query_first(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let cells = row.expect("a row").unwrap();
    cells.iter().map(|cell| cell.as_sql(true)).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_the_reference_run_or_are_planned_as_they_stand() {
    let (first_shop, second_shop, starrocks) =
        tokio::join!(MariaDb::start(), MariaDb::start(), Standin::start(&[]));
    for (shop, numbers) in [(&first_shop, 0..16), (&second_shop, 16..32)] {
        for number in numbers {
            shop.run(&[
                &format!("CREATE TABLE trade_{number:02} (id BIGINT PRIMARY KEY, `key` VARCHAR(20), created_at DATETIME(6))"),
                &format!("INSERT INTO trade_{number:02} SELECT seq, CONCAT('k', seq), '2026-01-01' FROM seq_1_to_9"),
            ])
            .await;
        }
    }
    first_shop
        .run(&[
            "CREATE TABLE student (id INT PRIMARY KEY, name VARCHAR(20), score DECIMAL(5,2))",
            "INSERT INTO student SELECT seq, CONCAT('s', seq), seq / 3 FROM seq_1_to_40",
        ])
        .await;
    starrocks
        .run(&[
            "CREATE DATABASE ods",
            "CREATE DATABASE dw",
            "CREATE TABLE ods.dim_city (city_id INT, city_name VARCHAR(40)) DUPLICATE KEY(city_id)",
            "INSERT INTO ods.dim_city VALUES (1, 'Ulm'), (2, 'Bern')",
            "CREATE TABLE dw.dim_city (city_id INT, city_name VARCHAR(40)) DUPLICATE KEY(city_id)",
            "CREATE TABLE ods.orders (order_id BIGINT, buyer_id INT, amount DECIMAL(10,2), remark VARCHAR(80), gmt_modified DATETIME) DUPLICATE KEY(order_id)",
            "INSERT INTO ods.orders VALUES (1, 7, 1.50, 'a', '2025-10-31 00:00:00'), (2, 7, 2.50, 'b\\tc', '2025-10-31 23:59:59'), (3, 8, 3.50, 'later', '2025-11-01 00:00:00')",
            "CREATE TABLE dw.orders_inc (order_id BIGINT, buyer_id INT, amount DECIMAL(10,2), remark VARCHAR(80), gmt_modified DATETIME) DUPLICATE KEY(order_id)",
            "INSERT INTO dw.orders_inc VALUES (9, 9, 9.00, 'replaced', '2025-10-31 12:00:00')",
            "CREATE TABLE dw.trade (id BIGINT, k VARCHAR(80) NULL, origin VARCHAR(20) NULL, note VARCHAR(20) NULL, created_at DATETIME NULL) DUPLICATE KEY(id)",
            "CREATE TABLE ods.student (id INT, name VARCHAR(80) NULL, score DECIMAL(5,2) NULL) DUPLICATE KEY(id)",
            "CREATE TABLE ods.fact (id INT, dim_id INT, amt DECIMAL(10,2), dt VARCHAR(8)) DUPLICATE KEY(id)",
            "INSERT INTO ods.fact VALUES (1, 1, 1.00, '20251031'), (2, 2, 2.00, '20251031'), (3, 1, 3.00, '20251101')",
            "CREATE TABLE ods.dim (id INT, name VARCHAR(20)) DUPLICATE KEY(id)",
            "INSERT INTO ods.dim VALUES (1, 'one'), (2, 'two')",
            "CREATE TABLE dw.fact_named (id INT, name VARCHAR(20) NULL, amt DECIMAL(10,2) NULL) DUPLICATE KEY(id)",
            "CREATE TABLE ods.user_tag (user_id BIGINT, vip_level INT, dt VARCHAR(8)) DUPLICATE KEY(user_id)",
            "INSERT INTO ods.user_tag VALUES (1, 5, '20251031'), (2, 6, '20251031'), (3, 7, '20251101')",
            "CREATE TABLE dw.user_wide (user_id BIGINT NOT NULL, vip_level INT NULL, city VARCHAR(20) NULL) PRIMARY KEY(user_id)",
        ])
        .await;
    let target = starrocks.datasource("sr_dst", "dw") + &address_map(&starrocks.addresses.fe_http[0]);
    let dir = workspace(&[
        starrocks.datasource("sr_src", "ods"),
        target,
        first_shop.datasource("my_shard_0"),
        second_shop.datasource("my_shard_1"),
        first_shop.datasource("my_src"),
    ]);
    let scheduled = ["--new", "--scheduled-time", "2025-11-01 02:30:45"];
    let of_a_day = [&scheduled[..], &["--param", "d0=${yyyy-mm-dd}", "--param", "d1=$[yyyy-mm-dd]"]].concat();

    let mut shards = script("e3-shards.json");
    // A fresh MariaDB knows time zones by their offset only.
    shards["setting"]["common"]["column"]["timeZone"] = json!("+08:00");
    let mut query = script("e6-datax-query.json");
    let content = &mut query["job"]["content"][0];
    for side in ["reader", "writer"] {
        content[side]["parameter"]["username"] = json!(standin::USER);
        content[side]["parameter"]["password"] = json!(standin::PASSWORD);
    }
    let url = format!("jdbc:mysql://{}/ods", starrocks.addresses.mysql);
    content["reader"]["parameter"]["connection"][0]["jdbcUrl"] = json!([url]);
    content["writer"]["parameter"]["jdbcUrl"] = json!(format!("jdbc:mysql://{}/", starrocks.addresses.mysql));
    content["writer"]["parameter"]["loadUrl"] = json!(starrocks.addresses.fe_http);

    for (name, script, flags, rows) in [
        ("E1", script("e1-minimal.json"), &scheduled[..], 2),
        ("E2", script("e2-incremental.json"), &of_a_day, 2),
        ("E3", shards, &scheduled, 32 * 9),
        ("E4", script("e4-wizard.json"), &scheduled, 40),
        ("E6", query, &scheduled, 2),
    ] {
        let outcome = run(dir.path(), &script, flags).await;
        assert_eq!(outcome.code, 0, "{name}: {outcome:?}");
        assert_eq!(outcome.json()["rows_loaded"], rows, "{name}: {outcome:?}");
    }
    assert_eq!(first(&starrocks, "SELECT COUNT(*), SUM(amount) FROM dw.orders_inc").await, "'2' '4.00'");
    assert_eq!(
        first(&starrocks, "SELECT COUNT(*), MIN(origin), MAX(note) FROM dw.trade").await,
        "'288' 'shop' NULL"
    );
    assert_eq!(
        first(&starrocks, "SELECT name, amt FROM dw.fact_named ORDER BY id DESC LIMIT 1").await,
        "'two' '2.00'"
    );
    // The stand-in serves no partial updates, so this one is planned only.
    let plan = output_of_plan(dir.path(), &script("e7-partial-update.json")).await.succeeded().json();
    assert_eq!(plan["target"], "`dw`.`user_wide`");
}
