//! The reader step's `parameter`: a [`SourceSpec`]; and what reader and writer have in common, table and columns.

use serde_json::Value;

use super::faults::Faults;
use super::fields::{Object, is_no_limit, show};
use super::sql;
use super::steps::Step;
use crate::job::{ColumnList, SourceKind, SourceSpec};

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

/// Where a table is; the database only if the step names one.
pub(super) struct Place {
    pub(super) datasource: String,
    pub(super) database: Option<String>,
    pub(super) table: String,
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
    if refuse_query(&parameter, faults) {
        return None;
    }
    let place = read_place(&parameter, faults);
    let columns = read_columns(&parameter, faults);
    let filter = read_filter(&parameter, faults);
    let split_key = read_split_key(&parameter, faults);
    let split_factor = read_split_factor(&parameter, split_factor_most, faults);
    let (kind, place, columns) = (kind?, place?, columns?);
    Some(SourceSpec {
        kind,
        datasource: place.datasource,
        database: place.database,
        table: place.table,
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

/// `querySql` would make everything else void, so nothing else is looked at.
fn refuse_query(parameter: &Object<'_>, faults: &Faults) -> bool {
    let connections = parameter.get("connection").and_then(Value::as_array);
    let given = |value: &Value, key: &str| value.get(key).is_some_and(|value| !value.is_null());
    let in_connection = |key: &str| connections.is_some_and(|list| list.iter().any(|one| given(one, key)));
    if parameter.get("querySql").is_none() && !in_connection("querySql") {
        return false;
    }
    let place = parameter.place("querySql");
    if parameter.get("table").is_some() || in_connection("table") {
        faults.error(&place, "table and querySql exclude each other", "remove querySql");
    } else {
        faults.unsupported(
            &place,
            "querySql is not supported yet",
            "name the table, its columns and a where condition",
        );
    }
    true
}

/// `datasource`, `selectedDatabase` and `table`, which may also stand in the one entry of `connection`.
pub(super) fn read_place(parameter: &Object<'_>, faults: &Faults) -> Option<Place> {
    let connection = match single_connection(parameter, faults) {
        Ok(connection) => connection,
        Err(AlreadyTold) => return None,
    };
    let holder = connection.as_ref().unwrap_or(parameter);
    let datasource = match holder.get("datasource") {
        None => parameter.required_text("datasource", "the name of a data source"),
        Some(_) => holder.required_text("datasource", "the name of a data source"),
    };
    let table = read_table(holder, faults);
    let selected = parameter.text("selectedDatabase").map(|name| {
        let plain = sql::unquote(&name);
        plain.unwrap_or(name)
    });
    let (datasource, (database, table)) = (datasource?, table?);
    if let (Some(selected), Some(database)) = (&selected, &database)
        && selected != database
    {
        let message = format!("table names database \"{database}\" but selectedDatabase is \"{selected}\"");
        faults.error(&holder.place("table"), message, "name the database once");
        return None;
    }
    Some(Place { datasource, database: selected.or(database), table })
}

struct AlreadyTold;

/// The one entry of `connection`, if there is such a list.
fn single_connection<'a>(
    parameter: &Object<'a>,
    faults: &'a Faults,
) -> Result<Option<Object<'a>>, AlreadyTold> {
    let place = parameter.place("connection");
    let list = match parameter.get("connection") {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => {
            parameter.wrong_type("connection", other, "must be a list of objects");
            return Err(AlreadyTold);
        }
    };
    match list.as_slice() {
        [Value::Object(map)] => {
            let entry = Object::new(format!("{place}/0"), map, faults);
            entry.refuse_unknown_keys(&["datasource", "table"], IGNORED);
            if parameter.get("table").is_some() {
                let message = "table stands in parameter and in connection; one of them must go";
                faults.error(&parameter.place("table"), message, "remove one");
                return Err(AlreadyTold);
            }
            Ok(Some(entry))
        }
        [] => Ok(None),
        [_] => {
            faults.error(&format!("{place}/0"), "a connection must be an object", "");
            Err(AlreadyTold)
        }
        several => {
            let message = format!("{} connections are given; one is supported", several.len());
            faults.unsupported(&place, message, "write one job for each data source");
            Err(AlreadyTold)
        }
    }
}

/// Database, if written in front, and table.
fn read_table(holder: &Object<'_>, faults: &Faults) -> Option<(Option<String>, String)> {
    let place = holder.place("table");
    let texts = holder.texts("table");
    let name = match texts.as_slice() {
        [(_, name)] => name,
        [] => {
            if holder.get("table").is_none_or(is_empty) {
                faults.error(&place, "parameter.table is required", "the name of one table");
            }
            return None;
        }
        several => {
            let message = format!("{} tables are given; one is supported", several.len());
            faults.unsupported(&place, message, "write one job for each table");
            return None;
        }
    };
    let many = !name.contains('`') && (name.contains(',') || name.contains("_["));
    if many {
        let message = format!("\"{name}\" stands for several tables; one is supported");
        faults.unsupported(&place, message, "write one job for each table");
        return None;
    }
    let mut parts = sql::name_parts(name).unwrap_or_default();
    match (parts.pop(), parts.pop(), parts.is_empty()) {
        (Some(table), database, true) => Some((database, table)),
        _ => {
            let message = format!("table must be a name or database.name, not \"{name}\"");
            faults.error(&place, message, "put a name with other characters into backticks");
            None
        }
    }
}

fn is_empty(value: &Value) -> bool {
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
