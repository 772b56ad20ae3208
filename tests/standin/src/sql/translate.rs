//! From StarRocks' SELECT to SQLite's: names of tables become their views, literals take the layout of the column
//! they are compared with, functions and operators that differ are replaced. Works on the parsed tree; text is only
//! made at the end, by the parser's own printer.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::types::Value as Bound;
use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, TableAlias,
    TableFactor, UnaryOperator, Value, VisitMut, VisitorMut,
};

use super::kinds::cast_target;
use super::words::TableName;
use super::{Server, Session, SqlError};
use crate::catalog;
use crate::store::functions::{NUMERIC_COLLATION, value_of};
use crate::store::{Table, quote};
use crate::types::{Column, ColumnType, Storage, convert};

/// A query for SQLite.
pub(super) struct Translated {
    pub(super) sql: String,
    /// The type of each result column as far as the text tells; empty with `*`, whose columns SQLite knows.
    pub(super) kinds: Vec<Option<ColumnType>>,
    /// Tables of `information_schema` it reads: to be filled before.
    pub(super) schema_tables: BTreeSet<&'static str>,
}

/// Translates a whole query.
pub(super) fn translate(
    server: &Server,
    session: &Session,
    mut query: Query,
) -> Result<Translated, SqlError> {
    let mut scope = Scope::new(server, session);
    name_columns(&mut query);
    scope.resolve(&mut query)?;
    let kinds = kinds_of_columns(&mut query, &scope);
    scope.rewrite(&mut query)?;
    query.locks.clear();
    Ok(Translated { sql: query.to_string(), kinds, schema_tables: scope.schema_tables })
}

/// What the names of one statement mean.
pub(super) struct Scope<'a> {
    server: &'a Server,
    session: &'a Session,
    /// Tables with the name that stands before their columns.
    pub(super) tables: Vec<(String, Arc<Table>)>,
    common: BTreeSet<String>,
    schema_tables: BTreeSet<&'static str>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(server: &'a Server, session: &'a Session) -> Self {
        Self { server, session, tables: Vec::new(), common: BTreeSet::new(), schema_tables: BTreeSet::new() }
    }

    pub(super) fn add(&mut self, alias: &str, table: Arc<Table>) {
        self.tables.push((alias.to_owned(), table));
    }

    /// Points every table of the tree at its view.
    pub(super) fn resolve<T: VisitMut>(&mut self, tree: &mut T) -> Result<(), SqlError> {
        match tree.visit(&mut Resolver { scope: self }) {
            ControlFlow::Break(error) => Err(*error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// Replaces what SQLite reads otherwise than StarRocks.
    pub(super) fn rewrite<T: VisitMut>(&self, tree: &mut T) -> Result<(), SqlError> {
        match tree.visit(&mut Rewriter { scope: self }) {
            ControlFlow::Break(error) => Err(*error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }
}

/// Gives unnamed result columns the text they were written as.
fn name_columns(query: &mut Query) {
    let Some(select) = first_select(&mut query.body) else { return };
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let name = match &*expr {
            Expr::Identifier(ident) => ident.value.clone(),
            Expr::CompoundIdentifier(idents) => {
                idents.last().map_or_else(String::new, |ident| ident.value.clone())
            }
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => format!("'{text}'"),
                other => other.to_string(),
            },
            other => other.to_string(),
        };
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: quoted(&name) };
    }
}

/// The types of the result columns as far as their text tells; none at all with `*`.
fn kinds_of_columns(query: &mut Query, scope: &Scope<'_>) -> Vec<Option<ColumnType>> {
    let Some(select) = first_select(&mut query.body) else { return Vec::new() };
    let kinds: Vec<Option<ColumnType>> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, .. } => Some(scope.kind_of(expr)),
            _ => None,
        })
        .collect();
    if kinds.len() == select.projection.len() { kinds } else { Vec::new() }
}

fn first_select(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first_select(&mut query.body),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}

/// An identifier in quotes that SQLite never takes for anything else.
pub(super) fn quoted(name: &str) -> Ident {
    Ident::with_quote('`', name)
}

/// Text that is printed as it stands.
fn raw(sql: String) -> Expr {
    Expr::Value(Value::Placeholder(sql).into())
}

