//! What the server tells about itself in answer to SHOW and DESC. The tables of `information_schema` are in `schema.rs`.

pub(crate) mod schema;

use std::sync::Arc;

use crate::accounts::Right;
use crate::sql::ddl::{create_text, show_type};
use crate::sql::{Listing, Server, Session, SqlError, TableName, Words, is_information_schema};
use crate::store::Table;
use crate::types::ColumnType;
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
        server.demand(session, Right::Operate, None)?;
        return Ok(frontends(cluster(server)?));
    }
    if words.eat("BACKENDS") {
        server.demand(session, Right::Operate, None)?;
        return Ok(backends(cluster(server)?));
    }
    if words.eat("COMPUTE NODES") {
        server.demand(session, Right::Operate, None)?;
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
        schema::table_names()
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
            cluster.version(),
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
            cluster.version(),
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
