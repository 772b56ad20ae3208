//! The reader step's `parameter`: a [`SourceSpec`]; and the column list, which the writer has too.

use serde_json::Value;

use super::faults::Faults;
use super::fields::{Object, is_no_limit, show};
use super::steps::Step;
use super::{relations, sql};
use crate::job::{ColumnList, Relation, RelationSpec, SourceKind, SourceSpec};

const KEYS: &[&str] = &[
    "datasource",
    "selectedDatabase",
    "table",
    "column",
    "where",
    "splitPk",
    "splitFactor",
    "connection",
    "querySql",
];

/// Wizard metadata without a meaning for the data.
pub(super) const IGNORED: &[&str] = &[
    "envType",
    "useSpecialSecret",
    "tableComment",
    "indexes",
    "partitionKey",
    "guid",
    "isSupportThreeModel",
    "tunnelQuota",
    "encoding",
    "socketTimeout",
];

/// Which replica to read from, and how far behind it may be.
const REPLICA: &[&str] = &["useReadOnly", "canReadPrimary", "masterSlave", "checkSlave", "slaveDelayLimit"];

const DEFAULT_SPLIT_FACTOR: u32 = 5;

/// The columns of a step, and a hint found in front of the first one.
struct Columns {
    list: ColumnList,
    hint: Option<String>,
}

/// `split_factor_most`: the largest `splitFactor` that is accepted.
pub(super) fn read(step: &Step<'_>, split_factor_most: u64, faults: &Faults) -> Option<SourceSpec> {
    let kind = step.kind(&["starrocks", "mysql"], faults).map(|kind| match kind {
        "mysql" => SourceKind::Mysql,
        _ => SourceKind::Starrocks,
    });
    let parameter = Object::new(format!("{}/parameter", step.pointer), step.parameter, faults);
    parameter.refuse_unknown_keys(KEYS, &[IGNORED, REPLICA].concat());
    warn_of_ignored(&parameter, faults);
    let relations = relations::read(&parameter, faults);
    if relations.as_ref().is_some_and(|relations| relations.iter().any(is_query)) {
        warn_of_void_keys(&parameter, faults);
        return Some(SourceSpec {
            kind: kind?,
            relations: relations?,
            columns: ColumnList::All,
            hint: None,
            filter: None,
            split_key: None,
            split_factor: DEFAULT_SPLIT_FACTOR,
        });
    }
    let columns = read_columns(&parameter, faults);
    let filter = read_filter(&parameter, faults);
    let split_key = read_split_key(&parameter, faults);
    let split_factor = read_split_factor(&parameter, split_factor_most, faults);
    let (kind, relations, columns) = (kind?, relations?, columns?);
    Some(SourceSpec {
        kind,
        relations,
        columns: columns.list,
        hint: columns.hint,
        filter,
        split_key,
        split_factor,
    })
}

/// Rows come from the host of the data source, as text that the server turns into UTF-8, whatever these say.
fn warn_of_ignored(parameter: &Object<'_>, faults: &Faults) {
    let says_something =
        |value: &&Value| **value != Value::Bool(false) && !is_empty(value) && !is_no_limit(value);
    for key in REPLICA.iter().filter(|key| parameter.get(key).as_ref().is_some_and(says_something)) {
        let message = format!(
            "{key} is ignored: rows are read from the host that the data source names, and no lag is checked"
        );
        faults.warn(&parameter.place(key), message);
    }
    if let Some(encoding) = parameter.text("encoding").filter(|encoding| !is_utf8(encoding)) {
        let message = format!("encoding {encoding} is ignored: the server gives all text as utf8mb4");
        faults.warn(&parameter.place("encoding"), message);
    }
}

/// Any of the names that MySQL and Java have for it.
pub(super) fn is_utf8(encoding: &str) -> bool {
    ["utf8", "utf-8", "utf8mb4"].iter().any(|name| encoding.eq_ignore_ascii_case(name))
}

fn is_query(relation: &RelationSpec) -> bool {
    matches!(relation.relation, Relation::Query(_))
}

