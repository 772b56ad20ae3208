//! What the server tells about itself: SHOW, DESC, and the tables of `information_schema`, which are filled from the
//! catalogue before a SELECT reads them.

use std::sync::Arc;

use rusqlite::Connection;

use crate::sql::ddl::{all_properties, create_text, names, show_type};
use crate::sql::{Listing, Server, Session, SqlError, TableName, Words, is_information_schema};
use crate::store::{Model, Table};
use crate::types::{Column, ColumnType};
use crate::view::{ClusterView, TxnView};

type Rows = Vec<Vec<Option<String>>>;

/// `SHOW ..`
pub(crate) fn show(server: &Server, session: &Session, words: &mut Words) -> Result<Listing, SqlError> {
    words.expect("SHOW")?;
    let full = words.eat("FULL");
    let _ = words.eat("GLOBAL") || words.eat("SESSION");
    if words.eat("DATABASES") || words.eat("SCHEMAS") {
        let mut databases = server.store.databases();
        databases.push("information_schema".to_owned());
        databases.sort();
        return filtered(
            words,
            vec!["Database"],
            databases.into_iter().map(|name| vec![Some(name)]).collect(),
        );
    }
    if words.eat("TABLES") {
        return show_tables(server, session, words, full);
    }
    if words.eat("TABLE STATUS") {
        return table_status(server, session, words);
    }
    if words.eat("COLUMNS") || words.eat("FIELDS") {
        return show_columns(server, session, words, full);
    }
    if words.eat("CREATE TABLE") {
        let table = table_named(server, session, words)?;
        let row = vec![Some(table.name.clone()), Some(create_text(&table))];
        return Ok(Listing { columns: vec!["Table", "Create Table"], rows: vec![row] });
    }
    if words.eat("CREATE DATABASE") || words.eat("CREATE SCHEMA") {
        let db = words.identifier()?;
        server.store.tables(&db)?;
        let row = vec![Some(db.clone()), Some(format!("CREATE DATABASE `{db}`"))];
        return Ok(Listing { columns: vec!["Database", "Create Database"], rows: vec![row] });
    }
    if words.eat("PARTITIONS FROM") {
        return Ok(partitions(&*table_named(server, session, words)?));
    }
    if words.eat("TABLET FROM") || words.eat("TABLETS FROM") {
        return Ok(tablets(&*table_named(server, session, words)?));
    }
    if words.eat("PROCESSLIST") {
        return Ok(process_list(server, full));
    }
    if words.eat("VARIABLES") {
        let rows =
            session.all_variables().into_iter().map(|(name, value)| vec![Some(name), Some(value)]).collect();
        return filtered(words, vec!["Variable_name", "Value"], rows);
    }
    if words.eat("STATUS") || words.eat("WARNINGS") || words.eat("ERRORS") {
        return Ok(Listing { columns: vec!["Level", "Code", "Message"], rows: Vec::new() });
    }
    if words.eat("ENGINES") {
        let row = ["OLAP", "YES", "Default storage engine of StarRocks", "NO", "NO", "NO"];
        return Ok(Listing {
            columns: vec!["Engine", "Support", "Comment", "Transactions", "XA", "Savepoints"],
            rows: vec![row.map(|cell| Some(cell.to_owned())).to_vec()],
        });
    }
    if words.eat("GRANTS") {
        let user = format!("'{}'@'%'", session.entry().state().user);
        let grant = format!("GRANT 'root' TO {user}");
        return Ok(Listing {
            columns: vec!["UserIdentity", "Catalog", "Grants"],
            rows: vec![vec![Some(user), None, Some(grant)]],
        });
    }
    show_cluster(server, session, words)
}

