//! A job: what was asked for ([`JobSpec`], valid by construction; [`crate::script`] makes it), what became of it at plan
//! time ([`ReadSpec`], [`LoadSpec`]: all that a worker needs), and the states it goes through.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::query::quote;

/// A validated job. Nothing in it was checked against a catalogue yet.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    pub source: SourceSpec,
    pub target: TargetSpec,
    pub settings: Settings,
}

/// Which protocol dialect and catalogue a source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// MySQL, MariaDB and what speaks their protocol.
    Mysql,
    Starrocks,
}

/// The reader step: tables of the same columns, or queries, of one kind of data source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpec {
    pub kind: SourceKind,
    /// Never empty; all tables or all queries. Each is planned by itself.
    pub relations: Vec<RelationSpec>,
    /// [`ColumnList::All`] for queries.
    pub columns: ColumnList,
    /// `/*+ ... */` found in front of the first column; goes right after SELECT, in split queries too.
    pub hint: Option<String>,
    /// `where`, trimmed, without a trailing semicolon.
    pub filter: Option<String>,
    /// Unquoted column name.
    pub split_key: Option<String>,
    /// Tasks per unit of concurrency.
    pub split_factor: u32,
}

/// Something rows are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationSpec {
    pub datasource: String,
    /// `selectedDatabase`, or the database in front of the table's name; else the data source's own.
    pub database: Option<String>,
    pub relation: Relation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// A table's name.
    Table(String),
    /// `querySql`: one SELECT, without a semicolon.
    Query(String),
}

impl RelationSpec {
    /// For messages: the table's name, or the beginning of the query.
    pub fn name(&self) -> String {
        const SHOWN: usize = 60;
        match &self.relation {
            Relation::Table(table) => table.clone(),
            Relation::Query(query) if query.chars().count() <= SHOWN => query.clone(),
            Relation::Query(query) => query.chars().take(SHOWN).chain("...".chars()).collect(),
        }
    }
}

/// The `column` list of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnList {
    /// `["*"]`: expanded once, at plan time, from the catalogue.
    All,
    /// Column names or, in a reader, SQL expressions, as written. Never empty.
    Listed(Vec<String>),
}

/// The writer step.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSpec {
    pub datasource: String,
    pub database: Option<String>,
    pub table: String,
    /// Names without backticks.
    pub columns: ColumnList,
    /// FE addresses, `http[s]://host:port`; empty: those of the data source.
    pub load_urls: Vec<String>,
    pub load: LoadProps,
    /// One statement each, `@table` not yet replaced.
    pub pre_sql: Vec<String>,
    pub post_sql: Vec<String>,
    pub max_batch_rows: u64,
    pub max_batch_bytes: u64,
    pub on_error: OnError,
    pub label_prefix: String,
}

/// `loadProps`, parsed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadProps {
    pub format: Format,
    /// `None`: bodies are sent as they are.
    pub compression: Option<Compression>,
    /// CSV only; `None`: the job names none and Starlift chooses.
    pub column_separator: Option<Delimiter>,
    pub row_delimiter: Option<Delimiter>,
    /// Stream Load `timeout` in seconds, 1..=259200; `None`: by estimate.
    pub timeout_s: Option<u32>,
    /// Further headers to send as they are, lower-case names, `strict_mode` and `max_filter_ratio` among them.
    pub headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Csv,
    Json,
}

/// How bodies are packed: each one is a single frame or stream of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    Lz4Frame,
    Zstd,
    Gzip,
}

impl Compression {
    /// Cheapest for the CPU first.
    pub const ALL: [Self; 3] = [Self::Lz4Frame, Self::Zstd, Self::Gzip];

