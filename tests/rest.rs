//! REST as its own description has it: every operation of `/api/v1/openapi.json` is called, and every answer must be what is
//! written there of it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::mariadb::MariaDb;
use crate::migration::{create_target, datasources, fill_source, orders_job};
use crate::process::until;
use crate::standin::Standin;

const ROWS: u32 = 3000;

/// A caller that compares what it gets with the description.
struct Caller {
    http: reqwest::Client,
    home: String,
    description: Value,
    called: BTreeSet<String>,
}

impl Caller {
    async fn new(home: String) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
        let page = http.get(format!("{home}/api/v1/openapi.json")).send().await.expect("REST answers");
        let description = page.json().await.expect("JSON");
        Self { http, home, description, called: BTreeSet::new() }
    }

    /// Calls an operation by its id; `path` are the values of the parameters in its path, in order.
    async fn call(&mut self, operation: &str, path: &[&str], query: &str, body: Value) -> (u16, Value) {
        let (pattern, method) = self.find(operation);
        let mut values = path.iter();
        let pieces = pattern.split('/').map(|piece| match piece.starts_with('{') {
            true => *values.next().expect("a value for every parameter"),
            false => piece,
        });
        let address = format!("{}{}{query}", self.home, pieces.collect::<Vec<_>>().join("/"));
        let request = self.http.request(method.parse::<Method>().expect("a method"), &address);
        let request = if method == "GET" { request } else { request.json(&body) };
        let reply = request.send().await.expect("REST answers");
        let status = reply.status().as_u16();
        let kind = reply.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
        let text = reply.text().await.expect("text");
        let what = format!("{operation} {address} {status}");

        let pointer = |rest: &str| {
            let path = pattern.replace('~', "~0").replace('/', "~1");
            format!("/paths/{path}/{}/{rest}", method.to_lowercase())
        };
        if method != "GET" && body != Value::Null && status < 400 {
            self.compare(&pointer("requestBody/content/application~1json/schema"), &body, &what);
        }
        let response = pointer(&format!("responses/{status}"));
        let described =
            self.description.pointer(&response).unwrap_or_else(|| panic!("{what} is not described"));
        let response = match described["$ref"].as_str() {
            Some(shared) => shared.trim_start_matches('#').to_owned(),
            None => response,
        };
        let content = self.description.pointer(&format!("{response}/content")).and_then(Value::as_object);
        let kinds: Vec<&String> = content.map(|content| content.keys().collect()).unwrap_or_default();
        let answer = match kind.as_str() {
            "application/json" => serde_json::from_str(&text).expect("JSON"),
            _ => json!(text),
        };
        assert!(kinds.is_empty() && text.is_empty() || kinds == [&kind], "{what}: {kind} is not described");
        if kind == "application/json" {
            self.compare(&format!("{response}/content/application~1json/schema"), &answer, &what);
        }
        if status < 400 {
            self.called.insert(operation.to_owned());
        }
        (status, answer)
    }

    /// As [`Caller::call`] where the operation must succeed.
    async fn get(&mut self, operation: &str, path: &[&str]) -> Value {
        let (status, answer) = self.call(operation, path, "", json!({})).await;
        assert!(status < 300, "{operation}: {status} {answer:#}");
        answer
    }

    fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.description["paths"].as_object().expect("paths");
        paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods.iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
    }

    fn find(&self, operation: &str) -> (String, String) {
        let (path, method, _) = self
            .operations()
            .find(|(_, _, described)| described["operationId"] == operation)
            .unwrap_or_else(|| panic!("no operation {operation}"));
        (path.to_owned(), method.to_uppercase())
    }

    /// Whether the document is what the schema at that place of the description says.
    fn compare(&self, schema: &str, document: &Value, what: &str) {
        let at = self.description.pointer(schema);
        let mut whole = at.unwrap_or_else(|| panic!("{what}: no {schema}")).clone();
        whole["components"] = self.description["components"].clone();
        let schema = jsonschema::draft202012::new(&whole).unwrap_or_else(|error| panic!("{schema}: {error}"));
        let faults = schema.iter_errors(document);
        let faults: Vec<String> = faults.map(|fault| format!("{} {fault}", fault.instance_path())).collect();
        assert_eq!(faults, Vec::<String>::new(), "{what}: {document:#}");
    }
}

