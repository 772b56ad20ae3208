//! JSON objects as StarRocks matches them without `jsonpaths`: keys are target column names, NULL is explicit.
//!
//! Whether any cell needs an escape is found out for the row as a whole. Most rows need none; then a cell is a copy of
//! one block of fixed size, which is cheaper than a copy of just its length.

use starlift_common::job::CellKind;
use starlift_common::row::{CellSpan, Row};

use super::{Collision, EncodeError, invalid_utf8_column};

/// Significant digits that survive a reader which takes a number with a fraction or exponent for a double.
const SAFE_FRACTION_DIGITS: usize = 15;
/// Digits of an integer that fits 64 bits whatever they are.
const SAFE_INTEGER_DIGITS: usize = 18;

/// Bytes that are copied or searched at a time; most cells and most names have fewer.
const BLOCK: usize = 32;
/// Fills the last block of a search; needs no escape.
const PADDING: u8 = b'x';

const HEX: &[u8; 16] = b"0123456789abcdef";

/// For each byte: 0 = as it is, `u` = `\u00xx`, else the letter after the backslash.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Writes each row as one object.
pub(crate) struct JsonEncoder {
    columns: Vec<Column>,
    /// Columns of JSON documents.
    documents: Vec<usize>,
    /// Bytes of all leads.
    leads_bytes: usize,
    /// The server guarantees it.
    is_utf8: bool,
}

struct Column {
    /// `{"name":` or `,"name":`
    lead: Vec<u8>,
    /// The lead's beginning, for a copy of fixed size.
    lead_block: [u8; BLOCK],
    kind: CellKind,
}

impl Column {
    fn new(index: usize, name: &str, kind: CellKind) -> Self {
        let mut lead = vec![if index == 0 { b'{' } else { b',' }];
        write_text(name.as_bytes(), &mut lead);
        lead.push(b':');
        let mut lead_block = [0; BLOCK];
        let length = lead.len().min(BLOCK);
        lead_block[..length].copy_from_slice(&lead[..length]);
        Self { lead, lead_block, kind }
    }
}

impl JsonEncoder {
    pub(crate) fn new(names: &[String], kinds: &[CellKind], is_utf8: bool) -> Self {
        let columns = names.iter().zip(kinds).enumerate();
        let columns: Vec<_> = columns.map(|(index, (name, kind))| Column::new(index, name, *kind)).collect();
        let leads_bytes = columns.iter().map(|column| column.lead.len()).sum();
        let documents = kinds.iter().enumerate().filter(|(_, kind)| **kind == CellKind::Json);
        let documents = documents.map(|(column, _)| column).collect();
        Self { columns, documents, leads_bytes, is_utf8 }
    }

    /// After an error `out` may hold a part of the row.
    pub(crate) fn encode(&self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        for &column in &self.documents {
            if row.cell(column).is_some_and(is_bare_document) {
                return Err(EncodeError::Collision { column, with: Collision::BareDocument });
            }
        }
        let start = out.len();
        // `null` is longer than its packet byte by three, quotes than a length by one.
        let unescaped_bytes = self.leads_bytes + row.packet().len() + 3 * row.width() + 1;
        if needs_no_escape(row) {
            out.resize(start + unescaped_bytes + BLOCK, 0);
            let written = self.write_unescaped(row, &mut out[start..]);
            out.truncate(start + written);
        } else {
            out.reserve(unescaped_bytes);
            self.write_escaped(row, out);
        }
        if self.is_utf8 {
            return Ok(());
        }
        std::str::from_utf8(&out[start..]).map(|_| ()).map_err(|_| invalid_utf8_column(row))
    }