fn show_cluster(server: &Server, session: &Session, words: &mut Words) -> Result<Listing, SqlError> {
    if words.eat("FRONTENDS") {
        return Ok(frontends(cluster(server)?));
    }
    if words.eat("BACKENDS") {
        return Ok(backends(cluster(server)?));
    }
    if words.eat("COMPUTE NODES") {
        return Ok(Listing { columns: vec!["ComputeNodeId", "IP", "HttpPort", "Alive"], rows: Vec::new() });
    }
    if words.eat("TRANSACTION") {
        let _db = if words.eat("FROM") {
            words.identifier()?
        } else {
            session.database.clone().unwrap_or_default()
        };
        words.expect("WHERE")?;
        words.expect("ID")?;
        words.expect("=")?;
        let id = words.number()?;
        let found = cluster(server)?.transaction(i64::from(id));
        return found
            .map(|txn| transactions(&[txn]))
            .ok_or_else(|| SqlError::analysis(format_args!("transaction with id {id} does not exist")));
    }
    if words.eat("PROC") {
        return proc(server, &words.string()?);
    }
    Err(words.unexpected())
}

/// `DESC t`, `DESCRIBE db.t`.
pub(crate) fn describe(server: &Server, session: &Session, words: &mut Words) -> Result<Listing, SqlError> {
    let _ = words.next();
    let table = table_named(server, session, words)?;
    Ok(Listing {
        columns: vec!["Field", "Type", "Null", "Key", "Default", "Extra"],
        rows: table
            .columns
            .iter()
            .map(|column| {
                vec![
                    Some(column.name.clone()),
                    Some(show_type(&column.kind)),
                    Some(yes(column.nullable)),
                    Some(column.key.to_string()),
                    column.default.clone(),
                    Some(column.aggregation.clone().unwrap_or_default()),
                ]
            })
            .collect(),
    })
}

fn yes(truth: bool) -> String {
    if truth { "YES" } else { "NO" }.to_owned()
}

fn cluster(server: &Server) -> Result<&Arc<dyn ClusterView>, SqlError> {
    server.cluster.as_ref().ok_or_else(|| SqlError::analysis("the server is still starting"))
}

fn table_named(server: &Server, session: &Session, words: &mut Words) -> Result<Arc<Table>, SqlError> {
    let name = words.table_name(session)?;
    Ok(server.store.table(&name.db, &name.table)?)
}

/// `FROM db` or the session's database.
fn database_of(session: &Session, words: &mut Words) -> Result<String, SqlError> {
    if words.eat("FROM") || words.eat("IN") {
        let mut name = words.identifier()?;
        while words.eat(".") {
            name = words.identifier()?;
        }
        return Ok(name);
    }
    session.database.clone().ok_or_else(SqlError::no_database)
}

/// Keeps the rows that `LIKE 'pattern'` or `WHERE column = 'text'` / `LIKE 'pattern'` lets through.
fn filtered(words: &mut Words, columns: Vec<&'static str>, rows: Rows) -> Result<Listing, SqlError> {
    let mut at = 0;
    let mut pattern = None;
    let mut exact = None;
    if words.eat("LIKE") {
        pattern = Some(words.string()?);
    } else if words.eat("WHERE") {
        let name = words.identifier()?;
        at = columns
            .iter()
            .position(|column| column.eq_ignore_ascii_case(&name))
            .ok_or_else(|| SqlError::analysis(format_args!("Column '{name}' cannot be resolved")))?;
        if words.eat("LIKE") {
            pattern = Some(words.string()?);
        } else {
            words.expect("=")?;
            exact = Some(words.value()?);
        }
    }
    let keep = |row: &Vec<Option<String>>| {
        let text = row[at].as_deref().unwrap_or_default();
        pattern.as_deref().is_none_or(|pattern| like(pattern, text))
            && exact.as_deref().is_none_or(|exact| exact == text)
    };
    Ok(Listing { rows: rows.into_iter().filter(keep).collect(), columns })
}

/// SQL's LIKE with `%`, `_` and `\`, without regard to case.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    fn matches(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|from| matches(rest, &text[from..])),
            ['_', rest @ ..] => !text.is_empty() && matches(rest, &text[1..]),
            ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
                text.first().is_some_and(|first| first.eq_ignore_ascii_case(literal))
                    && matches(rest, &text[1..])
            }
        }
    }
    let characters = |text: &str| text.chars().collect::<Vec<_>>();
    matches(&characters(pattern), &characters(text))
}

