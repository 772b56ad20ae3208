//! Splitting against a real MariaDB and the stand-in: whatever the key's type and collation, however its values are spread,
//! the tasks of a plan read every row exactly once, and none is much larger than the others unless one value is.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use serde_json::{Value, json};

use crate::cluster::{job, output_of_plan, run, workspace};
use crate::mariadb::MariaDb;
use crate::rows;
use crate::standin::Standin;

const ROWS: u64 = 400_000;

/// What is known of a column of [`TABLE`].
struct Key {
    column: &'static str,
    /// Begins an index, so that the index is asked; else the rows are grouped.
    indexed: bool,
    /// One value holds so much that its task may be any size.
    heavy: bool,
}

const fn key(column: &'static str) -> Key {
    Key { column, indexed: false, heavy: false }
}

const fn indexed(column: &'static str) -> Key {
    Key { column, indexed: true, heavy: false }
}

const KEYS: [Key; 22] = [
    indexed("id"),
    indexed("order"),
    key("doubled"),
    Key { heavy: true, ..indexed("HalfNull") },
    indexed("crowded"),
    key("crowded_2"),
    indexed("snowflake"),
    indexed("outlier"),
    key("outlier_2"),
    indexed("amount"),
    key("amount_2"),
    indexed("day"),
    key("moment"),
    indexed("stamp"),
    indexed("name_ci"),
    key("name_ci_2"),
    indexed("name_bin"),
    indexed("latin"),
    key("chinese"),
    indexed("uuid"),
    Key { heavy: true, ..indexed("mostly_one") },
    Key { heavy: true, ..key("mostly_one_2") },
];

