//! `starlift-bench rows`: the row path against its floors, side by side. The cases of a round follow each other and the
//! rounds repeat, so that what disturbs the machine disturbs all of them. Every load is checked: the stand-in's count and
//! hash of what it got must be the source's, or the run is an error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::process::{Process, Usage};
use crate::results::{Results, Sample};
use crate::sink::Sink;
use crate::sling;
use crate::source::Source;
use crate::starlift::{self, Form, Setup};
use crate::tables::Table;

const LIMIT: Duration = Duration::from_secs(600);
/// Sling gets no more rows than these.
const SLING_ROWS: u64 = 500_000;
/// What one connection may load per second where scaling is measured.
const HELD_BACK: &str = "2000000";

/// Measure the row path against its floors, and print the table
#[derive(Debug, Args)]
pub(crate) struct RowsArgs {
    /// Rows of the lineitem table; the others follow from it
    #[arg(long, default_value_t = 5_000_000)]
    pub(crate) rows: u64,
    /// Rounds; the table shows medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Only cases whose name contains this, e.g. `lineitem csv`; `scaling` and the like too
    #[arg(long)]
    only: Option<String>,
    /// Source database, logs and downloads; kept between runs
    #[arg(long, default_value = "target/bench")]
    pub(crate) dir: PathBuf,
}

/// One line of the table.
struct Case {
    name: String,
    table: Table,
    kind: Kind,
    /// Once, after the rounds.
    once: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Raw { connections: u64 },
    Client,
    Upload,
    Pack { idle: bool },
    Starlift(Setup),
    Sling,
    Scaling { workers: u32 },
}

/// Measures and prints. Fails when a load was not what it should be, not when a claim is missed.
pub(crate) async fn run(args: &RowsArgs) -> Result<()> {
    println!("{}", measure(args).await?.render());
    Ok(())
}

/// Measures every case that was asked for.
pub(crate) async fn measure(args: &RowsArgs) -> Result<Results> {
    let cases: Vec<Case> = cases()
        .into_iter()
        .filter(|case| args.only.as_ref().is_none_or(|only| case.name.contains(only.as_str())))
        .collect();
    ensure!(!cases.is_empty(), "no case is called like that");
    let mut stage = Stage::start(args, &cases).await?;
    let mut results = Results::default();
    for round in 1..=args.runs {
        for case in cases.iter().filter(|case| !case.once || round == args.runs) {
            stage.measure(case, round, &mut results).await?;
        }
    }
    Ok(results)
}

fn cases() -> Vec<Case> {
    let case = |name: String, table, kind| Case { name, table, kind, once: false };
    let starlift = |table: Table, form, slots, batch_mb| {
        let name = match form {
            Form::Csv => "csv",
            Form::CsvLz4 => "csv+lz4",
            Form::Json => "json",
        };
        let small = if batch_mb == 64 { String::new() } else { format!(" {batch_mb} MiB") };
        let name = format!("{} {name} {slots} slots{small}", table.name());
        case(name, table, Kind::Starlift(Setup { table, workers: 1, slots, form, batch_mb }))
    };
    let mut all = Vec::new();
    for table in [Table::LineItem, Table::Wide, Table::Narrow] {
        all.push(case(format!("{} raw x1", table.name()), table, Kind::Raw { connections: 1 }));
        if table == Table::LineItem {
            all.push(case("lineitem raw x2".to_owned(), table, Kind::Raw { connections: 2 }));
            all.push(case("lineitem mysql_async".to_owned(), table, Kind::Client));
        }
        all.push(case(format!("{} curl", table.name()), table, Kind::Upload));
        all.push(starlift(table, Form::Csv, 2, 64));
        if table == Table::LineItem {
            all.push(starlift(table, Form::Csv, 1, 64));
            all.push(starlift(table, Form::Csv, 4, 64));
            all.push(starlift(table, Form::Csv, 2, 5));
            all.push(starlift(table, Form::CsvLz4, 2, 64));
            all.push(case("lineitem lz4 alone".to_owned(), table, Kind::Pack { idle: false }));
            all.push(case("lineitem read alone".to_owned(), table, Kind::Pack { idle: true }));
            all.push(starlift(table, Form::Json, 2, 64));
            all.push(case("lineitem sling".to_owned(), table, Kind::Sling));
        }
    }
    let once = |case: Case| Case { once: true, ..case };
    all.push(once(starlift(Table::LineItemLarge, Form::Csv, 4, 64)));
    all.push(once(starlift(Table::Texts, Form::Csv, 4, 64)));
    for workers in [1, 2, 4, 8] {
        let name = format!("scaling {workers} workers");
        all.push(once(case(name, Table::LineItemSmall, Kind::Scaling { workers })));
    }
    all
}

