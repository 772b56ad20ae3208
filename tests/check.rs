//! `starlift check`: every address is tried from where the job would run, nothing is changed, and each failure comes with
//! the line that mends it.

use serde_json::{Value, json};

use crate::cluster::{Cluster, Outcome, job, starlift, workspace, write_job};
use crate::mariadb::MariaDb;
use crate::process::{free_address, output, until};
use crate::standin::Standin;

/// A source with three rows, and a target with an account for every kind of lack.
struct Place {
    source: MariaDb,
    target: Standin,
}

const ACCOUNTS: &str = "reader:r3ad:SELECT,plain:pl4in:SELECT+INSERT";

impl Place {
    async fn start(flags: &[&str]) -> Self {
        let flags = [&["--account", ACCOUNTS], flags].concat();
        let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&flags));
        source
            .run(&[
                "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(20), note TEXT)",
                "INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', NULL), (3, NULL, 'z')",
                "CREATE TABLE hidden (id INT PRIMARY KEY)",
                "CREATE USER nobody@'%' IDENTIFIED BY 'n0body'",
                "GRANT SELECT ON shop.t TO nobody@'%'",
            ])
            .await;
        target
            .run(&[
                "CREATE DATABASE dw",
                "CREATE TABLE dw.t (id INT NOT NULL, name VARCHAR(80) NULL, note STRING NULL) DUPLICATE KEY(id)",
            ])
            .await;
        Self { source, target }
    }

    fn source(&self) -> String {
        self.source.datasource("source")
    }

    fn target(&self) -> String {
        self.target.datasource("target", "dw")
    }

    /// The target as another account sees it.
    fn target_of(&self, user: &str, password: &str) -> String {
        let administrator = self.target();
        let named = administrator.replace("username = \"root\"", &format!("username = \"{user}\""));
        named.replace(crate::standin::PASSWORD, password)
    }

    /// No transaction of a check may stay, and no row.
    async fn assert_untouched(&self) {
        self.target.wait_until_nothing_is_open().await;
        assert_eq!(self.target.count("dw.t").await, 0);
    }
}

fn script() -> Value {
    script_with(&json!({}))
}

/// The job, with these members in its `loadProps`.
fn script_with(load_props: &Value) -> Value {
    job(
        "mysql",
        json!({ "datasource": "source", "table": "t", "column": ["id", "name", "note"], "splitPk": "id" }),
        json!({ "datasource": "target", "table": "t", "column": ["id", "name", "note"], "loadProps": load_props,
                "preSql": ["truncate table @table"] }),
        json!({ "speed": { "concurrent": 2 } }),
    )
}

/// `starlift check` from here, with these data sources.
async fn check(datasources: &[String], script: &Value, flags: &[&str]) -> Outcome {
    let dir = workspace(datasources);
    let file = write_job(dir.path(), script);
    let mut command = starlift(dir.path());
    command.arg("check").arg(file).args(["--datasources", "datasources.toml"]).args(flags);
    output(command).await.into()
}

/// What is wrong, what becomes of which part for it, and what is said.
struct Case {
    name: &'static str,
    sources: [String; 2],
    script: Value,
    code: i32,
    part: &'static str,
    word: &'static str,
    said: &'static [&'static str],
}

/// The findings of one place about one part.
fn findings<'a>(document: &'a Value, checker: usize, part: &str) -> Vec<&'a Value> {
    let all = document["checkers"][checker]["findings"].as_array().expect("a list of findings");
    all.iter().filter(|finding| finding["part"] == part).collect()
}

