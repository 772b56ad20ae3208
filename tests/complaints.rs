//! What people complain of elsewhere (docs/COMPLAINTS.md): the cases that no other test shows, and that the page is true.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cluster::{job, run, workspace};
use crate::mariadb::MariaDb;
use crate::migration::datasources;
use crate::rows;
use crate::standin::Standin;

#[tokio::test(flavor = "multi_thread")]
async fn values_that_others_damage_arrive() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    source
        .run(&[
            "CREATE TABLE t (id INT PRIMARY KEY, at DATETIME(6), v TEXT) DEFAULT CHARSET utf8mb4",
            "INSERT INTO t VALUES (1, '2020-02-29 23:59:59.000001', 'tab\\there'), (2, '1901-12-31 00:00:00.5', 'line\\nbreak'), \
             (3, NULL, CHAR(1, 2)), (4, '2038-01-19 03:14:07.999999', ''), (5, '9999-12-31 23:59:59.999999', '\\\\N')",
        ])
        .await;
    target
        .run(&["CREATE DATABASE dw", "CREATE TABLE dw.t (id INT, at DATETIME, v STRING) DUPLICATE KEY(id)"])
        .await;
    let dir = workspace(&datasources(&source, &target));
    let columns = ["id", "at", "v"];
    // Without loadProps the delimiters are found; a named one of several bytes is used as it is.
    let long = json!({ "column_separator": "\\x0103", "row_delimiter": "\\x02040506" });
    for (load_props, filter) in [(None, "id > 0"), (Some(long), "id <> 5")] {
        let mut writer = json!({ "datasource": "target", "table": "t", "column": columns, "preSql": ["truncate table @table"] });
        if let Some(load_props) = load_props {
            writer["loadProps"] = load_props;
        }
        let reader = json!({ "datasource": "source", "table": "t", "column": columns, "where": filter });
        let script = job("mysql", reader, writer, json!({ "speed": { "concurrent": 1 } }));
        run(dir.path(), &script, &[]).await.succeeded();
        let wanted =
            rows::read(source.connect().await, &format!("SELECT id, at, v FROM shop.t WHERE {filter}")).await;
        let found = rows::read(target.connect().await, "SELECT id, at, v FROM dw.t").await;
        rows::assert_same(&wanted, &found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zero_date_is_never_null_in_silence() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    source
        .run(&[
            "CREATE TABLE t (id INT PRIMARY KEY, day DATE)",
            "SET SESSION sql_mode = ''",
            "INSERT INTO t VALUES (1, '2020-02-29'), (2, '0000-00-00'), (3, NULL)",
        ])
        .await;
    target.run(&["CREATE DATABASE dw", "CREATE TABLE dw.t (id INT, day DATE) DUPLICATE KEY(id)"]).await;
    let dir = workspace(&datasources(&source, &target));
    let columns = ["id", "day"];
    let script = job(
        "mysql",
        json!({ "datasource": "source", "table": "t", "column": columns, "splitPk": "id" }),
        json!({ "datasource": "target", "table": "t", "column": columns, "strategyOnError": "batchDirtyData" }),
        json!({ "speed": { "concurrent": 1 }, "errorLimit": { "record": 1 } }),
    );
    let report = run(dir.path(), &script, &[]).await.succeeded().json();
    let nulls = target.count("dw.t WHERE day IS NULL").await;
    assert_eq!(nulls, 1, "only the row that was NULL: {report:#}");
    assert_eq!(report["dirty_records"], json!(3 - target.count("dw.t").await), "{report:#}");
    if report["dirty_records"] == 1 {
        assert!(report["bad_rows"].to_string().contains("day"), "{report:#}");
    }
}

/// Appends the text of all source files under `dir` but this one.
fn sources(dir: &Path, text: &mut String) {
    for entry in std::fs::read_dir(dir).expect("a directory of the repository").flatten() {
        let path = entry.path();
        let is_source = path.extension().is_some_and(|ending| ending == "rs");
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, text);
        } else if is_source && path.file_name().is_some_and(|name| name != "complaints.rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/COMPLAINTS.md")).expect("the page");
    let mut text = include_str!("complaints.rs").to_owned();
    for place in ["common", "remote", "coordinator", "worker", "cli", "tests"] {
        sources(&root.join(place), &mut text);
    }
    let rows: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    assert_eq!(rows.len(), 31, "one line for each complaint");
    for (number, row) in (1..).zip(rows) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells[0], number.to_string(), "{row}");
        let named: Vec<&str> = cells[3].split(',').map(|name| name.trim().trim_matches('`')).collect();
        for name in named {
            let is_there = text.contains(&format!("fn {name}("));
            assert!(is_there, "complaint {number} names a test that is not there: {name}");
        }
    }
}
