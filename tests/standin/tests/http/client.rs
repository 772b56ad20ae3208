//! A server with two small tables, and the two clients: curl and a bare socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use starrocks_standin::{Config, Standin};

/// `orders` is what most tests load; `users` replaces rows of equal key.
const TABLES: &str = "
    CREATE DATABASE shop;
    CREATE DATABASE other;
    CREATE TABLE shop.orders (id BIGINT NOT NULL, name VARCHAR(10), amount INT)
        DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 2 PROPERTIES ('replication_num' = '1');
    CREATE TABLE other.orders (id BIGINT NOT NULL, name VARCHAR(10), amount INT)
        DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 2 PROPERTIES ('replication_num' = '1');
    CREATE TABLE shop.users (id BIGINT NOT NULL, name VARCHAR(10) NOT NULL, photo VARBINARY)
        PRIMARY KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 2 PROPERTIES ('replication_num' = '1');
    CREATE TABLE shop.kinds (id BIGINT NOT NULL, flag BOOLEAN, moment DATETIME, price DECIMAL(9,2), big LARGEINT)
        DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 2 PROPERTIES ('replication_num' = '1');
";

pub(crate) struct Server {
    standin: Standin,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    /// Three frontends, two backends.
    pub(crate) fn wide() -> Self {
        Self::with(Config::nodes(3, 2))
    }

    pub(crate) fn with(mut config: Config) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        config.init_sql.push(TABLES.to_owned());
        let standin = runtime.block_on(Standin::start(config)).unwrap();
        Self { standin, runtime }
    }

    pub(crate) fn standin(&self) -> &Standin {
        &self.standin
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn fe(&self, index: usize) -> SocketAddr {
        self.standin.addresses().fe_http[index]
    }

    pub(crate) fn be(&self, index: usize) -> SocketAddr {
        self.standin.addresses().be_http[index]
    }

    /// One plain stream load through the first frontend.
    pub(crate) fn load(&self, headers: &[&str], body: &str) -> Reply {
        self.load_into("shop/orders", headers, body)
    }

    pub(crate) fn load_into(&self, table: &str, headers: &[&str], body: &str) -> Reply {
        let url = format!("http://{}/api/{table}/_stream_load", self.fe(0));
        curl("PUT", &url).headers(&["Expect: 100-continue"]).headers(headers).body(body).send()
    }

    /// One operation of the transaction interface through the first frontend, for `shop.orders`.
    pub(crate) fn op(&self, op: &str, label: &str) -> Reply {
        self.op_with(op, label, &[])
    }

    pub(crate) fn op_with(&self, op: &str, label: &str, headers: &[&str]) -> Reply {
        self.call(self.fe(0), op, label).headers(headers).send()
    }

    pub(crate) fn load_txn(&self, label: &str, headers: &[&str], body: &str) -> Reply {
        let call =
            self.call(self.fe(0), "load", label).headers(&["Expect: 100-continue", "column_separator: ,"]);
        call.headers(headers).body(body).send()
    }

    /// One operation of the transaction interface at the given node.
    pub(crate) fn call(&self, node: SocketAddr, op: &str, label: &str) -> Curl {
        let method = if op == "load" { "PUT" } else { "POST" };
        let label = format!("label: {label}");
        curl(method, &format!("http://{node}/api/transaction/{op}")).headers(&[
            &label,
            "db: shop",
            "table: orders",
        ])
    }

    /// begin and one load of `body`.
    pub(crate) fn begun(&self, label: &str, body: &str) {
        assert_eq!(self.op("begin", label).status(), "OK");
        assert_eq!(self.load_txn(label, &[], body).status(), "OK");
    }

    /// begin, load, prepare.
    pub(crate) fn prepared(&self, label: &str, body: &str) {
        self.begun(label, body);
        assert_eq!(self.op("prepare", label).status(), "OK");
    }

    pub(crate) fn state(&self, label: &str) -> String {
        self.state_in("shop", label)
    }

    pub(crate) fn state_in(&self, db: &str, label: &str) -> String {
        let reply =
            curl("GET", &format!("http://{}/api/{db}/get_load_state?label={label}", self.fe(0))).send();
        assert_eq!(reply.text("status"), "OK");
        reply.text("state")
    }

    pub(crate) fn cancel(&self, label: &str) -> Reply {
        curl("POST", &format!("http://{}/api/shop/{label}/_cancel", self.fe(0))).send()
    }

    /// Visible rows of `shop.orders`.
    pub(crate) fn rows(&self) -> u64 {
        self.rows_of("shop.orders")
    }

    pub(crate) fn rows_of(&self, table: &str) -> u64 {
        self.sql(&format!("SELECT COUNT(*) FROM {table}")).trim().parse().unwrap()
    }

    /// One statement through the `mariadb` client, cells separated by tabs, rows by newlines.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let port = self.standin.addresses().mysql.port().to_string();
        let arguments =
            ["--no-defaults", "-h127.0.0.1", "-P", &port, "-uroot", "--skip-ssl", "-N", "-B", "-e", sql];
        let done = Command::new("mariadb").args(arguments).output().expect("the mariadb client is installed");
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// Reason of the newest transaction under the label.
    pub(crate) fn reason(&self, label: &str) -> String {
        self.standin.transactions().iter().rfind(|txn| txn.label == label).unwrap().reason.clone()
    }
}

