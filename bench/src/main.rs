//! Measures Starlift on this machine. Each subcommand is one measurement and can be run alone; numbers of one run can be
//! compared with each other, and with those of another machine only as ratios.

mod client;
mod coordinator;
mod pack;
mod process;
mod raw;
mod results;
mod rows;
mod sink;
mod sling;
mod source;
mod starlift;
mod tables;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Starlift on this machine
#[derive(Debug, Parser)]
#[command(name = "starlift-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Rows(rows::RowsArgs),
    Coordinator(coordinator::CoordinatorArgs),
    Raw(raw::RawArgs),
    Client(client::ClientArgs),
    Pack(pack::PackArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let measured = match Cli::parse().command {
        Command::Rows(args) => rows::run(&args).await,
        Command::Coordinator(args) => coordinator::run(&args).await,
        Command::Raw(args) => raw::run(&args),
        Command::Client(args) => client::run(&args).await,
        Command::Pack(args) => pack::run(&args),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("starlift-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
