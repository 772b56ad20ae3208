//! The way out: a stored value as the MySQL text protocol shows it, and the wire type of a column. Pure. The layouts are
//! those of the backend's `mysql_row_buffer.cpp`.

use opensrv_mysql::ColumnType as WireType;
use rusqlite::types::ValueRef;

use crate::types::ColumnType;

/// The type a result column is announced with.
pub(crate) fn wire_type(kind: &ColumnType) -> WireType {
    match kind {
        ColumnType::Boolean | ColumnType::TinyInt => WireType::MYSQL_TYPE_TINY,
        ColumnType::SmallInt => WireType::MYSQL_TYPE_SHORT,
        ColumnType::Int => WireType::MYSQL_TYPE_LONG,
        ColumnType::BigInt => WireType::MYSQL_TYPE_LONGLONG,
        ColumnType::Float => WireType::MYSQL_TYPE_FLOAT,
        ColumnType::Double => WireType::MYSQL_TYPE_DOUBLE,
        ColumnType::Decimal { .. } => WireType::MYSQL_TYPE_NEWDECIMAL,
        ColumnType::Date => WireType::MYSQL_TYPE_DATE,
        ColumnType::DateTime => WireType::MYSQL_TYPE_DATETIME,
        ColumnType::Varchar(_) => WireType::MYSQL_TYPE_VAR_STRING,
        ColumnType::LargeInt
        | ColumnType::Char(_)
        | ColumnType::Varbinary
        | ColumnType::Json
        | ColumnType::Nested(_)
        | ColumnType::Opaque(_) => WireType::MYSQL_TYPE_STRING,
    }
}

/// Appends one cell of a text row: a length and the text, or the NULL mark.
pub(crate) fn write_cell(out: &mut Vec<u8>, kind: Option<&ColumnType>, value: ValueRef<'_>) {
    match (value, kind) {
        (ValueRef::Null, _) | (_, Some(ColumnType::Opaque(_))) => out.push(0xfb),
        (ValueRef::Text(bytes), _) | (ValueRef::Blob(bytes), _) => write_bytes(out, bytes),
        (ValueRef::Integer(number), Some(ColumnType::Decimal { scale, .. })) if *scale > 0 => {
            write_bytes(out, decimal_text(number, *scale).as_bytes());
        }
        (ValueRef::Integer(number), _) => write_integer(out, number),
        (ValueRef::Real(number), Some(ColumnType::Float)) => write_bytes(out, single_text(number).as_bytes()),
        (ValueRef::Real(number), Some(ColumnType::Decimal { scale, .. })) => {
            write_bytes(out, format!("{number:.*}", usize::from(*scale)).as_bytes());
        }
        (ValueRef::Real(number), _) => write_bytes(out, double_text(number).as_bytes()),
    }
}

/// A length-encoded string.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        short @ 0..251 => out.push(u8::try_from(short).unwrap_or_default()),
        middle @ 251..0x1_0000 => {
            out.push(0xfc);
            out.extend_from_slice(&middle.to_le_bytes()[..2]);
        }
        long @ 0x1_0000..0x100_0000 => {
            out.push(0xfd);
            out.extend_from_slice(&long.to_le_bytes()[..3]);
        }
        huge => {
            out.push(0xfe);
            out.extend_from_slice(&(huge as u64).to_le_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

fn write_integer(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.push(u8::try_from(digits.len() - at).unwrap_or_default());
    out.extend_from_slice(&digits[at..]);
}

fn decimal_text(number: i64, scale: u8) -> String {
    format!("{number}.{:0>width$}", "", width = usize::from(scale))
}

/// The shortest text that reads back as the same double, with an exponent from 1e16 on and below 1e-4.
pub(crate) fn double_text(number: f64) -> String {
    shortest(&format!("{number:e}"), 16)
}

/// The shortest text that reads back as the same single-precision number, with an exponent from 1e7 on and below 1e-4.
#[expect(clippy::cast_possible_truncation, reason = "a FLOAT was single precision when it was stored")]
fn single_text(number: f64) -> String {
    shortest(&format!("{:e}", number as f32), 7)
}

/// From Rust's `d.ddde±x` to the layout of the server.
fn shortest(scientific: &str, exponent_from: i32) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific.to_owned() };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..exponent_from).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or_default();
        return format!("{sign}0.{}{digits}", "0".repeat(zeros));
    }
    let whole = usize::try_from(exponent + 1).unwrap_or_default();
    if digits.len() <= whole {
        return format!("{sign}{digits}{}", "0".repeat(whole - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_shortest_and_turn_to_exponents_at_both_ends() {
        for (number, text) in [
            (0.1, "0.1"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (0.0, "0"),
            (123_456_789.25, "123456789.25"),
            (8.043_039_46e16, "8.04303946e+16"),
            (1e15, "1000000000000000"),
            (1e16, "1e+16"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
        ] {
            assert_eq!(double_text(number), text);
        }
    }

    #[test]
    fn floats_have_their_own_precision() {
        for (number, text) in [(0.1_f32, "0.1"), (709_257_900.0, "7.092579e+08"), (1_234_567.0, "1234567")] {
            assert_eq!(single_text(f64::from(number)), text);
        }
    }

    #[test]
    fn cells_are_length_encoded() {
        let mut out = Vec::new();
        write_cell(&mut out, None, ValueRef::Null);
        write_cell(&mut out, None, ValueRef::Integer(i64::MIN));
        write_cell(&mut out, Some(&ColumnType::Date), ValueRef::Text(b"2024-02-29"));
        assert_eq!(out, b"\xfb\x14-9223372036854775808\x0a2024-02-29");
        let mut long = Vec::new();
        write_bytes(&mut long, &[b'x'; 300]);
        assert_eq!(&long[..3], &[0xfc, 0x2c, 0x01]);
    }
}
