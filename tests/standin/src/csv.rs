//! CSV bodies as Stream Load reads them: cut at the row delimiter, then at the column separator, no quoting unless
//! `enclose` or `escape` is set. Pure and incremental: a record may span any number of chunks. Conversion is elsewhere.

use std::ops::Range;

use memchr::memmem::Finder;

use crate::params::Quoting;

/// A record longer than this ends the load; the bound is the stand-in's own.
const RECORD_BYTES_MAX: usize = 128 << 20;

/// One record: its raw bytes and its fields.
pub(crate) struct Record<'a> {
    /// As it stood in the body, for the error log.
    pub(crate) raw: &'a [u8],
    text: &'a [u8],
    fields: &'a [Range<usize>],
}

impl Record<'_> {
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// `None` is NULL: the whole field is `\N`.
    #[inline]
    pub(crate) fn field(&self, place: usize) -> Option<&[u8]> {
        let text = self.fields.get(place).map_or(&[][..], |range| &self.text[range.clone()]);
        (text != b"\\N").then_some(text)
    }
}

/// The body cannot be cut into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("CSV line length exceed limit {RECORD_BYTES_MAX}")]
pub(crate) struct RecordTooLong;

/// Cuts a byte stream into records.
pub(crate) struct CsvReader {
    separator: Finder<'static>,
    delimiter: Finder<'static>,
    quoting: Quoting,
    headers_left: usize,
    /// Records are handed out without their fields.
    whole: bool,
    /// The unfinished record at the end of the last chunk.
    carry: Vec<u8>,
    cutter: Cutter,
}

#[derive(Default)]
struct Cutter {
    fields: Vec<Range<usize>>,
    /// Unescaped text of the record, used only with `enclose` or `escape`.
    unescaped: Vec<u8>,
}

impl CsvReader {
    pub(crate) fn new(separator: &[u8], delimiter: &[u8], quoting: &Quoting) -> Self {
        Self {
            separator: Finder::new(separator).into_owned(),
            delimiter: Finder::new(delimiter).into_owned(),
            headers_left: quoting.skip_header,
            whole: false,
            quoting: quoting.clone(),
            carry: Vec::new(),
            cutter: Cutter::default(),
        }
    }

    /// Records come without fields from now on, only `raw` is of use. Not for `enclose` and `escape`.
    pub(crate) fn take_whole(&mut self) {
        self.whole = true;
    }