/// Events of a stream: name and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let blocks = text.split("\n\n").filter(|block| block.contains("data:"));
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
        line.unwrap_or_default().to_owned()
    };
    blocks
        .map(|block| (field(block, "event"), serde_json::from_str(&field(block, "data")).expect("JSON")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_the_description_says() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    fill_source(&source, ROWS).await;
    create_target(&target).await;
    let cluster = Cluster::start(&datasources(&source, &target), 1, 2).await;
    let mut caller = Caller::new(cluster.rest()).await;
    let script = orders_job(json!({}), json!({}));
    let text = script.to_string();

    caller.get("getOpenapi", &[]).await;
    let version = caller.get("getSession", &[]).await["version"].clone();
    assert_eq!(caller.description["info"]["version"], version);
    caller.call("beginSession", &[], "", json!({ "token": "any" })).await;
    assert_eq!(caller.call("endSession", &[], "", Value::Null).await.0, 204);

    for (operation, path) in [
        ("listDatasources", vec![]),
        ("listDatabases", vec!["source"]),
        ("listTables", vec!["source", "shop"]),
        ("listColumns", vec!["source", "shop", "orders"]),
        ("listDatabases", vec!["target"]),
        ("listTables", vec!["target", "dw"]),
        ("listColumns", vec!["target", "dw", "orders"]),
        ("checkDatasource", vec!["source"]),
        ("checkDatasource", vec!["target"]),
    ] {
        let answer = caller.get(operation, &path).await;
        assert_eq!(answer["problems"].as_array().map_or(0, Vec::len), 0, "{answer:#}");
    }
    for (operation, path) in [
        ("listColumns", vec!["source", "shop", "nothing"]),
        ("listTables", vec!["nowhere", "shop"]),
        ("checkDatasource", vec!["nowhere"]),
        ("getJob", vec!["01ARZ3NDEKTSV4RRFFQ69G5FAV"]),
        ("getReport", vec!["no-id"]),
    ] {
        assert_eq!(caller.call(operation, &path, "", json!({})).await.0, 404, "{operation} {path:?}");
    }
    let pairs = json!([
        { "source_type": "bigint(20)", "target_type": "bigint(20)" },
        { "source_type": "double", "target_type": "int(11)" },
    ]);
    let (_, fits) = caller.call("mapTypes", &[], "", json!({ "source": "mysql", "pairs": pairs })).await;
    assert_eq!((&fits["fits"][0]["fit"], &fits["fits"][1]["fit"]), (&json!("exact"), &json!("refused")));

    let (_, found) =
        caller.call("validateScript", &[], "", json!({ "script": "{\n  \"type\": 1,\n}" })).await;
    assert_eq!((&found["problems"][0]["line"], &found["problems"][0]["column"]), (&json!(3), &json!(1)));
    let parameters = json!({ "script": text.replace("\"splitPk\"", "\"where\":\"id > ${least}\",\"splitPk\""),
        "parameters": { "least": "0" } });
    let (_, found) = caller.call("validateScript", &[], "", parameters.clone()).await;
    assert_eq!((&found["problems"], &found["parameters"]), (&json!([]), &json!(["least"])));
    let (_, plan) = caller.call("planScript", &[], "", parameters).await;
    assert!(plan["tasks"][0]["sql"].as_str().is_some_and(|sql| sql.contains("id > 0")), "{plan:#}");
    let wrong = json!({ "script": text.replace("\"ratio\"", "\"ration\"") });
    let (status, refused) = caller.call("planScript", &[], "", wrong).await;
    assert_eq!((status, &refused["code"]), (400, &json!("UNKNOWN_COLUMN")), "{refused:#}");
    let (_, checked) = caller.call("checkScript", &[], "", json!({ "script": script })).await;
    assert_eq!(checked["checkers"].as_array().map(Vec::len), Some(2), "{checked:#}");

    // A job that is held in the middle, so that all of it can be seen.
    target.fault(json!({ "op": "prepare", "label": "sl_", "count": 1, "do": "hold" })).await;
    let (_, job) = caller.call("submitJob", &[], "", json!({ "script": text, "name": "first" })).await;
    let first = job["job_id"].as_str().expect("an id").to_owned();
    until("the job to be held", || async { target.held().await == 1 }).await;
    assert_eq!(caller.get("pauseJob", &[&first]).await["state"], "PAUSED");
    assert_eq!(caller.call("getReport", &[&first], "", json!({})).await.0, 409);
    assert_eq!(caller.call("listJobs", &[], "?limit=many", json!({})).await.0, 400);
    let (_, running) = caller.call("listTasks", &[&first], "?state=RUNNING&order=slowest", json!({})).await;
    assert_eq!(running["tasks"][0]["state"], "RUNNING", "{running:#}");
    let workers = caller.get("listWorkers", &[]).await;
    assert_eq!(workers["workers"][0]["tasks"][0]["job_id"], first.as_str(), "{workers:#}");
    let verdict = json!({ "answer": "redo", "reason": "a test" });
    assert_eq!(caller.call("resolveTask", &[&first, "0"], "", verdict).await.0, 409);
    caller.get("resumeJob", &[&first]).await;
    caller.get("cancelJob", &[&first]).await;
    target.clear_faults().await;
    cluster.finished(&first).await;

    let (_, job) = caller.call("submitJob", &[], "", json!({ "script": script, "name": "second" })).await;
    let second = job["job_id"].as_str().expect("an id").to_owned();
    let (_, stream) = caller.call("watchJob", &[&second], "?interval_ms=100", json!({})).await;
    let told = events(stream.as_str().expect("text"));
    for (name, data) in &told {
        let schema = match name.as_str() {
            "tasks" => "TasksEvent",
            "changes" => "ChangesEvent",
            "status" => "StatusEvent",
            "end" => "EndEvent",
            other => panic!("an event {other}"),
        };
        caller.compare(&format!("/components/schemas/{schema}"), data, name);
    }
    assert_eq!((told[0].0.as_str(), told.last().map(|(name, _)| name.as_str())), ("tasks", Some("end")));
    let report = caller.get("getReport", &[&second]).await;
    assert_eq!((&report["state"], &report["rows_loaded"]), (&json!("SUCCEEDED"), &json!(ROWS)));
    assert_eq!(caller.get("getJob", &[&second]).await["workers"][0]["rows"], json!(ROWS));
    assert!(
        caller.get("getScript", &[&second]).await["script"]
            .as_str()
            .is_some_and(|text| text.contains("orders"))
    );
    let last = caller.get("getThroughput", &[&second]).await["samples"]
        .as_array()
        .and_then(|all| all.last().cloned());
    assert!(last.is_none_or(|sample| sample["rows_loaded"].as_u64() <= Some(ROWS.into())));
    let (_, page) = caller.call("listJobs", &[], "?state=SUCCEEDED&search=SECOND&limit=5", json!({})).await;
    assert_eq!((&page["total"], &page["jobs"][0]["job_id"]), (&json!(1), &json!(second)), "{page:#}");
    assert_eq!(caller.get("listJobs", &[]).await["jobs"][0]["name"], "second", "the newest comes first");

    let worker = workers["workers"][0]["worker_id"].as_str().expect("an id").to_owned();
    assert_eq!(caller.get("drainWorker", &[&worker]).await["draining"], true);

    // A task has to be decided by hand only when a server has forgotten a commit: `steer.rs` sees to that.
    caller.called.insert("resolveTask".into());
    let all: BTreeSet<String> = caller
        .operations()
        .filter_map(|(_, _, operation)| operation["operationId"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(caller.called, all);
    // And nothing is served that is not described.
    let routes = include_str!("../coordinator/src/http.rs");
    let routes =
        routes.split(".route(\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(path, _)| path);
    let routes: BTreeSet<&str> = routes.filter(|path| path.starts_with("/api/")).collect();
    assert_eq!(routes, caller.operations().map(|(path, _, _)| path).collect());
}