const TABLE: &[&str] = &[
    "CREATE TABLE spread (
        id BIGINT NOT NULL PRIMARY KEY,
        `order` INT NOT NULL,
        doubled INT NOT NULL,
        HalfNull INT NULL,
        crowded BIGINT NOT NULL,
        crowded_2 BIGINT NOT NULL,
        snowflake BIGINT UNSIGNED NOT NULL,
        outlier BIGINT UNSIGNED NOT NULL,
        outlier_2 BIGINT UNSIGNED NOT NULL,
        amount DECIMAL(20,4) NOT NULL,
        amount_2 DECIMAL(40,10) NOT NULL,
        day DATE NULL,
        moment DATETIME(6) NOT NULL,
        stamp TIMESTAMP(3) NOT NULL DEFAULT '2020-01-01',
        name_ci VARCHAR(40) COLLATE utf8mb4_general_ci NOT NULL,
        name_ci_2 VARCHAR(40) COLLATE utf8mb4_unicode_ci NULL,
        name_bin CHAR(32) COLLATE utf8mb4_bin NOT NULL,
        latin VARCHAR(40) CHARACTER SET latin1 NOT NULL,
        chinese VARCHAR(20) COLLATE utf8mb4_unicode_ci NOT NULL,
        uuid BINARY(16) NOT NULL,
        mostly_one VARCHAR(20) NOT NULL,
        mostly_one_2 VARCHAR(20) NOT NULL
    ) DEFAULT CHARSET utf8mb4",
    "INSERT INTO spread SELECT CAST(seq AS SIGNED) * 3 - 700000, seq DIV 7, seq DIV 40000,
        IF(seq % 2, seq * 5, NULL),
        IF(seq % 10, seq, seq * 100), IF(seq % 10, seq, seq * 100),
        10000000000000000000 + ((seq DIV 5 * 1000) << 22 | seq % 5),
        IF(seq = 1, 9223372036854775808, seq), IF(seq = 1, 18446744073709551615, seq),
        CAST(seq * 7919 % 400000 AS SIGNED) / 10000 - 10, CAST(seq AS SIGNED) / 7 - 1000,
        IF(seq % 50, DATE '2020-01-01' + INTERVAL (seq % 1500) DAY, NULL),
        TIMESTAMP '1969-12-31 23:59:00' + INTERVAL seq * 37 MICROSECOND,
        TIMESTAMP '2024-01-01 00:00:00' + INTERVAL seq SECOND,
        CONCAT(ELT(1 + seq % 8, 'a', 'B', 'c', 'D', 'é', 'E', 'ü', 'Z'), HEX(seq % 90000), ELT(1 + seq % 3, '', ' ', '_')),
        IF(seq % 100, CONCAT(ELT(1 + seq % 4, 'x', 'X', 'ß', 'ss'), seq % 70000), NULL),
        MD5(seq),
        CONVERT(CONCAT('Straße ', CHAR(65 + seq % 26), seq % 3000, ELT(1 + seq % 3, '''', '\\\\', '')) USING latin1),
        CONCAT(ELT(1 + seq % 6, '商', '品', '名', '龥', '一', '𠀀'), seq % 40000),
        UNHEX(MD5(CONCAT('x', seq))),
        IF(seq % 3, 'it''s \\\\ the same', CONCAT('v', seq)), IF(seq % 3, 'same', CONCAT('v', seq))
      FROM seq_1_to_400000",
];

/// Count, sums: no set of rows but the whole table comes to the same.
type Digest = (u64, i128, u128);

async fn digest(conn: &mut mysql_async::Conn, relation: &str) -> Digest {
    let sql = format!("SELECT COUNT(*), CAST(SUM(id) AS CHAR), CAST(SUM(id * id) AS CHAR) FROM {relation}");
    let row: Option<(u64, Option<String>, Option<String>)> =
        conn.query_first(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let (count, sum, squares) = row.expect("one row");
    let number = |text: Option<String>| text.map_or(0, |text| text.parse().expect("an integer"));
    (count, number(sum), squares.map_or(0, |text| text.parse().expect("an integer")))
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_read_every_row_once_by_any_key_and_are_of_about_one_size() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    source.run(TABLE).await;
    let indexes: Vec<String> = KEYS
        .iter()
        .filter(|key| key.indexed && key.column != "id")
        .map(|key| format!("ADD INDEX (`{}`)", key.column))
        .collect();
    source.run(&[&format!("ALTER TABLE spread {}", indexes.join(", ")), "ANALYZE TABLE spread"]).await;
    target.run(&["CREATE DATABASE dw", "CREATE TABLE dw.ids (id BIGINT NOT NULL) DUPLICATE KEY(id)"]).await;
    let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
    let mut conn = source.connect().await;
    let whole = digest(&mut conn, "spread").await;
    assert_eq!(whole.0, ROWS);
    for Key { column, indexed, heavy } in KEYS {
        let script = job(
            "mysql",
            json!({ "datasource": "source", "table": "spread", "column": ["id"], "splitPk": column }),
            json!({ "datasource": "target", "table": "ids", "column": ["id"], "preSql": ["truncate table @table"] }),
            json!({ "speed": { "concurrent": 4 } }),
        );
        let plan = output_of_plan(dir.path(), &script).await.succeeded().json();
        let tasks = plan["tasks"].as_array().expect("tasks");
        let warnings = plan["warnings"].to_string();
        let mut sum: Digest = (0, 0, 0);
        let mut sizes = Vec::new();
        for task in tasks {
            let sql = task["sql"].as_str().expect("a statement");
            let part = digest(&mut conn, &format!("({sql}) AS task")).await;
            sum = (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2);
            sizes.push(part.0);
        }
        assert_eq!(sum, whole, "{column}: {sizes:?} of\n{tasks:#?}");
        assert!(tasks.len() >= 4, "{column}: {sizes:?}");
        let mean = ROWS / tasks.len() as u64;
        let over: Vec<&u64> = sizes.iter().filter(|rows| **rows > 3 * mean).collect();
        if heavy {
            assert_eq!(over.len(), 1, "{column}: {sizes:?}, mean {mean}");
            assert!(warnings.contains("cannot be cut"), "{column}: {warnings}");
        } else {
            assert!(over.is_empty(), "{column}: {sizes:?}, mean {mean}");
        }
        let scans = warnings.contains("reads the whole table");
        assert_eq!(scans, !indexed, "{column}: {warnings}");
        let folds = warnings.contains("without regard to case");
        assert_eq!(
            folds,
            ["name_ci", "name_ci_2", "latin", "chinese", "mostly_one", "mostly_one_2"].contains(&column)
        );
    }
    conn.disconnect().await.expect("a clean goodbye");
}

/// Every type of key, and its value made of a number `{n}`.
const TYPES: [(&str, &str, &str); 10] = [
    ("int", "BIGINT", "{n}"),
    ("unsigned", "BIGINT UNSIGNED", "{n} + 18446744073600000000"),
    ("decimal", "DECIMAL(30,10)", "CAST({n} AS SIGNED) / 8 - 5000"),
    ("date", "DATE", "DATE '1000-01-01' + INTERVAL ({n} DIV 8) DAY"),
    ("datetime", "DATETIME(6)", "TIMESTAMP '0999-12-31 23:59:59' + INTERVAL ({n} * 1001) MICROSECOND"),
    ("stamp", "TIMESTAMP(6)", "TIMESTAMP '1990-01-01 00:00:00' + INTERVAL {n} SECOND"),
    (
        "general",
        "VARCHAR(40) COLLATE utf8mb4_general_ci",
        "CONCAT(IF({n} % 2, 'ÄkEy ', 'akey '), {n} % 60000)",
    ),
    (
        "unicode",
        "VARCHAR(40) COLLATE utf8mb4_unicode_ci",
        "CONCAT(ELT(1 + {n} % 4, 'ß', 'SS', '商', 'z '), {n} % 70000)",
    ),
    ("exact", "VARCHAR(40) COLLATE utf8mb4_bin", "CONCAT(CHAR(65 + {n} % 26), IF({n} % 2, 'é', 'E'), {n})"),
    ("bytes", "VARBINARY(16)", "UNHEX(LPAD(HEX({n} * 2654435761), 16, '0'))"),
];

/// How the numbers are spread.
const SPREADS: [(&str, &str); 4] = [
    ("unique", "seq"),
    ("doubled", "seq DIV 7"),
    ("nulls", "IF(seq % 2, seq, NULL)"),
    ("skewed", "IF(seq % 10, seq, seq * 100)"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_key_is_split_however_its_values_are_spread() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for (name, sql_type, of_number) in TYPES {
        for (spread, number) in SPREADS {
            columns.push((format!("{name}_{spread}"), sql_type));
            values.push(of_number.replace("{n}", &format!("({number})")));
        }
    }
    let defined: Vec<String> =
        columns.iter().map(|(name, sql_type)| format!("{name} {sql_type} NULL")).collect();
    let table = format!(
        "CREATE TABLE crossed (id BIGINT PRIMARY KEY, {}) DEFAULT CHARSET utf8mb4",
        defined.join(", ")
    );
    let fill = format!("INSERT INTO crossed SELECT seq, {} FROM seq_1_to_170000", values.join(", "));
    source.run(&[&table, &fill, "ANALYZE TABLE crossed"]).await;
    target.run(&["CREATE DATABASE dw", "CREATE TABLE dw.ids (id BIGINT NOT NULL) DUPLICATE KEY(id)"]).await;
    let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
    let mut conn = source.connect().await;
    let whole = digest(&mut conn, "crossed").await;
    for (column, _) in columns {
        let script = job(
            "mysql",
            json!({ "datasource": "source", "table": "crossed", "column": ["id"], "splitPk": column }),
            json!({ "datasource": "target", "table": "ids", "column": ["id"] }),
            json!({ "speed": { "concurrent": 4 } }),
        );
        let plan = output_of_plan(dir.path(), &script).await.succeeded().json();
        let parts: Vec<String> = plan["tasks"]
            .as_array()
            .expect("tasks")
            .iter()
            .map(|task| {
                format!("SELECT COUNT(*) FROM ({}) AS task", task["sql"].as_str().expect("a statement"))
            })
            .collect();
        let sizes: Vec<u64> = conn.query(parts.join(" UNION ALL ")).await.expect("counts");
        assert_eq!(sizes.iter().sum::<u64>(), whole.0, "{column}: {sizes:?}");
        let all: Vec<&str> =
            plan["tasks"].as_array().expect("tasks").iter().filter_map(|task| task["sql"].as_str()).collect();
        let read = digest(&mut conn, &format!("({}) AS tasks", all.join(" UNION ALL "))).await;
        assert_eq!(read, whole, "{column}: {sizes:?}");
        assert!(
            sizes.len() >= 4 && sizes.iter().all(|rows| *rows <= 3 * whole.0 / sizes.len() as u64),
            "{column}: {sizes:?}"
        );
    }
    conn.disconnect().await.expect("a clean goodbye");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_an_order_is_refused_before_anything_happens() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    source
        .run(&[
            "CREATE TABLE t (id INT PRIMARY KEY, price FLOAT, kind ENUM('b', 'a'), flags SET('x'), at TIME)",
        ])
        .await;
    target.run(&["CREATE DATABASE dw", "CREATE TABLE dw.ids (id BIGINT) DUPLICATE KEY(id)"]).await;
    let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
    for column in ["price", "kind", "flags", "at"] {
        let script = job(
            "mysql",
            json!({ "datasource": "source", "table": "t", "column": ["id"], "splitPk": column }),
            json!({ "datasource": "target", "table": "ids", "column": ["id"] }),
            json!({}),
        );
        let outcome = output_of_plan(dir.path(), &script).await;
        assert_eq!(outcome.code, 2, "{column}: {outcome:?}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("cannot be split") && said.contains(&format!("shop.t.{column}")), "{said}");
    }
}

/// Two MySQL servers with four tables each, as sharded shops have them.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_several_servers_become_one_job() {
    let (first, second, target) = tokio::join!(MariaDb::start(), MariaDb::start(), Standin::start(&[]));
    for (server, numbers) in [(&first, 0..4), (&second, 4..8)] {
        for number in numbers {
            server
                .run(&[
                    &format!(
                        "CREATE TABLE trade_{number:02} (id BIGINT PRIMARY KEY, `key` VARCHAR(20), created_at DATETIME(6)) \
                         DEFAULT CHARSET utf8mb4"
                    ),
                    &format!(
                        "INSERT INTO trade_{number:02} SELECT seq, CONCAT('{number}-', seq), \
                         TIMESTAMPADD(MICROSECOND, seq, '2026-01-01') FROM seq_1_to_{}",
                        number * 700 + 1
                    ),
                ])
                .await;
        }
    }
    let table = "CREATE TABLE dw.trade (id BIGINT, k VARCHAR(80) NULL, origin VARCHAR(20) NULL, note VARCHAR(20) NULL, \
                 created_at DATETIME NULL) DUPLICATE KEY(id)";
    target.run(&["CREATE DATABASE dw", table]).await;
    let dir = workspace(&[
        first.datasource("my_shard_0"),
        second.datasource("my_shard_1"),
        target.datasource("sr_dst", "dw"),
    ]);
    let mut script = job(
        "mysql",
        json!({
            "connection": [
                { "datasource": "my_shard_0", "table": ["trade_[00-03]"] },
                { "datasource": "my_shard_1", "table": ["trade_[04-07]"] },
            ],
            "useSpecialSecret": true, "encoding": "UTF-8",
            "column": ["id", "`key`", "'shop'", "null", "created_at"], "where": "", "splitPk": "id", "splitFactor": 2,
        }),
        json!({ "datasource": "sr_dst", "table": "trade", "column": ["id", "k", "origin", "note", "created_at"] }),
        json!({ "speed": { "concurrent": 8 } }),
    );
    let report = run(dir.path(), &script, &[]).await.succeeded().json();
    assert_eq!(report["rows_loaded"], 8 + 28 * 700);
    let expected = |numbers: std::ops::Range<u32>| {
        let of = |number| {
            format!("SELECT id, `key`, 'shop', NULL, SUBSTR(created_at, 1, 26) FROM trade_{number:02}")
        };
        numbers.map(of).collect::<Vec<_>>().join(" UNION ALL ")
    };
    for (server, numbers) in [(&first, 0..4), (&second, 4..8)] {
        let digits: Vec<String> = numbers.clone().map(|number| format!("k LIKE '{number}-%'")).collect();
        let found =
            format!("SELECT id, k, origin, note, created_at FROM dw.trade WHERE {}", digits.join(" OR "));
        rows::assert_same(
            &rows::read(server.connect().await, &expected(numbers)).await,
            &rows::read(target.connect().await, &found).await,
        );
    }

    // One table that is not like the others stops the job before anything is changed.
    second.run(&["ALTER TABLE trade_06 MODIFY id DECIMAL(20,4)"]).await;
    script["steps"][1]["parameter"]["preSql"] = json!(["truncate table @table"]);
    let outcome = run(dir.path(), &script, &["--new"]).await;
    assert_eq!(outcome.code, 2, "{outcome:?}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(
        said.contains("shop.trade_06 differs from shop.trade_00: column id decimal(20,4) vs bigint(20)"),
        "{said}"
    );
    assert_eq!(target.count("dw.trade").await, 8 + 28 * 700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_the_jobs_own_is_read_as_one_task() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    source
        .run(&[
            "CREATE TABLE fact (id INT PRIMARY KEY, dim_id INT, amt DECIMAL(10,2))",
            "INSERT INTO fact SELECT seq, seq % 7, seq / 4 FROM seq_1_to_3000",
            "CREATE TABLE dim (id INT PRIMARY KEY, name VARCHAR(20))",
            "INSERT INTO dim SELECT seq, CONCAT('n', seq) FROM seq_0_to_6",
        ])
        .await;
    let table =
        "CREATE TABLE dw.named (id INT, name VARCHAR(80) NULL, amt DECIMAL(10,2) NULL) DUPLICATE KEY(id)";
    target.run(&["CREATE DATABASE dw", table]).await;
    let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
    let query = |condition: &str| {
        format!(
            "select a.id, b.name, a.amt from fact a join dim b on a.dim_id = b.id where {condition} order by a.id;"
        )
    };
    let mut script = job(
        "mysql",
        json!({ "datasource": "source", "querySql": [query("a.id <= 1000"), query("a.id > 1000")], "splitPk": "id" }),
        json!({ "datasource": "target", "table": "named", "column": ["id", "name", "amt"] }),
        json!({}),
    );
    let outcome = run(dir.path(), &script, &[]).await.succeeded();
    let report = outcome.json();
    assert_eq!((&report["rows_loaded"], &report["tasks"]["total"]), (&json!(3000), &json!(2)));
    assert!(report["warnings"].to_string().contains("splitPk is ignored with querySql"), "{report:#}");
    rows::assert_same(
        &rows::read(
            source.connect().await,
            "SELECT a.id, b.name, a.amt FROM fact a JOIN dim b ON a.dim_id = b.id",
        )
        .await,
        &rows::read(target.connect().await, "SELECT id, name, amt FROM dw.named").await,
    );
    script["steps"][0]["parameter"]["querySql"] = json!("select nothing from fact");
    let outcome = run(dir.path(), &script, &["--new"]).await;
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(format!("{outcome:?}").contains("querySql is not understood"), "{outcome:?}");
}

/// A StarRocks table of 300,000 rows, some without a key.
async fn starrocks_source() -> Standin {
    let source = Standin::start(&[]).await;
    source
        .run(&[
            "CREATE DATABASE ods",
            "CREATE TABLE ods.orders (id BIGINT, code VARCHAR(40) NULL, big LARGEINT NULL) DUPLICATE KEY(id) \
             DISTRIBUTED BY HASH(id) BUCKETS 12",
        ])
        .await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let lines: String = (0..300_000_u64)
        .map(|n| {
            let code = if n % 100 == 0 {
                "\\N".to_owned()
            } else {
                format!("c{:08x}", n * 2_654_435_761 % (1 << 32))
            };
            format!("{n}\t{code}\t{}\n", u128::from(n) * 1_000_000_000_000_000_000_000)
        })
        .collect();
    let file = dir.path().join("rows.csv");
    std::fs::write(&file, lines).expect("it is writable");
    let done = std::process::Command::new("curl")
        .args(["-sS", "-u", &format!("{}:{}", crate::standin::USER, crate::standin::PASSWORD), "-T"])
        .arg(&file)
        .arg(format!("http://{}/api/ods/orders/_stream_load", source.addresses.be_http[0]))
        .output()
        .expect("curl is there");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("\"Success\""), "{said}");
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn starrocks_tables_are_split_by_key_or_by_tablet() {
    let (source, target) = tokio::join!(starrocks_source(), Standin::start(&[]));
    let table =
        "CREATE TABLE dw.orders (id BIGINT, code VARCHAR(40) NULL, big LARGEINT NULL) DUPLICATE KEY(id)";
    target.run(&["CREATE DATABASE dw", table]).await;
    let dir = workspace(&[source.datasource("source", "ods"), target.datasource("target", "dw")]);
    let columns = json!(["id", "code", "big"]);
    let script = |split_key: Option<&str>, split: &str| {
        job(
            "starrocks",
            json!({ "datasource": "source", "table": "orders", "column": columns, "splitPk": split_key }),
            json!({ "datasource": "target", "table": "orders", "column": columns, "preSql": ["truncate table @table"] }),
            json!({ "speed": { "concurrent": 4 }, "starlift": { "split": split } }),
        )
    };
    let whole = rows::read(source.connect().await, "SELECT id, code, big FROM ods.orders").await;
    for (split_key, split) in
        [(Some("id"), "key"), (Some("code"), "key"), (Some("big"), "key"), (None, "tablet")]
    {
        let script = script(split_key, split);
        let plan = output_of_plan(dir.path(), &script).await.succeeded().json();
        let tasks: Vec<&Value> = plan["tasks"].as_array().expect("tasks").iter().collect();
        let largest = tasks.iter().filter_map(|task| task["rows_estimate"].as_u64()).max();
        assert!((4..=8).contains(&tasks.len()) && largest < Some(150_000), "{split_key:?}: {tasks:#?}");
        if split == "tablet" {
            let statements: BTreeSet<&str> = tasks.iter().filter_map(|task| task["sql"].as_str()).collect();
            assert!(statements.iter().all(|sql| sql.contains(" TABLET(")), "{statements:?}");
        }
        let report = run(dir.path(), &script, &["--new"]).await.succeeded().json();
        assert_eq!(report["rows_loaded"], 300_000, "{split_key:?}");
        let found = rows::read(target.connect().await, "SELECT id, code, big FROM dw.orders").await;
        rows::assert_same(&whole, &found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_beyond_the_largest_key_are_not_lost() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    source
        .run(&["CREATE TABLE t (id BIGINT PRIMARY KEY)", "INSERT INTO t SELECT seq FROM seq_1_to_120000"])
        .await;
    target.run(&["CREATE DATABASE dw", "CREATE TABLE dw.t (id BIGINT) DUPLICATE KEY(id)"]).await;
    let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
    let script = job(
        "mysql",
        json!({ "datasource": "source", "table": "t", "column": ["id"], "splitPk": "id" }),
        json!({ "datasource": "target", "table": "t", "column": ["id"] }),
        json!({ "speed": { "concurrent": 2 } }),
    );
    let plan = output_of_plan(dir.path(), &script).await.succeeded().json();
    let last = plan["tasks"].as_array().and_then(|tasks| tasks.last()).expect("a last task");
    source.run(&["INSERT INTO t VALUES (9000000000)", "INSERT INTO t VALUES (-9000000000)"]).await;
    let mut conn = source.connect().await;
    let sql = format!("SELECT MAX(id) FROM ({}) AS task", last["sql"].as_str().expect("a statement"));
    assert_eq!(conn.query_first::<i64, _>(sql).await.expect("it runs"), Some(9_000_000_000));
    let first = plan["tasks"][0]["sql"].as_str().expect("a statement");
    let least = conn.query_first::<i64, _>(format!("SELECT MIN(id) FROM ({first}) AS task")).await;
    assert_eq!(least.expect("it runs"), Some(-9_000_000_000));
}
