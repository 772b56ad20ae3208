//! Rows of control statements, whose columns differ from version to version: all cells as text, asked for by name.

use mysql_async::{Row, Value};

/// A row whose columns are asked for by name, without regard to case.
pub struct Named(Vec<(String, Option<String>)>);

impl Named {
    pub fn new(row: Row) -> Self {
        let names: Vec<String> =
            row.columns_ref().iter().map(|column| column.name_str().to_lowercase()).collect();
        Self(names.into_iter().zip(texts(row)).collect())
    }

    /// `name` in lower case; `None` for NULL and for a column that is not there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(column, _)| column == name).and_then(|(_, value)| value.as_deref())
    }

    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.trim().parse().ok()
    }
}

/// All cells as text; NULL is `None`.
pub fn texts(row: Row) -> Vec<Option<String>> {
    row.unwrap().into_iter().map(text).collect()
}

fn text(cell: Value) -> Option<String> {
    match cell {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}
