//! SELECT: translated, prepared, and its rows encoded and sent while SQLite steps.

use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Row, Statement};
use sqlparser::tokenizer::{Token, Word};

use super::translate::{self, Translated};
use super::{
    CHUNK_BYTES, Chunk, Gone, Listing, Outcome, Reply, ResultColumn, Server, Session, Sink, SqlError,
    TableName, Words,
};
use crate::catalog;
use crate::store::{Reader, Stopped};
use crate::types::{Column, ColumnType, STRING_BYTES_MAX};

/// How `TABLET(id)` passes through the parser: as a partition of this name and the id.
pub(super) const TABLET_MARK: &str = "$tablet ";

/// Runs a query and sends its rows.
pub(super) fn select(
    server: &Server,
    session: &Session,
    words: Words,
    sink: &mut dyn Sink,
) -> Result<Outcome, SqlError> {
    let timeout = session.query_timeout(&words)?;
    let tokens = words.into_rest();
    let tokens = count_of_dropped(server, session, &tokens).unwrap_or(tokens);
    let translated = parse(server, session, Words::new(tokens))?;
    let reader = server.store.reader()?;
    reader.limit(timeout);
    session.entry().running_on(reader.killer());
    let result = stream(server, session, &reader, &translated, sink);
    session.entry().stopped_reading();
    match result {
        Ok(()) => Ok(Outcome::Streamed),
        Err(Ended::Gone) => Err(SqlError::analysis("the client went away")),
        Err(Ended::Failed(error)) => Err(stopped(&reader, timeout.as_secs()).unwrap_or(error)),
    }
}

/// `EXPLAIN SELECT ..`: the operator and the translated text, enough to see that a statement is understood.
pub(super) fn explain(server: &Server, session: &Session, mut words: Words) -> Result<Outcome, SqlError> {
    let _ = words.next();
    let _ = ["VERBOSE", "COSTS", "LOGICAL", "ANALYZE", "FORMAT"].iter().any(|level| words.eat(level));
    let translated = parse(server, session, words)?;
    let mut rows = vec![vec![Some("PLAN FRAGMENT 0".to_owned())]];
    rows.extend(translated.sql.lines().map(|line| vec![Some(format!("  {line}"))]));
    Ok(Outcome::Listing(Listing { columns: vec!["Explain String"], rows }))
}

/// `SELECT COUNT(*) [[AS] name] FROM t` of a table whose rows are only counted, as a query that gives the number. Loaders
/// ask it to see whether everything has arrived.
fn count_of_dropped(server: &Server, session: &Session, tokens: &[Token]) -> Option<Vec<Token>> {
    let mut words = Words::new(tokens.to_vec());
    if !words.eat("SELECT COUNT ( * )") {
        return None;
    }
    let is_named = words.eat("AS") || !words.is_at(0, "FROM");
    let name = if is_named { words.identifier().ok()? } else { "count(*)".to_owned() };
    words.expect("FROM").ok()?;
    let TableName { db, table } = words.table_name(session).ok()?;
    let (digest, _) = server.store.table(&db, &table).ok()?.counted();
    if digest.hash == 0 || !words.is_done() {
        return None;
    }
    super::words::split(&format!("SELECT {} AS `{name}`", digest.rows)).ok()?.pop()
}

/// The translated query of a statement.
pub(super) fn parse(server: &Server, session: &Session, words: Words) -> Result<Translated, SqlError> {
    let marked = mark_tablets(words.into_rest());
    let mut parser = Words::new(marked).into_parser();
    let query = parser.parse_query()?;
    if parser.peek_token().token != Token::EOF {
        return Err(SqlError::syntax(format_args!("Unexpected input '{}'", parser.peek_token().token)));
    }
    translate::translate(server, session, *query)
}

/// The result columns of a query, as nullable columns of a table.
pub(super) fn columns_of(server: &Server, translated: &Translated) -> Result<Vec<Column>, SqlError> {
    let reader = server.store.reader()?;
    let statement = reader.prepare(&translated.sql)?;
    let kinds = result_columns(&statement, &translated.kinds);
    let named = statement.column_names().into_iter().zip(kinds);
    Ok(named
        .map(|(name, kind)| Column::new(name, kind.unwrap_or(ColumnType::Varchar(STRING_BYTES_MAX))))
        .collect())
}

