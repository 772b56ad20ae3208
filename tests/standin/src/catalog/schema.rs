//! The tables of `information_schema`: temporary tables of SQLite, filled from the catalogue on the connection that is
//! about to read them, so that any SELECT works on them.

use std::sync::Arc;

use rusqlite::Connection;

use super::{Rows, cluster, moment, partition_name, yes};
use crate::sql::ddl::{all_properties, names};
use crate::sql::{Server, Session, SqlError};
use crate::store::{Model, Table};
use crate::types::{Column, ColumnType};

/// A table of `information_schema`: its columns with their declared types, and what fills it.
struct SchemaTable {
    name: &'static str,
    /// Its temporary table.
    view: &'static str,
    columns: &'static [(&'static str, Kind)],
    fill: fn(&Server, &Session) -> Result<Rows, SqlError>,
}

/// Declared types, from which results take theirs.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Moment,
}

impl Kind {
    fn declared(self) -> &'static str {
        match self {
            Self::Text => "TEXT_VARCHAR(65533)",
            Self::Number => "INT_BIGINT",
            Self::Moment => "TEXT_DATETIME",
        }
    }
}

use Kind::{Moment, Number, Text};

/// The temporary table behind a table of `information_schema`.
pub(crate) fn table_behind(name: &str) -> Option<&'static str> {
    SCHEMA_TABLES.iter().find(|table| table.name.eq_ignore_ascii_case(name)).map(|table| table.view)
}

/// Names of all tables.
pub(super) fn table_names() -> Vec<String> {
    SCHEMA_TABLES.iter().map(|table| table.name.to_owned()).collect()
}

/// Makes the temporary table `view` on this connection tell the present.
pub(crate) fn fill(
    server: &Server,
    session: &Session,
    connection: &Connection,
    view: &str,
) -> Result<(), SqlError> {
    let Some(table) = SCHEMA_TABLES.iter().find(|table| table.view == view) else { return Ok(()) };
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|(name, kind)| format!("{name} \"{}\" COLLATE NOCASE", kind.declared()))
        .collect();
    connection.execute_batch(&format!(
        "CREATE TEMP TABLE IF NOT EXISTS {view}({}); DELETE FROM temp.{view};",
        columns.join(", ")
    ))?;
    let marks = vec!["?"; table.columns.len()].join(", ");
    let mut insert = connection.prepare(&format!("INSERT INTO temp.{view} VALUES({marks})"))?;
    for row in (table.fill)(server, session)? {
        insert.execute(rusqlite::params_from_iter(row))?;
    }
    Ok(())
}

