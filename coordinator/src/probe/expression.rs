//! What an expression of the reader's list yields, by the metadata of a result: its type is the server's word, so a
//! conversion that the job writes down itself is honoured.

use mysql_async::Column;
use mysql_async::consts::{ColumnFlags, ColumnType};
use starlift_common::job::SourceKind;

use crate::columns::{Kind, Range};
use crate::plan::{Length, Selected};

/// The character set number that MySQL gives to raw bytes.
const BINARY: u16 = 63;
/// Digits of a DECIMAL of StarRocks, which does not tell them in a result.
const STARROCKS_PRECISION: u32 = 38;

/// The expression `sql`, whose result column is `column`.
pub(super) fn selected(sql: &str, column: &Column, source: SourceKind) -> Selected {
    let kind = kind(column, source);
    let is_mysql = source == SourceKind::Mysql;
    // The length of a text is in bytes of the connection's character set, which is UTF-8.
    let length = (is_mysql && kind == Kind::Text).then(|| Length::AtMost(column.column_length().into()));
    Selected {
        sql: sql.to_owned(),
        name: column.name_str().into_owned(),
        kind,
        type_text: format!("{:?}", column.column_type()).trim_start_matches("MYSQL_TYPE_").to_lowercase(),
        length,
        nullable: is_mysql.then(|| !column.flags().contains(ColumnFlags::NOT_NULL_FLAG)),
        is_column: false,
        comment: String::new(),
    }
}

fn kind(column: &Column, source: SourceKind) -> Kind {
    use ColumnType::{
        MYSQL_TYPE_BIT, MYSQL_TYPE_BLOB, MYSQL_TYPE_DATE, MYSQL_TYPE_DATETIME, MYSQL_TYPE_DATETIME2,
        MYSQL_TYPE_DECIMAL, MYSQL_TYPE_DOUBLE, MYSQL_TYPE_FLOAT, MYSQL_TYPE_GEOMETRY, MYSQL_TYPE_INT24,
        MYSQL_TYPE_JSON, MYSQL_TYPE_LONG, MYSQL_TYPE_LONG_BLOB, MYSQL_TYPE_LONGLONG, MYSQL_TYPE_MEDIUM_BLOB,
        MYSQL_TYPE_NEWDATE, MYSQL_TYPE_NEWDECIMAL, MYSQL_TYPE_NULL, MYSQL_TYPE_SHORT, MYSQL_TYPE_STRING,
        MYSQL_TYPE_TIME, MYSQL_TYPE_TIME2, MYSQL_TYPE_TIMESTAMP, MYSQL_TYPE_TIMESTAMP2, MYSQL_TYPE_TINY,
        MYSQL_TYPE_TINY_BLOB, MYSQL_TYPE_VAR_STRING, MYSQL_TYPE_VARCHAR, MYSQL_TYPE_YEAR,
    };
    match column.column_type() {
        MYSQL_TYPE_TINY => integer(column, 8, source),
        MYSQL_TYPE_SHORT => integer(column, 16, source),
        MYSQL_TYPE_INT24 => integer(column, 24, source),
        MYSQL_TYPE_LONG => integer(column, 32, source),
        MYSQL_TYPE_LONGLONG => integer(column, 64, source),
        MYSQL_TYPE_FLOAT if source == SourceKind::Mysql => {
            Kind::Refused("MySQL prints a FLOAT with six digits only; write ({col} * 1e0)".into())
        }
        MYSQL_TYPE_FLOAT => Kind::ShortFloat,
        MYSQL_TYPE_DOUBLE => Kind::Double,
        MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => decimal(column, source),
        MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => Kind::Date,
        MYSQL_TYPE_DATETIME | MYSQL_TYPE_DATETIME2 | MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2 => {
            Kind::DateTime
        }
        MYSQL_TYPE_TIME | MYSQL_TYPE_TIME2 => Kind::Time,
        MYSQL_TYPE_YEAR => Kind::Year,
        MYSQL_TYPE_JSON => Kind::Json,
        MYSQL_TYPE_NULL => Kind::Null,
        MYSQL_TYPE_BIT => Kind::Refused("BIT values arrive as raw bytes; write ({col} + 0)".into()),
        MYSQL_TYPE_GEOMETRY => {
            Kind::Refused("spatial values are not carried; write ST_AsText({col}) or ST_AsWKB({col})".into())
        }
        MYSQL_TYPE_BLOB
        | MYSQL_TYPE_TINY_BLOB
        | MYSQL_TYPE_MEDIUM_BLOB
        | MYSQL_TYPE_LONG_BLOB
        | MYSQL_TYPE_STRING
        | MYSQL_TYPE_VAR_STRING
        | MYSQL_TYPE_VARCHAR
            if source == SourceKind::Mysql && column.character_set() == BINARY =>
        {
            Kind::Binary
        }
        _ => Kind::Text,
    }
}

/// What has one digit is a comparison or another truth value: MySQL tells the digits, and StarRocks gives a BOOLEAN and a
/// TINYINT the same type, so that both are taken for a flag, whose values are looked at.
fn integer(column: &Column, bits: u32, source: SourceKind) -> Kind {
    let flags = column.flags();
    let range =
        if flags.contains(ColumnFlags::UNSIGNED_FLAG) { Range::unsigned(bits) } else { Range::signed(bits) };
    let is_flag = match source {
        SourceKind::Mysql => column.column_length() == 1,
        SourceKind::Starrocks => bits == 8,
    };
    match is_flag {
        _ if flags.contains(ColumnFlags::ZEROFILL_FLAG) => Kind::PaddedInteger(range),
        true => Kind::Flag(range),
        false => Kind::Integer(range),
    }
}

/// MySQL counts the sign and the point into the length.
fn decimal(column: &Column, source: SourceKind) -> Kind {
    let scale = u32::from(column.decimals());
    let sign = u32::from(!column.flags().contains(ColumnFlags::UNSIGNED_FLAG));
    let precision = match source {
        SourceKind::Mysql => column.column_length().saturating_sub(sign + u32::from(scale > 0)).clamp(1, 65),
        SourceKind::Starrocks => STARROCKS_PRECISION,
    };
    Kind::Decimal { precision: precision.max(scale), scale }
}
