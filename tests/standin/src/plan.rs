//! From load headers and a table to a plan: which source column feeds which table column, how the body is cut, how
//! strict the load is. Pure. `ingest.rs` carries a plan out.

use crate::params::{Codec, Format, LoadParams, Quoting};
use crate::store::{Model, Table};

/// The source column that tells upserts (0) from deletes (1) in primary key tables.
const OP_COLUMN: &str = "__op";

/// How the rows of one load become rows of the table.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) format: Format,
    pub(crate) codec: Option<Codec>,
    /// Source columns in file order, as written in `columns` or as the table names them.
    pub(crate) sources: Vec<String>,
    /// One per table column.
    pub(crate) targets: Vec<Target>,
    /// Where `__op` comes from, in a primary key table that is told to delete.
    pub(crate) op: Option<Target>,
    /// SQL of the derived columns, by number.
    pub(crate) derived: Vec<String>,
    /// SQL of `where`.
    pub(crate) filter: Option<String>,
    pub(crate) strict: bool,
    pub(crate) column_separator: Vec<u8>,
    pub(crate) row_delimiter: Vec<u8>,
    pub(crate) quoting: Quoting,
    pub(crate) json: JsonOptions,
}

/// Where a table column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Source(usize),
    Derived(usize),
    /// The column's default, or NULL.
    Default(Option<Vec<u8>>),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct JsonOptions {
    pub(crate) paths: Option<Vec<Vec<Step>>>,
    pub(crate) root: Vec<Step>,
    pub(crate) strip_outer_array: bool,
}

/// One step of a JSON path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Why a load cannot be planned. `text` is what the server says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PlanError(pub(crate) String);

impl Plan {
    pub(crate) fn new(params: &LoadParams, table: &Table) -> Result<Self, PlanError> {
        check_combinations(params, table)?;
        let column_separator = delimiter(params.column_separator.as_deref().unwrap_or("\t"))?;
        let row_delimiter = delimiter(params.row_delimiter.as_deref().unwrap_or("\n"))?;
        if params.format == Format::Csv && column_separator == row_delimiter {
            return Err(PlanError("Column separator and row delimiter must not be equal".to_owned()));
        }
        let json = JsonOptions {
            paths: params.jsonpaths.as_deref().map(json_paths).transpose()?,
            root: params.json_root.as_deref().map(json_path).transpose()?.unwrap_or_default(),
            strip_outer_array: params.strip_outer_array,
        };
        let items = match &params.columns {
            Some(text) => parse_columns(text)?,
            None => items_of(table, params.format),
        };
        let mut plan = Self {
            format: params.format,
            codec: params.codec,
            sources: Vec::new(),
            targets: Vec::new(),
            op: None,
            derived: Vec::new(),
            filter: params.filter.clone(),
            strict: strict_mode(params.strict_mode.as_deref())?,
            column_separator,
            row_delimiter,
            quoting: params.quoting.clone(),
            json,
        };
        plan.map_columns(&items, table)?;
        Ok(plan)
    }

    fn map_columns(&mut self, items: &[Item], table: &Table) -> Result<(), PlanError> {
        for item in items {
            match &item.expression {
                None => self.sources.push(item.name.clone()),
                Some(_) if !is_known(table, &item.name) => {
                    return Err(PlanError(format!(
                        "unknown column '{}' in table '{}'",
                        item.name, table.name
                    )));
                }
                Some(expression) => self.derived.push(expression.clone()),
            }
        }
        let derived: Vec<&Item> = items.iter().filter(|item| item.expression.is_some()).collect();
        let mapped = |sources: &[String], wanted: &str| {
            let same = |name: &str| name.eq_ignore_ascii_case(wanted);
            let expression = derived.iter().position(|item| same(&item.name)).map(Target::Derived);
            expression.or_else(|| sources.iter().position(|name| same(name)).map(Target::Source))
        };
        if table.model == Model::Primary {
            self.op = mapped(&self.sources, OP_COLUMN);
        }
        for column in &table.columns {
            let target = if let Some(target) = mapped(&self.sources, &column.name) {
                target
            } else if column.default.is_some() || column.nullable {
                Target::Default(column.default.as_ref().map(|text| text.clone().into_bytes()))
            } else {
                return Err(PlanError(format!("Column has no default value, column={}", column.name)));
            };
            self.targets.push(target);
        }
        Ok(())
    }

    /// The separator as error lines print it.
    pub(crate) fn shown(delimiter: &[u8]) -> String {
        delimiter.escape_ascii().to_string()
    }
}

/// The table's columns in order; JSON objects for a primary key table may also carry `__op`.
fn items_of(table: &Table, format: Format) -> Vec<Item> {
    let mut items: Vec<Item> = table.columns.iter().map(|column| Item::bare(&column.name)).collect();
    if format == Format::Json && table.model == Model::Primary {
        items.push(Item::bare(OP_COLUMN));
    }
    items
}

fn is_known(table: &Table, name: &str) -> bool {
    name == OP_COLUMN && table.model == Model::Primary
        || table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))
}

fn check_combinations(params: &LoadParams, table: &Table) -> Result<(), PlanError> {
    let refuse = |text: &str| Err(PlanError(text.to_owned()));
    if params.partitions.is_some() && params.temporary_partitions.is_some() {
        return refuse("Can not specify both partitions and temporary partitions");
    }
    if params.compression.is_some() && params.content_encoding.is_some() {
        return refuse("Only one of http header content-encoding and compression can be set");
    }
    if params.partial_update && table.model != Model::Primary {
        return refuse("Only primary key table support partial update");
    }
    if params.partial_update || params.merge_condition.is_some() {
        return refuse("partial and conditional updates are not served by this stand-in");
    }
    Ok(())
}