const SCHEMA_TABLES: &[SchemaTable] = &[
    SchemaTable {
        name: "columns",
        view: "is_columns",
        columns: &[
            ("TABLE_CATALOG", Text),
            ("TABLE_SCHEMA", Text),
            ("TABLE_NAME", Text),
            ("COLUMN_NAME", Text),
            ("ORDINAL_POSITION", Number),
            ("COLUMN_DEFAULT", Text),
            ("IS_NULLABLE", Text),
            ("DATA_TYPE", Text),
            ("CHARACTER_MAXIMUM_LENGTH", Number),
            ("CHARACTER_OCTET_LENGTH", Number),
            ("NUMERIC_PRECISION", Number),
            ("NUMERIC_SCALE", Number),
            ("DATETIME_PRECISION", Number),
            ("CHARACTER_SET_NAME", Text),
            ("COLLATION_NAME", Text),
            ("COLUMN_TYPE", Text),
            ("COLUMN_KEY", Text),
            ("EXTRA", Text),
            ("PRIVILEGES", Text),
            ("COLUMN_COMMENT", Text),
            ("COLUMN_SIZE", Number),
            ("DECIMAL_DIGITS", Number),
            ("GENERATION_EXPRESSION", Text),
            ("SRS_ID", Number),
        ],
        fill: columns_rows,
    },
    SchemaTable {
        name: "tables",
        view: "is_tables",
        columns: &[
            ("TABLE_CATALOG", Text),
            ("TABLE_SCHEMA", Text),
            ("TABLE_NAME", Text),
            ("TABLE_TYPE", Text),
            ("ENGINE", Text),
            ("VERSION", Number),
            ("ROW_FORMAT", Text),
            ("TABLE_ROWS", Number),
            ("AVG_ROW_LENGTH", Number),
            ("DATA_LENGTH", Number),
            ("MAX_DATA_LENGTH", Number),
            ("INDEX_LENGTH", Number),
            ("DATA_FREE", Number),
            ("AUTO_INCREMENT", Number),
            ("CREATE_TIME", Moment),
            ("UPDATE_TIME", Moment),
            ("CHECK_TIME", Moment),
            ("TABLE_COLLATION", Text),
            ("CHECKSUM", Number),
            ("CREATE_OPTIONS", Text),
            ("TABLE_COMMENT", Text),
        ],
        fill: tables_rows,
    },
    SchemaTable {
        name: "tables_config",
        view: "is_tables_config",
        columns: &[
            ("TABLE_SCHEMA", Text),
            ("TABLE_NAME", Text),
            ("TABLE_ENGINE", Text),
            ("TABLE_MODEL", Text),
            ("PRIMARY_KEY", Text),
            ("PARTITION_KEY", Text),
            ("DISTRIBUTE_KEY", Text),
            ("DISTRIBUTE_TYPE", Text),
            ("DISTRIBUTE_BUCKET", Number),
            ("SORT_KEY", Text),
            ("PROPERTIES", Text),
            ("TABLE_ID", Number),
        ],
        fill: tables_config_rows,
    },
    SchemaTable {
        name: "partitions_meta",
        view: "is_partitions_meta",
        columns: &[
            ("DB_NAME", Text),
            ("TABLE_NAME", Text),
            ("PARTITION_NAME", Text),
            ("PARTITION_ID", Number),
            ("COMPACT_VERSION", Number),
            ("VISIBLE_VERSION", Number),
            ("VISIBLE_VERSION_TIME", Moment),
            ("NEXT_VERSION", Number),
            ("PARTITION_KEY", Text),
            ("PARTITION_VALUE", Text),
            ("DISTRIBUTION_KEY", Text),
            ("BUCKETS", Number),
            ("REPLICATION_NUM", Number),
            ("DATA_SIZE", Text),
            ("ROW_COUNT", Number),
        ],
        fill: partitions_rows,
    },
    SchemaTable {
        name: "schemata",
        view: "is_schemata",
        columns: &[
            ("CATALOG_NAME", Text),
            ("SCHEMA_NAME", Text),
            ("DEFAULT_CHARACTER_SET_NAME", Text),
            ("DEFAULT_COLLATION_NAME", Text),
            ("SQL_PATH", Text),
        ],
        fill: schemata_rows,
    },
    SchemaTable {
        name: "loads",
        view: "is_loads",
        columns: &[
            ("ID", Number),
            ("LABEL", Text),
            ("PROFILE_ID", Text),
            ("DB_NAME", Text),
            ("TABLE_NAME", Text),
            ("USER", Text),
            ("WAREHOUSE", Text),
            ("STATE", Text),
            ("PROGRESS", Text),
            ("TYPE", Text),
            ("PRIORITY", Text),
            ("SCAN_ROWS", Number),
            ("SCAN_BYTES", Number),
            ("FILTERED_ROWS", Number),
            ("UNSELECTED_ROWS", Number),
            ("SINK_ROWS", Number),
            ("RUNTIME_DETAILS", Text),
            ("CREATE_TIME", Moment),
            ("LOAD_START_TIME", Moment),
            ("LOAD_COMMIT_TIME", Moment),
            ("LOAD_FINISH_TIME", Moment),
            ("PROPERTIES", Text),
            ("ERROR_MSG", Text),
            ("TRACKING_SQL", Text),
            ("REJECTED_RECORD_PATH", Text),
        ],
        fill: loads_rows,
    },
    SchemaTable {
        name: "session_variables",
        view: "is_session_variables",
        columns: &[("VARIABLE_NAME", Text), ("VARIABLE_VALUE", Text)],
        fill: variables_rows,
    },
];

fn all_tables(server: &Server) -> Result<Vec<Arc<Table>>, SqlError> {
    let mut all = Vec::new();
    for db in server.store.databases() {
        all.extend(server.store.tables(&db)?);
    }
    Ok(all)
}

fn columns_rows(server: &Server, _: &Session) -> Result<Rows, SqlError> {
    let mut rows = Vec::new();
    for table in all_tables(server)? {
        rows.extend(
            table.columns.iter().zip(1..).map(|(column, position)| column_row(&table, column, position)),
        );
    }
    Ok(rows)
}

