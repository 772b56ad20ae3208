//! Bad input: a message with place and remedy, the right exit code, and nothing changed at the target.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Outcome, job, run, workspace};
use crate::mariadb::MariaDb;
use crate::process::free_address;
use crate::standin::Standin;

/// A place in the job, and what stands there instead.
type Change<'a> = (&'a str, Value);

/// A row of the table of invalid inputs: data sources, changes to the job, exit code, what is said.
type Row<'a> = (u32, &'a [String], Vec<Change<'a>>, i32, &'a [&'a str]);

/// A source with three rows, a target with one, which must survive every failed job.
struct Place {
    source: MariaDb,
    target: Standin,
}

impl Place {
    async fn start() -> Self {
        let flags = ["--backend-death-notice-ms", "0", "--account", "reader:r3ad:SELECT"];
        let (source, target) = (MariaDb::start().await, Standin::start(&flags).await);
        source.run(&["CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(20))"]).await;
        source.run(&["INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)"]).await;
        target
            .run(&[
                "CREATE DATABASE dw",
                "CREATE TABLE dw.t (id INT NOT NULL, name VARCHAR(80) NULL) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1",
                "INSERT INTO dw.t VALUES (99, 'kept')",
                "CREATE TABLE dw.p (id INT NOT NULL, name VARCHAR(80) NULL) PRIMARY KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1",
                "CREATE TABLE dw.s (id INT NOT NULL, name VARCHAR(3) NULL) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1",
            ])
            .await;
        Self { source, target }
    }

    fn datasources(&self) -> Vec<String> {
        vec![self.source.datasource("source"), self.target.datasource("target", "dw")]
    }

    /// The job with one JSON value replaced, run with these data sources.
    async fn run(&self, datasources: &[String], pointer: &str, value: Value) -> Outcome {
        let changes = if pointer.is_empty() { vec![] } else { vec![(pointer, value)] };
        self.run_changed(datasources, &changes).await
    }

    /// The same with any number of values replaced.
    async fn run_changed(&self, datasources: &[String], changes: &[Change<'_>]) -> Outcome {
        let mut script = job(
            "mysql",
            json!({ "datasource": "source", "table": "t", "column": ["id", "name"], "splitPk": "id" }),
            json!({ "datasource": "target", "table": "t", "column": ["id", "name"], "loadProps": {},
                    "preSql": ["truncate table @table"] }),
            json!({ "speed": { "concurrent": 2 } }),
        );
        for (pointer, value) in changes {
            *script.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in the job")) = value.clone();
        }
        let dir = workspace(datasources);
        run(dir.path(), &script, &[]).await
    }

    #[track_caller]
    fn assert_refused(outcome: &Outcome, code: i32, fragments: &[&str]) {
        assert_eq!(outcome.code, code, "{outcome:?}");
        let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
        for fragment in fragments {
            assert!(said.contains(fragment), "`{fragment}` is not in:\n{said}");
        }
        for secret in [crate::mariadb::PASSWORD, crate::standin::PASSWORD] {
            assert!(!said.contains(secret), "a password was printed:\n{said}");
        }
    }

    async fn assert_untouched(&self) {
        assert_eq!(self.target.count("dw.t").await, 1, "preSql ran although the job was refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_names_are_told_with_place_and_nearest_name() {
    let place = Place::start().await;
    let reader = "/steps/0/parameter";
    let writer = "/steps/1/parameter";
    let cases: [(String, Value, &[&str]); 6] = [
        (format!("{reader}/datasource"), json!("sauce"), &["sauce", "source"]),
        (format!("{reader}/table"), json!("tt"), &["tt"]),
        (format!("{writer}/table"), json!("missing_table"), &["missing_table"]),
        (format!("{reader}/splitPk"), json!("idd"), &["idd"]),
        (format!("{writer}/column"), json!(["id", "nam"]), &["nam", "name"]),
        (format!("{writer}/column"), json!(["id"]), &["column counts differ"]),
    ];
    for (pointer, value, fragments) in cases {
        let outcome = place.run(&place.datasources(), &pointer, value).await;
        Place::assert_refused(&outcome, 2, fragments);
    }
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_catalogues_know_is_told_before_anything_is_changed() {
    let place = Place::start().await;
    let (reader, writer) = ("/steps/0/parameter/column", "/steps/1/parameter/column");
    let (table, of_target) = ("/steps/1/parameter/table", "/steps/0/parameter");
    let same = json!({ "datasource": "target", "table": "t", "column": ["id", "name"] });
    let ids = || json!(["id"]);
    let names = || json!(["name"]);
    let without_insert = place
        .target
        .datasource("target", "dw")
        .replace("username = \"root\"", "username = \"reader\"")
        .replace(crate::standin::PASSWORD, "r3ad");
    let sources = place.datasources();
    let restricted = vec![sources[0].clone(), without_insert];
    // The number is that of the job script's table of invalid inputs.
    let cases: [Row<'_>; 8] = [
        (
            18,
            &sources,
            vec![(reader, ids()), (writer, json!(["*"]))],
            2,
            &["column counts differ: the reader has 1 (id), the writer 2 (id, name)", "they map by position"],
        ),
        (
            20,
            &sources,
            vec![(writer, json!(["id", "naem"]))],
            2,
            &["no column \\\"naem\\\" in dw.t", "did you mean `name`?"],
        ),
        (
            21,
            &sources,
            vec![(reader, names()), (writer, names())],
            2,
            &["column \\\"id\\\" is NOT NULL without default and not written"],
        ),
        (
            22,
            &sources,
            vec![(table, json!("p")), (reader, names()), (writer, names())],
            2,
            &["primary key column \\\"id\\\" must be written"],
        ),
        (
            24,
            &sources,
            vec![("/steps/0/parameter/splitPk", json!("uid"))],
            2,
            &["splitPk \\\"uid\\\" is not a column of"],
        ),
        (
            48,
            &sources,
            vec![("/steps/1/parameter/loadProps", json!({ "partial_update": "true" }))],
            2,
            &["partial_update needs a primary key table; dw.t is none"],
        ),
        (
            70,
            &sources,
            vec![("/steps/0/stepType", json!("starrocks")), (of_target, same)],
            2,
            &["reader and writer use the same table dw.t; preSql would empty it"],
        ),
        (72, &restricted, vec![], 3, &["user reader has no INSERT on dw.t", "GRANT INSERT ON TABLE"]),
    ];
    for (number, datasources, changes, code, fragments) in cases {
        eprintln!("row {number}");
        let outcome = place.run_changed(datasources, &changes).await;
        Place::assert_refused(&outcome, code, fragments);
        place.assert_untouched().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shows_only_while_the_job_runs_is_told_with_its_facts() {
    let place = Place::start().await;
    let pre_sql = "/steps/1/parameter/preSql";
    let load_props = "/steps/1/parameter/loadProps";
    // The number is that of the job script's table of invalid inputs.
    let cases: [(u32, Vec<Change<'_>>, &[&str]); 2] = [
        (
            71,
            vec![(pre_sql, json!(["truncate table dw.nowhere"]))],
            &["preSql[0] failed: ", "nowhere", "nothing was loaded"],
        ),
        (
            74,
            vec![(pre_sql, json!([])), (load_props, json!({ "column_separator": "a" }))],
            &["DELIMITER_IN_VALUE", "the value of column name holds a delimiter"],
        ),
    ];
    for (number, changes, fragments) in cases {
        eprintln!("row {number}");
        let outcome = place.run_changed(&place.datasources(), &changes).await;
        Place::assert_refused(&outcome, 1, fragments);
        place.assert_untouched().await;
    }
    place.source.run(&["UPDATE t SET name = 'xxxxx' WHERE id = 2"]).await;
    let narrow = [(pre_sql, json!([])), ("/steps/1/parameter/table", json!("s"))];
    let outcome = place.run_changed(&place.datasources(), &narrow).await;
    Place::assert_refused(
        &outcome,
        1,
        // Row 75: first rows of the log, row count, label, strategy.
        &[
            "ROWS_REFUSED",
            "prepare of sl_",
            "1 of ",
            "too many filtered rows",
            "xxxxx",
            "strategyOnError exit is in force",
        ],
    );
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_told_with_host_and_remedy() {
    let place = Place::start().await;
    let dead = free_address();
    let source = place.source.datasource("source");
    let target = place.target.datasource("target", "dw");

    let dead_source =
        source.replace(&format!("port = {}", place.source.port), &format!("port = {}", dead.port()));
    let outcome = place.run(&[dead_source, target.clone()], "", Value::Null).await;
    Place::assert_refused(&outcome, 3, &[&dead.to_string(), "source"]);

    let wrong_password = source.replace(crate::mariadb::PASSWORD, "nonsense");
    let outcome = place.run(&[wrong_password, target.clone()], "", Value::Null).await;
    Place::assert_refused(&outcome, 3, &["Access denied"]);

    let wrong_password = target.replace(crate::standin::PASSWORD, "nonsense");
    let outcome = place.run(&[source.clone(), wrong_password], "", Value::Null).await;
    Place::assert_refused(&outcome, 3, &["Access denied"]);

    let dead_frontend = target.replace(&place.target.addresses.fe_http[0], &dead.to_string());
    let outcome = place.run(&[source.clone(), dead_frontend], "", Value::Null).await;
    Place::assert_refused(&outcome, 3, &[&dead.to_string()]);

    place.target.post("/be/0/down").await;
    let outcome = place.run(&[source, target], "", Value::Null).await;
    Place::assert_refused(&outcome, 3, &["NO_BACKEND_ALIVE", "SHOW BACKENDS"]);
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_under_an_unreachable_name_is_told_and_mended_by_the_address_map() {
    let registered = free_address().to_string();
    let source = MariaDb::start().await;
    source.run(&["CREATE TABLE t (id INT)", "INSERT INTO t VALUES (1), (2)"]).await;
    let target = Standin::start(&["--advertise-be", &registered]).await;
    target.run(&["CREATE DATABASE dw", "CREATE TABLE dw.t (id INT) DUPLICATE KEY(id)"]).await;
    let script = job(
        "mysql",
        json!({ "datasource": "source", "table": "t", "column": ["id"] }),
        json!({ "datasource": "target", "table": "t", "column": ["id"], "loadProps": {} }),
        json!({ "speed": { "concurrent": 1 } }),
    );
    let (source, entry) = (source.datasource("source"), target.datasource("target", "dw"));

    let dir = workspace(&[source.clone(), entry.clone()]);
    let outcome = run(dir.path(), &script, &[]).await;
    Place::assert_refused(&outcome, 3, &["BACKEND_UNREACHABLE", &registered, "address_map"]);

    let mapped =
        format!("{entry}address_map = {{ \"{registered}\" = \"{}\" }}\n", target.addresses.be_http[0]);
    let dir = workspace(&[source, mapped]);
    run(dir.path(), &script, &[]).await.succeeded();
    assert_eq!(target.count("dw.t").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_of_a_script_are_told_at_once() {
    let dir = workspace(&[]);
    let script = r#"{"type":"job","version":"1.0","steps":[{"stepType":"kafka","name":"Reader","category":"reader",
        "parameter":{"datasource":"a","table":"t","column":[],"splitPK":"id"}},{"stepType":"starrocks","name":"Writer",
        "category":"writer","parameter":{"datasource":"b","table":"t","column":["id"],"loadUrl":["10.0.0.1"],
        "loadProps":{"format":"parquet"},"maxBatchRows":0,"strategyOnError":"skip"}}]}"#;
    let outcome = check(dir.path(), script).await;
    Place::assert_refused(
        &outcome,
        2,
        &[
            "/version",
            "kafka",
            "/steps/0/parameter/column",
            "splitPk",
            "8030",
            "csv or json",
            "batchDirtyData",
        ],
    );

    let outcome = check(dir.path(), "{\n  \"type\": \"job\", // a comment\n}").await;
    Place::assert_refused(&outcome, 2, &["line 2", "comments"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_flags_that_cannot_be_meant_are_told_before_anything_is_contacted() {
    let dir = workspace(&[]);
    let script = |filter: &str, setting: Value| {
        job(
            "mysql",
            json!({ "datasource": "a", "table": "t", "column": ["id"], "where": filter }),
            json!({ "datasource": "b", "table": "t", "column": ["id"], "loadUrl": ["h:8030"], "loadProps": {} }),
            setting,
        )
        .to_string()
    };
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).expect("the test's directory is writable");
    };
    write("dated.json", &script("dt = '${dt}'", json!({})));
    write("dry.json", &script("", json!({ "dryRun": true })));
    write("wrong.txt", "dt=1\nno equals sign\ndt=2\n");
    write("late.txt", "dt=$[yyyymmdd-]\n");
    for (arguments, fragments) in [
        (
            "run dated.json",
            &["/steps/0/parameter/where", "parameter ${dt} in where has no value", "--param dt="][..],
        ),
        ("run dated.json --param dt=$[yyyy-1]", &["--param dt", "year offset needs add_months(...)"]),
        ("submit dated.json --param dt=${yyyymmdd-1/24}", &["--param dt", "use $[...] for hours"]),
        (
            "plan dated.json --params-file late.txt",
            &["late.txt line 1", "cannot parse time expression at '-'"],
        ),
        (
            "plan dated.json --params-file wrong.txt",
            &["wrong.txt line 2", "not name=expression", "wrong.txt line 3", "given twice"],
        ),
        ("plan dated.json --params-file none.txt", &["none.txt", "cannot read the file of parameters"]),
        ("run dated.json --bizdate 2025-13-01", &["--bizdate", "YYYYMMDD"]),
        ("run dated.json --scheduled-time noon", &["--scheduled-time", "YYYY-MM-DD HH:MM:SS"]),
        ("run dated.json --schedule-zone GMT+8", &["--schedule-zone", "+08:00"]),
        ("run dated.json --param dt=1", &["unknown data source \"a\"", "unknown data source \"b\""]),
        ("submit dry.json", &["/setting/dryRun", "starlift plan"]),
        ("convert dated.json", &["/job", "not a DataX job"]),
    ] {
        let mut command = crate::cluster::starlift(dir.path());
        command.args(arguments.split(' '));
        let outcome = Outcome::from(crate::process::output(command).await);
        Place::assert_refused(&outcome, 2, fragments);
    }
}

async fn check(dir: &Path, text: &str) -> Outcome {
    let file = dir.join("broken.json");
    std::fs::write(&file, text).expect("the test's directory is writable");
    let mut command = crate::cluster::starlift(dir);
    command.arg("run").arg(file).args(["--datasources", "datasources.toml"]);
    crate::process::output(command).await.into()
}