/// Asks again every 20 ms until it holds; a test that waits longer than ten seconds has failed.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} did not come true");
}

/// One curl call that follows redirects with credentials, as `--location-trusted` does.
pub(crate) struct Curl {
    arguments: Vec<String>,
    body: Vec<u8>,
    follow: bool,
    user: Option<String>,
    url: String,
}

pub(crate) fn curl(method: &str, url: &str) -> Curl {
    Curl {
        arguments: vec!["-X".into(), method.into()],
        body: Vec::new(),
        follow: true,
        user: Some("root:".into()),
        url: url.into(),
    }
}

impl Curl {
    pub(crate) fn headers(mut self, headers: &[&str]) -> Self {
        for header in headers {
            self.arguments.extend(["-H".to_owned(), (*header).to_owned()]);
        }
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.arguments.extend(["--data-binary".into(), "@-".into()]);
        self
    }

    pub(crate) fn chunked(mut self, body: &str) -> Self {
        self.body = body.into();
        self.arguments.extend(["-T".into(), "-".into()]);
        self
    }

    /// The first answer, redirect or not.
    pub(crate) fn one_hop(mut self) -> Self {
        self.follow = false;
        self
    }

    pub(crate) fn user(mut self, user: Option<&str>) -> Self {
        self.user = user.map(str::to_owned);
        self
    }

    pub(crate) fn send(self) -> Reply {
        self.try_send().expect("curl got an answer")
    }

    /// The error is curl's exit code: 52 is an empty answer, 56 a reset, 7 a refused connection.
    pub(crate) fn try_send(self) -> Result<Reply, i32> {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--max-time", "30"]).args(&self.arguments);
        if self.follow {
            command.args(["-L", "--location-trusted"]);
        }
        if let Some(user) = &self.user {
            command.args(["-u", user]);
        }
        command.arg(&self.url).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("curl is installed");
        // curl need not read everything; a redirect without a body is such a case.
        let _ = child.stdin.take().unwrap().write_all(&self.body);
        let done = child.wait_with_output().unwrap();
        match done.status.code() {
            Some(0) => Ok(Reply::parse(&done.stdout)),
            code => Err(code.unwrap_or(-1)),
        }
    }
}

/// The last answer of a call and the heads of all of them.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Head of every answer on the way, `100 Continue` included.
    pub(crate) heads: Vec<String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn parse(output: &[u8]) -> Self {
        let mut rest = String::from_utf8_lossy(output).into_owned();
        let mut heads = Vec::new();
        while rest.starts_with("HTTP/1.") {
            let (head, tail) = rest.split_once("\r\n\r\n").expect("a head ends with a blank line");
            heads.push(head.to_owned());
            rest = tail.to_owned();
        }
        Self { heads, body: rest }
    }

    pub(crate) fn code(&self) -> u16 {
        self.head()[9..12].parse().unwrap()
    }

    pub(crate) fn head(&self) -> &str {
        self.heads.last().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head().lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.json()[key].as_str().unwrap_or_else(|| panic!("no {key}: {}", self.body)).to_owned()
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        self.json()[key].as_u64().unwrap_or_else(|| panic!("no {key}: {}", self.body))
    }

    pub(crate) fn status(&self) -> String {
        self.text("Status")
    }

    /// HTTP 200 with this `Status` and a message containing `text`.
    pub(crate) fn expect(&self, status: &str, text: &str) {
        assert_eq!(self.code(), 200, "{self:?}");
        assert_eq!(self.status(), status, "{}", self.body);
        assert!(self.text("Message").contains(text), "{}", self.body);
    }
}

/// A bare connection, for what curl cannot do or hides.
pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(socket)
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// Reads up to the end of one head.
    pub(crate) fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => break,
            }
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads until the server closes the connection.
    pub(crate) fn read_all(&mut self) -> String {
        let mut all = Vec::new();
        // A reset after the answer ends the reading like a close.
        let _ = self.0.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// A request head with Basic credentials of `root` without password.
pub(crate) fn request(method: &str, path: &str, headers: &[&str]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: fe\r\nAuthorization: Basic cm9vdDo=\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head + "\r\n"
}
