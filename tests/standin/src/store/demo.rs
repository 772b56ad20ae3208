//! Demonstration rows: a deterministic mixture that a careless copy would damage — scripts outside Latin, four-byte
//! characters, separators, quotes, backslashes, NULLs, numbers at the ends of their ranges.

use super::{RowWriter, StoreError, Table};
use crate::numeric::Exact;
use crate::types::{Column, ColumnType, Stored};

/// Rows `1..=rows`; the first key column counts, the others follow from it.
pub(super) fn fill(writer: &mut RowWriter, table: &Table, rows: u64) -> Result<(), StoreError> {
    let key = table.position(&table.first_key().name).unwrap_or(0);
    for number in 1..=rows {
        let row: Vec<Stored<'_>> = table
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let dice = mix(number, at as u64);
                if at == key {
                    counting(column, number)
                } else if column.nullable && dice.is_multiple_of(11) {
                    Stored::Null
                } else {
                    value(column, dice)
                }
            })
            .collect();
        writer.push(&row)?;
    }
    Ok(())
}

/// A number that looks random and is always the same (the finalizer of splitmix64).
fn mix(row: u64, column: u64) -> u64 {
    let mut z =
        row.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(column.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn counting(column: &Column, number: u64) -> Stored<'static> {
    let signed = i64::try_from(number).unwrap_or(i64::MAX);
    match &column.kind {
        ColumnType::Boolean
        | ColumnType::TinyInt
        | ColumnType::SmallInt
        | ColumnType::Int
        | ColumnType::BigInt => Stored::Int(signed),
        ColumnType::LargeInt => text(number.to_string()),
        ColumnType::Decimal { scale, .. } => {
            text(decimal(i128::from(number) * 10_i128.pow((*scale).into()), *scale))
        }
        ColumnType::Date => text(date(number)),
        ColumnType::DateTime => text(format!("{} 00:00:00", date(number))),
        kind => match kind {
            ColumnType::Char(max) | ColumnType::Varchar(max) => bounded(&format!("{number:010}"), *max),
            _ => value(column, number),
        },
    }
}

fn value(column: &Column, dice: u64) -> Stored<'static> {
    match &column.kind {
        ColumnType::Boolean => Stored::Int(i64::from(dice & 1 == 1)),
        ColumnType::TinyInt => Stored::Int(signed(dice, 8)),
        ColumnType::SmallInt => Stored::Int(signed(dice, 16)),
        ColumnType::Int => Stored::Int(signed(dice, 32)),
        ColumnType::BigInt => Stored::Int(signed(dice, 64)),
        ColumnType::LargeInt => {
            text(((i128::from(dice.cast_signed()) << 64) + i128::from(mix(dice, 1))).to_string())
        }
        ColumnType::Float => Stored::Real(f64::from(unit(dice).to_string().parse::<f32>().unwrap_or(0.5))),
        ColumnType::Double => {
            Stored::Real((unit(dice) - 0.5) * 10_f64.powi(i32::try_from(dice % 20).unwrap_or(0) - 4))
        }
        ColumnType::Decimal { precision, scale } => {
            let range = 10_i128.pow((*precision).into());
            let wide = (i128::from(dice) << 62) | i128::from(mix(dice, 2) >> 2);
            text(decimal(wide % range * if dice & 1 == 1 { -1 } else { 1 }, *scale))
        }
        ColumnType::Date => text(date(dice % 36_500)),
        ColumnType::DateTime => text(date_time(dice)),
        ColumnType::Char(max) | ColumnType::Varchar(max) => bounded(&phrase(dice), *max),
        ColumnType::Varbinary => Stored::Blob(dice.to_be_bytes().to_vec().into()),
        ColumnType::Json => {
            text(format!("{{\"n\": {}, \"s\": \"{}\"}}", dice % 1000, WORDS[index(dice, WORDS.len())].0))
        }
        ColumnType::Nested(_) => text(format!("[{},{}]", dice % 10, dice % 100)),
        ColumnType::Opaque(_) => Stored::Null,
    }
}

fn text(text: String) -> Stored<'static> {
    Stored::Text(text.into())
}

/// The top `bits` bits as a signed number.
fn signed(dice: u64, bits: u32) -> i64 {
    dice.cast_signed() >> (64 - bits)
}

/// In `[0, 1)`.
fn unit(dice: u64) -> f64 {
    f64::from(u32::try_from(dice >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

fn decimal(mantissa: i128, scale: u8) -> String {
    Exact { mantissa, scale: scale.into() }.to_string()
}

/// Days after 1950-01-01, in months of 28 days so that every day is real.
fn date(day: u64) -> String {
    let month = day / 28;
    format!("{:04}-{:02}-{:02}", (1950 + month / 12) % 10_000, month % 12 + 1, day % 28 + 1)
}

fn date_time(dice: u64) -> String {
    let base = format!(
        "{} {:02}:{:02}:{:02}",
        date(dice % 36_500),
        dice >> 8 & 15,
        dice >> 16 & 31,
        dice >> 24 & 31
    );
    let micros = (dice >> 32) % 1_000_000;
    if dice & 3 == 0 || micros == 0 { base } else { format!("{base}.{micros:06}") }
}

/// Words that stand alone in JSON, and what is dangerous in CSV.
const WORDS: [(&str, &str); 12] = [
    ("harbour", "plain text"),
    ("Grüße", "größer als ½ €"),
    ("данные", "таблица с данными"),
    ("数据", "分布式数据搬运"),
    ("データ", "カタカナとひらがな"),
    ("데이터", "안녕하세요"),
    ("بيانات", "من اليمين إلى اليسار"),
    ("नमस्ते", "देवनागरी"),
    ("🚚📦", "four bytes 🚀 and 👩‍🔬"),
    ("tab", "tab\there, newline\nthere\r\n"),
    ("quote", "it's \"quoted\", \\N and \\\\ too"),
    ("blank", "  leading and trailing  "),
];

fn index(dice: u64, length: usize) -> usize {
    usize::try_from(dice % length as u64).unwrap_or(0)
}

fn phrase(dice: u64) -> String {
    if dice.is_multiple_of(97) {
        return String::new();
    }
    let words = WORDS[index(dice >> 8, WORDS.len())];
    format!("{} {:x} {}", words.1, dice & 0xffff_ffff, words.0)
}

fn bounded(phrase: &str, bytes_max: u32) -> Stored<'static> {
    text(phrase[..phrase.floor_char_boundary(bytes_max as usize)].to_owned())
}
