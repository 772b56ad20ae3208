//! Asks the sources: columns, the types of expressions, whether `where` is understood, and how large each table is. How its
//! keys are spread is asked in [`super::keys`].

use mysql_async::prelude::Queryable;
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::job::{JobSpec, Relation, RelationSpec, SourceKind, Split};
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{push_where, quote, table_name, text_literal};
use starlift_remote::mysql::explain;

use super::keys::{self, KeyColumn, Table};
use super::{Asker, catalogue, database_of, expression, refine_starrocks};
use crate::columns::Column;
use crate::keys::{KeyType, key_type};
use crate::plan::{self, Element, Selected, ShardFacts, SourceFacts, SplitFacts, SplitKey};
use crate::ranges::{self, Size};

/// Row estimates below this are checked by counting so many rows: statistics of a freshly filled table lag behind.
const COUNTED_ROWS: u64 = 100_000;
/// Faults told of one job's tables; thousands may have the same one.
const PROBLEMS_MOST: usize = 20;

/// Asks all sources, one after the other. Faults of several tables are told together.
pub(crate) async fn source(spec: &JobSpec, datasources: &Datasources) -> Result<SourceFacts, Vec<Problem>> {
    let mut facts = SourceFacts {
        selected: Vec::new(),
        shards: Vec::new(),
        primary_key: Vec::new(),
        time_zone: None,
        warnings: Vec::new(),
    };
    let mut first_place = String::new();
    let mut problems = Vec::new();
    let mut open: Option<Asker<'_>> = None;
    for relation in &spec.source.relations {
        let looked = match place_of(relation, datasources) {
            Err(problem) => Err(vec![problem]),
            Ok((datasource, database)) => {
                let place = format!("{database}.{}", relation.name());
                match reuse(open.take(), datasource, spec, place.clone()).await {
                    Err(problem) => Err(vec![problem]),
                    Ok(asker) => {
                        look(open.insert(asker), spec, &relation.relation, &database, &mut facts.warnings)
                            .await
                            .map(|looked| (looked, database, place))
                    }
                }
            }
        };
        match looked {
            Ok((looked, database, place)) => {
                let Looked { selected, primary_key, split, size } = looked;
                if facts.shards.is_empty() {
                    if let Some(asker) = &mut open {
                        facts.time_zone = time_zone(asker, spec, &selected).await;
                    }
                    (facts.selected, facts.primary_key, first_place) = (selected, primary_key, place);
                } else if let Err(problem) =
                    plan::same_columns((&first_place, &facts.selected), (&place, &selected))
                {
                    problems.push(problem);
                }
                let (datasource, relation) = (relation.datasource.clone(), relation.relation.clone());
                facts.shards.push(ShardFacts { datasource, database, relation, split, size });
            }
            Err(found) => {
                problems.extend(found);
                // What cannot be reached stays so, and every other table would be told as unlike a missing one.
                if facts.shards.is_empty() {
                    break;
                }
            }
        }
        if problems.len() >= PROBLEMS_MOST {
            break;
        }
    }
    if let Some(asker) = open {
        asker.close().await;
    }
    if problems.is_empty() { Ok(facts) } else { Err(problems) }
}

fn place_of<'d>(
    relation: &RelationSpec,
    datasources: &'d Datasources,
) -> Result<(&'d Datasource, String), Problem> {
    let datasource = datasources.find(&relation.datasource, "")?;
    let database = database_of(relation.database.as_deref(), datasource, "selectedDatabase")?;
    Ok((datasource, database))
}

/// The connection of the table before, when it leads to the same data source.
async fn reuse<'d>(
    open: Option<Asker<'d>>,
    datasource: &'d Datasource,
    spec: &JobSpec,
    place: String,
) -> Result<Asker<'d>, Problem> {
    match open {
        Some(mut asker) if asker.datasource.name == datasource.name => {
            asker.place = place;
            Ok(asker)
        }
        other => {
            if let Some(asker) = other {
                asker.close().await;
            }
            Asker::new(datasource, spec.settings.time_zone.as_deref(), place).await
        }
    }
}

/// What one table or query has to say.
struct Looked {
    selected: Vec<Selected>,
    primary_key: Vec<String>,
    split: SplitFacts,
    size: Size,
}

