//! A real browser, driven over WebDriver: a dozen HTTP calls to Debian's chromedriver. It can reach nothing but this host.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::process::{PATIENCE, Process, free_address, until};

/// As the protocol names an element in an answer.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// What people work at, and what they hold in their hand.
pub(crate) const DESK: (u32, u32) = (1280, 720);
pub(crate) const PHONE: (u32, u32) = (390, 844);

/// One window. Closed when dropped.
pub(crate) struct Browser {
    _driver: Process,
    address: SocketAddr,
    session: String,
    http: reqwest::Client,
    _dir: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let address = free_address();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", address.port()));
        let driver = Process::start("chromedriver", &mut command, dir.path());
        until("chromedriver to listen", || async { tokio::net::TcpStream::connect(address).await.is_ok() })
            .await;
        let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
        let mut browser = Self { _driver: driver, address, session: String::new(), http, _dir: dir };
        let profile = browser._dir.path().join("profile");
        let capabilities = json!({ "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                format!("--window-size={},{}", DESK.0, DESK.1),
                format!("--user-data-dir={}", profile.display()),
            ] },
        } });
        let made = browser.send("POST", "/session", &json!({ "capabilities": capabilities })).await;
        browser.session = made["sessionId"].as_str().expect("a session").to_owned();
        browser.resize(DESK).await;
        browser
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_send(method, path, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error:#}"))
    }

    async fn try_send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let url = format!("http://{}{path}", self.address);
        let request = match method {
            "GET" => self.http.get(url),
            _ => self.http.post(url).body(body.to_string()),
        };
        let reply = request.send().await.expect("chromedriver answers");
        let is_good = reply.status().is_success();
        let mut document: Value = reply.json().await.expect("JSON");
        let value = document["value"].take();
        if is_good { Ok(value) } else { Err(value) }
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.send(method, &format!("/session/{}{path}", self.session), body).await
    }

    pub(crate) async fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url })).await;
    }

    pub(crate) async fn resize(&self, (width, height): (u32, u32)) {
        // A headless window has no frame, and cannot be narrower than 500 by its size: the page's own width is set.
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let body = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.ask("POST", "/goog/cdp/execute", &body).await;
    }

    /// The value of a script's `return`.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// What a script's promise comes to: the body of an async function.
    pub(crate) async fn run_async(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; (async () => {{ {script} }})().then(done, error => done(`failed: ${{error}}`));"
        );
        self.ask("POST", "/execute/async", &json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression of the page is true.
    pub(crate) async fn until(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.run(&format!("return Boolean({expression})")).await != json!(true) {
            if Instant::now() > deadline {
                let page = self.run("return document.querySelector('main').innerText").await;
                panic!("waited in vain for {what}; the page:\n{}", page.as_str().unwrap_or_default());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a page of the console with its first data.
    pub(crate) async fn until_page(&self, page: &str) {
        let condition = format!("document.querySelector('main[data-page=\"{page}\"][data-ready=\"true\"]')");
        self.until(&format!("the page {page}"), &condition).await;
    }

    async fn element(&self, css: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let path = format!("/session/{}/element", self.session);
        let body = json!({ "using": "css selector", "value": css });
        loop {
            match self.try_send("POST", &path, &body).await {
                Ok(found) => return found[ELEMENT].as_str().expect("an element").to_owned(),
                Err(error) => assert!(Instant::now() < deadline, "no {css}: {error:#}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// As soon as it is there and nothing is in front of it.
    pub(crate) async fn click(&self, css: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/session/{}/element/{}/click", self.session, self.element(css).await);
            match self.try_send("POST", &path, &json!({})).await {
                Ok(_) => return,
                Err(error) => assert!(Instant::now() < deadline, "cannot click {css}: {error:#}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// In place of what stands there.
    pub(crate) async fn enter(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.ask("POST", &format!("/element/{element}/clear"), &json!({})).await;
        self.ask("POST", &format!("/element/{element}/value"), &json!({ "text": text })).await;
    }

    pub(crate) async fn text(&self, css: &str) -> String {
        let element = self.element(css).await;
        let text = self.ask("GET", &format!("/element/{element}/text"), &Value::Null).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// To `target/console/NAME.png`.
    pub(crate) async fn screenshot(&self, name: &str) {
        let picture = self.ask("GET", "/screenshot", &Value::Null).await;
        let picture = STANDARD.decode(picture.as_str().expect("a picture")).expect("in base64");
        let folder = target().join("console");
        std::fs::create_dir_all(&folder).expect("it is writable");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("it is writable");
    }

    /// The serious findings of axe-core on the page as it is.
    pub(crate) async fn barriers(&self) -> Vec<String> {
        if self.run("return typeof axe").await != json!("object") {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/axe.min.js");
            let source = std::fs::read_to_string(source).expect("tests/servers.sh brings axe-core");
            self.run(&source).await;
        }
        let found = self
            .run_async(
                "const found = await axe.run(document, { resultTypes: ['violations'] }); \
                 return found.violations.filter(one => ['serious', 'critical'].includes(one.impact)) \
                   .map(one => `${one.id}: ${one.nodes.map(node => node.html).join(' ')}`)",
            )
            .await;
        let found = found.as_array().unwrap_or_else(|| panic!("axe-core says {found}")).clone();
        found.into_iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Every address that the browser has asked for so far, and everything that it has complained of.
    pub(crate) async fn requests_and_complaints(&self) -> (Vec<String>, Vec<String>) {
        let log = |kind: &str| {
            let body = json!({ "type": kind });
            async move { self.ask("POST", "/se/log", &body).await.as_array().cloned().unwrap_or_default() }
        };
        let sent = log("performance").await.into_iter().filter_map(|line| {
            let event: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let event = &event["message"];
            let is_sent = event["method"] == "Network.requestWillBeSent";
            is_sent.then(|| event["params"]["request"]["url"].as_str().map(str::to_owned))?
        });
        let said = log("browser").await.into_iter().filter(|line| line["level"] == "SEVERE");
        let said = said.filter_map(|line| line["message"].as_str().map(str::to_owned));
        (sent.collect(), said.collect())
    }
}

impl Drop for Browser {
    /// Ends the browser; killed, chromedriver would leave it behind.
    fn drop(&mut self) {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return };
        let request = format!(
            "DELETE /session/{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.session, self.address
        );
        let _patience = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let mut answer = [0; 1024];
        // Whatever goes wrong now, the test has its result.
        let _ended = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut answer));
    }
}

/// The directory that Cargo builds into.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    test.ancestors().nth(3).expect("tests lie in target/PROFILE/deps").to_owned()
}
