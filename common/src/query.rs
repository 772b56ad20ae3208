//! SQL text sent to a source: the SELECT of one task, and quoting. Pure; the same text is shown by `starlift plan`
//! and run by a worker.

use crate::job::ReadSpec;
use crate::task::{KeyRange, TaskRange};

/// A name in backticks, as MySQL and StarRocks quote it.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text literal. Backslashes are doubled too: both dialects treat them as escapes by default.
pub fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// `` `database`.`table` ``
pub fn table_name(database: &str, table: &str) -> String {
    format!("{}.{}", quote(database), quote(table))
}

/// The statement that reads exactly the rows of `range`. `where` is always in parentheses, so that its own OR cannot
/// take the range apart; the closing one stands on a line of its own, so that a comment cannot swallow it.
pub fn select(read: &ReadSpec, range: &TaskRange) -> String {
    let mut sql = String::from("SELECT ");
    if let Some(hint) = &read.hint {
        sql.push_str(hint);
        sql.push(' ');
    }
    sql.push_str(&read.select.join(", "));
    sql.push_str(" FROM ");
    sql.push_str(&table_name(&read.database, &read.table));
    push_where(&mut sql, read.filter.as_deref(), range_condition(read.key.as_deref(), range).as_deref());
    sql
}

/// Appends ` WHERE ...` for those of the two conditions that are there.
pub fn push_where(sql: &mut String, filter: Option<&str>, condition: Option<&str>) {
    let filter = filter.map(|filter| format!("({filter}\n)"));
    let parts: Vec<&str> = [filter.as_deref(), condition].into_iter().flatten().collect();
    if !parts.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&parts.join(" AND "));
    }
}

/// The condition for the keys of `range`; `None` when it holds every row. A range with both ends open still leaves out
/// the NULL keys, which have a task of their own.
pub fn range_condition(key: Option<&str>, range: &TaskRange) -> Option<String> {
    let key = quote(key?);
    match range {
        TaskRange::Whole => None,
        TaskRange::NullKeys => Some(format!("{key} IS NULL")),
        TaskRange::Keys(KeyRange { lower, upper }) => {
            let lower = lower.map(|lower| format!("{key} >= {lower}"));
            let upper = upper.map(|upper| format!("{key} < {upper}"));
            let ends: Vec<String> = [lower, upper].into_iter().flatten().collect();
            Some(if ends.is_empty() { format!("{key} IS NOT NULL") } else { ends.join(" AND ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::SourceKind;

    fn read() -> ReadSpec {
        ReadSpec {
            datasource: "src".into(),
            kind: SourceKind::Mysql,
            database: "shop".into(),
            table: "or`ders".into(),
            hint: None,
            select: vec!["`id`".into(), "upper(`name`)".into()],
            names: vec!["id".into(), "upper(name)".into()],
            filter: Some("a = 1 or b = 2 -- why".into()),
            key: Some("id".into()),
            time_zone: None,
        }
    }

    #[test]
    fn a_filter_cannot_take_the_range_apart() {
        let range = TaskRange::Keys(KeyRange { lower: Some(-5), upper: Some(10) });
        assert_eq!(
            select(&read(), &range),
            "SELECT `id`, upper(`name`) FROM `shop`.`or``ders` WHERE (a = 1 or b = 2 -- why\n) AND `id` >= -5 AND `id` < 10"
        );
    }

    #[test]
    fn null_keys_and_open_ranges_never_overlap() {
        assert_eq!(range_condition(Some("k"), &TaskRange::NullKeys).as_deref(), Some("`k` IS NULL"));
        let open = TaskRange::Keys(KeyRange { lower: None, upper: None });
        assert_eq!(range_condition(Some("k"), &open).as_deref(), Some("`k` IS NOT NULL"));
        assert_eq!(range_condition(Some("k"), &TaskRange::Whole), None);
    }

    #[test]
    fn a_hint_goes_right_after_select() {
        let mut read = read();
        read.hint = Some("/*+ SET_VAR(query_timeout=7200) */".into());
        read.filter = None;
        assert!(
            select(&read, &TaskRange::Whole).starts_with("SELECT /*+ SET_VAR(query_timeout=7200) */ `id`")
        );
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(text_literal(r"it's \ here"), r"'it''s \\ here'");
    }
}
