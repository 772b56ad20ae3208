//! Split keys: which types a table can be split by, how their values are written in SQL, and where a value might lie that
//! parts others. Pure. Nothing here decides an order: a guess is only the question that a server is asked, and only values
//! that the server itself has put in order become boundaries.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use starlift_common::job::SourceKind;
use starlift_common::query::{KeyForm, key_literal};
use starlift_common::task::Key;

use crate::columns::base;
use crate::ranges::Piece;

/// What the values of a split key are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    Integer,
    Decimal,
    Date,
    DateTime,
    /// `folds_case`: `a` and `A` are one value, by the column's collation.
    Text {
        folds_case: bool,
    },
    /// Known by their hexadecimal digits.
    Bytes,
}

/// The type of a column that a table can be split by; `None` where its values have no order that `<` and `ORDER BY` agree
/// on (MySQL's ENUM), are not exact (FLOAT), or where there are too few of them (BOOLEAN).
pub fn key_type(kind: SourceKind, type_text: &str, collation: Option<&str>) -> Option<KeyType> {
    let text = type_text.to_ascii_lowercase();
    let text_key = || {
        let is_exact =
            collation.is_none_or(|name| name.ends_with("_bin") || name.ends_with("_cs") || name == "binary");
        KeyType::Text { folds_case: !is_exact }
    };
    Some(match (kind, base(&text)) {
        (SourceKind::Starrocks, "tinyint") if text.starts_with("tinyint(1)") => return None,
        (_, "tinyint" | "smallint" | "int" | "integer" | "bigint") => KeyType::Integer,
        (SourceKind::Mysql, "mediumint" | "year") | (SourceKind::Starrocks, "largeint") => KeyType::Integer,
        (SourceKind::Mysql, "decimal" | "numeric" | "dec" | "fixed") => KeyType::Decimal,
        (SourceKind::Starrocks, name) if name.starts_with("decimal") => KeyType::Decimal,
        (_, "date") => KeyType::Date,
        (_, "datetime") | (SourceKind::Mysql, "timestamp") => KeyType::DateTime,
        (_, "char" | "varchar" | "text") | (SourceKind::Starrocks, "string") => text_key(),
        (SourceKind::Mysql, "tinytext" | "mediumtext" | "longtext" | "uuid") => text_key(),
        (SourceKind::Mysql, "binary" | "varbinary") => KeyType::Bytes,
        _ => return None,
    })
}

impl KeyType {
    fn form(self) -> KeyForm {
        match self {
            Self::Integer | Self::Decimal => KeyForm::Number,
            Self::Date | Self::DateTime | Self::Text { .. } => KeyForm::Text,
            Self::Bytes => KeyForm::Bytes,
        }
    }

    /// The literal of a value that the server has shown; `None` where none is safe. MySQL's zero dates are none: in strict
    /// mode the server refuses to compare with them.
    pub fn literal(self, kind: SourceKind, value: &str) -> Option<Key> {
        let is_zero_date = matches!(self, Self::Date | Self::DateTime)
            && (value.starts_with("0000") || value.get(4..).is_some_and(|rest| rest.contains("-00")));
        if is_zero_date { None } else { key_literal(kind, self.form(), value) }
    }

    /// Pieces whose literals rise as the server reads them back. A TIMESTAMP is shown as the clock of its zone, which in the
    /// hour that comes twice shows a later moment as an earlier time: such a piece goes with the one before.
    pub fn rising(self, mut pieces: Vec<Piece>) -> Vec<Piece> {
        if matches!(self, Self::Date | Self::DateTime) {
            pieces.dedup_by(|piece, before| {
                let falls = piece.from.as_sql() <= before.from.as_sql();
                if falls {
                    before.rows += piece.rows;
                }
                falls
            });
        }
        pieces
    }

    /// How the key's value is selected, so that [`Self::literal`] understands it.
    pub fn shown(self, quoted: &str) -> String {
        if self == Self::Bytes { format!("HEX({quoted})") } else { quoted.to_owned() }
    }

    /// A value that may lie `part` of `of` on the way from `min` to `max`, above the one and not above the other, if the
    /// server orders values as is usual; `None` where nothing can be guessed.
    pub fn between(self, min: &str, max: &str, part: u64, of: u64) -> Option<String> {
        let way = |low: i128, high: i128| {
            let width = high.checked_sub(low).filter(|width| *width > 0)?;
            // Of very wide spans whole shares only, which is near enough.
            let step = width.checked_mul(part.into()).map_or_else(
                || width / i128::from(of) * i128::from(part),
                |product| product / i128::from(of),
            );
            Some(low + step.clamp(1, width))
        };
        match self {
            Self::Integer => Some(way(min.trim().parse().ok()?, max.trim().parse().ok()?)?.to_string()),
            Self::Decimal => {
                let (low, scale) = unscaled(min)?;
                let (high, same_scale) = unscaled(max)?;
                (scale == same_scale).then(|| way(low, high)).flatten().map(|value| scaled(value, scale))
            }
            Self::Date => {
                let (low, high): (Date, Date) = (min.parse().ok()?, max.parse().ok()?);
                let days = (high - low).get_days();
                let step = way(0, days.into())?;
                let after = SignedDuration::from_hours(i64::try_from(step).ok()?.checked_mul(24)?);
                Some(low.checked_add(after).ok()?.to_string())
            }
            Self::DateTime => {
                let (low, high): (DateTime, DateTime) = (min.parse().ok()?, max.parse().ok()?);
                let step = way(0, low.duration_until(high).as_micros())?;
                let after = SignedDuration::from_micros(i64::try_from(step).ok()?);
                let value = low.checked_add(after).ok()?;
                Some(value.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string())
            }
            Self::Text { folds_case } => text_between(min, max, folds_case, way),
            Self::Bytes => bytes_between(min, max, way),
        }
    }
}