/// A text literal of SQLite.
pub(super) fn text_literal(text: &str) -> String {
    if text.contains('\0') {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        return format!("CAST(X'{hex}' AS TEXT)");
    }
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn function_name(function: &Function) -> String {
    function
        .name
        .0
        .last()
        .and_then(|part| part.as_ident())
        .map(|ident| ident.value.to_ascii_lowercase())
        .unwrap_or_default()
}

pub(super) fn plain_arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    list.args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect()
}

fn call(name: &str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

struct Resolver<'a, 'b> {
    scope: &'a mut Scope<'b>,
}

impl Resolver<'_, '_> {
    fn table(&mut self, factor: &mut TableFactor) -> Result<(), SqlError> {
        let TableFactor::Table { name, alias, partitions, .. } = factor else { return Ok(()) };
        if let [ObjectNamePart::Identifier(only)] = name.0.as_slice()
            && self.scope.common.contains(&only.value)
        {
            return Ok(());
        }
        let found = TableName::resolve(name, self.scope.session)?;
        let alias_name = alias.as_ref().map_or_else(|| found.table.clone(), |alias| alias.name.value.clone());
        let alias =
            Some(TableAlias { explicit: true, name: quoted(&alias_name), columns: Vec::new(), at: None });
        if super::session::is_information_schema(&found.db) {
            let view = catalog::schema::table_behind(&found.table)
                .ok_or_else(|| SqlError::unknown_table(&found.db, &found.table))?;
            self.scope.schema_tables.insert(view);
            *factor = plain_factor(view, alias);
            return Ok(());
        }
        let table = self.scope.server.store.table(&found.db, &found.table)?;
        self.scope.server.demand(self.scope.session, crate::accounts::Right::Select, Some(&found.table))?;
        let slices = tablet_indexes(&table, partitions)?;
        self.scope.add(&alias_name, Arc::clone(&table));
        *factor = match slices {
            None => plain_factor(&table.view_name(), alias),
            Some(slices) => TableFactor::Derived {
                lateral: false,
                subquery: parse_query(&format!(
                    "SELECT * FROM {} WHERE sr_tablet(`{}`, {}) IN ({slices})",
                    table.view_name(),
                    table.first_key().name,
                    table.options.buckets
                ))?,
                alias,
                sample: None,
            },
        };
        Ok(())
    }
}

/// `TABLET(1, 2)` of a statement stands here as partitions named `$tablet 1`, `$tablet 2`: their bucket numbers.
fn tablet_indexes(table: &Table, partitions: &[Ident]) -> Result<Option<String>, SqlError> {
    let mut indexes = Vec::new();
    let mut limited = false;
    for partition in partitions {
        match partition.value.strip_prefix(super::query::TABLET_MARK) {
            Some(id) => {
                limited = true;
                let tablet = table.tablets().into_iter().find(|tablet| tablet.id.to_string() == id);
                let tablet = tablet.ok_or_else(|| SqlError::analysis(format_args!("Invalid tablet {id}")))?;
                indexes.push(tablet.index.to_string());
            }
            None if table.options.partitions.contains(&partition.value) => {}
            None => {
                return Err(SqlError::analysis(format_args!(
                    "Unknown partition '{}' in table '{}'",
                    partition.value, table.name
                )));
            }
        }
    }
    Ok(limited.then(|| indexes.join(", ")))
}

fn plain_factor(name: &str, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        alias,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn parse_query(sql: &str) -> Result<Box<Query>, SqlError> {
    let statement = super::words::split(sql)?.into_iter().next().unwrap_or_default();
    Ok(super::Words::new(statement).into_parser().parse_query()?)
}

impl VisitorMut for Resolver<'_, '_> {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        if let Some(with) = &query.with {
            self.scope.common.extend(with.cte_tables.iter().map(|cte| cte.alias.name.value.clone()));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        match self.table(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

struct Rewriter<'a, 'b> {
    scope: &'a Scope<'b>,
}

impl VisitorMut for Rewriter<'_, '_> {
    type Break = Box<SqlError>;

    /// Before the children: a literal beside a column still shows its text here.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Some(text) = literal_text(expr)
            && matches!(expr, Expr::UnaryOp { .. })
            && is_beyond_sqlite(&text)
        {
            *expr = raw(text_literal(&text));
        }
        self.fit_literals(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match self.replacement(expr) {
            Ok(Some(new)) => *expr = new,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(Box::new(error)),
        }
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_, '_> {
    /// Gives literals the layout of the column they are compared with, so that `'2024-01-01'` equals a midnight and
    /// an integer beyond 64 bits stays exact.
    fn fit_literals(&self, expr: &mut Expr) {
        match expr {
            Expr::BinaryOp { left, op, right } if is_comparison(op) => {
                if let Some(column) = self.scope.column(left).cloned() {
                    fit(&column, right);
                } else if let Some(column) = self.scope.column(right).cloned() {
                    fit(&column, left);
                }
            }
            Expr::Between { expr, low, high, .. } => {
                if let Some(column) = self.scope.column(expr).cloned() {
                    fit(&column, low);
                    fit(&column, high);
                }
            }
            Expr::InList { expr, list, .. } => {
                if let Some(column) = self.scope.column(expr).cloned() {
                    list.iter_mut().for_each(|item| fit(&column, item));
                }
            }
            _ => {}
        }
    }

    fn replacement(&self, expr: &mut Expr) -> Result<Option<Expr>, SqlError> {
        Ok(Some(match expr {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => raw(text_literal(text)),
                Value::Number(number, _) if is_beyond_sqlite(number) => raw(text_literal(number)),
                _ => return Ok(None),
            },
            Expr::TypedString(typed) => match typed.value.value.clone().into_string() {
                Some(text) => raw(text_literal(&text)),
                None => return Ok(None),
            },
            Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.starts_with('@') => {
                self.variable(&ident.value)?
            }
            Expr::CompoundIdentifier(idents) if idents[0].value.starts_with("@@") => {
                self.variable(&idents.last().expect("not empty").value)?
            }
            Expr::CompoundIdentifier(idents) if idents.len() > 2 => {
                Expr::CompoundIdentifier(idents.split_off(idents.len() - 2))
            }
            Expr::BinaryOp { left, op, right } => return Ok(self.binary(left, op, right)),
            Expr::Like { escape_char: escape @ None, .. } => {
                *escape = Some(Box::new(raw("'\\'".to_owned())));
                return Ok(None);
            }
            Expr::Cast { kind: CastKind::Cast | CastKind::TryCast, expr, data_type, .. } => {
                cast(expr, data_type)?
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let rest =
                    [substring_from.take(), substring_for.take()].into_iter().flatten().map(|part| *part);
                call("substr", std::iter::once((**expr).clone()).chain(rest))
            }
            Expr::Floor { expr, .. } => raw(format!(
                "CAST(sr_cast({expr} - ({expr} < CAST({expr} AS INTEGER)), 'BIGINT') AS INTEGER)"
            )),
            Expr::Function(function) => return self.function(function),
            _ => return Ok(None),
        }))
    }

    fn variable(&self, name: &str) -> Result<Expr, SqlError> {
        let bare = name.trim_start_matches('@');
        if name.starts_with('@') && !name.starts_with("@@") {
            return Ok(raw("NULL".to_owned()));
        }
        let value = self.scope.session.variable(bare).ok_or_else(|| {
            SqlError::new(
                opensrv_mysql::ErrorKind::ER_UNKNOWN_SYSTEM_VARIABLE,
                format!("Unknown system variable '{bare}'"),
            )
        })?;
        let number = value.parse::<i64>().is_ok();
        Ok(raw(if number { value } else { text_literal(&value) }))
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
        let exact = |name: &str| {
            let numeric =
                |expr: &Expr| self.scope.kind_of(expr).is_some_and(|kind| kind.storage() == Storage::Numeric);
            (numeric(left) || numeric(right)).then(|| call(name, [exact_operand(left), exact_operand(right)]))
        };
        match op {
            BinaryOperator::Plus => exact("sr_add"),
            BinaryOperator::Minus => exact("sr_sub"),
            BinaryOperator::Multiply => exact("sr_mul"),
            BinaryOperator::Divide => Some(raw(format!("(CAST({left} AS REAL) / {right})"))),
            BinaryOperator::MyIntegerDivide => Some(raw(format!("CAST({left} / {right} AS INTEGER)"))),
            BinaryOperator::Spaceship => {
                Some(Expr::IsNotDistinctFrom(Box::new(left.clone()), Box::new(right.clone())))
            }
            BinaryOperator::StringConcat => Some(raw(format!("({left} OR {right})"))),
            _ => None,
        }
    }

    fn function(&self, function: &mut Function) -> Result<Option<Expr>, SqlError> {
        let name = function_name(function);
        let arguments: Vec<Expr> = plain_arguments(function).into_iter().cloned().collect();
        let session = self.scope.session;
        let user = || text_literal(&format!("'{}'@'%'", session.entry().state().user));
        let renamed = |new: &str| Ok(Some(call(new, arguments.clone())));
        Ok(Some(match name.as_str() {
            "connection_id" => raw(session.entry().id.to_string()),
            "database" | "schema" => raw(session.database.as_deref().map_or("NULL".to_owned(), text_literal)),
            "user" | "current_user" | "session_user" => raw(user()),
            "current_version" => raw(text_literal(&self.scope.server.version())),
            "version" => raw(text_literal(&session.variable("version").unwrap_or_default())),
            "now" | "current_timestamp" | "localtime" | "localtimestamp" => {
                raw("datetime('now', 'localtime')".to_owned())
            }
            "curdate" | "current_date" => raw("date('now', 'localtime')".to_owned()),
            "concat" => raw(format!(
                "({})",
                arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(" || ")
            )),
            "mod" if arguments.len() == 2 => raw(format!("({} % {})", arguments[0], arguments[1])),
            "to_json" => match arguments.first() {
                Some(nested) => raw(format!("CAST(sr_cast({nested}, 'JSON') AS TEXT)")),
                None => return Ok(None),
            },
            "length" => return renamed("octet_length"),
            "char_length" | "character_length" => return renamed("length"),
            "greatest" => return renamed("max"),
            "least" => return renamed("min"),
            "any_value" => return renamed("min"),
            "ndv" | "approx_count_distinct" => raw(format!(
                "COUNT(DISTINCT {})",
                arguments.first().ok_or_else(|| {
                    SqlError::analysis(format_args!("No matching function with signature: {name}()"))
                })?
            )),
            _ => return Ok(None),
        }))
    }
}

/// A number that SQLite would keep as a double, with fewer digits than it has.
fn is_beyond_sqlite(number: &str) -> bool {
    number.len() > 15 && number.parse::<i64>().is_err()
}

/// A decimal literal as text, for arithmetic that is exact on text.
fn exact_operand(operand: &Expr) -> Expr {
    match operand {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) if !number.contains(['e', 'E']) => raw(text_literal(number)),
            _ => operand.clone(),
        },
        _ => operand.clone(),
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::Spaceship
    )
}

/// A literal in the layout of `column`, where it has one there.
fn fit(column: &Column, literal: &mut Expr) {
    let Some(text) = literal_text(literal) else { return };
    match column.kind {
        ColumnType::LargeInt | ColumnType::Decimal { .. } => *literal = raw(text_literal(&text)),
        // A datetime against a date column keeps its time: it lies after the date.
        ColumnType::Date | ColumnType::DateTime => {
            let moment = Column::new("", ColumnType::DateTime);
            if let Ok(stored) = convert(&moment, Some(text.as_bytes()))
                && let Bound::Text(mut text) = value_of(stored)
            {
                if column.kind == ColumnType::Date && text.ends_with(" 00:00:00") {
                    text.truncate(10);
                }
                *literal = raw(text_literal(&text));
            }
        }
        _ => {}
    }
}

/// The text of a string or number.
fn literal_text(literal: &Expr) -> Option<String> {
    match literal {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Some(text.clone()),
            Value::Number(number, _) => Some(number.clone()),
            _ => None,
        },
        Expr::TypedString(typed) => typed.value.value.clone().into_string(),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => Some(format!("-{number}")),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// A conversion by the rules of column types. Exact numbers compare and sort by value.
fn cast(expr: &Expr, data_type: &DataType) -> Result<Expr, SqlError> {
    let kind = cast_target(data_type)
        .ok_or_else(|| SqlError::analysis(format_args!("Invalid type cast to '{data_type}'")))?;
    let converted = format!("sr_cast({expr}, '{kind}')");
    Ok(raw(match kind.storage() {
        Storage::Int => format!("CAST({converted} AS INTEGER)"),
        Storage::Real => format!("CAST({converted} AS REAL)"),
        Storage::Numeric => format!("(CAST({converted} AS TEXT) COLLATE {NUMERIC_COLLATION})"),
        Storage::Text => format!("CAST({converted} AS TEXT)"),
        Storage::Blob => format!("CAST({expr} AS BLOB)"),
    }))
}

/// A column name for SQLite text made by hand.
pub(super) fn column_name(name: &str) -> String {
    quote(name)
}
