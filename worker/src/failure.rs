//! What can end an attempt, and the one place that says what it means: whether to try again, and what people read.

use starlift_common::job::{CellRule, LoadSpec, ReadSpec};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::FailureClass;
use starlift_common::task::TaskRange;
use starlift_remote::starrocks::client::CallError;
use starlift_remote::starrocks::outcome::Answer;

use crate::encode::check::fault;
use crate::encode::{Collision, EncodeError};
use crate::isolate::Reason;
use crate::source::ReadError;

/// Lines of a server's log that a message quotes.
const LOG_LINES: usize = 3;

/// Why an attempt ended without all its rows in prepared transactions.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something was wrong before the first row: data source, header, HTTP client.
    Setup(Problem),
    Read(ReadError),
    /// A row has no form; `key` is the row's split key, where it was selected.
    Row {
        error: EncodeError,
        key: Option<String>,
    },
    /// Another transaction holds our label: the target is shared with another store's jobs, or was restored.
    ForeignLabel {
        label: Label,
        /// How that was found out.
        found: String,
    },
    /// A call about a transaction failed. `log` holds the first lines that the server wrote about refused rows.
    Call {
        call: &'static str,
        label: Label,
        error: Box<CallError>,
        log: String,
    },
    /// A load was answered before its body had ended.
    EarlyAnswer {
        label: Label,
    },
    /// The server does not account for every row it was sent.
    Counts {
        label: Label,
        sent: u64,
        accounted: u64,
    },
    /// What became of a plain load cannot be told yet.
    Unsettled {
        label: Label,
    },
    /// A plain load was committed that had not been sent to its end.
    Truncated {
        label: Label,
    },
    /// A transaction held no row to be written: all were filtered within the job's `max_filter_ratio`, or unselected.
    NothingWritten {
        label: Label,
        sent: u64,
    },
    /// More bad rows than the job may still have. `first` names some of them.
    TooManyBadRows {
        found: u64,
        allowed: u64,
        first: String,
    },
    /// The server's verdicts on the same rows do not fit each other.
    Contradiction,
    /// A transaction of an earlier pass, or a trial, may be open although its rollback was asked for.
    NotClosed,
    /// Bad rows cannot be kept on this machine.
    Keep(Problem),
    /// A load was not answered, and not for the first time; a trial with one row was to tell why.
    Unanswered {
        failure: Box<Self>,
        /// What came of the trial.
        told: String,
        class: FailureClass,
    },
    /// A fault of ours.
    Internal(String),
}

impl Failure {
    pub(crate) fn class(&self) -> FailureClass {
        match self {
            Self::Read(error) => error.class,
            Self::Call { error, .. } => error.class(),
            Self::Unanswered { class, .. } => *class,
            Self::Unsettled { .. } => FailureClass::Unknown,
            Self::EarlyAnswer { .. }
            | Self::Counts { .. }
            | Self::Contradiction
            | Self::NotClosed
            | Self::Keep(_)
            | Self::Internal(_) => FailureClass::Transient,
            Self::Setup(_)
            | Self::Row { .. }
            | Self::ForeignLabel { .. }
            | Self::Truncated { .. }
            | Self::NothingWritten { .. }
            | Self::TooManyBadRows { .. } => FailureClass::Permanent,
        }
    }

    /// Rows are at fault, not the server, the network or the job; leaving some of them out can help.
    pub(crate) fn is_about_rows(&self) -> bool {
        match self {
            Self::Row { .. } | Self::NothingWritten { .. } => true,
            Self::Call { error, .. } => error.answer().is_some_and(Answer::refuses_rows),
            _ => false,
        }
    }

    /// A load that got no answer at all: the server may have had something to say.
    pub(crate) fn is_unanswered_load(&self) -> bool {
        matches!(self, Self::Call { call: "load", error, .. } if error.is_unknown())
    }

