//! What type an expression has, told from its text and the tables it names: result columns are announced with it
//! before there is a row.

use sqlparser::ast::{BinaryOperator, DataType, Expr, Function, UnaryOperator, Value};

use super::translate::{Scope, function_name, plain_arguments};
use crate::types::{Column, ColumnType, STRING_BYTES_MAX, Storage};

impl Scope<'_> {
    /// The column that an expression is, if it is just that.
    pub(super) fn column(&self, expr: &Expr) -> Option<&Column> {
        let (qualifier, name) = match expr {
            Expr::Identifier(ident) => (None, ident),
            Expr::CompoundIdentifier(idents) => (idents.iter().rev().nth(1), idents.last()?),
            Expr::Nested(inner) => return self.column(inner),
            _ => return None,
        };
        self.tables
            .iter()
            .filter(|(alias, _)| qualifier.is_none_or(|qualifier| qualifier.value == *alias))
            .find_map(|(_, table)| table.position(&name.value).map(|at| &table.columns[at]))
    }

    /// The type of an expression, if it can be told from its text.
    pub(super) fn kind_of(&self, expr: &Expr) -> Option<ColumnType> {
        if let Some(column) = self.column(expr) {
            return Some(column.kind.clone());
        }
        Some(match expr {
            Expr::Nested(inner) => self.kind_of(inner)?,
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => kind_of_number(number)?,
                Value::Boolean(_) => ColumnType::Boolean,
                Value::Null => return None,
                _ => ColumnType::Varchar(STRING_BYTES_MAX),
            },
            Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => self.kind_of(expr)?,
            Expr::UnaryOp { op: UnaryOperator::Not, .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::Between { .. }
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Exists { .. }
            | Expr::Like { .. } => ColumnType::Boolean,
            Expr::BinaryOp { left, op, right } => match op {
                BinaryOperator::Multiply => match (self.kind_of(left)?, self.kind_of(right)?) {
                    (ColumnType::Decimal { scale: one, .. }, ColumnType::Decimal { scale: two, .. }) => {
                        ColumnType::Decimal { precision: 38, scale: (one + two).min(38) }
                    }
                    (left, right) => wider(&left, &right)?,
                },
                BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Modulo => {
                    wider(&self.kind_of(left)?, &self.kind_of(right)?)?
                }
                BinaryOperator::Divide => ColumnType::Double,
                BinaryOperator::MyIntegerDivide => ColumnType::BigInt,
                _ => ColumnType::Boolean,
            },
            Expr::Cast { data_type, .. } => cast_target(data_type)?,
            Expr::Case { conditions, .. } => self.kind_of(&conditions.first()?.result)?,
            Expr::Floor { .. } | Expr::Ceil { .. } => ColumnType::BigInt,
            Expr::Substring { .. } | Expr::Trim { .. } => ColumnType::Varchar(STRING_BYTES_MAX),
            Expr::Function(function) => self.kind_of_call(function)?,
            _ => return None,
        })
    }

    fn kind_of_call(&self, function: &Function) -> Option<ColumnType> {
        let arguments = plain_arguments(function);
        let first = || self.kind_of(arguments.first()?);
        Some(match function_name(function).as_str() {
            "count" | "ndv" | "approx_count_distinct" | "xx_hash3_64" | "connection_id" | "last_query_id" => {
                ColumnType::BigInt
            }
            "min" | "max" | "any_value" | "abs" | "ifnull" | "coalesce" | "nullif" | "greatest" | "least" => {
                first()?
            }
            "if" => self.kind_of(arguments.get(1)?)?,
            "sum" => match first()? {
                ColumnType::LargeInt => ColumnType::LargeInt,
                ColumnType::Decimal { scale, .. } => ColumnType::Decimal { precision: 38, scale },
                kind if kind.storage() == Storage::Int => ColumnType::BigInt,
                _ => ColumnType::Double,
            },
            "avg" => match first()? {
                ColumnType::Decimal { scale, .. } => {
                    ColumnType::Decimal { precision: 38, scale: scale.max(6) }
                }
                _ => ColumnType::Double,
            },
            "length" | "char_length" | "character_length" | "murmur_hash3_32" | "instr" | "mod" => {
                ColumnType::Int
            }
            "now" | "current_timestamp" | "localtime" | "localtimestamp" => ColumnType::DateTime,
            "curdate" | "current_date" | "date" => ColumnType::Date,
            "sleep" => ColumnType::Boolean,
            "to_json" => ColumnType::Json,
            "round" | "pow" | "power" | "sqrt" | "rand" => ColumnType::Double,
            "concat" | "concat_ws" | "upper" | "lower" | "hex" | "replace" | "substr" | "substring"
            | "left" | "right" | "group_concat" | "database" | "schema" | "user" | "current_user"
            | "version" | "current_version" => ColumnType::Varchar(STRING_BYTES_MAX),
            _ => return None,
        })
    }
}

fn kind_of_number(number: &str) -> Option<ColumnType> {
    if let Some((whole, fraction)) = number.split_once('.') {
        if number.contains(['e', 'E']) {
            return Some(ColumnType::Double);
        }
        let scale = u8::try_from(fraction.len()).ok()?;
        let precision = u8::try_from(whole.trim_start_matches('0').len() + fraction.len()).ok()?.max(1);
        return (precision <= 38).then_some(ColumnType::Decimal { precision, scale });
    }
    let number: i128 = number.parse().ok()?;
    Some(match number {
        -128..=127 => ColumnType::TinyInt,
        -32_768..=32_767 => ColumnType::SmallInt,
        -2_147_483_648..=2_147_483_647 => ColumnType::Int,
        -9_223_372_036_854_775_808..=9_223_372_036_854_775_807 => ColumnType::BigInt,
        _ => ColumnType::LargeInt,
    })
}

/// The type of a sum of two numbers.
fn wider(left: &ColumnType, right: &ColumnType) -> Option<ColumnType> {
    Some(match (left, right) {
        (ColumnType::Decimal { scale: one, .. }, ColumnType::Decimal { scale: two, .. }) => {
            ColumnType::Decimal { precision: 38, scale: *one.max(two) }
        }
        (ColumnType::Decimal { scale, .. }, other) | (other, ColumnType::Decimal { scale, .. })
            if other.storage() == Storage::Int =>
        {
            ColumnType::Decimal { precision: 38, scale: *scale }
        }
        (ColumnType::LargeInt, other) | (other, ColumnType::LargeInt) if other.storage() != Storage::Real => {
            ColumnType::LargeInt
        }
        (one, two) if one.storage() == Storage::Int && two.storage() == Storage::Int => ColumnType::BigInt,
        (one, two) if one.storage() == Storage::Text || two.storage() == Storage::Text => return None,
        _ => ColumnType::Double,
    })
}

/// The column type a CAST names.
pub(super) fn cast_target(data_type: &DataType) -> Option<ColumnType> {
    let text = data_type.to_string().to_ascii_uppercase();
    let (word, rest) = text.split_once('(').unwrap_or((&text, ""));
    let args: Vec<u32> =
        rest.trim_end_matches(')').split(',').filter_map(|number| number.trim().parse().ok()).collect();
    match word.trim() {
        "SIGNED" | "SIGNED INTEGER" => Some(ColumnType::BigInt),
        "UNSIGNED" | "UNSIGNED INTEGER" => Some(ColumnType::LargeInt),
        "CHAR" | "CHARACTER" if args.is_empty() => Some(ColumnType::Varchar(STRING_BYTES_MAX)),
        word => ColumnType::from_words(word, &args),
    }
}
