//! The way in: the text of one CSV field or JSON scalar becomes the value a column stores, or the reason why its row
//! is refused. Pure. The rules are those of the backend's CSV converters and its `time_types.cpp`; the way out is
//! `render.rs`.

use std::borrow::Cow;

use base64::Engine as _;

use crate::civil::{CivilTime, Layout};
use crate::types::{Column, ColumnType, Stored};

/// Why a value cannot stand in a column. The text is what the error log says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Refused in strict and non-strict mode alike.
    #[error("NULL value in non-nullable column '{column}'")]
    Null { column: String },
    /// Strict mode refuses it; non-strict mode makes it NULL where the column allows that.
    #[error("Value '{value}' is out of range. The type of '{column}' is {kind}")]
    OutOfRange { column: String, kind: ColumnType, value: String },
    /// Strict mode refuses it; non-strict mode makes it NULL where the column allows that.
    #[error("String '{value}'(length={length}) is too long. The max length of '{column}' is {max}")]
    TooLong { column: String, value: String, length: usize, max: u32 },
}

/// The value that `cell` (`None` is NULL) has in `column`, by the strict rules.
pub fn convert<'a>(column: &Column, cell: Option<&'a [u8]>) -> Result<Stored<'a>, ConvertError> {
    let Some(bytes) = cell else {
        return if column.nullable {
            Ok(Stored::Null)
        } else {
            Err(ConvertError::Null { column: column.name.clone() })
        };
    };
    if let ColumnType::Varchar(max) | ColumnType::Char(max) = column.kind
        && bytes.len() > max as usize
    {
        return Err(ConvertError::TooLong {
            column: column.name.clone(),
            value: lossy(bytes),
            length: bytes.len(),
            max,
        });
    }
    value_of(&column.kind, bytes).ok_or_else(|| ConvertError::OutOfRange {
        column: column.name.clone(),
        kind: column.kind.clone(),
        value: lossy(bytes),
    })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn value_of<'a>(kind: &ColumnType, bytes: &'a [u8]) -> Option<Stored<'a>> {
    match kind {
        ColumnType::Boolean => boolean(bytes).map(|truth| Stored::Int(i64::from(truth))),
        ColumnType::TinyInt => integer(bytes, i64::from(i8::MIN), i64::from(i8::MAX)).map(Stored::Int),
        ColumnType::SmallInt => integer(bytes, i64::from(i16::MIN), i64::from(i16::MAX)).map(Stored::Int),
        ColumnType::Int => integer(bytes, i64::from(i32::MIN), i64::from(i32::MAX)).map(Stored::Int),
        ColumnType::BigInt => integer(bytes, i64::MIN, i64::MAX).map(Stored::Int),
        ColumnType::LargeInt => large_integer(bytes).map(Stored::Text),
        ColumnType::Float => single(bytes).map(Stored::Real),
        ColumnType::Double => double(bytes).map(Stored::Real),
        ColumnType::Decimal { precision, scale } => decimal(bytes, *precision, *scale).map(Stored::Text),
        ColumnType::Date => Some(Stored::Text(same_or_owned(&CivilTime::parse(bytes)?.date(), bytes))),
        ColumnType::DateTime => {
            Some(Stored::Text(same_or_owned(&CivilTime::parse(bytes)?.date_time(), bytes)))
        }
        // Padded with zero bytes inside, which are taken off on the way out: those of the value go with them.
        ColumnType::Char(_) => {
            let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            text(&bytes[..length]).map(Stored::Text)
        }
        ColumnType::Varchar(_) | ColumnType::Opaque(_) => text(bytes).map(Stored::Text),
        ColumnType::Varbinary => Some(Stored::Blob(binary(bytes))),
        ColumnType::Json => json(bytes).map(Stored::Text),
        ColumnType::Nested(_) => {
            text(bytes).filter(|text| text.starts_with('[') || text.starts_with('{')).map(Stored::Text)
        }
    }
}

fn text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
}

