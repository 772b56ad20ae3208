//! The matrix: which source type goes into which target type, and what is made sure of on the way. Pure;
//! `docs/TYPES.md` tells it to people, and a test below holds both together.
//!
//! Strict mode of StarRocks refuses much, and changes some values without a word: it rounds decimals, cuts fractions off
//! integers, drops times, makes any number true, and reads digits beyond a double's as a double. No pair of types may
//! meet that: such a value is looked for by the worker, or the pair is refused unless the job converts the column itself.

use starlift_common::job::{CellKind, CellRule, SourceKind};

use super::{Kind, Range};

/// Decimal digits that come back from single and double precision as they were.
const FLOAT_DIGITS: u32 = 6;
const DOUBLE_DIGITS: u32 = 15;
/// Every whole number up to here is one of single or double precision.
const FLOAT_WHOLE: Range = Range { min: -(1 << 24), max: 1 << 24 };
const DOUBLE_WHOLE: Range = Range { min: -(1 << 53), max: 1 << 53 };
/// Whole numbers that JSON readers take as they are.
const JSON_WHOLE: Range = Range { min: -(1 << 63), max: (1 << 64) - 1 };

/// How a pair of types goes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Every value arrives as it left.
    Exact,
    /// The target holds more than the source; every value arrives as the same one there.
    Widened,
    /// A value that does not fit makes its row an error, and is never changed. StarRocks refuses it in strict mode, or
    /// where it would not, the worker finds it by the rule.
    Checked(Option<CellRule>),
    /// Some values would be changed without a word, or none can be loaded.
    Refused {
        why: String,
        /// What to write in the reader's column list, `{col}` standing for the column; empty: nothing helps.
        remedy: String,
    },
}

/// How values of `source` fit a column of `target`, in strict mode. `system` is the source's.
pub fn fit(system: SourceKind, source: &Kind, target: &Kind) -> Fit {
    if let Kind::Refused(why) = target {
        return refused(why, "");
    }
    match source {
        Kind::Refused(why) => return refused(why, ""),
        Kind::Null => return Fit::Exact,
        Kind::Nested(text) => return nested(text, target),
        Kind::Time if !matches!(target, Kind::Text | Kind::PaddedText) => return time(system, target),
        _ => {}
    }
    match target {
        Kind::Text | Kind::PaddedText => into_text(system, source, target),
        Kind::Binary => into_binary(system, source),
        Kind::Boolean | Kind::Flag(_) => into_boolean(source),
        Kind::Integer(range) | Kind::PaddedInteger(range) => into_integer(system, source, *range),
        Kind::LargeInt => into_integer(system, source, Range::LARGEINT),
        Kind::Float | Kind::ShortFloat => into_float(system, source),
        Kind::Double => into_double(system, source),
        Kind::Decimal { precision, scale } => into_decimal(source, *precision, *scale),
        Kind::Date => into_date(system, source),
        Kind::DateTime => into_date_time(system, source),
        Kind::Json => into_json(system, source),
        Kind::Nested(_) => refused("no value of the one type is surely one of the other", ""),
        Kind::Bits(_) | Kind::Time | Kind::Year | Kind::Null | Kind::Refused(_) => impossible(),
    }
}

fn refused(why: &str, remedy: &str) -> Fit {
    Fit::Refused { why: why.to_owned(), remedy: remedy.to_owned() }
}

fn impossible() -> Fit {
    refused("no value of the one type is one of the other", "")
}

/// The whole numbers that a type holds, if it holds nothing else.
fn whole(kind: &Kind) -> Option<Range> {
    Some(match kind {
        Kind::Boolean => Range { min: 0, max: 1 },
        Kind::Flag(range) | Kind::Integer(range) | Kind::PaddedInteger(range) => *range,
        Kind::LargeInt => Range::LARGEINT,
        Kind::Bits(bits) => Range::unsigned((*bits).min(64)),
        Kind::Year => Range { min: 0, max: 2155 },
        Kind::Decimal { precision, scale: 0 } => {
            let most = 10_i128.checked_pow(*precision).map_or(i128::MAX, |power| power - 1);
            Range { min: -most, max: most }
        }
        _ => return None,
    })
}