    /// The same for people. May hold values of refused rows, so it goes into the report and never into a log.
    pub(crate) fn problem(&self, read: &ReadSpec, range: &TaskRange, load: &LoadSpec) -> Problem {
        let source = format!("{}.{} {range}", read.database, read.table);
        let target = format!("{}.{}", load.database, load.table);
        match self {
            Self::Setup(problem) => problem.clone(),
            Self::Read(ReadError { problem, .. }) => {
                let place = [problem.place.as_str(), &source].join(" ");
                problem.clone().at(place.trim_start())
            }
            Self::Row { error, key } => row_problem(*error, key.as_deref(), read, load).at(source),
            Self::ForeignLabel { label, found } => Problem::new(
                Code::ForeignLabel,
                format!("label {label} exists at the target although this attempt never used it: {found}"),
            )
            .at(target)
            .hint("the state store is older than the server, or two installations share job ids: check what was loaded; where neither is \
                 the case the server itself left the label behind, and the job can be resumed"),
            Self::Call { call, label, error, log } => call_problem(call, label, error, log, &target),
            Self::EarlyAnswer { label } => Problem::new(
                Code::LoadFailed,
                format!("the server answered a load of {label} before it had the whole body"),
            )
            .at(target),
            Self::Counts { label, sent, accounted } => Problem::new(
                Code::CountMismatch,
                format!("{sent} rows were sent under label {label}, the server accounts for {accounted}"),
            )
            .at(target),
            Self::NothingWritten { label, sent } => Problem::new(
                Code::LoadFailed,
                format!(
                    "StarRocks would write none of the {sent} rows sent under label {label}, all are filtered or unselected, \
                     and it refuses a load that writes nothing"
                ),
            )
            .at(target)
            .hint("set the FE's empty_load_as_error to false, or move the condition of loadProps where into the reader's where"),
            Self::TooManyBadRows { found, allowed, first } => Problem::new(
                Code::TooManyDirtyRecords,
                format!("at least {found} bad rows in one task, and errorLimit leaves {allowed}; the first: {first}"),
            )
            .at(source)
            .hint("mend the rows or the target's types, or raise errorLimit"),
            Self::Contradiction => Problem::new(
                Code::LoadFailed,
                "StarRocks judged the same rows in different ways while the bad ones were looked for",
            )
            .at(target)
            .hint("see whether the target table or its partitions are being changed"),
            Self::NotClosed => {
                Problem::new(Code::LoadFailed, "the rollback of a transaction was not confirmed").at(target)
            }
            Self::Keep(problem) => problem.clone(),
            Self::Unanswered { failure, told, .. } => {
                let mut problem = failure.problem(read, range, load);
                problem.message = format!("{}; {told}", problem.message);
                problem
            }
            Self::Unsettled { label } => Problem::new(
                Code::OutcomeUnknown,
                format!("the server does not say what became of the load {label}"),
            )
            .at(target)
            .hint("the next attempt asks again before it sends anything"),
            Self::Truncated { label } => Problem::new(
                Code::ForeignLabel,
                format!("label {label} is committed at the target although this task never sent all its rows under it"),
            )
            .at(target)
            .hint("check what was loaded; the state store is older than the server, or two installations share job ids"),
            Self::Internal(what) => Problem::new(Code::Internal, what.clone()).at(source),
        }
    }
}

fn call_problem(call: &str, label: &Label, error: &CallError, log: &str, target: &str) -> Problem {
    let mut problem = error.problem();
    let refused_rows =
        error.answer().is_some_and(|answer| answer.text().to_ascii_lowercase().contains("filtered rows"));
    if refused_rows {
        problem.code = Code::RowsRefused;
        problem.hint = "mend the rows or the target's types; strategyOnError exit is in force, batchDirtyData leaves bad \
                        rows out one by one, loadProps max_filter_ratio lets a share of them go"
            .into();
        if let Some(answer) = error.answer().filter(|answer| answer.total_rows > 0) {
            let (filtered, total) = (answer.filtered_rows, answer.total_rows);
            problem.message = format!("{} ({filtered} of {total} rows)", problem.message);
        }
    }
    if error.answer().is_some_and(|answer| answer.is_not_implemented()) {
        problem.code = Code::Unsupported;
        problem.hint = "the server has no transaction interface; StarRocks has it from 2.4 on".into();
    }
    problem.message = format!("{call} of {label}: {}", problem.message);
    let log = first_lines(log);
    if !log.is_empty() {
        problem.message = format!("{}; the server's log begins: {log}", problem.message);
    }
    problem.place = format!("{} {target}", problem.place).trim_start().to_owned();
    problem
}