fn boolean(bytes: &[u8]) -> Option<bool> {
    if bytes.eq_ignore_ascii_case(b"true") {
        return Some(true);
    }
    if bytes.eq_ignore_ascii_case(b"false") {
        return Some(false);
    }
    double(bytes).map(|number| number != 0.0)
}

/// An integer, or other decimal text truncated towards zero.
fn integer(bytes: &[u8], min: i64, max: i64) -> Option<i64> {
    if let Some(value) = plain_integer(bytes) {
        return (min..=max).contains(&value).then_some(value);
    }
    let truncated = if is_exponent_text(bytes) {
        let number = double(bytes)?.trunc();
        if number.abs() >= 9.2e18 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "truncated and within i64, as just tested")]
        let value = number as i64;
        value
    } else {
        plain_integer(integral_part(bytes)?.as_bytes())?
    };
    (min..=max).contains(&truncated).then_some(truncated)
}

fn plain_integer(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = sign_and_rest(bytes);
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(byte - b'0');
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

fn large_integer(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let value: i128 = integral_part(bytes)?.parse().ok()?;
    let canonical = value.to_string();
    Some(if canonical.as_bytes() == bytes {
        Cow::Borrowed(std::str::from_utf8(bytes).ok()?)
    } else {
        canonical.into()
    })
}

/// The text up to the decimal point, if the whole is plain decimal text.
fn integral_part(bytes: &[u8]) -> Option<&str> {
    let (_, digits) = sign_and_rest(bytes);
    let point = digits.iter().position(|&byte| byte == b'.').unwrap_or(digits.len());
    let fraction = digits.get(point + 1..).unwrap_or_default();
    let whole = &digits[..point];
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(&bytes[..bytes.len() - digits.len() + point]).ok()
}

fn is_exponent_text(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte, b'e' | b'E'))
}

fn sign_and_rest(bytes: &[u8]) -> (bool, &[u8]) {
    match bytes.first() {
        Some(b'-') => (true, &bytes[1..]),
        Some(b'+') => (false, &bytes[1..]),
        _ => (false, bytes),
    }
}

fn number_text(bytes: &[u8]) -> Option<&str> {
    let plausible = bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    if plausible { std::str::from_utf8(bytes).ok() } else { None }
}

fn double(bytes: &[u8]) -> Option<f64> {
    number_text(bytes)?.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// A single-precision number, widened without change.
fn single(bytes: &[u8]) -> Option<f64> {
    number_text(bytes)?.parse::<f32>().ok().filter(|number| number.is_finite()).map(f64::from)
}

/// Plain decimal text at full scale: excess fraction digits are rounded half up, excess integer digits refused.
fn decimal(bytes: &[u8], precision: u8, scale: u8) -> Option<Cow<'_, str>> {
    let (negative, unsigned) = sign_and_rest(bytes);
    let point = unsigned.iter().position(|&byte| byte == b'.');
    let whole = &unsigned[..point.unwrap_or(unsigned.len())];
    let fraction = point.map_or(&[][..], |at| &unsigned[at + 1..]);
    let digits_ok = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    if !digits_ok || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let scale = usize::from(scale);
    let whole_max = usize::from(precision) - scale;
    let significant = &whole[whole.iter().take_while(|&&digit| digit == b'0').count()..];
    if significant.len() > whole_max {
        return None;
    }
    let canonical_whole =
        if significant.is_empty() { whole == b"0" } else { significant.len() == whole.len() };
    let canonical_point = point.is_some() == (scale > 0);
    let nonzero = || whole.iter().chain(fraction).any(|&digit| digit != b'0');
    let canonical_sign = bytes.first() != Some(&b'+') && (!negative || nonzero());
    if fraction.len() == scale && canonical_whole && canonical_point && canonical_sign {
        return std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
    }
    rescaled(negative, significant, fraction, scale, whole_max).map(Cow::Owned)
}

