//! What a column is and what the store keeps for a value. Pure; the way in is `convert.rs`, the way out `render.rs`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::convert::{ConvertError, convert};

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
    /// Aggregation of a value column of an aggregate table, as written (`SUM`, `REPLACE`).
    pub aggregation: Option<String>,
}

impl Column {
    /// A nullable value column without default.
    pub fn new(name: impl Into<String>, kind: ColumnType) -> Self {
        Self {
            name: name.into(),
            kind,
            nullable: true,
            default: None,
            key: false,
            comment: String::new(),
            aggregation: None,
        }
    }
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
    Decimal {
        precision: u8,
        scale: u8,
    },
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

/// What `STRING` stands for: the longest VARCHAR.
pub const STRING_BYTES_MAX: u32 = 1_048_576;

/// A value as the store binds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored<'a> {
    Null,
    Int(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(Cow<'a, [u8]>),
}

/// How SQLite keeps a type, which decides how it compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Int,
    Real,
    /// Compared by bytes; the fixed layouts of dates compare rightly so.
    Text,
    /// Numbers beyond SQLite's: text compared by value, under a collation.
    Numeric,
    Blob,
}

impl ColumnType {
    pub(crate) fn storage(&self) -> Storage {
        match self {
            Self::Boolean | Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt => Storage::Int,
            Self::Float | Self::Double => Storage::Real,
            Self::LargeInt | Self::Decimal { .. } => Storage::Numeric,
            Self::Varbinary => Storage::Blob,
            Self::Date
            | Self::DateTime
            | Self::Char(_)
            | Self::Varchar(_)
            | Self::Json
            | Self::Nested(_)
            | Self::Opaque(_) => Storage::Text,
        }
    }

    /// Reads a type as DDL writes it, or `None` for an unknown one. `name` is the bare word, `args` the numbers in parentheses.
    pub(crate) fn from_words(name: &str, args: &[u32]) -> Option<Self> {
        let decimal = |widest: u8| {
            let precision = args.first().map_or(Some(widest.min(10)), |&p| u8::try_from(p).ok())?;
            let scale = args.get(1).map_or(Some(0), |&s| u8::try_from(s).ok())?;
            (precision >= 1 && precision <= widest && scale <= precision)
                .then_some(Self::Decimal { precision, scale })
        };
        Some(match name.to_ascii_uppercase().as_str() {
            "BOOLEAN" | "BOOL" => Self::Boolean,
            "TINYINT" => Self::TinyInt,
            "SMALLINT" => Self::SmallInt,
            "INT" | "INTEGER" => Self::Int,
            "BIGINT" => Self::BigInt,
            "LARGEINT" => Self::LargeInt,
            "FLOAT" => Self::Float,
            "DOUBLE" => Self::Double,
            "DECIMAL" | "NUMERIC" | "NUMBER" => decimal(38)?,
            "DECIMALV2" if args.is_empty() => Self::Decimal { precision: 27, scale: 9 },
            "DECIMALV2" => decimal(27)?,
            "DECIMAL32" => decimal(9)?,
            "DECIMAL64" => decimal(18)?,
            "DECIMAL128" => decimal(38)?,
            "DATE" => Self::Date,
            "DATETIME" => Self::DateTime,
            "CHAR" => Self::Char(args.first().copied().unwrap_or(1)),
            "VARCHAR" => Self::Varchar(args.first().copied().unwrap_or(STRING_BYTES_MAX)),
            "STRING" | "TEXT" => Self::Varchar(STRING_BYTES_MAX),
            "VARBINARY" | "BINARY" => Self::Varbinary,
            "JSON" => Self::Json,
            word @ ("BITMAP" | "HLL" | "PERCENTILE") => Self::Opaque(word.to_owned()),
            _ => return None,
        })
    }
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

impl Stored<'_> {
    /// The same value, owning its bytes.
    pub fn into_owned(self) -> Stored<'static> {
        match self {
            Self::Null => Stored::Null,
            Self::Int(value) => Stored::Int(value),
            Self::Real(value) => Stored::Real(value),
            Self::Text(text) => Stored::Text(Cow::Owned(text.into_owned())),
            Self::Blob(bytes) => Stored::Blob(Cow::Owned(bytes.into_owned())),
        }
    }
}
