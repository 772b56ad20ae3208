//! SQL text sent to a source: the SELECT of one task, and quoting. Pure; the same text is shown by `starlift plan`
//! and run by a worker.

use std::fmt::Write as _;

use crate::job::{ReadSpec, SourceKind};
use crate::task::{Key, KeyRange, TaskRange};

/// A name in backticks, as MySQL and StarRocks quote it.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text literal. Backslashes are doubled too: both dialects treat them as escapes by default.
pub fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// What values of a split key are, as far as writing one in SQL goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// Integers and decimals: the server's digits.
    Number,
    /// Text, dates and moments: in quotes.
    Text,
    /// Raw bytes, known by their hexadecimal digits. MySQL only.
    Bytes,
}

/// A value that the server has shown, as a literal that the same server reads as that very value whatever its `sql_mode` is;
/// `None` where no literal is safe. MySQL and MariaDB take text in hexadecimal under its character set; StarRocks gets
/// printable text only, without quotes and backslashes.
pub fn key_literal(kind: SourceKind, form: KeyForm, value: &str) -> Option<Key> {
    let is_plain =
        |text: &str| !text.chars().any(|letter| letter.is_control() || matches!(letter, '\'' | '"' | '\\'));
    // Stands for bytes that were no text: what was there is not known.
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return None;
    }
    match form {
        KeyForm::Number => {
            let digits = value.strip_prefix('-').unwrap_or(value);
            let is_number =
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            is_number.then(|| Key::literal(value))
        }
        KeyForm::Text if is_plain(value) => Some(Key::literal(format!("'{value}'"))),
        KeyForm::Text if kind == SourceKind::Mysql => {
            let mut literal = String::from("_utf8mb4 X'");
            for byte in value.bytes() {
                let _ = write!(literal, "{byte:02X}");
            }
            Some(Key::literal(literal + "'"))
        }
        KeyForm::Text => None,
        KeyForm::Bytes => {
            let is_hex = value.len().is_multiple_of(2) && value.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| Key::literal(format!("X'{value}'")))
        }
    }
}

/// `` `database`.`table` ``
pub fn table_name(database: &str, table: &str) -> String {
    format!("{}.{}", quote(database), quote(table))
}

/// The statement that reads exactly the rows of `range`. `where` is always in parentheses, so that its own OR cannot
/// take the range apart; the closing one stands on a line of its own, so that a comment cannot swallow it. A query of the
/// job's own is sent as it is.
pub fn select(read: &ReadSpec, range: &TaskRange) -> String {
    if let Some(query) = &read.query {
        return query.clone();
    }
    let mut sql = String::from("SELECT ");
    if let Some(hint) = &read.hint {
        sql.push_str(hint);
        sql.push(' ');
    }
    sql.push_str(&read.select.join(", "));
    sql.push_str(" FROM ");
    sql.push_str(&table_name(&read.database, &read.table));
    if let TaskRange::Tablets(tablets) = range {
        let tablets: Vec<String> = tablets.iter().map(u64::to_string).collect();
        let _ = write!(sql, " TABLET({})", tablets.join(", "));
    }
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
        TaskRange::Whole | TaskRange::Tablets(_) => None,
        TaskRange::NullKeys => Some(format!("{key} IS NULL")),
        TaskRange::Keys(KeyRange { lower, upper }) => {
            let lower = lower.as_ref().map(|lower| format!("{key} >= {lower}"));
            let upper = upper.as_ref().map(|upper| format!("{key} < {upper}"));
            let ends: Vec<String> = [lower, upper].into_iter().flatten().collect();
            Some(if ends.is_empty() { format!("{key} IS NOT NULL") } else { ends.join(" AND ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            query: None,
        }
    }

    fn keys(lower: Option<i128>, upper: Option<i128>) -> TaskRange {
        TaskRange::Keys(KeyRange { lower: lower.map(Key::integer), upper: upper.map(Key::integer) })
    }

    #[test]
    fn a_filter_cannot_take_the_range_apart() {
        assert_eq!(
            select(&read(), &keys(Some(-5), Some(10))),
            "SELECT `id`, upper(`name`) FROM `shop`.`or``ders` WHERE (a = 1 or b = 2 -- why\n) AND `id` >= -5 AND `id` < 10"
        );
    }

    #[test]
    fn null_keys_and_open_ranges_never_overlap() {
        assert_eq!(range_condition(Some("k"), &TaskRange::NullKeys).as_deref(), Some("`k` IS NULL"));
        assert_eq!(range_condition(Some("k"), &keys(None, None)).as_deref(), Some("`k` IS NOT NULL"));
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

    #[test]
    fn tablets_stand_behind_the_table_and_the_filter_still_holds() {
        let mut read = read();
        (read.filter, read.select) = (Some("a = 1".into()), vec!["`id`".into()]);
        let sql = select(&read, &TaskRange::Tablets([10_123, 10_127].into()));
        assert_eq!(sql, "SELECT `id` FROM `shop`.`or``ders` TABLET(10123, 10127) WHERE (a = 1\n)");
    }

    #[test]
    fn a_query_of_the_job_is_sent_as_it_is() {
        let mut read = read();
        read.query = Some("select a.id from a join b on a.b = b.id".into());
        assert_eq!(select(&read, &TaskRange::Whole), "select a.id from a join b on a.b = b.id");
    }

    #[test]
    fn a_key_is_read_back_as_itself_or_not_written_at_all() {
        let literal = |kind, form, value: &str| key_literal(kind, form, value).map(|key| key.to_string());
        let (mysql, starrocks) = (SourceKind::Mysql, SourceKind::Starrocks);
        assert_eq!(literal(mysql, KeyForm::Number, "-12.50").as_deref(), Some("-12.50"));
        assert_eq!(literal(mysql, KeyForm::Number, "1 OR 1"), None);
        assert_eq!(literal(starrocks, KeyForm::Text, "Zürich").as_deref(), Some("'Zürich'"));
        assert_eq!(literal(mysql, KeyForm::Text, "it's").as_deref(), Some("_utf8mb4 X'69742773'"));
        for value in ["it's", "a\\b", "a\nb"] {
            assert_eq!(literal(starrocks, KeyForm::Text, value), None, "{value}");
        }
        assert_eq!(literal(mysql, KeyForm::Bytes, "00FF").as_deref(), Some("X'00FF'"));
        assert_eq!(literal(mysql, KeyForm::Bytes, "0"), None);
    }
}
