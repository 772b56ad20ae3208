//! CSV as StarRocks splits it: no quoting, the stream is cut at each row delimiter and the row at each column
//! separator, so whatever would make another cut is refused here.

use memchr::memchr2;
use memchr::memmem::Finder;
use starlift_common::job::Delimiter;
use starlift_common::row::Row;

use super::{Collision, EncodeError, invalid_utf8_column};

/// NULL as a whole field.
const NULL_MARK: &[u8] = b"\\N";

/// Writes rows between two delimiters.
pub(crate) struct CsvEncoder {
    column: Vec<u8>,
    row: Vec<u8>,
    search: Search,
    /// The server guarantees it.
    is_utf8: bool,
}

/// How to tell that a row is split where it was joined.
enum Search {
    /// Two single bytes: a value is safe when it holds neither.
    Bytes(u8, u8),
    /// Longer ones can also come about across the joints, so the finished row is searched.
    Row { column: Box<Finder<'static>>, row: Box<Finder<'static>> },
}

impl CsvEncoder {
    pub(crate) fn new(column: &Delimiter, row: &Delimiter, is_utf8: bool) -> Self {
        let (column, row) = (column.as_bytes(), row.as_bytes());
        let search = match (column, row) {
            (&[column], &[row]) => Search::Bytes(column, row),
            _ => Search::Row {
                column: Box::new(Finder::new(column).into_owned()),
                row: Box::new(Finder::new(row).into_owned()),
            },
        };
        Self { column: column.to_vec(), row: row.to_vec(), search, is_utf8 }
    }

    pub(crate) fn encode(&self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        for (column, cell) in row.cells().enumerate() {
            if column > 0 {
                out.extend_from_slice(&self.column);
            }
            out.extend_from_slice(self.field(column, cell)?);
        }
        if out.len() == start {
            return Err(EncodeError::Collision { column: 0, with: Collision::BlankLine });
        }
        self.refuse_trimmed_end(row)?;
        out.extend_from_slice(&self.row);
        self.refuse_other_splits(row, &out[start..])?;
        if self.is_utf8 {
            return Ok(());
        }
        std::str::from_utf8(&out[start..]).map(|_| ()).map_err(|_| invalid_utf8_column(row))
    }

    fn field<'c>(&self, column: usize, cell: Option<&'c [u8]>) -> Result<&'c [u8], EncodeError> {
        let Some(cell) = cell else { return Ok(NULL_MARK) };
        if cell == NULL_MARK {
            return Err(EncodeError::Collision { column, with: Collision::NullMark });
        }
        match self.search {
            Search::Bytes(first, second) if memchr2(first, second, cell).is_some() => {
                Err(delimiter_in(column))
            }
            _ => Ok(cell),
        }
    }

    /// Newer servers take `\r` before a line feed for a part of the line's end.
    fn refuse_trimmed_end(&self, row: &Row<'_>) -> Result<(), EncodeError> {
        let last = row.width() - 1;
        let ends_with_return = row.cell(last).is_some_and(|cell| cell.ends_with(b"\r"));
        if ends_with_return && self.row == b"\n" { Err(delimiter_in(last)) } else { Ok(()) }
    }

    /// Splits the written row as the server does, from left to right, and compares with the cells.
    fn refuse_other_splits(&self, row: &Row<'_>, written: &[u8]) -> Result<(), EncodeError> {
        let Search::Row { column: separator, row: delimiter } = &self.search else {
            return Ok(());
        };
        let body = &written[..written.len() - self.row.len()];
        let row_end = delimiter.find(written).unwrap_or(written.len());
        let mut position = 0;
        for (column, cell) in row.cells().enumerate() {
            let length = cell.map_or(NULL_MARK.len(), <[u8]>::len);
            let is_last = column + 1 == row.width();
            let expected = (!is_last).then_some(length);
            let end = position + length;
            if separator.find(&body[position..]) != expected || (row_end < body.len() && row_end <= end) {
                return Err(delimiter_in(column));
            }
            position = end + self.column.len();
        }
        if row_end == body.len() { Ok(()) } else { Err(delimiter_in(row.width() - 1)) }
    }
}

