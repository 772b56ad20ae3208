//! CSV as StarRocks splits it: no quoting, the stream is cut at each row delimiter and the row at each column
//! separator, so whatever would make another cut is refused here.
//!
//! With delimiters of one byte, a row is copied as it lies in its packet and the separators are written over the
//! lengths between the cells; then what was written is searched once, as a whole, for a row or for many of them
//! ([`CsvEncoder::join`]). Cells are looked at one by one only to name the culprit.

use memchr::memchr2;
use memchr::memmem::{self, Finder};
use starlift_common::job::Delimiter;
use starlift_common::row::Row;

use super::{Collision, EncodeError, invalid_utf8_column};

/// NULL as a whole field.
const NULL_MARK: &[u8] = b"\\N";

/// Bytes that are searched at a time: as many lanes as the compiler likes.
const BLOCK: usize = 32;
/// Bytes that a copy of fixed size may write beyond what it is for.
const COPY_EXCESS: usize = 64;

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
    /// Two single bytes: a row is safe when it holds no more of them than were written.
    Bytes(u8, u8),
    /// Longer ones can also come about across the joints, so the finished row is split as the server does.
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

    /// Whether rows can be joined first and verified later.
    pub(crate) fn can_join(&self) -> bool {
        matches!(self.search, Search::Bytes(..))
    }

    /// Appends the row without looking at it; [`CsvEncoder::verify`] must find nothing before it is used.
    #[inline]
    pub(crate) fn join(&self, row: &Row<'_>, joined: &mut Joined, out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(row.packet().len() + row.width() + 1 + COPY_EXCESS);
        joined.nulls += join(row, self.column[0], out);
        joined.has_blank |= out.len() == start;
        out.push(self.row[0]);
        joined.rows += 1;
        joined.cells += row.width();
    }

    /// Whether the server reads back what was joined, all of `written`. If not, one of the rows is at fault, and
    /// [`CsvEncoder::encode`] tells which.
    pub(crate) fn verify(&self, written: &[u8], joined: &Joined) -> bool {
        let Search::Bytes(column, delimiter) = self.search else { return false };
        let found = search(written, column, delimiter);
        let null_marks = || {
            let is_end = |at: Option<usize>| {
                at.and_then(|at| written.get(at)).is_none_or(|byte| *byte == column || *byte == delimiter)
            };
            let is_field = |at: &usize| is_end(at.checked_sub(1)) && is_end(Some(at + NULL_MARK.len()));
            memmem::find_iter(written, NULL_MARK).filter(is_field).count()
        };
        let trims_ends = delimiter == b'\n';
        !joined.has_blank
            && found.delimiters == joined.cells
            && (found.backslashes == joined.nulls || null_marks() == joined.nulls)
            && !(trims_ends && memmem::find(written, b"\r\n").is_some())
            && (self.is_utf8 || std::str::from_utf8(written).is_ok())
    }

    /// After an error `out` may hold a part of the row.
    pub(crate) fn encode(&self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        match &self.search {
            Search::Bytes(column, delimiter) => self.encode_between_bytes(row, *column, *delimiter, out)?,
            Search::Row { column, row: delimiter } => self.encode_and_split(row, column, delimiter, out)?,
        }
        if self.is_utf8 {
            return Ok(());
        }
        std::str::from_utf8(&out[start..]).map(|_| ()).map_err(|_| invalid_utf8_column(row))
    }

    fn encode_between_bytes(
        &self,
        row: &Row<'_>,
        column: u8,
        delimiter: u8,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        // A NULL grows by one byte.
        out.reserve(row.packet().len() + row.width() + 1 + COPY_EXCESS);
        let nulls = join(row, column, out);
        if out.len() == start {
            return Err(blank_line());
        }
        out.push(delimiter);
        let found = search(&out[start..], column, delimiter);
        let may_have_mark = found.backslashes != nulls;
        if found.delimiters != row.width() || (may_have_mark && row.cells().any(is_null_mark)) {
            return Err(first_collision(row, column, delimiter));
        }
        self.refuse_trimmed_end(row)
    }

    fn encode_and_split(
        &self,
        row: &Row<'_>,
        separator: &Finder<'_>,
        delimiter: &Finder<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        for (column, cell) in row.cells().enumerate() {
            if column > 0 {
                out.extend_from_slice(&self.column);
            }
            if is_null_mark(cell) {
                return Err(EncodeError::Collision { column, with: Collision::NullMark });
            }
            out.extend_from_slice(cell.unwrap_or(NULL_MARK));
        }
        if out.len() == start {
            return Err(blank_line());
        }
        self.refuse_trimmed_end(row)?;
        out.extend_from_slice(&self.row);
        self.refuse_other_splits(row, separator, delimiter, &out[start..])
    }

    /// Newer servers take `\r` before a line feed for a part of the line's end.
    fn refuse_trimmed_end(&self, row: &Row<'_>) -> Result<(), EncodeError> {
        if self.row != b"\n" {
            return Ok(());
        }
        let last = row.width() - 1;
        let ends_with_return = row.cell(last).is_some_and(|cell| cell.ends_with(b"\r"));
        if ends_with_return { Err(delimiter_in(last)) } else { Ok(()) }
    }

    /// Splits the written row as the server does, from left to right, and compares with the cells.
    fn refuse_other_splits(
        &self,
        row: &Row<'_>,
        separator: &Finder<'_>,
        delimiter: &Finder<'_>,
        written: &[u8],
    ) -> Result<(), EncodeError> {
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

/// What was joined since it was last verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) rows: u64,
    cells: usize,
    nulls: usize,
    /// A row without a byte, which the server would skip.
    has_blank: bool,
}

