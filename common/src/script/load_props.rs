//! `loadProps`: which Stream Load headers a job may ask for, and what is done with each.
//!
//! The body is written by Starlift into a *transaction* load, which parses fewer headers than a plain one (StarRocks:
//! `transaction_stream_load.cpp`): those that it would ignore are never sent, and refused where ignoring them would
//! change the data.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::faults::Faults;
use super::fields::{Object, boolean, integer, is_blank, shorten, show};
use crate::job::{ColumnList, Compression, Delimiter, Format, InvalidDelimiter, LoadProps};
use crate::nearest::did_you_mean;

const MAX_TIMEOUT_S: u32 = 259_200;

/// Sent as they are.
const PASSED: &[&str] = &[
    "timezone",
    "load_mem_limit",
    "exec_mem_limit",
    "partitions",
    "temporary_partitions",
    "merge_condition",
    "warehouse",
    "load_dop",
    "transmission_compression_type",
    "jsonpaths",
];

/// Understood here and not sent as they are.
const UNDERSTOOD: &[&str] = &[
    "format",
    "column_separator",
    "row_delimiter",
    "strip_outer_array",
    "ignore_json_size",
    "compression",
    "strict_mode",
    "max_filter_ratio",
    "timeout",
    "columns",
    "where",
    "partial_update",
    "partial_update_mode",
    "skip_header",
    "trim_space",
    "enclose",
    "escape",
    "log_rejected_record_num",
];

/// Set by Starlift for every request.
const MANAGED: &[&str] = &[
    "authorization",
    "expect",
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "host",
    "connection",
    "db",
    "table",
    "idle_transaction_timeout",
    "prepared_timeout",
    "transaction_type",
    "channel_id",
    "channel_num",
    "source_type",
];

/// Reads `loadProps` of a writer; absent and `{}` mean the defaults.
pub(super) fn read(parameter: &Object<'_>, columns: Option<&ColumnList>, faults: &Faults) -> LoadProps {
    let place = parameter.place("loadProps");
    let empty = Map::new();
    let map = match parameter.get("loadProps") {
        None => &empty,
        Some(Value::Object(map)) => map,
        Some(other) => {
            let message = format!("loadProps must be an object, not {}", show(other));
            faults.error(&place, message, "use {} for none");
            &empty
        }
    };
    let headers = BTreeMap::from([
        ("strict_mode".to_owned(), "true".to_owned()),
        ("max_filter_ratio".to_owned(), "0".to_owned()),
    ]);
    let mut reader = Reader { place, faults, props: LoadProps { headers, ..LoadProps::default() } };
    let props = reader.lower_case(map);
    // The format first: what others mean depends on it.
    if let Some(value) = props.get("format") {
        reader.format(value);
    }
    for (name, value) in &props {
        reader.header(name, value);
    }
    reader.check_delimiters();
    reader.check_columns(columns);
    reader.check_partitions();
    reader.props
}

struct Reader<'a> {
    place: String,
    faults: &'a Faults,
    props: LoadProps,
}

impl<'a> Reader<'a> {
    fn at(&self, name: &str) -> String {
        format!("{}/{}", self.place, super::fields::escape(name))
    }

    fn error(&self, name: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.error(&self.at(name), message, hint);
    }

    fn warn(&self, name: &str, message: impl AsRef<str>) {
        self.faults.warn(&self.at(name), message);
    }

    /// Header names have no case; `null` is absent.
    fn lower_case(&self, map: &'a Map<String, Value>) -> BTreeMap<String, &'a Value> {
        let mut props = BTreeMap::new();
        for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            if props.insert(name.to_ascii_lowercase(), value).is_some() {
                self.error(name, format!("{name} stands twice, in upper and lower case"), "keep one");
            }
        }
        props
    }