#[track_caller]
fn assert_said(outcome: &Outcome, code: i32, fragments: &[&str]) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    for fragment in fragments {
        assert!(said.contains(fragment), "`{fragment}` is not in:\n{said}");
    }
    for secret in [crate::mariadb::PASSWORD, crate::standin::PASSWORD, "r3ad", "pl4in", "n0body"] {
        assert!(!said.contains(secret), "a password was printed:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_good_shows_every_address_with_version_and_rights_and_changes_nothing() {
    let two = [
        "--be-http",
        "127.0.0.1:0,127.0.0.1:0",
        "--fe-http",
        "127.0.0.1:0,127.0.0.1:0",
        "--label-keep-max-num",
        "5000",
    ];
    let place = Place::start(&two).await;
    let sources = [place.source(), place.target()];
    let outcome = check(&sources, &script(), &["--json"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let document = outcome.json();
    assert_eq!(document["error"], Value::Null);
    assert_eq!(document["problems"], json!([]));
    for (part, many) in [("source", 1), ("target", 1), ("fe", 2), ("be", 2), ("row", 1), ("packed_row", 0)] {
        let found = findings(&document, 0, part);
        assert_eq!(found.len(), many, "{part}: {document:#}");
        for finding in found {
            assert_eq!(finding["outcome"], "reached", "{finding:#}");
            assert!(finding["milliseconds"].as_f64().is_some_and(|took| took < 5000.0), "{finding:#}");
        }
    }
    let told = |part| findings(&document, 0, part)[0]["told"].as_str().unwrap_or_default().to_owned();
    assert!(
        told("source").contains("MariaDB") && told("source").contains("may SELECT"),
        "{}",
        told("source")
    );
    assert!(told("target").contains("StarRocks 3.3.5-standin"), "{}", told("target"));
    assert!(told("fe").contains("may INSERT, redirects to"), "{}", told("fe"));
    assert!(document["warnings"].to_string().contains("label_keep_max_num"), "{document:#}");
    assert_eq!(document["plan"]["rows_estimate"], 3);

    let text = check(&sources, &script(), &[]).await;
    let be = &place.target.addresses.be_http;
    assert_said(
        &text,
        0,
        &[&be[0], &be[1], "BE, HTTP port", "query port of source source", "reached", "all good"],
    );
    assert!(!text.stdout.contains('\u{1b}'), "no colours without a terminal");
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_not_list_backends_meets_them_by_redirects() {
    let place = Place::start(&["--be-http", "127.0.0.1:0,127.0.0.1:0,127.0.0.1:0"]).await;
    let target = place.target_of("plain", "pl4in");
    let document = check(&[place.source(), target], &script(), &["--json"]).await.succeeded().json();
    assert_eq!(findings(&document, 0, "be").len(), 3, "{document:#}");
    assert!(document["checkers"][0]["notes"].to_string().contains("there may be more"), "{document:#}");
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_names_its_remedy() {
    let place = Place::start(&[]).await;
    let (source, target) = (place.source(), place.target());
    let mysql = place.target.addresses.mysql.clone();
    let dead = free_address();
    let nobody = source.replace("username = \"loader\"", "username = \"nobody\"");
    let mut hidden = script();
    hidden["steps"][0]["parameter"]["table"] = json!("hidden");
    hidden["steps"][0]["parameter"]["column"] = json!(["id", "1", "2"]);
    let with_fe = |fe: &str| target.replace(&place.target.addresses.fe_http[0], fe);
    let with_source = |host: &str, port: u16| {
        let entry = source.replace("host = \"127.0.0.1\"", &format!("host = \"{host}\""));
        entry.replace(&format!("port = {}", place.source.port), &format!("port = {port}"))
    };
    let cases = [
        Case {
            name: "wrong password of the source",
            sources: [source.replace(crate::mariadb::PASSWORD, "nonsense"), target.clone()],
            script: script(),
            code: 3,
            part: "source",
            word: "login_refused",
            said: &["Access denied", "password", "[source]"],
        },
        Case {
            name: "wrong password of the target",
            sources: [source.clone(), target.replace(crate::standin::PASSWORD, "nonsense")],
            script: script(),
            code: 3,
            part: "fe",
            word: "login_refused",
            said: &["Access denied", "password", "[target]"],
        },
        Case {
            name: "no SELECT on the source's table",
            sources: [nobody.replace(crate::mariadb::PASSWORD, "n0body"), target.clone()],
            script: hidden,
            code: 3,
            part: "source",
            word: "no_grant",
            said: &[
                "user nobody has no SELECT on shop.hidden",
                "GRANT SELECT ON `shop`.`hidden` TO 'nobody'@'%'",
            ],
        },
        Case {
            name: "no INSERT on the target's table (row 72)",
            sources: [source.clone(), place.target_of("reader", "r3ad")],
            script: script(),
            code: 3,
            part: "fe",
            word: "no_grant",
            said: &[
                "user reader has no INSERT on dw.t",
                "GRANT INSERT ON TABLE `dw`.`t` TO USER 'reader'@'%'",
            ],
        },
        Case {
            name: "a query port in place of an FE's HTTP port (row 38)",
            sources: [source.clone(), with_fe(&mysql)],
            script: script(),
            code: 2,
            part: "fe",
            word: "failed",
            said: &["is a query port", "Stream Load needs the HTTP port", "8030"],
        },
        Case {
            name: "an FE that nobody listens at",
            sources: [source.clone(), with_fe(&dead.to_string())],
            script: script(),
            code: 3,
            part: "fe",
            word: "refused",
            said: &["cannot reach FE", "connection refused", "open port"],
        },
        Case {
            name: "a host that has no address",
            sources: [with_source("no-such-host.invalid", place.source.port), target.clone()],
            script: script(),
            code: 3,
            part: "source",
            word: "unresolved",
            said: &["no-such-host.invalid is not known here", "in [source]: host ="],
        },
        Case {
            name: "a source that nobody listens at",
            sources: [with_source("127.0.0.1", dead.port()), target.clone()],
            script: script(),
            code: 3,
            part: "source",
            word: "refused",
            said: &["connection refused", "open port"],
        },
    ];
    for Case { name, sources, script, code, part, word, said } in cases {
        let outcome = check(&sources, &script, &["--json"]).await;
        eprintln!("{name}");
        assert_said(&outcome, code, said);
        let document = outcome.json();
        assert_eq!(document["error"], document["problems"][0], "{name}: {document:#}");
        assert_eq!(findings(&document, 0, part)[0]["outcome"], word, "{name}: {document:#}");
        let shown = check(&sources, &script, &[]).await;
        assert_said(&shown, code, &[&word.replace('_', " "), "to be mended"]);
    }
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_backend_is_mended_by_the_line_that_is_printed() {
    let registered = free_address().to_string();
    let place = Place::start(&["--advertise-be", &registered]).await;
    let target = place.target();
    let outcome = check(&[place.source(), target.clone()], &script(), &["--json"]).await;
    assert_said(&outcome, 3, &["BACKEND_UNREACHABLE", &registered, "redirect from FE"]);
    let document = outcome.json();
    let be = findings(&document, 0, "be")[0];
    assert_eq!(be["outcome"], "refused", "{document:#}");
    let hint = be["error"]["hint"].as_str().expect("a remedy");
    let line = hint.split_once("[target]: ").expect("the line after the entry's name").1;
    let line = line.replace("HOST:PORT", &place.target.addresses.be_http[0]);
    assert!(line.starts_with("address_map = {"), "{hint}");

    let mended = format!("{target}{line}\n");
    let document = check(&[place.source(), mended], &script(), &["--json"]).await.succeeded().json();
    let be = findings(&document, 0, "be")[0];
    assert_eq!((&be["address"], &be["via"]), (&json!(registered), &json!(place.target.addresses.be_http[0])));
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_rows_are_tried_when_the_job_packs_its_bodies() {
    let place = Place::start(&[]).await;
    let sources = [place.source(), place.target()];
    for format in ["csv", "json"] {
        let packed = script_with(&json!({ "compression": "zstd", "format": format }));
        let document = check(&sources, &packed, &["--json"]).await.succeeded().json();
        assert_eq!(findings(&document, 0, "packed_row")[0]["outcome"], "reached", "{document:#}");
    }
    let unknown = json!({ "op": "load", "label": "_check_", "count": null, "do": "refuse",
                          "status": "INTERNAL_ERROR", "message": "unknown data format, format=zstd" });
    place.target.fault(unknown).await;
    let packed = script_with(&json!({ "compression": "zstd" }));
    let outcome = check(&sources, &packed, &["--json"]).await;
    assert!(outcome.json()["warnings"].to_string().contains("without compression zstd"), "{outcome:?}");
    place.target.clear_faults().await;
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_job_are_told_beside_those_of_the_way() {
    let place = Place::start(&[]).await;
    let mut wrong = script();
    wrong["steps"][1]["parameter"]["column"] = json!(["id", "naem", "note"]);
    let outcome = check(&[place.source(), place.target()], &wrong, &["--json"]).await;
    assert_said(&outcome, 2, &["naem", "name"]);
    let document = outcome.json();
    assert_eq!((&document["plan"], &document["error"]["code"]), (&Value::Null, &json!("UNKNOWN_COLUMN")));
    assert_eq!(findings(&document, 0, "be")[0]["outcome"], "reached", "{document:#}");

    let broken = check(&[place.source(), place.target()], &json!({ "type": "job" }), &["--json"]).await;
    assert_eq!(broken.code, 2);
    assert!(broken.json()["error"]["code"].is_string(), "one document in any case");
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_worker_tries_with_its_own_data_sources() {
    let registered = free_address().to_string();
    let place = Place::start(&["--advertise-be", &registered]).await;
    let map = format!("address_map = {{ \"{registered}\" = \"{}\" }}\n", place.target.addresses.be_http[0]);
    let mapped = format!("{}{map}", place.target());
    let mut cluster = Cluster::start(&[place.source(), mapped.clone()], 1, 2).await;
    let others = workspace(&[]);
    for (name, entries) in
        [("unmapped.toml", vec![place.source(), place.target()]), ("without.toml", vec![mapped.clone()])]
    {
        let file = others.path().join(name);
        std::fs::write(&file, entries.join("\n")).expect("it is writable");
        cluster.add_worker_with(2, &file.display().to_string());
    }
    until("all workers to be heard of", || async {
        let workers = cluster.client(&["workers", "--json"]).await.succeeded().json();
        workers.as_array().is_some_and(|workers| workers.len() == 3)
    })
    .await;

    let dir = workspace(&[]);
    let file = write_job(dir.path(), &script()).display().to_string();
    let outcome = cluster.client(&["check", &file, "--from-workers", "--json"]).await;
    assert_said(
        &outcome,
        3,
        &[
            &format!("cannot reach BE {registered} (redirect from FE)"),
            "unknown data source \\\"source\\\"",
            "add [source] to the data source file there",
        ],
    );
    let document = outcome.json();
    let checkers = document["checkers"].as_array().expect("a list");
    assert_eq!(checkers.len(), 4, "the coordinator and three workers: {document:#}");
    assert!(checkers.iter().all(|checker| checker["answered"] == true), "{document:#}");
    assert_eq!(checkers[0]["id"], "coordinator");
    let of = |part: &str, word: &str| {
        let has = |checker: &&Value| {
            let findings = checker["findings"].as_array().expect("a list");
            findings.iter().any(|finding| finding["part"] == part && finding["outcome"] == word)
        };
        checkers.iter().filter(has).count()
    };
    assert_eq!((of("be", "reached"), of("be", "refused")), (3, 1), "{document:#}");
    assert_eq!((of("source", "reached"), of("source", "failed")), (3, 1), "{document:#}");
    assert_eq!((of("row", "reached"), of("row", "not_tried")), (2, 2), "{document:#}");

    let shown = cluster.client(&["check", &file, "--from-workers"]).await;
    assert_said(&shown, 3, &["ADDRESS", "coordinator", "refused", "worker "]);
    let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
    let request = http
        .post(format!("{}/api/v1/check", cluster.rest()))
        .header("Content-Type", "application/json")
        .body(json!({ "script": script() }).to_string());
    let rest: Value = request.send().await.expect("REST answers").json().await.expect("JSON");
    assert_eq!(rest["checkers"].as_array().map(Vec::len), Some(4), "{rest:#}");
    assert_eq!(rest["error"]["code"], document["error"]["code"]);
    let broken = http
        .post(format!("{}/api/v1/check", cluster.rest()))
        .header("Content-Type", "application/json")
        .body(json!({ "script": {} }).to_string());
    assert_eq!(broken.send().await.expect("REST answers").status(), 400);
    place.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_busy_answers_too_and_one_that_is_gone_is_named() {
    let place = Place::start(&[]).await;
    let mut cluster = Cluster::start_with(&[place.source(), place.target()], 1, 1, &["--lease", "3s"]).await;
    // The only slot is taken by a task that is held in the middle.
    place.target.fault(json!({ "op": "prepare", "label": "sl_", "count": 1, "do": "hold" })).await;
    let mut held = script();
    held["setting"]["speed"]["concurrent"] = json!(1);
    let job_id = cluster.submit(&held).await;
    until("the task to be held", || async { place.target.held().await == 1 }).await;
    let dir = workspace(&[]);
    let file = write_job(dir.path(), &script()).display().to_string();
    let document = cluster.client(&["check", &file, "--from-workers", "--json"]).await.succeeded().json();
    assert_eq!(document["checkers"][1]["answered"], true, "{document:#}");
    place.target.clear_faults().await;
    assert_eq!(cluster.finished(&job_id).await["rows_loaded"], 3);

    cluster.workers[0].kill();
    let waiting = ["check", &file, "--from-workers", "--wait", "2s", "--json"];
    let document = cluster.client(&waiting).await.succeeded().json();
    assert_eq!(document["checkers"][1]["answered"], false, "{document:#}");
    assert!(document["warnings"].to_string().contains("did not answer (version "), "{document:#}");
}
