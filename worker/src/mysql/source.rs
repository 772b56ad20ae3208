//! Streams the rows of one task over the text protocol, so that every value stays the server's own bytes, in a receive
//! buffer that is used again and again: a row costs no allocation and no copy.
//! Never draws conclusions from values. Given up early, it closes the connection and has the server kill the statement.

use std::time::Duration;

use mysql_async::Error;
use mysql_async::prelude::Queryable;
use mysql_common::constants::ColumnType;
use mysql_common::packets::Column;
use starlift_common::datasource::{Datasource, DatasourceKind};
use starlift_common::job::ReadSpec;
use starlift_common::problem::{Code, Problem};
use starlift_common::query;
use starlift_common::retry::FailureClass;
use starlift_common::row::{CellSpan, Row};
use starlift_common::task::TaskRange;
use starlift_remote::mysql::{self, SessionSettings};
use tracing::{Instrument, debug};

use super::connection::{self, Connection};
use super::login::{Account, LoginError};
use super::packets::{Malformed, cut_row};
use crate::source::{Mark, ReadError, RowSource};

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

/// Character sets, by their usual collations, that text arrives in when the server converts it to UTF-8 as the session
/// asks: utf8mb3, utf8mb4, and the latter as MySQL 8 names it. MariaDB stores halves of surrogate pairs as well; a row with
/// one is refused by StarRocks itself.
const UTF8: [u16; 3] = [33, 45, 255];

/// One statement's result, row by row.
pub(crate) struct MysqlSource {
    connection: Connection,
    /// Of the present row.
    cells: Vec<CellSpan>,
    is_utf8: bool,
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
        let (connection, host) = connect(datasource, read).await.map_err(cannot_connect)?;
        let statement = Statement { datasource: datasource.clone(), host, connection: connection.id };
        let width = read.select.len();
        // From here on the statement is killed unless it ends.
        let cells = vec![CellSpan::NULL; width];
        let mut source = Self { connection, cells, is_utf8: false, statement, is_over: false };
        let columns = match source.connection.select(&query::select(read, range)).await {
            Ok(columns) => columns,
            Err(error) => {
                source.is_over = true;
                return Err(source.statement.explain(&error));
            }
        };
        if columns.len() != width {
            let message = format!("{} columns came back where {width} were selected", columns.len());
            return Err(source.statement.unreadable(message, FailureClass::Permanent));
        }
        source.connection.hold_splits();
        source.is_utf8 = datasource.kind == DatasourceKind::Mysql && columns.iter().all(is_utf8);
        Ok(source)
    }
}

