//! A [`Problem`]: what failed, where, and what to do, in the one form that validation, planning, workers, the REST
//! answers and the final report share. Never holds a secret or a row's values.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What failed, where, and what the reader can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Problem {
    pub code: Code,
    /// What failed, with the value that caused it. Lower case, no final stop.
    pub message: String,
    /// JSON pointer, `table.column`, key range or `host:port`; empty when there is none.
    pub place: String,
    /// What to do; empty when the message says it all.
    pub hint: String,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: String::new(), hint: String::new() }
    }

    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// As every REST answer tells it: `{code, message, hint, pointer}`.
    pub fn to_rest(&self) -> serde_json::Value {
        let Self { code, message, place, hint } = self;
        serde_json::json!({"code": code.as_str(), "message": message, "hint": hint, "pointer": place})
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(out, "{}: ", self.place)?;
        }
        out.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(out, " ({})", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Who can mend a problem; decides the exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// The job ran and failed, or was cancelled: exit code 1.
    Job,
    /// Edit the job, the flags or a data source entry: exit code 2.
    Input,
    /// Something outside: network, login, grant, a node that is down: exit code 3.
    Outside,
}

macro_rules! codes {
    ($($name:ident = $text:literal, $mend:ident;)*) => {
        /// Stable names of problems, as REST, `--json` and the report show them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $(#[serde(rename = $text)] $name,)* }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code of that name; an unknown one (from a newer peer) is [`Code::Internal`].
            pub fn from_name(name: &str) -> Self {
                match name { $($text => Self::$name,)* _ => Self::Internal }
            }

            pub fn mend(self) -> Mend {
                match self { $(Self::$name => Mend::$mend,)* }
            }
        }
    };
}

codes! {
    InvalidScript = "INVALID_SCRIPT", Input;
    Unsupported = "UNSUPPORTED", Input;
    UnresolvedParameter = "UNRESOLVED_PARAMETER", Input;
    InvalidSettings = "INVALID_SETTINGS", Input;
    UnknownDatasource = "UNKNOWN_DATASOURCE", Input;
    UnknownTable = "UNKNOWN_TABLE", Input;
    UnknownColumn = "UNKNOWN_COLUMN", Input;
    ColumnMismatch = "COLUMN_MISMATCH", Input;
    TypeMismatch = "TYPE_MISMATCH", Input;
    InvalidSplitKey = "INVALID_SPLIT_KEY", Input;
    SourceIsTarget = "SOURCE_IS_TARGET", Input;
    InvalidSql = "INVALID_SQL", Input;
    JobChanged = "JOB_CHANGED", Input;
    UnknownJob = "UNKNOWN_JOB", Input;
    JobNotEnded = "JOB_NOT_ENDED", Input;
    WrongState = "WRONG_STATE", Input;
    UnknownTask = "UNKNOWN_TASK", Input;
    UnknownWorker = "UNKNOWN_WORKER", Input;
    AccessDenied = "ACCESS_DENIED", Input;
    ConnectFailed = "CONNECT_FAILED", Outside;
    LoginFailed = "LOGIN_FAILED", Outside;
    NoPrivilege = "NO_PRIVILEGE", Outside;
    NoBackendAlive = "NO_BACKEND_ALIVE", Outside;
    BackendUnreachable = "BACKEND_UNREACHABLE", Outside;
    BackendRefused = "BACKEND_REFUSED", Outside;
    NoCoordinator = "NO_COORDINATOR", Outside;
    StoreFailed = "STORE_FAILED", Outside;
    PreSqlFailed = "PRE_SQL_FAILED", Job;
    PostSqlFailed = "POST_SQL_FAILED", Job;
    ReadFailed = "READ_FAILED", Job;
    LoadFailed = "LOAD_FAILED", Job;
    RowsRefused = "ROWS_REFUSED", Job;
    TooManyDirtyRecords = "TOO_MANY_DIRTY_RECORDS", Job;
    PreparedTooOld = "PREPARED_TOO_OLD", Job;
    DelimiterInValue = "DELIMITER_IN_VALUE", Job;
    CountMismatch = "COUNT_MISMATCH", Job;
    LeaseExpired = "LEASE_EXPIRED", Job;
    ForeignLabel = "FOREIGN_LABEL", Job;
    OutcomeUnknown = "OUTCOME_UNKNOWN", Job;
    Cancelled = "CANCELLED", Job;
    Internal = "INTERNAL", Job;
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
