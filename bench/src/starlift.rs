//! Starlift itself, as its users run it: a coordinator, workers and a submitted job, each a process of the release
//! binary. Only the worker's processor time and memory are measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, Usage, beside, free_port};
use crate::sink::Sink;
use crate::source::Source;
use crate::tables::Table;

/// No job of a measurement takes longer.
const LIMIT: Duration = Duration::from_secs(900);

/// How bodies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Csv,
    CsvLz4,
    Json,
}

/// One job and who does it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) table: Table,
    pub(crate) workers: u32,
    pub(crate) slots: u32,
    pub(crate) form: Form,
    pub(crate) batch_mb: u64,
}

/// What one job took.
pub(crate) struct Outcome {
    pub(crate) rows: u64,
    /// Of all workers together; the wall is that of the transfer.
    pub(crate) usage: Usage,
    /// From the start of the job to its end.
    pub(crate) elapsed_s: f64,
    /// A part of the labels of its transactions.
    pub(crate) job_id: String,
}

/// Runs one job on new processes and waits for its end. The target's table is emptied before it.
pub(crate) async fn run(setup: Setup, source: &Source, sink: &Sink, logs: &Path) -> Result<Outcome> {
    sink.truncate(setup.table)?;
    let stage = Stage::start(source, sink, logs).await?;
    let mut workers = Vec::new();
    for number in 1..=setup.workers {
        workers.push(stage.worker(number, setup.slots, logs)?);
    }
    stage.wait_for(setup.workers, &workers[0]).await?;
    let report = stage.submit(&script(setup), logs).await?;
    let mut usage = Usage { wall_s: number(&report["phases"]["transfer"]), cpu_s: 0.0, peak_mb: 0.0 };
    for worker in &workers {
        let own = worker.usage()?;
        usage.cpu_s += own.cpu_s;
        usage.peak_mb += own.peak_mb;
    }
    ensure!(report["state"] == "SUCCEEDED", "the job did not succeed: {report:#}");
    Ok(Outcome {
        rows: report["rows_loaded"].as_u64().unwrap_or(0),
        usage,
        elapsed_s: number(&report["elapsed_seconds"]),
        job_id: report["job_id"].as_str().context("a report names its job")?.to_owned(),
    })
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn script(setup: Setup) -> Value {
    let columns = setup.table.column_names();
    let props = match setup.form {
        Form::Csv => json!({}),
        Form::CsvLz4 => json!({ "compression": "lz4_frame" }),
        Form::Json => json!({ "format": "json" }),
    };
    json!({
        "type": "job", "version": "2.0",
        "steps": [
            { "stepType": "mysql", "name": "Reader", "category": "reader", "parameter": {
                "datasource": "source", "table": setup.table.name(), "column": columns,
                "splitPk": setup.table.key() } },
            { "stepType": "starrocks", "name": "Writer", "category": "writer", "parameter": {
                "datasource": "target", "table": setup.table.name(), "column": columns, "loadProps": props,
                "maxBatchRows": 100_000_000, "maxBatchSize": setup.batch_mb << 20 } },
        ],
        "setting": {
            "speed": { "concurrent": setup.workers * setup.slots }, "errorLimit": { "record": 0 } },
        "order": { "hops": [{ "from": "Reader", "to": "Writer" }] },
    })
}

/// A coordinator without workers.
struct Stage {
    dir: TempDir,
    starlift: PathBuf,
    url: String,
    _coordinator: Process,
}

impl Stage {
    async fn start(source: &Source, sink: &Sink, logs: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("starlift-bench").tempdir()?;
        std::fs::write(dir.path().join("datasources.toml"), source.datasource() + &sink.datasource())?;
        let starlift = beside("starlift")?;
        let (grpc, http) = (free_port()?, free_port()?);
        let mut command = command(&starlift, dir.path());
        command.args(["coordinator", "--state", "file:state", "--datasources", "datasources.toml"]);
        command.arg(format!("--grpc=127.0.0.1:{grpc}")).arg(format!("--http=127.0.0.1:{http}"));
        let coordinator = Process::start("coordinator", &mut command, logs)?;
        let url = format!("http://127.0.0.1:{grpc}");
        Ok(Self { dir, starlift, url, _coordinator: coordinator })
    }

    fn worker(&self, number: u32, slots: u32, logs: &Path) -> Result<Process> {
        let mut command = command(&self.starlift, self.dir.path());
        command.args(["worker", "--coordinator", &self.url, "--datasources", "datasources.toml"]);
        command.arg(format!("--slots={slots}")).arg(format!("--http=127.0.0.1:{}", free_port()?));
        Process::start(&format!("worker-{number}"), &mut command, logs)
    }

    /// Until so many workers have asked for work.
    async fn wait_for(&self, workers: u32, first: &Process) -> Result<()> {
        first
            .patiently(async || {
                let mut command = command(&self.starlift, self.dir.path());
                let listed = command.args(["workers", "--coordinator", &self.url, "--json"]).output()?;
                let listed: Value = serde_json::from_slice(&listed.stdout)?;
                let found = listed["workers"].as_array().or_else(|| listed.as_array()).map_or(0, Vec::len);
                ensure!(found >= usize::try_from(workers)?, "{found} of {workers} workers are there");
                Ok(())
            })
            .await
    }

    /// Submits, waits for the end, and answers the final report.
    async fn submit(&self, script: &Value, logs: &Path) -> Result<Value> {
        std::fs::write(self.dir.path().join("job.json"), script.to_string())?;
        let mut command = command(&self.starlift, self.dir.path());
        command.args(["submit", "job.json", "--watch", "--json", "--log", "off", "--coordinator", &self.url]);
        let (_, printed) = Process::start("submit", &mut command, logs)?.finished(LIMIT).await?;
        let Some(start) = printed.find('{') else { bail!("no report:\n{printed}") };
        serde_json::from_str(&printed[start..]).with_context(|| format!("no report:\n{printed}"))
    }
}

/// `starlift` with nothing inherited that could change what it does.
fn command(starlift: &Path, dir: &Path) -> Command {
    let mut command = Command::new(starlift);
    command.current_dir(dir).env("NO_COLOR", "1").env("STARLIFT_LOG", "warn");
    command
}