    /// In any case of letters.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| name.eq_ignore_ascii_case(compression.name()))
    }

    /// As jobs and the server's `compression` header write it. That header packs JSON bodies only: with `format: csv`
    /// the packed bytes are taken for text (StarRocks: `file_scanner.cpp`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Lz4Frame => "lz4_frame",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What the `format` header of a packed CSV body says.
    pub fn csv_format(self) -> &'static str {
        match self {
            Self::Lz4Frame => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// Bytes that part columns or rows in CSV: 1 to 50, each below 0x80.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Delimiter(Vec<u8>);

impl Delimiter {
    /// Longest delimiter the server takes.
    pub const MAX_BYTES: usize = 50;

    pub fn new(bytes: Vec<u8>) -> Result<Self, InvalidDelimiter> {
        if bytes.is_empty() || bytes.len() > Self::MAX_BYTES {
            return Err(InvalidDelimiter::Length(bytes.len()));
        }
        if let Some(byte) = bytes.iter().find(|byte| **byte >= 0x80 || **byte == b'\\') {
            return Err(InvalidDelimiter::Byte(*byte));
        }
        Ok(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The header value: always hexadecimal, since blanks and tabs do not survive in an HTTP header.
    pub fn header(&self) -> String {
        use fmt::Write as _;
        let mut text = String::from("\\x");
        for byte in &self.0 {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        text
    }
}

impl fmt::Debug for Delimiter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.header())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDelimiter {
    #[error("a delimiter has 1 to {max} bytes, not {0}", max = Delimiter::MAX_BYTES)]
    Length(usize),
    #[error("byte 0x{0:02x} cannot be part of a delimiter; use bytes below 0x80 other than the backslash")]
    Byte(u8),
}

/// `strategyOnError`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum OnError {
    /// The first refused batch fails the job.
    #[default]
    #[serde(rename = "exit")]
    Exit,
    /// Refused rows are counted as dirty, within the error limit.
    #[serde(rename = "batchDirtyData")]
    BatchDirtyData,
}

/// `setting`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Most tasks of the job running at once, over the whole cluster.
    pub concurrent: u32,
    /// The job's speed limit in bytes per second, over the whole cluster.
    pub bytes_per_second: Option<u64>,
    pub error_limit: ErrorLimit,
    pub commit: CommitMode,
    pub split: Split,
    /// Zone of MySQL TIMESTAMP values; `None`: the source's own.
    pub time_zone: Option<String>,
    /// The target table is created, where it is not there, before preSql.
    pub create_table: bool,
    /// Texts that may be too long for their column are measured at plan time, by a pass over the source.
    pub probe_lengths: bool,
}

/// `setting.starlift.split`: what a table is split by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// `splitPk`; without it the table is read in one task.
    #[default]
    Key,
    /// The tablets of a StarRocks table.
    Tablet,
}

/// `setting.starlift.commit`: when prepared rows become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitMode {
    /// Every task by itself, as soon as it is prepared.
    #[default]
    Task,
    /// All tasks together, after the last one is prepared.
    Job,
}

/// How many dirty records a job may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorLimit {
    Records(u64),
    /// Share of the rows read, in millionths, 0..=1,000,000.
    Share(u32),
    Unlimited,
}

impl ErrorLimit {
    /// Dirty records allowed among so many rows.
    pub fn allowed(self, rows: u64) -> u64 {
        match self {
            Self::Records(records) => records,
            Self::Share(millionths) => {
                u64::try_from(u128::from(rows) * u128::from(millionths) / 1_000_000).unwrap_or(u64::MAX)
            }
            Self::Unlimited => u64::MAX,
        }
    }
}

impl Default for ErrorLimit {
    fn default() -> Self {
        Self::Records(0)
    }
}

/// Where a job stands. The order is a promise: nothing is changed at the target before `PreSql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// Set by submit.
    Pending,
    /// The catalogues are being asked and the source is being cut into tasks.
    Planning,
    /// The statements before the transfer run, one after the other.
    PreSql,
    /// Tasks are leased to workers; finished ones are committed on the way.
    Running,
    /// No task is left to run; the last commits are under way.
    Committing,
    PostSql,
    Succeeded,
    Failed,
    Cancelled,
    /// Never stored: how a job is shown that stands still in one of the other states until it is resumed.
    Paused,
}

impl JobState {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether a job may go from this state to `next` by itself. A final state is left by nothing; only `resume` takes
    /// a failed job back.
    pub fn may_become(self, next: Self) -> bool {
        if self.is_final() || next == Self::Paused {
            return false;
        }
        matches!(next, Self::Failed | Self::Cancelled) || next as u8 == self as u8 + 1
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Planning => "PLANNING",
            Self::PreSql => "PRE_SQL",
            Self::Running => "RUNNING",
            Self::Committing => "COMMITTING",
            Self::PostSql => "POST_SQL",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Paused => "PAUSED",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// How to read one source table; the same for all its tasks. Made at plan time, stored, sent to workers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReadSpec {
    pub datasource: String,
    pub kind: SourceKind,
    pub database: String,
    pub table: String,
    pub hint: Option<String>,
    /// SQL text of each column, ready to paste.
    pub select: Vec<String>,
    /// Names of the result columns, for messages; as many as `select`.
    pub names: Vec<String>,
    pub filter: Option<String>,
    /// The split column, unquoted; `None`: the table is read whole.
    pub key: Option<String>,
    pub time_zone: Option<String>,
    /// The job's own SELECT. What it says stands for table, columns, hint and filter, and it is never split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// How bodies render a cell. CSV knows the bytes as they are and hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellKind {
    Text,
    /// The server's digits, as a JSON number.
    Number,
    /// JSON text, embedded as it is.
    Json,
    /// The bytes as hexadecimal digits, under a name of their own; the load's `columns` decodes them.
    Hex,
}

/// What a worker makes sure of in one column, because the server would change another value without a word. NULL passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CellCheck {
    /// Index of the column.
    pub column: u32,
    pub rule: CellRule,
}

