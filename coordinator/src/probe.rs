//! Asks both sides what the plan needs to know: catalogues, key bounds, sizes, and whether loading would work at all.
//! Changes nothing: the only transaction it begins is rolled back at once, and its label belongs to no task. What the
//! answers mean is decided in [`crate::plan`].

use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::ids::JobId;
use starlift_common::job::{JobSpec, SourceKind};
use starlift_common::label::Label;
use starlift_common::nearest::did_you_mean;
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{push_where, quote, table_name, text_literal};
use starlift_common::retry::FailureClass;
use starlift_remote::mysql::{SessionSettings, connect, explain};
use starlift_remote::starrocks::client::{CallError, Client, TxnTarget};
use tracing::{debug, warn};

use crate::columns::{Column, Kind, mysql_kind, starrocks_kind};
use crate::plan::{self, Element, Model, Selected, SourceFacts, TargetFacts};
use crate::ranges::{KeyFacts, Size};

/// Row estimates below this are checked by counting so many rows: statistics of a freshly filled table lag behind.
const COUNTED_ROWS: u64 = 100_000;

/// How long the check's transaction may live if its rollback gets lost, in seconds.
const CHECK_TIMEOUT_S: u32 = 60;

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

/// A row whose columns are asked for by name, without regard to case.
struct Named(Vec<(String, Option<String>)>);

impl Named {
    fn new(row: Row) -> Self {
        let names: Vec<String> =
            row.columns_ref().iter().map(|column| column.name_str().to_lowercase()).collect();
        Self(names.into_iter().zip(texts(row)).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(column, _)| column == name).and_then(|(_, value)| value.as_deref())
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.trim().parse().ok()
    }
}