/// `-12.30` as (-1230, 2).
fn unscaled(text: &str) -> Option<(i128, usize)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    Some((format!("{whole}{fraction}").parse().ok()?, fraction.len()))
}

fn scaled(value: i128, scale: usize) -> String {
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Letters beyond what both texts begin with that make the position of a text.
const LETTERS: usize = 4;
/// Ranks of letters and digits, and those of everything beyond ASCII behind them.
const PLAIN_RANKS: u32 = 62;
const RANKS: u32 = PLAIN_RANKS + 0x11_0000;

fn text_between(
    min: &str,
    max: &str,
    folds_case: bool,
    way: impl Fn(i128, i128) -> Option<i128>,
) -> Option<String> {
    let fold = |text: &str| if folds_case { text.to_uppercase() } else { text.to_owned() };
    let (low, high) = (fold(min), fold(max));
    let same = low.chars().zip(high.chars()).take_while(|(low, high)| low == high).count();
    let rest = |text: &str| text.chars().skip(same).take(LETTERS).collect::<Vec<char>>();
    let (low_rest, high_rest) = (rest(&low), rest(&high));
    let is_plain = low_rest.iter().chain(&high_rest).all(char::is_ascii);
    // One more, for no letter at all.
    let base = i128::from(if is_plain { PLAIN_RANKS } else { RANKS }) + 1;
    let position = |letters: &[char]| {
        (0..LETTERS).fold(0, |position, index| {
            position * base + i128::from(letters.get(index).map_or(0, |letter| rank(*letter) + 1))
        })
    };
    let mut way = way(position(&low_rest), position(&high_rest))?;
    let mut letters = Vec::new();
    for _ in 0..LETTERS {
        let digit = u32::try_from(way % base).ok()?;
        way /= base;
        letters.push(digit.checked_sub(1).map(letter_of));
    }
    let letters = letters.into_iter().rev().map_while(|letter| letter);
    // Behind the first one, a letter beyond ASCII means nothing, and the column's character set may not have it.
    let letters = letters.enumerate().take_while(|(index, letter)| *index == 0 || letter.is_ascii());
    Some(low.chars().take(same).chain(letters.map(|(_, letter)| letter)).collect())
}

const LETTERS_AND_DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Other signs of ASCII count as the letter or digit before them: collations put them where they like.
fn rank(letter: char) -> u32 {
    match u8::try_from(letter) {
        Ok(byte @ 0..=0x7f) => {
            let below = LETTERS_AND_DIGITS.partition_point(|known| *known <= byte);
            u32::try_from(below).unwrap_or(0).saturating_sub(1)
        }
        _ => PLAIN_RANKS + u32::from(letter),
    }
}

fn letter_of(rank: u32) -> char {
    match LETTERS_AND_DIGITS.get(rank as usize) {
        Some(byte) => char::from(*byte),
        // The gap of the surrogates holds no letter.
        None => char::from_u32(rank - PLAIN_RANKS).unwrap_or('\u{e000}'),
    }
}

fn bytes_between(min: &str, max: &str, way: impl Fn(i128, i128) -> Option<i128>) -> Option<String> {
    const DIGITS: usize = 16;
    let same = min.bytes().zip(max.bytes()).take_while(|(low, high)| low == high).count() & !1;
    let position = |text: &str| {
        let digits: String = text.chars().skip(same).chain(std::iter::repeat('0')).take(DIGITS).collect();
        i128::from_str_radix(&digits, 16).ok()
    };
    let value = way(position(min)?, position(max)?)?;
    let digits = format!("{value:0DIGITS$X}");
    Some(format!("{}{digits}", &min[..same]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halfway(key: KeyType, min: &str, max: &str) -> String {
        key.between(min, max, 1, 2).unwrap_or_else(|| panic!("nothing between {min} and {max}"))
    }

    const EXACT: KeyType = KeyType::Text { folds_case: false };
    const FOLDED: KeyType = KeyType::Text { folds_case: true };

    #[test]
    fn types_that_order_and_compare_alike_are_keys() {
        let mysql = |text: &str, collation: &str| key_type(SourceKind::Mysql, text, Some(collation));
        assert_eq!(mysql("bigint(20) unsigned", ""), Some(KeyType::Integer));
        assert_eq!(mysql("decimal(65,30)", ""), Some(KeyType::Decimal));
        assert_eq!(mysql("timestamp(6)", ""), Some(KeyType::DateTime));
        assert_eq!(mysql("varchar(20)", "utf8mb4_general_ci"), Some(FOLDED));
        assert_eq!(mysql("char(3)", "utf8mb4_0900_as_cs"), Some(EXACT));
        assert_eq!(mysql("varbinary(16)", "binary"), Some(KeyType::Bytes));
        for no_key in
            ["float", "double", "enum('a','b')", "set('a')", "json", "bit(8)", "blob", "time", "point"]
        {
            assert_eq!(mysql(no_key, ""), None, "{no_key}");
        }
        let starrocks = |text: &str| key_type(SourceKind::Starrocks, text, None);
        assert_eq!(starrocks("bigint(20) unsigned"), Some(KeyType::Integer));
        assert_eq!(starrocks("DECIMAL64(18, 4)"), Some(KeyType::Decimal));
        assert_eq!(starrocks("varchar(65533)"), Some(EXACT));
        for no_key in ["boolean", "tinyint(1)", "double", "json", "array<int(11)>", "varbinary", "hll"] {
            assert_eq!(starrocks(no_key), None, "{no_key}");
        }
    }

    #[test]
    fn a_zero_date_is_no_boundary() {
        for zero in ["0000-00-00", "2024-00-10", "2024-01-00"] {
            assert_eq!(KeyType::Date.literal(SourceKind::Mysql, zero), None, "{zero}");
        }
        let moment = KeyType::DateTime.literal(SourceKind::Mysql, "2024-10-30 00:00:00-00");
        assert_eq!(moment, None, "whatever this is");
        assert!(KeyType::Date.literal(SourceKind::Mysql, "2024-10-30").is_some());
    }

    #[test]
    fn the_hour_that_comes_twice_makes_no_falling_boundary() {
        let piece = |time: &str| {
            let from = KeyType::DateTime.literal(SourceKind::Mysql, &format!("2024-10-27 {time}"));
            Piece { from: from.expect("a moment"), rows: 1 }
        };
        let shown = ["01:59:00", "02:30:00", "02:15:00", "02:30:00", "02:30:00.000001", "03:00:00"];
        let rising = KeyType::DateTime.rising(shown.map(piece).to_vec());
        let told: Vec<(&str, u64)> =
            rising.iter().map(|piece| (&piece.from.as_sql()[12..], piece.rows)).collect();
        assert_eq!(told, [("01:59:00'", 1), ("02:30:00'", 3), ("02:30:00.000001'", 1), ("03:00:00'", 1)]);
    }

    #[test]
    fn a_guess_lies_between() {
        assert_eq!(halfway(KeyType::Integer, "-10", "20"), "5");
        assert_eq!(halfway(KeyType::Integer, "0", "1"), "1");
        assert_eq!(halfway(KeyType::Integer, "0", &u64::MAX.to_string()), (u64::MAX / 2).to_string());
        let widest = KeyType::Integer.between(&i128::MIN.to_string(), "0", 1, 2);
        assert_eq!(widest, None, "LARGEINT's whole span needs more than 127 bits");
        assert_eq!(halfway(KeyType::Decimal, "-0.50", "0.10"), "-0.20");
        assert_eq!(halfway(KeyType::Decimal, "1.00", "1.03"), "1.01");
        assert_eq!(halfway(KeyType::Date, "2024-02-28", "2024-03-01"), "2024-02-29");
        assert_eq!(
            halfway(KeyType::DateTime, "2024-01-01 00:00:00", "2024-01-01 00:00:00.000003"),
            "2024-01-01 00:00:00.000001"
        );
        assert_eq!(halfway(KeyType::Bytes, "00FF00", "00FF40"), "00FF2000000000000000");
        let name = halfway(EXACT, "order-00000", "order-99999");
        assert!(name.as_str() > "order-4" && name.as_str() < "order-5", "{name}");
        assert_eq!(&halfway(FOLDED, "Apple", "cherry")[..1], "B");
        let chinese = halfway(EXACT, "一", "龥");
        assert!(chinese.as_str() > "一" && chinese.as_str() < "龥", "{chinese}");
    }

    #[test]
    fn where_nothing_can_be_guessed_nothing_is() {
        assert_eq!(KeyType::Integer.between("5", "5", 1, 2), None);
        assert_eq!(KeyType::Date.between("0000-00-00", "2024-01-01", 1, 2), None);
        assert_eq!(KeyType::Decimal.between("1.0", "2.00", 1, 2), None);
        assert_eq!(FOLDED.between("abc", "ABC", 1, 2), None);
        assert_eq!(EXACT.between("b", "a", 1, 2), None);
    }
}