fn show_tables(
    server: &Server,
    session: &Session,
    words: &mut Words,
    full: bool,
) -> Result<Listing, SqlError> {
    let db = database_of(session, words)?;
    let names: Vec<String> = if is_information_schema(&db) {
        SCHEMA_TABLES.iter().map(|table| table.name.to_owned()).collect()
    } else {
        server.store.tables(&db)?.iter().map(|table| table.name.clone()).collect()
    };
    let mut columns = vec!["Tables"];
    let mut rows: Rows = names.into_iter().map(|name| vec![Some(name)]).collect();
    if full {
        columns.push("Table_type");
        rows.iter_mut().for_each(|row| row.push(Some("BASE TABLE".to_owned())));
    }
    filtered(words, columns, rows)
}

fn table_status(server: &Server, session: &Session, words: &mut Words) -> Result<Listing, SqlError> {
    let db = database_of(session, words)?;
    let rows = server
        .store
        .tables(&db)?
        .iter()
        .map(|table| {
            let cells = [
                table.name.clone(),
                "StarRocks".to_owned(),
                table.row_count().to_string(),
                table.options.comment.clone(),
            ];
            cells.into_iter().map(Some).collect()
        })
        .collect();
    filtered(words, vec!["Name", "Engine", "Rows", "Comment"], rows)
}

fn show_columns(
    server: &Server,
    session: &Session,
    words: &mut Words,
    full: bool,
) -> Result<Listing, SqlError> {
    if !words.eat("FROM") {
        words.expect("IN")?;
    }
    let mut parts = words.name_parts()?;
    if words.eat("FROM") || words.eat("IN") {
        let table = parts.pop().unwrap_or_default();
        parts = vec![words.identifier()?, table];
    }
    let name = TableName::from_parts(parts, session)?;
    let table = server.store.table(&name.db, &name.table)?;
    let rows = table
        .columns
        .iter()
        .map(|column| {
            let mut row = vec![Some(column.name.clone()), Some(show_type(&column.kind))];
            if full {
                row.push(is_text(&column.kind).then(|| "utf8_general_ci".to_owned()));
            }
            row.push(Some(yes(column.nullable)));
            row.push(Some(if column.key { "YES" } else { "NO" }.to_owned()));
            row.push(column.default.clone());
            row.push(Some(column.aggregation.clone().unwrap_or_default()));
            if full {
                row.push(Some(String::new()));
                row.push(Some(column.comment.clone()));
            }
            row
        })
        .collect();
    let columns = if full {
        vec!["Field", "Type", "Collation", "Null", "Key", "Default", "Extra", "Privileges", "Comment"]
    } else {
        vec!["Field", "Type", "Null", "Key", "Default", "Extra"]
    };
    filtered(words, columns, rows)
}

fn is_text(kind: &ColumnType) -> bool {
    matches!(kind, ColumnType::Char(_) | ColumnType::Varchar(_))
}

fn partitions(table: &Table) -> Listing {
    let rows = table.options.partitions.iter().enumerate().map(|(at, partition)| {
        let only = at == 0;
        vec![
            (table.id * 100 + i64::try_from(at).unwrap_or(0)).to_string(),
            partition_name(table, partition),
            table.visible_version().to_string(),
            table.changed_at(),
            "0".to_owned(),
            "NORMAL".to_owned(),
            table.options.partition_by.clone(),
            String::new(),
            table.options.distributed_by.join(", "),
            table.options.buckets.to_string(),
            "1".to_owned(),
            "HDD".to_owned(),
            "9999-12-31 23:59:59".to_owned(),
            "NULL".to_owned(),
            "0B".to_owned(),
            "false".to_owned(),
            if only { table.row_count() } else { 0 }.to_string(),
        ]
    });
    Listing {
        columns: vec![
            "PartitionId",
            "PartitionName",
            "VisibleVersion",
            "VisibleVersionTime",
            "VisibleVersionHash",
            "State",
            "PartitionKey",
            "Range",
            "DistributionKey",
            "Buckets",
            "ReplicationNum",
            "StorageMedium",
            "CooldownTime",
            "LastConsistencyCheckTime",
            "DataSize",
            "IsInMemory",
            "RowCount",
        ],
        rows: rows.map(|row| row.into_iter().map(Some).collect()).collect(),
    }
}

