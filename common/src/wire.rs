//! The only door between wire messages and domain types. What comes in is checked here once; behind it nothing is
//! optional that must be there.

use prost::Message as _;
use starlift_proto as pb;

use crate::ids::{Epoch, JobId, TaskId, TaskKey};
use crate::job::{
    CellCheck, CellKind, CellRule, Compression, Delimiter, Format, LoadMode, LoadSpec, OnError, ReadSpec,
    SourceKind,
};
use crate::problem::{Code, Problem};
use crate::retry::FailureClass;
use crate::task::{
    AttemptKey, BadRow, Key, KeyRange, LabelsBegun, Outcome, Prepared, PreparedPart, Progress, RowsApart,
    TaskRange,
};

mod check;

pub use check::{check_order, check_report, check_scope, findings};

/// How much of the wire this version understands, as workers say it. Rises whenever a grant says something that a worker
/// must not overlook; what may be overlooked is a new field and no more.
///
/// 1: what of a cell must be checked comes with the load (`LoadSpec.checks`).
pub const PROTOCOL: u32 = 1;

/// Workers that understand less get no tasks. While a cluster is brought to a new version, workers come first.
pub const PROTOCOL_LEAST: u32 = 1;

/// A message that no correct peer sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {field} {problem}")]
pub struct WireError {
    pub field: &'static str,
    pub problem: String,
}

fn bad(field: &'static str, problem: &(impl ToString + ?Sized)) -> WireError {
    WireError { field, problem: problem.to_string() }
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| bad(field, "is missing"))
}

fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A job id from its text.
pub fn job_id(text: &str) -> Result<JobId, WireError> {
    text.parse().map_err(|error| bad("job_id", &error))
}

/// The attempt that a message speaks of.
pub fn attempt_key(job: &str, task: u32, epoch: u64) -> Result<AttemptKey, WireError> {
    Ok(AttemptKey { task: TaskKey { job: job_id(job)?, task: TaskId(task) }, epoch: Epoch(epoch) })
}

