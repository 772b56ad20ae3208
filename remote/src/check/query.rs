//! Query ports: connection, login, version, rights on the tables; and the list of BEs where the account may see it.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use starlift_common::check::{Backend, Backends, Finding, Outcome, Part, SourceScope, TargetScope};
use starlift_common::datasource::{Datasource, DatasourceKind};
use starlift_common::problem::{Code, Problem};
use starlift_common::query::table_name;
use tokio::time::{Instant, timeout};

use super::reach::{self, Unreached};
use super::{PATIENCE, Right, outcome_of};
use crate::mysql::{SessionSettings, connect_to, explain};
use crate::rows::Named;

/// What is needed of the tables behind a query port.
struct Need<'a> {
    part: Part,
    database: Option<&'a str>,
    tables: &'a [String],
    right: Right,
}

/// Every query port of a source, each with the right to read the tables.
pub(super) async fn source(scope: &SourceScope, datasource: &Datasource) -> Vec<Finding> {
    let need = Need {
        part: Part::Source,
        database: scope.database.as_deref().or(datasource.database.as_deref()),
        tables: &scope.tables,
        right: Right::Select,
    };
    let hosts = datasource.hosts.iter().map(|host| look(&need, datasource, host, false));
    futures_util::future::join_all(hosts).await.into_iter().map(|(finding, _)| finding).collect()
}

/// Every query port of the target, and its BEs if they are `wanted` and the account may list them. The right to insert is
/// not to be seen here without inserting; an FE's HTTP port tells it.
pub(super) async fn target(
    scope: &TargetScope,
    datasource: &Datasource,
    wanted: bool,
) -> (Vec<Finding>, Option<Backends>) {
    let tables: &[String] = if scope.table.is_empty() { &[] } else { std::slice::from_ref(&scope.table) };
    let need = Need {
        part: Part::Target,
        database: scope.database.as_deref().or(datasource.database.as_deref()),
        tables,
        right: Right::Insert,
    };
    let hosts = datasource.hosts.iter().map(|host| look(&need, datasource, host, wanted));
    let (findings, listed): (Vec<_>, Vec<_>) =
        futures_util::future::join_all(hosts).await.into_iter().unzip();
    (findings, listed.into_iter().flatten().next())
}

async fn look(
    need: &Need<'_>,
    datasource: &Datasource,
    host: &str,
    lists: bool,
) -> (Finding, Option<Backends>) {
    let began = Instant::now();
    let mut finding = Finding {
        part: need.part,
        datasource: datasource.name.clone(),
        address: format!("{host}:{}", datasource.port),
        via: String::new(),
        outcome: Outcome::Reached,
        took: std::time::Duration::ZERO,
        told: String::new(),
        problem: None,
    };
    let mut listed = None;
    match enter(need, datasource, host).await {
        Err((outcome, problem)) => (finding.outcome, finding.problem) = (outcome, Some(problem)),
        Ok(mut conn) => {
            finding.told = version(&mut conn, datasource.kind).await;
            if let Err(problem) = see_tables(need, datasource, &mut conn).await {
                (finding.outcome, finding.problem) = (outcome_of(&problem), Some(problem));
            } else if need.right == Right::Select && !need.tables.is_empty() {
                finding.told.push_str(", may SELECT");
            }
            if lists {
                listed = backends(&mut conn).await;
            }
            // Everything is known; the server drops the connection in any case.
            let _ = conn.disconnect().await;
        }
    }
    finding.took = began.elapsed();
    (finding, listed)
}

