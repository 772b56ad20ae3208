//! What every SQLite connection learns: the numeric collation, exact sums and means, StarRocks' hash functions, RAND, SLEEP,
//! and conversion between column types.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Result};

use super::pool::Stop;
use crate::numeric::{self, Exact};
use crate::types::{Column, ColumnType, Stored, convert};

pub(crate) const NUMERIC_COLLATION: &str = "sr_numeric";

pub(super) fn register(connection: &Connection, stop: &Arc<Stop>) -> Result<()> {
    connection.create_collation(NUMERIC_COLLATION, numeric::compare)?;
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("sum", 1, pure, Sum)?;
    connection.create_aggregate_function("avg", 1, pure, Mean)?;
    connection.create_scalar_function("sr_cast", 2, pure, cast)?;
    connection.create_scalar_function("sr_add", 2, pure, |ctx| arithmetic(ctx, Exact::add, |a, b| a + b))?;
    connection.create_scalar_function("sr_sub", 2, pure, |ctx| {
        arithmetic(ctx, |a, b| a.add(b.negate()?), |a, b| a - b)
    })?;
    connection
        .create_scalar_function("sr_mul", 2, pure, |ctx| arithmetic(ctx, Exact::multiply, |a, b| a * b))?;
    connection.create_scalar_function("sr_tablet", 2, pure, tablet)?;
    connection.create_scalar_function("xx_hash3_64", -1, pure, xx_hash3_64)?;
    connection.create_scalar_function("murmur_hash3_32", -1, pure, murmur_hash3_32)?;
    connection.create_scalar_function("rand", 0, FunctionFlags::SQLITE_UTF8, |_| Ok(fastrand::f64()))?;
    let stop = Arc::clone(stop);
    connection.create_scalar_function("sleep", 1, FunctionFlags::SQLITE_UTF8, move |ctx| {
        let seconds: f64 = ctx.get(0)?;
        let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        if stop.sleep(duration) { Ok(1) } else { Err(interrupted()) }
    })
}

fn interrupted() -> rusqlite::Error {
    rusqlite::Error::UserFunctionError("statement was stopped".into())
}

fn text_of(value: ValueRef<'_>) -> Option<String> {
    Some(match value {
        ValueRef::Null => return None,
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => crate::render::double_text(number),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    })
}

/// `sr_cast(value, 'TYPE')`: what a column of that type would hold, NULL where it cannot.
fn cast(ctx: &Context<'_>) -> Result<Value> {
    let declared: String = ctx.get(1)?;
    let (word, rest) = declared.split_once('(').unwrap_or((&declared, ""));
    let args: Vec<u32> =
        rest.trim_end_matches(')').split(',').filter_map(|number| number.trim().parse().ok()).collect();
    let kind = ColumnType::from_words(word, &args)
        .ok_or_else(|| rusqlite::Error::UserFunctionError(format!("no conversion to {declared}").into()))?;
    let Some(text) = text_of(ctx.get_raw(0)) else { return Ok(Value::Null) };
    let text = match &kind {
        ColumnType::Varchar(max) | ColumnType::Char(max) => prefix(&text, *max as usize),
        _ => &text,
    };
    Ok(match convert(&Column::new("value", kind), Some(text.as_bytes())) {
        Ok(stored) => value_of(stored),
        Err(_) => Value::Null,
    })
}