/// A query stands for all of them, as in DataWorks and DataX.
fn warn_of_void_keys(parameter: &Object<'_>, faults: &Faults) {
    for key in ["splitPk", "column", "where", "splitFactor"] {
        if parameter.get(key).is_some_and(|value| !is_empty(value)) {
            let message = match key {
                "splitPk" => "splitPk is ignored with querySql: each query is one task".to_owned(),
                _ => format!("{key} is ignored with querySql"),
            };
            faults.warn(&parameter.place(key), message);
        }
    }
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// The texts of `column`, never empty. Shared with the writer.
pub(super) fn read_column_list(parameter: &Object<'_>, faults: &Faults) -> Option<Vec<String>> {
    let place = parameter.place("column");
    let rule = "column must be a non-empty list of strings, e.g. [\"id\",\"name\"]";
    let list = match parameter.get("column") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        given => {
            let given = given.map_or_else(String::new, |given| format!(", not {}", show(given)));
            faults.error(&place, format!("{rule}{given}"), "");
            return None;
        }
    };
    let mut texts = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        match value.as_str().map(str::trim) {
            Some(text) if !text.is_empty() => texts.push(text.to_owned()),
            _ => faults.error(&format!("{place}/{index}"), rule, format!("{} is not one", show(value))),
        }
    }
    (texts.len() == list.len()).then_some(texts)
}

/// `["*"]`, which must stand alone, or the list itself.
pub(super) fn all_or_listed(
    parameter: &Object<'_>,
    texts: Vec<String>,
    faults: &Faults,
) -> Option<ColumnList> {
    match texts.iter().position(|text| text == "*") {
        Some(_) if texts.len() == 1 => Some(ColumnList::All),
        Some(index) => {
            let place = format!("{}/{index}", parameter.place("column"));
            faults.error(&place, "\"*\" must be the only element of column", "list the columns");
            None
        }
        None => Some(ColumnList::Listed(texts)),
    }
}

fn read_columns(parameter: &Object<'_>, faults: &Faults) -> Option<Columns> {
    let mut texts = read_column_list(parameter, faults)?;
    let mut hint = None;
    if let Some(first) = texts.first_mut()
        && first.starts_with("/*+")
    {
        let place = format!("{}/0", parameter.place("column"));
        let Some(end) = first.find("*/") else {
            faults.error(&place, "the hint /*+ has no end", "close it with */");
            return None;
        };
        let column = first[end + 2..].trim().to_owned();
        if column.is_empty() {
            faults.error(
                &place,
                "there is no column after the hint",
                "write /*+ ... */ and the first column",
            );
            return None;
        }
        hint = Some(first[..end + 2].to_owned());
        *first = column;
    }
    let list = all_or_listed(parameter, texts, faults)?;
    Some(Columns { list, hint })
}

fn read_filter(parameter: &Object<'_>, faults: &Faults) -> Option<String> {
    let text = parameter.text("where")?;
    let filter = text.trim_end_matches([';', '；']).trim_end();
    if let Some(fault) = sql::condition_fault(filter) {
        faults.error(&parameter.place("where"), fault, "write what may stand between WHERE ( and )");
        return None;
    }
    (!filter.is_empty()).then(|| filter.to_owned())
}

fn read_split_key(parameter: &Object<'_>, faults: &Faults) -> Option<String> {
    let text = parameter.text("splitPk")?;
    let name = sql::unquote(&text);
    if name.is_none() {
        let message = format!("splitPk must be a single column, not \"{text}\"");
        faults.error(&parameter.place("splitPk"), message, "name one column, by preference the primary key");
    }
    name
}

fn read_split_factor(parameter: &Object<'_>, most: u64, faults: &Faults) -> u32 {
    let rule = format!("must be 1..{most}");
    match parameter.integer("splitFactor", 1, &rule) {
        Some(factor) if factor > most => {
            let message = format!("splitFactor {rule} (got {factor})");
            let hint = "the default is 5; setting.starlift.allowLargeSplitFactor lifts the limit to 10000";
            faults.error(&parameter.place("splitFactor"), message, hint);
            DEFAULT_SPLIT_FACTOR
        }
        Some(factor) => u32::try_from(factor).unwrap_or(DEFAULT_SPLIT_FACTOR),
        None => DEFAULT_SPLIT_FACTOR,
    }
}
