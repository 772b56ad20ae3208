//! Row to body bytes, CSV or JSON. Pure: no value is changed on the way; a value that a form cannot carry is an error
//! that names its column, never a damaged row. Which form an attempt uses is decided in [`ladder`].

pub(crate) mod check;
mod csv;
mod hex;
mod json;
pub(crate) mod ladder;

use starlift_common::job::{CellCheck, CellKind, CellRule, LoadSpec};
use starlift_common::row::Row;

use csv::CsvEncoder;
use json::JsonEncoder;
use ladder::Form;

pub(crate) use csv::Joined;

/// Why a row cannot be written in the chosen form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EncodeError {
    /// The server would read another value back. `column` is an index.
    Collision { column: usize, with: Collision },
    /// The server filters rows that are not UTF-8.
    NotUtf8 { column: usize },
    /// The server would take another value for it, in any form.
    Unfit { column: usize, rule: CellRule },
    /// With its digits the row is longer than any row can be.
    TooLong { column: usize },
}

/// What in a value clashes with the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collision {
    /// The bytes of a delimiter, alone or together with their surroundings.
    Delimiter,
    /// The text `\N`, which means NULL in CSV.
    NullMark,
    /// A row without a byte, which the server skips as a blank line.
    BlankLine,
    /// A JSON document that means something else as a value of a JSON row.
    BareDocument,
}

/// Writes rows in one form. Bodies are `open row (between row)* close`.
pub(crate) struct Encoder {
    writer: Writer,
    checks: Vec<CellCheck>,
    /// Columns whose bytes go out as hexadecimal digits, in order.
    hex: Vec<usize>,
}

enum Writer {
    Csv(CsvEncoder),
    Json(JsonEncoder),
}

impl Encoder {
    /// For the rows of `load`. `is_utf8`: the source's server guarantees it, so nobody looks.
    pub(crate) fn of(load: &LoadSpec, form: &Form, is_utf8: bool) -> Self {
        let encoder = Self::new(form, &load.cell_names(), &load.cell_kinds, is_utf8);
        Self { checks: load.checks.clone(), ..encoder }
    }

    /// `names` and `kinds` are as many as the cells of each row.
    pub(crate) fn new(form: &Form, names: &[String], kinds: &[CellKind], is_utf8: bool) -> Self {
        let writer = match form {
            Form::Csv { column, row } => Writer::Csv(CsvEncoder::new(column, row, is_utf8)),
            Form::Json => Writer::Json(JsonEncoder::new(names, kinds, is_utf8)),
        };
        let hex = kinds.iter().enumerate().filter(|(_, kind)| **kind == CellKind::Hex);
        Self { writer, checks: Vec::new(), hex: hex.map(|(column, _)| column).collect() }
    }

    /// Appends the row to `out`; after an error `out` is as it was.
    pub(crate) fn encode(&self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        check::check(&self.checks, row)?;
        let start = out.len();
        let result = if self.hex.is_empty() {
            self.writer.write(row, out)
        } else {
            hex::with_digits(row, &self.hex).and_then(|buffer| self.writer.write(&buffer.row(), out))
        };
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Whether rows can be joined first and verified together.
    #[inline]
    pub(crate) fn can_join(&self) -> bool {
        matches!(&self.writer, Writer::Csv(csv) if csv.can_join()) && self.hex.is_empty()
    }

    /// Appends a row that [`Encoder::verify`] looks at later, together with others. False, and nothing is appended, where
    /// [`Encoder::encode`] has something to say of it.
    #[inline]
    pub(crate) fn join(&self, row: &Row<'_>, joined: &mut Joined, out: &mut Vec<u8>) -> bool {
        let Writer::Csv(csv) = &self.writer else { return false };
        if check::check(&self.checks, row).is_err() {
            return false;
        }
        csv.join(row, joined, out);
        true
    }

    /// Whether the server reads back what was joined, all of `written`.
    pub(crate) fn verify(&self, written: &[u8], joined: &Joined) -> bool {
        matches!(&self.writer, Writer::Csv(csv) if csv.verify(written, joined))
    }

    pub(crate) fn open(&self) -> &'static [u8] {
        match self.writer {
            Writer::Csv(_) => b"",
            Writer::Json(_) => b"[",
        }
    }

    pub(crate) fn between(&self) -> &'static [u8] {
        match self.writer {
            Writer::Csv(_) => b"",
            Writer::Json(_) => b",",
        }
    }

    pub(crate) fn close(&self) -> &'static [u8] {
        match self.writer {
            Writer::Csv(_) => b"",
            Writer::Json(_) => b"]",
        }
    }
}

impl Writer {
    /// After an error `out` may hold a part of the row.
    fn write(&self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Csv(csv) => csv.encode(row, out),
            Self::Json(json) => json.encode(row, out),
        }
    }
}

/// The first cell that is not UTF-8; for the message, once a whole row was found not to be.
fn invalid_utf8_column(row: &Row<'_>) -> EncodeError {
    let column = row.cells().position(|cell| cell.is_some_and(|cell| std::str::from_utf8(cell).is_err()));
    EncodeError::NotUtf8 { column: column.unwrap_or_default() }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Rows for tests: owned cells, and the way to the borrowed ones.

    use starlift_common::row::RowBuffer;

    pub(crate) type Cells = Vec<Option<Vec<u8>>>;

    pub(crate) fn buffer(cells: &Cells) -> RowBuffer {
        let mut buffer = RowBuffer::default();
        for cell in cells {
            assert!(buffer.push(cell.as_deref()), "short enough to address");
        }
        buffer
    }

    pub(crate) fn cells(texts: &[Option<&str>]) -> Cells {
        texts.iter().map(|text| text.map(|text| text.as_bytes().to_vec())).collect()
    }
}
