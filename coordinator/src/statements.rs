//! The statements before and after the transfer: one connection each, in order. Where one runs is saved before it is
//! sent, so that whoever comes after a crash can stop it before it is sent again: a forgotten TRUNCATE must not fall
//! upon freshly loaded rows.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::ids::JobId;
use starlift_common::problem::{Code, Problem};
use starlift_remote::mysql::{SessionSettings, connect_to, explain};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::driver::Handle;
use crate::plan::Plan;
use crate::record::{InFlight, Stage};
use crate::state::{Answer, Event};

/// How long the server may take to be reached, and a killed statement to leave the process list.
const KILL_PATIENCE: Duration = Duration::from_secs(60);

const KILL_PAUSE: Duration = Duration::from_millis(500);

/// One element of preSql or postSql.
pub(crate) struct Statement<'a> {
    pub(crate) job: JobId,
    pub(crate) stage: Stage,
    pub(crate) index: u32,
    pub(crate) plan: &'a Plan,
}

impl Statement<'_> {
    fn sql(&self) -> &str {
        let list = match self.stage {
            Stage::Pre => &self.plan.pre_sql,
            Stage::Post => &self.plan.post_sql,
        };
        list.get(self.index as usize).map_or("", String::as_str)
    }

    fn name(&self) -> String {
        format!("{}[{}]", self.stage.parameter(), self.index)
    }

    fn failed(&self, cause: &str) -> Problem {
        let (code, hint) = match self.stage {
            Stage::Pre => (
                Code::PreSqlFailed,
                "nothing was loaded; mend the cause, then resume the job: it goes on with this statement",
            ),
            Stage::Post => (
                Code::PostSqlFailed,
                "all rows are loaded and committed; mend the cause, then resume the job: it goes on with this statement",
            ),
        };
        Problem::new(code, format!("{} failed: {cause}", self.name())).hint(hint)
    }
}

/// Runs one statement to its end, and says how it ended. `in_flight`: where it was sent before a restart. `stop` ends
/// it early.
pub(crate) async fn run(
    statement: &Statement<'_>,
    in_flight: Option<InFlight>,
    datasources: &Datasources,
    handle: &Handle,
    stop: &CancellationToken,
) -> Event {
    let job = statement.job;
    if let Some(in_flight) = in_flight {
        info!(
            statement = statement.name(),
            host = in_flight.host,
            "making sure that a statement runs no more"
        );
        let gone = make_sure_it_is_gone(statement.plan, &in_flight, datasources).await;
        if let Err(problem) = gone {
            return Event::StatementStuck { job, problem };
        }
    }
    Event::StatementDone { job, result: send(statement, datasources, handle, stop).await }
}

async fn send(
    statement: &Statement<'_>,
    datasources: &Datasources,
    handle: &Handle,
    stop: &CancellationToken,
) -> Result<(), Problem> {
    let load = &statement.plan.load;
    let datasource = datasources.find(&load.datasource, "")?;
    let (mut conn, at) =
        open(datasource, &load.database).await.map_err(|problem| statement.failed(&problem.to_string()))?;
    let saved =
        handle.ask(|ticket| Event::StatementReady { ticket, job: statement.job, at: at.clone() }).await;
    if !matches!(saved, Ok(Answer::SendStatement(true))) {
        return Err(statement.failed("the job was ended before it was sent"));
    }
    let result = tokio::select! {
        result = conn.query_drop(statement.sql()) => {
            result.map_err(|error| statement.failed(&explain(datasource, &at.host, &error).message))
        }
        () = stop.cancelled() => {
            if let Err(problem) = make_sure_it_is_gone(statement.plan, &at, datasources).await {
                warn!(error = %problem, "a statement of a cancelled job could not be stopped");
            }
            Err(statement.failed("the job was ended while it ran"))
        }
    };
    if result.is_ok() {
        info!(statement = statement.name(), "statement completed");
        // It is completed whatever becomes of the farewell.
        let _ = conn.disconnect().await;
    }
    result
}

