//! One row of the source, loaded in a transaction that is rolled back: shows that the way from source to target is open,
//! and whether the target unpacks bodies as the job wants to pack them. A server that does not know a packed format
//! refuses it, and one that overlooks the announcement takes the packed bytes for text and counts other rows than were
//! sent. Changes nothing, and judges no value.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use serde_json::{Map, Value};
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::ids::JobId;
use starlift_common::job::{CellKind, Format, LoadSpec, ReadSpec};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::query::select;
use starlift_common::task::TaskRange;

use crate::mysql::{SessionSettings, connect, explain};
use crate::rows::texts;
use crate::starrocks::client::{CallError, Client, TxnTarget, host_of};
use crate::starrocks::headers::{Form, LoadHeaders, TxnTimes};
use crate::starrocks::outcome::Answer;
use crate::starrocks::packing::packed;

/// Stands for raw bytes, which go as hexadecimal digits.
const DIGITS: &str = "00ff";

/// Copies of the row in a packed body. Packed bytes taken for text may well make one row, hardly so many.
pub const PACKED_COPIES: u64 = 7;

/// How long the transaction may live if its rollback gets lost, in seconds.
pub const TIMEOUT_S: u32 = 60;

/// How long a call that carries rows may take.
const PATIENCE: Duration = Duration::from_secs(TIMEOUT_S as u64);

/// How often a trial is begun when its answer gets lost.
pub const TRIES: u32 = 3;

/// Cells as text; NULL is `None`.
pub type SampleRow = Vec<Option<String>>;

/// What the server made of the rows before it forgot them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub loaded: u64,
    pub filtered: u64,
    /// The BE that took them.
    pub backend: String,
}

/// The first row that a job reads; `None`: there is none.
pub async fn first_row(read: &ReadSpec, datasources: &Datasources) -> Result<Option<SampleRow>, Problem> {
    let datasource = datasources.find(&read.datasource, "")?;
    let settings = SessionSettings { time_zone: read.time_zone.as_deref(), long_read: false };
    let mut conn = connect(datasource, None, settings).await?;
    let sql = format!("{} LIMIT 1", select(read, &TaskRange::Whole));
    let failed = |error| explain(datasource, &read.table, &error);
    let row: Option<mysql_async::Row> = conn.query_first(sql).await.map_err(failed)?;
    // Everything is known; the server drops the connection in any case.
    let _ = conn.disconnect().await;
    Ok(row.map(texts))
}

/// Loads `copies` of the row as `load` says, packed where it says so, and rolls back. The error tells why the target did
/// not count as many.
pub async fn load_and_roll_back(
    load: &LoadSpec,
    datasource: &Datasource,
    job: JobId,
    row: &SampleRow,
    copies: u64,
) -> Result<Counted, Problem> {
    let headers = LoadHeaders::new(load, &Form::planned(load), TxnTimes::brief(TIMEOUT_S))?;
    let body = sample(load, row, copies);
    let body = match headers.compression {
        None => body,
        Some(compression) => packed(compression, &body)
            .map_err(|error| Problem::new(Code::Internal, format!("a row cannot be packed: {error}")))?,
    };
    let client = Client::new(datasource, &load.load_urls)?;
    let mut tries = 1;
    loop {
        let mut backend = String::new();
        match attempt(&client, load, job, &headers, body.clone(), &mut backend).await {
            // Whatever became of it was rolled back; the next try has another label.
            Err(error) if error.is_unknown() && tries < TRIES => tries += 1,
            answered => return verdict(answered, copies, backend),
        }
    }
}

/// What the server says at the end; the transaction is rolled back.
async fn attempt(
    client: &Client,
    load: &LoadSpec,
    job: JobId,
    headers: &LoadHeaders,
    body: Vec<u8>,
    backend: &mut String,
) -> Result<Answer, CallError> {
    let LoadSpec { database, table, .. } = load;
    let label = Label::probe(&load.label_prefix, job, fastrand::u32(..));
    let target = TxnTarget { database, table, label: &label };
    let answered = async {
        let begun = client.begin(target, &headers.begin).await?;
        *backend = host_of(&begun.backend);
        client.load(target, &begun.backend, &headers.load_of_any_row(), body.into(), PATIENCE).await?;
        client.prepare(target, &begun.backend, &headers.prepare, PATIENCE).await
    };
    let answered = answered.await;
    // After some refusals the server has aborted it by itself; otherwise it ends by its own timeout.
    let _ = client.rollback(database, table, &label).await;
    answered
}

/// Rows that are counted were understood, whatever is thought of their content.
fn verdict(answered: Result<Answer, CallError>, copies: u64, backend: String) -> Result<Counted, Problem> {
    let counts = |answer: &Answer| (answer.total(), answer.loaded_rows, answer.filtered_rows);
    let (total, loaded, filtered) = match &answered {
        Ok(answer) => counts(answer),
        Err(error) => error.answer().map_or((0, 0, 0), counts),
    };
    match answered {
        _ if total == copies => Ok(Counted { loaded, filtered, backend }),
        Ok(_) => {
            Err(Problem::new(Code::LoadFailed, format!("of {copies} rows sent the server counted {total}"))
                .at(backend))
        }
        Err(error) => Err(error.problem()),
    }
}

