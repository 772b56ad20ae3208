//! Sling, from the Python package index, moving the same table with the means it has: MySQL to StarRocks by Stream Load.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::process::{Process, Usage};
use crate::sink::Sink;
use crate::source::Source;
use crate::tables::Table;

const PACKAGE: &str = "sling-linux-amd64==1.4.11";
const BINARY: &str = "sling_linux_amd64/bin/sling-linux-amd64";
const LIMIT: Duration = Duration::from_secs(300);

/// The binary, downloaded where it is missing.
pub(crate) fn install(dir: &Path) -> Result<PathBuf> {
    let home = std::path::absolute(dir)?.join("sling");
    let binary = home.join(BINARY);
    if !binary.exists() {
        eprintln!("installing {PACKAGE}");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        let done = pip.arg(&home).arg(PACKAGE).output().context("python3 is needed to install it")?;
        ensure!(done.status.success(), "{PACKAGE}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    // A wheel does not say which files are programs.
    std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(binary)
}

/// Moves the first `rows` rows of `table` into a table of its own making. It loads into a table beside that one and has the
/// server copy the rows, which a target that only counts does at once: Sling is not charged for the stand-in's disk.
pub(crate) async fn run(
    binary: &Path,
    table: Table,
    rows: u64,
    source: &Source,
    sink: &Sink,
    logs: &Path,
) -> Result<Usage> {
    let home = tempfile::Builder::new().prefix("starlift-bench").tempdir()?;
    let key = table.key();
    let query = format!("select * from bench.{} where {key} <= {}", table.name(), table.last_key(rows));
    sink.sql("DROP TABLE IF EXISTS bench.sling")?;
    let mut command = Command::new(binary);
    command.current_dir(home.path()).env("HOME", home.path()).env("SLING_HOME_DIR", home.path());
    command.env("SLING_DISABLE_TELEMETRY", "true").env("SLING_LOGGING", "NO_COLOR");
    command.env("SOURCE", format!("mysql://bench@127.0.0.1:{}/bench", source.port));
    let port = sink.mysql.rsplit_once(':').map_or("", |(_, port)| port);
    let target = json!({
        "type": "starrocks", "host": "127.0.0.1", "port": port, "user": "root", "password": "",
        "database": "bench", "fe_url": format!("http://root:@{}", sink.fe),
    });
    command.env("TARGET", target.to_string());
    command.args(["run", "--src-conn", "SOURCE", "--src-stream", &query]);
    command.args(["--tgt-conn", "TARGET", "--tgt-object", "bench.sling", "--mode", "full-refresh"]);
    let (usage, said) = Process::start("sling", &mut command, logs)?.finished(LIMIT).await?;
    ensure!(said.contains(&format!("inserted {rows} rows")), "sling did not load {rows} rows:\n{said}");
    Ok(usage)
}
