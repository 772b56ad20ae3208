//! Columns: what the catalogues of both sides say, and how a column is selected so that no value loses anything on the
//! way. Pure. Which type fits which is decided in [`fit`].

use std::fmt;

use starlift_common::job::SourceKind;
use starlift_common::query::quote;

pub mod fit;

/// What the values of a column are, as far as carrying them goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 0 or 1.
    Boolean,
    /// Meant for truth, and holds any number of its range: MySQL's `tinyint(1)`, and what comparisons yield.
    Flag(Range),
    /// Fits 64 bits, signed or not.
    Integer(Range),
    /// Integers padded with zeros by the server.
    PaddedInteger(Range),
    LargeInt,
    /// Single precision, in text that tells the value exactly.
    Float,
    /// Single precision, in the shortest text that no other single precision number is nearer to.
    ShortFloat,
    Double,
    Decimal {
        precision: u32,
        scale: u32,
    },
    /// So many bits, selected as a number.
    Bits(u32),
    Text,
    /// Text that the server pads with zero bytes: StarRocks' CHAR.
    PaddedText,
    Binary,
    Json,
    Date,
    DateTime,
    Time,
    Year,
    /// ARRAY, MAP or STRUCT whose elements JSON carries exactly, as the catalogue writes it; selected as JSON.
    Nested(String),
    /// The literal NULL.
    Null,
    /// Not carried, and why.
    Refused(String),
}

/// The numbers a column of integers can hold, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    pub min: i128,
    pub max: i128,
}

impl Range {
    pub const LARGEINT: Self = Self { min: i128::MIN, max: i128::MAX };

    /// Of two's complement with so many bits, at most 64.
    pub const fn signed(bits: u32) -> Self {
        let half = 1 << (bits - 1);
        Self { min: -half, max: half - 1 }
    }

    /// Of at most 64 bits.
    pub const fn unsigned(bits: u32) -> Self {
        Self { min: 0, max: (1 << bits) - 1 }
    }

    pub fn holds(self, other: Self) -> bool {
        self.min <= other.min && other.max <= self.max
    }
}

/// A column as a catalogue describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    /// The type as the server writes it, for messages.
    pub type_text: String,
    /// Of the longest value in UTF-8, in bytes; `None`: not a text, or not told.
    pub bytes_most: Option<u64>,
    pub nullable: bool,
    /// Filled by the server when a load leaves it out.
    pub has_default: bool,
    /// Computed by the server; cannot be written.
    pub generated: bool,
    /// `SELECT *` leaves it out.
    pub hidden: bool,
    /// Part of the table's key.
    pub is_key: bool,
    /// Part of the key that no two rows share.
    pub is_primary: bool,
    /// An index or the sort order begins with it, so that a range of it is found without reading the whole table.
    pub is_sorted: bool,
    pub comment: String,
}

/// The column of that name, without regard to case.
pub fn find<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    let exact = columns.iter().find(|column| column.name == name);
    exact.or_else(|| columns.iter().find(|column| column.name.to_lowercase() == name.to_lowercase()))
}

/// Reads a type of MySQL or MariaDB as `information_schema.columns.COLUMN_TYPE` writes it.
pub fn mysql_kind(type_text: &str) -> Kind {
    let text = type_text.to_ascii_lowercase();
    let base = base(&text);
    if let Some(bits) = mysql_integer_bits(base) {
        let is_unsigned = text.contains("unsigned") || text.contains("zerofill");
        let range = if is_unsigned { Range::unsigned(bits) } else { Range::signed(bits) };
        return match base {
            _ if text.contains("zerofill") => Kind::PaddedInteger(range),
            // What BOOL is in MySQL; other widths are for display only.
            "tinyint" if text.starts_with("tinyint(1)") => Kind::Flag(range),
            _ => Kind::Integer(range),
        };
    }
    match base {
        "float" => Kind::Float,
        "double" | "real" => Kind::Double,
        "decimal" | "numeric" | "dec" | "fixed" => decimal(&text),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" | "uuid"
        | "inet4" | "inet6" => Kind::Text,
        "json" => Kind::Json,
        "date" => Kind::Date,
        "datetime" | "timestamp" => Kind::DateTime,
        "time" => Kind::Time,
        "year" => Kind::Year,
        "bit" => Kind::Bits(arguments(&text).next().unwrap_or(1)),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Binary,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" => Kind::Refused(
            "spatial values are not carried; write ST_AsText({col}) or ST_AsWKB({col}) in the reader's column list"
                .into(),
        ),
        other => Kind::Refused(format!(
            "type {other} is not known; convert it to text in the reader's column list"
        )),
    }
}