fn rescaled(negative: bool, whole: &[u8], fraction: &[u8], scale: usize, whole_max: usize) -> Option<String> {
    let kept = &fraction[..fraction.len().min(scale)];
    let mut digits: Vec<u8> = Vec::with_capacity(whole.len() + scale + 1);
    digits.push(b'0');
    digits.extend_from_slice(whole);
    digits.extend_from_slice(kept);
    digits.resize(1 + whole.len() + scale, b'0');
    if fraction.get(scale).is_some_and(|&next| next >= b'5') {
        for digit in digits.iter_mut().rev() {
            if *digit == b'9' {
                *digit = b'0';
            } else {
                *digit += 1;
                break;
            }
        }
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let whole = &whole[whole.iter().take_while(|&&digit| digit == b'0').count()..];
    if whole.len() > whole_max {
        return None;
    }
    let zero = whole.is_empty() && fraction.iter().all(|&digit| digit == b'0');
    let mut out = String::with_capacity(whole.len() + scale + 3);
    if negative && !zero {
        out.push('-');
    }
    if whole.is_empty() {
        out.push('0');
    }
    out.extend(whole.iter().map(|&digit| char::from(digit)));
    if scale > 0 {
        out.push('.');
        out.extend(fraction.iter().map(|&digit| char::from(digit)));
    }
    Some(out)
}

/// Base64, or the bytes themselves when they are not base64.
fn binary(bytes: &[u8]) -> Cow<'_, [u8]> {
    match base64::engine::general_purpose::STANDARD.decode(bytes) {
        Ok(decoded) => Cow::Owned(decoded),
        Err(_) => Cow::Borrowed(bytes),
    }
}

/// JSON text with one blank after each colon and comma and none elsewhere; keys keep their order.
fn json(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len() + 16);
    let mut in_string = false;
    let mut escaped = false;
    for character in text.chars() {
        if in_string {
            out.push(character);
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if !character.is_ascii_whitespace() {
            out.push(character);
            in_string = character == '"';
            if matches!(character, ':' | ',') {
                out.push(' ');
            }
        }
    }
    Some(if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) })
}

