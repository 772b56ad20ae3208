//! A private MariaDB: its own data directory, a free port, no grant tables to share, gone with the test.

use std::path::Path;
use std::process::Command;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

use crate::process::{Process, free_address, output, until, within};

pub(crate) const USER: &str = "loader";
pub(crate) const PASSWORD: &str = "l0ad-me";
pub(crate) const DATABASE: &str = "shop";

/// A running server with one database and one user.
pub(crate) struct MariaDb {
    namespace: Option<String>,
    host: String,
    pub(crate) port: u16,
    options: Vec<String>,
    server: Process,
    dir: TempDir,
}

impl MariaDb {
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1").await
    }

    /// On another address of this machine.
    pub(crate) async fn start_on(host: &str) -> Self {
        Self::start_with(host, &[]).await
    }

    /// With more options on the server's command line.
    pub(crate) async fn start_with(host: &str, options: &[String]) -> Self {
        Self::start_in(None, host, options).await
    }

    /// In a network namespace; `host` must be reachable from here.
    pub(crate) async fn start_in(namespace: Option<&str>, host: &str, options: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        install(dir.path()).await;
        let port = free_address().port();
        let mut command = server_command(namespace, dir.path(), host, port);
        let server = Process::start("mariadb", command.args(options), dir.path());
        let namespace = namespace.map(str::to_owned);
        let database =
            Self { namespace, host: host.to_owned(), port, options: options.to_vec(), server, dir };
        until("MariaDB to accept connections", || async { database.try_connect().await.is_ok() }).await;
        database
    }

    /// SIGKILL and a new start on the same data.
    pub(crate) async fn restart(&mut self) {
        self.server.kill();
        let mut command = server_command(self.namespace.as_deref(), self.dir.path(), &self.host, self.port);
        self.server = Process::start("mariadb", command.args(&self.options), self.dir.path());
        until("MariaDB to come back", || async { self.try_connect().await.is_ok() }).await;
    }

    pub(crate) async fn connect(&self) -> Conn {
        self.try_connect().await.expect("MariaDB accepts its own user")
    }

    async fn try_connect(&self) -> Result<Conn, mysql_async::Error> {
        let options = OptsBuilder::default()
            .ip_or_hostname(self.host.as_str())
            .tcp_port(self.port)
            .user(Some(USER))
            .pass(Some(PASSWORD))
            .db_name(Some(DATABASE))
            .prefer_socket(false);
        Conn::new(options).await
    }

    pub(crate) async fn run(&self, statements: &[&str]) {
        let mut conn = self.connect().await;
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        conn.disconnect().await.expect("a clean goodbye");
    }

    /// Makes planners believe that `table` holds so many rows. Starts the server again.
    pub(crate) async fn claim_rows(&mut self, table: &str, rows: u32) {
        self.run(&[
            &format!("ALTER TABLE {table} STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0"),
            &format!("ANALYZE TABLE {table}"),
            &format!("UPDATE mysql.innodb_table_stats SET n_rows = {rows} WHERE table_name = '{table}'"),
        ])
        .await;
        // The number is read when the table is first opened.
        self.restart().await;
    }

    /// The data source entry for a job.
    pub(crate) fn datasource(&self, name: &str) -> String {
        format!(
            "[{name}]\ntype = \"mysql\"\nhost = \"{}\"\nport = {}\ndatabase = \"{DATABASE}\"\n\
             username = \"{USER}\"\npassword = \"{PASSWORD}\"\n",
            self.host, self.port
        )
    }
}

async fn install(dir: &Path) {
    let mut command = Command::new("mariadb-install-db");
    command.arg("--no-defaults").args(places(dir)).args([
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
    ]);
    if running_as_root() {
        command.arg("--user=root");
    }
    let result = output(command).await;
    assert!(result.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&result.stderr));
}

fn server_command(namespace: Option<&str>, dir: &Path, host: &str, port: u16) -> Command {
    let init = dir.join("init.sql");
    let statements = format!(
        "CREATE DATABASE IF NOT EXISTS {DATABASE};\n\
         CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT ALL ON *.* TO {USER}@'%' WITH GRANT OPTION;\n"
    );
    std::fs::write(&init, statements).expect("the test's directory is writable");
    let server = ["/usr/sbin/mariadbd", "/usr/sbin/mysqld"].into_iter().find(|path| Path::new(path).exists());
    let mut command = within(namespace, server.unwrap_or("mariadbd"));
    command
        .arg("--no-defaults")
        .args(places(dir))
        .arg(format!("--socket={}", dir.join("mariadb.sock").display()))
        .arg(format!("--pid-file={}", dir.join("mariadb.pid").display()))
        .arg(format!("--init-file={}", init.display()))
        .arg(format!("--port={port}"))
        .arg(format!("--bind-address={host}"))
        .args([
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=128M",
            "--skip-log-bin",
        ]);
    if running_as_root() {
        command.arg("--user=root");
    }
    command
}

/// Data and temporary files, which must not be shared with another server.
fn places(dir: &Path) -> [String; 2] {
    [format!("--datadir={}", dir.join("data").display()), format!("--tmpdir={}", dir.display())]
}

fn running_as_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.starts_with(b"0\n"))
}