    fn header(&mut self, name: &str, value: &Value) {
        match name {
            "format" => {}
            "column_separator" => self.props.column_separator = self.delimiter(name, value),
            "row_delimiter" => self.props.row_delimiter = self.delimiter(name, value),
            "strip_outer_array" => {
                self.must_not_be(name, value, false, "must be true: batches are sent as one array");
            }
            "trim_space" => self.must_not_be(
                name,
                value,
                true,
                "trim_space has no effect in a transaction load; trim in the reader's column expressions",
            ),
            "enable_merge_commit" => self.must_not_be(
                name,
                value,
                true,
                "enable_merge_commit makes StarRocks ignore labels, so that a retry could load rows twice",
            ),
            "merge_commit_async" => self.must_not_be(
                name,
                value,
                true,
                "merge_commit_async answers before the rows are loaded, so success would not mean loaded",
            ),
            "ignore_json_size" => {
                self.boolean(name, value);
            }
            "compression" => self.compression(value),
            "strict_mode" => self.pass_boolean(name, value),
            "partial_update" => self.pass_boolean(name, value),
            "partial_update_mode" => self.partial_update_mode(value),
            "max_filter_ratio" => self.max_filter_ratio(value),
            "timeout" => self.timeout(value),
            "skip_header" => {
                if integer(value) != Some(0) && !is_blank(value) {
                    self.error(
                        name,
                        "skip_header must be 0: bodies have no header row, so rows would be lost",
                        "remove it",
                    );
                }
            }
            "enclose" | "escape" | "log_rejected_record_num" => {
                self.warn(
                    name,
                    format!("{name} is not sent: a transaction load does not parse it, and needs it not"),
                );
            }
            "where" => {
                self.warn(name, "rows that StarRocks does not select are counted as unselected, not loaded");
                self.pass(name, value);
            }
            "columns" => self.pass(name, value),
            "json_root" => {
                self.error(name, "json_root has no place: bodies are plain arrays of rows", "remove it");
            }
            "envelope" => self.error(name, "envelope is not supported: bodies hold plain rows", "remove it"),
            "label" => self.error(name, "label is managed by Starlift", "use labelPrefix beside loadProps"),
            _ if MANAGED.contains(&name) => {
                self.error(name, format!("{name} is managed by Starlift"), "remove it");
            }
            _ if name.starts_with("merge_commit_") => {
                self.warn(
                    name,
                    format!("{name} is not sent: loads are transactions, which are never merged"),
                );
            }
            _ => {
                self.warn_if_unknown(name);
                self.pass(name, value);
            }
        }
    }

    fn warn_if_unknown(&self, name: &str) {
        if !PASSED.contains(&name) {
            let guess = did_you_mean(name, PASSED.iter().chain(UNDERSTOOD).copied());
            let message = format!("unknown Stream Load header {name} is sent as it is; {guess}");
            self.warn(name, message.trim_end_matches("; "));
        }
    }