fn same_or_owned<'a>(canonical: &Layout, bytes: &'a [u8]) -> Cow<'a, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if canonical.as_bytes() == bytes => Cow::Borrowed(text),
        _ => Cow::Owned(canonical.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kind: ColumnType, text: &str) -> Option<String> {
        match convert(&Column::new("c", kind), Some(text.as_bytes())).ok()? {
            Stored::Null => Some("NULL".to_owned()),
            Stored::Int(value) => Some(value.to_string()),
            Stored::Real(value) => Some(value.to_string()),
            Stored::Text(text) => Some(text.into_owned()),
            Stored::Blob(bytes) => Some(format!("{bytes:?}")),
        }
    }

    #[track_caller]
    fn check(kind: &ColumnType, cases: &[(&str, Option<&str>)]) {
        for (text, expected) in cases {
            assert_eq!(stored(kind.clone(), text).as_deref(), *expected, "{kind} from {text:?}");
        }
    }

    #[test]
    fn booleans_are_words_or_numbers() {
        check(
            &ColumnType::Boolean,
            &[
                ("true", Some("1")),
                ("FALSE", Some("0")),
                ("1", Some("1")),
                ("0", Some("0")),
                ("7", Some("1")),
                ("yes", None),
                ("", None),
            ],
        );
    }

    #[test]
    fn integers_truncate_decimal_text_and_refuse_what_does_not_fit() {
        check(
            &ColumnType::TinyInt,
            &[("127", Some("127")), ("128", None), ("-128", Some("-128")), ("1.9", Some("1")), ("", None)],
        );
        check(
            &ColumnType::Int,
            &[("2147483647", Some("2147483647")), ("2147483648", None), ("abc", None), ("1e3", Some("1000"))],
        );
        check(
            &ColumnType::BigInt,
            &[
                ("-9223372036854775808", Some("-9223372036854775808")),
                ("9223372036854775808", None),
                ("9007199254740993.7", Some("9007199254740993")),
            ],
        );
    }

    #[test]
    fn large_integers_reach_both_ends_of_128_bits() {
        check(
            &ColumnType::LargeInt,
            &[
                ("170141183460469231731687303715884105727", Some("170141183460469231731687303715884105727")),
                (
                    "-170141183460469231731687303715884105728",
                    Some("-170141183460469231731687303715884105728"),
                ),
                ("170141183460469231731687303715884105728", None),
                ("+007", Some("7")),
                ("-0", Some("0")),
            ],
        );
    }

    #[test]
    fn decimals_take_full_scale_and_round_half_up() {
        check(
            &ColumnType::Decimal { precision: 9, scale: 2 },
            &[
                ("1.5", Some("1.50")),
                ("1.005", Some("1.01")),
                ("-1.005", Some("-1.01")),
                ("9999999.99", Some("9999999.99")),
                ("9999999.995", None),
                ("10000000", None),
                ("-0", Some("0.00")),
                (".5", Some("0.50")),
                ("5.", Some("5.00")),
                ("00012.30", Some("12.30")),
                ("", None),
                (".", None),
                ("1e2", None),
            ],
        );
        check(&ColumnType::Decimal { precision: 3, scale: 3 }, &[("0.1234", Some("0.123")), ("1", None)]);
        check(&ColumnType::Decimal { precision: 3, scale: 0 }, &[("999.4", Some("999")), ("999.5", None)]);
    }

    #[test]
    fn dates_come_in_every_documented_shape() {
        check(
            &ColumnType::Date,
            &[
                ("2024-02-29", Some("2024-02-29")),
                ("20240229", Some("2024-02-29")),
                ("69-01-02", Some("2069-01-02")),
                ("700102", Some("1970-01-02")),
                (" 2024-02-29 13:00:00 ", Some("2024-02-29")),
                ("2023-02-29", None),
                ("2024-13-01", None),
                ("0000-00-00", None),
                ("", None),
            ],
        );
    }

    #[test]
    fn datetimes_keep_micros_and_lose_zero_fractions() {
        check(
            &ColumnType::DateTime,
            &[
                ("2024-02-29 13:45:01", Some("2024-02-29 13:45:01")),
                ("2024-02-29T13:45:01.5", Some("2024-02-29 13:45:01.500000")),
                ("2024-02-29 13:45:01.000001", Some("2024-02-29 13:45:01.000001")),
                ("2024-02-29 13:45:01.000000", Some("2024-02-29 13:45:01")),
                ("20240229134501", Some("2024-02-29 13:45:01")),
                ("2024-02-29", Some("2024-02-29 00:00:00")),
                ("2024-02-29 24:00:00", None),
                ("2024-02-29 13:45:01.1234567", None),
                ("2024-02-29 13:45:01 +08:00", None),
            ],
        );
    }

    #[test]
    fn varchar_counts_bytes() {
        let column = Column::new("c", ColumnType::Varchar(5));
        assert!(convert(&column, Some("héll".as_bytes())).is_ok());
        let error = convert(&column, Some("héllo".as_bytes())).unwrap_err();
        assert_eq!(error.to_string(), "String 'héllo'(length=6) is too long. The max length of 'c' is 5");
    }

    #[test]
    fn zero_bytes_at_the_end_of_a_char_are_taken_for_padding() {
        check(&ColumnType::Char(5), &[("a\0b\0\0", Some("a\0b")), ("a ", Some("a ")), ("\0", Some(""))]);
        check(&ColumnType::Varchar(5), &[("a\0", Some("a\0"))]);
    }

    #[test]
    fn null_needs_a_nullable_column() {
        let mut column = Column::new("c", ColumnType::Int);
        assert_eq!(convert(&column, None), Ok(Stored::Null));
        column.nullable = false;
        assert_eq!(convert(&column, None).unwrap_err().to_string(), "NULL value in non-nullable column 'c'");
    }

    #[test]
    fn json_text_is_compact_with_blanks_after_punctuation() {
        check(
            &ColumnType::Json,
            &[
                (r#"{"b":1,"a": [ 1,2 ],"s":"x:,\" y"}"#, Some(r#"{"b": 1, "a": [1, 2], "s": "x:,\" y"}"#)),
                ("{", None),
            ],
        );
    }
}