/// The servers, and what is known of the source's tables.
struct Stage {
    source: Source,
    sink: Sink,
    logs: PathBuf,
    dir: PathBuf,
    rows: u64,
    /// What each table holds, as the sink must tell it, and its bytes of text.
    digests: BTreeMap<Table, Value>,
    runs: u32,
}

impl Stage {
    async fn start(args: &RowsArgs, cases: &[Case]) -> Result<Self> {
        std::fs::create_dir_all(&args.dir)?;
        let dir = std::path::absolute(&args.dir)?;
        let mut source = Source::start(&dir).await?;
        let mut tables: Vec<Table> = cases.iter().map(|case| case.table).collect();
        tables.sort_unstable();
        tables.dedup();
        source.provide(&tables, args.rows).await?;
        let logs = dir.join("logs");
        let sink = Sink::start("standin", &["--count-only"], &logs).await?;
        let mut stage =
            Self { source, sink, logs, dir, rows: args.rows, digests: BTreeMap::new(), runs: args.runs };
        for table in tables {
            let is_uploaded =
                |case: &Case| case.table == table && matches!(case.kind, Kind::Upload | Kind::Pack { .. });
            let with_csv = cases.iter().any(is_uploaded);
            let digest = stage.digest(table, with_csv).await?;
            stage.digests.insert(table, digest);
        }
        Ok(stage)
    }

    /// Hashes the source's table, not measured; it is in the server's memory afterwards.
    async fn digest(&self, table: Table, with_csv: bool) -> Result<Value> {
        let mut command = own("raw", self.source.port)?;
        command.arg("--hash").arg(select(table, ""));
        if with_csv {
            command.arg("--csv").arg(self.csv(table));
        }
        let (_, printed) = Process::start("hash", &mut command, &self.logs)?.finished(LIMIT).await?;
        let digest: Value = serde_json::from_str(&printed).context("no digest of the source")?;
        let rows = table.rows(self.rows);
        ensure!(digest["rows"] == rows, "{} has {} rows, not {rows}", table.name(), digest["rows"]);
        Ok(digest)
    }

    fn csv(&self, table: Table) -> PathBuf {
        self.dir.join(format!("{}.csv", table.name()))
    }

