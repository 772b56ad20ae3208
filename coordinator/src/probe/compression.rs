//! Finds out whether the target unpacks bodies as the job wants to pack them: a few copies of one row of the source,
//! packed, in a transaction that is rolled back. A server that does not know a packed format refuses it, and one that
//! overlooks the announcement takes the packed bytes for text and counts other rows than were sent. Either way, and
//! whenever it cannot be told, the plan goes without compression and says why; it never fails for that.

use mysql_async::prelude::Queryable;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use starlift_common::datasource::Datasources;
use starlift_common::ids::JobId;
use starlift_common::job::{CellKind, Compression, Format, LoadMode, LoadSpec, ReadSpec};
use starlift_common::label::Label;
use starlift_common::query::select;
use starlift_common::task::TaskRange;
use starlift_remote::mysql::{SessionSettings, connect};
use starlift_remote::starrocks::client::{CallError, Client, TxnTarget};
use starlift_remote::starrocks::outcome::Answer;
use starlift_remote::starrocks::packing::packed;
use tracing::{debug, warn};

use super::target::{CHECK_TIMEOUT, CHECK_TRIES, begin_headers};
use super::text;
use crate::plan::Plan;

/// Stands for raw bytes, which go as hexadecimal digits.
const DIGITS: &str = "00ff";

/// Copies of the row. Packed bytes taken for text may well make one row, hardly so many.
const COPIES: u64 = 7;

/// Takes the compression out of the plan, with a warning, unless the target is seen to unpack it. Without a row in the
/// source there is nothing to try, and nothing that could go wrong.
pub(crate) async fn compression(plan: &mut Plan, datasources: &Datasources, job: JobId) {
    let Some(compression) = plan.load.compression else { return };
    if let Err(why) = attempt(plan, compression, datasources, job).await {
        plan.load.compression = None;
        plan.warnings.push(format!("bodies are sent without compression {}: {why}", compression.name()));
    }
}

/// The error is for people.
async fn attempt(
    plan: &Plan,
    compression: Compression,
    datasources: &Datasources,
    job: JobId,
) -> Result<(), String> {
    let load = &plan.load;
    if load.mode == LoadMode::Plain {
        return Err("the server has no transactions in which it could be tried".into());
    }
    let Some(read) = plan.shards.first() else { return Ok(()) };
    let row =
        first_row(read, datasources).await.map_err(|error| format!("no row to try it with: {error}"))?;
    let Some(row) = row else { return Ok(()) };
    let body = packed(compression, &sample(load, &row)).map_err(|error| error.to_string())?;
    let headers = headers(load, compression).ok_or("a header cannot be sent")?;
    let datasource = datasources.find(&load.datasource, "").map_err(|problem| problem.message)?;
    let client = Client::new(datasource, &load.load_urls).map_err(|problem| problem.message)?;
    let mut tries = 1;
    loop {
        match load_and_roll_back(&client, load, job, &headers, body.clone()).await {
            // Whatever became of it was rolled back; the next try has another label.
            Err(error) if error.is_unknown() && tries < CHECK_TRIES => tries += 1,
            answered => return verdict(answered),
        }
    }
}

async fn first_row(
    read: &ReadSpec,
    datasources: &Datasources,
) -> Result<Option<Vec<Option<String>>>, String> {
    let datasource = datasources.find(&read.datasource, "").map_err(|problem| problem.message)?;
    let settings = SessionSettings { time_zone: read.time_zone.as_deref(), long_read: false };
    let mut conn = connect(datasource, None, settings).await.map_err(|problem| problem.message)?;
    let sql = format!("{} LIMIT 1", select(read, &TaskRange::Whole));
    let row: Option<mysql_async::Row> = conn.query_first(sql).await.map_err(|error| error.to_string())?;
    // Everything is known; the server drops the connection in any case.
    let _ = conn.disconnect().await;
    Ok(row.map(|row| row.unwrap().into_iter().map(text).collect()))
}

/// A body of [`COPIES`] rows in the planned format. It only has to count as so many: in CSV, bytes of the delimiters are
/// left out of the values.
fn sample(load: &LoadSpec, row: &[Option<String>]) -> Vec<u8> {
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
            line.extend_from_slice(end);
            (0..COPIES).flat_map(|_| line.clone()).collect()
        }
        Format::Json => {
            let cells = row.iter().zip(&load.cell_kinds).map(|(cell, kind)| json(cell.as_deref(), *kind));
            let object: Map<String, Value> = load.cell_names().into_iter().zip(cells).collect();
            let rows: Vec<Value> = (0..COPIES).map(|_| Value::Object(object.clone())).collect();
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

/// As a load of the job has them, but that no row can be refused for its content and none is left unselected. `None`
/// when one of the job's headers cannot be sent.
fn headers(load: &LoadSpec, compression: Compression) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut set = |name: &str, value: &str| {
        let name: HeaderName = name.parse().ok()?;
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        Some(())
    };
    set("columns", &load.columns_header())?;
    for (name, value) in load.headers.iter().filter(|(name, _)| *name != "where") {
        set(name, value)?;
    }
    set("strict_mode", "false")?;
    set("max_filter_ratio", "1")?;
    match load.format {
        Format::Csv => {
            set("format", compression.csv_format())?;
            set("column_separator", &load.column_separator.header())?;
            set("row_delimiter", &load.row_delimiter.header())?;
        }
        Format::Json => {
            set("format", "json")?;
            set("compression", compression.name())?;
            set("strip_outer_array", "true")?;
            set("ignore_json_size", "true")?;
        }
    }
    Some(headers)
}