impl From<&ReadSpec> for pb::ReadSpec {
    fn from(read: &ReadSpec) -> Self {
        let kind = match read.kind {
            SourceKind::Mysql => pb::SourceKind::Mysql,
            SourceKind::Starrocks => pb::SourceKind::Starrocks,
        };
        Self {
            datasource: read.datasource.clone(),
            kind: kind.into(),
            database: read.database.clone(),
            table: read.table.clone(),
            hint: read.hint.clone().unwrap_or_default(),
            select: read.select.clone(),
            filter: read.filter.clone().unwrap_or_default(),
            key: read.key.clone().unwrap_or_default(),
            time_zone: read.time_zone.clone().unwrap_or_default(),
            names: read.names.clone(),
            query: read.query.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::ReadSpec> for ReadSpec {
    type Error = WireError;

    fn try_from(read: pb::ReadSpec) -> Result<Self, Self::Error> {
        let kind = match read.kind() {
            pb::SourceKind::Mysql => SourceKind::Mysql,
            pb::SourceKind::Starrocks => SourceKind::Starrocks,
            pb::SourceKind::Unspecified => return Err(bad("read.kind", "is unknown")),
        };
        if read.select.is_empty() || read.select.len() != read.names.len() {
            return Err(bad("read.names", "must be as many as read.select, at least one"));
        }
        Ok(Self {
            kind,
            datasource: read.datasource,
            database: read.database,
            table: read.table,
            hint: optional(&read.hint),
            select: read.select,
            names: read.names,
            filter: optional(&read.filter),
            key: optional(&read.key),
            time_zone: optional(&read.time_zone),
            query: optional(&read.query),
        })
    }
}

impl From<&TaskRange> for pb::TaskRange {
    fn from(range: &TaskRange) -> Self {
        use pb::task_range::Rows;
        let rows = match range {
            TaskRange::Whole => Rows::Whole(pb::Whole {}),
            TaskRange::NullKeys => Rows::NullKeys(pb::NullKeys {}),
            TaskRange::Keys(KeyRange { lower, upper }) => Rows::Keys(pb::KeyRange {
                lower: lower.as_ref().map(Key::to_string),
                upper: upper.as_ref().map(Key::to_string),
            }),
            TaskRange::Tablets(tablets) => Rows::Tablets(pb::Tablets { ids: tablets.to_vec() }),
        };
        Self { rows: Some(rows) }
    }
}

impl TryFrom<pb::TaskRange> for TaskRange {
    type Error = WireError;

    fn try_from(range: pb::TaskRange) -> Result<Self, Self::Error> {
        use pb::task_range::Rows;
        let key = |text: Option<String>| match text {
            Some(text) if text.is_empty() => Err(bad("range.keys", "has an empty end")),
            text => Ok(text.map(Key::literal)),
        };
        Ok(match required("range.rows", range.rows)? {
            Rows::Whole(_) => Self::Whole,
            Rows::NullKeys(_) => Self::NullKeys,
            Rows::Keys(range) => Self::Keys(KeyRange { lower: key(range.lower)?, upper: key(range.upper)? }),
            Rows::Tablets(tablets) if tablets.ids.is_empty() => return Err(bad("range.tablets", "is empty")),
            Rows::Tablets(tablets) => Self::Tablets(tablets.ids.into()),
        })
    }
}

impl From<&LoadSpec> for pb::LoadSpec {
    fn from(load: &LoadSpec) -> Self {
        let format = match load.format {
            Format::Csv => pb::Format::Csv,
            Format::Json => pb::Format::Json,
        };
        let kind = |kind: &CellKind| match kind {
            CellKind::Text => pb::CellKind::Text.into(),
            CellKind::Number => pb::CellKind::Number.into(),
            CellKind::Json => pb::CellKind::Json.into(),
            CellKind::Hex => pb::CellKind::Hex.into(),
        };
        Self {
            datasource: load.datasource.clone(),
            database: load.database.clone(),
            table: load.table.clone(),
            columns: load.columns.clone(),
            cell_kinds: load.cell_kinds.iter().map(kind).collect(),
            checks: load.checks.iter().map(Into::into).collect(),
            load_urls: load.load_urls.clone(),
            format: format.into(),
            column_separator: load.column_separator.as_bytes().to_vec(),
            row_delimiter: load.row_delimiter.as_bytes().to_vec(),
            named_delimiters: load.named_delimiters,
            headers: load.headers.clone().into_iter().collect(),
            max_batch_rows: load.max_batch_rows,
            max_batch_bytes: load.max_batch_bytes,
            label_prefix: load.label_prefix.clone(),
            timeout_s: load.timeout_s.unwrap_or_default(),
            max_part_bytes: load.max_part_bytes,
            on_error: match load.on_error {
                OnError::Exit => pb::OnError::Exit,
                OnError::BatchDirtyData => pb::OnError::BatchDirtyData,
            }
            .into(),
            mode: match load.mode {
                LoadMode::Transaction => pb::LoadMode::Transaction,
                LoadMode::Plain => pb::LoadMode::Plain,
            }
            .into(),
            prepared_timeout_s: load.prepared_timeout_s.unwrap_or_default(),
            compression: match load.compression {
                None => pb::Compression::Unspecified,
                Some(Compression::Lz4Frame) => pb::Compression::Lz4Frame,
                Some(Compression::Zstd) => pb::Compression::Zstd,
                Some(Compression::Gzip) => pb::Compression::Gzip,
            }
            .into(),
        }
    }
}

impl TryFrom<pb::LoadSpec> for LoadSpec {
    type Error = WireError;

    fn try_from(load: pb::LoadSpec) -> Result<Self, Self::Error> {
        let format = match load.format() {
            pb::Format::Csv => Format::Csv,
            pb::Format::Json => Format::Json,
            pb::Format::Unspecified => return Err(bad("load.format", "is unknown")),
        };
        let cell_kinds = load
            .cell_kinds()
            .map(|kind| match kind {
                pb::CellKind::Text => Ok(CellKind::Text),
                pb::CellKind::Number => Ok(CellKind::Number),
                pb::CellKind::Json => Ok(CellKind::Json),
                pb::CellKind::Hex => Ok(CellKind::Hex),
                pb::CellKind::Unspecified => Err(bad("load.cell_kinds", "has an unknown one")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let on_error = match load.on_error() {
            pb::OnError::Exit | pb::OnError::Unspecified => OnError::Exit,
            pb::OnError::BatchDirtyData => OnError::BatchDirtyData,
        };
        let mode = match load.mode() {
            pb::LoadMode::Transaction | pb::LoadMode::Unspecified => LoadMode::Transaction,
            pb::LoadMode::Plain => LoadMode::Plain,
        };
        // One that is not known here costs nothing but bytes.
        let compression = match load.compression() {
            pb::Compression::Unspecified => None,
            pb::Compression::Lz4Frame => Some(Compression::Lz4Frame),
            pb::Compression::Zstd => Some(Compression::Zstd),
            pb::Compression::Gzip => Some(Compression::Gzip),
        };
        if load.columns.is_empty() || load.columns.len() != cell_kinds.len() {
            return Err(bad("load.cell_kinds", "must be as many as load.columns, at least one"));
        }
        if load.load_urls.is_empty() {
            return Err(bad("load.load_urls", "is empty"));
        }
        if load.max_batch_rows == 0 || load.max_batch_bytes == 0 || load.max_part_bytes == 0 {
            return Err(bad("load", "has a batch or part limit of zero"));
        }
        let checks = load.checks.iter().map(CellCheck::try_from).collect::<Result<Vec<_>, _>>()?;
        let width = u32::try_from(cell_kinds.len()).unwrap_or(u32::MAX);
        if checks.iter().any(|check| check.column >= width) {
            return Err(bad("load.checks", "has one of a column that is not there"));
        }
        let delimiter = |bytes| Delimiter::new(bytes).map_err(|error| bad("load delimiter", &error));
        Ok(Self {
            format,
            cell_kinds,
            checks,
            datasource: load.datasource,
            database: load.database,
            table: load.table,
            columns: load.columns,
            load_urls: load.load_urls,
            column_separator: delimiter(load.column_separator)?,
            row_delimiter: delimiter(load.row_delimiter)?,
            named_delimiters: load.named_delimiters,
            headers: load.headers.into_iter().collect(),
            max_batch_rows: load.max_batch_rows,
            max_batch_bytes: load.max_batch_bytes,
            label_prefix: load.label_prefix,
            timeout_s: (load.timeout_s > 0).then_some(load.timeout_s),
            max_part_bytes: load.max_part_bytes,
            on_error,
            mode,
            prepared_timeout_s: (load.prepared_timeout_s > 0).then_some(load.prepared_timeout_s),
            compression,
        })
    }
}

impl From<&CellCheck> for pb::CellCheck {
    fn from(check: &CellCheck) -> Self {
        let (rule, scale) = match check.rule {
            CellRule::Truth => (pb::CellRule::Truth, 0),
            CellRule::WholeNumber => (pb::CellRule::WholeNumber, 0),
            CellRule::Decimal { scale } => (pb::CellRule::Decimal, scale),
            CellRule::Date => (pb::CellRule::Date, 0),
            CellRule::DateTime => (pb::CellRule::DateTime, 0),
            CellRule::RealDate => (pb::CellRule::RealDate, 0),
            CellRule::Json => (pb::CellRule::Json, 0),
            CellRule::NoZeroAtEnd => (pb::CellRule::NoZeroAtEnd, 0),
        };
        Self { column: check.column, rule: rule.into(), scale }
    }
}

impl TryFrom<&pb::CellCheck> for CellCheck {
    type Error = WireError;

    fn try_from(check: &pb::CellCheck) -> Result<Self, Self::Error> {
        let rule = match check.rule() {
            pb::CellRule::Truth => CellRule::Truth,
            pb::CellRule::WholeNumber => CellRule::WholeNumber,
            pb::CellRule::Decimal => CellRule::Decimal { scale: check.scale },
            pb::CellRule::Date => CellRule::Date,
            pb::CellRule::DateTime => CellRule::DateTime,
            pb::CellRule::RealDate => CellRule::RealDate,
            pb::CellRule::Json => CellRule::Json,
            pb::CellRule::NoZeroAtEnd => CellRule::NoZeroAtEnd,
            // A value that should have been looked at must not go out.
            pb::CellRule::Unspecified => return Err(bad("load.checks", "has an unknown rule")),
        };
        Ok(Self { column: check.column, rule })
    }
}

/// A granted task as the worker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub attempt: AttemptKey,
    /// 1 for the first.
    pub attempt_number: u32,
    pub lease: std::time::Duration,
    pub read: ReadSpec,
    pub range: TaskRange,
    pub load: LoadSpec,
    /// Rows; 0 when unknown.
    pub rows_estimate: u64,
    /// This task's share of the job's speed limit.
    pub bytes_per_second: Option<u64>,
    /// Bad rows that the job still tolerates; `u64::MAX`: any number.
    pub dirty_allowed: u64,
}

impl TryFrom<pb::TaskGrant> for Grant {
    type Error = WireError;

    fn try_from(grant: pb::TaskGrant) -> Result<Self, Self::Error> {
        let read: ReadSpec = required("grant.read", grant.read)?.try_into()?;
        let load: LoadSpec = required("grant.load", grant.load)?.try_into()?;
        if read.select.len() != load.columns.len() {
            return Err(bad("grant", "reads and loads different numbers of columns"));
        }
        Ok(Self {
            attempt: attempt_key(&grant.job_id, grant.task_id, grant.epoch)?,
            attempt_number: grant.attempt,
            lease: std::time::Duration::from_millis(grant.lease_ms.into()),
            read,
            range: required("grant.range", grant.range)?.try_into()?,
            load,
            rows_estimate: grant.rows_estimate,
            bytes_per_second: (grant.bytes_per_second > 0).then_some(grant.bytes_per_second),
            dirty_allowed: grant.dirty_allowed,
        })
    }
}

impl From<&Grant> for pb::TaskGrant {
    fn from(grant: &Grant) -> Self {
        Self {
            job_id: grant.attempt.task.job.to_string(),
            task_id: grant.attempt.task.task.0,
            epoch: grant.attempt.epoch.0,
            attempt: grant.attempt_number,
            lease_ms: u32::try_from(grant.lease.as_millis()).unwrap_or(u32::MAX),
            read: Some((&grant.read).into()),
            range: Some((&grant.range).into()),
            load: Some((&grant.load).into()),
            rows_estimate: grant.rows_estimate,
            bytes_per_second: grant.bytes_per_second.unwrap_or_default(),
            dirty_allowed: grant.dirty_allowed,
        }
    }
}

/// One line of a heartbeat, from the worker's side.
pub fn task_progress(attempt: AttemptKey, progress: &Progress) -> pb::TaskProgress {
    pb::TaskProgress {
        job_id: attempt.task.job.to_string(),
        task_id: attempt.task.task.0,
        epoch: attempt.epoch.0,
        rows_read: progress.rows_read,
        bytes_read: progress.bytes_read,
        rows_sent: progress.rows_sent,
        bytes_sent: progress.bytes_sent,
        parts_begun: progress.begun.parts,
        trials_begun: progress.begun.trials,
    }
}

/// One line of a heartbeat, from the coordinator's side.
pub fn attempt_progress(line: &pb::TaskProgress) -> Result<(AttemptKey, Progress), WireError> {
    let progress = Progress {
        rows_read: line.rows_read,
        bytes_read: line.bytes_read,
        rows_sent: line.rows_sent,
        bytes_sent: line.bytes_sent,
        begun: LabelsBegun { parts: line.parts_begun, trials: line.trials_begun },
    };
    Ok((attempt_key(&line.job_id, line.task_id, line.epoch)?, progress))
}

impl From<&Problem> for pb::Problem {
    fn from(problem: &Problem) -> Self {
        Self {
            code: problem.code.as_str().to_owned(),
            message: problem.message.clone(),
            place: problem.place.clone(),
            hint: problem.hint.clone(),
        }
    }
}

impl From<pb::Problem> for Problem {
    fn from(problem: pb::Problem) -> Self {
        Self {
            code: Code::from_name(&problem.code),
            message: problem.message,
            place: problem.place,
            hint: problem.hint,
        }
    }
}

/// A problem as the details of a gRPC status, so that a caller gets code, place and hint back.
pub fn status_details(problem: &Problem) -> Vec<u8> {
    pb::Problem::from(problem).encode_to_vec()
}

/// The problem in a gRPC status's details; `None` when the status carries none.
pub fn problem_of_status(details: &[u8]) -> Option<Problem> {
    pb::Problem::decode(details).ok().filter(|problem| !problem.code.is_empty()).map(Into::into)
}

impl From<&PreparedPart> for pb::PreparedPart {
    fn from(part: &PreparedPart) -> Self {
        Self {
            label: part.label.clone(),
            txn_id: part.txn_id,
            rows_sent: part.rows_sent,
            rows_loaded: part.rows_loaded,
            rows_filtered: part.rows_filtered,
            rows_unselected: part.rows_unselected,
            bytes_sent: part.bytes_sent,
            loads: part.loads,
        }
    }
}

impl From<pb::PreparedPart> for PreparedPart {
    fn from(part: pb::PreparedPart) -> Self {
        Self {
            label: part.label,
            txn_id: part.txn_id,
            rows_sent: part.rows_sent,
            rows_loaded: part.rows_loaded,
            rows_filtered: part.rows_filtered,
            rows_unselected: part.rows_unselected,
            bytes_sent: part.bytes_sent,
            loads: part.loads,
        }
    }
}

impl From<&BadRow> for pb::BadRow {
    fn from(row: &BadRow) -> Self {
        Self { key: row.key.clone(), column: row.column.clone(), reason: row.reason.clone() }
    }
}

impl From<pb::BadRow> for BadRow {
    fn from(row: pb::BadRow) -> Self {
        Self { key: row.key, column: row.column, reason: row.reason }
    }
}

fn prepared_to_wire(prepared: &Prepared, bad_rows: &[BadRow]) -> pb::Prepared {
    pb::Prepared {
        parts: prepared.parts.iter().map(Into::into).collect(),
        rows_read: prepared.rows_read,
        bytes_read: prepared.bytes_read,
        retries: prepared.retries,
        dirty_records: prepared.dirty_records,
        bad_rows: bad_rows.iter().map(Into::into).collect(),
        dirty_file: prepared.dirty_file.clone(),
        filtered_apart: prepared.apart.filtered,
        unselected_apart: prepared.apart.unselected,
    }
}

fn prepared_of_wire(prepared: pb::Prepared) -> (Prepared, Vec<BadRow>) {
    let bad_rows = prepared.bad_rows.into_iter().map(Into::into).collect();
    let prepared = Prepared {
        parts: prepared.parts.into_iter().map(Into::into).collect(),
        rows_read: prepared.rows_read,
        bytes_read: prepared.bytes_read,
        retries: prepared.retries,
        dirty_records: prepared.dirty_records,
        dirty_file: prepared.dirty_file,
        apart: RowsApart { filtered: prepared.filtered_apart, unselected: prepared.unselected_apart },
    };
    (prepared, bad_rows)
}

/// The wire form of an attempt's end.
pub fn report(worker_id: &str, attempt: AttemptKey, outcome: &Outcome) -> pb::ReportRequest {
    use pb::report_request::Outcome as Wire;
    let outcome = match outcome {
        Outcome::Prepared { prepared, bad_rows } => Wire::Prepared(prepared_to_wire(prepared, bad_rows)),
        Outcome::Loaded { prepared, counted } => {
            Wire::Loaded(pb::Loaded { load: Some(prepared_to_wire(prepared, &[])), counted: *counted })
        }
        Outcome::Failed { class, problem, begun, all_rolled_back } => {
            let class = match class {
                FailureClass::Transient => pb::FailureClass::Transient,
                FailureClass::Permanent => pb::FailureClass::Permanent,
                FailureClass::Distress => pb::FailureClass::Distress,
                FailureClass::Unknown => pb::FailureClass::Unknown,
            };
            Wire::Failed(pb::Failed {
                class: class.into(),
                problem: Some(problem.into()),
                parts_begun: begun.parts,
                trials_begun: begun.trials,
                all_rolled_back: *all_rolled_back,
            })
        }
        Outcome::GivenBack { begun, all_rolled_back } => Wire::GivenBack(pb::GivenBack {
            parts_begun: begun.parts,
            trials_begun: begun.trials,
            all_rolled_back: *all_rolled_back,
        }),
    };
    pb::ReportRequest {
        worker_id: worker_id.to_owned(),
        job_id: attempt.task.job.to_string(),
        task_id: attempt.task.task.0,
        epoch: attempt.epoch.0,
        outcome: Some(outcome),
    }
}

/// An attempt's end as the coordinator takes it.
pub fn outcome(request: pb::ReportRequest) -> Result<(AttemptKey, Outcome), WireError> {
    use pb::report_request::Outcome as Wire;
    let attempt = attempt_key(&request.job_id, request.task_id, request.epoch)?;
    let outcome = match required("report.outcome", request.outcome)? {
        Wire::Prepared(prepared) => {
            let (prepared, bad_rows) = prepared_of_wire(prepared);
            Outcome::Prepared { prepared, bad_rows }
        }
        Wire::Loaded(loaded) => {
            let (prepared, _) = prepared_of_wire(required("report.loaded.load", loaded.load)?);
            Outcome::Loaded { prepared, counted: loaded.counted }
        }
        Wire::Failed(failed) => Outcome::Failed {
            class: match failed.class() {
                // An unknown class comes from a newer worker; trying again is the safe reading.
                pb::FailureClass::Transient | pb::FailureClass::Unspecified => FailureClass::Transient,
                pb::FailureClass::Permanent => FailureClass::Permanent,
                pb::FailureClass::Distress => FailureClass::Distress,
                pb::FailureClass::Unknown => FailureClass::Unknown,
            },
            problem: required("report.failed.problem", failed.problem)?.into(),
            begun: LabelsBegun { parts: failed.parts_begun, trials: failed.trials_begun },
            all_rolled_back: failed.all_rolled_back,
        },
        Wire::GivenBack(back) => Outcome::GivenBack {
            begun: LabelsBegun { parts: back.parts_begun, trials: back.trials_begun },
            all_rolled_back: back.all_rolled_back,
        },
    };
    Ok((attempt, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_arrives_as_it_was_sent_and_an_unknown_one_is_refused() {
        for rule in [
            CellRule::Truth,
            CellRule::WholeNumber,
            CellRule::Decimal { scale: 7 },
            CellRule::Date,
            CellRule::DateTime,
            CellRule::RealDate,
            CellRule::Json,
            CellRule::NoZeroAtEnd,
        ] {
            let check = CellCheck { column: 3, rule };
            assert_eq!(CellCheck::try_from(&pb::CellCheck::from(&check)), Ok(check));
        }
        let of_tomorrow = pb::CellCheck { column: 0, rule: 1000, scale: 0 };
        assert!(CellCheck::try_from(&of_tomorrow).is_err());
    }
}