    /// Hands every record that is complete now to `row`; keeps the rest.
    pub(crate) fn feed(
        &mut self,
        chunk: &[u8],
        row: &mut impl FnMut(&Record<'_>),
    ) -> Result<(), RecordTooLong> {
        if self.carry.is_empty() {
            let used = self.records(chunk, false, row);
            self.carry.extend_from_slice(&chunk[used..]);
        } else if let Some(end) = self.end_of_carried(chunk) {
            let mut first = std::mem::take(&mut self.carry);
            first.extend_from_slice(&chunk[..end]);
            self.records(&first, false, row);
            first.clear();
            let used = self.records(&chunk[end..], false, row);
            first.extend_from_slice(&chunk[end + used..]);
            self.carry = first;
        } else {
            let mut joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(chunk);
            let used = self.records(&joined, false, row);
            joined.drain(..used);
            self.carry = joined;
        }
        if self.carry.len() > RECORD_BYTES_MAX { Err(RecordTooLong) } else { Ok(()) }
    }

    /// Where the carried record ends in `chunk`, where that is plain to see.
    fn end_of_carried(&self, chunk: &[u8]) -> Option<usize> {
        match self.delimiter.needle() {
            [byte] if !self.quoting.is_quoted() => memchr::memchr(*byte, chunk).map(|at| at + 1),
            _ => None,
        }
    }

    /// The last record may lack its delimiter.
    pub(crate) fn finish(&mut self, row: &mut impl FnMut(&Record<'_>)) {
        let rest = std::mem::take(&mut self.carry);
        self.records(&rest, true, row);
    }

    /// Returns how many bytes the complete records took.
    fn records(&mut self, data: &[u8], last: bool, row: &mut impl FnMut(&Record<'_>)) -> usize {
        let mut start = 0;
        while start < data.len() {
            let rest = &data[start..];
            let found = if self.quoting.is_quoted() {
                self.cutter.cut_quoted(
                    rest,
                    self.separator.needle(),
                    self.delimiter.needle(),
                    &self.quoting,
                    last,
                )
            } else {
                find(&self.delimiter, rest)
                    .map(|at| (at, at + self.delimiter.needle().len()))
                    .or_else(|| last.then_some((rest.len(), rest.len())))
            };
            let Some((end, next)) = found else { break };
            start += next;
            if self.headers_left > 0 {
                self.headers_left -= 1;
                continue;
            }
            let raw = &rest[..end];
            if raw.is_empty() {
                continue;
            }
            let text: &[u8] = if self.whole {
                raw
            } else if self.quoting.is_quoted() {
                &self.cutter.unescaped
            } else {
                self.cutter.cut_plain(raw, &self.separator, self.quoting.trim_space);
                raw
            };
            row(&Record { raw, text, fields: &self.cutter.fields });
        }
        start
    }
}

#[inline]
fn find(finder: &Finder<'_>, text: &[u8]) -> Option<usize> {
    match finder.needle() {
        [byte] => memchr::memchr(*byte, text),
        _ => finder.find(text),
    }
}

impl Cutter {
    fn cut_plain(&mut self, raw: &[u8], separator: &Finder<'_>, trim_space: bool) {
        self.fields.clear();
        let mut start = 0;
        match separator.needle() {
            [byte] => {
                for at in memchr::memchr_iter(*byte, raw) {
                    self.fields.push(start..at);
                    start = at + 1;
                }
            }
            needle => {
                for at in separator.find_iter(raw) {
                    self.fields.push(start..at);
                    start = at + needle.len();
                }
            }
        }
        self.fields.push(start..raw.len());
        if trim_space {
            for range in &mut self.fields {
                *range = trimmed(raw, range);
            }
        }
    }

    /// Cuts one record off `data`, unescaping it; returns where it ends and where the next one starts, or `None` if
    /// more bytes are needed.
    fn cut_quoted(
        &mut self,
        data: &[u8],
        separator: &[u8],
        delimiter: &[u8],
        quoting: &Quoting,
        last: bool,
    ) -> Option<(usize, usize)> {
        self.fields.clear();
        self.unescaped.clear();
        let lookahead = separator.len().max(delimiter.len()).max(2);
        let (mut at, mut field_start, mut at_field_start, mut enclosed) = (0, 0, true, false);
        while at < data.len() {
            let rest = &data[at..];
            let ends_here = !enclosed && rest.starts_with(delimiter);
            if !last && rest.len() < lookahead && !ends_here {
                return None;
            }
            let byte = rest[0];
            if at_field_start && quoting.trim_space && byte == b' ' {
                at += 1;
            } else if at_field_start && Some(byte) == quoting.enclose {
                (enclosed, at_field_start) = (true, false);
                at += 1;
            } else if Some(byte) == quoting.escape && rest.len() > 1 {
                at += 1 + self.push_escaped(&rest[1..], separator, delimiter);
                at_field_start = false;
            } else if enclosed && Some(byte) == quoting.enclose {
                if rest.get(1) == Some(&byte) {
                    self.unescaped.push(byte);
                    at += 2;
                } else {
                    enclosed = false;
                    at += 1;
                }
            } else if !enclosed && rest.starts_with(separator) {
                self.end_field(field_start, quoting.trim_space);
                (field_start, at_field_start) = (self.unescaped.len(), true);
                at += separator.len();
            } else if ends_here {
                self.end_field(field_start, quoting.trim_space);
                return Some((at, at + delimiter.len()));
            } else {
                self.unescaped.push(byte);
                at_field_start = false;
                at += 1;
            }
        }
        last.then(|| {
            self.end_field(field_start, quoting.trim_space);
            (data.len(), data.len())
        })
    }

    /// Takes what stands behind an escape byte; returns how many bytes that was.
    fn push_escaped(&mut self, rest: &[u8], separator: &[u8], delimiter: &[u8]) -> usize {
        let length =
            [separator, delimiter].iter().find(|mark| rest.starts_with(mark)).map_or(1, |mark| mark.len());
        self.unescaped.extend_from_slice(&rest[..length]);
        length
    }

    fn end_field(&mut self, start: usize, trim_space: bool) {
        let whole = start..self.unescaped.len();
        self.fields.push(if trim_space { trimmed(&self.unescaped, &whole) } else { whole });
    }
}

fn trimmed(text: &[u8], range: &Range<usize>) -> Range<usize> {
    let field = &text[range.clone()];
    let left = field.iter().take_while(|byte| **byte == b' ').count();
    let right = field[left..].iter().rev().take_while(|byte| **byte == b' ').count();
    range.start + left..range.end - right
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All records as lists of optional texts, fed in chunks of `step` bytes.
    fn read(
        body: &[u8],
        separator: &str,
        delimiter: &str,
        quoting: &Quoting,
        step: usize,
    ) -> Vec<Vec<Option<String>>> {
        let mut rows = Vec::new();
        let mut reader = CsvReader::new(separator.as_bytes(), delimiter.as_bytes(), quoting);
        let mut row = |record: &Record<'_>| {
            let cells = (0..record.len())
                .map(|place| record.field(place).map(|cell| String::from_utf8_lossy(cell).into()));
            rows.push(cells.collect());
        };
        for chunk in body.chunks(step) {
            reader.feed(chunk, &mut row).unwrap();
        }
        reader.finish(&mut row);
        rows
    }

    fn cells(texts: &[&str]) -> Vec<Option<String>> {
        texts.iter().map(|text| (*text != "\\N").then(|| (*text).to_owned())).collect()
    }

    #[test]
    fn records_are_the_same_however_the_body_is_chunked() {
        let body = b"1||a\r||\\N##2||\"||b##\n####3||||";
        let want = vec![
            cells(&["1", "a\r", "\\N"]),
            cells(&["2", "\"", "b"]),
            cells(&["\n"]),
            cells(&["3", "", ""]),
        ];
        for step in 1..=body.len() {
            assert_eq!(read(body, "||", "##", &Quoting::default(), step), want, "step {step}");
        }
    }

    #[test]
    fn blank_lines_are_skipped_and_a_trailing_separator_adds_a_field() {
        assert_eq!(read(b"\n1,\n\n", ",", "\n", &Quoting::default(), 99), vec![cells(&["1", ""])]);
    }

    #[test]
    fn enclosed_fields_hold_separators_and_doubled_quotes() {
        let quoting = Quoting { enclose: Some(b'"'), escape: Some(b'\\'), ..Quoting::default() };
        let body = b"\"a,b\n\"\"c\",x\"y,\\,z\n\"\",\"\\\"\"\n";
        let want = vec![cells(&["a,b\n\"c", "x\"y", ",z"]), cells(&["", "\""])];
        for step in 1..=body.len() {
            assert_eq!(read(body, ",", "\n", &quoting, step), want, "step {step}");
        }
    }

    #[test]
    fn header_lines_and_blanks_are_dropped_on_request() {
        let quoting = Quoting { skip_header: 1, trim_space: true, ..Quoting::default() };
        assert_eq!(read(b"id,name\n 1 , a b \n", ",", "\n", &quoting, 3), vec![cells(&["1", "a b"])]);
    }
}
