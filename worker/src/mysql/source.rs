//! Streams the rows of one task over the text protocol, so that every value stays the server's own bytes.
//! Never draws conclusions from values. Given up early, it has the server kill the statement: otherwise the driver would
//! read a huge rest to its end.

use std::time::Duration;

use mysql_async::prelude::{Query, Queryable};
use mysql_async::{Conn, QueryResult, TextProtocol, Value};
use starlift_common::datasource::{Datasource, DatasourceKind};
use starlift_common::job::ReadSpec;
use starlift_common::problem::{Code, Problem};
use starlift_common::query;
use starlift_common::retry::FailureClass;
use starlift_common::row::{Row, RowBuffer};
use starlift_common::task::TaskRange;
use starlift_remote::mysql::{self, SessionSettings};
use tracing::{Instrument, debug};

use crate::source::{ReadError, RowSource};

/// How long the killing of an abandoned statement may take.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// MySQL errors after which the same statement may well succeed: lock waits, deadlock, shutdown, a killed or timed out
/// statement, broken connections.
const TRANSIENT_CODES: &[u16] = &[
    1028, 1037, 1038, 1041, 1053, 1077, 1079, 1080, 1105, 1152, 1158, 1159, 1160, 1161, 1184, 1205, 1213,
    1317, 1412, 1614, 1615, 1836, 1927, 1969, 2006, 2013, 3024, 3032, 3169,
];

/// Words with which StarRocks, whose errors nearly all have one number, says that a statement is wrong.
const STATEMENT_IS_WRONG: &[&str] =
    &["syntax error", "analyzing error", "analyze error", "cannot be resolved"];

/// One statement's result, row by row.
pub(crate) struct MysqlSource {
    rows: QueryResult<'static, 'static, TextProtocol>,
    row: RowBuffer,
    is_filled: bool,
    width: usize,
    statement: Statement,
    /// Nothing more comes: the server has sent its last row or an error.
    is_over: bool,
}

/// What it takes to explain and to kill a running statement.
struct Statement {
    datasource: Datasource,
    host: String,
    connection: u32,
}

impl MysqlSource {
    /// Connects, prepares the session and starts the statement of `range`.
    pub(crate) async fn open(
        datasource: &Datasource,
        read: &ReadSpec,
        range: &TaskRange,
    ) -> Result<Self, ReadError> {
        let settings = SessionSettings { time_zone: read.time_zone.as_deref(), long_read: true };
        let conn =
            mysql::connect(datasource, Some(&read.database), settings).await.map_err(cannot_connect)?;
        let statement = Statement::of(datasource, &conn);
        let sql = query::select(read, range);
        match sql.run(conn).await {
            Ok(rows) => {
                let width = read.select.len();
                Ok(Self {
                    rows,
                    row: RowBuffer::default(),
                    is_filled: false,
                    width,
                    statement,
                    is_over: false,
                })
            }
            Err(error) => Err(statement.explain(&error)),
        }
    }
}

impl RowSource for MysqlSource {
    fn row(&mut self) -> Result<Option<Row<'_>>, ReadError> {
        Ok(std::mem::take(&mut self.is_filled).then(|| self.row.row()))
    }

    async fn fill(&mut self) -> Result<bool, ReadError> {
        let row = match self.rows.next().await {
            Ok(Some(row)) => row,
            Ok(None) => {
                self.is_over = true;
                return Ok(false);
            }
            Err(error) => {
                self.is_over = true;
                let mut error = self.statement.explain(&error);
                if error.problem.code == Code::ConnectFailed {
                    error.problem.code = Code::ReadFailed;
                }
                return Err(error);
            }
        };
        if row.len() != self.width {
            let message = format!("{} columns came back where {} were selected", row.len(), self.width);
            return Err(self.statement.unreadable(message));
        }
        self.row.clear();
        for index in 0..row.len() {
            let cell = match row.as_ref(index) {
                Some(Value::Bytes(bytes)) => Some(bytes.as_slice()),
                Some(Value::NULL) => None,
                _ => return Err(self.statement.unreadable("a cell came back in binary form".into())),
            };
            if !self.row.push(cell) {
                return Err(self.statement.unreadable("a row is longer than 4 GiB".into()));
            }
        }
        self.is_filled = true;
        Ok(true)
    }

    fn is_utf8(&self) -> bool {
        false
    }
}

impl Drop for MysqlSource {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_over {
            let Statement { datasource, host, connection } = &self.statement;
            runtime.spawn(kill(datasource.clone(), host.clone(), *connection).in_current_span());
        }
    }
}

/// Best effort: if it fails, the connection ends when the driver has read the rest or the server gives up.
async fn kill(datasource: Datasource, host: String, connection: u32) {
    let killing = async {
        let mut conn = mysql::connect_to(&datasource, &host, None, SessionSettings::default()).await?;
        let sql = format!("KILL QUERY {connection}");
        conn.query_drop(sql).await.map_err(|error| mysql::explain(&datasource, &host, &error))
    };
    match tokio::time::timeout(KILL_TIMEOUT, killing).await {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => debug!(%problem, "an abandoned statement could not be killed"),
        Err(_) => debug!("killing an abandoned statement took too long"),
    }
}

impl Statement {
    fn of(datasource: &Datasource, conn: &Conn) -> Self {
        let host = conn.opts().ip_or_hostname().to_owned();
        Self { datasource: datasource.clone(), host, connection: conn.id() }
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host, self.datasource.port)
    }

    fn explain(&self, error: &mysql_async::Error) -> ReadError {
        let mut problem = mysql::explain(&self.datasource, &self.place(), error);
        let class = match (error, problem.code) {
            (_, Code::ConnectFailed) => FailureClass::Transient,
            (mysql_async::Error::Server(server), Code::InvalidSql) => {
                class_of(self.datasource.kind, server.code, &server.message)
            }
            _ => FailureClass::Permanent,
        };
        if class == FailureClass::Transient && problem.code == Code::InvalidSql {
            problem.code = Code::ReadFailed;
        }
        ReadError { problem, class }
    }

    fn unreadable(&self, message: String) -> ReadError {
        let problem = Problem::new(Code::ReadFailed, message).at(self.place());
        ReadError { problem, class: FailureClass::Permanent }
    }
}

fn cannot_connect(problem: Problem) -> ReadError {
    let class = match problem.code {
        Code::ConnectFailed => FailureClass::Transient,
        _ => FailureClass::Permanent,
    };
    ReadError { problem, class }
}

/// Classes a server error that is about the running of the statement. What is not known of StarRocks is transient: a
/// retry is bounded and reads the same rows.
fn class_of(kind: DatasourceKind, code: u16, message: &str) -> FailureClass {
    let is_transient = match kind {
        DatasourceKind::Mysql => TRANSIENT_CODES.contains(&code),
        DatasourceKind::Starrocks => {
            let message = message.to_ascii_lowercase();
            !STATEMENT_IS_WRONG.iter().any(|words| message.contains(words))
        }
    };
    if is_transient { FailureClass::Transient } else { FailureClass::Permanent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_statement_is_worth_another_try_and_a_wrong_one_is_not() {
        let mysql = |code| class_of(DatasourceKind::Mysql, code, "");
        assert_eq!((mysql(1317), mysql(1064)), (FailureClass::Transient, FailureClass::Permanent));
        let starrocks = |message| class_of(DatasourceKind::Starrocks, 1064, message);
        assert_eq!(starrocks("Getting syntax error at line 1"), FailureClass::Permanent);
        assert_eq!(starrocks("Backend node not found"), FailureClass::Transient);
    }
}
