//! Specs that unit tests share.

use std::collections::BTreeMap;

use starlift_common::job::{CellKind, Delimiter, Format, LoadSpec};

/// CSV into two columns, with delimiters that the job did not name.
pub(crate) fn load_spec() -> LoadSpec {
    let delimiter = |byte| Delimiter::new(vec![byte]).expect("one byte below 0x80");
    LoadSpec {
        datasource: "target".into(),
        database: "shop".into(),
        table: "orders".into(),
        columns: vec!["id".into(), "na`me".into()],
        cell_kinds: vec![CellKind::Number, CellKind::Text],
        load_urls: vec!["http://127.0.0.1:1".into()],
        format: Format::Csv,
        column_separator: delimiter(1),
        row_delimiter: delimiter(2),
        named_delimiters: false,
        headers: BTreeMap::new(),
        max_batch_rows: 1000,
        max_batch_bytes: 1 << 20,
        label_prefix: "sl".into(),
        timeout_s: None,
        max_part_bytes: 8 << 30,
    }
}