    /// Writes a row in which no cell needs an escape; returns its length. `out` is longer by a block than the row can get.
    fn write_unescaped(&self, row: &Row<'_>, out: &mut [u8]) -> usize {
        let packet = row.packet();
        let mut at = 0;
        for (column, span) in self.columns.iter().zip(row.spans()) {
            let lead = &column.lead;
            if lead.len() <= BLOCK {
                out[at..at + BLOCK].copy_from_slice(&column.lead_block);
            } else {
                out[at..at + lead.len()].copy_from_slice(lead);
            }
            at += lead.len();
            let Some(range) = span.range() else {
                out[at..at + 4].copy_from_slice(b"null");
                at += 4;
                continue;
            };
            // Written in any case, and written over where they do not belong: what follows a cell differs from row to row.
            let quote = usize::from(!is_bare(column.kind, packet, *span));
            out[at] = b'"';
            at += quote;
            let length = range.len();
            match packet.get(range.start..range.start + BLOCK) {
                Some(block) if length <= BLOCK => out[at..at + BLOCK].copy_from_slice(block),
                _ => out[at..at + length].copy_from_slice(&packet[range]),
            }
            at += length;
            out[at] = b'"';
            at += quote;
        }
        out[at] = b'}';
        at + 1
    }

    fn write_escaped(&self, row: &Row<'_>, out: &mut Vec<u8>) {
        for (column, span) in self.columns.iter().zip(row.spans()) {
            out.extend_from_slice(&column.lead);
            match span.range() {
                None => out.extend_from_slice(b"null"),
                Some(range) if is_bare(column.kind, row.packet(), *span) => {
                    out.extend_from_slice(&row.packet()[range]);
                }
                Some(range) => write_text(&row.packet()[range], out),
            }
        }
        out.push(b'}');
    }
}

/// Whether the cell, which is not NULL, is written without quotes.
fn is_bare(kind: CellKind, packet: &[u8], span: CellSpan) -> bool {
    let Some(range) = span.range() else { return true };
    match kind {
        // Digits of bytes are text, even where they look like a number.
        CellKind::Text | CellKind::Hex => false,
        CellKind::Number => {
            let block = packet[range.start..].first_chunk();
            block.is_some_and(|block| is_short_decimal(block, range.len())) || is_safe_number(&packet[range])
        }
        CellKind::Json => is_json(&packet[range]),
    }
}

/// Whether no cell holds a byte that needs an escape. A length can look like one, but it is known which do; rows with
/// lengths of several bytes are not looked into.
fn needs_no_escape(row: &Row<'_>) -> bool {
    let (packet, spans) = (row.packet(), row.spans());
    let (mut cells, mut lengths) = (0, 0);
    for span in spans {
        cells += span.len() as usize; // no platform we build for has a narrower usize
        lengths += usize::from((*span != CellSpan::NULL) & is_escaped_length(span.len()));
    }
    if cells + spans.len() != packet.len() {
        return false;
    }
    let (blocks, rest) = packet.as_chunks::<BLOCK>();
    let mut last = [PADDING; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let mut found = count_escaped(&[last]);
    for blocks in blocks.chunks(usize::from(u8::MAX)) {
        found += count_escaped(blocks);
    }
    found == lengths
}

fn is_escaped_length(length: u32) -> bool {
    (length < 0x20) | (length == u32::from(b'"')) | (length == u32::from(b'\\'))
}

fn is_escaped(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Bytes that need an escape in at most 255 blocks, which become vector instructions.
fn count_escaped(blocks: &[[u8; BLOCK]]) -> usize {
    let mut counts = [0u8; BLOCK];
    for block in blocks {
        for (count, byte) in counts.iter_mut().zip(block) {
            *count += u8::from(is_escaped(*byte));
        }
    }
    counts.iter().map(|count| usize::from(*count)).sum()
}

fn write_text(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for block in blocks {
        if block.iter().fold(false, |any, byte| any | is_escaped(*byte)) {
            write_escapes(block, out);
        } else {
            out.extend_from_slice(block);
        }
    }
    write_escapes(rest, out);
    out.push(b'"');
}

fn write_escapes(bytes: &[u8], out: &mut Vec<u8>) {
    let mut plain_from = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..index]);
        plain_from = index + 1;
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            let (high, low) = (HEX[usize::from(*byte >> 4)], HEX[usize::from(*byte & 15)]);
            out.extend_from_slice(&[b'0', b'0', high, low]);
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
}