/// Appends the cells, `separator` between them, and returns how many are NULL. Stretches of short cells are copied in one
/// go, since each is one byte from the next; most rows are a single stretch.
#[inline]
fn join(row: &Row<'_>, separator: u8, out: &mut Vec<u8>) -> usize {
    let mut rest = row.spans();
    let mut nulls = 0;
    while let Some(first) = rest.first() {
        let length = 1 + rest.windows(2).take_while(|pair| pair[0].is_one_before(pair[1])).count();
        let (stretch, after) = rest.split_at(length);
        match (first.range(), stretch[length - 1].range()) {
            (Some(first), Some(last)) => {
                let at = out.len();
                append(out, &row.packet()[first.start..last.end]);
                let written = &mut out[at..];
                for span in &stretch[..length - 1] {
                    written[span.end() - first.start] = separator;
                }
            }
            _ => {
                out.extend_from_slice(NULL_MARK);
                nulls += 1;
            }
        }
        if !after.is_empty() {
            out.push(separator);
        }
        rest = after;
    }
    nulls
}

/// Appends a stretch. Most are a few dozen bytes, for which two copies of fixed size cost less than a call that first looks
/// at the length.
#[inline]
fn append(out: &mut Vec<u8>, stretch: &[u8]) {
    if !append_halves::<16>(out, stretch) && !append_halves::<32>(out, stretch) {
        out.extend_from_slice(stretch);
    }
}

/// Appends a stretch of one to two halves: its beginning and its end, which overlap where it is shorter than both.
#[inline]
fn append_halves<const HALF: usize>(out: &mut Vec<u8>, stretch: &[u8]) -> bool {
    let (Some(head), Some(tail)) = (stretch.first_chunk::<HALF>(), stretch.last_chunk::<HALF>()) else {
        return false;
    };
    if stretch.len() > 2 * HALF {
        return false;
    }
    let end = out.len() + stretch.len();
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
    out[end - HALF..end].copy_from_slice(tail);
    out.truncate(end);
    true
}

/// What written rows hold.
struct Found {
    /// Bytes that are one of the two delimiters.
    delimiters: usize,
    backslashes: usize,
}