fn is_fractional(kind: &Kind) -> bool {
    matches!(kind, Kind::Float | Kind::ShortFloat | Kind::Double | Kind::Decimal { scale: 1.., .. })
}

fn into_integer(system: SourceKind, source: &Kind, target: Range) -> Fit {
    if let Some(range) = whole(source) {
        // A decimal of more digits than 128 bits hold may be any number.
        let is_beyond = matches!(source, Kind::Decimal { precision: 39.., .. });
        return match target.holds(range) && !is_beyond {
            true if range == target => Fit::Exact,
            true => Fit::Widened,
            false => Fit::Checked(None),
        };
    }
    let cast = match system {
        SourceKind::Mysql => "CAST({col} AS SIGNED)",
        SourceKind::Starrocks => "CAST({col} AS BIGINT)",
    };
    match source {
        Kind::Text | Kind::PaddedText => Fit::Checked(Some(CellRule::WholeNumber)),
        fractional if is_fractional(fractional) => {
            refused("StarRocks would cut off the digits behind the point without a word", cast)
        }
        _ => impossible(),
    }
}

fn into_boolean(source: &Kind) -> Fit {
    match source {
        Kind::Boolean => Fit::Exact,
        Kind::Bits(1) => Fit::Widened,
        Kind::Flag(_) | Kind::Text | Kind::PaddedText => Fit::Checked(Some(CellRule::Truth)),
        number if whole(number).is_some() || is_fractional(number) => {
            refused("StarRocks would make every number other than 0 true without a word", "({col} <> 0)")
        }
        _ => impossible(),
    }
}

fn into_double(system: SourceKind, source: &Kind) -> Fit {
    let convert = match system {
        SourceKind::Mysql => "({col} * 1e0)",
        SourceKind::Starrocks => "CAST({col} AS DOUBLE)",
    };
    match source {
        Kind::Double => Fit::Exact,
        Kind::Float => Fit::Widened,
        Kind::ShortFloat => refused("its shortest text is another number in double precision", convert),
        Kind::Decimal { precision, .. } if *precision <= DOUBLE_DIGITS => Fit::Widened,
        number if whole(number).is_some_and(|range| DOUBLE_WHOLE.holds(range)) => Fit::Widened,
        number if whole(number).is_some() || is_fractional(number) => {
            refused("digits beyond double precision would be lost without a word", convert)
        }
        Kind::Text | Kind::PaddedText => {
            refused("a text may hold more digits than double precision keeps", convert)
        }
        _ => impossible(),
    }
}

fn into_float(system: SourceKind, source: &Kind) -> Fit {
    // MySQL prints an expression of this type with six digits, so it is no way out there.
    let convert = match system {
        SourceKind::Mysql => "",
        SourceKind::Starrocks => "CAST({col} AS FLOAT)",
    };
    match source {
        // A text that tells the value exactly is nearer to it than to any other of single precision, however many
        // digits it has, so the server reads the same one.
        Kind::Float | Kind::ShortFloat => Fit::Exact,
        Kind::Decimal { precision, .. } if *precision <= FLOAT_DIGITS => Fit::Widened,
        number if whole(number).is_some_and(|range| FLOAT_WHOLE.holds(range)) => Fit::Widened,
        number if whole(number).is_some() || is_fractional(number) || is_text(number) => refused(
            "digits beyond single precision would be lost without a word; a target column of type DOUBLE or DECIMAL \
             keeps them",
            convert,
        ),
        _ => impossible(),
    }
}

fn into_decimal(source: &Kind, precision: u32, scale: u32) -> Fit {
    let cast = format!("CAST({{col}} AS DECIMAL({},{scale}))", precision.min(65));
    let digits = precision.saturating_sub(scale);
    let largest = 10_i128.checked_pow(digits).map_or(i128::MAX, |power| power - 1);
    match source {
        Kind::Decimal { precision: from, scale: from_scale } => {
            if *from_scale > scale {
                return refused("StarRocks would round the digits behind the point without a word", &cast);
            }
            match from.saturating_sub(*from_scale) <= digits {
                true if (*from, *from_scale) == (precision, scale) => Fit::Exact,
                true => Fit::Widened,
                false => Fit::Checked(None),
            }
        }
        Kind::Text | Kind::PaddedText => Fit::Checked(Some(CellRule::Decimal { scale })),
        number if is_fractional(number) => {
            refused("StarRocks would round the digits behind the point without a word", &cast)
        }
        number => match whole(number) {
            // The largest LARGEINT has 39 digits.
            Some(range) if (Range { min: -largest, max: largest }).holds(range) && largest < i128::MAX => {
                Fit::Widened
            }
            Some(_) if digits >= 39 => Fit::Widened,
            Some(_) => Fit::Checked(None),
            None => impossible(),
        },
    }
}

