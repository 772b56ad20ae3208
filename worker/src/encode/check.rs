//! What a value must be like to go out, where StarRocks would take another one and change it without a word: `1.9` into
//! an INT becomes 1, any number into a BOOLEAN becomes true, a time into a DATE is dropped. Pure. Which column needs
//! which rule is decided at plan time.

use starlift_common::job::{CellCheck, CellRule};
use starlift_common::row::Row;

use super::EncodeError;

/// The first cell that its rule does not allow; NULL is allowed everywhere.
#[inline]
pub(super) fn check(checks: &[CellCheck], row: &Row<'_>) -> Result<(), EncodeError> {
    for CellCheck { column, rule } in checks {
        let column = *column as usize; // no platform we build for has a narrower usize
        if let Some(cell) = row.cell(column)
            && !allows(*rule, cell)
        {
            return Err(EncodeError::Unfit { column, rule: *rule });
        }
    }
    Ok(())
}

fn allows(rule: CellRule, cell: &[u8]) -> bool {
    match rule {
        CellRule::RealDate => is_real_date(cell),
        CellRule::Truth => {
            matches!(cell, b"0" | b"1")
                || cell.eq_ignore_ascii_case(b"true")
                || cell.eq_ignore_ascii_case(b"false")
        }
        CellRule::WholeNumber => is_digits(unsigned(cell)),
        CellRule::Decimal { scale } => is_decimal(unsigned(cell), scale),
        CellRule::Date => is_date(cell),
        CellRule::DateTime => match cell.split_at_checked(DATE_BYTES) {
            Some((date, [])) => is_date(date),
            Some((date, [b' ' | b'T', time @ ..])) => is_date(date) && is_time(time),
            _ => false,
        },
        CellRule::Json => serde_json::from_slice::<serde::de::IgnoredAny>(cell).is_ok(),
        CellRule::NoZeroAtEnd => cell.last() != Some(&0),
    }
}

/// `YYYY-MM-DD`
const DATE_BYTES: usize = 10;

/// MySQL writes every date in one layout, so only the three places of zeros are looked at.
#[inline]
fn is_real_date(cell: &[u8]) -> bool {
    let Some(date) = cell.first_chunk::<DATE_BYTES>() else { return false };
    date[..4] != *b"0000" && date[5..7] != *b"00" && date[8..] != *b"00"
}

fn is_date(cell: &[u8]) -> bool {
    let [years @ .., b'-', month, months, b'-', day, days] = cell else { return false };
    years.len() == 4 && is_digits(years) && is_digits(&[*month, *months, *day, *days]) && is_real_date(cell)
}

/// `HH:MM:SS`, with one to six digits of a second or without.
fn is_time(time: &[u8]) -> bool {
    let Some((seconds, fraction)) = time.split_at_checked(8) else { return false };
    let is_clock = seconds.split(|byte| *byte == b':').all(|part| part.len() == 2 && is_digits(part));
    let is_fraction = match fraction {
        [] => true,
        [b'.', digits @ ..] => digits.len() <= 6 && is_digits(digits),
        _ => false,
    };
    is_clock && is_fraction
}

fn unsigned(cell: &[u8]) -> &[u8] {
    match cell {
        [b'-' | b'+', rest @ ..] => rest,
        _ => cell,
    }
}

fn is_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

fn is_decimal(text: &[u8], scale: u32) -> bool {
    let point = text.iter().position(|byte| *byte == b'.');
    let Some(point) = point else { return is_digits(text) };
    let (whole, fraction) = (&text[..point], &text[point + 1..]);
    let kept = fraction.iter().rposition(|byte| *byte != b'0').map_or(0, |last| last + 1);
    is_digits(whole) && is_digits(fraction) && u32::try_from(kept).is_ok_and(|kept| kept <= scale)
}