/// Which values may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellRule {
    /// `0`, `1`, `true` and `false`.
    Truth,
    /// Digits, behind a sign or not.
    WholeNumber,
    /// Digits with at most so many behind the point, zeros at the end not counted.
    Decimal { scale: u32 },
    /// `YYYY-MM-DD` without a zero part.
    Date,
    /// The same, alone or with `HH:MM:SS` and at most six digits of a second.
    DateTime,
    /// A date or datetime of MySQL's own writing: no year, month or day of zero.
    RealDate,
    /// A JSON document.
    Json,
    /// No zero byte at the end, which would be taken for padding.
    NoZeroAtEnd,
}

/// Where and in what form to load; the same for all tasks of a job. Made at plan time, stored, sent to workers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LoadSpec {
    pub datasource: String,
    pub database: String,
    pub table: String,
    /// Target columns in the order of the cells.
    pub columns: Vec<String>,
    /// One per column.
    pub cell_kinds: Vec<CellKind>,
    /// In the order of the columns; most jobs need few or none.
    #[serde(default)]
    pub checks: Vec<CellCheck>,
    /// FE addresses, `http[s]://host:port`; never empty.
    pub load_urls: Vec<String>,
    pub format: Format,
    pub column_separator: Delimiter,
    pub row_delimiter: Delimiter,
    /// The job named the delimiters, so a value that holds one is an error and they are never replaced.
    pub named_delimiters: bool,
    pub headers: BTreeMap<String, String>,
    pub max_batch_rows: u64,
    pub max_batch_bytes: u64,
    pub label_prefix: String,
    pub timeout_s: Option<u32>,
    /// Body bytes at which a transaction is closed and the attempt goes on in another.
    pub max_part_bytes: u64,
    #[serde(default)]
    pub on_error: OnError,
    #[serde(default)]
    pub mode: LoadMode,
    /// How long a prepared transaction is to live, in seconds; `None`: the server's own time, a day.
    #[serde(default)]
    pub prepared_timeout_s: Option<u32>,
    /// How bodies in the planned format are packed. Limits and counts of bytes are of the rows before that.
    #[serde(default)]
    pub compression: Option<Compression>,
}

/// Which interface of the server a job loads through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadMode {
    /// Begin, load, prepare by the worker; commit by the coordinator.
    #[default]
    Transaction,
    /// One Stream Load per task, which commits by itself: servers before 2.4. The guarantee is weaker: it holds as
    /// long as the server remembers the label.
    Plain,
}

/// StarRocks' own bounds of `timeout`, in seconds; shorter ones than its default gain nothing.
const TIMEOUT_MIN_S: u64 = 600;
pub const TIMEOUT_MAX_S: u64 = 259_200;
/// A slow task, for the estimate of how long one takes.
const SLOW_ROWS_PER_SECOND: u64 = 10_000;
/// A row's cells, for the same estimate under a speed limit.
const USUAL_ROW_BYTES: u64 = 256;

/// How the names of hexadecimal cells begin.
pub const HEX_PREFIX: &str = "starlift_hex_";

impl LoadSpec {
    /// Under which name each cell goes out: the column's own, but for hexadecimal ones.
    pub fn cell_names(&self) -> Vec<String> {
        let cells = self.columns.iter().zip(&self.cell_kinds).enumerate();
        cells
            .map(|(index, (column, kind))| match kind {
                CellKind::Hex => format!("{HEX_PREFIX}{index}"),
                CellKind::Text | CellKind::Number | CellKind::Json => column.clone(),
            })
            .collect()
    }