/// Counts. Blocks of one size become vector instructions; so few are taken together that a lane of bytes can count them.
fn search(written: &[u8], column: u8, delimiter: u8) -> Found {
    let (blocks, rest) = written.as_chunks::<BLOCK>();
    let mut found = Found { delimiters: 0, backslashes: 0 };
    let is_delimiter = |byte: &u8| u8::from(*byte == column) | u8::from(*byte == delimiter);
    for blocks in blocks.chunks(usize::from(u8::MAX)) {
        let mut delimiters = [0u8; BLOCK];
        let mut backslashes = [0u8; BLOCK];
        for block in blocks {
            for (lane, byte) in block.iter().enumerate() {
                delimiters[lane] += is_delimiter(byte);
                backslashes[lane] += u8::from(*byte == b'\\');
            }
        }
        found.delimiters += delimiters.iter().map(|count| usize::from(*count)).sum::<usize>();
        found.backslashes += backslashes.iter().map(|count| usize::from(*count)).sum::<usize>();
    }
    for byte in rest {
        found.delimiters += usize::from(is_delimiter(byte));
        found.backslashes += usize::from(*byte == b'\\');
    }
    found
}

/// The error of a row in which [`search`] found something. A delimiter of the mark's own letter clashes with NULL.
fn first_collision(row: &Row<'_>, separator: u8, delimiter: u8) -> EncodeError {
    let collision = |cell: Option<&[u8]>| match memchr2(separator, delimiter, cell.unwrap_or(NULL_MARK)) {
        _ if is_null_mark(cell) => Some(Collision::NullMark),
        found => found.map(|_| Collision::Delimiter),
    };
    let mut cells = row.cells().enumerate();
    let first =
        cells.find_map(|(column, cell)| Some(EncodeError::Collision { column, with: collision(cell)? }));
    first.unwrap_or(delimiter_in(0))
}

fn is_null_mark(cell: Option<&[u8]>) -> bool {
    cell == Some(NULL_MARK)
}

fn delimiter_in(column: usize) -> EncodeError {
    EncodeError::Collision { column, with: Collision::Delimiter }
}

