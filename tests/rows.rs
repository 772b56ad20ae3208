//! The judge: do two tables hold the same multiset of rows? Compares text, cell by cell, NULL apart from empty; the
//! order of rows does not matter, their number does.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};
use xxhash_rust::xxh3::xxh3_128;

/// How often each row occurs, by the hash of its cells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) count: u64,
    by_hash: HashMap<u128, u64>,
    /// The first cell of each row, to name it in a message.
    names: HashMap<u128, String>,
}

/// Reads the result of `query`, all of it.
pub(crate) async fn read(mut conn: Conn, query: &str) -> Rows {
    let mut rows = Rows { count: 0, by_hash: HashMap::new(), names: HashMap::new() };
    let mut result = conn.query_iter(query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut text = Vec::new();
    while let Some(row) = result.next().await.unwrap_or_else(|error| panic!("{query}: {error}")) {
        text.clear();
        let cells = row.unwrap();
        for cell in &cells {
            push_cell(&mut text, cell);
        }
        let hash = xxh3_128(&text);
        rows.count += 1;
        *rows.by_hash.entry(hash).or_default() += 1;
        rows.names.entry(hash).or_insert_with(|| cells[0].as_sql(true));
    }
    drop(result);
    conn.disconnect().await.expect("a clean goodbye");
    rows
}

fn push_cell(text: &mut Vec<u8>, cell: &Value) {
    match cell {
        Value::NULL => text.push(0),
        Value::Bytes(bytes) => {
            let bytes = canonical(bytes);
            text.push(1);
            text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            text.extend_from_slice(bytes);
        }
        other => panic!("the text protocol yields text only, not {other:?}"),
    }
}

/// A datetime without microseconds is written with and without the six zeros; both mean the same moment.
fn canonical(cell: &[u8]) -> &[u8] {
    let is_datetime = cell.len() == 26 && cell[4] == b'-' && cell[10] == b' ' && cell[19] == b'.';
    if is_datetime && cell.ends_with(b".000000") { &cell[..19] } else { cell }
}

/// Panics and names a few rows that one side lacks.
pub(crate) fn assert_same(source: &Rows, target: &Rows) {
    if let Some(difference) = difference(source, target) {
        panic!("{difference}");
    }
}

/// What is lost and what is doubled, if anything.
pub(crate) fn difference(source: &Rows, target: &Rows) -> Option<String> {
    let missing = differing(source, target);
    let extra = differing(target, source);
    let same = missing.is_empty() && extra.is_empty() && source.count == target.count;
    (!same).then(|| {
        format!(
            "source has {} rows, target {}; lost or damaged: {missing:?}; doubled or strange: {extra:?}",
            source.count, target.count,
        )
    })
}

/// Rows that `left` has more often than `right`, by their first cell; at most ten.
fn differing(left: &Rows, right: &Rows) -> Vec<String> {
    let more = left
        .by_hash
        .iter()
        .filter(|(hash, count)| right.by_hash.get(*hash).is_none_or(|other| other < *count));
    more.map(|(hash, _)| left.names[hash].clone()).take(10).collect()
}
