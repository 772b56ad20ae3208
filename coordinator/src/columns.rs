//! Columns: what the catalogues say, what the job lists, and whether each value arrives as it left. Pure. A pair of types
//! that cannot be carried faithfully is refused here, before anything is changed; one that may lose something is told.

use starlift_common::job::CellKind;

/// What the values of a column are, as far as carrying them goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    Boolean,
    /// Fits 64 bits, signed or not.
    Integer,
    /// Integers padded with zeros by the server.
    PaddedInteger,
    LargeInt,
    Float,
    Double,
    Decimal {
        scale: u32,
    },
    Text,
    Json,
    Date,
    DateTime,
    Time,
    Year,
    /// The literal NULL.
    Null,
    /// Not carried, and why.
    Refused(String),
}

/// A column as a catalogue describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    /// The type as the server writes it, for messages.
    pub type_text: String,
    pub nullable: bool,
    /// Filled by the server when a load leaves it out.
    pub has_default: bool,
    /// Computed by the server; cannot be written.
    pub generated: bool,
    /// `SELECT *` leaves it out.
    pub hidden: bool,
    /// Part of the table's key.
    pub is_key: bool,
    /// An index or the sort order begins with it, so that a range of it is found without reading the whole table.
    pub is_sorted: bool,
}

/// The column of that name, without regard to case.
pub fn find<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    let exact = columns.iter().find(|column| column.name == name);
    exact.or_else(|| columns.iter().find(|column| column.name.to_lowercase() == name.to_lowercase()))
}

/// Reads a type of MySQL or MariaDB as `information_schema.columns.COLUMN_TYPE` writes it.
pub fn mysql_kind(type_text: &str) -> Kind {
    let text = type_text.to_ascii_lowercase();
    match base(&text) {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" if text.contains("zerofill") => {
            Kind::PaddedInteger
        }
        // What BOOL is in MySQL; other widths are for display only.
        "tinyint" if text.starts_with("tinyint(1)") => Kind::Boolean,
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" => Kind::Integer,
        "float" => Kind::Float,
        "double" | "real" => Kind::Double,
        "decimal" | "numeric" | "dec" | "fixed" => Kind::Decimal { scale: scale(&text) },
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" | "uuid"
        | "inet4" | "inet6" => Kind::Text,
        "json" => Kind::Json,
        "date" => Kind::Date,
        "datetime" | "timestamp" => Kind::DateTime,
        "time" => Kind::Time,
        "year" => Kind::Year,
        "bit" => Kind::Refused(
            "BIT values arrive as raw bytes; write `(col + 0)` in the reader's column list".into(),
        ),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Refused(
            "binary values are not carried yet; write `hex(col)` in the reader's column list".into(),
        ),
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" => Kind::Refused(
            "spatial values are not carried; write `st_astext(col)` in the reader's column list".into(),
        ),
        other => Kind::Refused(format!(
            "type {other} is not known; convert it to text in the reader's column list"
        )),
    }
}

/// Reads a type of StarRocks as `SHOW FULL COLUMNS` or `information_schema.columns.COLUMN_TYPE` writes it.
pub fn starrocks_kind(type_text: &str) -> Kind {
    let text = type_text.to_ascii_lowercase();
    match base(&text) {
        "boolean" | "bool" => Kind::Boolean,
        // The catalogue writes BOOLEAN and LARGEINT with names of MySQL.
        "tinyint" if text.starts_with("tinyint(1)") => Kind::Boolean,
        "bigint" if text.contains("unsigned") => Kind::LargeInt,
        "largeint" => Kind::LargeInt,
        "tinyint" | "smallint" | "int" | "integer" | "bigint" => Kind::Integer,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "decimal" | "decimalv2" | "decimalv3" | "decimal32" | "decimal64" | "decimal128" | "decimal256" => {
            Kind::Decimal { scale: scale(&text) }
        }
        "char" | "varchar" | "string" | "text" => Kind::Text,
        "json" => Kind::Json,
        "date" => Kind::Date,
        "datetime" => Kind::DateTime,
        "bitmap" => {
            Kind::Refused("BITMAP is not carried as a plain column; use bitmap_to_string(col)".into())
        }
        "hll" => Kind::Refused("HLL is not carried as a plain column; use hll_cardinality(col)".into()),
        "percentile" => Kind::Refused("PERCENTILE is not carried as a plain column".into()),
        "binary" | "varbinary" => {
            Kind::Refused("binary values are not carried yet; use to_base64(col)".into())
        }
        "array" | "map" | "struct" => Kind::Refused(
            "ARRAY, MAP and STRUCT are not carried yet; use to_json(col) and a JSON column".into(),
        ),
        other => Kind::Refused(format!("type {other} is not known; convert it to text")),
    }
}

