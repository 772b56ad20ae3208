//! Where a step's rows come from or go to: data source, database and table. A reader may name many: lists, ranges such as
//! `trade_[00-15]`, several `connection`s, or `querySql` in their place (the MySQL reader's page of DataWorks, DataX).

use std::collections::HashSet;

use serde_json::Value;

use super::faults::Faults;
use super::fields::Object;
use super::reader::{IGNORED, is_empty};
use super::sql;
use crate::job::{Relation, RelationSpec};

/// Most tables of one job: each is asked for its size and keys before anything begins.
const RELATIONS_MOST: usize = 10_000;

/// All that the reader names, at least one. Fields of a `connection` win over those beside it.
pub(super) fn read(parameter: &Object<'_>, faults: &Faults) -> Option<Vec<RelationSpec>> {
    let connections = connections(parameter, faults)?;
    let holders: Vec<&Object<'_>> =
        if connections.is_empty() { vec![parameter] } else { connections.iter().collect() };
    for key in ["table", "querySql"] {
        if !connections.is_empty() && parameter.get(key).is_some_and(|value| !is_empty(value)) {
            let message = format!("{key} stands in parameter and there is a connection; one of them must go");
            faults.error(&parameter.place(key), message, "remove one");
            return None;
        }
    }
    let mut relations = Vec::new();
    let mut all_read = true;
    for holder in holders {
        match read_holder(holder, parameter, faults) {
            Some(found) => relations.extend(found),
            None => all_read = false,
        }
    }
    if !all_read {
        return None;
    }
    check(&relations, parameter, faults).then_some(relations)
}

/// The writer's one table: its name, and where it is.
pub(super) fn read_one(parameter: &Object<'_>, faults: &Faults) -> Option<(String, RelationSpec)> {
    let mut relations = read(parameter, faults)?;
    let place = parameter.place("table");
    if relations.len() > 1 {
        let message = format!("{} tables are given; a writer has one", relations.len());
        faults.error(&place, message, "write one job for each target table");
        return None;
    }
    let relation = relations.pop()?;
    let Relation::Table(table) = &relation.relation else {
        faults.error(&place, "a writer writes to a table, not to querySql", "name the table");
        return None;
    };
    Some((table.clone(), relation))
}

/// The entries of `connection`; none when it is not there. `None`: told already.
fn connections<'a>(parameter: &Object<'a>, faults: &'a Faults) -> Option<Vec<Object<'a>>> {
    let list = match parameter.get("connection") {
        None => return Some(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => {
            parameter.wrong_type("connection", other, "must be a list of objects");
            return None;
        }
    };
    let mut entries = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let place = format!("{}/{index}", parameter.place("connection"));
        let Value::Object(map) = value else {
            faults.error(&place, "a connection must be an object", "");
            return None;
        };
        let entry = Object::new(place, map, faults);
        entry.refuse_unknown_keys(&["datasource", "selectedDatabase", "table", "querySql"], IGNORED);
        entries.push(entry);
    }
    Some(entries)
}

fn read_holder(holder: &Object<'_>, parameter: &Object<'_>, faults: &Faults) -> Option<Vec<RelationSpec>> {
    let datasource = match holder.get("datasource") {
        None => parameter.required_text("datasource", "the name of a data source"),
        Some(_) => holder.required_text("datasource", "the name of a data source"),
    };
    let selected = holder.text("selectedDatabase").or_else(|| parameter.text("selectedDatabase"));
    let selected = selected.map(|name| sql::unquote(&name).unwrap_or(name));
    let given = |key: &str| holder.get(key).is_some_and(|value| !is_empty(value));
    if given("table") && given("querySql") {
        faults.error(&holder.place("querySql"), "table and querySql exclude each other", "remove one");
        return None;
    }
    if given("querySql") {
        let queries = read_queries(holder, faults)?;
        let datasource = datasource?;
        let relation = |query| RelationSpec {
            datasource: datasource.clone(),
            database: selected.clone(),
            relation: Relation::Query(query),
        };
        return Some(queries.into_iter().map(relation).collect());
    }
    let tables = read_tables(holder, selected.as_deref(), faults);
    let (datasource, tables) = (datasource?, tables?);
    let relation = |(database, table)| RelationSpec {
        datasource: datasource.clone(),
        database,
        relation: Relation::Table(table),
    };
    Some(tables.into_iter().map(relation).collect())
}

/// One SELECT each.
fn read_queries(holder: &Object<'_>, faults: &Faults) -> Option<Vec<String>> {
    let mut queries = Vec::new();
    let mut all_read = true;
    for (place, text) in holder.texts("querySql") {
        let fault = match sql::split_statements(&text) {
            Err(fault) => format!("{} of querySql", fault.describe(&text)),
            Ok(statements) => match statements.as_slice() {
                [statement] if sql::is_select(statement) => {
                    queries.push(statement.clone());
                    continue;
                }
                [_] => "querySql must be a SELECT".to_owned(),
                several => format!("querySql holds {} statements; it must be one SELECT", several.len()),
            },
        };
        faults.error(&place, fault, "each element of querySql is one SELECT");
        all_read = false;
    }
    all_read.then_some(queries)
}

type DatabaseAndTable = (Option<String>, String);

