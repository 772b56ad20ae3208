//! The one binary `starlift`: reads flags ([`args`]), runs one command ([`commands`], [`run`]) and turns its end into
//! output ([`output`]) and an exit code. Decides nothing about jobs.

mod again;
mod args;
mod authority;
mod checked;
mod client;
mod commands;
mod completions;
mod convert;
mod end;
mod files;
mod offline;
mod output;
mod plan;
mod process;
mod progress;
mod rates;
mod reminder;
mod run;
mod screen;
mod servers;
mod view;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use starlift_common::telemetry;

use crate::args::Cli;
use crate::screen::Screen;

fn main() -> anyhow::Result<ExitCode> {
    // Two TLS providers in one process would panic at the first connection; this is the only one.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    let cli = Cli::parse();
    let screen = Screen::stderr();
    let log = screen.clone();
    let filter = cli.log_filter();
    telemetry::init(cli.log_format.into(), &filter, screen.understands_codes(), move || log.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    Ok(ExitCode::from(runtime.block_on(commands::execute(cli.command, &screen))))
}