/// The type's name without length, sign or element types.
fn base(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(text.len());
    &text[..end]
}

/// The second number in `decimal(p, s)`; without any it is 0, as both servers have it.
fn scale(text: &str) -> u32 {
    let inside = text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    inside
        .and_then(|inside| inside.split_once(','))
        .and_then(|(_, scale)| scale.trim().parse().ok())
        .unwrap_or(0)
}

impl Kind {
    pub fn is_integer(&self) -> bool {
        matches!(self, Self::Integer | Self::PaddedInteger | Self::LargeInt)
    }

    fn is_number(&self) -> bool {
        self.is_integer() || matches!(self, Self::Boolean | Self::Float | Self::Double | Self::Decimal { .. })
    }
}

/// How a pair of types goes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Every value arrives as it left, or StarRocks refuses its row.
    Faithful,
    /// StarRocks changes some values without a word; what it does with them.
    Lossy(&'static str),
    /// No value can be loaded; why.
    Impossible(String),
}

/// How values of `source` fit a column of `target`, in strict mode.
pub fn fit(source: &Kind, target: &Kind) -> Fit {
    use Kind::{Boolean, Date, DateTime, Decimal, Double, Float, Json, Null, Refused, Text, Time, Year};
    match (source, target) {
        (Refused(reason), _) | (_, Refused(reason)) => Fit::Impossible(reason.clone()),
        (Null, _) | (_, Text) => Fit::Faithful,
        (Date | DateTime | Time | Json, number) if number.is_number() => impossible(),
        (Time, _) => impossible(),
        (Json, Json) | (Text, Json) => Fit::Faithful,
        (number, Json) if number.is_number() => Fit::Faithful,
        (_, Json) | (Json, _) => impossible(),
        (Boolean | Float | Double | Year | Decimal { .. }, Date | DateTime) => impossible(),
        (DateTime, Date) => Fit::Lossy("the time of day is dropped"),
        (Decimal { scale: 1.. } | Float | Double | Text, integer) if integer.is_integer() => {
            Fit::Lossy("digits behind the point are cut off")
        }
        (Decimal { scale: from }, Decimal { scale: to }) if from > to => {
            Fit::Lossy("digits behind the point are rounded")
        }
        (Float | Double, Decimal { .. }) => Fit::Lossy("digits behind the point are rounded"),
        (Double | Decimal { .. }, Float) => Fit::Lossy("the value is rounded to single precision"),
        (Decimal { .. }, Double) => Fit::Lossy("the value is rounded to double precision"),
        (number, Boolean) if number.is_number() && *number != Boolean => {
            Fit::Lossy("every number other than 0 becomes true")
        }
        _ => Fit::Faithful,
    }
}

fn impossible() -> Fit {
    Fit::Impossible("no value of the one type is one of the other".into())
}

