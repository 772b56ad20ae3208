//! Asks both sides what the plan needs to know: catalogues, key bounds, sizes, and whether loading would work at all.
//! Changes nothing: the transactions it begins are rolled back at once, and their labels belong to no task. What the
//! answers mean is decided in [`crate::plan`].

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use starlift_common::datasource::Datasource;
use starlift_common::job::SourceKind;
use starlift_common::nearest::did_you_mean;
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{table_name, text_literal};
use starlift_remote::mysql::{SessionSettings, connect, explain};
use starlift_remote::rows::{Named, texts};
use tracing::{debug, warn};

use crate::columns::{Column, Kind, mysql_bytes, mysql_kind, starrocks_bytes, starrocks_kind};

mod compression;
mod expression;
mod keys;
mod lengths;
pub(crate) mod listing;
mod source;
mod target;

pub(crate) use compression::compression;
pub(crate) use lengths::lengths;
pub(crate) use source::source;
pub(crate) use target::target;

/// A query connection, and how to speak about it.
struct Asker<'a> {
    conn: Conn,
    datasource: &'a Datasource,
    place: String,
}

impl<'a> Asker<'a> {
    async fn new(
        datasource: &'a Datasource,
        time_zone: Option<&str>,
        place: String,
    ) -> Result<Self, Problem> {
        let conn = connect(datasource, None, SessionSettings { time_zone, long_read: false }).await?;
        Ok(Self { conn, datasource, place })
    }

    /// All rows as text; NULL is `None`.
    async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Problem> {
        let rows: Vec<Row> = self.ask(sql).await?;
        Ok(rows.into_iter().map(texts).collect())
    }

    /// All rows as pairs of lower-case column name and text.
    async fn named_rows(&mut self, sql: &str) -> Result<Vec<Named>, Problem> {
        let rows: Vec<Row> = self.ask(sql).await?;
        Ok(rows.into_iter().map(Named::new).collect())
    }

    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, Problem> {
        debug!(sql, "probing");
        self.conn.query(sql).await.map_err(|error| explain(self.datasource, &self.place, &error))
    }

    async fn close(self) {
        // Everything is known; the server drops the connection in any case.
        let _ = self.conn.disconnect().await;
    }
}

pub(crate) fn database_of(
    named: Option<&str>,
    datasource: &Datasource,
    parameter: &str,
) -> Result<String, Problem> {
    named.or(datasource.database.as_deref()).map(str::to_owned).ok_or_else(|| {
        Problem::new(Code::InvalidSettings, format!("no database for data source {}", datasource.name))
            .hint(format!("set {parameter} in the job, or database in the data source"))
    })
}

/// The columns of a table; all that the catalogue tells, because old versions lack some of it. A table that is not there is told with the names that are.
async fn catalogue(
    asker: &mut Asker<'_>,
    database: &str,
    table: &str,
    system: SourceKind,
) -> Result<Vec<Column>, Problem> {
    let rows = asker
        .named_rows(&format!(
            "SELECT * FROM information_schema.columns WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
            text_literal(database),
            text_literal(table)
        ))
        .await?;
    if rows.is_empty() {
        return Err(unknown_table(asker, database, table).await);
    }
    Ok(rows.iter().map(|row| column(row, system)).collect())
}

fn column(row: &Named, system: SourceKind) -> Column {
    let type_text =
        row.get("column_type").filter(|text| !text.is_empty()).unwrap_or_else(|| row.text("data_type"));
    let (kind, bytes_most) = match system {
        SourceKind::Mysql => {
            let set = row.text("character_set_name");
            let characters = row.number("character_maximum_length");
            let octets = row.number("character_octet_length");
            (mysql_kind(type_text), mysql_bytes(type_text, set, characters, octets))
        }
        SourceKind::Starrocks => (starrocks_kind(type_text), starrocks_bytes(type_text)),
    };
    let extra = row.text("extra").to_ascii_lowercase();
    let computed = extra.contains("virtual") || extra.contains("stored") || extra.contains("persistent");
    Column {
        name: row.text("column_name").to_owned(),
        kind,
        type_text: type_text.to_owned(),
        bytes_most,
        nullable: row.text("is_nullable").eq_ignore_ascii_case("yes"),
        has_default: row.get("column_default").is_some() || extra.contains("auto_increment"),
        generated: computed || !row.text("generation_expression").is_empty(),
        hidden: extra.contains("invisible"),
        is_key: row.text("column_key").eq_ignore_ascii_case("pri"),
        is_primary: row.text("column_key").eq_ignore_ascii_case("pri"),
        is_sorted: !row.text("column_key").is_empty(),
        comment: row.text("column_comment").to_owned(),
    }
}

async fn unknown_table(asker: &mut Asker<'_>, database: &str, table: &str) -> Problem {
    let name = &asker.datasource.name.clone();
    let tables = asker
        .rows(&format!(
            "SELECT TABLE_NAME FROM information_schema.tables WHERE TABLE_SCHEMA = {}",
            text_literal(database)
        ))
        .await
        .unwrap_or_default();
    let tables: Vec<String> = tables.into_iter().filter_map(|mut row| row.pop().flatten()).collect();
    let message = if tables.is_empty() {
        format!("no database {database} in data source {name}, or nothing in it that the account may see")
    } else {
        format!("no table {table} in database {database} of data source {name}")
    };
    Problem::new(Code::UnknownTable, message)
        .at(format!("{database}.{table}"))
        .hint(did_you_mean(table, tables.iter().map(String::as_str)))
}

/// `SHOW FULL COLUMNS` tells types, nullability and defaults that StarRocks' `information_schema` gets wrong up to 3.0.
/// Where it cannot be asked, what is known stays.
async fn refine_starrocks(asker: &mut Asker<'_>, database: &str, table: &str, columns: &mut [Column]) {
    let rows = match asker
        .named_rows(&format!("SHOW FULL COLUMNS FROM {}", table_name(database, table)))
        .await
    {
        Ok(rows) => rows,
        Err(problem) => {
            warn!(error = %problem, "SHOW FULL COLUMNS cannot be asked; nullability is taken from information_schema");
            return;
        }
    };
    for row in &rows {
        let name = row.text("field");
        let Some(column) = columns.iter_mut().find(|column| column.name.eq_ignore_ascii_case(name)) else {
            continue;
        };
        if let Some(type_text) = row.get("type").filter(|text| !text.is_empty()) {
            let kind = starrocks_kind(type_text);
            // `tinyint(1)` may be either spelling of a catalogue that knows BOOLEAN by another name.
            if !matches!(kind, Kind::Refused(_)) || matches!(column.kind, Kind::Refused(_)) {
                column.kind = kind;
                column.bytes_most = starrocks_bytes(type_text).or(column.bytes_most);
                type_text.clone_into(&mut column.type_text);
            }
        }
        column.nullable = row.text("null").eq_ignore_ascii_case("yes");
        let extra = row.text("extra").to_ascii_lowercase();
        let default = row.get("default").filter(|text| !text.eq_ignore_ascii_case("null") || column.nullable);
        column.has_default = default.is_some() || extra.contains("auto_increment");
        column.is_key |= matches!(row.text("key").to_ascii_lowercase().as_str(), "pri" | "true" | "yes");
        column.generated |=
            extra.contains("generated") || extra.contains("virtual") || extra.contains("stored");
    }
}