impl RowSource for MysqlSource {
    #[inline]
    fn row(&mut self) -> Result<Option<Row<'_>>, ReadError> {
        let packet = match self.connection.next_packet() {
            Ok(Some(range)) => self.connection.packet(range),
            Ok(None) => return Ok(None),
            Err(malformed) => return Err(self.statement.broken(malformed)),
        };
        if connection::is_end(packet) {
            self.is_over = true;
            return Ok(None);
        }
        if packet.first() == Some(&connection::ERROR) {
            self.is_over = true;
            return Err(self.statement.interrupted(&connection::error_of(packet)));
        }
        match cut_row(packet, &mut self.cells) {
            Ok(()) => Ok(Some(Row::new(packet, &self.cells))),
            Err(malformed) => Err(self.statement.broken(malformed)),
        }
    }

    #[inline]
    fn mark(&self) -> Mark {
        self.connection.mark()
    }

    fn rewind(&mut self, mark: Mark) {
        self.connection.rewind(mark);
        // The end, where it was met, is met again.
        self.is_over = false;
    }

    async fn fill(&mut self) -> Result<bool, ReadError> {
        if self.is_over {
            self.connection.quit().await;
            return Ok(false);
        }
        match self.connection.receive().await {
            Ok(()) => Ok(true),
            Err(error) => {
                self.is_over = true;
                Err(self.statement.interrupted(&error))
            }
        }
    }

    fn is_utf8(&self) -> bool {
        self.is_utf8
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

/// A session on the first host that answers, and that host; as [`mysql::connect`] finds it.
async fn connect(datasource: &Datasource, read: &ReadSpec) -> Result<(Connection, String), Problem> {
    let mut last = mysql::names_no_host(datasource);
    for host in &datasource.hosts {
        let address = format!("{host}:{}", datasource.port);
        let attempt = connect_to(datasource, host, &address, read);
        match mysql::in_time(datasource, &address, attempt).await {
            Ok(connection) => return Ok((connection, host.clone())),
            Err(problem) if problem.code == Code::ConnectFailed => last = problem,
            Err(problem) => return Err(problem),
        }
    }
    Err(last)
}

async fn connect_to(
    datasource: &Datasource,
    host: &str,
    address: &str,
    read: &ReadSpec,
) -> Result<Connection, Problem> {
    let explain = |error: &Error| mysql::explain(datasource, address, error);
    let password = datasource.password.reveal()?;
    let account =
        Account { username: &datasource.username, password: password.expose(), database: &read.database };
    let mut opened = Connection::open(datasource, host, &account).await;
    if matches!(opened, Err(LoginError::PasswordAsked)) {
        // The control connections' driver can send it under the server's public key; from then on the server knows it.
        let driver = mysql::connect_to(datasource, host, Some(&read.database), SessionSettings::default());
        drop(Box::pin(driver).await?);
        opened = Connection::open(datasource, host, &account).await;
    }
    let mut connection = opened.map_err(|error| match error {
        LoginError::Failed(error) => explain(&error),
        LoginError::PasswordAsked => Problem::new(Code::LoginFailed, error.to_string())
            .at(address)
            .hint(format!("set ssl = \"prefer\" for data source {}", datasource.name)),
    })?;
    let settings = SessionSettings { time_zone: read.time_zone.as_deref(), long_read: true };
    for statement in mysql::session_statements(datasource.kind, settings) {
        connection.execute(&statement).await.map_err(|error| explain(&error))?;
    }
    Ok(connection)
}

/// Best effort: if it fails, the statement ends when the server finds the connection closed.
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
    fn place(&self) -> String {
        format!("{}:{}", self.host, self.datasource.port)
    }

    fn explain(&self, error: &Error) -> ReadError {
        let mut problem = mysql::explain(&self.datasource, &self.place(), error);
        let class = match (error, problem.code) {
            (_, Code::ConnectFailed) => FailureClass::Transient,
            (Error::Server(server), Code::InvalidSql) => {
                class_of(self.datasource.kind, server.code, &server.message)
            }
            _ => FailureClass::Permanent,
        };
        if class == FailureClass::Transient && problem.code == Code::InvalidSql {
            problem.code = Code::ReadFailed;
        }
        ReadError { problem, class }
    }

    /// [`Self::explain`] for what happens between rows.
    #[cold]
    fn interrupted(&self, error: &Error) -> ReadError {
        let mut error = self.explain(error);
        if error.problem.code == Code::ConnectFailed {
            error.problem.code = Code::ReadFailed;
        }
        error
    }

    /// Bytes that are no rows. A packet out of order may be the fault of the way, anything else is the server's own.
    #[cold]
    fn broken(&self, malformed: Malformed) -> ReadError {
        let class = match malformed {
            Malformed::Sequence { .. } => FailureClass::Transient,
            Malformed::TooLong | Malformed::Row => FailureClass::Permanent,
        };
        self.unreadable(malformed.to_string(), class)
    }

    fn unreadable(&self, message: String, class: FailureClass) -> ReadError {
        ReadError { problem: Problem::new(Code::ReadFailed, message).at(self.place()), class }
    }
}

fn cannot_connect(problem: Problem) -> ReadError {
    let class = match problem.code {
        Code::ConnectFailed => FailureClass::Transient,
        _ => FailureClass::Permanent,
    };
    ReadError { problem, class }
}

