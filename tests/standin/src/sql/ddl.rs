//! Databases and tables: CREATE, DROP, TRUNCATE, ALTER .. SWAP, and the DDL text that SHOW CREATE TABLE gives back.
//! All are synchronous. Clauses that decide where rows lie are kept for show.

use std::fmt::Write as _;

use sqlparser::tokenizer::Token;

use super::words::TableName;
use super::{Outcome, Server, Session, SqlError, Words, dml, query};
use crate::store::{Model, StoreError, Table, TableDef, TableOptions};
use crate::types::{Column, ColumnType, Storage};

/// Buckets where the statement leaves the number to the server.
const BUCKETS_DEFAULT: u32 = 4;

/// `CREATE DATABASE`, `CREATE TABLE`, `CREATE TABLE .. LIKE`, `CREATE TABLE .. AS SELECT`.
pub(super) fn create(server: &Server, session: &Session, mut words: Words) -> Result<Outcome, SqlError> {
    words.expect("CREATE")?;
    if words.eat("DATABASE") || words.eat("SCHEMA") {
        let if_not_exists = words.eat("IF NOT EXISTS");
        let name = words.identifier()?;
        return tolerate(server.store.create_database(&name), if_not_exists);
    }
    let _ = words.eat("EXTERNAL") || words.eat("TEMPORARY");
    words.expect("TABLE")?;
    let if_not_exists = words.eat("IF NOT EXISTS");
    let name = words.table_name(session)?;
    if words.eat("LIKE") {
        let model = words.table_name(session)?;
        let definition = server.store.table(&model.db, &model.table)?.definition();
        return tolerate(server.store.create_table(&name.db, &name.table, definition), if_not_exists);
    }
    if !words.is_at(0, "(") || is_name_list(&words) {
        return create_as_select(server, session, words, &name, if_not_exists);
    }
    let definition = table_definition(&mut words)?;
    tolerate(server.store.create_table(&name.db, &name.table, definition), if_not_exists)
}

/// `(a, b)` holds names only, `(a INT, ..)` holds definitions.
fn is_name_list(words: &Words) -> bool {
    words.is_at(2, ",") || words.is_at(2, ")")
}

fn tolerate(result: Result<(), StoreError>, if_not_exists: bool) -> Result<Outcome, SqlError> {
    match result {
        Err(StoreError::DatabaseExists(_) | StoreError::TableExists { .. }) if if_not_exists => {
            Ok(Outcome::Changed(0))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Outcome::Changed(0)),
    }
}

/// `DROP DATABASE` and `DROP TABLE`, with `IF EXISTS` and `FORCE`.
pub(super) fn drop(server: &Server, session: &Session, words: &mut Words) -> Result<Outcome, SqlError> {
    words.expect("DROP")?;
    let result = if words.eat("DATABASE") || words.eat("SCHEMA") {
        let if_exists = words.eat("IF EXISTS");
        (server.store.drop_database(&words.identifier()?), if_exists)
    } else {
        words.expect("TABLE")?;
        let if_exists = words.eat("IF EXISTS");
        let name = words.table_name(session)?;
        (server.store.drop_table(&name.db, &name.table), if_exists)
    };
    match result {
        (Err(StoreError::UnknownDatabase(_) | StoreError::UnknownTable { .. }), true) => {
            Ok(Outcome::Changed(0))
        }
        (result, _) => result.map(|()| Outcome::Changed(0)).map_err(SqlError::from),
    }
}

/// `TRUNCATE TABLE t [PARTITION (p)]`; all rows lie in the one partition.
pub(super) fn truncate(server: &Server, session: &Session, words: &mut Words) -> Result<Outcome, SqlError> {
    words.expect("TRUNCATE TABLE")?;
    let name = words.table_name(session)?;
    let table = server.store.table(&name.db, &name.table)?;
    server.store.truncate(&table)?;
    Ok(Outcome::Changed(0))
}

/// `ALTER TABLE a SWAP WITH b`; other changes of a table are refused.
pub(super) fn alter(server: &Server, session: &Session, words: &mut Words) -> Result<Outcome, SqlError> {
    words.expect("ALTER TABLE")?;
    let name = words.table_name(session)?;
    words.expect("SWAP WITH")?;
    let other = words.identifier()?;
    server.store.swap(&name.db, &name.table, &other)?;
    Ok(Outcome::Changed(0))
}