fn prefix(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

pub(crate) fn value_of(stored: Stored<'_>) -> Value {
    match stored {
        Stored::Null => Value::Null,
        Stored::Int(value) => Value::Integer(value),
        Stored::Real(value) => Value::Real(value),
        Stored::Text(text) => Value::Text(text.into_owned()),
        Stored::Blob(bytes) => Value::Blob(bytes.into_owned()),
    }
}

/// Exact where both sides are exact, in doubles otherwise; text when it does not fit 64 bits.
fn arithmetic(
    ctx: &Context<'_>,
    exact: impl Fn(Exact, Exact) -> Option<Exact>,
    float: impl Fn(f64, f64) -> f64,
) -> Result<Value> {
    let (left, right) = (ctx.get_raw(0), ctx.get_raw(1));
    if matches!(left, ValueRef::Null) || matches!(right, ValueRef::Null) {
        return Ok(Value::Null);
    }
    if let (Some(left), Some(right)) = (exact_of(left), exact_of(right))
        && let Some(result) = exact(left, right)
    {
        return Ok(exact_value(result));
    }
    Ok(Value::Real(float(double_of(left), double_of(right))))
}

fn exact_value(exact: Exact) -> Value {
    match i64::try_from(exact.mantissa) {
        Ok(value) if exact.scale == 0 => Value::Integer(value),
        _ => Value::Text(exact.to_string()),
    }
}

fn exact_of(value: ValueRef<'_>) -> Option<Exact> {
    match value {
        ValueRef::Integer(number) => Some(Exact { mantissa: number.into(), scale: 0 }),
        ValueRef::Text(bytes) => Exact::parse(std::str::from_utf8(bytes).ok()?),
        _ => None,
    }
}

fn double_of(value: ValueRef<'_>) -> f64 {
    match value {
        ValueRef::Real(number) => number,
        other => text_of(other).and_then(|text| text.parse().ok()).unwrap_or(0.0),
    }
}

/// The bucket of a key: 0 for NULL, a hash of its text otherwise.
fn tablet(ctx: &Context<'_>) -> Result<i64> {
    let buckets: i64 = ctx.get(1)?;
    let hash = text_of(ctx.get_raw(0)).map_or(0, |text| xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
    let bucket = hash % u64::try_from(buckets.max(1)).unwrap_or(1);
    Ok(i64::try_from(bucket).unwrap_or(0))
}

/// NULL if any argument is NULL, as in StarRocks.
fn xx_hash3_64(ctx: &Context<'_>) -> Result<Value> {
    let mut seed = 0;
    for at in 0..ctx.len() {
        let Some(text) = text_of(ctx.get_raw(at)) else { return Ok(Value::Null) };
        seed = xxhash_rust::xxh3::xxh3_64_with_seed(text.as_bytes(), seed);
    }
    Ok(Value::Integer(seed.cast_signed()))
}

/// NULL if any argument is NULL, as in StarRocks.
fn murmur_hash3_32(ctx: &Context<'_>) -> Result<Value> {
    let mut seed = 104_729;
    for at in 0..ctx.len() {
        let Some(text) = text_of(ctx.get_raw(at)) else { return Ok(Value::Null) };
        seed = murmur3_x86_32(text.as_bytes(), seed);
    }
    Ok(Value::Integer(i64::from(seed.cast_signed())))
}

fn murmur3_x86_32(bytes: &[u8], seed: u32) -> u32 {
    let scramble = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = seed;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        hash = (hash ^ scramble(u32::from_le_bytes(*word)))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash ^= scramble(u32::from_le_bytes(last));
    }
    hash ^= u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or(u32::MAX);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// A running total: exact while it can be.
#[derive(Default)]
struct Total {
    count: i64,
    exact: Exact,
    inexact: Option<f64>,
}

impl Total {
    fn add(&mut self, value: ValueRef<'_>) {
        if matches!(value, ValueRef::Null) {
            return;
        }
        self.count += 1;
        match exact_of(value).and_then(|value| self.exact.add(value)) {
            Some(sum) if self.inexact.is_none() => self.exact = sum,
            _ => {
                let so_far = self.inexact.unwrap_or_else(|| self.exact.to_string().parse().unwrap_or(0.0));
                self.inexact = Some(so_far + double_of(value));
            }
        }
    }
}

struct Sum;

impl Aggregate<Total, Value> for Sum {
    fn init(&self, _: &mut Context<'_>) -> Result<Total> {
        Ok(Total::default())
    }

    fn step(&self, ctx: &mut Context<'_>, total: &mut Total) -> Result<()> {
        total.add(ctx.get_raw(0));
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, total: Option<Total>) -> Result<Value> {
        Ok(match total {
            Some(total) if total.count > 0 => {
                total.inexact.map_or_else(|| exact_value(total.exact), Value::Real)
            }
            _ => Value::Null,
        })
    }
}

struct Mean;

impl Aggregate<Total, Value> for Mean {
    fn init(&self, _: &mut Context<'_>) -> Result<Total> {
        Ok(Total::default())
    }

    fn step(&self, ctx: &mut Context<'_>, total: &mut Total) -> Result<()> {
        total.add(ctx.get_raw(0));
        Ok(())
    }

    /// A double for integers and doubles, a decimal with at least six digits for decimals.
    fn finalize(&self, _: &mut Context<'_>, total: Option<Total>) -> Result<Value> {
        let Some(total) = total.filter(|total| total.count > 0) else { return Ok(Value::Null) };
        if total.inexact.is_none()
            && total.exact.scale > 0
            && let Some(mean) = total.exact.divide(total.count.into(), 6)
        {
            return Ok(Value::Text(mean.to_string()));
        }
        let sum = total.inexact.unwrap_or_else(|| total.exact.to_string().parse().unwrap_or(0.0));
        #[expect(clippy::cast_precision_loss, reason = "a mean is a double anyway")]
        let mean = sum / total.count as f64;
        Ok(Value::Real(mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur_matches_the_reference_vectors() {
        assert_eq!(murmur3_x86_32(b"", 0), 0);
        assert_eq!(murmur3_x86_32(b"", 1), 0x514e_28b7);
        assert_eq!(murmur3_x86_32(b"test", 0), 0xba6b_d213);
        assert_eq!(murmur3_x86_32(b"Hello, world!", 0x9747_b28c), 0x2488_4cba);
    }
}
