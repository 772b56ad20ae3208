//! Query connections: to MySQL sources and to StarRocks' query port. One connection per call, no pool: control
//! statements are few, and a statement that must be killable needs a connection of its own.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, OptsBuilder, SslOpts};
use starlift_common::datasource::{Datasource, DatasourceKind, SslMode};
use starlift_common::problem::{Code, Problem};
use starlift_common::query::text_literal;
use tokio::time::timeout;

/// How long one host may take to accept a connection and a login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After so long a silence the other side is asked whether it is still there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Longest statement either server is asked to allow, in seconds: StarRocks' own upper bound of `query_timeout`.
const LONGEST_QUERY_S: u32 = 259_200;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionSettings<'a> {
    /// Session `time_zone`; `None`: the server's default.
    pub time_zone: Option<&'a str>,
    /// A long streaming read, whose reader may stop for minutes while loads catch up.
    pub long_read: bool,
}

/// Connects to the first host of the data source that answers and prepares the session. `database` overrides the data
/// source's own. A host that refuses the login ends the search: the next one has the same users.
pub async fn connect(
    datasource: &Datasource,
    database: Option<&str>,
    settings: SessionSettings<'_>,
) -> Result<Conn, Problem> {
    let mut last = names_no_host(datasource);
    for host in &datasource.hosts {
        match connect_to(datasource, host, database, settings).await {
            Ok(conn) => return Ok(conn),
            Err(problem) if problem.code == Code::ConnectFailed => last = problem,
            Err(problem) => return Err(problem),
        }
    }
    Err(last)
}

/// What stands for the last host's problem when there is no host.
pub fn names_no_host(datasource: &Datasource) -> Problem {
    Problem::new(Code::ConnectFailed, format!("data source {} names no host", datasource.name))
}

/// As [`connect`], to one named host: whoever must kill a statement has to reach the very server that runs it.
pub async fn connect_to(
    datasource: &Datasource,
    host: &str,
    database: Option<&str>,
    settings: SessionSettings<'_>,
) -> Result<Conn, Problem> {
    let address = format!("{host}:{}", datasource.port);
    let attempt = async {
        let mut conn = open(datasource, host, database.or(datasource.database.as_deref())).await?;
        for statement in session_statements(datasource.kind, settings) {
            conn.query_drop(statement).await.map_err(|error| explain(datasource, &address, &error))?;
        }
        Ok(conn)
    };
    in_time(datasource, &address, attempt).await
}

/// Gives up an attempt to connect to `address` that takes longer than 10 s ([`Code::ConnectFailed`]).
pub async fn in_time<T>(
    datasource: &Datasource,
    address: &str,
    attempt: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or_else(|_| {
        Err(unreachable(datasource, address, &format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
    })
}

async fn open(datasource: &Datasource, host: &str, database: Option<&str>) -> Result<Conn, Problem> {
    let address = format!("{host}:{}", datasource.port);
    let password = datasource.password.reveal()?;
    let options = OptsBuilder::default()
        .ip_or_hostname(host)
        .tcp_port(datasource.port)
        .user(Some(&datasource.username))
        .pass(Some(password.expose()))
        .db_name(database)
        .prefer_socket(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEP_ALIVE))
        .stmt_cache_size(0);
    let result = match &datasource.ssl {
        SslMode::Disable => Conn::new(options).await,
        SslMode::Prefer => {
            let encrypted =
                options.clone().ssl_opts(SslOpts::default().with_danger_accept_invalid_certs(true));
            match Conn::new(encrypted).await {
                Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer)) => {
                    Conn::new(options).await
                }
                other => other,
            }
        }
        SslMode::VerifyCa { ca } => {
            let verified = SslOpts::default()
                .with_root_certs(vec![ca.clone().into()])
                .with_disable_built_in_roots(true)
                .with_danger_skip_domain_validation(true);
            Conn::new(options.ssl_opts(verified)).await
        }
    };
    result.map_err(|error| explain(datasource, &address, &error))
}

/// What prepares a session, in order; none of them answers with rows.
pub fn session_statements(kind: DatasourceKind, settings: SessionSettings<'_>) -> Vec<String> {
    let mut statements = Vec::new();
    if let Some(zone) = settings.time_zone {
        statements.push(format!("SET time_zone = {}", text_literal(zone)));
    }
    match kind {
        DatasourceKind::Mysql if settings.long_read => {
            statements.push("SET SESSION net_write_timeout = 86400, net_read_timeout = 86400".into());
        }
        DatasourceKind::Starrocks => statements.push(format!("SET query_timeout = {LONGEST_QUERY_S}")),
        DatasourceKind::Mysql => {}
    }
    statements
}

/// What a driver error means to the reader. Also for statements: the server's own words are kept.
pub fn explain(datasource: &Datasource, place: &str, error: &mysql_async::Error) -> Problem {
    let name = &datasource.name;
    match error {
        mysql_async::Error::Server(server) => {
            let code = match server.code {
                1045 | 1698 => Code::LoginFailed,
                1044 | 1142 | 1143 | 1227 | 5203 => Code::NoPrivilege,
                1049 | 1146 | 5501 | 5502 => Code::UnknownTable,
                1054 => Code::UnknownColumn,
                1040 | 1203 => Code::ConnectFailed,
                _ => Code::InvalidSql,
            };
            let hint = match code {
                Code::LoginFailed => format!("check username and password of data source {name}"),
                Code::NoPrivilege => format!("grant user {} the missing right", datasource.username),
                _ => String::new(),
            };
            let message =
                format!("data source {name}: {} (server error {})", server.message.trim(), server.code);
            Problem::new(code, message).at(place).hint(hint)
        }
        other => unreachable(datasource, place, &other.to_string()),
    }
}

fn unreachable(datasource: &Datasource, place: &str, reason: &str) -> Problem {
    Problem::new(Code::ConnectFailed, format!("cannot reach data source {}: {reason}", datasource.name))
        .at(place)
        .hint("check host, port, firewall, and that the server is up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_is_set_as_a_literal() {
        let settings = SessionSettings { time_zone: Some("it's"), long_read: true };
        let statements = session_statements(DatasourceKind::Mysql, settings);
        assert_eq!(statements[0], "SET time_zone = 'it''s'");
        assert!(statements[1].contains("net_write_timeout"));
    }

    #[test]
    fn starrocks_lets_a_slow_reader_read_on() {
        assert_eq!(
            session_statements(DatasourceKind::Starrocks, SessionSettings::default()),
            ["SET query_timeout = 259200"]
        );
    }
}