fn create_as_select(
    server: &Server,
    session: &Session,
    mut words: Words,
    name: &TableName,
    if_not_exists: bool,
) -> Result<Outcome, SqlError> {
    let given = if words.is_at(0, "(") { words.names_in_parentheses()? } else { Vec::new() };
    let mut options = clauses(&mut words)?;
    words.expect("AS")?;
    let translated = query::parse(server, session, words)?;
    let mut columns = query::columns_of(server, &translated)?;
    for (column, name) in columns.iter_mut().zip(given) {
        column.name = name;
    }
    finish(&mut columns, &mut options, Model::Duplicate);
    let definition = TableDef { columns, model: Model::Duplicate, options };
    match server.store.create_table(&name.db, &name.table, definition) {
        Err(StoreError::TableExists { .. }) if if_not_exists => return Ok(Outcome::Changed(0)),
        result => result?,
    }
    let table = server.store.table(&name.db, &name.table)?;
    dml::copy_all(server, session, &table, &translated.sql).map(Outcome::Changed)
}

/// Everything from the opening parenthesis on.
fn table_definition(words: &mut Words) -> Result<TableDef, SqlError> {
    words.expect("(")?;
    let mut columns = Vec::new();
    loop {
        if words.eat("INDEX") {
            skip_to_comma(words)?;
        } else {
            columns.push(column(words)?);
        }
        if words.eat(")") {
            break;
        }
        words.expect(",")?;
    }
    let mut model = None;
    let mut options = TableOptions::default();
    clauses_into(words, &mut options, &mut model)?;
    if !words.is_done() {
        return Err(words.unexpected());
    }
    let model = model.unwrap_or_else(|| {
        if columns.iter().any(|column| column.aggregation.is_some()) {
            Model::Aggregate
        } else {
            Model::Duplicate
        }
    });
    if let Some(missing) =
        options.keys.iter().find(|key| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(key)))
    {
        return Err(SqlError::analysis(format_args!("Key column[{missing}] doesn't exist in the table")));
    }
    finish(&mut columns, &mut options, model);
    Ok(TableDef { columns, model, options })
}

/// Marks keys and fills in what was left to the server.
fn finish(columns: &mut [Column], options: &mut TableOptions, model: Model) {
    if options.keys.is_empty() {
        let marked: Vec<String> =
            columns.iter().filter(|column| column.key).map(|column| column.name.clone()).collect();
        let first = || columns.first().map(|column| column.name.clone()).into_iter().collect();
        let before_values = || {
            columns
                .iter()
                .take_while(|column| column.aggregation.is_none())
                .map(|column| column.name.clone())
                .collect()
        };
        options.keys = match (marked.is_empty(), model) {
            (false, _) => marked,
            (true, Model::Aggregate) => before_values(),
            (true, _) => first(),
        };
    }
    for column in columns {
        column.key = options.keys.iter().any(|key| key.eq_ignore_ascii_case(&column.name));
        if column.key && model == Model::Primary {
            column.nullable = false;
        }
    }
    if options.buckets == 0 {
        options.buckets = BUCKETS_DEFAULT;
    }
    if options.partitions.is_empty() {
        options.partitions.push("$default".to_owned());
    }
}

fn column(words: &mut Words) -> Result<Column, SqlError> {
    let name = words.identifier()?;
    let kind = column_type(words)?;
    let mut column = Column::new(name, kind);
    loop {
        if words.eat("NOT NULL") {
            column.nullable = false;
        } else if words.eat("NULL") {
            column.nullable = true;
        } else if words.eat("KEY") {
            column.key = true;
        } else if words.eat("DEFAULT") {
            column.default = default_value(words)?;
        } else if words.eat("COMMENT") {
            column.comment = words.string()?;
        } else if words.eat("AUTO_INCREMENT") {
        } else if words.eat("CHARACTER SET") || words.eat("CHARSET") || words.eat("COLLATE") {
            words.identifier()?;
        } else if let Some(aggregation) = AGGREGATIONS.iter().find(|word| words.eat(word)) {
            if *aggregation != "REPLACE" {
                return Err(SqlError::analysis(format_args!(
                    "the stand-in does not aggregate by {aggregation}"
                )));
            }
            column.aggregation = Some((*aggregation).to_owned());
        } else {
            return Ok(column);
        }
    }
}

const AGGREGATIONS: [&str; 7] =
    ["SUM", "MAX", "MIN", "REPLACE", "REPLACE_IF_NOT_NULL", "HLL_UNION", "BITMAP_UNION"];

