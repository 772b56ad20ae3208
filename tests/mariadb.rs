//! A private MariaDB: its own data directory, a free port, no grant tables to share, gone with the test.

use std::path::Path;
use std::process::Command;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

use crate::process::{Process, free_address, output, until};

pub(crate) const USER: &str = "loader";
pub(crate) const PASSWORD: &str = "l0ad-me";
pub(crate) const DATABASE: &str = "shop";

/// A running server with one database and one user.
pub(crate) struct MariaDb {
    pub(crate) port: u16,
    server: Process,
    dir: TempDir,
}

impl MariaDb {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        install(dir.path()).await;
        let port = free_address().port();
        let server = Process::start("mariadb", &mut server_command(dir.path(), port), dir.path());
        let database = Self { port, server, dir };
        until("MariaDB to accept connections", || async { database.try_connect().await.is_ok() }).await;
        database
    }

    /// SIGKILL and a new start on the same data.
    pub(crate) async fn restart(&mut self) {
        self.server.kill();
        self.server =
            Process::start("mariadb", &mut server_command(self.dir.path(), self.port), self.dir.path());
        until("MariaDB to come back", || async { self.try_connect().await.is_ok() }).await;
    }

    pub(crate) async fn connect(&self) -> Conn {
        self.try_connect().await.expect("MariaDB accepts its own user")
    }

    async fn try_connect(&self) -> Result<Conn, mysql_async::Error> {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
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

    /// The data source entry for a job.
    pub(crate) fn datasource(&self, name: &str) -> String {
        format!(
            "[{name}]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"{DATABASE}\"\n\
             username = \"{USER}\"\npassword = \"{PASSWORD}\"\n",
            self.port
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

fn server_command(dir: &Path, port: u16) -> Command {
    let init = dir.join("init.sql");
    let statements = format!(
        "CREATE DATABASE IF NOT EXISTS {DATABASE};\n\
         CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT ALL ON *.* TO {USER}@'127.0.0.1';\n"
    );
    std::fs::write(&init, statements).expect("the test's directory is writable");
    let server = ["/usr/sbin/mariadbd", "/usr/sbin/mysqld"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(server.unwrap_or("mariadbd"));
    command
        .arg("--no-defaults")
        .args(places(dir))
        .arg(format!("--socket={}", dir.join("mariadb.sock").display()))
        .arg(format!("--pid-file={}", dir.join("mariadb.pid").display()))
        .arg(format!("--init-file={}", init.display()))
        .arg(format!("--port={port}"))
        .args([
            "--bind-address=127.0.0.1",
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
