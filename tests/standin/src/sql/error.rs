//! What a client is told when a statement fails: a MySQL error number and StarRocks' words.

use std::fmt;

use opensrv_mysql::ErrorKind;

use crate::store::StoreError;

/// A failed statement.
#[derive(Debug)]
pub(crate) struct SqlError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl SqlError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// 1064, found while reading the text.
    pub(crate) fn syntax(detail: impl fmt::Display) -> Self {
        Self::new(ErrorKind::ER_PARSE_ERROR, format!("Getting syntax error. Detail message: {detail}."))
    }

    /// 1064, found while understanding it.
    pub(crate) fn analysis(detail: impl fmt::Display) -> Self {
        Self::new(ErrorKind::ER_PARSE_ERROR, format!("Getting analyzing error. Detail message: {detail}."))
    }

    /// 1227.
    pub(crate) fn denied(words: &str) -> Self {
        Self::new(ErrorKind::ER_SPECIFIC_ACCESS_DENIED_ERROR, words)
    }

    pub(crate) fn empty() -> Self {
        Self::new(ErrorKind::ER_EMPTY_QUERY, "Query was empty")
    }

    pub(crate) fn no_database() -> Self {
        Self::new(ErrorKind::ER_NO_DB_ERROR, "No database selected")
    }

    pub(crate) fn unknown_database(db: &str) -> Self {
        Self::new(ErrorKind::ER_BAD_DB_ERROR, format!("Unknown database '{db}'"))
    }

    pub(crate) fn unknown_table(db: &str, table: &str) -> Self {
        Self::new(
            ErrorKind::ER_NO_SUCH_TABLE,
            format!("Getting analyzing error. Detail message: Unknown table '{db}.{table}'."),
        )
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<StoreError> for SqlError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UnknownDatabase(db) => Self::unknown_database(&db),
            StoreError::UnknownTable { db, table } => Self::unknown_table(&db, &table),
            StoreError::DatabaseExists(db) => Self::new(
                ErrorKind::ER_DB_CREATE_EXISTS,
                format!("Can't create database '{db}'; database exists"),
            ),
            StoreError::TableExists { table, .. } => {
                Self::new(ErrorKind::ER_TABLE_EXISTS_ERROR, format!("Table '{table}' already exists"))
            }
            StoreError::Sqlite(error) => error.into(),
            other => Self::new(ErrorKind::ER_UNKNOWN_ERROR, other.to_string()),
        }
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        let text = match &error {
            rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            other => other.to_string(),
        };
        match text.strip_prefix("no such column: ") {
            Some(column) => Self::analysis(format_args!("Column '{column}' cannot be resolved")),
            None => match text.strip_prefix("no such function: ") {
                Some(function) => {
                    Self::analysis(format_args!("No matching function with signature: {function}"))
                }
                None => Self::analysis(text),
            },
        }
    }
}

impl From<sqlparser::parser::ParserError> for SqlError {
    fn from(error: sqlparser::parser::ParserError) -> Self {
        Self::syntax(error.to_string().trim_start_matches("sql parser error: "))
    }
}
