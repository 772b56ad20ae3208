//! INSERT, DELETE and UPDATE: each its own transaction, seen at once when it is done. Values pass `convert` like those
//! of a load.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Insert, Query, SetExpr, Statement, TableFactor,
    TableObject, TableWithJoins, Update,
};

use super::translate::{Scope, column_name, quoted, text_literal};
use super::words::TableName;
use super::{Outcome, Server, Session, SqlError, Words, query, translate};
use crate::accounts::Right;
use crate::store::{Model, StoreError, Table};
use crate::types::{Column, ColumnType, Stored, convert};

/// `INSERT INTO t [(columns)] VALUES ..` or `SELECT ..`; `INSERT OVERWRITE` empties the table first.
pub(super) fn insert(server: &Server, session: &Session, words: Words) -> Result<Outcome, SqlError> {
    let Statement::Insert(insert) = words.into_parser().parse_statement()? else {
        return Err(SqlError::syntax("not an INSERT"));
    };
    let Insert { table: TableObject::TableName(name), columns, source: Some(mut source), overwrite, .. } =
        insert
    else {
        return Err(SqlError::syntax("INSERT needs a table and VALUES or SELECT"));
    };
    let name = TableName::resolve(&name, session)?;
    let table = server.store.table(&name.db, &name.table)?;
    server.demand(session, Right::Insert, Some(&name.table))?;
    let targets = if columns.is_empty() {
        (0..table.columns.len()).collect()
    } else {
        let named = columns.iter().filter_map(|name| name.0.last()?.as_ident());
        named
            .map(|ident| {
                table.position(&ident.value).ok_or_else(|| {
                    SqlError::analysis(format_args!("Unknown column '{}' in '{}'", ident.value, table.name))
                })
            })
            .collect::<Result<Vec<usize>, _>>()?
    };
    check_width(&source, targets.len())?;
    fill_defaults(&mut source, &table, &targets);
    let translated = translate::translate(server, session, *source)?;
    if overwrite {
        server.store.truncate(&table)?;
    }
    copy(server, session, &table, &targets, &translated.sql).map(Outcome::Changed)
}

fn check_width(source: &Query, expected: usize) -> Result<(), SqlError> {
    if let SetExpr::Values(values) = source.body.as_ref()
        && values.rows.iter().any(|row| row.len() != expected)
    {
        return Err(SqlError::analysis("Column count doesn't match value count"));
    }
    Ok(())
}

/// Puts the column's default where VALUES says DEFAULT.
fn fill_defaults(source: &mut Query, table: &Table, targets: &[usize]) {
    let SetExpr::Values(values) = source.body.as_mut() else { return };
    for row in &mut values.rows {
        for (cell, &target) in row.iter_mut().zip(targets) {
            if matches!(cell, Expr::Identifier(ident) if ident.value.eq_ignore_ascii_case("default")) {
                let text = table.columns[target].default.as_deref().map_or("NULL".to_owned(), text_literal);
                *cell = Expr::Value(sqlparser::ast::Value::Placeholder(text).into());
            }
        }
    }
}

/// Writes the rows of a query into the columns `targets`; the others take their default. KILL ends it, without a row.
fn copy(
    server: &Server,
    session: &Session,
    table: &Arc<Table>,
    targets: &[usize],
    sql: &str,
) -> Result<u64, SqlError> {
    let reader = server.store.reader()?;
    session.entry().running_on(reader.killer());
    let result = copy_from(&reader, server, table, targets, sql);
    session.entry().stopped_reading();
    result.map_err(|error| query::stopped(&reader, 0).unwrap_or(error))
}

fn copy_from(
    reader: &Connection,
    server: &Server,
    table: &Arc<Table>,
    targets: &[usize],
    sql: &str,
) -> Result<u64, SqlError> {
    let mut statement = reader.prepare(sql)?;
    if statement.column_count() != targets.len() {
        return Err(SqlError::analysis("Column count doesn't match value count"));
    }
    let mut rows = statement.query([])?;
    let mut written = 0;
    let mut failed = None;
    server
        .store
        .write_visibly(table, |writer| {
            while let Some(row) = rows.next()? {
                let mut cells: Vec<Stored<'_>> = table.columns.iter().map(default_of).collect();
                for (at, &target) in targets.iter().enumerate() {
                    match stored(&table.columns[target], row.get_ref(at)?) {
                        Ok(cell) => cells[target] = cell,
                        Err(error) => return refuse(&mut failed, error),
                    }
                }
                if let Some(column) =
                    table.columns.iter().zip(&cells).find_map(|(column, cell)| {
                        (!column.nullable && *cell == Stored::Null).then_some(column)
                    })
                {
                    let detail = format!("NULL value in non-nullable column '{}'", column.name);
                    return refuse(&mut failed, SqlError::analysis(detail));
                }
                writer.push(&cells)?;
                written += 1;
            }
            Ok(())
        })
        .map_err(|error| failed.unwrap_or_else(|| error.into()))?;
    Ok(written)
}

fn refuse(failed: &mut Option<SqlError>, error: SqlError) -> Result<(), StoreError> {
    let text = error.to_string();
    *failed = Some(error);
    Err(StoreError::Statement(text))
}

