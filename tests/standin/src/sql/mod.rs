//! SQL of clients: text in, replies out, one statement after the other. SQLite is the engine; here statements are
//! taken apart, translated and dispatched. Blocking throughout, and unaware of the MySQL protocol: `mysql.rs` runs
//! this on a thread and sends what comes out.
//!
//! ```text
//! text -> words (tokens) -> SELECT, INSERT, DELETE, UPDATE -> translate -> SQLite
//!                        -> CREATE TABLE -> ddl -> store
//!                        -> SHOW, DESC, information_schema -> catalog
//!                        -> SET, USE, KILL -> session
//! ```

mod admin;
pub(crate) mod ddl;
mod dml;
mod error;
mod kinds;
mod query;
mod session;
mod translate;
mod words;

use std::sync::Arc;

use sqlparser::tokenizer::Token;

pub(crate) use error::SqlError;
pub(crate) use session::{Entry, Session, Sessions, is_information_schema};
pub(crate) use words::{TableName, Words};

use crate::accounts::Right;
use crate::catalog;
use crate::config::STARROCKS_VERSION;
use crate::store::Store;
use crate::types::ColumnType;
use crate::view::ClusterView;

/// What every session shares.
pub(crate) struct Server {
    pub(crate) store: Store,
    /// `None` while start-up SQL runs.
    pub(crate) cluster: Option<Arc<dyn ClusterView>>,
    pub(crate) sessions: Arc<Sessions>,
}

impl Server {
    /// Refuses what the session's account may not do; `table`: of a right on a table.
    pub(crate) fn demand(
        &self,
        session: &Session,
        right: Right,
        table: Option<&str>,
    ) -> Result<(), SqlError> {
        let user = session.entry().state().user;
        match &self.cluster {
            Some(cluster) if !cluster.may(&user, right) => Err(SqlError::denied(&right.denied(table))),
            _ => Ok(()),
        }
    }

    /// What `current_version()` says.
    pub(crate) fn version(&self) -> String {
        let cluster = self.cluster.as_ref();
        cluster.map_or_else(|| STARROCKS_VERSION.to_owned(), |cluster| cluster.version())
    }
}

/// One step of an answer. A statement gives `Done`, `Failed`, or `Columns`, any number of `Rows`, then `Finished`;
/// `Failed` may also cut rows short and is always the last.
pub(crate) enum Reply {
    Columns(Vec<ResultColumn>),
    Rows(Chunk),
    Finished,
    Done {
        affected: u64,
        /// Another statement of the same text follows.
        more: bool,
    },
    Failed(SqlError),
}

/// A column of a result.
#[derive(Debug, Clone)]
pub(crate) struct ResultColumn {
    pub(crate) name: String,
    pub(crate) kind: ColumnType,
}

/// Rows in the form of the text protocol, without packet headers.
#[derive(Default)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    pub(crate) ends: Vec<usize>,
}

/// Rows worth sending on.
const CHUNK_BYTES: usize = 128 << 10;

/// A result held in memory: what SHOW and DESC answer. All columns are text.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

/// Takes replies as they are made; an error means nobody listens any more.
pub(crate) trait Sink {
    /// Waits until there is room.
    fn send(&mut self, reply: Reply) -> Result<(), Gone>;

    /// Gives the reply back when there is no room now.
    fn offer(&mut self, reply: Reply) -> Result<Option<Reply>, Gone>;
}

/// The client went away.
#[derive(Debug)]
pub(crate) struct Gone;

/// How a statement ended, before it is told to the client.
pub(crate) enum Outcome {
    /// Rows changed.
    Changed(u64),
    Listing(Listing),
    /// The rows have been sent already.
    Streamed,
}

