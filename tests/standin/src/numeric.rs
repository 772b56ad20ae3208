//! Exact order and sums of decimal text: the collation and the aggregates behind LARGEINT and DECIMAL columns. Pure.

use std::cmp::Ordering;

/// Orders numbers by value (`9` before `10`, `1.5` equal to `1.50`); what is not a number comes after all numbers, by bytes.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    match (Number::parse(left), Number::parse(right)) {
        (Some(left), Some(right)) => left.cmp_value(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => left.cmp(right),
    }
}

/// Decimal text taken apart: `digits` after the leading zeros, and how many of them stand before the point.
struct Number<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Power of ten just above the first digit; meaningless for zero.
    magnitude: i64,
}

impl<'a> Number<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (negative, unsigned) = match bytes.first()? {
            b'-' => (true, &bytes[1..]),
            b'+' => (false, &bytes[1..]),
            _ => (false, bytes),
        };
        let (mantissa, exponent) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => {
                (&unsigned[..at], std::str::from_utf8(&unsigned[at + 1..]).ok()?.parse::<i32>().ok()?)
            }
            None => (unsigned, 0),
        };
        let point = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
        let (whole, fraction) = (&mantissa[..point], mantissa.get(point + 1..).unwrap_or_default());
        let all_digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
        if !all_digits || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let whole = &whole[zeros(whole)..];
        let skipped = if whole.is_empty() { zeros(fraction) } else { 0 };
        let lead = if whole.is_empty() { -count(skipped) } else { count(whole.len()) };
        Some(Self { negative, whole, fraction: &fraction[skipped..], magnitude: lead + i64::from(exponent) })
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).copied()
    }

    /// -1, 0 or 1.
    fn signum(&self) -> i8 {
        match (self.digits().any(|digit| digit != b'0'), self.negative) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => -1,
        }
    }

    fn cmp_value(&self, other: &Self) -> Ordering {
        let signs = self.signum().cmp(&other.signum());
        if signs != Ordering::Equal || self.signum() == 0 {
            return signs;
        }
        let sizes = self.magnitude.cmp(&other.magnitude).then_with(|| {
            let (mut left, mut right) = (self.digits(), other.digits());
            loop {
                match (left.next(), right.next()) {
                    (None, None) => return Ordering::Equal,
                    (left, right) => match left.unwrap_or(b'0').cmp(&right.unwrap_or(b'0')) {
                        Ordering::Equal => {}
                        unequal => return unequal,
                    },
                }
            }
        });
        if self.negative { sizes.reverse() } else { sizes }
    }
}

fn zeros(digits: &[u8]) -> usize {
    digits.iter().take_while(|&&digit| digit == b'0').count()
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// An exact decimal of up to 38 digits: `mantissa / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Exact {
    pub(crate) mantissa: i128,
    pub(crate) scale: u32,
}

impl Exact {
    /// Plain decimal text; `None` for other text or beyond 128 bits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let negative = whole.starts_with('-');
        let mut mantissa: i128 = if matches!(whole, "" | "-" | "+") { 0 } else { whole.parse().ok()? };
        for byte in fraction.bytes() {
            let digit = i128::from(byte - b'0');
            mantissa = mantissa.checked_mul(10)?;
            mantissa = if negative { mantissa.checked_sub(digit)? } else { mantissa.checked_add(digit)? };
        }
        Some(Self { mantissa, scale: u32::try_from(fraction.len()).ok()? })
    }

    fn at_scale(self, scale: u32) -> Option<i128> {
        self.mantissa.checked_mul(10_i128.checked_pow(scale - self.scale)?)
    }

    /// The sum at the larger scale; `None` on overflow.
    pub(crate) fn add(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        Some(Self { mantissa: self.at_scale(scale)?.checked_add(other.at_scale(scale)?)?, scale })
    }

    pub(crate) fn negate(self) -> Option<Self> {
        Some(Self { mantissa: self.mantissa.checked_neg()?, ..self })
    }

    pub(crate) fn multiply(self, other: Self) -> Option<Self> {
        Some(Self { mantissa: self.mantissa.checked_mul(other.mantissa)?, scale: self.scale + other.scale })
    }

    /// The quotient by a whole number, rounded half away from zero, with at least `scale_min` fraction digits.
    pub(crate) fn divide(self, count: i128, scale_min: u32) -> Option<Self> {
        let scale = self.scale.max(scale_min);
        let mantissa = self.at_scale(scale)?;
        let (quotient, rest) = (mantissa.checked_div(count)?, mantissa.checked_rem(count)?);
        let up = rest.unsigned_abs() * 2 >= count.unsigned_abs();
        let step = if (mantissa < 0) == (count < 0) { 1 } else { -1 };
        Some(Self { mantissa: if up { quotient + step } else { quotient }, scale })
    }
}

impl std::fmt::Display for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        if scale == 0 { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_orders_by_value() {
        let ordered = [
            "-170141183460469231731687303715884105728",
            "-10",
            "-9.5",
            "-0.01",
            "0",
            "0.001",
            "0.01",
            "9",
            "10",
            "1e2",
            "9223372036854775808",
            "170141183460469231731687303715884105727",
            "text",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        for (left, right) in [("1.5", "1.50"), ("0", "-0.00"), ("007", "7"), ("12e-1", "1.2"), (".5", "0.5")]
        {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} {right}");
        }
    }

    #[test]
    fn sums_are_exact() {
        let sum = ["0.10", "0.2", "-5", "99999999999999999999999999999999.7"]
            .iter()
            .try_fold(Exact::default(), |sum, text| sum.add(Exact::parse(text)?))
            .map(|sum| sum.to_string());
        assert_eq!(sum.as_deref(), Some("99999999999999999999999999999995.00"));
        assert_eq!(Exact::parse("-0.05").map(|number| number.to_string()).as_deref(), Some("-0.05"));
        assert_eq!(
            Exact::parse("10").and_then(|ten| ten.divide(3, 6)).map(|x| x.to_string()).as_deref(),
            Some("3.333333")
        );
        assert_eq!(
            Exact::parse("-2").and_then(|two| two.divide(3, 2)).map(|x| x.to_string()).as_deref(),
            Some("-0.67")
        );
    }

    proptest::proptest! {
        #[test]
        fn the_order_agrees_with_integers(left: i128, right: i128) {
            proptest::prop_assert_eq!(compare(&left.to_string(), &right.to_string()), left.cmp(&right));
        }

        #[test]
        fn the_order_agrees_with_scaled_decimals(left: i64, right: i64, scale in 0_u32..12) {
            let text = |mantissa: i64| Exact { mantissa: mantissa.into(), scale }.to_string();
            proptest::prop_assert_eq!(compare(&text(left), &text(right)), left.cmp(&right));
        }

        #[test]
        fn canonical_decimals_convert_to_themselves(mantissa in -99_999_999_999_i64..=99_999_999_999, scale in 0_u8..=11) {
            let text = Exact { mantissa: mantissa.into(), scale: scale.into() }.to_string();
            let column = crate::types::Column::new("c", crate::types::ColumnType::Decimal { precision: 22, scale });
            let stored = crate::types::convert(&column, Some(text.as_bytes()));
            proptest::prop_assert_eq!(stored, Ok(crate::types::Stored::Text(text.as_str().into())));
        }
    }
}