/// An unpartitioned table's only partition has the table's name.
fn partition_name(table: &Table, partition: &str) -> String {
    if partition == "$default" { table.name.clone() } else { partition.to_owned() }
}

fn tablets(table: &Table) -> Listing {
    let rows = table.tablets().into_iter().map(|tablet| {
        let cells = [
            tablet.id.to_string(),
            (tablet.id + 1_000_000).to_string(),
            "10001".to_owned(),
            "0".to_owned(),
            table.visible_version().to_string(),
            "NORMAL".to_owned(),
            (table.row_count() / i64::from(table.options.buckets)).to_string(),
        ];
        cells.into_iter().map(Some).collect()
    });
    Listing {
        columns: vec!["TabletId", "ReplicaId", "BackendId", "SchemaHash", "Version", "State", "RowCount"],
        rows: rows.collect(),
    }
}

fn process_list(server: &Server, full: bool) -> Listing {
    let now = tokio::time::Instant::now();
    let rows = server.sessions.list().into_iter().map(|entry| {
        let state = entry.state();
        let mut statement = state.statement.clone();
        if !full && let Some(text) = &mut statement {
            text.truncate(text.floor_char_boundary(100));
        }
        vec![
            Some(entry.id.to_string()),
            Some(state.user.clone()),
            Some(entry.host.clone()),
            Some(state.database.clone()),
            Some(if statement.is_some() { "Query" } else { "Sleep" }.to_owned()),
            Some((now - state.connected).as_secs().to_string()),
            Some((now - state.since).as_secs().to_string()),
            Some("OK".to_owned()),
            statement,
            Some("false".to_owned()),
        ]
    });
    Listing {
        columns: vec![
            "Id",
            "User",
            "Host",
            "Db",
            "Command",
            "ConnectionStartTime",
            "Time",
            "State",
            "Info",
            "IsPending",
        ],
        rows: rows.collect(),
    }
}

fn frontends(cluster: &Arc<dyn ClusterView>) -> Listing {
    let rows = cluster.frontends().into_iter().map(|node| {
        let cells = [
            format!("{}_{}", node.host, node.http_port),
            node.host.clone(),
            "9010".to_owned(),
            node.http_port.to_string(),
            node.query_port.to_string(),
            "9020".to_owned(),
            if node.leader { "LEADER" } else { "FOLLOWER" }.to_owned(),
            "1".to_owned(),
            "true".to_owned(),
            node.alive.to_string(),
            "0".to_owned(),
            String::new(),
            "true".to_owned(),
            String::new(),
            String::new(),
            crate::sql::STARROCKS_VERSION.to_owned(),
        ];
        cells.into_iter().map(Some).collect()
    });
    Listing {
        columns: vec![
            "Name",
            "IP",
            "EditLogPort",
            "HttpPort",
            "QueryPort",
            "RpcPort",
            "Role",
            "ClusterId",
            "Join",
            "Alive",
            "ReplayedJournalId",
            "LastHeartbeat",
            "IsHelper",
            "ErrMsg",
            "StartTime",
            "Version",
        ],
        rows: rows.collect(),
    }
}