fn is_text(kind: &Kind) -> bool {
    matches!(kind, Kind::Text | Kind::PaddedText)
}

/// Zero dates: whether StarRocks takes a year 0 depends on its version, so they are not sent. It has none itself.
fn real_date(system: SourceKind, others: Fit) -> Fit {
    match system {
        SourceKind::Mysql => Fit::Checked(Some(CellRule::RealDate)),
        SourceKind::Starrocks => others,
    }
}

fn into_date(system: SourceKind, source: &Kind) -> Fit {
    match source {
        Kind::Date => real_date(system, Fit::Exact),
        Kind::DateTime => {
            refused("StarRocks would drop the time of day without a word", "CAST({col} AS DATE)")
        }
        Kind::Text | Kind::PaddedText => Fit::Checked(Some(CellRule::Date)),
        number => from_number_of_a_day(system, number),
    }
}

fn into_date_time(system: SourceKind, source: &Kind) -> Fit {
    match source {
        Kind::Date => real_date(system, Fit::Widened),
        Kind::DateTime => real_date(system, Fit::Exact),
        Kind::Text | Kind::PaddedText => Fit::Checked(Some(CellRule::DateTime)),
        number => from_number_of_a_day(system, number),
    }
}

fn from_number_of_a_day(system: SourceKind, source: &Kind) -> Fit {
    if !matches!(source, Kind::Integer(_) | Kind::PaddedInteger(_) | Kind::LargeInt) {
        return impossible();
    }
    let convert = match system {
        SourceKind::Mysql => "STR_TO_DATE({col}, '%Y%m%d')",
        SourceKind::Starrocks => "str_to_date(CAST({col} AS VARCHAR), '%Y%m%d')",
    };
    refused("StarRocks would read the digits of a number as those of a date in its own way", convert)
}

fn time(system: SourceKind, target: &Kind) -> Fit {
    let is_number =
        whole(target).is_some() || is_fractional(target) || matches!(target, Kind::Decimal { .. });
    match system {
        SourceKind::Mysql if is_number => refused("StarRocks has no type for a time", "TIME_TO_SEC({col})"),
        _ => refused("StarRocks has no type for a time; a text column holds it", ""),
    }
}

fn into_text(system: SourceKind, source: &Kind, target: &Kind) -> Fit {
    match (source, system) {
        (Kind::Binary, SourceKind::Mysql) => refused(
            "raw bytes are no text; a VARBINARY column takes them as they are",
            "CONVERT({col} USING utf8mb4), HEX({col}) or TO_BASE64({col})",
        ),
        (Kind::Binary, SourceKind::Starrocks) => refused(
            "raw bytes are no text; a VARBINARY column takes them as they are",
            "from_binary({col}, 'utf8'), hex({col}) or to_base64({col})",
        ),
        (Kind::Text | Kind::PaddedText | Kind::Json, _) if *target == Kind::PaddedText => {
            Fit::Checked(Some(CellRule::NoZeroAtEnd))
        }
        _ => Fit::Exact,
    }
}

fn into_binary(system: SourceKind, source: &Kind) -> Fit {
    match source {
        Kind::Binary => Fit::Exact,
        // The bytes of its UTF-8.
        Kind::Text | Kind::PaddedText => Fit::Exact,
        _ => refused(
            "it is neither bytes nor a text",
            match system {
                SourceKind::Mysql => "CAST({col} AS CHAR)",
                SourceKind::Starrocks => "CAST({col} AS VARCHAR)",
            },
        ),
    }
}