    /// The `columns` header: the cells by name, then what is made of them. The encoding is named because plain text for
    /// a VARBINARY column is read as hexadecimal by some versions and as base64 by others (StarRocks PR #26911).
    pub fn columns_header(&self) -> String {
        let names = self.cell_names();
        let decoded = self.columns.iter().zip(&names).filter(|(column, name)| column != name);
        let decoded: Vec<String> = decoded
            .map(|(column, name)| format!("{}=to_binary({},'hex')", quote(column), quote(name)))
            .collect();
        names.iter().map(|name| quote(name)).chain(decoded).collect::<Vec<_>>().join(",")
    }

    /// How long a transaction of a task may live, in seconds: as the job says, else four times the task's estimate.
    /// Both halves count with it: the worker sends it with `begin`, and the coordinator knows by it when nothing can
    /// come any more of a worker that was lost. `bytes_per_second` is the task's share of a speed limit.
    pub fn transaction_timeout_s(&self, rows_estimate: u64, bytes_per_second: Option<u64>) -> u64 {
        let estimate = self.estimated_s(rows_estimate, bytes_per_second).saturating_mul(4);
        self.timeout_s.map_or(estimate.clamp(TIMEOUT_MIN_S, TIMEOUT_MAX_S), u64::from)
    }

    /// Seconds that one slow worker takes for so many rows.
    pub fn estimated_s(&self, rows: u64, bytes_per_second: Option<u64>) -> u64 {
        let by_speed =
            bytes_per_second.map_or(0, |speed| rows.saturating_mul(USUAL_ROW_BYTES) / speed.max(1));
        (rows / SLOW_ROWS_PER_SECOND).max(by_speed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_go_forward_one_by_one_or_end() {
        use JobState::{Cancelled, Committing, Failed, Planning, PreSql, Running, Succeeded};
        assert!(Planning.may_become(PreSql) && Running.may_become(Committing));
        assert!(!Planning.may_become(Running) && !Running.may_become(PreSql));
        assert!(PreSql.may_become(Failed) && Running.may_become(Cancelled));
        assert!(!Succeeded.may_become(Failed) && !Failed.may_become(Running));
    }

    #[test]
    fn bytes_go_out_as_hexadecimal_digits_that_the_load_decodes() {
        let spec = |kinds: &[CellKind]| LoadSpec {
            columns: kinds.iter().enumerate().map(|(index, _)| format!("c{index}")).collect(),
            cell_kinds: kinds.to_vec(),
            ..spec()
        };
        let plain = spec(&[CellKind::Number, CellKind::Text]);
        assert_eq!(plain.columns_header(), "`c0`,`c1`");
        let bytes = spec(&[CellKind::Hex, CellKind::Text, CellKind::Hex]);
        assert_eq!(bytes.cell_names(), ["starlift_hex_0", "c1", "starlift_hex_2"]);
        assert_eq!(
            bytes.columns_header(),
            "`starlift_hex_0`,`c1`,`starlift_hex_2`,`c0`=to_binary(`starlift_hex_0`,'hex'),`c2`=to_binary(`starlift_hex_2`,'hex')"
        );
    }

    fn spec() -> LoadSpec {
        let delimiter = |byte| Delimiter::new(vec![byte]).expect("one byte below 0x80");
        LoadSpec {
            datasource: String::new(),
            database: String::new(),
            table: String::new(),
            columns: Vec::new(),
            cell_kinds: Vec::new(),
            checks: Vec::new(),
            load_urls: Vec::new(),
            format: Format::Csv,
            column_separator: delimiter(1),
            row_delimiter: delimiter(2),
            named_delimiters: false,
            headers: BTreeMap::new(),
            max_batch_rows: 1,
            max_batch_bytes: 1,
            label_prefix: String::new(),
            timeout_s: None,
            max_part_bytes: 1,
            on_error: OnError::Exit,
            mode: LoadMode::Transaction,
            prepared_timeout_s: None,
            compression: None,
        }
    }

    #[test]
    fn a_delimiter_is_sent_as_hexadecimal() {
        let delimiter = Delimiter::new(vec![1, 0x7c]).expect("two bytes below 0x80");
        assert_eq!(delimiter.header(), "\\x017c");
        assert_eq!(Delimiter::new(vec![0x80]), Err(InvalidDelimiter::Byte(0x80)));
        assert_eq!(Delimiter::new(vec![]), Err(InvalidDelimiter::Length(0)));
    }
}