/// Whether all cells of the column are UTF-8: numbers and times are ASCII, text is if the server says so.
fn is_utf8(column: &Column) -> bool {
    use ColumnType as T;
    let is_ascii = matches!(
        column.column_type(),
        T::MYSQL_TYPE_TINY
            | T::MYSQL_TYPE_SHORT
            | T::MYSQL_TYPE_INT24
            | T::MYSQL_TYPE_LONG
            | T::MYSQL_TYPE_LONGLONG
            | T::MYSQL_TYPE_FLOAT
            | T::MYSQL_TYPE_DOUBLE
            | T::MYSQL_TYPE_DECIMAL
            | T::MYSQL_TYPE_NEWDECIMAL
            | T::MYSQL_TYPE_YEAR
            | T::MYSQL_TYPE_DATE
            | T::MYSQL_TYPE_NEWDATE
            | T::MYSQL_TYPE_TIME
            | T::MYSQL_TYPE_TIME2
            | T::MYSQL_TYPE_DATETIME
            | T::MYSQL_TYPE_DATETIME2
            | T::MYSQL_TYPE_TIMESTAMP
            | T::MYSQL_TYPE_TIMESTAMP2
            | T::MYSQL_TYPE_NULL
    );
    is_ascii || UTF8.contains(&column.character_set())
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
    use mysql_common::constants::StatusFlags;
    use mysql_common::packets::HandshakePacket;
    use mysql_common::proto::MySerialize;
    use starlift_common::datasource::Datasources;
    use starlift_common::job::SourceKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::mysql::connection::CAPABILITIES;

    const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
    const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
    const KILLED: &[u8] = b"\xff\x25\x05#70100Query execution was interrupted";

    /// How a server that knows no SQL meets its first client.
    struct Script {
        greeting: Vec<u8>,
        login: Vec<u8>,
        /// Packets in answer to the SELECT; then the connection is closed.
        answer: Vec<Vec<u8>>,
    }

    impl Script {
        fn new(answer: Vec<Vec<u8>>) -> Self {
            let mut greeting = Vec::new();
            HandshakePacket::new(
                10,
                &b"8.0.36"[..],
                7,
                *b"12345678",
                Some(&b"901234567890\0"[..]),
                CAPABILITIES,
                45,
                StatusFlags::empty(),
                Some(&b"mysql_native_password"[..]),
            )
            .serialize(&mut greeting);
            Self { greeting, login: OK.to_vec(), answer }
        }

        /// What the source says to it: the rows' cells, or why there are none.
        async fn read(self) -> Result<Vec<Vec<Option<Vec<u8>>>>, ReadError> {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.expect("the source connects");
                self.play(stream).await;
            });
            let entry = format!(
                "[shop]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = {port}\nusername = \"loader\"\n\
                 password = \"l0ad-me\""
            );
            let datasources = Datasources::parse(&entry, &|_| None).expect("a good entry");
            let read = ReadSpec {
                datasource: "shop".into(),
                kind: SourceKind::Mysql,
                database: "shop".into(),
                table: "goods".into(),
                hint: None,
                select: vec!["a".into(), "b".into()],
                names: vec!["a".into(), "b".into()],
                filter: None,
                key: None,
                time_zone: None,
                query: None,
            };
            let datasource = datasources.get("shop").expect("it is there");
            let result = all_rows(datasource, &read).await;
            server.abort();
            result
        }

        async fn play(self, mut stream: TcpStream) {
            send(&mut stream, 0, &self.greeting).await;
            let _response = receive(&mut stream).await;
            send(&mut stream, 2, &self.login).await;
            while let Some(packet) = receive(&mut stream).await {
                if !packet.starts_with(b"\x03SELECT") {
                    send(&mut stream, 1, OK).await;
                    continue;
                }
                for (sequence, packet) in (1..).zip(&self.answer) {
                    send(&mut stream, sequence, packet).await;
                }
                return;
            }
        }
    }

    async fn all_rows(
        datasource: &Datasource,
        read: &ReadSpec,
    ) -> Result<Vec<Vec<Option<Vec<u8>>>>, ReadError> {
        let mut source = MysqlSource::open(datasource, read, &TaskRange::Whole).await?;
        let mut rows = Vec::new();
        while source.fill().await? {
            while let Some(row) = source.row()? {
                rows.push(row.cells().map(|cell| cell.map(<[u8]>::to_vec)).collect());
            }
        }
        Ok(rows)
    }

    async fn send(stream: &mut TcpStream, sequence: u8, payload: &[u8]) {
        let head = u32::try_from(payload.len()).expect("short").to_le_bytes();
        let packet = [&[head[0], head[1], head[2], sequence], payload].concat();
        stream.write_all(&packet).await.expect("the source listens");
    }

    async fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.ok()?;
        let mut packet = vec![0; usize::from(head[0]) + usize::from(head[1]) * 256];
        stream.read_exact(&mut packet).await.ok()?;
        Some(packet)
    }

    fn column(kind: ColumnType, character_set: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        Column::new(kind).with_character_set(character_set).serialize(&mut packet);
        packet
    }

    /// Two columns, and what follows them.
    fn result_set(rest: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut packets = vec![vec![2], column(ColumnType::MYSQL_TYPE_LONG, 63)];
        packets.extend([column(ColumnType::MYSQL_TYPE_VAR_STRING, 45), EOF.to_vec()]);
        packets.extend(rest.iter().map(|packet| packet.to_vec()));
        packets
    }

    async fn failed(answer: Vec<Vec<u8>>) -> (Code, FailureClass, String) {
        let error = Script::new(answer).read().await.expect_err("no full answer");
        (error.problem.code, error.class, error.problem.message)
    }

    #[tokio::test]
    async fn rows_come_as_the_server_sent_them() {
        let rows = Script::new(result_set(&[b"\x011\x02ab", b"\xfb\x00", EOF])).read().await;
        let cell = |bytes: &[u8]| Some(bytes.to_vec());
        assert_eq!(rows.expect("all rows"), [[cell(b"1"), cell(b"ab")], [None, cell(b"")]]);
    }

    #[tokio::test]
    async fn an_error_between_rows_keeps_the_servers_words() {
        let (code, class, message) = failed(result_set(&[b"\x011\x01a", KILLED])).await;
        assert_eq!((code, class), (Code::ReadFailed, FailureClass::Transient));
        assert!(message.contains("Query execution was interrupted (server error 1317)"), "{message}");
    }

    #[tokio::test]
    async fn a_server_that_leaves_before_the_end_has_not_ended() {
        let (code, class, _) = failed(result_set(&[b"\x011\x01a"])).await;
        assert_eq!((code, class), (Code::ReadFailed, FailureClass::Transient));
        let (code, class, _) = failed(vec![vec![2]]).await;
        assert_eq!((code, class), (Code::ConnectFailed, FailureClass::Transient));
    }

    #[tokio::test]
    async fn rows_of_another_width_are_refused() {
        for row in [&b"\x011"[..], b"\x011\x01a\x01b", b"\x011\x09a", b"\x011\xff", b""] {
            let (code, class, _) = failed(result_set(&[row, EOF])).await;
            assert_eq!((code, class), (Code::ReadFailed, FailureClass::Permanent), "{row:?}");
        }
        let one = vec![vec![1], column(ColumnType::MYSQL_TYPE_LONG, 63), EOF.to_vec(), EOF.to_vec()];
        let (code, class, message) = failed(one).await;
        assert_eq!((code, class), (Code::ReadFailed, FailureClass::Permanent));
        assert_eq!(message, "1 columns came back where 2 were selected");
    }

    #[tokio::test]
    async fn a_refused_statement_is_the_jobs_fault() {
        let (code, class, message) = failed(vec![b"\xff\x28\x04#42000You have an error".to_vec()]).await;
        assert_eq!((code, class), (Code::InvalidSql, FailureClass::Permanent));
        assert_eq!(message, "data source shop: You have an error (server error 1064)");
    }

    #[tokio::test]
    async fn a_refused_login_is_told_in_the_servers_words() {
        let mut script = Script::new(Vec::new());
        script.login = b"\xff\x15\x04#28000Access denied for user 'loader'".to_vec();
        let error = script.read().await.expect_err("no login");
        assert_eq!((error.problem.code, error.class), (Code::LoginFailed, FailureClass::Permanent));
        let message = "data source shop: Access denied for user 'loader' (server error 1045)";
        assert_eq!(error.problem.message, message);
        assert_eq!(error.problem.hint, "check username and password of data source shop");

        let mut script = Script::new(Vec::new());
        script.greeting = b"\xff\x10\x04Too many connections".to_vec();
        let error = script.read().await.expect_err("no room");
        assert_eq!((error.problem.code, error.class), (Code::ConnectFailed, FailureClass::Transient));
        assert!(error.problem.message.contains("Too many connections"), "{}", error.problem.message);
    }

    #[test]
    fn only_text_that_the_server_converts_and_numbers_are_surely_utf_8() {
        use ColumnType as T;
        let is_utf8 = |kind, character_set| is_utf8(&Column::new(kind).with_character_set(character_set));
        assert!(is_utf8(T::MYSQL_TYPE_VAR_STRING, 45) && is_utf8(T::MYSQL_TYPE_BLOB, 255));
        assert!(is_utf8(T::MYSQL_TYPE_NEWDECIMAL, 63) && is_utf8(T::MYSQL_TYPE_DATETIME, 63));
        assert!(!is_utf8(T::MYSQL_TYPE_BLOB, 63) && !is_utf8(T::MYSQL_TYPE_STRING, 63));
        assert!(!is_utf8(T::MYSQL_TYPE_BIT, 63) && !is_utf8(T::MYSQL_TYPE_GEOMETRY, 63));
        assert!(!is_utf8(T::MYSQL_TYPE_VAR_STRING, 8), "latin1, if someone changed the session");
    }

    #[test]
    fn a_killed_statement_is_worth_another_try_and_a_wrong_one_is_not() {
        let mysql = |code| class_of(DatasourceKind::Mysql, code, "");
        assert_eq!((mysql(1317), mysql(1064)), (FailureClass::Transient, FailureClass::Permanent));
        let starrocks = |message| class_of(DatasourceKind::Starrocks, 1064, message);
        assert_eq!(starrocks("Getting syntax error at line 1"), FailureClass::Permanent);
        assert_eq!(starrocks("Backend node not found"), FailureClass::Transient);
    }
}
