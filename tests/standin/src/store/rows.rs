//! Appends rows of one transaction to one table: buffers them, then writes a batch in one short turn at the writer,
//! so that parallel loads take turns and memory stays within a batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::{OpenTxn, Store, StoreError, Stored, Table, Tally};

/// A batch is written when it holds this many rows ...
const BATCH_ROWS: usize = 8_192;
/// ... or this many bytes of text.
const BATCH_BYTES: usize = 4 << 20;

/// What a value counts for in the estimate of a table's size, besides its text.
const FIXED_BYTES: usize = 8;

/// Appends rows of one transaction to one table, a bounded batch at a time. Blocks while others write. Dropped without
/// `finish` it loses what is still buffered; the transaction is then for its owner to discard.
pub struct RowWriter {
    store: Store,
    table: Arc<Table>,
    generation: i64,
    open: Arc<OpenTxn>,
    cells: Vec<Cell>,
    bytes: Vec<u8>,
    rows: usize,
    written: u64,
}

/// A buffered value; text and blobs are ranges of the writer's `bytes`.
#[derive(Clone, Copy)]
enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(usize, usize),
    Blob(usize, usize),
}

impl RowWriter {
    pub(super) fn new(store: Store, table: Arc<Table>, open: Arc<OpenTxn>) -> Self {
        let generation = table.generation();
        Self { store, table, generation, open, cells: Vec::new(), bytes: Vec::new(), rows: 0, written: 0 }
    }

    /// One value per column, in the table's order, each made by `convert` for that column.
    pub fn push(&mut self, row: &[Stored<'_>]) -> Result<(), StoreError> {
        self.append(row, 0)
    }

    /// Deletes the row with this key when the transaction becomes visible; only tables whose later rows replace
    /// earlier ones know deletions, others keep the row as data. Columns off the key may be NULL.
    pub fn push_delete(&mut self, row: &[Stored<'_>]) -> Result<(), StoreError> {
        self.append(row, 1)
    }

    /// Writes what is buffered; the number of rows pushed in all.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.flush()?;
        Ok(self.written)
    }

    fn append(&mut self, row: &[Stored<'_>], operation: i64) -> Result<(), StoreError> {
        if row.len() != self.table.columns.len() {
            return Err(StoreError::RowWidth {
                table: self.table.name.clone(),
                expected: self.table.columns.len(),
                found: row.len(),
            });
        }
        for value in row {
            let cell = match value {
                Stored::Null => Cell::Null,
                Stored::Int(value) => Cell::Int(*value),
                Stored::Real(value) => Cell::Real(*value),
                Stored::Text(text) => {
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(text.as_bytes());
                    Cell::Text(start, self.bytes.len())
                }
                Stored::Blob(blob) => {
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(blob);
                    Cell::Blob(start, self.bytes.len())
                }
            };
            self.cells.push(cell);
        }
        if self.table.replaces_rows() {
            self.cells.push(Cell::Int(operation));
        }
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.bytes.len() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.write_batch()?;
        let rows = i64::try_from(self.rows).unwrap_or(i64::MAX);
        let bytes = i64::try_from(self.bytes.len() + FIXED_BYTES * self.cells.len()).unwrap_or(i64::MAX);
        self.store.touch(&self.open, &self.table, Tally::of_rows(rows, bytes));
        self.written += u64::try_from(self.rows).unwrap_or(u64::MAX);
        self.rows = 0;
        self.cells.clear();
        self.bytes.clear();
        Ok(())
    }

    fn write_batch(&self) -> Result<(), StoreError> {
        let rows = i64::try_from(self.rows).unwrap_or(i64::MAX);
        let first = self.store.inner.next_row.fetch_add(rows, Ordering::Relaxed);
        let mut writer = self.store.writer();
        if self.table.generation() != self.generation {
            return Err(StoreError::TableReplaced(self.table.name.clone()));
        }
        let change = writer.transaction()?;
        {
            let mut insert = change.prepare_cached(&self.table.insert_sql(self.generation))?;
            let width = self.cells.len() / self.rows;
            insert.raw_bind_parameter(1, self.open.id)?;
            for (number, row) in (first..).zip(self.cells.chunks_exact(width)) {
                insert.raw_bind_parameter(2, number)?;
                for (at, cell) in (3..).zip(row) {
                    insert.raw_bind_parameter(at, Bound { cell: *cell, bytes: &self.bytes })?;
                }
                insert.raw_execute()?;
            }
        }
        change.commit()?;
        Ok(())
    }
}

struct Bound<'a> {
    cell: Cell,
    bytes: &'a [u8],
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.cell {
            Cell::Null => ValueRef::Null,
            Cell::Int(value) => ValueRef::Integer(value),
            Cell::Real(value) => ValueRef::Real(value),
            Cell::Text(start, end) => ValueRef::Text(&self.bytes[start..end]),
            Cell::Blob(start, end) => ValueRef::Blob(&self.bytes[start..end]),
        }))
    }
}