fn default_of(column: &Column) -> Stored<'static> {
    let text = column.default.as_deref().map(str::as_bytes);
    text.and_then(|text| convert(column, Some(text)).ok()).map_or(Stored::Null, Stored::into_owned)
}

/// A value of SQLite as the column keeps it.
fn stored(column: &Column, value: ValueRef<'_>) -> Result<Stored<'static>, SqlError> {
    if column.kind == ColumnType::Varbinary
        && let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = value
    {
        return Ok(Stored::Blob(bytes.to_vec().into()));
    }
    let text = match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(plain_number(number).into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    };
    match convert(column, text.as_deref()) {
        Ok(stored) => Ok(stored.into_owned()),
        Err(error) => Err(SqlError::analysis(error)),
    }
}

/// Without an exponent, which decimals would not take.
fn plain_number(number: f64) -> String {
    format!("{number}")
}

/// `DELETE FROM t [WHERE ..]`.
pub(super) fn delete(server: &Server, session: &Session, words: Words) -> Result<Outcome, SqlError> {
    let Statement::Delete(delete) = words.into_parser().parse_statement()? else {
        return Err(SqlError::syntax("not a DELETE"));
    };
    let Delete {
        from: FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from), selection, ..
    } = delete;
    let (table, alias) = single_table(server, session, &from)?;
    let mut scope = Scope::new(server, session);
    scope.add(&alias, Arc::clone(&table));
    let condition = condition(&mut scope, selection)?;
    let victims = format!(
        "SELECT {} FROM ({}) AS {} WHERE {condition}",
        table.row_id().join(", "),
        table.row_source(),
        quoted(&alias)
    );
    Ok(Outcome::Changed(server.store.delete_rows(&table, &victims)?))
}

/// `UPDATE t SET .. WHERE ..` of a primary key table: the changed rows replace the old ones.
pub(super) fn update(server: &Server, session: &Session, words: Words) -> Result<Outcome, SqlError> {
    let Statement::Update(update) = words.into_parser().parse_statement()? else {
        return Err(SqlError::syntax("not an UPDATE"));
    };
    let Update { table: target, assignments, selection, .. } = update;
    let (table, alias) = single_table(server, session, std::slice::from_ref(&target))?;
    if table.model != Model::Primary {
        return Err(SqlError::analysis(format_args!(
            "table {} does not support update. Only primary key table support update",
            table.name
        )));
    }
    let mut scope = Scope::new(server, session);
    scope.add(&alias, Arc::clone(&table));
    let mut values: Vec<String> = table.columns.iter().map(|column| column_name(&column.name)).collect();
    for Assignment { target, mut value } in assignments {
        let AssignmentTarget::ColumnName(name) = &target else {
            return Err(SqlError::syntax("UPDATE sets one column at a time"));
        };
        let name = name
            .0
            .last()
            .and_then(|part| part.as_ident())
            .map(|ident| ident.value.clone())
            .unwrap_or_default();
        let at = table.position(&name).ok_or_else(|| {
            SqlError::analysis(format_args!("table '{}' do not existing column '{name}'", table.name))
        })?;
        if table.columns[at].key {
            return Err(SqlError::analysis(format_args!("primary key column cannot be updated: {name}")));
        }
        scope.resolve(&mut value)?;
        scope.rewrite(&mut value)?;
        values[at] = value.to_string();
    }
    let condition = condition(&mut scope, selection)?;
    let sql = format!(
        "SELECT {} FROM {} AS {} WHERE {condition}",
        values.join(", "),
        table.view_name(),
        quoted(&alias)
    );
    let targets: Vec<usize> = (0..table.columns.len()).collect();
    copy(server, session, &table, &targets, &sql).map(Outcome::Changed)
}

fn condition(scope: &mut Scope<'_>, selection: Option<Expr>) -> Result<String, SqlError> {
    let Some(mut selection) = selection else { return Ok("TRUE".to_owned()) };
    scope.resolve(&mut selection)?;
    scope.rewrite(&mut selection)?;
    Ok(selection.to_string())
}

fn single_table(
    server: &Server,
    session: &Session,
    from: &[TableWithJoins],
) -> Result<(Arc<Table>, String), SqlError> {
    let [TableWithJoins { relation: TableFactor::Table { name, alias, .. }, joins }] = from else {
        return Err(SqlError::analysis("the statement changes exactly one table"));
    };
    if !joins.is_empty() {
        return Err(SqlError::analysis("the statement changes exactly one table"));
    }
    let name = TableName::resolve(name, session)?;
    let alias = alias.as_ref().map_or_else(|| name.table.clone(), |alias| alias.name.value.clone());
    Ok((server.store.table(&name.db, &name.table)?, alias))
}

/// Rows of `CREATE TABLE .. AS SELECT`.
pub(super) fn copy_all(
    server: &Server,
    session: &Session,
    table: &Arc<Table>,
    sql: &str,
) -> Result<u64, SqlError> {
    let targets: Vec<usize> = (0..table.columns.len()).collect();
    copy(server, session, table, &targets, sql)
}
