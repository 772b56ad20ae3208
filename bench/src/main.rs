//! Measures Starlift on this machine. Each subcommand is one measurement and can be run alone; numbers of one run can be
//! compared with each other, and with those of another machine only as ratios.

mod coordinator;

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
    Coordinator(coordinator::CoordinatorArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let measured = match Cli::parse().command {
        Command::Coordinator(args) => coordinator::run(&args).await,
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("starlift-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