    fn format(&mut self, value: &Value) {
        match value.as_str().map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            Some("" | "csv") => self.props.format = Format::Csv,
            Some("json") => self.props.format = Format::Json,
            other => {
                let is_packed = matches!(other, Some("gzip" | "zstd" | "lz4" | "bzip2" | "deflate"));
                let hint =
                    if is_packed { "packed bodies have format csv or json, and a compression" } else { "" };
                self.error("format", format!("format must be csv or json, not {}", show(value)), hint);
            }
        }
    }

    /// A delimiter as DataX writes it: bytes in hexadecimal after `\x`, or the characters themselves.
    fn delimiter(&self, name: &str, value: &Value) -> Option<Delimiter> {
        let Some(text) = value.as_str() else {
            self.error(name, format!("{name} must be a string, not {}", show(value)), "");
            return None;
        };
        if text.is_empty() {
            return None;
        }
        if self.props.format == Format::Json {
            self.warn(name, format!("{name} has no meaning for format json"));
        }
        let hexadecimal = text.strip_prefix("\\x").or_else(|| text.strip_prefix("\\X"));
        let bytes = match hexadecimal.map(hex_bytes) {
            Some(Some(bytes)) => bytes,
            Some(None) => {
                let message = format!("{name} {}: a hex delimiter needs pairs of hex digits", show(value));
                self.error(name, message, "e.g. \\\\x01");
                return None;
            }
            None => text.as_bytes().to_vec(),
        };
        match Delimiter::new(bytes) {
            Ok(delimiter) => Some(delimiter),
            Err(error) => {
                let hint = match error {
                    InvalidDelimiter::Byte(b'\\') => {
                        "write control characters in hexadecimal, e.g. \\\\x09 for a tab"
                    }
                    _ => "e.g. \\\\x01",
                };
                self.error(name, format!("{name} {}: {error}", show(value)), hint);
                None
            }
        }
    }

    /// Two delimiters of which one holds the other cannot be told apart. Where the job names only one, the other is
    /// chosen so that they differ.
    fn check_delimiters(&mut self) {
        if self.props.format == Format::Json {
            (self.props.column_separator, self.props.row_delimiter) = (None, None);
        }
        match (&self.props.column_separator, &self.props.row_delimiter) {
            (Some(column), Some(row)) if column == row => {
                self.error(
                    "row_delimiter",
                    "column and row delimiter must differ",
                    "e.g. \\\\x01 and \\\\x02",
                );
            }
            (Some(column), Some(row))
                if holds(column.as_bytes(), row.as_bytes()) || holds(row.as_bytes(), column.as_bytes()) =>
            {
                let message = "column and row delimiter must differ, and neither may contain the other";
                self.error("row_delimiter", message, "e.g. \\\\x01 and \\\\x02");
            }
            (Some(column), None) => self.props.row_delimiter = other_delimiter(column),
            (None, Some(row)) => self.props.column_separator = other_delimiter(row),
            _ => {}
        }
    }

    fn boolean(&self, name: &str, value: &Value) -> Option<bool> {
        let given = boolean(value);
        if given.is_none() && !is_blank(value) {
            self.error(name, format!("{name} must be true or false, not {}", show(value)), "");
        }
        given
    }

    fn pass_boolean(&mut self, name: &str, value: &Value) {
        if let Some(given) = self.boolean(name, value) {
            self.props.headers.insert(name.to_owned(), given.to_string());
        }
    }

    fn must_not_be(&self, name: &str, value: &Value, refused: bool, why: &str) {
        if self.boolean(name, value) == Some(refused) {
            self.error(name, format!("{name} is {refused}: {why}"), "remove it");
        }
    }

    fn compression(&mut self, value: &Value) {
        let name = value.as_str().map(str::trim).unwrap_or_default();
        if is_blank(value) || name.eq_ignore_ascii_case("none") {
            return;
        }
        self.props.compression = Compression::parse(name);
        if self.props.compression.is_none() {
            let names = Compression::ALL.map(Compression::name).join(", ");
            let guess = did_you_mean(name, Compression::ALL.iter().map(|compression| compression.name()));
            let message = format!("compression must be {names} or none, not {}", show(value));
            self.error("compression", message, guess);
        }
    }

    fn partial_update_mode(&mut self, value: &Value) {
        match value.as_str() {
            Some(mode @ ("row" | "column" | "auto")) => {
                self.props.headers.insert("partial_update_mode".to_owned(), mode.to_owned());
            }
            _ => {
                let message = format!("partial_update_mode must be row, column or auto, not {}", show(value));
                self.error("partial_update_mode", message, "");
            }
        }
    }

    fn max_filter_ratio(&mut self, value: &Value) {
        let name = "max_filter_ratio";
        if is_blank(value) {
            return;
        }
        let ratio = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        match ratio.filter(|ratio| (0.0..=1.0).contains(ratio)) {
            Some(ratio) => {
                if ratio > 0.0 {
                    self.warn(name, "rows that StarRocks filters out are counted, but not loaded");
                }
                self.props.headers.insert(name.to_owned(), ratio.to_string());
            }
            None => self.error(name, format!("{name} must be between 0 and 1, not {}", show(value)), ""),
        }
    }

    fn timeout(&mut self, value: &Value) {
        if is_blank(value) {
            return;
        }
        let seconds = integer(value).and_then(|seconds| u32::try_from(seconds).ok());
        self.props.timeout_s = seconds.filter(|seconds| (1..=MAX_TIMEOUT_S).contains(seconds));
        if self.props.timeout_s.is_none() {
            let message = format!("timeout must be 1..{MAX_TIMEOUT_S} seconds, not {}", show(value));
            self.error("timeout", message, "");
        }
    }

    /// Takes a header over as text. A control character would end the header and begin another.
    fn pass(&mut self, name: &str, value: &Value) {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(given) => given.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                let message = format!("{name} must be a string, a number or true/false, not {}", show(value));
                self.error(name, message, "write lists and objects as JSON text in a string");
                return;
            }
        };
        if text.is_empty() {
            return;
        }
        if text.chars().any(char::is_control) || !is_header_name(name) {
            let message = format!("\"{}\" cannot be sent as an HTTP header", shorten(name, 40));
            self.error(name, message, "use a name of letters, digits, _ and -, and a value on one line");
            return;
        }
        self.props.headers.insert(name.to_owned(), text);
    }

    /// `columns` takes the place of the header that lists the target columns, so it must speak of the same cells: as
    /// many plain names as cells, and every target column either plain or derived. JSON rows carry the target's names.
    fn check_columns(&self, columns: Option<&ColumnList>) {
        let (Some(header), Some(ColumnList::Listed(columns))) = (self.props.headers.get("columns"), columns)
        else {
            return;
        };
        let (plain, derived) = header_columns(header);
        let named = |name: &String| {
            let is_same = |other: &String| other.to_lowercase() == name.to_lowercase();
            match self.props.format {
                Format::Csv => plain.iter().any(is_same) || derived.iter().any(is_same),
                Format::Json => plain.iter().any(is_same),
            }
        };
        if plain.len() != columns.len() || !columns.iter().all(named) {
            let message = format!(
                "columns header conflicts with parameter.column: it names {} fields ({}), the writer has {} columns",
                plain.len(),
                shorten(&plain.join(", "), 80),
                columns.len()
            );
            self.error("columns", message, "remove columns, or name one field for each column of the writer");
        }
    }

    fn check_partitions(&self) {
        let has = |name: &str| self.props.headers.contains_key(name);
        if has("partitions") && has("temporary_partitions") {
            self.error(
                "temporary_partitions",
                "partitions and temporary_partitions exclude each other",
                "keep one",
            );
        }
    }
}

