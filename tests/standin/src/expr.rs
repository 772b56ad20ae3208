//! Derived columns and `where` of a load, evaluated row by row by an in-memory SQL engine. Slow beside the plain path,
//! and only built when a load needs it.

use base64::Engine as _;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ToSql};

use crate::ingest::Cells;
use crate::plan::{Plan, PlanError, hex_bytes};
use crate::store::{ColumnType, Table};

/// What became of one row.
pub(crate) enum Verdict {
    /// The derived columns, by number.
    Row(Vec<Derived>),
    /// `where` rejected it.
    Unselected,
}

/// The value of a derived column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Derived {
    Null,
    /// Still to be converted to the type of its column.
    Text(Vec<u8>),
    /// What `to_binary` gave: the bytes themselves.
    Binary(Vec<u8>),
}

/// The compiled expressions of one load.
pub(crate) struct Evaluator {
    connection: Connection,
    sql: String,
    sources: usize,
    derived: usize,
}

impl Evaluator {
    /// `None` when the plan has neither derived columns nor a filter.
    pub(crate) fn new(plan: &Plan, table: &Table) -> Result<Option<Self>, PlanError> {
        if plan.derived.is_empty() && plan.filter.is_none() {
            return Ok(None);
        }
        let failed = |error: rusqlite::Error| PlanError(format!("cannot plan columns and where: {error}"));
        let connection = Connection::open_in_memory().map_err(failed)?;
        let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        connection.create_scalar_function("to_binary", -1, pure, to_binary).map_err(failed)?;
        let sql = statement(plan, table);
        connection.prepare_cached(&sql).map_err(failed)?;
        Ok(Some(Self { connection, sql, sources: plan.sources.len(), derived: plan.derived.len() }))
    }

    /// Evaluates one row; the error is a text for the client and ends the load.
    pub(crate) fn row<C: Cells + ?Sized>(&mut self, cells: &C) -> Result<Verdict, String> {
        let failed = |error: rusqlite::Error| format!("cannot evaluate columns and where: {error}");
        let texts: Vec<Option<String>> = (0..self.sources)
            .map(|place| cells.cell(place).map(|cell| String::from_utf8_lossy(cell).into_owned()))
            .collect();
        let parameters: Vec<&dyn ToSql> = texts.iter().map(|text| text as &dyn ToSql).collect();
        let mut statement = self.connection.prepare_cached(&self.sql).map_err(failed)?;
        let mut rows = statement.query(parameters.as_slice()).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else {
            return Ok(Verdict::Unselected);
        };
        let mut derived = Vec::with_capacity(self.derived);
        for place in 0..self.derived {
            derived.push(match row.get_ref(place).map_err(failed)? {
                ValueRef::Null => Derived::Null,
                ValueRef::Integer(number) => Derived::Text(number.to_string().into_bytes()),
                ValueRef::Real(number) => Derived::Text(number.to_string().into_bytes()),
                ValueRef::Text(bytes) => Derived::Text(bytes.to_vec()),
                ValueRef::Blob(bytes) => Derived::Binary(bytes.to_vec()),
            });
        }
        Ok(Verdict::Row(derived))
    }
}

/// Sources are texts to the expressions of `columns`; `where` sees numeric columns as numbers, and derived ones too.
fn statement(plan: &Plan, table: &Table) -> String {
    let sources: Vec<String> = plan
        .sources
        .iter()
        .enumerate()
        .map(|(at, name)| format!("?{} AS {}", at + 1, quoted(name)))
        .collect();
    let from = if sources.is_empty() { "1 AS \"\"".to_owned() } else { sources.join(", ") };
    let mut derived: Vec<String> = plan
        .derived
        .iter()
        .enumerate()
        .map(|(at, expression)| format!("({expression}) AS \"__derived_{at}\""))
        .collect();
    if derived.is_empty() {
        derived.push("1".to_owned());
    }
    let select = format!("SELECT {} FROM (SELECT {from})", derived.join(", "));
    let Some(filter) = &plan.filter else { return select };
    let typed: Vec<String> = plan
        .sources
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let numeric = table
                .columns
                .iter()
                .find(|column| column.name.eq_ignore_ascii_case(name))
                .is_some_and(|column| is_number(&column.kind));
            let value =
                if numeric { format!("CAST(?{} AS NUMERIC)", at + 1) } else { format!("?{}", at + 1) };
            format!("{value} AS {}", quoted(name))
        })
        .collect();
    let typed = if typed.is_empty() { "1 AS \"\"".to_owned() } else { typed.join(", ") };
    format!("{select} WHERE (SELECT ({filter}) FROM (SELECT {typed}))")
}

/// `to_binary(text[, 'hex' | 'base64' | 'utf8'])`, hex when unsaid; NULL where the text is not of that form.
fn to_binary(ctx: &Context<'_>) -> rusqlite::Result<Value> {
    let Some(text) = ctx.get::<Option<String>>(0)? else {
        return Ok(Value::Null);
    };
    let form = if ctx.len() > 1 { ctx.get::<String>(1)? } else { "hex".to_owned() };
    let bytes = match form.to_ascii_lowercase().as_str() {
        "base64" | "encode64" => base64::engine::general_purpose::STANDARD.decode(&text).ok(),
        "utf8" => Some(text.into_bytes()),
        _ => hex_bytes(&text),
    };
    Ok(bytes.map_or(Value::Null, Value::Blob))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_number(kind: &ColumnType) -> bool {
    !matches!(
        kind,
        ColumnType::Char(_)
            | ColumnType::Varchar(_)
            | ColumnType::Date
            | ColumnType::DateTime
            | ColumnType::Json
    )
}
