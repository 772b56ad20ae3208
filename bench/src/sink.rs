//! The target: a stand-in StarRocks of its own process, in counting mode for what is measured against it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{Process, beside};
use crate::tables::Table;

/// A running stand-in with every table.
pub(crate) struct Sink {
    /// `host:port` each.
    pub(crate) mysql: String,
    pub(crate) fe: String,
    pub(crate) be: String,
    control: String,
    _server: Process,
}

impl Sink {
    /// `name` is for its log; `flags` are further ones of `serve`.
    pub(crate) async fn start(name: &str, flags: &[&str], logs: &Path) -> Result<Self> {
        let tables: Vec<String> = Table::ALL.iter().map(|table| table.create_target("bench")).collect();
        let sql = format!("CREATE DATABASE bench; {};", tables.join("; "));
        let ports = logs.join(format!("{name}.json"));
        // What an earlier run has left would be taken for this one's.
        let _ = std::fs::remove_file(&ports);
        let mut command = Command::new(beside("starrocks-standin")?);
        command.args(["serve", "--init-sql", &sql, "--be-http", "127.0.0.1:0,127.0.0.1:0"]).args(flags);
        command.arg("--port-file").arg(&ports);
        let server = Process::start(name, &mut command, logs)?;
        let addresses: Value =
            server.patiently(async || Ok(serde_json::from_slice(&std::fs::read(&ports)?)?)).await?;
        let address = |key: &str| {
            let found = &addresses[key];
            let text = found.as_str().or_else(|| found[0].as_str());
            text.map(str::to_owned).with_context(|| format!("the stand-in tells no {key}"))
        };
        Ok(Self {
            mysql: address("mysql")?,
            fe: address("fe_http")?,
            be: address("be_http")?,
            control: address("control")?,
            _server: server,
        })
    }

    /// Rows, bytes and hash of what is loaded.
    pub(crate) fn digest(&self, table: Table) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("GET", &format!("/digest?table=bench.{}", table.name()), "")?)?)
    }

    /// Body bytes, packed where they were, of the visible transactions whose labels hold `part`.
    pub(crate) fn bytes_received(&self, part: &str) -> Result<u64> {
        let state: Value = serde_json::from_str(&self.ask("GET", "/state", "")?)?;
        let all = state["transactions"].as_array().context("no transactions")?;
        let visible = all.iter().filter(|one| {
            one["state"] == "VISIBLE" && one["label"].as_str().is_some_and(|label| label.contains(part))
        });
        Ok(visible.filter_map(|one| one["load_bytes"].as_u64()).sum())
    }

    pub(crate) fn sql(&self, sql: &str) -> Result<()> {
        self.ask("POST", "/sql", sql).map(drop)
    }

    pub(crate) fn truncate(&self, table: Table) -> Result<()> {
        self.sql(&format!("TRUNCATE TABLE bench.{}", table.name()))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut socket = TcpStream::connect(&self.control)?;
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.control,
            body.len()
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the control port gave no answer")?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("{method} {path}: {}", body.trim());
        }
        Ok(body.to_owned())
    }

    /// The entry in a data source file.
    pub(crate) fn datasource(&self) -> String {
        let port = self.mysql.rsplit_once(':').map_or("", |(_, port)| port);
        format!(
            "[target]\ntype = \"starrocks\"\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"bench\"\n\
             username = \"root\"\npassword = \"\"\nload_url = [\"{}\"]\n",
            self.fe
        )
    }
}