/// `DEFAULT NULL`, a literal, `CURRENT_TIMESTAMP`, or an expression in parentheses; only literals are kept.
fn default_value(words: &mut Words) -> Result<Option<String>, SqlError> {
    if words.eat("NULL") {
        return Ok(None);
    }
    if words.is_at(0, "(") {
        words.parenthesized()?;
        return Ok(None);
    }
    if words.eat("CURRENT_TIMESTAMP") {
        if words.is_at(0, "(") {
            words.parenthesized()?;
        }
        return Ok(None);
    }
    words.value().map(Some)
}

fn column_type(words: &mut Words) -> Result<ColumnType, SqlError> {
    let name = words.identifier()?;
    if ["ARRAY", "MAP", "STRUCT"].iter().any(|nested| name.eq_ignore_ascii_case(nested)) {
        return nested_type(words, &name).map(ColumnType::Nested);
    }
    let mut args = Vec::new();
    if words.eat("(") {
        loop {
            if words.eat("*") {
                args.push(crate::types::STRING_BYTES_MAX);
            } else {
                args.push(words.number()?);
            }
            if words.eat(")") {
                break;
            }
            words.expect(",")?;
        }
    }
    // INT(11) and the like: a display width, which means nothing.
    ColumnType::from_words(&name, &args)
        .ok_or_else(|| SqlError::syntax(format_args!("Unknown type '{name}' with {} arguments", args.len())))
}

/// `<..>` after ARRAY, MAP or STRUCT, to its matching end; the tokenizer may have joined two ends to `>>`.
fn nested_type(words: &mut Words, name: &str) -> Result<String, SqlError> {
    let mut text = name.to_ascii_uppercase();
    let mut depth = 0_i32;
    loop {
        let token = words.next().ok_or_else(|| SqlError::syntax("a nested type does not end"))?;
        match token {
            Token::Lt => depth += 1,
            Token::Gt => depth -= 1,
            Token::ShiftRight => depth -= 2,
            _ => {}
        }
        if matches!(token, Token::Word(_)) && text.ends_with(|last: char| last.is_alphanumeric()) {
            text.push(' ');
        }
        let _ = write!(text, "{token}");
        if depth <= 0 {
            return Ok(text);
        }
    }
}

fn clauses(words: &mut Words) -> Result<TableOptions, SqlError> {
    let mut options = TableOptions::default();
    clauses_into(words, &mut options, &mut None)?;
    Ok(options)
}

/// What may follow the columns, in any order.
fn clauses_into(
    words: &mut Words,
    options: &mut TableOptions,
    model: &mut Option<Model>,
) -> Result<(), SqlError> {
    loop {
        if words.eat("ENGINE") {
            words.expect("=")?;
            words.identifier()?;
        } else if words.eat("DUPLICATE KEY") {
            (*model, options.keys) = (Some(Model::Duplicate), words.names_in_parentheses()?);
        } else if words.eat("PRIMARY KEY") {
            (*model, options.keys) = (Some(Model::Primary), words.names_in_parentheses()?);
        } else if words.eat("UNIQUE KEY") {
            (*model, options.keys) = (Some(Model::Unique), words.names_in_parentheses()?);
        } else if words.eat("AGGREGATE KEY") {
            (*model, options.keys) = (Some(Model::Aggregate), words.names_in_parentheses()?);
        } else if words.eat("COMMENT") {
            options.comment = words.string()?;
        } else if words.eat("PARTITION BY") {
            partition_by(words, options)?;
        } else if words.eat("DISTRIBUTED BY") {
            if words.eat("HASH") {
                options.distributed_by = words.names_in_parentheses()?;
            } else {
                words.expect("RANDOM")?;
            }
            if words.eat("BUCKETS") && !words.eat("AUTO") {
                options.buckets = words.number()?;
            }
        } else if words.eat("ORDER BY") {
            options.order_by = words.names_in_parentheses()?;
        } else if words.eat("PROPERTIES") {
            properties(words, options)?;
        } else {
            return Ok(());
        }
    }
}

