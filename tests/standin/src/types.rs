//! Column types and what a value becomes on its way in: `convert` takes the text of one CSV field or JSON scalar and
//! gives the stored value, or the reason why the row is refused. Pure; knows no table and no SQL. The way out is
//! `render.rs`, the rules are those of the CSV converters and `time_types.cpp` of the backend.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub nullable: bool,
    /// Text of the DEFAULT clause; `None` without one or with `DEFAULT NULL`.
    pub default: Option<String>,
    /// Part of the table's key (duplicate, unique, aggregate or primary).
    pub key: bool,
    pub comment: String,
    /// Aggregation of an aggregate table's value column, as written (`SUM`, `REPLACE`).
    pub aggregation: Option<String>,
}

/// A StarRocks column type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnType {
    Boolean,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    LargeInt,
    Float,
    Double,
    Decimal { precision: u8, scale: u8 },
    Date,
    DateTime,
    /// Longest value in bytes.
    Char(u32),
    /// Longest value in bytes.
    Varchar(u32),
    Varbinary,
    Json,
    /// ARRAY, MAP or STRUCT, as written.
    Nested(String),
    /// BITMAP, HLL or PERCENTILE.
    Opaque(String),
}

/// A value as the store binds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored<'a> {
    Null,
    Int(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(Cow<'a, [u8]>),
}

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
    let _ = (column, cell);
    Ok(Stored::Null)
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::TinyInt => f.write_str("TINYINT"),
            Self::SmallInt => f.write_str("SMALLINT"),
            Self::Int => f.write_str("INT"),
            Self::BigInt => f.write_str("BIGINT"),
            Self::LargeInt => f.write_str("LARGEINT"),
            Self::Float => f.write_str("FLOAT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            Self::Date => f.write_str("DATE"),
            Self::DateTime => f.write_str("DATETIME"),
            Self::Char(n) => write!(f, "CHAR({n})"),
            Self::Varchar(n) => write!(f, "VARCHAR({n})"),
            Self::Varbinary => f.write_str("VARBINARY"),
            Self::Json => f.write_str("JSON"),
            Self::Nested(text) | Self::Opaque(text) => f.write_str(text),
        }
    }
}
