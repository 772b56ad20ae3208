//! The binary: `serve` runs a stand-in until it is told to stop, `digest` and `fill` ask a running one over its control
//! port. All behaviour is in the library.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use starrocks_standin::{Config, Standin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in StarRocks for demonstrations, tests and benchmarks
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server; prints its addresses as one JSON line when it is ready, stops at SIGTERM or SIGINT
    Serve {
        /// Also write the line to this file
        #[arg(long)]
        port_file: Option<PathBuf>,
        #[command(flatten)]
        config: Box<Config>,
    },
    /// Print the number of rows of a table and a hash that does not depend on their order
    Digest {
        /// Control port of the running server
        #[arg(long)]
        control: SocketAddr,
        /// db.table
        table: String,
    },
    /// Fill a table with demonstration rows, the same ones every time
    Fill {
        /// Control port of the running server
        #[arg(long)]
        control: SocketAddr,
        #[arg(long)]
        rows: u64,
        /// db.table
        table: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STANDIN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Serve { port_file, config } => serve(*config, port_file).await,
        Command::Digest { control, table } => {
            print!("{}", ask(control, "GET", &format!("/digest?table={}", encoded(&table))).await?);
            Ok(())
        }
        Command::Fill { control, rows, table } => {
            ask(control, "POST", &format!("/fill?rows={rows}&table={}", encoded(&table))).await.map(drop)
        }
    }
}

async fn serve(config: Config, port_file: Option<PathBuf>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let standin = Standin::start(config).await?;
    let line = serde_json::to_string(standin.addresses())? + "\n";
    if let Some(file) = port_file {
        std::fs::write(&file, &line).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut stdout = std::io::stdout();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    standin.shutdown().await;
    Ok(())
}

fn encoded(table: &str) -> String {
    percent_encoding::utf8_percent_encode(table, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// One request to a control port; the body of a 200, an error otherwise.
async fn ask(control: SocketAddr, method: &str, path: &str) -> anyhow::Result<String> {
    let mut socket =
        TcpStream::connect(control).await.with_context(|| format!("no stand-in listens on {control}"))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {control}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the control port gave no answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{method} {path}: {}", body.trim());
    }
    Ok(body.to_owned())
}