/// `RANGE (c) (PARTITION p VALUES ..)`, `LIST (..) (..)`, `date_trunc('day', c)` or `(a, b)`. Rows of all partitions
/// lie together; only the names are kept apart.
fn partition_by(words: &mut Words, options: &mut TableOptions) -> Result<(), SqlError> {
    let form = if words.is_at(0, "(") { String::new() } else { words.identifier()? };
    let columns = words.parenthesized()?;
    options.partition_by = format!("{form}({columns})");
    if words.is_at(0, "(") {
        let body = words.parenthesized()?;
        let mut names = body.split_whitespace();
        while let Some(word) = names.next() {
            if word.trim_start_matches([',', '(']).eq_ignore_ascii_case("PARTITION")
                && let Some(name) = names.next()
            {
                options.partitions.push(name.trim_matches('`').to_owned());
            }
        }
    }
    Ok(())
}

fn properties(words: &mut Words, options: &mut TableOptions) -> Result<(), SqlError> {
    words.expect("(")?;
    loop {
        let name = words.value()?;
        words.expect("=")?;
        options.properties.push((name, words.value()?));
        if words.eat(")") {
            return Ok(());
        }
        words.expect(",")?;
    }
}

fn skip_to_comma(words: &mut Words) -> Result<(), SqlError> {
    while !words.is_at(0, ",") && !words.is_at(0, ")") {
        if words.is_at(0, "(") {
            words.parenthesized()?;
        } else if words.next().is_none() {
            return Err(words.unexpected());
        }
    }
    Ok(())
}

/// The DDL of a table.
pub(crate) fn create_text(table: &Table) -> String {
    let mut text = format!("CREATE TABLE `{}` (\n", table.name);
    for (at, column) in table.columns.iter().enumerate() {
        let _ = write!(text, "  `{}` {}", column.name, show_type(&column.kind));
        if let Some(aggregation) = &column.aggregation {
            let _ = write!(text, " {aggregation}");
        }
        text.push_str(if column.nullable { " NULL" } else { " NOT NULL" });
        if let Some(default) = &column.default {
            let _ = write!(text, " DEFAULT \"{default}\"");
        }
        let _ = write!(text, " COMMENT \"{}\"", column.comment);
        text.push_str(if at + 1 < table.columns.len() { ",\n" } else { "\n" });
    }
    let options = &table.options;
    let model = match table.model {
        Model::Duplicate => "DUPLICATE",
        Model::Primary => "PRIMARY",
        Model::Unique => "UNIQUE",
        Model::Aggregate => "AGGREGATE",
    };
    let _ = write!(text, ") ENGINE=OLAP \n{model} KEY({})\n", names(&options.keys));
    if !options.comment.is_empty() {
        let _ = writeln!(text, "COMMENT \"{}\"", options.comment);
    }
    if !options.partition_by.is_empty() {
        let _ = writeln!(text, "PARTITION BY {}", options.partition_by);
    }
    if options.distributed_by.is_empty() {
        let _ = writeln!(text, "DISTRIBUTED BY RANDOM BUCKETS {} ", options.buckets);
    } else {
        let _ = writeln!(
            text,
            "DISTRIBUTED BY HASH({}) BUCKETS {} ",
            names(&options.distributed_by),
            options.buckets
        );
    }
    if !options.order_by.is_empty() {
        let _ = writeln!(text, "ORDER BY({})", names(&options.order_by));
    }
    let properties: Vec<String> =
        all_properties(options).iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"")).collect();
    let _ = write!(text, "PROPERTIES (\n{}\n);", properties.join(",\n"));
    text
}

/// The table's own properties after those that every table has.
pub(crate) fn all_properties(options: &TableOptions) -> Vec<(String, String)> {
    let mut all =
        vec![("compression".to_owned(), "LZ4".to_owned()), ("replication_num".to_owned(), "1".to_owned())];
    for (name, value) in &options.properties {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1.clone_from(value),
            None => all.push((name.clone(), value.clone())),
        }
    }
    all
}

pub(crate) fn names(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A type as DESC and SHOW CREATE TABLE write it.
pub(crate) fn show_type(kind: &ColumnType) -> String {
    match kind {
        ColumnType::TinyInt => "tinyint(4)".to_owned(),
        ColumnType::SmallInt => "smallint(6)".to_owned(),
        ColumnType::Int => "int(11)".to_owned(),
        ColumnType::BigInt => "bigint(20)".to_owned(),
        ColumnType::LargeInt => "largeint(40)".to_owned(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision}, {scale})"),
        kind if kind.storage() == Storage::Int => "boolean".to_owned(),
        kind => kind.to_string().to_lowercase(),
    }
}