async fn look(
    asker: &mut Asker<'_>,
    spec: &JobSpec,
    relation: &Relation,
    database: &str,
    warnings: &mut Vec<String>,
) -> Result<Looked, Vec<Problem>> {
    match relation {
        Relation::Query(query) => {
            let selected =
                look_at_query(asker, spec, query, database).await.map_err(|problem| vec![problem])?;
            Ok(Looked { selected, primary_key: Vec::new(), split: SplitFacts::Whole, size: Size::default() })
        }
        Relation::Table(table) => look_at_table(asker, spec, database, table, warnings).await,
    }
}

/// The columns of a query of the job's own. How many rows it yields is not known before it has run.
async fn look_at_query(
    asker: &mut Asker<'_>,
    spec: &JobSpec,
    query: &str,
    database: &str,
) -> Result<Vec<Selected>, Problem> {
    // The worker's connection begins in this database too.
    asker.rows(&format!("USE {}", quote(database))).await?;
    let sql = format!("SELECT * FROM ({query}\n) AS starlift_query WHERE 1 = 2");
    let columns = describe(asker, &sql).await.map_err(|problem| {
        let hint = "it must run inside parentheses too: name each of its columns, each differently";
        match problem.code {
            Code::ConnectFailed | Code::NoPrivilege => problem,
            _ => Problem::new(problem.code, format!("querySql is not understood: {}", problem.message))
                .at("querySql")
                .hint(hint),
        }
    })?;
    let select = |column: &mysql_async::Column| {
        expression::selected(&quote(&column.name_str()), column, spec.source.kind)
    };
    Ok(columns.iter().map(select).collect())
}