/// Whether a number's first `length` bytes, the cell, are digits with at most one point among them and no needless zero
/// in front: the usual number, told without a loop. False says nothing.
fn is_short_decimal(block: &[u8; 8], length: usize) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    if !(1..=8).contains(&length) {
        return false;
    }
    let bytes = u64::from_le_bytes(*block);
    let cell = u64::MAX >> (64 - 8 * length);
    // A digit becomes 0 to 9; anything else gets its high bit set by the addition or has it.
    let offset = bytes ^ (EACH * 0x30);
    let others = (((offset & (EACH * 0x7f)) + EACH * 0x76) | offset) & (EACH * 0x80) & cell;
    let has_leading_zero = block[0] == b'0';
    if others == 0 {
        return length == 1 || !has_leading_zero;
    }
    let integer = others.trailing_zeros() as usize / 8; // below 8
    others.is_power_of_two()
        && block[integer] == b'.'
        && (1..length - 1).contains(&integer)
        && (integer == 1 || !has_leading_zero)
}

/// Whether the bytes are a JSON number that no reader rounds. Any other is written as text, which the server takes for
/// every number type and reads by the column's own rules.
fn is_safe_number(cell: &[u8]) -> bool {
    let digits = cell.strip_prefix(b"-").unwrap_or(cell);
    let (integer, rest) = split_digits(digits);
    let canonical = !integer.is_empty() && (integer.len() == 1 || integer[0] != b'0');
    if !canonical {
        return false;
    }
    if rest.is_empty() {
        return integer.len() <= SAFE_INTEGER_DIGITS;
    }
    let (fraction, exponent) = match rest.strip_prefix(b".") {
        Some(rest) => split_digits(rest),
        None => (&b"0"[..], rest),
    };
    let exponent_is_sound = exponent.is_empty() || is_exponent(exponent);
    !fraction.is_empty() && exponent_is_sound && integer.len() + fraction.len() <= SAFE_FRACTION_DIGITS
}

