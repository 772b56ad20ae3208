//! The one binary `starlift`: reads flags ([`args`]), runs one command ([`commands`], [`run`]) and turns its end into
//! output ([`output`]) and an exit code. Decides nothing about jobs.

mod args;
mod authority;
mod checked;
mod client;
mod commands;
mod convert;
mod files;
mod offline;
mod output;
mod progress;
mod run;
mod servers;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use starlift_common::telemetry;

use crate::args::Cli;

fn main() -> anyhow::Result<ExitCode> {
    // Two TLS providers in one process would panic at the first connection; this is the only one.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    let cli = Cli::parse();
    telemetry::init(cli.log_format.into(), &cli.log_filter());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    Ok(ExitCode::from(runtime.block_on(commands::execute(cli.command))))
}