/// A rule in the words of a report: what the value is, and what StarRocks would make of it.
pub(crate) fn fault(rule: CellRule) -> &'static str {
    match rule {
        CellRule::Truth => "is neither 0, 1, true nor false; StarRocks would make it true",
        CellRule::WholeNumber => {
            "is no whole number in plain digits; StarRocks would cut off what is behind the point"
        }
        CellRule::Decimal { .. } => {
            "is no decimal number in plain digits, or has more of them behind the point than the target; \
             StarRocks would round it"
        }
        CellRule::Date => {
            "is no date of the form YYYY-MM-DD; StarRocks would read some others in its own way and drop times"
        }
        CellRule::DateTime => {
            "is no moment of the form YYYY-MM-DD HH:MM:SS[.ffffff]; StarRocks would read some others in its own way"
        }
        CellRule::RealDate => "is a date with a zero year, month or day, which StarRocks does not have",
        CellRule::Json => "is no JSON document",
        CellRule::NoZeroAtEnd => {
            "ends with a zero byte, which StarRocks would take for the padding of a CHAR"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{buffer, cells};
    use super::*;

    #[track_caller]
    fn pins(rule: CellRule, allowed: &[&str], refused: &[&str]) {
        for text in allowed {
            assert!(allows(rule, text.as_bytes()), "{rule:?} should allow {text:?}");
        }
        for text in refused {
            assert!(!allows(rule, text.as_bytes()), "{rule:?} should refuse {text:?}");
        }
    }

    #[test]
    fn a_truth_value_is_one_of_four_words() {
        pins(CellRule::Truth, &["0", "1", "true", "FALSE"], &["2", "-1", "", "yes", "01", "1.0"]);
    }

    #[test]
    fn numbers_are_plain_digits() {
        let whole = CellRule::WholeNumber;
        pins(whole, &["0", "-7", "+7", "007", "99999999999999999999"], &["1.9", "1.0", "1e3", "", "-", " 7"]);
        let cents = CellRule::Decimal { scale: 2 };
        pins(
            cents,
            &["1", "-1.5", "1.25", "1.25000", "0.00"],
            &["1.255", "1e2", ".5", "5.", "", ".", "1.2.3"],
        );
        pins(CellRule::Decimal { scale: 0 }, &["1", "1.0"], &["1.1"]);
    }

    #[test]
    fn dates_have_four_digits_of_a_year_and_no_zero_part() {
        let zeros = ["0000-00-00", "2024-00-10", "2024-05-00", "0000-05-10"];
        pins(CellRule::RealDate, &["2024-02-29", "2024-02-29 00:00:00.000000", "0001-01-01"], &zeros);
        pins(CellRule::RealDate, &[], &["0000-00-00 00:00:00", ""]);
        pins(CellRule::Date, &["2024-02-29"], &zeros);
        pins(
            CellRule::Date,
            &[],
            &["24-02-29", "20240229", "2024-02-29 13:00:00", "2024-2-9", " 2024-02-29"],
        );
        pins(
            CellRule::DateTime,
            &["2024-02-29", "2024-02-29 13:45:01", "2024-02-29T13:45:01.5", "2024-02-29 13:45:01.123456"],
            &["2024-02-29 13:45", "2024-02-29 13:45:01Z", "2024-02-29 13:45:01+08:00", "20240229134501"],
        );
        pins(CellRule::DateTime, &[], &["2024-02-29 13:45:01.1234567", "2024-02-29 ", "2024-02-29 1:45:01."]);
        pins(CellRule::DateTime, &[], &zeros);
    }

    #[test]
    fn documents_are_json_and_padding_is_none_of_the_value() {
        pins(CellRule::Json, &["{\"a\": [1]}", "null", "1.5", "\"x\""], &["{", "", "x", "NaN", "007"]);
        pins(CellRule::NoZeroAtEnd, &["", "a", "\0a"], &["a\0", "\0"]);
    }

    #[test]
    fn the_first_cell_that_breaks_its_rule_is_named_and_null_breaks_none() {
        let checks = [(0, CellRule::Truth), (2, CellRule::RealDate)];
        let checks = checks.map(|(column, rule)| CellCheck { column, rule });
        let row = |texts: &[Option<&str>]| check(&checks, &buffer(&cells(texts)).row());
        assert_eq!(row(&[None, Some("5"), None]), Ok(()));
        assert_eq!(row(&[Some("1"), Some("5"), Some("2024-02-29")]), Ok(()));
        assert_eq!(
            row(&[Some("1"), Some("5"), Some("0000-00-00")]),
            Err(EncodeError::Unfit { column: 2, rule: CellRule::RealDate })
        );
    }
}