async fn look_at_table(
    asker: &mut Asker<'_>,
    spec: &JobSpec,
    database: &str,
    table: &str,
    warnings: &mut Vec<String>,
) -> Result<Looked, Vec<Problem>> {
    let kind = spec.source.kind;
    let one = |problem: Problem| vec![problem];
    let mut columns = catalogue(asker, database, table, kind).await.map_err(one)?;
    if kind == SourceKind::Starrocks {
        refine_starrocks(asker, database, table, &mut columns).await;
    }
    let place = format!("{database}.{table}");
    let mut problems = Vec::new();
    let wanted_key = spec.source.split_key.as_deref().filter(|_| spec.settings.split == Split::Key);
    let key = match plan::split_key(wanted_key, &place, &columns) {
        Ok(None) => None,
        Ok(Some(column)) => {
            let collation = keys::collation(asker, database, table, &column.name).await.map_err(one)?;
            let found = key_type(kind, &column.type_text, collation.as_deref());
            if found.is_none() {
                problems.push(plan::no_key_type(&place, column));
            }
            if let (Some(KeyType::Text { folds_case: true }), Some(collation)) = (found, &collation) {
                warnings.push(format!(
                    "splitPk \"{}\" of {place} is compared without regard to case ({collation}): ranges are cut at \
                     values that the server itself has put in order",
                    column.name
                ));
            }
            found.map(|key_type| (column, key_type))
        }
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let name = table_name(database, table);
    if let Err(problem) = try_filter(asker, spec, &name).await {
        problems.push(problem);
    }
    let selected = match select(asker, spec, (&place, &name), &columns).await {
        Ok(selected) => selected,
        Err(found) => {
            problems.extend(found);
            Vec::new()
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut size = measure(asker, spec, database, table).await.map_err(one)?;
    let split = match (key, spec.settings.split) {
        (_, Split::Tablet) => {
            let tablets = keys::tablets(asker, &name).await.map_err(one)?;
            if tablets.is_empty() { SplitFacts::Whole } else { SplitFacts::Tablets(tablets) }
        }
        (None, Split::Key) => SplitFacts::Whole,
        (Some((column, key_type)), Split::Key) => {
            let index = match kind {
                SourceKind::Mysql => keys::index(asker, database, table, &column.name).await.map_err(one)?,
                SourceKind::Starrocks => None,
            };
            let is_sorted = match kind {
                SourceKind::Mysql => index.is_some(),
                // By the first columns of its key.
                SourceKind::Starrocks => columns.first().is_some_and(|first| first.name == column.name),
            };
            let wanted = u64::from(spec.settings.concurrent) * u64::from(spec.source.split_factor);
            let shares = spec.source.relations.len() as u64;
            let table = Table {
                kind,
                name: &name,
                hint: spec.source.hint.as_deref(),
                filter: spec.source.filter.as_deref(),
            };
            let column = KeyColumn { name: &column.name, key_type, nullable: column.nullable, index };
            let pieces = ranges::piece_count(size, wanted.div_ceil(shares));
            let facts =
                keys::spread(asker, &table, &column, pieces, &mut size, warnings).await.map_err(one)?;
            SplitFacts::Key(SplitKey { name: column.name.to_owned(), facts, is_sorted })
        }
    };
    let primary = columns.iter().filter(|column| column.is_primary);
    let primary_key = primary.map(|column| column.name.clone()).collect();
    Ok(Looked { selected, primary_key, split, size })
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

/// The reader's columns with their types; expressions are asked of the server. `table`: for messages, and quoted.
async fn select(
    asker: &mut Asker<'_>,
    spec: &JobSpec,
    table: (&str, &str),
    columns: &[Column],
) -> Result<Vec<Selected>, Vec<Problem>> {
    let (place, name) = table;
    let mut problems = Vec::new();
    let mut selected = Vec::new();
    for element in plan::elements(spec.source.kind, &spec.source.columns, columns) {
        match element {
            Element::Column(column) => selected.push(column),
            Element::Expression(text) => match describe_one(asker, &text, name).await {
                Ok(column) => selected.push(expression::selected(&text, &column, spec.source.kind)),
                Err(problem) if matches!(problem.code, Code::ConnectFailed | Code::NoPrivilege) => {
                    return Err(vec![problem]);
                }
                Err(problem) => {
                    problems.push(plan::unknown_source_column(place, &text, columns, &problem.message));
                }
            },
        }
    }
    if problems.is_empty() { Ok(selected) } else { Err(problems) }
}

/// The type and name of an expression.
async fn describe_one(
    asker: &mut Asker<'_>,
    text: &str,
    table: &str,
) -> Result<mysql_async::Column, Problem> {
    let columns = describe(asker, &format!("SELECT {text} FROM {table} WHERE 1 = 2")).await?;
    match <[_; 1]>::try_from(columns) {
        Ok([column]) => Ok(column),
        Err(_) => Err(Problem::new(Code::ColumnMismatch, "it yields more than one column")),
    }
}

/// The columns of a result that has no rows.
async fn describe(asker: &mut Asker<'_>, sql: &str) -> Result<Vec<mysql_async::Column>, Problem> {
    let described = match asker.conn.query_iter(sql).await {
        Err(error) => Err(error),
        Ok(result) => {
            let columns = result.columns();
            result.drop_result().await.map(|()| columns)
        }
    };
    let columns = described.map_err(|error| explain(asker.datasource, &asker.place, &error))?;
    Ok(columns.as_deref().unwrap_or_default().to_vec())
}

/// Whether the source understands `where`; reads no row.
async fn try_filter(asker: &mut Asker<'_>, spec: &JobSpec, table: &str) -> Result<(), Problem> {
    let Some(filter) = &spec.source.filter else { return Ok(()) };
    let mut sql = format!("SELECT 1 FROM {table}");
    push_where(&mut sql, Some(filter), Some("1 = 2"));
    asker.rows(&sql).await.map(|_| ()).map_err(|problem| match problem.code {
        Code::ConnectFailed | Code::NoPrivilege => problem,
        code => {
            Problem::new(code, format!("where is not understood: {}", problem.message)).at(filter.clone())
        }
    })
}

/// How much will be read, by estimate.
async fn measure(
    asker: &mut Asker<'_>,
    spec: &JobSpec,
    database: &str,
    table: &str,
) -> Result<Size, Problem> {
    let name = table_name(database, table);
    let filter = spec.source.filter.as_deref();
    let rows = match spec.source.kind {
        SourceKind::Mysql => estimate(asker, &name, filter).await?,
        // Answered from metadata, and needed: the estimate of information_schema lags by minutes.
        SourceKind::Starrocks => {
            let hint = spec.source.hint.as_deref().map(|hint| format!("{hint} ")).unwrap_or_default();
            let mut sql = format!("SELECT {hint}COUNT(*) FROM {name}");
            push_where(&mut sql, filter, None);
            count(asker, &sql).await?
        }
    };
    let row_bytes = average_row_bytes(asker, database, table).await;
    Ok(Size { rows, bytes: rows.saturating_mul(row_bytes) })
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
