//! The binary from outside: `serve`, `digest`, `fill`, and the control port with curl.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_starrocks-standin");
const TABLE: &str = "CREATE DATABASE d;
    CREATE TABLE d.t (id BIGINT NOT NULL, name VARCHAR(20)) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1;
    CREATE TABLE d.u (id BIGINT NOT NULL, name VARCHAR(20)) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 3;";

struct Serving {
    child: Child,
    line: String,
}

impl Serving {
    fn start(port_file: &Path) -> Self {
        let mut child = Command::new(BINARY)
            .args(["serve", "--init-sql", TABLE, "--be-http", "127.0.0.1:0,127.0.0.1:0", "--port-file"])
            .arg(port_file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, line }
    }

    fn address(&self, key: &str) -> String {
        let ports: Value = serde_json::from_str(&self.line).unwrap();
        let port = ports[key].as_str().or_else(|| ports[key][0].as_str());
        port.unwrap().to_owned()
    }

    fn control(&self, method: &str, path: &str, body: &str) -> Value {
        let url = format!("http://{}{path}", self.address("control"));
        let done = Command::new("curl").args(["-sS", "-X", method, "-d", body, &url]).output().unwrap();
        serde_json::from_slice(&done.stdout).unwrap()
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let (command, rest) = arguments.split_first().unwrap();
        let control = self.address("control");
        Command::new(BINARY).args([*command, "--control", &control]).args(rest).output().unwrap()
    }

    /// SIGTERM, then what was still printed.
    fn stop(mut self) -> String {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Ends a server that a failed test left behind; one that has stopped is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_prints_one_line_writes_it_to_a_file_and_stops_at_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ports");
    let serving = Serving::start(&file);
    let ports: Value = serde_json::from_str(&serving.line).unwrap();
    assert_eq!(ports["be_http"].as_array().unwrap().len(), 2);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), serving.line);
    assert_eq!(serving.stop(), "");
}

#[test]
fn tables_filled_alike_have_the_same_digest() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(&dir.path().join("ports"));
    for table in ["d.t", "d.u"] {
        assert!(serving.ask(&["fill", "--rows", "1000", table]).status.success());
    }
    let digest = serving.ask(&["digest", "d.t"]);
    assert_eq!(digest.stdout, serving.ask(&["digest", "d.u"]).stdout);
    let digest: Value = serde_json::from_slice(&digest.stdout).unwrap();
    assert_eq!(digest["rows"], 1000);
    assert_eq!(digest["hash"].as_str().unwrap().len(), 16);
    let unknown = serving.ask(&["digest", "d.nothing"]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown table 'd.nothing'"));
}

#[test]
fn the_control_port_scripts_faults_and_outages() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(&dir.path().join("ports"));
    let begin = |label: &str| -> Value {
        let url = format!("http://{}/api/transaction/begin", serving.address("fe_http"));
        let label = format!("label: {label}");
        let headers = ["-H", &label, "-H", "db: d", "-H", "table: t"];
        let call = ["-sS", "-L", "--location-trusted", "-u", "root:", "-X", "POST", &url];
        let done = Command::new("curl").args(call).args(headers).output().unwrap();
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let rule = r#"{"op":"begin","label":"a","do":"refuse","status":"ANALYSIS_ERROR","message":"not now"}"#;
    serving.control("POST", "/faults", rule);
    assert_eq!(serving.control("GET", "/faults", "")["rules"][0]["do"], "refuse");
    assert_eq!(begin("b")["Status"], "OK");
    assert_eq!(begin("a")["Message"], "not now");
    assert_eq!(begin("a")["Status"], "OK");
    assert_eq!(serving.control("GET", "/state", "")["open"], 2);
    assert_eq!(serving.control("GET", "/requests", "")["begin"], 2);
    serving.control("POST", "/be/0/down?notice_ms=0", "");
    serving.control("POST", "/be/1/down?notice_ms=0", "");
    let state = serving.control("GET", "/state", "");
    assert_eq!(state["open"], 0);
    assert_eq!(state["transactions"][0]["reason"], "coordinate BE is down");
    serving.control("POST", "/be/1/up", "");
    assert_eq!(begin("c")["Status"], "OK");
    assert!(serving.control("POST", "/leader/7", "")["error"].as_str().unwrap().contains("no node 7"));
}