/// A session at that host, or why there is none.
async fn enter(need: &Need<'_>, datasource: &Datasource, host: &str) -> Result<Conn, (Outcome, Problem)> {
    if let Err(unreached) = reach::connect(host, datasource.port).await {
        return Err((unreached.outcome, closed(datasource, host, &unreached)));
    }
    let entered = connect_to(datasource, host, need.database, SessionSettings::default()).await;
    entered.map_err(|problem| match (problem.code, need.database) {
        (Code::LoginFailed, _) => {
            let hint = format!(
                "correct password (or password_file) and username of [{}] in the data source file",
                datasource.name
            );
            (Outcome::LoginRefused, problem.hint(hint))
        }
        (Code::NoPrivilege, Some(database)) => {
            let table = need.tables.first().map_or("*", String::as_str);
            (Outcome::NoGrant, need.right.missing(datasource, database, table, &problem.message))
        }
        _ => (Outcome::Failed, problem),
    })
}

fn closed(datasource: &Datasource, host: &str, unreached: &Unreached) -> Problem {
    let (name, port) = (&datasource.name, datasource.port);
    let message = format!("cannot reach data source {name} at {host}:{port}: {}", unreached.reason);
    let hint = match unreached.outcome {
        Outcome::Unresolved => {
            format!("in [{name}]: host = \"...\", by a name or number that is known there")
        }
        _ => format!(
            "open port {port} of {host}, or correct host and port of [{name}] in the data source file"
        ),
    };
    Problem::new(Code::ConnectFailed, message).at(format!("{host}:{port}")).hint(hint)
}

/// Version as the server tells it; where it does not, its kind.
async fn version(conn: &mut Conn, kind: DatasourceKind) -> String {
    let (name, questions): (_, &[&str]) = match kind {
        DatasourceKind::Mysql => ("MySQL", &["SELECT @@version"]),
        DatasourceKind::Starrocks => ("StarRocks", &["SELECT current_version()", "SELECT @@version_comment"]),
    };
    for sql in questions {
        if let Ok(Ok(Some(version))) = timeout(PATIENCE, conn.query_first::<String, _>(*sql)).await {
            return format!("{name} {version}");
        }
    }
    name.to_owned()
}

/// Whether the tables are there and may be read; reads no row. Of a target only the former matters.
async fn see_tables(need: &Need<'_>, datasource: &Datasource, conn: &mut Conn) -> Result<(), Problem> {
    if need.tables.is_empty() {
        return Ok(());
    }
    let Some(database) = need.database else {
        return Err(Problem::new(
            Code::InvalidSettings,
            format!("no database for data source {}", datasource.name),
        )
        .hint("set selectedDatabase in the job, or database in the data source"));
    };
    if need.right == Right::Insert {
        return Ok(());
    }
    for table in need.tables {
        let sql = format!("SELECT 1 FROM {} WHERE 1 = 2", table_name(database, table));
        let place = format!("{database}.{table}");
        match timeout(PATIENCE, conn.query_drop(sql)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let problem = explain(datasource, &place, &error);
                return Err(match problem.code {
                    Code::NoPrivilege => need.right.missing(datasource, database, table, &problem.message),
                    _ => problem,
                });
            }
            Err(_) => {
                let message = format!("{place} was not opened within {} s", PATIENCE.as_secs());
                return Err(Problem::new(Code::ConnectFailed, message).at(place));
            }
        }
    }
    Ok(())
}

/// The nodes that take loads, as far as the account may list them: BEs need a right of their own, and in shared-data
/// clusters there may be compute nodes only.
async fn backends(conn: &mut Conn) -> Option<Backends> {
    let mut nodes = Vec::new();
    let mut complete = false;
    for sql in ["SHOW BACKENDS", "SHOW COMPUTE NODES"] {
        let Ok(Ok(rows)) = timeout(PATIENCE, conn.query::<Row, _>(sql)).await else { continue };
        complete |= sql == "SHOW BACKENDS";
        nodes.extend(rows.into_iter().map(Named::new).filter_map(|row| {
            let host = row.get("ip").or_else(|| row.get("host"))?;
            let port = row.number("httpport")?;
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            let alive = row.text("alive").eq_ignore_ascii_case("true");
            Some(Backend { address: format!("{host}:{port}"), alive })
        }));
    }
    nodes.sort();
    nodes.dedup();
    (!nodes.is_empty()).then_some(Backends { nodes, complete })
}