fn texts(row: Row) -> Vec<Option<String>> {
    row.unwrap().into_iter().map(text).collect()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

/// Asks the source. All faults found are told.
pub(crate) async fn source(spec: &JobSpec, datasources: &Datasources) -> Result<SourceFacts, Vec<Problem>> {
    let wanted = &spec.source;
    let one = |problem: Problem| vec![problem];
    let datasource = datasources.find(&wanted.datasource, "").map_err(one)?;
    let database = database_of(wanted.database.as_deref(), datasource, "selectedDatabase").map_err(one)?;
    let place = format!("{database}.{}", wanted.table);
    let zone = spec.settings.time_zone.as_deref();
    let mut asker = Asker::new(datasource, zone, place).await.map_err(one)?;
    let kind_of = match wanted.kind {
        SourceKind::Mysql => mysql_kind,
        SourceKind::Starrocks => starrocks_kind,
    };
    let mut columns = catalogue(&mut asker, &database, &wanted.table, kind_of).await.map_err(one)?;
    if wanted.kind == SourceKind::Starrocks {
        refine_starrocks(&mut asker, &database, &wanted.table, &mut columns).await;
    }

    let mut problems = Vec::new();
    let key = plan::split_key(spec, &columns).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    if let Err(problem) = try_filter(&mut asker, spec, &database).await {
        problems.push(problem);
    }
    let selected = match select(&mut asker, spec, &database, &columns).await {
        Ok(selected) => selected,
        Err(found) => {
            problems.extend(found);
            Vec::new()
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let facts = measure(&mut asker, spec, &database, key).await.map_err(one)?;
    asker.close().await;
    let key = key
        .zip(facts.bounds)
        .map(|(column, bounds)| (column.name.clone(), KeyFacts { bounds, nullable: column.nullable }));
    Ok(SourceFacts { database, selected, key, size: facts.size })
}

fn database_of(named: Option<&str>, datasource: &Datasource, parameter: &str) -> Result<String, Problem> {
    named.or(datasource.database.as_deref()).map(str::to_owned).ok_or_else(|| {
        Problem::new(Code::InvalidSettings, format!("no database for data source {}", datasource.name))
            .hint(format!("set {parameter} in the job, or database in the data source"))
    })
}

/// The columns of a table. A table that is not there is told with the names that are.
async fn catalogue(
    asker: &mut Asker<'_>,
    database: &str,
    table: &str,
    kind_of: fn(&str) -> Kind,
) -> Result<Vec<Column>, Problem> {
    let rows = asker
        .named_rows(&format!(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, COLUMN_KEY, EXTRA \
             FROM information_schema.columns WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
            text_literal(database),
            text_literal(table)
        ))
        .await?;
    if rows.is_empty() {
        return Err(unknown_table(asker, database, table).await);
    }
    Ok(rows.iter().map(|row| column(row, kind_of)).collect())
}

fn column(row: &Named, kind_of: fn(&str) -> Kind) -> Column {
    let type_text =
        row.get("column_type").filter(|text| !text.is_empty()).unwrap_or_else(|| row.text("data_type"));
    let extra = row.text("extra").to_ascii_lowercase();
    let computed = extra.contains("virtual") || extra.contains("stored") || extra.contains("persistent");
    Column {
        name: row.text("column_name").to_owned(),
        kind: kind_of(type_text),
        type_text: type_text.to_owned(),
        nullable: row.text("is_nullable").eq_ignore_ascii_case("yes"),
        has_default: row.get("column_default").is_some() || extra.contains("auto_increment"),
        generated: computed && !extra.contains("default_generated"),
        hidden: extra.contains("invisible"),
        is_key: row.text("column_key").eq_ignore_ascii_case("pri"),
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
                type_text.clone_into(&mut column.type_text);
            }
        }
        column.nullable = row.text("null").eq_ignore_ascii_case("yes");
        let extra = row.text("extra").to_ascii_lowercase();
        let default = row.get("default").filter(|text| !text.eq_ignore_ascii_case("null") || column.nullable);
        column.has_default = default.is_some() || extra.contains("auto_increment");
        column.is_key |= matches!(row.text("key").to_ascii_lowercase().as_str(), "pri" | "true");
        column.generated |=
            extra.contains("generated") || extra.contains("virtual") || extra.contains("stored");
    }
}

/// The reader's columns with their types; expressions are asked of the server.
async fn select(
    asker: &mut Asker<'_>,
    spec: &JobSpec,
    database: &str,
    columns: &[Column],
) -> Result<Vec<Selected>, Vec<Problem>> {
    let table = table_name(database, &spec.source.table);
    let mut problems = Vec::new();
    let mut selected = Vec::new();
    for element in plan::elements(spec.source.kind, &spec.source.columns, columns) {
        match element {
            Element::Column(column) => selected.push(column),
            Element::Expression(text) => match describe(asker, &text, &table, spec.source.kind).await {
                Ok(column) => selected.push(column),
                Err(problem) if matches!(problem.code, Code::ConnectFailed | Code::NoPrivilege) => {
                    return Err(vec![problem]);
                }
                Err(problem) => {
                    let place = format!("{database}.{}", spec.source.table);
                    problems.push(plan::unknown_source_column(&place, &text, columns, &problem.message));
                }
            },
        }
    }
    if problems.is_empty() { Ok(selected) } else { Err(problems) }
}

/// The type and name of an expression, from the metadata of a result without rows.
async fn describe(
    asker: &mut Asker<'_>,
    text: &str,
    table: &str,
    kind: SourceKind,
) -> Result<Selected, Problem> {
    let sql = format!("SELECT {text} FROM {table} WHERE 1 = 2");
    let failed =
        |asker: &Asker<'_>, error: &mysql_async::Error| explain(asker.datasource, &asker.place, error);
    let described = match asker.conn.query_iter(&sql).await {
        Err(error) => Err(error),
        Ok(result) => {
            let columns = result.columns();
            result.drop_result().await.map(|()| columns)
        }
    };
    let columns = described.map_err(|error| failed(asker, &error))?;
    let [column] = columns.as_deref().unwrap_or_default() else {
        return Err(Problem::new(Code::ColumnMismatch, "it yields more than one column"));
    };
    Ok(Selected {
        sql: text.to_owned(),
        name: column.name_str().into_owned(),
        kind: wire_kind(column, kind),
        type_text: format!("{:?}", column.column_type()).trim_start_matches("MYSQL_TYPE_").to_lowercase(),
    })
}

/// The character set number that MySQL gives to raw bytes.
const BINARY: u16 = 63;

fn wire_kind(column: &mysql_async::Column, source: SourceKind) -> Kind {
    use ColumnType::{
        MYSQL_TYPE_BIT, MYSQL_TYPE_BLOB, MYSQL_TYPE_DATE, MYSQL_TYPE_DATETIME, MYSQL_TYPE_DATETIME2,
        MYSQL_TYPE_DECIMAL, MYSQL_TYPE_DOUBLE, MYSQL_TYPE_FLOAT, MYSQL_TYPE_GEOMETRY, MYSQL_TYPE_INT24,
        MYSQL_TYPE_JSON, MYSQL_TYPE_LONG, MYSQL_TYPE_LONG_BLOB, MYSQL_TYPE_LONGLONG, MYSQL_TYPE_MEDIUM_BLOB,
        MYSQL_TYPE_NEWDATE, MYSQL_TYPE_NEWDECIMAL, MYSQL_TYPE_NULL, MYSQL_TYPE_SHORT, MYSQL_TYPE_STRING,
        MYSQL_TYPE_TIME, MYSQL_TYPE_TIME2, MYSQL_TYPE_TIMESTAMP, MYSQL_TYPE_TIMESTAMP2, MYSQL_TYPE_TINY,
        MYSQL_TYPE_TINY_BLOB, MYSQL_TYPE_VAR_STRING, MYSQL_TYPE_VARCHAR, MYSQL_TYPE_YEAR,
    };
    match column.column_type() {
        MYSQL_TYPE_TINY | MYSQL_TYPE_SHORT | MYSQL_TYPE_INT24 | MYSQL_TYPE_LONG | MYSQL_TYPE_LONGLONG => {
            let padded = column.flags().contains(ColumnFlags::ZEROFILL_FLAG);
            if padded { Kind::PaddedInteger } else { Kind::Integer }
        }
        MYSQL_TYPE_FLOAT if source == SourceKind::Mysql => {
            Kind::Refused("MySQL prints a FLOAT with six digits only; write `(expression * 1e0)`".into())
        }
        MYSQL_TYPE_FLOAT => Kind::Float,
        MYSQL_TYPE_DOUBLE => Kind::Double,
        MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => Kind::Decimal { scale: column.decimals().into() },
        MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => Kind::Date,
        MYSQL_TYPE_DATETIME | MYSQL_TYPE_DATETIME2 | MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2 => {
            Kind::DateTime
        }
        MYSQL_TYPE_TIME | MYSQL_TYPE_TIME2 => Kind::Time,
        MYSQL_TYPE_YEAR => Kind::Year,
        MYSQL_TYPE_JSON => Kind::Json,
        MYSQL_TYPE_NULL => Kind::Null,
        MYSQL_TYPE_BIT => Kind::Refused("BIT values arrive as raw bytes; write `(expression + 0)`".into()),
        MYSQL_TYPE_GEOMETRY => Kind::Refused("spatial values are not carried; write `st_astext(...)`".into()),
        MYSQL_TYPE_BLOB
        | MYSQL_TYPE_TINY_BLOB
        | MYSQL_TYPE_MEDIUM_BLOB
        | MYSQL_TYPE_LONG_BLOB
        | MYSQL_TYPE_STRING
        | MYSQL_TYPE_VAR_STRING
        | MYSQL_TYPE_VARCHAR
            if source == SourceKind::Mysql && column.character_set() == BINARY =>
        {
            Kind::Refused(
                "binary values are not carried yet; write `hex(...)` or convert them to text".into(),
            )
        }
        _ => Kind::Text,
    }
}

/// Whether the source understands `where`; reads no row.
async fn try_filter(asker: &mut Asker<'_>, spec: &JobSpec, database: &str) -> Result<(), Problem> {
    let Some(filter) = &spec.source.filter else { return Ok(()) };
    let mut sql = format!("SELECT 1 FROM {}", table_name(database, &spec.source.table));
    push_where(&mut sql, Some(filter), Some("1 = 2"));
    asker.rows(&sql).await.map(|_| ()).map_err(|problem| match problem.code {
        Code::ConnectFailed | Code::NoPrivilege => problem,
        code => {
            Problem::new(code, format!("where is not understood: {}", problem.message)).at(filter.clone())
        }
    })
}

/// Bounds of the key, if there is one, and the size of what will be read.
struct Measure {
    bounds: Option<Option<(i128, i128)>>,
    size: Size,
}

async fn measure(
    asker: &mut Asker<'_>,
    spec: &JobSpec,
    database: &str,
    key: Option<&Column>,
) -> Result<Measure, Problem> {
    let table = table_name(database, &spec.source.table);
    let filter = spec.source.filter.as_deref();
    let hint = spec.source.hint.as_deref().map(|hint| format!("{hint} ")).unwrap_or_default();
    let counts = spec.source.kind == SourceKind::Starrocks;
    let mut bounds = None;
    let mut counted = None;
    let mut wanted = Vec::new();
    if let Some(key) = key {
        let key = quote(&key.name);
        wanted.extend([format!("MIN({key})"), format!("MAX({key})")]);
    }
    if counts {
        // Answered from metadata, and needed: the estimate of information_schema lags by minutes.
        wanted.push("COUNT(*)".into());
    }
    if !wanted.is_empty() {
        let mut sql = format!("SELECT {hint}{} FROM {table}", wanted.join(", "));
        push_where(&mut sql, filter, None);
        let row = asker.rows(&sql).await?.pop().unwrap_or_default();
        let mut cells = row.into_iter();
        if let Some(key) = key {
            let (min, max) = (cells.next().flatten(), cells.next().flatten());
            bounds = Some(match min.zip(max) {
                Some((min, max)) => Some((integer(key, &min)?, integer(key, &max)?)),
                None => None,
            });
        }
        if counts {
            counted = cells.next().flatten().and_then(|text| text.parse().ok());
        }
    }
    let rows = match counted {
        Some(rows) => rows,
        None => estimate(asker, &table, filter).await?,
    };
    let row_bytes = average_row_bytes(asker, database, &spec.source.table).await;
    Ok(Measure { bounds, size: Size { rows, bytes: rows.saturating_mul(row_bytes) } })
}

fn integer(key: &Column, text: &str) -> Result<i128, Problem> {
    text.trim().parse().map_err(|_| {
        Problem::new(
            Code::InvalidSplitKey,
            format!("splitPk \"{}\" has the value {text}, which is no integer", key.name),
        )
        .hint("choose an integer column, or leave splitPk out")
    })
}

/// Rows by the optimizer's estimate. A small one is checked by counting a bounded number of rows.
async fn estimate(asker: &mut Asker<'_>, table: &str, filter: Option<&str>) -> Result<u64, Problem> {
    let mut sql = format!("EXPLAIN SELECT * FROM {table}");
    push_where(&mut sql, filter, None);
    let rows = asker.named_rows(&sql).await?;
    let estimated = rows.first().and_then(|row| {
        let share = row.get("filtered").and_then(|text| text.parse::<f64>().ok()).unwrap_or(100.0) / 100.0;
        row.number("rows").map(|rows| share_of(rows, share))
    });
    let estimated = estimated.unwrap_or(0);
    if estimated >= COUNTED_ROWS {
        return Ok(estimated);
    }
    let mut first = format!("SELECT 1 FROM {table}");
    push_where(&mut first, filter, None);
    let counted =
        count(asker, &format!("SELECT COUNT(*) FROM ({first} LIMIT {COUNTED_ROWS}) AS first_rows")).await?;
    if counted < COUNTED_ROWS {
        return Ok(counted);
    }
    // The statistics are wrong; only a count tells how far.
    let mut all = format!("SELECT COUNT(*) FROM {table}");
    push_where(&mut all, filter, None);
    count(asker, &all).await
}

async fn count(asker: &mut Asker<'_>, sql: &str) -> Result<u64, Problem> {
    let cell = asker.rows(sql).await?.pop().and_then(|mut row| row.pop().flatten());
    Ok(cell.and_then(|text| text.parse().ok()).unwrap_or(0))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
fn share_of(rows: u64, share: f64) -> u64 {
    (rows as f64 * share.clamp(0.0, 1.0)) as u64
}

/// 0 when the catalogue does not tell.
async fn average_row_bytes(asker: &mut Asker<'_>, database: &str, table: &str) -> u64 {
    let sql = format!(
        "SELECT AVG_ROW_LENGTH FROM information_schema.tables WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        text_literal(database),
        text_literal(table)
    );
    count(asker, &sql).await.unwrap_or(0)
}

/// Asks the target, and tries whether a load could begin. All faults found are told.
pub(crate) async fn target(
    spec: &JobSpec,
    datasources: &Datasources,
    job: JobId,
) -> Result<TargetFacts, Vec<Problem>> {
    let wanted = &spec.target;
    let one = |problem: Problem| vec![problem];
    let datasource = datasources.find(&wanted.datasource, "").map_err(one)?;
    let database = database_of(wanted.database.as_deref(), datasource, "selectedDatabase").map_err(one)?;
    let place = format!("{database}.{}", wanted.table);
    let urls = if wanted.load_urls.is_empty() { &datasource.load_urls } else { &wanted.load_urls };
    let client = Client::new(datasource, urls).map_err(one)?;

    let described = describe_target(datasource, &database, spec, place).await;
    // Without the table a trial would only repeat that it is missing.
    let tried = match &described {
        Err(problem) if problem.code == Code::UnknownTable => Ok(Vec::new()),
        _ => try_begin(&client, &database, spec, job).await,
    };
    let (mut facts, warnings) = match (described, tried) {
        (Ok(facts), Ok(warnings)) => (facts, warnings),
        (described, tried) => {
            let mut problems: Vec<Problem> = [described.err(), tried.err()].into_iter().flatten().collect();
            problems.dedup_by(|second, first| {
                first.code == Code::LoginFailed && second.code == Code::LoginFailed
            });
            return Err(problems);
        }
    };
    facts.load_urls.clone_from(urls);
    facts.is_source = is_source(spec, datasources, datasource, &database);
    facts.warnings.extend(warnings);
    Ok(facts)
}

async fn describe_target(
    datasource: &Datasource,
    database: &str,
    spec: &JobSpec,
    place: String,
) -> Result<TargetFacts, Problem> {
    let table = &spec.target.table;
    let mut asker = Asker::new(datasource, None, place).await?;
    let mut columns = catalogue(&mut asker, database, table, starrocks_kind).await?;
    refine_starrocks(&mut asker, database, table, &mut columns).await;
    let model = asker
        .rows(&format!(
            "SELECT TABLE_MODEL FROM information_schema.tables_config WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            text_literal(database),
            text_literal(table)
        ))
        .await
        .ok()
        .and_then(|mut rows| rows.pop()?.pop()?)
        .and_then(|text| Model::parse(&text));
    let has_rows = if spec.target.pre_sql.is_empty() {
        let rows = asker.rows(&format!("SELECT 1 FROM {} LIMIT 1", table_name(database, table))).await;
        rows.ok().map(|rows| !rows.is_empty())
    } else {
        None
    };
    let labels_kept = asker
        .named_rows("ADMIN SHOW FRONTEND CONFIG LIKE 'label_keep_max_num'")
        .await
        .ok()
        .and_then(|rows| rows.first().and_then(|row| row.number("value")));
    asker.close().await;
    Ok(TargetFacts {
        database: database.to_owned(),
        columns,
        model,
        has_rows,
        labels_kept,
        load_urls: Vec::new(),
        is_source: false,
        warnings: Vec::new(),
    })
}

/// Begins a transaction and rolls it back: proves that the load URLs answer, that the login works there, that the
/// account may insert, and that a BE is alive and reachable from here. Returns warnings.
async fn try_begin(
    client: &Client,
    database: &str,
    spec: &JobSpec,
    job: JobId,
) -> Result<Vec<String>, Problem> {
    let label = Label::probe(&spec.target.label_prefix, job, fastrand::u32(..));
    let target = TxnTarget { database, table: &spec.target.table, label: &label };
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("timeout"), HeaderValue::from(CHECK_TIMEOUT_S));
    let warehouse = spec.target.load.headers.get("warehouse");
    if let Some(Ok(value)) = warehouse.map(|name| HeaderValue::from_str(name)) {
        headers.insert(HeaderName::from_static("warehouse"), value);
    }
    let begun = client.begin(target, &headers).await;
    match begun {
        Ok(_) => {
            if let Err(error) = client.rollback(database, &spec.target.table, &label).await {
                warn!(%label, %error, "the check's transaction could not be rolled back; it ends by its own timeout");
            }
            Ok(Vec::new())
        }
        Err(error) if error.class() == FailureClass::Distress => {
            Ok(vec![format!("the target is under pressure already: {error}")])
        }
        Err(CallError::Refused { answer, host }) if answer.is_not_implemented() => Err(Problem::new(
            Code::Unsupported,
            format!("the target does not know transactions of Stream Load: {}", answer.text()),
        )
        .at(host)
        .hint("StarRocks 2.4 or newer is needed")),
        Err(error) => Err(refused_begin(&error)),
    }
}

/// A refusal of the check is the server's, not the job's: it is mended outside unless the words say otherwise.
fn refused_begin(error: &CallError) -> Problem {
    let mut problem = error.problem();
    let words = problem.message.to_ascii_lowercase();
    if problem.code == Code::LoadFailed {
        problem.code = if words.contains("access denied") || words.contains("privilege") {
            Code::NoPrivilege
        } else if words.contains("unknown table") || words.contains("unknown database") {
            Code::UnknownTable
        } else {
            Code::ConnectFailed
        };
    }
    problem
}

/// Whether reader and writer name the same table of the same server.
fn is_source(spec: &JobSpec, datasources: &Datasources, target: &Datasource, database: &str) -> bool {
    let Some(source) = datasources.get(&spec.source.datasource) else { return false };
    let same_server = source.name == target.name
        || (source.port == target.port && source.hosts.iter().any(|host| target.hosts.contains(host)));
    let source_database = spec.source.database.as_deref().or(source.database.as_deref());
    spec.source.kind == SourceKind::Starrocks
        && same_server
        && source_database == Some(database)
        && spec.source.table == spec.target.table
}
