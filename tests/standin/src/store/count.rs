//! Rows that are counted and hashed in place of being kept, with the turns of a transaction that `rows.rs` has. What is
//! hashed of a row is its canonical text: the cells in the order of the table's columns with 0x01 between them, NULL as
//! `\N`. Inside a cell 0x01 is written as 0x02 `a`, 0x02 as 0x02 `b`, and a cell whose text is `\N` as 0x02 `N`, so
//! different rows have different texts.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::{OpenTxn, Store, StoreError, Table, Tally};

const SEPARATOR: u8 = 1;
const ESCAPE: u8 = 2;

/// Counts rows of one transaction for one table; they count once it is visible.
pub(crate) struct RowCounter {
    store: Store,
    table: Arc<Table>,
    generation: i64,
    open: Arc<OpenTxn>,
    tally: Tally,
    text: Vec<u8>,
}

/// How the cells of a record that can be counted as it stands are told apart.
#[derive(Clone, Copy)]
pub(crate) struct PlainForm {
    pub(crate) separator: u8,
    /// A record may hold [`ESCAPE`]: it does not end one.
    may_escape: bool,
}

impl PlainForm {
    pub(crate) fn new(separator: u8, row_delimiter: &[u8]) -> Self {
        Self { separator, may_escape: row_delimiter != [ESCAPE] }
    }
}

/// How far a counter had come.
#[derive(Clone, Copy)]
pub(crate) struct Mark(Tally);

impl RowCounter {
    pub(super) fn new(store: Store, table: Arc<Table>, open: Arc<OpenTxn>) -> Self {
        let generation = table.generation();
        Self { store, table, generation, open, tally: Tally::default(), text: Vec::new() }
    }

    /// One cell per column, in the table's order.
    pub(crate) fn push<'a>(&mut self, cells: impl Iterator<Item = Option<&'a [u8]>>) {
        self.text.clear();
        for (place, cell) in cells.enumerate() {
            if place > 0 {
                self.text.push(SEPARATOR);
            }
            match cell {
                None => self.text.extend_from_slice(b"\\N"),
                Some(b"\\N") => self.text.extend_from_slice(&[ESCAPE, b'N']),
                Some(cell) => write_escaped(cell, &mut self.text),
            }
        }
        self.tally.add(tally_of(&self.text));
    }

    /// A CSV record as it stands in the body, its cells in the table's order with the separator between them; `false`,
    /// and nothing counted, where only its single cells tell its canonical text.
    pub(crate) fn push_record(&mut self, record: &[u8], form: PlainForm) -> bool {
        if form.may_escape && memchr::memchr(ESCAPE, record).is_some() {
            return false;
        }
        let separator = form.separator;
        if separator == SEPARATOR {
            self.tally.add(tally_of(record));
            return true;
        }
        if memchr::memchr(SEPARATOR, record).is_some() {
            return false;
        }
        self.text.clear();
        self.text.extend(record.iter().map(|byte| if *byte == separator { SEPARATOR } else { *byte }));
        self.tally.add(tally_of(&self.text));
        true
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.tally)
    }

    /// Forgets the rows since the mark.
    pub(crate) fn back_to(&mut self, mark: Mark) {
        self.tally = mark.0;
    }

    /// Hands the counts to the transaction.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        if self.table.generation() != self.generation {
            return Err(StoreError::TableReplaced(self.table.name.clone()));
        }
        self.store.touch(&self.open, &self.table, self.tally);
        Ok(())
    }
}

fn tally_of(text: &[u8]) -> Tally {
    Tally { rows: 1, bytes: i64::try_from(text.len()).unwrap_or(i64::MAX), hash: xxh3_64(text) }
}

fn write_escaped(cell: &[u8], text: &mut Vec<u8>) {
    let mut plain_from = 0;
    for at in memchr::memchr2_iter(SEPARATOR, ESCAPE, cell) {
        text.extend_from_slice(&cell[plain_from..at]);
        text.extend_from_slice(&[ESCAPE, if cell[at] == SEPARATOR { b'a' } else { b'b' }]);
        plain_from = at + 1;
    }
    text.extend_from_slice(&cell[plain_from..]);
}
