//! Measures Starlift on this machine. Each subcommand is one measurement and can be run alone; numbers of one run can be
//! compared with each other, and with those of another machine only as ratios. Linux only.
//!
//! ```text
//! make bench                                        builds what is measured, runs `all --write`
//! starlift-bench all --rows 1000000 --runs 5        everything, with other sizes
//! starlift-bench rows --only "lineitem csv"         only these cases of the row path
//! starlift-bench coordinator --store etcd           only the coordinator
//! starlift-bench raw, client, pack                  what `rows` starts and measures as processes of their own
//! ```
//!
//! The source is a MariaDB under `target/bench`, filled at the first run and kept: about 7 GB with 5 M rows of lineitem.
//! The sink is the stand-in in counting mode. Needs `mariadbd`, `etcd` and `curl` (`tests/servers.sh`), and for Sling the
//! Python package index; without it the table says so.

mod all;
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
    All(all::AllArgs),
    Rows(rows::RowsArgs),
    Coordinator(coordinator::CoordinatorArgs),
    Raw(raw::RawArgs),
    Client(client::ClientArgs),
    Pack(pack::PackArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let measured = match Cli::parse().command {
        Command::All(args) => all::run(&args).await,
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