/// The beginning of a server's log, fit for one line: the rows in it hold delimiters of ours.
fn first_lines(log: &str) -> String {
    let lines = log.lines().filter(|line| !line.trim().is_empty()).take(LOG_LINES);
    let visible = |line: &str| line.trim().replace(char::is_control, " ");
    lines.map(visible).collect::<Vec<_>>().join(" | ")
}

/// Why a row has no form, in the words of a report.
pub(crate) fn row_reason(error: EncodeError, columns: &[String]) -> Reason {
    let (column, text) = fault_of(error);
    Reason { column: columns.get(column).cloned().unwrap_or_default(), text: format!("the value {text}") }
}

/// The column at fault, and what is wrong with its value.
fn fault_of(error: EncodeError) -> (usize, &'static str) {
    match error {
        EncodeError::NotUtf8 { column } => (column, "holds bytes that are no UTF-8 text"),
        EncodeError::TooLong { column } => (column, "makes the row longer than 4 GiB"),
        EncodeError::Unfit { column, rule } => (column, fault(rule)),
        EncodeError::Collision { column, with } => (
            column,
            match with {
                Collision::Delimiter => "holds a delimiter of the job",
                Collision::NullMark => r"is the text \N, which CSV reads as NULL",
                Collision::BlankLine => {
                    "is an empty text and alone in its row, which CSV skips as a blank line"
                }
                Collision::BareDocument => {
                    "is a JSON document of null or a text alone, which a JSON row would hold as something else"
                }
            },
        ),
    }
}

fn row_problem(error: EncodeError, key: Option<&str>, read: &ReadSpec, load: &LoadSpec) -> Problem {
    let (column, text) = fault_of(error);
    let row = match (&read.key, key) {
        (Some(name), Some(key)) => format!("the row with {name} = {key}"),
        _ => "a row".to_owned(),
    };
    let name = read.names.get(column).map_or("?", String::as_str);
    let message = format!("{row} cannot be loaded: the value of column {name} {text}");
    let (code, hint) = match error {
        EncodeError::NotUtf8 { .. } => (
            Code::RowsRefused,
            "select the column with HEX(), TO_BASE64() or CONVERT(... USING utf8mb4)".to_owned(),
        ),
        EncodeError::TooLong { .. } => (Code::RowsRefused, String::new()),
        EncodeError::Unfit { rule: CellRule::RealDate, .. } => (
            Code::RowsRefused,
            format!(
                "say in the reader's column list what such dates become, e.g. NULLIF({name}, '0000-00-00') or \
                 IF(MONTH({name}) = 0 OR DAYOFMONTH({name}) = 0, NULL, {name})"
            ),
        ),
        EncodeError::Unfit { .. } => {
            (Code::RowsRefused, "mend the row, or convert the column in the reader's column list".to_owned())
        }
        EncodeError::Collision { with: Collision::BareDocument, .. } => {
            (Code::RowsRefused, "leave format json out of loadProps".to_owned())
        }
        EncodeError::Collision { .. } => (
            Code::DelimiterInValue,
            format!(
                "leave column_separator ({:?}) and row_delimiter ({:?}) out of loadProps, or use format json",
                load.column_separator, load.row_delimiter
            ),
        ),
    };
    Problem::new(code, message).hint(hint)
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_log_is_quoted_on_one_line() {
        let log = "Error: bad. Row: 1\u{1}abc\n\nError: worse. Row: 2\u{1}x\nthird\nfourth\n";
        assert_eq!(first_lines(log), "Error: bad. Row: 1 abc | Error: worse. Row: 2 x | third");
    }
}