/// Kills the connection and waits until its FE no longer lists it. An error means that it may still run.
pub(crate) async fn make_sure_it_is_gone(
    plan: &Plan,
    in_flight: &InFlight,
    datasources: &Datasources,
) -> Result<(), Problem> {
    let InFlight { host, connection_id } = in_flight;
    let datasource = datasources.find(&plan.load.datasource, "")?;
    let deadline = Instant::now() + KILL_PATIENCE;
    let mut conn = connect_within(datasource, host, deadline).await?;
    loop {
        let listed = process_list(&mut conn).await.map_err(|error| explain(datasource, host, &error))?;
        let ours = listed.iter().find(|process| process.id == *connection_id);
        if !ours.is_some_and(|process| may_be_ours(&process.text, plan)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let message = format!("connection {connection_id} on {host} still runs although it was killed");
            return Err(Problem::new(Code::InvalidSql, message).at(host.clone()).hint(format!(
                "look at SHOW PROCESSLIST on {host}; when the connection is gone, resume the job"
            )));
        }
        if let Err(error) = conn.query_drop(format!("KILL {connection_id}")).await {
            // It may have ended by itself in between; the list tells.
            warn!(connection_id, %error, "KILL was refused");
        }
        sleep(KILL_PAUSE).await;
    }
}

/// The FE may be on its way up again, as we are.
async fn connect_within(datasource: &Datasource, host: &str, deadline: Instant) -> Result<Conn, Problem> {
    loop {
        match connect_to(datasource, host, None, SessionSettings::default()).await {
            Err(problem) if problem.code == Code::ConnectFailed && Instant::now() < deadline => {
                warn!(error = %problem, "waiting for the server that may still run a statement");
                sleep(KILL_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// One line of the process list.
struct Process {
    id: u64,
    /// What it runs, maybe shortened; empty when it runs nothing.
    text: String,
}

async fn process_list(conn: &mut Conn) -> Result<Vec<Process>, mysql_async::Error> {
    let rows: Vec<mysql_async::Row> = conn.query("SHOW PROCESSLIST").await?;
    let cell = |row: &mysql_async::Row, name: &str| -> Option<mysql_async::Value> {
        let column =
            row.columns_ref().iter().position(|column| column.name_str().eq_ignore_ascii_case(name))?;
        row.get(column)
    };
    let process = |row: &mysql_async::Row| {
        let text = match cell(row, "Info") {
            Some(mysql_async::Value::Bytes(text)) => String::from_utf8_lossy(&text).into_owned(),
            _ => String::new(),
        };
        Some(Process { id: number(&cell(row, "Id")?)?, text })
    };
    Ok(rows.iter().filter_map(process).collect())
}

/// Whether a connection may be the one a statement of the plan was sent on. A restarted FE gives its numbers anew, so
/// that a stranger's connection can bear the number; one that runs something else is left alone. One that runs nothing
/// may be about to: it counts as ours.
fn may_be_ours(text: &str, plan: &Plan) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = plain(text);
    text.is_empty()
        || plan.pre_sql.iter().chain(&plan.post_sql).any(|statement| {
            let statement = plain(statement);
            statement.starts_with(&text) || text.starts_with(&statement)
        })
}

/// Connects to the first FE that answers, and learns what the connection is called there.
async fn open(datasource: &Datasource, database: &str) -> Result<(Conn, InFlight), Problem> {
    let mut last =
        Problem::new(Code::ConnectFailed, format!("data source {} names no host", datasource.name));
    for host in &datasource.hosts {
        match connect_to(datasource, host, Some(database), SessionSettings::default()).await {
            Ok(mut conn) => {
                let id: Option<mysql_async::Value> = conn
                    .query_first("SELECT CONNECTION_ID()")
                    .await
                    .map_err(|error| explain(datasource, host, &error))?;
                let connection_id = id.as_ref().and_then(number).unwrap_or_else(|| conn.id().into());
                return Ok((conn, InFlight { host: host.clone(), connection_id }));
            }
            Err(problem) if problem.code == Code::ConnectFailed => last = problem,
            Err(problem) => return Err(problem),
        }
    }
    Err(last)
}

fn number(value: &mysql_async::Value) -> Option<u64> {
    match value {
        mysql_async::Value::Bytes(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        mysql_async::Value::Int(number) => u64::try_from(*number).ok(),
        mysql_async::Value::UInt(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_runs_something_else_is_not_ours() {
        let plan = Plan {
            pre_sql: vec!["TRUNCATE TABLE\n  orders".into()],
            post_sql: vec!["ANALYZE TABLE orders".into()],
            ..crate::state::tests::plan(1, 0)
        };
        for ours in ["", "TRUNCATE TABLE orders", "TRUNCATE TAB", "ANALYZE  TABLE orders"] {
            assert!(may_be_ours(ours, &plan), "{ours:?}");
        }
        assert!(!may_be_ours("SELECT COUNT(*) FROM orders", &plan));
    }
}