    async fn measure(&mut self, case: &Case, round: u32, results: &mut Results) -> Result<()> {
        if results.is_missing(&case.name) {
            return Ok(());
        }
        eprintln!("round {round}/{}: {}", self.runs, case.name);
        let table = case.table;
        let rows = table.rows(self.rows);
        let usage = match case.kind {
            Kind::Raw { connections } => {
                let halves = halves(table, rows, connections);
                self.read(own("raw", self.source.port)?.args(halves), table).await?
            }
            Kind::Client => self.read(own("client", self.source.port)?.arg(select(table, "")), table).await?,
            Kind::Upload => self.upload(table).await?,
            Kind::Pack { idle } => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("pack").arg(self.csv(table));
                if idle {
                    command.arg("--idle");
                }
                Process::start("pack", &mut command, &self.logs)?.finished(LIMIT).await?.0
            }
            Kind::Starlift(setup) => match self.starlift(setup).await {
                Ok((usage, elapsed_s)) => {
                    if case.name == "lineitem csv 2 slots" {
                        let whole = Usage { wall_s: elapsed_s, ..usage };
                        results.add("lineitem job 2 slots", self.sample(table, rows, whole));
                    }
                    usage
                }
                // An option that is not there yet is a gap in the table, a wrong row is the end.
                Err(error) if setup.form == Form::CsvLz4 => {
                    results.miss(&case.name, &first_lines(&error));
                    return Ok(());
                }
                Err(error) => return Err(error.context(format!("{} failed", case.name))),
            },
            Kind::Sling => match self.sling(table).await {
                Ok(sample) => {
                    results.add(&case.name, sample);
                    return Ok(());
                }
                Err(error) => {
                    results.miss(&case.name, &first_lines(&error));
                    return Ok(());
                }
            },
            Kind::Scaling { workers } => {
                let flags = ["--count-only", "--be-bytes-per-second", HELD_BACK];
                let sink = Sink::start("standin-slow", &flags, &self.logs).await?;
                let setup = Setup { table, workers, slots: 1, form: Form::Csv, batch_mb: 64 };
                let outcome = starlift::run(setup, &self.source, &sink, &self.logs).await?;
                self.check(&sink, table)?;
                outcome.usage
            }
        };
        results.add(&case.name, self.sample(table, rows, usage));
        Ok(())
    }

    fn sample(&self, table: Table, rows: u64, usage: Usage) -> Sample {
        let text = self.digests[&table]["text"].as_u64().unwrap_or(0);
        Sample { rows, text, wall_s: usage.wall_s, cpu_s: usage.cpu_s, peak_mb: usage.peak_mb }
    }

    /// One of our own readers; it must have met every byte.
    async fn read(&self, command: &mut Command, table: Table) -> Result<Usage> {
        let (usage, printed) = Process::start("reader", command, &self.logs)?.finished(LIMIT).await?;
        let found: Value = serde_json::from_str(&printed).context("the reader printed no result")?;
        for key in ["rows", "text", "nulls"] {
            ensure!(found[key] == self.digests[&table][key], "{key} of {}: {found}", table.name());
        }
        Ok(usage)
    }

    /// The same rows as CSV, straight to a backend with curl.
    async fn upload(&self, table: Table) -> Result<Usage> {
        self.sink.truncate(table)?;
        let mut command = Command::new("curl");
        command.args(["-sS", "-u", "root:", "-H", "Expect: 100-continue", "-H", "format: csv"]);
        command
            .args(["-H", "column_separator: \\x01", "-H", "row_delimiter: \\x02", "-T"])
            .arg(self.csv(table));
        command.arg(format!("http://{}/api/bench/{}/_stream_load", self.sink.be, table.name()));
        let (usage, printed) = Process::start("curl", &mut command, &self.logs)?.finished(LIMIT).await?;
        ensure!(printed.contains("\"Success\""), "curl: {printed}");
        self.check(&self.sink, table)?;
        Ok(usage)
    }

    async fn starlift(&self, setup: Setup) -> Result<(Usage, f64)> {
        let outcome = starlift::run(setup, &self.source, &self.sink, &self.logs).await?;
        self.check(&self.sink, setup.table)?;
        ensure!(outcome.rows == setup.table.rows(self.rows), "the report says {} rows", outcome.rows);
        if setup.form == Form::CsvLz4 {
            let text = self.digests[&setup.table]["text"].as_u64().unwrap_or(0);
            let sent = self.sink.bytes_received(&outcome.job_id)?;
            ensure!(sent < text, "the worker sent {sent} bytes for {text} bytes of text: not compressed");
        }
        Ok((outcome.usage, outcome.elapsed_s))
    }

    async fn sling(&self, table: Table) -> Result<Sample> {
        let binary = sling::install(&self.dir)?;
        let rows = table.rows(self.rows).min(SLING_ROWS);
        let usage = sling::run(&binary, table, rows, &self.source, &self.sink, &self.logs).await?;
        let text = self.digests[&table]["text"].as_u64().unwrap_or(0);
        Ok(Sample { rows, text: text / table.rows(self.rows) * rows, ..self.sample(table, rows, usage) })
    }

    /// The sink has the source's rows.
    fn check(&self, sink: &Sink, table: Table) -> Result<()> {
        let found = sink.digest(table)?;
        for key in ["rows", "bytes", "hash"] {
            let wanted = &self.digests[&table][key];
            ensure!(found[key] == *wanted, "{key} of {} at the sink: {found}, not {wanted}", table.name());
        }
        Ok(())
    }
}

fn own(subcommand: &str, port: u16) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([subcommand, "--port", &port.to_string()]);
    Ok(command)
}

fn select(table: Table, condition: &str) -> String {
    format!("SELECT {} FROM {}{condition}", table.column_names().join(", "), table.name())
}

/// One query per connection, of about as many rows each.
fn halves(table: Table, rows: u64, connections: u64) -> Vec<String> {
    let (key, last) = (table.key(), table.last_key(rows));
    if connections == 1 {
        return vec![select(table, "")];
    }
    (0..connections)
        .map(|place| {
            let (from, to) = (last * place / connections, last * (place + 1) / connections);
            select(table, &format!(" WHERE {key} > {from} AND {key} <= {to}"))
        })
        .collect()
}

/// An error in one line of the table.
pub(crate) fn first_lines(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).take(4).collect();
    lines.join(" | ").chars().take(300).collect()
}
