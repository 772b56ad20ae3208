//! `starlift-bench all`: the row path and the coordinator in one go, and the page that is kept of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use crate::process::Process;
use crate::rows::{self, RowsArgs};

const LIMIT: Duration = Duration::from_secs(1200);

/// Measure everything and print one table
#[derive(Debug, Args)]
pub(crate) struct AllArgs {
    #[command(flatten)]
    rows: RowsArgs,
    /// Put the table into this file, with date and machine
    #[arg(long, num_args = 0..=1, default_missing_value = "bench/RESULTS.md")]
    write: Option<PathBuf>,
}

pub(crate) async fn run(args: &AllArgs) -> Result<()> {
    let mut results = rows::measure(&args.rows).await?;
    let mut coordinators = String::new();
    for store in ["file", "etcd"] {
        eprintln!("coordinator, {store}");
        let name = format!("coordinator-{store}");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["coordinator", "--json", "--store", store]);
        let measured =
            Process::start(&name, &mut command, &args.rows.dir.join("logs"))?.finished(LIMIT).await;
        match measured {
            Ok((_, printed)) => {
                let line = printed.lines().rfind(|line| line.starts_with('{')).context("no result")?;
                let shown: Value = serde_json::from_str(line)?;
                results.add_coordinator(store, &shown);
                coordinators += &format!("{line}\n");
            }
            Err(error) => results.miss(&name, &rows::first_lines(&error)),
        }
    }
    let table = format!("{}\n{coordinators}", results.render());
    println!("{table}");
    if let Some(path) = &args.write {
        std::fs::write(path, page(&table, &args.rows)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Date, machine, table.
fn page(table: &str, args: &RowsArgs) -> Result<String> {
    let output = |program: &str, arguments: &[&str]| -> Result<String> {
        let done = Command::new(program).args(arguments).output().context(program.to_owned())?;
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    Ok(format!(
        "# Results of `make bench`\n\n{}, commit {}. {}, {} cores, Linux {}. {} rows of lineitem, {} runs.\n\n\
         Ratios of one run can be relied on, seconds are of this machine. CPU is user and system time of the client's \
         processes only, per million rows; the wall of Starlift is its transfer phase, of `job` the whole job. Every load \
         had the source's count and hash.\n\n```text\n{table}```\n",
        output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?,
        output("git", &["rev-parse", "--short", "HEAD"])?,
        model.trim_start_matches([' ', '\t', ':']),
        std::thread::available_parallelism()?,
        output("uname", &["-r"])?,
        args.rows,
        args.runs,
    ))
}