fn is_exponent(text: &[u8]) -> bool {
    let Some(text) = text.strip_prefix(b"e").or_else(|| text.strip_prefix(b"E")) else {
        return false;
    };
    let text = text.strip_prefix(b"+").or_else(|| text.strip_prefix(b"-")).unwrap_or(text);
    let (digits, rest) = split_digits(text);
    rest.is_empty() && (1..=3).contains(&digits.len())
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Whether the document is `null`, which is NULL in a row, or a text, which the server may take for a document itself.
fn is_bare_document(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    text == b"null" || text.first() == Some(&b'"')
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::testing::{Cells, buffer, cells};
    use super::*;

    fn encode(kinds: &[CellKind], row: &Cells) -> Result<Vec<u8>, EncodeError> {
        let names: Vec<String> = (0..kinds.len()).map(|index| format!("c\"{index}")).collect();
        let mut out = Vec::new();
        JsonEncoder::new(&names, kinds, false).encode(&buffer(row).row(), &mut out).map(|()| out)
    }

    fn value(kind: CellKind, text: &str) -> String {
        let out = encode(&[kind], &cells(&[Some(text)])).expect("encodable");
        let out = String::from_utf8(out).expect("UTF-8");
        out.strip_prefix(r#"{"c\"0":"#).and_then(|out| out.strip_suffix('}')).expect("one key").to_owned()
    }

    #[test]
    fn keys_are_escaped_and_null_is_explicit() {
        let kinds = [CellKind::Text, CellKind::Number, CellKind::Json];
        let out = encode(&kinds, &cells(&[Some("a\u{1}\n"), None, Some("{\"x\": [1]}")])).expect("encodable");
        assert_eq!(out, br#"{"c\"0":"a\u0001\n","c\"1":null,"c\"2":{"x": [1]}}"#);
    }

    #[test]
    fn numbers_stay_numbers_unless_a_reader_might_round_them() {
        for text in ["0", "-7", "12.30", "1e20", "1.5e-7", "999999999999999999", "-0.5"] {
            assert_eq!(value(CellKind::Number, text), text);
        }
        let long = "123456789012345678901234567890.12";
        for text in ["007", ".5", "5.", "1e", "nan", "", "-", "+1", "1 ", "0x1", long, "0.30000000000000004"]
        {
            assert_eq!(value(CellKind::Number, text), format!("\"{text}\""));
        }
    }

    #[test]
    fn the_short_way_to_tell_a_number_agrees_with_the_long_one() {
        // Every text of up to 4 of these, and that text behind digits.
        let letters = b"019.-e \xb0";
        for code in 0..letters.len().pow(4) {
            let text: Vec<u8> =
                (0..4).map(|place| letters[code / letters.len().pow(place) % letters.len()]).collect();
            for (lead, length) in [("", 1), ("", 2), ("", 3), ("", 4), ("1", 4), ("12.3", 4), ("1234", 2)] {
                let cell = [lead.as_bytes(), &text[..length]].concat();
                for filler in *b"0.x" {
                    let mut block = [filler; 8];
                    block[..cell.len()].copy_from_slice(&cell);
                    let is_short = is_short_decimal(&block, cell.len());
                    let is_usual = cell.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
                    assert_eq!(is_short, is_usual && is_safe_number(&cell), "{cell:?} {filler}");
                }
            }
        }
        assert!(!is_short_decimal(b"12345678", 0) && !is_short_decimal(b"12345678", 9));
    }

    #[test]
    fn json_that_is_none_becomes_text() {
        assert_eq!(value(CellKind::Json, "{\"a\":"), r#""{\"a\":""#);
        assert_eq!(value(CellKind::Json, "[1,2]"), "[1,2]");
    }

    #[test]
    fn a_document_that_a_row_would_hold_as_something_else_is_refused() {
        let kinds = [CellKind::Text, CellKind::Json];
        let refused = Err(EncodeError::Collision { column: 1, with: Collision::BareDocument });
        for document in ["null", " null ", "\"x\""] {
            assert_eq!(encode(&kinds, &cells(&[Some("null"), Some(document)])), refused, "{document}");
        }
        for document in ["{}", "[null]", "1", "true", "nul"] {
            assert!(encode(&kinds, &cells(&[None, Some(document)])).is_ok(), "{document}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_refused_with_their_column() {
        let row = vec![None, Some(vec![0xc3])];
        let refused = Err(EncodeError::NotUtf8 { column: 1 });
        assert_eq!(encode(&[CellKind::Text, CellKind::Text], &row), refused);
    }

    /// The rule without any of the tricks.
    fn naive(
        names: &[String],
        kinds: &[CellKind],
        row: &Cells,
        is_utf8: bool,
    ) -> Result<Vec<u8>, EncodeError> {
        let broken =
            |cell: &Option<Vec<u8>>| cell.as_ref().is_some_and(|cell| std::str::from_utf8(cell).is_err());
        for (column, (cell, kind)) in row.iter().zip(kinds).enumerate() {
            if *kind == CellKind::Json && cell.as_deref().is_some_and(is_bare_document) {
                return Err(EncodeError::Collision { column, with: Collision::BareDocument });
            }
        }
        if let Some(column) = row.iter().position(broken).filter(|_| !is_utf8) {
            return Err(EncodeError::NotUtf8 { column });
        }
        let mut out = vec![b'{'];
        for ((name, kind), cell) in names.iter().zip(kinds).zip(row) {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend(quoted(name.as_bytes()));
            out.push(b':');
            match cell {
                None => out.extend(b"null"),
                Some(cell) if *kind == CellKind::Number && is_safe_number(cell) => out.extend(cell),
                Some(cell) if *kind == CellKind::Json && is_json(cell) => out.extend(cell),
                Some(cell) => out.extend(quoted(cell)),
            }
        }
        out.push(b'}');
        Ok(out)
    }

    fn quoted(bytes: &[u8]) -> Vec<u8> {
        let escaped = bytes.iter().flat_map(|byte| match byte {
            b'"' => b"\\\"".to_vec(),
            b'\\' => b"\\\\".to_vec(),
            b'\n' => b"\\n".to_vec(),
            b'\r' => b"\\r".to_vec(),
            b'\t' => b"\\t".to_vec(),
            0..0x20 => format!("\\u{byte:04x}").into_bytes(),
            _ => vec![*byte],
        });
        [b'"'].into_iter().chain(escaped).chain([b'"']).collect()
    }

    fn any_kind() -> impl Strategy<Value = CellKind> {
        prop_oneof![Just(CellKind::Text), Just(CellKind::Number), Just(CellKind::Json)]
    }

    /// Cells around every border: of lengths, of blocks, of lengths that look like bytes in need of an escape.
    fn hard_cell() -> impl Strategy<Value = Option<Vec<u8>>> {
        let length = prop_oneof![
            Just(250usize),
            Just(251),
            Just(65_535),
            Just(65_536),
            Just(34),
            Just(92),
            0usize..300
        ];
        prop_oneof![
            8 => "[a-z]{0,40}".prop_map(|text| Some(text.into_bytes())),
            4 => "-?[0-9]{0,10}(\\.[0-9]{0,9})?".prop_map(|text| Some(text.into_bytes())),
            3 => Just(None),
            1 => "[a\"\\\\\n\t\x01{}\\[\\],:]{0,40}".prop_map(|text| Some(text.into_bytes())),
            1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
            1 => (length, prop_oneof![Just(b'x'), any::<u8>()]).prop_map(|(length, byte)| Some(vec![byte; length])),
        ]
    }

    #[test]
    fn a_byte_in_need_of_an_escape_is_found_wherever_it_stands() {
        for width in [1, 2, 16, 121] {
            let names: Vec<_> = (0..width).map(|index| format!("{index}").repeat(1 + index % 9)).collect();
            let kinds = vec![CellKind::Text; width];
            let encoder = JsonEncoder::new(&names, &kinds, true);
            for place in 0..width {
                for length in [1, 31, 32, 33, 34, 92, 250, 251, 9000] {
                    for at in [0, length / 2, length - 1] {
                        let mut row = cells(&vec![Some("x"); width]);
                        let mut cell = vec![b'x'; length];
                        cell[at] = b"\"\\\x1f"[at % 3];
                        row[place] = Some(cell);
                        let mut out = Vec::new();
                        encoder.encode(&buffer(&row).row(), &mut out).expect("encodable");
                        assert_eq!(Ok(out), naive(&names, &kinds, &row, true));
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn rows_are_written_as_by_the_plain_rule(
            rows in prop_oneof![6 => 1usize..6, 1 => Just(16usize), 1 => Just(121usize)].prop_flat_map(|width| {
                let column = ("[a-zü\"]{1,50}", any_kind());
                let columns = proptest::collection::vec(column, width);
                (columns, proptest::collection::vec(proptest::collection::vec(hard_cell(), width), 1..4))
            }),
            is_utf8: bool,
        ) {
            let (columns, rows) = rows;
            let (names, kinds): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
            let encoder = JsonEncoder::new(&names, &kinds, is_utf8);
            let mut out = b"before".to_vec();
            for cells in rows {
                let before = out.len();
                let written = encoder.encode(&buffer(&cells).row(), &mut out).map(|()| out[before..].to_vec());
                prop_assert_eq!(written, naive(&names, &kinds, &cells, is_utf8));
                out.truncate(before);
            }
            prop_assert_eq!(out, b"before");
        }

        #[test]
        fn what_is_written_is_read_back(
            text in any::<String>(), number in any::<i64>(), double in any::<f64>(), odd in "[-+0-9.eE]{0,12}",
        ) {
            let double = double.to_string();
            let texts = [Some(text.as_str()), None, Some(&number.to_string()), Some(&double), Some(&odd)];
            let number = CellKind::Number;
            let out = encode(&[CellKind::Text, CellKind::Text, number, number, number], &cells(&texts)).expect("encodable");
            let object: Value = serde_json::from_slice(&out).expect("JSON");
            prop_assert_eq!(&object["c\"0"], &json!(text));
            prop_assert_eq!(&object["c\"1"], &Value::Null);
            for (index, text) in texts.iter().enumerate().skip(2) {
                let text = text.expect("not NULL");
                match &object[format!("c\"{index}")] {
                    Value::String(read) => prop_assert_eq!(read, text),
                    Value::Number(read) => prop_assert_eq!(read.as_f64(), text.parse().ok()),
                    other => prop_assert!(false, "{} is neither text nor number", other),
                }
            }
        }
    }
}
