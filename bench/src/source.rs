//! The source: a private MariaDB whose data directory stays between runs, so that its tables are filled once.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::client::connect;
use crate::process::{Process, free_port};
use crate::tables::Table;

/// Rows per LOAD DATA, which bounds the file it reads.
const ROWS_PER_FILE: u64 = 1_000_000;
/// Bytes per LOAD DATA, for the tables with long rows.
const BYTES_PER_FILE: usize = 256 << 20;

/// A running server with the tables asked for.
pub(crate) struct Source {
    pub(crate) port: u16,
    data: PathBuf,
    logs: PathBuf,
    _server: Process,
}

impl Source {
    /// Starts the server on what an earlier run has left in `dir`.
    pub(crate) async fn start(dir: &Path) -> Result<Self> {
        let data = std::path::absolute(dir)?.join("mariadb");
        let logs = std::path::absolute(dir)?.join("logs");
        std::fs::create_dir_all(&logs)?;
        if !data.join("data/mysql").exists() {
            std::fs::create_dir_all(&data)?;
            install(&data)?;
        }
        let (port, server) = serve(&data, &logs).await?;
        Ok(Self { port, data, logs, _server: server })
    }

    /// Makes sure that the tables have the rows that belong to `rows`; fills those that have not.
    pub(crate) async fn provide(&mut self, tables: &[Table], rows: u64) -> Result<()> {
        let mut conn = connect(self.port).await?;
        conn.query_drop(
            "CREATE TABLE IF NOT EXISTS filled (name VARCHAR(40) PRIMARY KEY, definition VARCHAR(80))",
        )
        .await?;
        let mut filled = false;
        for table in tables {
            let wanted = definition(*table, rows);
            let found: Option<String> =
                conn.exec_first("SELECT definition FROM filled WHERE name = ?", (table.name(),)).await?;
            if found.as_ref() != Some(&wanted) {
                self.fill(&mut conn, *table, rows).await?;
                conn.exec_drop("REPLACE INTO filled VALUES (?, ?)", (table.name(), &wanted)).await?;
                filled = true;
            }
        }
        conn.disconnect().await?;
        if filled {
            self.restart().await?;
        }
        Ok(())
    }

    async fn fill(&self, conn: &mut Conn, table: Table, rows: u64) -> Result<()> {
        let (name, rows) = (table.name(), table.rows(rows));
        eprintln!("filling {name} with {rows} rows");
        conn.exec_drop("DELETE FROM filled WHERE name = ?", (name,)).await?;
        conn.query_drop(format!("DROP TABLE IF EXISTS {name}")).await?;
        conn.query_drop(table.create_source()).await?;
        conn.query_drop("SET unique_checks = 0, foreign_key_checks = 0").await?;
        let path = self.data.join("rows.txt");
        let (mut number, mut text) = (0, Vec::new());
        while number < rows {
            text.clear();
            let end = rows.min(number + ROWS_PER_FILE);
            while number < end && text.len() < BYTES_PER_FILE {
                table.write_row(number, &mut text);
                number += 1;
            }
            File::create(&path)?.write_all(&text)?;
            conn.query_drop(format!(
                "LOAD DATA INFILE '{}' INTO TABLE {name} CHARACTER SET utf8mb4",
                path.display()
            ))
            .await
            .with_context(|| format!("cannot fill {name}"))?;
        }
        std::fs::remove_file(&path)?;
        // The planner goes by the server's estimate, which is off by a different share each time it is made.
        conn.query_drop(format!("ALTER TABLE {name} STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0")).await?;
        conn.query_drop(format!("ANALYZE TABLE {name}")).await?;
        let fix = format!("UPDATE mysql.innodb_table_stats SET n_rows = {rows} WHERE table_name = '{name}'");
        conn.query_drop(fix).await?;
        Ok(())
    }

    /// A table's number of rows is read when the server first opens it.
    async fn restart(&mut self) -> Result<()> {
        let mut conn = connect(self.port).await?;
        conn.query_drop("SHUTDOWN").await?;
        // The data directory is free when the old server has ended.
        let pid = self.data.join("mariadb.pid");
        while pid.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        (self.port, self._server) = serve(&self.data, &self.logs).await?;
        Ok(())
    }

    /// The entry in a data source file.
    pub(crate) fn datasource(&self) -> String {
        format!(
            "[source]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"bench\"\n\
             username = \"bench\"\npassword = \"\"\n",
            self.port
        )
    }
}

/// What the table was filled with; changes when its columns or its number of rows do.
fn definition(table: Table, rows: u64) -> String {
    let mut sample = table.create_source().into_bytes();
    (0..100).for_each(|number| table.write_row(number, &mut sample));
    format!("{} rows, {:016x}", table.rows(rows), xxhash_rust::xxh3::xxh3_64(&sample))
}

fn install(data: &Path) -> Result<()> {
    let mut command = Command::new("mariadb-install-db");
    command.arg("--no-defaults").args(places(data)).args(user());
    command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
    let installed = command.output().context("mariadb-install-db, see tests/servers.sh")?;
    ensure!(installed.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&installed.stderr));
    Ok(())
}

async fn serve(data: &Path, logs: &Path) -> Result<(u16, Process)> {
    let init = data.join("init.sql");
    std::fs::write(
        &init,
        "CREATE DATABASE IF NOT EXISTS bench;\nCREATE USER IF NOT EXISTS bench@'%' IDENTIFIED BY '';\n\
         GRANT ALL ON *.* TO bench@'%';\n",
    )?;
    let port = free_port()?;
    let server = ["/usr/sbin/mariadbd", "/usr/sbin/mysqld"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(server.unwrap_or("mariadbd"));
    command.arg("--no-defaults").args(places(data)).args(user());
    command.arg(format!("--socket={}", data.join("socket").display()));
    command.arg(format!("--pid-file={}", data.join("mariadb.pid").display()));
    command.arg(format!("--init-file={}", init.display()));
    command.arg(format!("--port={port}"));
    command.arg(format!("--innodb-buffer-pool-size={}", buffer_pool_bytes()));
    command.args([
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--skip-log-bin",
        "--character-set-server=utf8mb4",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-doublewrite=0",
        "--innodb-log-file-size=1G",
        "--max-allowed-packet=64M",
    ]);
    let server = Process::start("mariadb", &mut command, logs)?;
    server
        .patiently(async || {
            connect(port).await?.disconnect().await?;
            Ok(())
        })
        .await?;
    Ok((port, server))
}

/// A quarter of the machine's memory, at most 6 GiB: the tables that are measured stay in it.
fn buffer_pool_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(4 << 20);
    (kib * 1024 / 4).min(6 << 30)
}

fn places(data: &Path) -> [String; 2] {
    [format!("--datadir={}", data.join("data").display()), format!("--tmpdir={}", data.display())]
}

fn user() -> &'static [&'static str] {
    let as_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if as_root { &["--user=root"] } else { &[] }
}