/// A body of so many rows in the planned format. It only has to count as so many: in CSV, bytes of the delimiters are
/// left out of the values.
fn sample(load: &LoadSpec, row: &SampleRow, copies: u64) -> Vec<u8> {
    match load.format {
        Format::Csv => {
            let (column, end) = (load.column_separator.as_bytes(), load.row_delimiter.as_bytes());
            let is_free = |byte: &u8| !column.contains(byte) && !end.contains(byte);
            let cells: Vec<Vec<u8>> = row
                .iter()
                .zip(&load.cell_kinds)
                .map(|(cell, kind)| match cell {
                    // Any digits will do, as long as they are some.
                    Some(_) if *kind == CellKind::Hex => DIGITS.into(),
                    Some(text) => text.bytes().filter(is_free).collect(),
                    None => b"\\N".to_vec(),
                })
                .collect();
            let mut line = cells.join(column);
            if line.is_empty() {
                // A blank line is no row.
                line.extend_from_slice(b"\\N");
            }
            line.extend_from_slice(end);
            (0..copies).flat_map(|_| line.clone()).collect()
        }
        Format::Json => {
            let cells = row.iter().zip(&load.cell_kinds).map(|(cell, kind)| json(cell.as_deref(), *kind));
            let object: Map<String, Value> = load.cell_names().into_iter().zip(cells).collect();
            let rows: Vec<Value> = (0..copies).map(|_| Value::Object(object.clone())).collect();
            Value::Array(rows).to_string().into_bytes()
        }
    }
}

fn json(cell: Option<&str>, kind: CellKind) -> Value {
    let Some(text) = cell else { return Value::Null };
    let parsed = match kind {
        CellKind::Text => None,
        CellKind::Hex => return DIGITS.into(),
        CellKind::Number | CellKind::Json => serde_json::from_str(text).ok(),
    };
    parsed.unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::load_spec;

    fn refused(body: &str) -> Result<Answer, CallError> {
        let answer = Box::new(Answer::parse(body.as_bytes()).expect("an answer"));
        Err(CallError::Refused { host: "be:8040".into(), answer })
    }

    #[test]
    fn rows_that_are_counted_were_unpacked_and_nothing_else_shows_that() {
        let judge = |answered| verdict(answered, 7, "be:8040".into());
        let prepared = |body: &str| Ok(Answer::parse(body.as_bytes()).expect("an answer"));
        let counted = |loaded, filtered| Ok(Counted { loaded, filtered, backend: "be:8040".into() });
        assert_eq!(judge(prepared(r#"{"Status":"OK","NumberLoadedRows":7}"#)), counted(7, 0));
        assert_eq!(
            judge(prepared(r#"{"Status":"OK","NumberLoadedRows":5,"NumberFilteredRows":2}"#)),
            counted(5, 2)
        );
        let filtered = r#"{"Status":"INTERNAL_ERROR","Message":"all partitions have no load data","NumberFilteredRows":7}"#;
        assert_eq!(judge(refused(filtered)), counted(0, 7));

        let one_row = judge(prepared(r#"{"Status":"OK","NumberLoadedRows":0,"NumberFilteredRows":1}"#));
        assert_eq!(one_row.expect_err("too few").message, "of 7 rows sent the server counted 1");
        let unknown =
            judge(refused(r#"{"Status":"INTERNAL_ERROR","Message":"unknown data format, format=lz4"}"#));
        assert!(unknown.is_err_and(|why| why.message.contains("unknown data format, format=lz4")));
        let silent = judge(refused(r#"{"Status":"Fail","Message":"all partitions have no load data"}"#));
        assert!(silent.is_err(), "packed bytes taken for text are filtered too");
    }

    #[test]
    fn the_sample_has_as_many_rows_whatever_the_values_hold() {
        let mut load = load_spec();
        load.columns = vec!["id".into(), "note".into()];
        load.cell_kinds = vec![CellKind::Number, CellKind::Text];
        let row = vec![Some("1".to_owned()), Some("a\u{1}b\u{2}c".to_owned())];
        assert_eq!(sample(&load, &row, 7), b"1\x01abc\x02".repeat(7));
        assert_eq!(sample(&load, &vec![None, Some(String::new())], 1), b"\\N\x01\x02");
        assert_eq!(sample(&load, &vec![Some(String::new())], 1), b"\\N\x02", "a blank line is no row");

        load.format = Format::Json;
        let body: Value = serde_json::from_slice(&sample(&load, &row, 7)).expect("JSON");
        assert_eq!(body.as_array().map(Vec::len), Some(7));
        assert_eq!(body[6], serde_json::json!({ "id": 1, "note": "a\u{1}b\u{2}c" }));
    }
}