fn column_row(table: &Table, column: &Column, position: i64) -> Vec<Option<String>> {
    let facts = Facts::of(&column.kind);
    let key = match (column.key, table.model) {
        (false, _) => "",
        (true, Model::Primary) => "PRI",
        (true, Model::Unique) => "UNI",
        (true, Model::Duplicate) => "DUP",
        (true, Model::Aggregate) => "AGG",
    };
    let length = facts.length.map(|length| length.to_string());
    vec![
        Some("def".to_owned()),
        Some(table.db.clone()),
        Some(table.name.clone()),
        Some(column.name.clone()),
        Some(position.to_string()),
        column.default.clone(),
        Some(yes(column.nullable)),
        Some(facts.data_type),
        length.clone(),
        length.clone(),
        facts.precision.map(|precision| precision.to_string()),
        facts.scale.map(|scale| scale.to_string()),
        None,
        facts.length.map(|_| "utf8".to_owned()),
        facts.length.map(|_| "utf8_general_ci".to_owned()),
        Some(facts.column_type),
        Some(key.to_owned()),
        Some(String::new()),
        Some(String::new()),
        Some(column.comment.clone()),
        facts.precision.map(|precision| precision.to_string()).or(length),
        facts.scale.map(|scale| scale.to_string()),
        None,
        None,
    ]
}

/// What `information_schema.columns` says of a type.
struct Facts {
    data_type: String,
    column_type: String,
    length: Option<u32>,
    precision: Option<u32>,
    scale: Option<u32>,
}

impl Facts {
    fn of(kind: &ColumnType) -> Self {
        let (data_type, column_type, precision) = match kind {
            ColumnType::Boolean => ("tinyint", "tinyint(1)".to_owned(), None),
            ColumnType::TinyInt => ("tinyint", "tinyint(4)".to_owned(), Some(3)),
            ColumnType::SmallInt => ("smallint", "smallint(6)".to_owned(), Some(5)),
            ColumnType::Int => ("int", "int(11)".to_owned(), Some(10)),
            ColumnType::BigInt => ("bigint", "bigint(20)".to_owned(), Some(19)),
            ColumnType::LargeInt => ("bigint unsigned", "bigint(20) unsigned".to_owned(), Some(39)),
            ColumnType::Float => ("float", "float".to_owned(), Some(7)),
            ColumnType::Double => ("double", "double".to_owned(), Some(15)),
            ColumnType::Decimal { precision, scale } => {
                ("decimal", format!("decimal({precision},{scale})"), Some(u32::from(*precision)))
            }
            ColumnType::Date => ("date", "date".to_owned(), None),
            ColumnType::DateTime => ("datetime", "datetime".to_owned(), None),
            ColumnType::Char(length) => ("char", format!("char({length})"), None),
            ColumnType::Varchar(length) => ("varchar", format!("varchar({length})"), None),
            ColumnType::Varbinary => ("varbinary", "varbinary".to_owned(), None),
            ColumnType::Json => ("json", "json".to_owned(), None),
            ColumnType::Nested(text) | ColumnType::Opaque(text) => {
                let word = text.split('<').next().unwrap_or_default().to_lowercase();
                return Self {
                    data_type: word,
                    column_type: text.to_lowercase(),
                    length: None,
                    precision: None,
                    scale: None,
                };
            }
        };
        let length = match kind {
            ColumnType::Char(length) | ColumnType::Varchar(length) => Some(*length),
            _ => None,
        };
        let scale = match kind {
            ColumnType::Decimal { scale, .. } => Some(u32::from(*scale)),
            ColumnType::Float | ColumnType::Double | ColumnType::Boolean => None,
            _ => precision.map(|_| 0),
        };
        Self { data_type: data_type.to_owned(), column_type, length, precision, scale }
    }
}

fn tables_rows(server: &Server, _: &Session) -> Result<Rows, SqlError> {
    let texts = |table: &Arc<Table>| {
        let mut row = vec![None; 21];
        row[0] = Some("def".to_owned());
        row[1] = Some(table.db.clone());
        row[2] = Some(table.name.clone());
        row[3] = Some("BASE TABLE".to_owned());
        row[4] = Some("StarRocks".to_owned());
        row[6] = Some(String::new());
        row[7] = Some(table.row_count().to_string());
        row[8] = Some(table.average_row_bytes().to_string());
        row[9] = Some(table.data_length().to_string());
        row[15] = Some(table.changed_at());
        row[17] = Some("utf8_general_ci".to_owned());
        row[20] = Some(table.options.comment.clone());
        row
    };
    Ok(all_tables(server)?.iter().map(texts).collect())
}