fn mysql_integer_bits(base: &str) -> Option<u32> {
    Some(match base {
        "tinyint" => 8,
        "smallint" => 16,
        "mediumint" => 24,
        "int" | "integer" => 32,
        "bigint" => 64,
        _ => return None,
    })
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
        "tinyint" => Kind::Integer(Range::signed(8)),
        "smallint" => Kind::Integer(Range::signed(16)),
        "int" | "integer" => Kind::Integer(Range::signed(32)),
        "bigint" => Kind::Integer(Range::signed(64)),
        "float" => Kind::Float,
        "double" => Kind::Double,
        "decimal" | "decimalv2" | "decimalv3" | "decimal32" | "decimal64" | "decimal128" | "decimal256" => {
            decimal(&text)
        }
        "varchar" | "string" | "text" => Kind::Text,
        "char" => Kind::PaddedText,
        "json" => Kind::Json,
        "date" => Kind::Date,
        "datetime" => Kind::DateTime,
        "binary" | "varbinary" => Kind::Binary,
        "bitmap" => Kind::Refused(
            "BITMAP is not carried as a plain column; read bitmap_to_string({col}), and load with \
             loadProps columns = ..., target=bitmap_from_string(field)"
                .into(),
        ),
        "hll" => Kind::Refused(
            "HLL is not carried as a plain column; read hll_cardinality({col}), or rebuild it with loadProps \
             columns = ..., target=hll_hash(field)"
                .into(),
        ),
        "percentile" => Kind::Refused(
            "PERCENTILE is not carried as a plain column; rebuild it with loadProps columns = ..., \
             target=percentile_hash(field)"
                .into(),
        ),
        "array" | "map" | "struct" => nested(&text),
        other => Kind::Refused(format!("type {other} is not known; convert it to text")),
    }
}

/// JSON carries these element types exactly; decimals and LARGEINT would pass through a double in it.
const NESTED_WORDS: &[&str] = &[
    "array", "map", "struct", "boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "char",
    "varchar", "string", "date", "datetime", "json",
];

fn nested(text: &str) -> Kind {
    // A field of a STRUCT stands before its type.
    let words = text.split([',', '<', '>']).map(|part| {
        let part = part.trim();
        part.rsplit([' ', ':']).next().unwrap_or(part)
    });
    let mut types = words
        .map(base)
        .filter(|word| !word.is_empty() && !word.starts_with(|letter: char| letter.is_ascii_digit()));
    match types.find(|word| !NESTED_WORDS.contains(word)) {
        None => Kind::Nested(text.split_whitespace().collect()),
        Some(word) => Kind::Refused(format!(
            "elements of type {} would lose digits or be lost in JSON, which carries nested values; convert it in \
             the reader's column list",
            word.to_ascii_uppercase()
        )),
    }
}

/// The type's name without length, sign or element types.
pub(crate) fn base(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(text.len());
    &text[..end]
}

/// `decimal(p, s)`; without them it is (10, 0), as both servers have it.
fn decimal(text: &str) -> Kind {
    let mut numbers = arguments(text);
    if text == "decimalv2" {
        return Kind::Decimal { precision: 27, scale: 9 };
    }
    Kind::Decimal { precision: numbers.next().unwrap_or(10), scale: numbers.next().unwrap_or(0) }
}

/// The numbers in the first parentheses.
fn arguments(text: &str) -> impl Iterator<Item = u32> {
    let inside = text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    inside.unwrap_or_default().split(',').map_while(|number| number.trim().parse().ok())
}

/// StarRocks' STRING is its longest VARCHAR, which differs from version to version; this is the least.
const STRING_BYTES: u64 = 65_533;

/// Bytes that a text column of StarRocks takes; `None`: no text. A STRING takes at least so many.
pub fn starrocks_bytes(type_text: &str) -> Option<u64> {
    let text = type_text.to_ascii_lowercase();
    match base(&text) {
        "varchar" | "char" => arguments(&text).next().map(u64::from),
        "string" | "text" => Some(STRING_BYTES),
        _ => None,
    }
}

/// Bytes in UTF-8 of a MySQL column's longest value. `characters` and `octets` are as the catalogue tells them, in the
/// column's own character set.
pub fn mysql_bytes(
    type_text: &str,
    character_set: &str,
    characters: Option<u64>,
    octets: Option<u64>,
) -> Option<u64> {
    let text = type_text.to_ascii_lowercase();
    let set = character_set.to_ascii_lowercase();
    match base(&text) {
        "char" | "varchar" | "enum" | "set" => {
            // The euro sign of latin1 has three bytes in UTF-8.
            let each = match set.as_str() {
                "ascii" => 1,
                "latin1" | "utf8" | "utf8mb3" | "ucs2" => 3,
                _ => 4,
            };
            characters.map(|count| count.saturating_mul(each))
        }
        "tinytext" | "text" | "mediumtext" | "longtext" => {
            let each = match set.as_str() {
                "ascii" | "utf8" | "utf8mb3" | "utf8mb4" => 1,
                _ => 3,
            };
            octets.map(|count| count.saturating_mul(each))
        }
        "uuid" => Some(36),
        "inet4" => Some(15),
        "inet6" => Some(45),
        _ => None,
    }
}

