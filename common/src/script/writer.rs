//! The writer step's `parameter`: a [`TargetSpec`].

use super::faults::Faults;
use super::fields::{Object, show};
use super::reader::{IGNORED, all_or_listed, read_column_list};
use super::steps::Step;
use super::{load_props, relations, sql};
use crate::job::{ColumnList, OnError, TargetSpec};
use crate::{label, load_url};

const KEYS: &[&str] = &[
    "datasource",
    "selectedDatabase",
    "table",
    "column",
    "loadUrl",
    "loadProps",
    "preSql",
    "postSql",
    "maxBatchRows",
    "maxBatchSize",
    "strategyOnError",
    "labelPrefix",
    "connection",
];

/// Batches are streamed, so a partly filled one never waits.
const WITHOUT_MEANING: &[&str] = &["flushInterval", "flushQueueLength"];

const DEFAULT_BATCH_ROWS: u64 = 500_000;
const DEFAULT_BATCH_BYTES: u64 = 5_242_880;
/// Below this a batch is hardly worth its request.
const SMALL_BATCH_BYTES: u64 = 1 << 20;
/// Where people meet the query port.
const QUERY_PORT: u16 = 9030;

pub(super) fn read(step: &Step<'_>, faults: &Faults) -> Option<TargetSpec> {
    let kind = step.kind(&["starrocks"], faults);
    let parameter = Object::new(format!("{}/parameter", step.pointer), step.parameter, faults);
    parameter.refuse_unknown_keys(KEYS, &[IGNORED, WITHOUT_MEANING].concat());
    let relation = relations::read_one(&parameter, faults);
    let columns = read_columns(&parameter, faults);
    let load_urls = read_load_urls(&parameter, faults);
    let load = load_props::read(&parameter, columns.as_ref(), faults);
    let pre_sql = read_statements(&parameter, "preSql", faults);
    let post_sql = read_statements(&parameter, "postSql", faults);
    let batch_rule = "must be a positive integer";
    let max_batch_rows = parameter.integer("maxBatchRows", 1, batch_rule);
    let max_batch_bytes = parameter.integer("maxBatchSize", 1, batch_rule);
    if let Some(bytes) = max_batch_bytes.filter(|bytes| *bytes < SMALL_BATCH_BYTES) {
        let message =
            format!("very small batches ({bytes} bytes) make many load requests; 64 MiB is a good size");
        faults.warn(&parameter.place("maxBatchSize"), message);
    }
    let on_error = read_strategy(&parameter, faults);
    let label_prefix = read_label_prefix(&parameter, faults);
    let (_, (table, relation), columns) = (kind?, relation?, columns?);
    Some(TargetSpec {
        datasource: relation.datasource,
        database: relation.database,
        table,
        columns,
        load_urls,
        load,
        pre_sql,
        post_sql,
        max_batch_rows: max_batch_rows.unwrap_or(DEFAULT_BATCH_ROWS),
        max_batch_bytes: max_batch_bytes.unwrap_or(DEFAULT_BATCH_BYTES),
        on_error,
        label_prefix,
    })
}

/// Plain names; StarRocks compares them without case, so two that differ in case only are one.
fn read_columns(parameter: &Object<'_>, faults: &Faults) -> Option<ColumnList> {
    let texts = read_column_list(parameter, faults)?;
    let mut names: Vec<String> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let place = format!("{}/{index}", parameter.place("column"));
        let Some(name) = sql::unquote(text) else {
            let message = format!("\"{text}\" is not a column name");
            faults.error(&place, message, "a writer's column is a name; expressions belong into the reader");
            continue;
        };
        if names.iter().any(|earlier| earlier.to_lowercase() == name.to_lowercase()) {
            let message = format!("column \"{name}\" listed twice in the writer");
            faults.error(&place, message, "each column is written once");
        }
        names.push(name);
    }
    if names.len() < texts.len() {
        return None;
    }
    all_or_listed(parameter, names, faults)
}

/// Empty when the job names none: the data source may.
fn read_load_urls(parameter: &Object<'_>, faults: &Faults) -> Vec<String> {
    let mut urls = Vec::new();
    for (place, text) in parameter.texts("loadUrl") {
        match load_url::parse_list(&text, None) {
            Ok(parsed) => urls.extend(parsed),
            Err(error) => faults.error(&place, error.to_string(), "loadUrl holds host:http_port of FEs"),
        }
    }
    if urls.iter().any(|url| load_url::port(url) == Some(QUERY_PORT)) {
        let message = "9030 is the default *query* port; Stream Load needs the HTTP port (8030)";
        faults.warn(&parameter.place("loadUrl"), message);
    }
    urls
}

/// `preSql` or `postSql`, one statement each.
fn read_statements(parameter: &Object<'_>, key: &str, faults: &Faults) -> Vec<String> {
    let mut statements = Vec::new();
    for (place, text) in parameter.texts(key) {
        match sql::split_statements(&text) {
            Ok(split) => statements.extend(split),
            Err(fault) => faults.error(&place, format!("{} of {key}", fault.describe(&text)), "close it"),
        }
    }
    statements
}

fn read_strategy(parameter: &Object<'_>, faults: &Faults) -> OnError {
    let Some(value) = parameter.get("strategyOnError") else {
        return OnError::default();
    };
    let place = parameter.place("strategyOnError");
    match value.as_str().map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        Some("" | "exit") => OnError::Exit,
        Some("batchdirtydata") => OnError::BatchDirtyData,
        _ => {
            let message = format!("strategyOnError must be exit or batchDirtyData, not {}", show(value));
            faults.error(&place, message, "");
            OnError::default()
        }
    }
}

fn read_label_prefix(parameter: &Object<'_>, faults: &Faults) -> String {
    let prefix = parameter.text("labelPrefix").unwrap_or_else(|| label::DEFAULT_PREFIX.to_owned());
    if !label::is_valid_prefix(&prefix) {
        let message = format!(
            "labelPrefix must be 1 to {} letters, digits, _ or -, not \"{prefix}\"",
            label::MAX_PREFIX_BYTES
        );
        faults.error(&parameter.place("labelPrefix"), message, "");
    }
    prefix
}