fn backends(cluster: &Arc<dyn ClusterView>) -> Listing {
    let rows = cluster.backends().into_iter().map(|node| {
        let cells = [
            node.id.to_string(),
            node.host.clone(),
            "9050".to_owned(),
            "9060".to_owned(),
            node.http_port.to_string(),
            "8060".to_owned(),
            String::new(),
            String::new(),
            node.alive.to_string(),
            "false".to_owned(),
            "false".to_owned(),
            "0".to_owned(),
            "0.000 B".to_owned(),
            "1.000 TB".to_owned(),
            "1.000 TB".to_owned(),
            "0.00 %".to_owned(),
            "0.00 %".to_owned(),
            String::new(),
            crate::sql::STARROCKS_VERSION.to_owned(),
            "{}".to_owned(),
            "0.000 B".to_owned(),
            "0.00 %".to_owned(),
            "2".to_owned(),
            "0".to_owned(),
            "0.00 %".to_owned(),
            "0.0 %".to_owned(),
        ];
        cells.into_iter().map(Some).collect()
    });
    Listing {
        columns: vec![
            "BackendId",
            "IP",
            "HeartbeatPort",
            "BePort",
            "HttpPort",
            "BrpcPort",
            "LastStartTime",
            "LastHeartbeat",
            "Alive",
            "SystemDecommissioned",
            "ClusterDecommissioned",
            "TabletNum",
            "DataUsedCapacity",
            "AvailCapacity",
            "TotalCapacity",
            "UsedPct",
            "MaxDiskUsedPct",
            "ErrMsg",
            "Version",
            "Status",
            "DataTotalCapacity",
            "DataUsedPct",
            "CpuCores",
            "NumRunningQueries",
            "MemUsedPct",
            "CpuUsedPct",
        ],
        rows: rows.collect(),
    }
}

fn transactions(all: &[TxnView]) -> Listing {
    let rows = all.iter().map(|txn| {
        vec![
            Some(txn.txn_id.to_string()),
            Some(txn.label.clone()),
            Some(format!("BE: {}", txn.coordinator)),
            Some(txn.state.to_owned()),
            Some("BACKEND_STREAMING".to_owned()),
            moment(txn.prepare_time_ms),
            moment(txn.prepared_time_ms),
            moment(txn.commit_time_ms),
            moment(txn.finish_time_ms),
            Some(txn.reason.clone()),
            Some("0".to_owned()),
            Some("-1".to_owned()),
            Some(txn.timeout_ms.to_string()),
            Some(txn.prepared_timeout_ms.to_string()),
        ]
    });
    Listing {
        columns: vec![
            "TransactionId",
            "Label",
            "Coordinator",
            "TransactionStatus",
            "LoadJobSourceType",
            "PrepareTime",
            "PreparedTime",
            "CommitTime",
            "FinishTime",
            "Reason",
            "ErrorReplicasCount",
            "ListenerId",
            "TimeoutMs",
            "PreparedTimeoutMs",
        ],
        rows: rows.collect(),
    }
}

/// A moment as a DATETIME in UTC, `None` if it never came.
fn moment(millis: i64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_millisecond(millis).ok().filter(|_| millis > 0)?;
    Some(timestamp.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `SHOW PROC '/dbs'`, `'/transactions/<db id>/running'`, `'/transactions/<db id>/finished'`.
fn proc(server: &Server, path: &str) -> Result<Listing, SqlError> {
    let cluster = cluster(server)?;
    let databases = server.store.databases();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["dbs"] => Ok(Listing {
            columns: vec!["DbId", "DbName"],
            rows: databases
                .into_iter()
                .map(|db| vec![Some(cluster.database_id(&db).to_string()), Some(db)])
                .collect(),
        }),
        ["transactions", id, which @ ("running" | "finished")] => {
            let db = databases.into_iter().find(|db| cluster.database_id(db).to_string() == *id);
            let db = db.ok_or_else(|| SqlError::analysis(format_args!("Database {id} does not exist")))?;
            let finished = |txn: &TxnView| matches!(txn.state, "VISIBLE" | "ABORTED");
            let all: Vec<TxnView> = cluster
                .transactions(&db)
                .into_iter()
                .filter(|txn| finished(txn) == (*which == "finished"))
                .collect();
            Ok(transactions(&all))
        }
        _ => Err(SqlError::analysis(format_args!("Proc path [{path}] doesn't exist"))),
    }
}

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
pub(crate) fn schema_table(name: &str) -> Option<&'static str> {
    SCHEMA_TABLES.iter().find(|table| table.name.eq_ignore_ascii_case(name)).map(|table| table.view)
}

/// Makes the temporary table `view` on this connection tell the present.
pub(crate) fn fill_schema_table(
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
        row[8] = Some("0".to_owned());
        row[9] = Some("0".to_owned());
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