fn blank_line() -> EncodeError {
    EncodeError::Collision { column: 0, with: Collision::BlankLine }
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
    fn a_delimiter_out_of_the_null_mark_clashes_with_null() {
        let letter = encoder(b",", b"N");
        assert_eq!(encode(&letter, &cells(&[Some("a"), None])), Err(delimiter_in(1)));
        assert!(encode(&letter, &cells(&[Some("a"), Some("b")])).is_ok());
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

    /// The rule without any of the tricks: first what each cell holds, then the row as a whole.
    fn naive(row: &Cells, separator: u8, delimiter: u8, is_utf8: bool) -> Result<Vec<u8>, EncodeError> {
        for (column, cell) in row.iter().enumerate() {
            if cell.as_deref() == Some(b"\\N") {
                return Err(EncodeError::Collision { column, with: Collision::NullMark });
            }
            if cell
                .as_deref()
                .unwrap_or(NULL_MARK)
                .iter()
                .any(|byte| *byte == separator || *byte == delimiter)
            {
                return Err(delimiter_in(column));
            }
        }
        let fields: Vec<_> = row.iter().map(|cell| cell.as_deref().unwrap_or(NULL_MARK)).collect();
        let mut out = fields.join(&separator);
        if out.is_empty() {
            return Err(blank_line());
        }
        if delimiter == b'\n' && fields.last().is_some_and(|field| field.ends_with(b"\r")) {
            return Err(delimiter_in(row.len() - 1));
        }
        out.push(delimiter);
        let broken = fields.iter().position(|field| std::str::from_utf8(field).is_err());
        match broken.filter(|_| !is_utf8) {
            Some(column) => Err(EncodeError::NotUtf8 { column }),
            None => Ok(out),
        }
    }

    /// Cells around every border: of lengths, of blocks, of what is allowed in them.
    fn hard_cell() -> impl Strategy<Value = Option<Vec<u8>>> {
        let long = prop_oneof![Just(250usize), Just(251), Just(252), Just(65_535), Just(65_536), 0usize..300];
        prop_oneof![
            6 => "[a-z0-9]{0,12}".prop_map(|text| Some(text.into_bytes())),
            2 => Just(None),
            1 => "[|,\\\\N\r\n\x01\x02]{0,3}".prop_map(|text| Some(text.into_bytes())),
            1 => Just(Some(b"\\N".to_vec())),
            1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
            1 => (long, any::<u8>()).prop_map(|(length, byte)| Some(vec![byte; length])),
        ]
    }

    /// Cells that every form can carry, so that wide rows get through.
    fn fine_cell() -> impl Strategy<Value = Option<Vec<u8>>> {
        let long = prop_oneof![Just(250usize), Just(251), Just(65_535), Just(65_536), 0usize..300];
        prop_oneof![
            8 => "[a-zü]{0,12}".prop_map(|text| Some(text.into_bytes())),
            1 => Just(None),
            1 => long.prop_map(|length| Some(vec![b'x'; length])),
        ]
    }

    #[test]
    fn null_in_any_place_is_written_and_read_back() {
        for width in [1, 2, 3, 16, 121] {
            for place in 0..width {
                let mut row = cells(&vec![Some("x"); width]);
                row[place] = None;
                let out = encode(&encoder(b"\x01", b"\x02"), &row).expect("encodable");
                assert_eq!(decode(&out, b"\x01", b"\x02"), [row]);
            }
            let nothing = cells(&vec![None; width]);
            let out = encode(&encoder(b"\x01", b"\x02"), &nothing).expect("encodable");
            assert_eq!(decode(&out, b"\x01", b"\x02"), [nothing]);
        }
    }

    #[test]
    fn a_delimiter_is_found_in_whatever_cell_and_at_whatever_byte() {
        for width in [1, 2, 16, 121] {
            for place in 0..width {
                for length in [1, 31, 32, 33, 250, 251, 9000] {
                    for at in [0, length / 2, length - 1] {
                        let mut row = cells(&vec![Some("x"); width]);
                        let mut cell = vec![b'x'; length];
                        cell[at] = if at % 2 == 0 { 1 } else { 2 };
                        row[place] = Some(cell);
                        let found = encode(&encoder(b"\x01", b"\x02"), &row);
                        assert_eq!(found, Err(delimiter_in(place)));
                    }
                }
            }
        }
    }

    #[test]
    fn more_delimiters_than_a_lane_can_count_are_counted() {
        let row = vec![Some(vec![1; 70_000])];
        assert_eq!(encode(&encoder(b"\x01", b"\x02"), &row), Err(delimiter_in(0)));
        let wide = cells(&vec![Some(""); 40_000]);
        assert_eq!(encode(&encoder(b"\x01", b"\x02"), &wide).map(|out| out.len()), Ok(40_000));
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
        fn rows_are_written_as_by_the_plain_rule(
            rows in prop_oneof![4 => 1usize..6, 1 => Just(16usize), 1 => Just(121usize)]
                .prop_flat_map(|width| {
                    let hard = proptest::collection::vec(hard_cell(), width);
                    let fine = proptest::collection::vec(fine_cell(), width);
                    proptest::collection::vec(prop_oneof![hard, fine], 1..4)
                }),
            (column, row) in prop_oneof![Just((1u8, 2u8)), Just((b',', b'\n')), Just((b'|', b'\r')), Just((0, b'N'))],
            is_utf8: bool,
        ) {
            let delimiter = |byte| Delimiter::new(vec![byte]).expect("a delimiter");
            let encoder = CsvEncoder::new(&delimiter(column), &delimiter(row), is_utf8);
            let mut out = b"before".to_vec();
            for cells in rows {
                let before = out.len();
                let written = encoder.encode(&buffer(&cells).row(), &mut out).map(|()| out[before..].to_vec());
                prop_assert_eq!(written, naive(&cells, column, row, is_utf8));
                out.truncate(before);
            }
            prop_assert_eq!(out, b"before");
        }

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