/// Runs every statement of `text` for `session`, stopping at the first that fails.
pub(crate) fn run(
    server: &Server,
    session: &mut Session,
    text: &str,
    sink: &mut dyn Sink,
) -> Result<(), Gone> {
    let statements = match words::split(text) {
        Ok(statements) => statements,
        Err(error) => return sink.send(Reply::Failed(error)),
    };
    if statements.is_empty() {
        return sink.send(Reply::Failed(SqlError::empty()));
    }
    let last = statements.len() - 1;
    for (at, statement) in statements.into_iter().enumerate() {
        let more = at < last;
        match run_one(server, session, statement, sink) {
            Ok(Outcome::Changed(affected)) => sink.send(Reply::Done { affected, more })?,
            Ok(Outcome::Listing(listing)) => {
                send_listing(listing, sink)?;
                sink.send(Reply::Finished)?;
            }
            Ok(Outcome::Streamed) => sink.send(Reply::Finished)?,
            Err(error) => return sink.send(Reply::Failed(error)),
        }
    }
    Ok(())
}

/// Runs a script and drops its rows; the first failing statement ends it.
pub(crate) fn run_script(store: &Store, text: &str) -> Result<(), SqlError> {
    struct Last(Option<SqlError>);
    impl Sink for Last {
        fn send(&mut self, reply: Reply) -> Result<(), Gone> {
            if let Reply::Failed(error) = reply {
                self.0 = Some(error);
            }
            Ok(())
        }

        fn offer(&mut self, reply: Reply) -> Result<Option<Reply>, Gone> {
            self.send(reply).map(|()| None)
        }
    }
    if words::split(text)?.is_empty() {
        return Ok(());
    }
    let server = Server { store: store.clone(), cluster: None, sessions: Arc::default() };
    let mut session = Session::new(server.sessions.register("root".to_owned(), "localhost".to_owned()));
    let mut last = Last(None);
    let _ = run(&server, &mut session, text, &mut last);
    last.0.map_or(Ok(()), Err)
}

fn run_one(
    server: &Server,
    session: &mut Session,
    statement: Vec<Token>,
    sink: &mut dyn Sink,
) -> Result<Outcome, SqlError> {
    let mut words = Words::new(statement);
    let first = words.peek_word().unwrap_or_default().to_ascii_uppercase();
    match first.as_str() {
        "SELECT" | "WITH" | "VALUES" | "" => query::select(server, session, words, sink),
        "INSERT" => dml::insert(server, session, words),
        "DELETE" => dml::delete(server, session, words),
        "UPDATE" => dml::update(server, session, words),
        "SHOW" => catalog::show(server, session, &mut words).map(Outcome::Listing),
        "DESC" | "DESCRIBE" if words.is_at(1, "(") => query::explain(server, session, words),
        "DESC" | "DESCRIBE" => catalog::describe(server, session, &mut words).map(Outcome::Listing),
        "EXPLAIN" => query::explain(server, session, words),
        "ADMIN" => admin::admin(server, session, &mut words),
        "CREATE" => ddl::create(server, session, words),
        "DROP" => ddl::drop(server, session, &mut words),
        "TRUNCATE" => ddl::truncate(server, session, &mut words),
        "ALTER" => ddl::alter(server, session, &mut words),
        "USE" => session.use_database(server, &mut words),
        "SET" => session.set(&mut words),
        "KILL" => admin::kill(server, &mut words),
        // Statements without effect here: transactions of SQL, statistics, rights.
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "ANALYZE" | "UNSET" | "GRANT" | "REVOKE" | "REFRESH" => {
            Ok(Outcome::Changed(0))
        }
        _ => Err(words.unexpected()),
    }
}

fn send_listing(listing: Listing, sink: &mut dyn Sink) -> Result<(), Gone> {
    let columns = listing
        .columns
        .iter()
        .map(|name| ResultColumn { name: (*name).to_owned(), kind: ColumnType::Varchar(65_533) })
        .collect();
    sink.send(Reply::Columns(columns))?;
    let mut chunk = Chunk::default();
    for row in listing.rows {
        for cell in row {
            match cell {
                Some(text) => crate::render::write_bytes(&mut chunk.bytes, text.as_bytes()),
                None => chunk.bytes.push(0xfb),
            }
        }
        chunk.ends.push(chunk.bytes.len());
    }
    sink.send(Reply::Rows(chunk))
}