/// What the server says at the end; the transaction is rolled back.
async fn load_and_roll_back(
    client: &Client,
    load: &LoadSpec,
    job: JobId,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Result<Answer, CallError> {
    let LoadSpec { database, table, .. } = load;
    let label = Label::probe(&load.label_prefix, job, fastrand::u32(..));
    let target = TxnTarget { database, table, label: &label };
    let answered = async {
        let begun = client.begin(target, &begin_headers(&load.headers)).await?;
        client.load(target, &begun.backend, headers, body.into(), CHECK_TIMEOUT).await?;
        client.prepare(target, &begun.backend, &HeaderMap::new(), CHECK_TIMEOUT).await
    };
    let answered = answered.await;
    debug!(%label, answer = ?answered, "compression tried");
    if let Err(error) = client.rollback(database, table, &label).await {
        // After some refusals the server has aborted it by itself.
        warn!(%label, %error, "the trial of compression was not rolled back; it ends by its own timeout");
    }
    answered
}

/// Rows that are counted were unpacked, whatever is thought of their content.
fn verdict(answered: Result<Answer, CallError>) -> Result<(), String> {
    let counted = match &answered {
        Ok(answer) => answer.total(),
        Err(error) => error.answer().map_or(0, Answer::total),
    };
    match answered {
        _ if counted == COPIES => Ok(()),
        Ok(_) => Err(format!("of {COPIES} packed rows the server counted {counted}")),
        Err(error) => Err(error.problem().message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::load;

    fn refused(body: &str) -> Result<Answer, CallError> {
        let answer = Box::new(Answer::parse(body.as_bytes()).expect("an answer"));
        Err(CallError::Refused { host: "be:8040".into(), answer })
    }

    #[test]
    fn rows_that_are_counted_were_unpacked_and_nothing_else_shows_that() {
        let prepared = |body: &str| Ok(Answer::parse(body.as_bytes()).expect("an answer"));
        assert_eq!(verdict(prepared(r#"{"Status":"OK","NumberLoadedRows":7}"#)), Ok(()));
        assert_eq!(
            verdict(prepared(r#"{"Status":"OK","NumberLoadedRows":5,"NumberFilteredRows":2}"#)),
            Ok(())
        );
        let filtered = r#"{"Status":"INTERNAL_ERROR","Message":"all partitions have no load data","NumberFilteredRows":7}"#;
        assert_eq!(verdict(refused(filtered)), Ok(()));

        let one_row = verdict(prepared(r#"{"Status":"OK","NumberLoadedRows":0,"NumberFilteredRows":1}"#));
        assert_eq!(one_row, Err("of 7 packed rows the server counted 1".into()));
        let unknown =
            verdict(refused(r#"{"Status":"INTERNAL_ERROR","Message":"unknown data format, format=lz4"}"#));
        assert!(unknown.is_err_and(|why| why.contains("unknown data format, format=lz4")));
        let silent = verdict(refused(r#"{"Status":"Fail","Message":"all partitions have no load data"}"#));
        assert!(silent.is_err(), "packed bytes taken for text are filtered too");
    }

    #[test]
    fn the_sample_has_as_many_rows_whatever_the_values_hold() {
        let mut load = load();
        load.columns = vec!["id".into(), "note".into()];
        load.cell_kinds = vec![CellKind::Number, CellKind::Text];
        let row = [Some("1".to_owned()), Some("a\u{1}b\u{2}c".to_owned())];
        assert_eq!(sample(&load, &row), b"1\x01abc\x02".repeat(7));
        assert_eq!(sample(&load, &[None, Some(String::new())]), b"\\N\x01\x02".repeat(7));

        load.format = Format::Json;
        let body: Value = serde_json::from_slice(&sample(&load, &row)).expect("JSON");
        assert_eq!(body.as_array().map(Vec::len), Some(7));
        assert_eq!(body[6], serde_json::json!({ "id": 1, "note": "a\u{1}b\u{2}c" }));
    }

    #[test]
    fn the_trial_is_announced_as_the_jobs_loads_are_and_judges_no_row() {
        let mut load = load();
        for (name, value) in [("where", "id > 0"), ("partial_update", "true"), ("strict_mode", "true")] {
            load.headers.insert(name.into(), value.into());
        }
        let csv = headers(&load, Compression::Lz4Frame).expect("headers");
        assert_eq!(
            (&csv["format"], &csv["strict_mode"], &csv["max_filter_ratio"]),
            (
                &"lz4".parse().expect("a value"),
                &"false".parse().expect("a value"),
                &"1".parse().expect("a value")
            )
        );
        assert!(
            csv.contains_key("partial_update")
                && !csv.contains_key("where")
                && !csv.contains_key("compression")
        );
        load.format = Format::Json;
        let json = headers(&load, Compression::Lz4Frame).expect("headers");
        assert_eq!(
            (&json["format"], &json["compression"]),
            (&"json".parse().expect("a value"), &"lz4_frame".parse().expect("a value"))
        );
    }
}
