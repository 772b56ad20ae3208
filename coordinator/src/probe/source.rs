//! Asks the source: columns, the types of expressions, whether `where` is understood, key bounds and size.

use mysql_async::prelude::Queryable;
use starlift_common::datasource::Datasources;
use starlift_common::job::{JobSpec, SourceKind};
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{push_where, quote, table_name, text_literal};
use starlift_remote::mysql::explain;

use super::{Asker, catalogue, database_of, expression, refine_starrocks};
use crate::columns::Column;
use crate::plan::{self, Element, Selected, SourceFacts, SplitKey};
use crate::ranges::{KeyFacts, Size};

/// Row estimates below this are checked by counting so many rows: statistics of a freshly filled table lag behind.
const COUNTED_ROWS: u64 = 100_000;

/// Asks the source. All faults found are told.
pub(crate) async fn source(spec: &JobSpec, datasources: &Datasources) -> Result<SourceFacts, Vec<Problem>> {
    let wanted = &spec.source;
    let one = |problem: Problem| vec![problem];
    let datasource = datasources.find(&wanted.datasource, "").map_err(one)?;
    let database = database_of(wanted.database.as_deref(), datasource, "selectedDatabase").map_err(one)?;
    let place = format!("{database}.{}", wanted.table);
    let zone = spec.settings.time_zone.as_deref();
    let mut asker = Asker::new(datasource, zone, place).await.map_err(one)?;
    let mut columns = catalogue(&mut asker, &database, &wanted.table, wanted.kind).await.map_err(one)?;
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
    let time_zone = time_zone(&mut asker, spec, &selected).await;
    asker.close().await;
    let key = key.zip(facts.bounds).map(|(column, bounds)| SplitKey {
        name: column.name.clone(),
        facts: KeyFacts { bounds, nullable: column.nullable },
        is_sorted: is_sorted(wanted.kind, &columns, column),
    });
    let primary = columns.iter().filter(|column| column.is_primary);
    let primary_key = primary.map(|column| column.name.clone()).collect();
    Ok(SourceFacts { database, selected, key, size: facts.size, primary_key, time_zone })
}

/// The zone of the session, if a value is selected that depends on it.
async fn time_zone(asker: &mut Asker<'_>, spec: &JobSpec, selected: &[Selected]) -> Option<String> {
    if spec.source.kind != SourceKind::Mysql || !selected.iter().any(Selected::is_instant) {
        return None;
    }
    if let Some(zone) = &spec.settings.time_zone {
        return Some(zone.clone());
    }
    let row = asker.rows("SELECT @@session.time_zone, @@system_time_zone").await.ok()?.pop()?;
    match row.as_slice() {
        [Some(zone), Some(system)] if zone == "SYSTEM" => Some(format!("{system}, the source server's own")),
        [Some(zone), _] => Some(format!("{zone}, the source server's own")),
        _ => None,
    }
}

/// StarRocks sorts a table by the first columns of its key; in MySQL the catalogue says which columns begin an index.
fn is_sorted(kind: SourceKind, columns: &[Column], key: &Column) -> bool {
    match kind {
        SourceKind::Mysql => key.is_sorted,
        SourceKind::Starrocks => columns.first().is_some_and(|first| first.name == key.name),
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
    Ok(expression::selected(text, column, kind))
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