fn strict_mode(text: Option<&str>) -> Result<bool, PlanError> {
    match text {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(PlanError("Invalid strict mode format. Must be bool type".to_owned())),
    }
}

/// The bytes of a delimiter header: literal text, or hex after `\x` or `0x`.
fn delimiter(text: &str) -> Result<Vec<u8>, PlanError> {
    let invalid = |reason: &str| PlanError(format!("Invalid delimiter '{text}': {reason}"));
    let prefixed = ["\\x", "\\X", "0x", "0X"].iter().find_map(|prefix| text.strip_prefix(prefix));
    let bytes = match prefixed {
        Some(hex) => hex_bytes(hex)
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| invalid("hex digits in pairs expected"))?,
        None => text.replace("\\t", "\t").replace("\\n", "\n").into_bytes(),
    };
    match bytes.len() {
        0 => Err(invalid("empty")),
        1..=50 => Ok(bytes),
        _ => Err(invalid("longer than 50 bytes")),
    }
}

/// Bytes written as pairs of hex digits.
pub(crate) fn hex_bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

struct Item {
    name: String,
    expression: Option<String>,
}

impl Item {
    fn bare(name: &str) -> Self {
        Self { name: name.to_owned(), expression: None }
    }
}

/// The items of a `columns` header: bare names and `name = expression`.
fn parse_columns(text: &str) -> Result<Vec<Item>, PlanError> {
    split_top_level(text, b',').into_iter().map(|part| parse_item(part.trim())).collect()
}

fn parse_item(part: &str) -> Result<Item, PlanError> {
    let invalid = || PlanError(format!("syntax error in columns: '{part}'"));
    let (name, rest) = match part.strip_prefix('`') {
        Some(quoted) => quoted.split_once('`').ok_or_else(invalid)?,
        None => part.split_at(part.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(part.len())),
    };
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '@');
    if name.is_empty() || (!part.starts_with('`') && !name.chars().all(plain)) {
        return Err(invalid());
    }
    let expression = match rest.trim() {
        "" => None,
        rest => match rest.strip_prefix('=').map(str::trim) {
            Some(expression) if !expression.is_empty() => Some(expression.to_owned()),
            _ => return Err(invalid()),
        },
    };
    Ok(Item { name: name.to_owned(), expression })
}

/// Cuts at `separator` outside quotes and parentheses.
fn split_top_level(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"' | b'`') => quote = Some(byte),
            (None, b'(' | b'[') => depth += 1,
            (None, b')' | b']') => depth = depth.saturating_sub(1),
            (None, _) if byte == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn json_paths(text: &str) -> Result<Vec<Vec<Step>>, PlanError> {
    let paths: Vec<String> = serde_json::from_str(text)
        .map_err(|error| PlanError(format!("Invalid json path: {text}: {error}")))?;
    paths.iter().map(|path| json_path(path)).collect()
}

/// `$`, `$.a.b`, `$.arr[0]`, `$."odd.key"`.
fn json_path(text: &str) -> Result<Vec<Step>, PlanError> {
    let invalid = || PlanError(format!("Invalid json path: {text}"));
    let mut rest = text.trim().strip_prefix('$').ok_or_else(invalid)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(index) = rest.strip_prefix('[') {
            let (number, tail) = index.split_once(']').ok_or_else(invalid)?;
            steps.push(Step::Index(number.trim().parse().map_err(|_| invalid())?));
            rest = tail;
        } else if let Some(quoted) = rest.strip_prefix(".\"") {
            let (key, tail) = quoted.split_once('"').ok_or_else(invalid)?;
            steps.push(Step::Key(key.to_owned()));
            rest = tail;
        } else {
            let key = rest.strip_prefix('.').ok_or_else(invalid)?;
            let end = key.find(['.', '[']).unwrap_or(key.len());
            if end == 0 {
                return Err(invalid());
            }
            steps.push(Step::Key(key[..end].to_owned()));
            rest = &key[end..];
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_text_or_one_hex_string() {
        assert_eq!(delimiter("\\x01").unwrap(), [1]);
        assert_eq!(delimiter("\\x0102").unwrap(), [1, 2]);
        assert_eq!(delimiter("0x7c7c").unwrap(), b"||");
        assert_eq!(delimiter("||").unwrap(), b"||");
        assert_eq!(delimiter("\\t").unwrap(), b"\t");
        for bad in ["\\x0", "\\x", "\\xzz", "\\x01\\x02"] {
            assert!(delimiter(bad).unwrap_err().0.starts_with("Invalid delimiter"), "{bad}");
        }
    }

    #[test]
    fn columns_split_at_commas_outside_parentheses_and_quotes() {
        let items = parse_columns("id, `na,me`, c = concat(id, ',', name)").unwrap();
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["id", "na,me", "c"]);
        assert_eq!(items[2].expression.as_deref(), Some("concat(id, ',', name)"));
    }

    #[test]
    fn a_nameless_or_unfinished_column_is_a_syntax_error() {
        for bad in ["id,,name", "id, c =", "id, a b", "`open"] {
            assert!(parse_columns(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_paths_have_keys_and_indexes() {
        let paths = json_paths(r#"["$.id", "$.a.b[0]", "$"]"#).unwrap();
        let key = |name: &str| Step::Key(name.to_owned());
        assert_eq!(paths, vec![vec![key("id")], vec![key("a"), key("b"), Step::Index(0)], vec![]]);
        assert!(json_path("id").is_err());
    }
}