fn delimiter_in(column: usize) -> EncodeError {
    EncodeError::Collision { column, with: Collision::Delimiter }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Cells, buffer, cells};
    use super::*;

    fn encoder(column: &[u8], row: &[u8]) -> CsvEncoder {
        let delimiter = |bytes: &[u8]| Delimiter::new(bytes.to_vec()).expect("a delimiter");
        CsvEncoder::new(&delimiter(column), &delimiter(row), false)
    }

    fn encode(encoder: &CsvEncoder, row: &Cells) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        encoder.encode(&buffer(row).row(), &mut out).map(|()| out)
    }

    /// Splits bytes as the server's scanner does.
    fn split<'b>(bytes: &'b [u8], delimiter: &[u8]) -> Vec<&'b [u8]> {
        let mut fields = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.windows(delimiter.len()).position(|window| window == delimiter) {
            fields.push(&rest[..at]);
            rest = &rest[at + delimiter.len()..];
        }
        fields.push(rest);
        fields
    }

    fn decode(bytes: &[u8], column: &[u8], row: &[u8]) -> Vec<Cells> {
        let mut rows = split(bytes, row);
        assert_eq!(rows.pop(), Some(&b""[..]), "every row ends with its delimiter");
        let cell = |field: &[u8]| (field != NULL_MARK).then(|| field.to_vec());
        let rows = rows.into_iter().filter(|row| !row.is_empty());
        rows.map(|row| split(row, column).into_iter().map(cell).collect()).collect()
    }

    #[test]
    fn null_and_empty_text_are_two_things() {
        let out = encode(&encoder(b"\x01", b"\x02"), &cells(&[Some("a"), None, Some(""), Some("ü😀")]));
        assert_eq!(out.expect("encodable"), "a\x01\\N\x01\x01ü😀\x02".as_bytes());
    }

    #[test]
    fn what_the_server_would_read_otherwise_is_refused() {
        let with = |with| Err(EncodeError::Collision { column: 1, with });
        let bytes = encoder(b",", b"\n");
        assert_eq!(encode(&bytes, &cells(&[Some("a"), Some("b,c")])), with(Collision::Delimiter));
        assert_eq!(encode(&bytes, &cells(&[Some("a"), Some("b\n")])), with(Collision::Delimiter));
        assert_eq!(encode(&bytes, &cells(&[Some("a"), Some("b\r")])), with(Collision::Delimiter));
        assert_eq!(encode(&bytes, &cells(&[Some("a"), Some("\\N")])), with(Collision::NullMark));
        assert!(encode(&bytes, &cells(&[Some("a"), Some("\\N ")])).is_ok());
        let blank = EncodeError::Collision { column: 0, with: Collision::BlankLine };
        assert_eq!(encode(&bytes, &cells(&[Some("")])), Err(blank));
    }

    #[test]
    fn a_delimiter_that_comes_about_across_a_joint_is_seen() {
        let overlapping = encoder(b"||", b"\n");
        let refused = Err(EncodeError::Collision { column: 0, with: Collision::Delimiter });
        assert_eq!(encode(&overlapping, &cells(&[Some("a|"), Some("b")])), refused);
        let interlocked = encoder(b"ab", b"bx");
        assert!(encode(&interlocked, &cells(&[Some("1"), Some("x")])).is_err());
    }

    #[test]
    fn bytes_that_are_no_utf8_are_refused_with_their_column() {
        let row = vec![Some(b"a".to_vec()), Some(vec![0xff])];
        let refused = Err(EncodeError::NotUtf8 { column: 1 });
        assert_eq!(encode(&encoder(b"\x01", b"\x02"), &row), refused);
    }

    fn any_row(width: usize) -> impl Strategy<Value = Cells> {
        let cell = prop_oneof![
            Just(None),
            "[|,ab\\\\N\r\n\x01\x02]{0,4}".prop_map(|text| Some(text.into_bytes())),
            any::<String>().prop_map(|text| Some(text.into_bytes())),
        ];
        proptest::collection::vec(cell, width)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            rows in (1usize..4).prop_flat_map(|width| proptest::collection::vec(any_row(width), 0..8)),
            (column, row) in prop_oneof![
                Just((&b"\x01"[..], &b"\x02"[..])), Just((&b","[..], &b"\n"[..])), Just((&b"||"[..], &b"\n"[..])),
                Just((&b"ab"[..], &b"ba"[..])), Just((&b"aab"[..], &b"|"[..])),
            ],
        ) {
            let encoder = encoder(column, row);
            let mut out = Vec::new();
            let mut written = Vec::new();
            for cells in rows {
                let before = out.len();
                match encoder.encode(&buffer(&cells).row(), &mut out) {
                    Ok(()) => written.push(cells),
                    Err(_) => out.truncate(before),
                }
            }
            prop_assert_eq!(decode(&out, column, row), written);
        }

        #[test]
        fn rows_without_the_delimiters_are_never_refused(rows in any_row(3)) {
            let free = rows.iter().flatten().all(|cell| !cell.iter().any(|byte| matches!(byte, 1 | 2)) && cell != NULL_MARK);
            prop_assume!(free);
            prop_assert!(encode(&encoder(b"\x01", b"\x02"), &rows).is_ok());
        }
    }
}