fn tables_config_rows(server: &Server, _: &Session) -> Result<Rows, SqlError> {
    let texts = |table: &Arc<Table>| {
        let options = &table.options;
        let properties: serde_json::Map<String, serde_json::Value> =
            all_properties(options).into_iter().map(|(name, value)| (name, value.into())).collect();
        let model = match table.model {
            Model::Duplicate => "DUP_KEYS",
            Model::Primary => "PRIMARY_KEYS",
            Model::Unique => "UNIQUE_KEYS",
            Model::Aggregate => "AGG_KEYS",
        };
        let primary = if table.model == Model::Primary { names(&options.keys) } else { String::new() };
        let sorted = if options.order_by.is_empty() { &options.keys } else { &options.order_by };
        let cells = [
            table.db.clone(),
            table.name.clone(),
            "OLAP".to_owned(),
            model.to_owned(),
            primary,
            options.partition_by.clone(),
            names(&options.distributed_by),
            if options.distributed_by.is_empty() { "RANDOM" } else { "HASH" }.to_owned(),
            options.buckets.to_string(),
            names(sorted),
            serde_json::Value::Object(properties).to_string(),
            table.id.to_string(),
        ];
        cells.into_iter().map(Some).collect()
    };
    Ok(all_tables(server)?.iter().map(texts).collect())
}

fn partitions_rows(server: &Server, _: &Session) -> Result<Rows, SqlError> {
    let mut rows = Vec::new();
    for table in all_tables(server)? {
        for (at, partition) in table.options.partitions.iter().enumerate() {
            let version = table.visible_version();
            let cells = [
                table.db.clone(),
                table.name.clone(),
                partition_name(&table, partition),
                (table.id * 100 + i64::try_from(at).unwrap_or(0)).to_string(),
                "0".to_owned(),
                version.to_string(),
                table.changed_at(),
                (version + 1).to_string(),
                table.options.partition_by.clone(),
                String::new(),
                table.options.distributed_by.join(", "),
                table.options.buckets.to_string(),
                "1".to_owned(),
                "0B".to_owned(),
                if at == 0 { table.row_count() } else { 0 }.to_string(),
            ];
            rows.push(cells.into_iter().map(Some).collect());
        }
    }
    Ok(rows)
}

fn schemata_rows(server: &Server, _: &Session) -> Result<Rows, SqlError> {
    let named = |db: String| {
        vec![
            Some("def".to_owned()),
            Some(db),
            Some("utf8".to_owned()),
            Some("utf8_general_ci".to_owned()),
            None,
        ]
    };
    Ok(server.store.databases().into_iter().map(named).collect())
}

/// Stream loads as `loads` shows them, under its own names of the states.
fn loads_rows(server: &Server, _: &Session) -> Result<Rows, SqlError> {
    let cluster = cluster(server)?;
    let mut rows = Vec::new();
    for db in server.store.databases() {
        for txn in cluster.transactions(&db) {
            let state = match txn.state {
                "PREPARE" => "LOADING",
                "PREPARED" => "PREPARED",
                "COMMITTED" => "COMMITED",
                "VISIBLE" => "FINISHED",
                _ => "CANCELLED",
            };
            let scanned = txn.loaded_rows + txn.filtered_rows + txn.unselected_rows;
            rows.push(vec![
                Some(txn.txn_id.to_string()),
                Some(txn.label),
                None,
                Some(txn.db),
                Some(txn.table),
                Some("root".to_owned()),
                Some(String::new()),
                Some(state.to_owned()),
                Some(if state == "FINISHED" { "100%" } else { "0%" }.to_owned()),
                Some("STREAM_LOAD".to_owned()),
                Some("NORMAL".to_owned()),
                Some(scanned.to_string()),
                Some(txn.load_bytes.to_string()),
                Some(txn.filtered_rows.to_string()),
                Some(txn.unselected_rows.to_string()),
                Some(txn.loaded_rows.to_string()),
                Some(serde_json::json!({ "txn_id": txn.txn_id }).to_string()),
                moment(txn.prepare_time_ms),
                moment(txn.prepare_time_ms),
                moment(txn.commit_time_ms),
                moment(txn.finish_time_ms),
                Some(serde_json::json!({ "timeout": txn.timeout_ms / 1000 }).to_string()),
                Some(txn.reason).filter(|reason| !reason.is_empty()),
                None,
                None,
            ]);
        }
    }
    Ok(rows)
}

fn variables_rows(_: &Server, session: &Session) -> Result<Rows, SqlError> {
    Ok(session.all_variables().into_iter().map(|(name, value)| vec![Some(name), Some(value)]).collect())
}