/// SQL text that selects the column so that its text tells every value exactly.
pub fn select_text(system: SourceKind, column: &Column) -> String {
    let name = quote(&column.name);
    match (system, &column.kind) {
        // MySQL prints a FLOAT with six digits; as a DOUBLE it prints all that the value has. StarRocks prints what
        // tells it from other FLOATs, which as a DOUBLE is another value.
        (SourceKind::Mysql, Kind::Float) => format!("({name} * 1e0)"),
        (SourceKind::Starrocks, Kind::Float) => format!("CAST({name} AS DOUBLE)"),
        // Otherwise it comes as raw bytes.
        (SourceKind::Mysql, Kind::Bits(_)) => format!("({name} + 0)"),
        (SourceKind::Starrocks, Kind::Nested(text)) if text.starts_with("array") => {
            format!("CAST({name} AS JSON)")
        }
        (SourceKind::Starrocks, Kind::Nested(_)) => format!("to_json({name})"),
        _ => name,
    }
}

impl Kind {
    pub fn is_integer(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::PaddedInteger(_) | Self::LargeInt)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}..{}", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_mysql_are_read() {
        assert_eq!(mysql_kind("bigint(20) unsigned"), Kind::Integer(Range::unsigned(64)));
        assert_eq!(mysql_kind("mediumint(9)"), Kind::Integer(Range { min: -8_388_608, max: 8_388_607 }));
        assert_eq!(mysql_kind("int(5) unsigned zerofill"), Kind::PaddedInteger(Range::unsigned(32)));
        assert_eq!(mysql_kind("tinyint(1)"), Kind::Flag(Range { min: -128, max: 127 }));
        assert_eq!(mysql_kind("tinyint(4)"), Kind::Integer(Range::signed(8)));
        assert_eq!(mysql_kind("DECIMAL(10,2)"), Kind::Decimal { precision: 10, scale: 2 });
        assert_eq!(mysql_kind("enum('a','b')"), Kind::Text);
        assert_eq!(mysql_kind("datetime(6)"), Kind::DateTime);
        assert_eq!((mysql_kind("bit(8)"), mysql_kind("bit")), (Kind::Bits(8), Kind::Bits(1)));
        assert_eq!((mysql_kind("varbinary(16)"), mysql_kind("longblob")), (Kind::Binary, Kind::Binary));
        for refused in ["point", "vector(3)"] {
            assert!(matches!(mysql_kind(refused), Kind::Refused(_)), "{refused}");
        }
    }

    #[test]
    fn types_of_starrocks_are_read_in_both_spellings() {
        assert_eq!(starrocks_kind("tinyint(1)"), Kind::Boolean);
        assert_eq!(starrocks_kind("tinyint(4)"), Kind::Integer(Range::signed(8)));
        assert_eq!(starrocks_kind("bigint(20) unsigned"), Kind::LargeInt);
        assert_eq!(starrocks_kind("largeint(40)"), Kind::LargeInt);
        assert_eq!(starrocks_kind("decimal(9, 2)"), Kind::Decimal { precision: 9, scale: 2 });
        assert_eq!(starrocks_kind("DECIMAL64(18,4)"), Kind::Decimal { precision: 18, scale: 4 });
        assert_eq!(starrocks_kind("decimalv2"), Kind::Decimal { precision: 27, scale: 9 });
        assert_eq!((starrocks_kind("char(5)"), starrocks_kind("string")), (Kind::PaddedText, Kind::Text));
        assert_eq!(starrocks_kind("varbinary(20)"), Kind::Binary);
        for refused in ["bitmap", "hll", "percentile", "unknown"] {
            assert!(matches!(starrocks_kind(refused), Kind::Refused(_)), "{refused}");
        }
    }

    #[test]
    fn nested_types_are_carried_when_json_carries_their_elements() {
        assert_eq!(starrocks_kind("array<int(11)>"), Kind::Nested("array<int(11)>".into()));
        assert_eq!(
            starrocks_kind("MAP<VARCHAR(20), ARRAY<BIGINT>>"),
            Kind::Nested("map<varchar(20),array<bigint>>".into())
        );
        assert!(matches!(starrocks_kind("struct<a int(11), b varchar(5)>"), Kind::Nested(_)));
        for refused in ["array<decimal(9, 2)>", "array<largeint(40)>", "struct<a int, b varbinary>"] {
            assert!(matches!(starrocks_kind(refused), Kind::Refused(_)), "{refused}");
        }
    }

    #[test]
    fn lengths_are_bytes_in_utf8() {
        assert_eq!(mysql_bytes("varchar(50)", "utf8mb4", Some(50), Some(200)), Some(200));
        assert_eq!(mysql_bytes("varchar(50)", "latin1", Some(50), Some(50)), Some(150));
        assert_eq!(mysql_bytes("text", "utf8mb4", Some(65_535), Some(65_535)), Some(65_535));
        assert_eq!(mysql_bytes("text", "latin1", Some(65_535), Some(65_535)), Some(196_605));
        assert_eq!(mysql_bytes("uuid", "", None, None), Some(36));
        assert_eq!(mysql_bytes("int(11)", "", None, None), None);
        assert_eq!((starrocks_bytes("varchar(20)"), starrocks_bytes("int(11)")), (Some(20), None));
    }
}