fn into_json(system: SourceKind, source: &Kind) -> Fit {
    let double = match system {
        SourceKind::Mysql => "({col} * 1e0)",
        SourceKind::Starrocks => "CAST({col} AS DOUBLE)",
    };
    let quoted = match system {
        SourceKind::Mysql => "JSON_QUOTE(CAST({col} AS CHAR))",
        SourceKind::Starrocks => "",
    };
    match source {
        Kind::Json => Fit::Exact,
        Kind::Text | Kind::PaddedText => Fit::Checked(Some(CellRule::Json)),
        Kind::PaddedInteger(_) | Kind::Year => refused("zeros in front are no JSON number", "({col} + 0)"),
        Kind::Float | Kind::Double => match system {
            SourceKind::Mysql => Fit::Widened,
            // `nan` and `inf` are no JSON.
            SourceKind::Starrocks => Fit::Checked(Some(CellRule::Json)),
        },
        Kind::Decimal { .. } | Kind::LargeInt | Kind::ShortFloat => {
            refused("a number of JSON keeps no more digits than double precision", double)
        }
        number if whole(number).is_some_and(|range| JSON_WHOLE.holds(range)) => Fit::Widened,
        Kind::Date | Kind::DateTime => refused("it is no JSON document", quoted),
        _ => impossible(),
    }
}

fn nested(text: &str, target: &Kind) -> Fit {
    match target {
        Kind::Json => Fit::Widened,
        Kind::Nested(other) if other == text => Fit::Exact,
        Kind::Nested(_) => refused("the two types are not the same", ""),
        Kind::Text | Kind::PaddedText => refused(
            "its text differs from version to version; a JSON column takes it",
            "CAST(CAST({col} AS JSON) AS VARCHAR)",
        ),
        _ => impossible(),
    }
}

