//! Floor (b): the same rows through mysql_async, a value made of each cell, the cells' bytes summed.

use anyhow::Result;
use clap::Args;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Value};

/// Read the result of a query with mysql_async
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    #[arg(long)]
    port: u16,
    sql: String,
}

/// Reads and prints one line of JSON.
pub(crate) async fn run(args: &ClientArgs) -> Result<()> {
    let mut conn = connect(args.port).await?;
    let (mut rows, mut text, mut nulls) = (0_u64, 0_u64, 0_u64);
    let mut result = conn.query_iter(args.sql.as_str()).await?;
    while let Some(row) = result.next().await? {
        rows += 1;
        for place in 0..row.len() {
            match row.as_ref(place) {
                Some(Value::Bytes(bytes)) => text += bytes.len() as u64,
                _ => nulls += 1,
            }
        }
    }
    drop(result);
    conn.disconnect().await?;
    println!("{}", serde_json::json!({ "rows": rows, "text": text, "nulls": nulls }));
    Ok(())
}

/// A connection to the source database.
pub(crate) async fn connect(port: u16) -> Result<Conn> {
    let options = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some("bench"))
        .db_name(Some("bench"))
        .prefer_socket(false);
    Ok(Conn::new(options).await?)
}
