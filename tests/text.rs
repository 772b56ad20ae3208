//! Texts that other movers damage: delimiters, the mark of NULL, blank lines, zero bytes. They arrive as they are, or are
//! bad rows with key and column where the job itself stands in the way.

use serde_json::{Value, json};

use crate::cluster::{job, run, workspace};
use crate::mariadb::MariaDb;
use crate::rows;
use crate::standin::Standin;

/// With the delimiters `,` and line feed these rows have no form in CSV: by id.
const ODD: [(u32, &str); 5] =
    [(1, "'a,b'"), (2, "'a\\nb'"), (3, "'\\\\N'"), (4, "'ends\\r'"), (5, "CONCAT(CHAR(1), ',', CHAR(2))")];
const PLAIN: [&str; 6] = ["''", "NULL", "'😀 ü'", "'a\\0b\\0'", "'\\\\N '", "REPEAT('x', 70000)"];

struct Place {
    source: MariaDb,
    target: Standin,
    dir: tempfile::TempDir,
}

impl Place {
    async fn start() -> Self {
        let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
        let values = ODD.iter().map(|(_, value)| *value).chain(PLAIN);
        let rows: Vec<String> = (1..).zip(values).map(|(id, value)| format!("({id}, {value})")).collect();
        source
            .run(&[
                "CREATE TABLE t (id INT PRIMARY KEY, s MEDIUMTEXT) DEFAULT CHARSET utf8mb4",
                &format!("INSERT INTO t VALUES {}", rows.join(", ")),
            ])
            .await;
        target
            .run(&[
                "CREATE DATABASE dw",
                "CREATE TABLE dw.t (id INT NOT NULL, s STRING NULL) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1",
                "CREATE TABLE dw.alone (s STRING NULL) DUPLICATE KEY(s) DISTRIBUTED BY HASH(s) BUCKETS 1",
            ])
            .await;
        let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
        Self { source, target, dir }
    }

    fn script(table: &str, columns: &[&str], props: &Value, on_error: &str) -> Value {
        job(
            "mysql",
            json!({ "datasource": "source", "table": "t", "column": columns, "splitPk": "id" }),
            json!({ "datasource": "target", "table": table, "column": columns, "loadProps": props,
                    "strategyOnError": on_error, "preSql": ["truncate table @table"] }),
            json!({ "errorLimit": { "record": 100 } }),
        )
    }

    async fn assert_same(&self, columns: &str, from: &str, to: &str) {
        let source = rows::read(self.source.connect().await, &format!("SELECT {columns} FROM {from}")).await;
        let target = rows::read(self.target.connect().await, &format!("SELECT {columns} FROM {to}")).await;
        rows::assert_same(&source, &target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_arrive_in_csv_and_json_and_alone_in_their_row() {
    let place = Place::start().await;
    for format in ["csv", "json"] {
        let props = json!({ "format": format });
        let all = Place::script("t", &["id", "s"], &props, "exit");
        run(place.dir.path(), &all, &["--new"]).await.succeeded();
        place.assert_same("id, s", "t", "dw.t").await;
        let alone = Place::script("alone", &["s"], &props, "exit");
        run(place.dir.path(), &alone, &["--new"]).await.succeeded();
        place.assert_same("s", "t", "dw.alone").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_holds_a_delimiter_the_job_names_is_a_bad_row_with_key_and_column() {
    let place = Place::start().await;
    let props = json!({ "column_separator": ",", "row_delimiter": "\n" });
    let script = Place::script("t", &["id", "s"], &props, "exit");
    let outcome = run(place.dir.path(), &script, &["--new"]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let error = outcome.json()["error"].clone();
    assert_eq!(error["code"], "DELIMITER_IN_VALUE", "{error:#}");
    let message = error["message"].as_str().expect("text");
    assert!(
        message.contains("the row with id = 1") && message.contains("column s holds a delimiter"),
        "{message}"
    );

    let script = Place::script("t", &["id", "s"], &props, "batchDirtyData");
    let report = run(place.dir.path(), &script, &["--new"]).await.succeeded().json();
    assert_eq!(report["dirty_records"], ODD.len(), "{report:#}");
    let bad = report["bad_rows"].as_array().expect("rows");
    for (id, _) in ODD {
        let row = bad.iter().find(|row| row["key"] == json!(id.to_string())).expect("it is told");
        assert_eq!(row["column"], "s", "{row}");
    }
    place.assert_same("id, s", &format!("t WHERE id > {}", ODD.len()), "dw.t").await;
}