/// How JSON bodies render the cells of a pair. Decimals and LARGEINT travel as strings, which StarRocks reads digit by
/// digit; as JSON numbers they would pass through a double.
pub fn cell_kind(source: &Kind, target: &Kind) -> CellKind {
    match (source, target) {
        (_, Kind::Json) => CellKind::Json,
        (Kind::Integer | Kind::Boolean, Kind::Integer | Kind::Boolean) => CellKind::Number,
        (Kind::Integer | Kind::Float | Kind::Double, Kind::Float | Kind::Double) => CellKind::Number,
        _ => CellKind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_mysql_are_read() {
        assert_eq!(mysql_kind("bigint(20) unsigned"), Kind::Integer);
        assert_eq!(mysql_kind("int(5) unsigned zerofill"), Kind::PaddedInteger);
        assert_eq!(mysql_kind("tinyint(1)"), Kind::Boolean);
        assert_eq!(mysql_kind("tinyint(4)"), Kind::Integer);
        assert_eq!(mysql_kind("DECIMAL(10,2)"), Kind::Decimal { scale: 2 });
        assert_eq!(mysql_kind("enum('a','b')"), Kind::Text);
        assert_eq!(mysql_kind("datetime(6)"), Kind::DateTime);
        for refused in ["bit(8)", "varbinary(16)", "longblob", "point", "vector(3)"] {
            assert!(matches!(mysql_kind(refused), Kind::Refused(_)), "{refused}");
        }
    }

    #[test]
    fn types_of_starrocks_are_read_in_both_spellings() {
        assert_eq!(starrocks_kind("tinyint(1)"), Kind::Boolean);
        assert_eq!(starrocks_kind("tinyint(4)"), Kind::Integer);
        assert_eq!(starrocks_kind("bigint(20) unsigned"), Kind::LargeInt);
        assert_eq!(starrocks_kind("largeint(40)"), Kind::LargeInt);
        assert_eq!(starrocks_kind("decimal(9, 2)"), Kind::Decimal { scale: 2 });
        assert_eq!(starrocks_kind("DECIMAL64(18,4)"), Kind::Decimal { scale: 4 });
        for refused in ["bitmap", "hll", "array<int(11)>", "varbinary(20)", "unknown"] {
            assert!(matches!(starrocks_kind(refused), Kind::Refused(_)), "{refused}");
        }
    }

    #[test]
    fn what_would_change_a_value_silently_is_told() {
        assert!(matches!(fit(&Kind::DateTime, &Kind::Date), Fit::Lossy(_)));
        assert!(matches!(fit(&Kind::Decimal { scale: 4 }, &Kind::Decimal { scale: 2 }), Fit::Lossy(_)));
        assert!(matches!(fit(&Kind::Double, &Kind::Integer), Fit::Lossy(_)));
        assert_eq!(fit(&Kind::Integer, &Kind::Decimal { scale: 0 }), Fit::Faithful);
        assert_eq!(fit(&Kind::Float, &Kind::Float), Fit::Faithful);
    }

    #[test]
    fn what_cannot_be_loaded_is_refused() {
        assert!(matches!(fit(&Kind::Date, &Kind::Integer), Fit::Impossible(_)));
        assert!(matches!(fit(&Kind::Refused("why".into()), &Kind::Text), Fit::Impossible(_)));
        assert_eq!(fit(&Kind::Time, &Kind::Text), Fit::Faithful);
    }

    #[test]
    fn numbers_that_json_would_damage_travel_as_text() {
        assert_eq!(cell_kind(&Kind::Integer, &Kind::Integer), CellKind::Number);
        assert_eq!(cell_kind(&Kind::PaddedInteger, &Kind::Integer), CellKind::Text);
        assert_eq!(cell_kind(&Kind::Integer, &Kind::LargeInt), CellKind::Text);
        assert_eq!(cell_kind(&Kind::Decimal { scale: 2 }, &Kind::Decimal { scale: 2 }), CellKind::Text);
        assert_eq!(cell_kind(&Kind::Text, &Kind::Json), CellKind::Json);
        assert_eq!(cell_kind(&Kind::Text, &Kind::Integer), CellKind::Text);
    }
}