fn read_tables(
    holder: &Object<'_>,
    selected: Option<&str>,
    faults: &Faults,
) -> Option<Vec<DatabaseAndTable>> {
    let texts = holder.texts("table");
    if texts.is_empty() {
        if holder.get("table").is_none_or(is_empty) {
            let message = "parameter.table is required";
            faults.error(&holder.place("table"), message, "the name of a table, or a list of them");
        }
        return None;
    }
    let mut tables = Vec::new();
    let mut all_read = true;
    for (place, text) in &texts {
        for name in sql::split_list(text) {
            let expanded = expand(name).and_then(|names| {
                names.into_iter().map(|name| qualified(&name, selected)).collect::<Result<Vec<_>, _>>()
            });
            match expanded {
                Ok(expanded) if tables.len() + expanded.len() <= RELATIONS_MOST => tables.extend(expanded),
                Ok(_) => {
                    let message = format!("more than {RELATIONS_MOST} tables");
                    faults.error(place, message, "write several jobs");
                    return None;
                }
                Err(fault) => {
                    faults.error(place, fault, "put a name with other characters into backticks");
                    all_read = false;
                }
            }
        }
    }
    all_read.then_some(tables)
}

/// Database, if the name or the step says one, and table.
fn qualified(name: &str, selected: Option<&str>) -> Result<DatabaseAndTable, String> {
    let mut parts = sql::name_parts(name).unwrap_or_default();
    let (Some(table), database, true) = (parts.pop(), parts.pop(), parts.is_empty()) else {
        return Err(format!("table must be a name or database.name, not \"{name}\""));
    };
    match (selected, &database) {
        (Some(selected), Some(database)) if selected != database => {
            Err(format!("table names database \"{database}\" but selectedDatabase is \"{selected}\""))
        }
        _ => Ok((database.or_else(|| selected.map(str::to_owned)), table)),
    }
}

/// `t_[00-15]` is sixteen tables. The bounds may be given in either order; numbers are padded with zeros to the width of
/// the lower bound when it begins with one, as in DataX.
fn expand(name: &str) -> Result<Vec<String>, String> {
    let (Some(open), false) = (name.find('['), name.contains('`')) else { return Ok(vec![name.to_owned()]) };
    let wrong = |why: &str| format!("table range \"{name}\": {why}; write e.g. t_[00-15]");
    let (prefix, rest) = (&name[..open], &name[open + 1..]);
    let (inside, suffix) = rest.split_once(']').ok_or_else(|| wrong("[ is not closed"))?;
    if suffix.contains('[') {
        return Err(wrong("one range is possible"));
    }
    let (first, second) = inside.split_once('-').ok_or_else(|| wrong("two bounds are needed"))?;
    let bound = |text: &str| {
        let is_number = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number
            .then(|| text.parse::<usize>().ok())
            .flatten()
            .ok_or_else(|| wrong("range bounds must be numbers"))
    };
    let mut bounds = [(bound(first)?, first), (bound(second)?, second)];
    bounds.sort_by_key(|(number, _)| *number);
    let [(lower, text), (upper, _)] = bounds;
    if upper - lower >= RELATIONS_MOST {
        return Err(wrong(&format!("more than {RELATIONS_MOST} tables")));
    }
    let width = if text.starts_with('0') { text.len() } else { 0 };
    Ok((lower..=upper).map(|number| format!("{prefix}{number:0width$}{suffix}")).collect())
}

/// All tables or all queries, and none twice: its rows would be loaded twice.
fn check(relations: &[RelationSpec], parameter: &Object<'_>, faults: &Faults) -> bool {
    let place = |key: &str| parameter.place(if parameter.get(key).is_some() { key } else { "connection" });
    let queries = relations.iter().filter(|one| matches!(one.relation, Relation::Query(_))).count();
    if queries > 0 && queries < relations.len() {
        let message = "one connection has querySql and another one tables";
        faults.error(&place("connection"), message, "write one job for each kind");
        return false;
    }
    let mut seen = HashSet::new();
    for one in relations {
        let name = match &one.relation {
            Relation::Table(name) | Relation::Query(name) => name,
        };
        if !seen.insert((&one.datasource, &one.database, name)) {
            let key = if queries > 0 { "querySql" } else { "table" };
            let message = format!("{} is listed twice; its rows would be loaded twice", one.name());
            faults.error(&place(key), message, "list it once");
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(name: &str) -> Vec<String> {
        expand(name).expect("a good range")
    }

    #[test]
    fn a_range_becomes_its_tables() {
        assert_eq!(expanded("t_[8-11]"), ["t_8", "t_9", "t_10", "t_11"]);
        assert_eq!(
            expanded("shop.t_[08-11]_x"),
            ["shop.t_08_x", "shop.t_09_x", "shop.t_10_x", "shop.t_11_x"]
        );
        assert_eq!(expanded("t_[9-0]").len(), 10);
        assert_eq!(expanded("t_[02-00]"), ["t_00", "t_01", "t_02"]);
        assert_eq!(expanded("plain"), ["plain"]);
        assert_eq!(expanded("`odd[1-2]`"), ["`odd[1-2]`"]);
    }

    #[test]
    fn a_wrong_range_says_why() {
        for (name, why) in [
            ("t_[a-b]", "range bounds must be numbers"),
            ("t_[1-", "[ is not closed"),
            ("t_[12]", "two bounds are needed"),
            ("t_[1-2]_[3-4]", "one range is possible"),
            ("t_[0-99999]", "more than 10000 tables"),
            ("t_[-1-2]", "range bounds must be numbers"),
        ] {
            let fault = expand(name).expect_err(name);
            assert!(fault.contains(why), "{name}: {fault}");
        }
    }
}