/// `None` for an odd number of digits, none at all, or what is not a digit.
fn hex_bytes(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty()
        || !digits.len().is_multiple_of(2)
        || !digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return None;
    }
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

/// `\x02`, or the first of the other control and printable bytes that the given one does not hold: it has at most 50.
fn other_delimiter(given: &Delimiter) -> Option<Delimiter> {
    let mut bytes = [2, 1].into_iter().chain(3..0x7f).filter(|byte| *byte != b'\\');
    let free = bytes.find(|byte| !given.as_bytes().contains(byte))?;
    Delimiter::new(vec![free]).ok()
}

fn holds(longer: &[u8], shorter: &[u8]) -> bool {
    longer.windows(shorter.len()).any(|window| window == shorter)
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The columns that a `columns` header makes by an expression (`a = f(b)`), without backticks.
pub fn derived_columns(header: &str) -> Vec<String> {
    header_columns(header).1
}

/// Plain and derived names of a `columns` header, without backticks.
fn header_columns(header: &str) -> (Vec<String>, Vec<String>) {
    let (mut plain, mut derived) = (Vec::new(), Vec::new());
    for item in top_level_items(header) {
        let bare = |name: &str| name.trim().trim_matches('`').to_owned();
        match item.split_once('=') {
            Some((name, _)) => derived.push(bare(name)),
            None => plain.push(bare(item)),
        }
    }
    (plain, derived)
}

/// The items of a list parted by commas outside of parentheses.
fn top_level_items(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (index, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    items
}