/// Turns `PARTITION(p) TABLET(1, 2)` into the partition list `(p, "$tablet 1", "$tablet 2")`.
fn mark_tablets(tokens: Vec<Token>) -> Vec<Token> {
    let is_word = |token: &Token, text: &str| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(text));
    let mut marked: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        if !is_word(&token, "TABLET") || rest.peek() != Some(&Token::LParen) {
            marked.push(token);
            continue;
        }
        rest.next();
        let in_partitions = marked.last() == Some(&Token::RParen);
        if in_partitions {
            marked.pop();
            marked.push(Token::Comma);
        } else {
            marked.push(Token::make_keyword("PARTITION"));
            marked.push(Token::LParen);
        }
        for token in rest.by_ref() {
            let closing = token == Token::RParen;
            marked.push(match token {
                Token::Number(id, _) => Token::Word(Word {
                    value: format!("{TABLET_MARK}{id}"),
                    quote_style: Some('`'),
                    keyword: sqlparser::keywords::Keyword::NoKeyword,
                }),
                other => other,
            });
            if closing {
                break;
            }
        }
    }
    marked
}

/// Why rows stopped coming.
enum Ended {
    Gone,
    Failed(SqlError),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<rusqlite::Error> for Ended {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

pub(super) fn stopped(reader: &Reader<'_>, seconds: u64) -> Option<SqlError> {
    Some(match reader.stopped()? {
        Stopped::Killed => {
            SqlError::new(opensrv_mysql::ErrorKind::ER_QUERY_INTERRUPTED, "Query execution was interrupted")
        }
        Stopped::TimedOut => SqlError::new(
            opensrv_mysql::ErrorKind::ER_UNKNOWN_ERROR,
            format!(
                "Query reached its timeout of {seconds} seconds, please increase the 'query_timeout' session variable and retry"
            ),
        ),
    })
}

fn stream(
    server: &Server,
    session: &Session,
    reader: &Reader<'_>,
    translated: &Translated,
    sink: &mut dyn Sink,
) -> Result<(), Ended> {
    for table in &translated.schema_tables {
        catalog::schema::fill(server, session, reader, table).map_err(Ended::Failed)?;
    }
    let mut statement = reader.prepare(&translated.sql)?;
    let mut columns = result_columns(&statement, &translated.kinds);
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = statement.query([])?;
    let mut chunk = Chunk::default();
    let mut kinds: Option<Vec<ColumnType>> = None;
    loop {
        let row = rows.next()?;
        if kinds.is_none() {
            let known: Vec<ColumnType> = columns
                .drain(..)
                .enumerate()
                .map(|(at, kind)| kind.unwrap_or_else(|| kind_of_value(row, at)))
                .collect();
            let described = names.iter().zip(&known);
            sink.send(Reply::Columns(
                described
                    .map(|(name, kind)| ResultColumn { name: name.clone(), kind: kind.clone() })
                    .collect(),
            ))?;
            kinds = Some(known);
        }
        let (Some(row), Some(kinds)) = (row, &kinds) else { break };
        for (at, kind) in kinds.iter().enumerate() {
            crate::render::write_cell(&mut chunk.bytes, Some(kind), row.get_ref(at)?);
        }
        chunk.ends.push(chunk.bytes.len());
        if chunk.bytes.len() >= CHUNK_BYTES {
            let rows = chunk.ends.len();
            let full = std::mem::replace(
                &mut chunk,
                Chunk {
                    bytes: Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8),
                    ends: Vec::with_capacity(rows * 2),
                },
            );
            send_rows(reader, full, sink)?;
        }
    }
    if !chunk.ends.is_empty() {
        send_rows(reader, chunk, sink)?;
    }
    Ok(())
}

/// Waits for a slow client no longer than the statement may run.
fn send_rows(reader: &Reader<'_>, chunk: Chunk, sink: &mut dyn Sink) -> Result<(), Ended> {
    let mut reply = Reply::Rows(chunk);
    while let Some(back) = sink.offer(reply)? {
        reply = back;
        if !reader.pause(POLL) {
            return Err(Ended::Failed(SqlError::analysis("the statement was stopped")));
        }
    }
    if reader.stopped().is_some() {
        return Err(Ended::Failed(SqlError::analysis("the statement was stopped")));
    }
    Ok(())
}

/// Between two looks whether a slow client has made room.
const POLL: Duration = Duration::from_millis(1);

/// Types by what the text told, then by what SQLite knows of plain columns.
fn result_columns(statement: &Statement<'_>, told: &[Option<ColumnType>]) -> Vec<Option<ColumnType>> {
    statement
        .columns()
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let told = told.get(at).cloned().flatten();
            told.or_else(|| crate::store::declared_type(column.decl_type()?))
        })
        .collect()
}

/// The type of an expression by its first value.
fn kind_of_value(row: Option<&Row<'_>>, at: usize) -> ColumnType {
    match row.and_then(|row| row.get_ref(at).ok()) {
        Some(ValueRef::Integer(_)) => ColumnType::BigInt,
        Some(ValueRef::Real(_)) => ColumnType::Double,
        Some(ValueRef::Blob(_)) => ColumnType::Varbinary,
        _ => ColumnType::Varchar(STRING_BYTES_MAX),
    }
}