/// How JSON bodies render the cells of a pair. Decimals and LARGEINT travel as strings, which StarRocks reads digit by
/// digit; as JSON numbers they would pass through a double.
pub fn cell_kind(source: &Kind, target: &Kind) -> CellKind {
    let is_small =
        |kind: &Kind| matches!(kind, Kind::Integer(_) | Kind::Flag(_) | Kind::Boolean | Kind::Bits(_));
    match (source, target) {
        (_, Kind::Binary) => CellKind::Hex,
        (_, Kind::Json | Kind::Nested(_)) => CellKind::Json,
        (from, Kind::Integer(_) | Kind::Boolean | Kind::Float | Kind::Double) if is_small(from) => {
            CellKind::Number
        }
        (Kind::Float | Kind::Double, Kind::Float | Kind::Double) => CellKind::Number,
        _ => CellKind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{mysql_kind, starrocks_kind};
    use super::*;

    #[test]
    fn numbers_that_json_would_damage_travel_as_text() {
        let big = mysql_kind("bigint");
        let decimal = Kind::Decimal { precision: 9, scale: 2 };
        assert_eq!(cell_kind(&big, &big), CellKind::Number);
        assert_eq!(cell_kind(&mysql_kind("int zerofill"), &big), CellKind::Text);
        assert_eq!(cell_kind(&big, &Kind::LargeInt), CellKind::Text);
        assert_eq!(cell_kind(&decimal, &decimal), CellKind::Text);
        assert_eq!(cell_kind(&Kind::Text, &Kind::Json), CellKind::Json);
        assert_eq!(cell_kind(&Kind::Text, &big), CellKind::Text);
        assert_eq!(cell_kind(&Kind::Text, &Kind::Binary), CellKind::Hex);
    }

    #[test]
    fn an_expression_of_the_targets_type_passes_where_the_column_does_not() {
        let pairs = [
            (mysql_kind("decimal(10,4)"), "decimal(9,2)", Kind::Decimal { precision: 9, scale: 2 }),
            (mysql_kind("double"), "int(11)", mysql_kind("bigint")),
            (mysql_kind("datetime"), "date", Kind::Date),
            (mysql_kind("int"), "boolean", mysql_kind("tinyint(1)")),
            (mysql_kind("bigint"), "double", Kind::Double),
        ];
        for (column, target, expression) in pairs {
            let target = starrocks_kind(target);
            let of = |source| fit(SourceKind::Mysql, source, &target);
            assert!(
                matches!(of(&column), Fit::Refused { remedy, .. } if !remedy.is_empty()),
                "{column:?} into {target:?}"
            );
            assert!(!matches!(of(&expression), Fit::Refused { .. }), "{expression:?} into {target:?}");
        }
    }

    #[test]
    fn doubles_of_json_are_not_sent_where_they_are_no_json() {
        let into_json = |system| fit(system, &Kind::Double, &Kind::Json);
        assert_eq!(into_json(SourceKind::Mysql), Fit::Widened);
        assert_eq!(into_json(SourceKind::Starrocks), Fit::Checked(Some(CellRule::Json)));
    }

    #[test]
    fn a_float_comes_back_from_the_text_of_its_double() {
        for bits in (0..=u32::MAX).step_by(49_999) {
            let single = f32::from_bits(bits);
            if single.is_finite() {
                let text = f64::from(single).to_string();
                assert_eq!(text.parse::<f32>().map(f32::to_bits), Ok(bits), "{text}");
            }
        }
    }

    #[test]
    fn decimals_of_so_many_digits_come_back_from_a_float_and_a_double() {
        let texts = |digits: u32| {
            let most = 10_u64.pow(digits);
            let mantissas =
                (0..20_000_u64).map(move |step| most - 1 - step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % most);
            mantissas.flat_map(move |mantissa| (0..=digits as usize).map(move |scale| (mantissa, scale)))
        };
        let written = |mantissa: u64, scale: usize| {
            let digits = format!("{mantissa:0>width$}", width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            if scale == 0 { whole.to_owned() } else { format!("{whole}.{fraction}") }
        };
        for (mantissa, scale) in texts(FLOAT_DIGITS) {
            let text = written(mantissa, scale);
            let single: f32 = text.parse().expect("a number");
            assert_eq!(format!("{single:.scale$}"), text);
        }
        for (mantissa, scale) in texts(DOUBLE_DIGITS) {
            let text = written(mantissa, scale);
            let double: f64 = text.parse().expect("a number");
            assert_eq!(format!("{double:.scale$}"), text);
        }
    }

    /// Every other target type must be refused.
    const TARGETS: &[&str] = &[
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "BIGINT",
        "LARGEINT",
        "FLOAT",
        "DOUBLE",
        "DATE",
        "DATETIME",
        "CHAR",
        "VARCHAR",
        "STRING",
        "VARBINARY",
        "JSON",
        "ARRAY<INT>",
        "MAP<INT,INT>",
        "BITMAP",
        "HLL",
        "PERCENTILE",
    ];

    /// The text between backticks.
    fn quoted(cell: &str) -> Vec<&str> {
        cell.split('`').skip(1).step_by(2).collect()
    }

    fn word(fit: &Fit) -> &'static str {
        match fit {
            Fit::Exact | Fit::Widened => "exact, widened",
            Fit::Checked(_) => "checked",
            Fit::Refused { .. } => "refused",
        }
    }

    #[test]
    fn the_document_tells_what_the_matrix_does() {
        let document = include_str!("../../../docs/TYPES.md");
        let sections = [
            ("## From MySQL and MariaDB", SourceKind::Mysql, mysql_kind as fn(&str) -> Kind),
            ("## From StarRocks", SourceKind::Starrocks, starrocks_kind),
        ];
        for (heading, system, kind_of) in sections {
            let (_, section) = document.split_once(heading).expect("the section is there");
            let section = section.split("\n## ").next().expect("a section has a text");
            let rows = section.lines().filter(|line| line.starts_with("| `"));
            let mut sources = 0;
            for row in rows {
                let cells: Vec<&str> = row.split('|').skip(1).collect();
                let [exact, checked, refused] = [1, 2, 3].map(|column| quoted(cells[column]));
                for source in quoted(cells[0]) {
                    sources += 1;
                    let told = |target: &str| word(&fit(system, &kind_of(source), &starrocks_kind(target)));
                    for (targets, expected) in
                        [(&exact, "exact, widened"), (&checked, "checked"), (&refused, "refused")]
                    {
                        for target in targets {
                            assert_eq!(told(target), expected, "{source} into {target}");
                        }
                    }
                    let others =
                        TARGETS.iter().filter(|target| !exact.contains(target) && !checked.contains(target));
                    for target in others {
                        assert_eq!(
                            told(target),
                            "refused",
                            "{source} into {target}, which the row does not list"
                        );
                    }
                }
            }
            assert!(sources > 15, "{heading} has a table");
        }
    }
}
