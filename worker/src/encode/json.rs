//! JSON objects as StarRocks matches them without `jsonpaths`: keys are target column names, NULL is explicit.

use starlift_common::job::CellKind;
use starlift_common::row::Row;

use super::EncodeError;

/// Significant digits that survive a reader which takes a number with a fraction or exponent for a double.
const SAFE_FRACTION_DIGITS: usize = 15;
/// Digits of an integer that fits 64 bits whatever they are.
const SAFE_INTEGER_DIGITS: usize = 18;

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
    /// The server guarantees it.
    is_utf8: bool,
}

struct Column {
    /// `{"name":` or `,"name":`
    lead: Vec<u8>,
    kind: CellKind,
}

impl JsonEncoder {
    pub(crate) fn new(names: &[String], kinds: &[CellKind], is_utf8: bool) -> Self {
        let columns = names.iter().zip(kinds).enumerate().map(|(index, (name, kind))| {
            let mut lead = vec![if index == 0 { b'{' } else { b',' }];
            write_text(name.as_bytes(), &mut lead);
            lead.push(b':');
            Column { lead, kind: *kind }
        });
        Self { columns: columns.collect(), is_utf8 }
    }

    pub(crate) fn encode(&self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        for (index, (column, cell)) in self.columns.iter().zip(row.cells()).enumerate() {
            out.extend_from_slice(&column.lead);
            let Some(cell) = cell else {
                out.extend_from_slice(b"null");
                continue;
            };
            if !self.is_utf8 && std::str::from_utf8(cell).is_err() {
                return Err(EncodeError::NotUtf8 { column: index });
            }
            match column.kind {
                CellKind::Number if is_safe_number(cell) => out.extend_from_slice(cell),
                CellKind::Json if is_json(cell) => out.extend_from_slice(cell),
                CellKind::Number | CellKind::Json | CellKind::Text => write_text(cell, out),
            }
        }
        out.push(b'}');
        Ok(())
    }
}

fn write_text(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
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
    out.push(b'"');
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
    fn json_that_is_none_becomes_text() {
        assert_eq!(value(CellKind::Json, "{\"a\":"), r#""{\"a\":""#);
        assert_eq!(value(CellKind::Json, "[1,2]"), "[1,2]");
    }

    #[test]
    fn bytes_that_are_no_utf8_are_refused_with_their_column() {
        let row = vec![None, Some(vec![0xc3])];
        let refused = Err(EncodeError::NotUtf8 { column: 1 });
        assert_eq!(encode(&[CellKind::Text, CellKind::Text], &row), refused);
    }

    proptest! {
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
