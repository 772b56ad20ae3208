//! What there is behind a data source, for whoever puts a job together: databases, tables, columns.

use serde::Serialize;
use starlift_common::datasource::{Datasource, DatasourceKind};
use starlift_common::job::SourceKind;
use starlift_common::problem::Problem;
use starlift_common::query::text_literal;

use super::{Asker, catalogue, refine_starrocks};
use crate::columns::Column;
use crate::keys::key_type;

/// Of the server itself.
const SYSTEM: &[&str] =
    &["information_schema", "mysql", "performance_schema", "sys", "_statistics_", "starrocks_audit_db__"];

#[derive(Debug, Serialize)]
pub(crate) struct ListedTable {
    name: String,
    /// As its statistics say; they may be old.
    rows_estimate: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ListedColumn {
    name: String,
    /// As the server writes it.
    r#type: String,
    /// Of the longest value in UTF-8; `None`: no text, or not told.
    bytes_most: Option<u64>,
    nullable: bool,
    is_key: bool,
    is_primary: bool,
    is_sorted: bool,
    has_default: bool,
    generated: bool,
    comment: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct TableColumns {
    columns: Vec<ListedColumn>,
    /// The column to split by, where one suggests itself.
    split_pk: Option<String>,
}

pub(crate) async fn databases(datasource: &Datasource) -> Result<Vec<String>, Problem> {
    let mut asker = Asker::new(datasource, None, datasource.name.clone()).await?;
    let rows = asker.rows("SHOW DATABASES").await?;
    asker.close().await;
    let names = rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
    Ok(names.filter(|name| !SYSTEM.contains(&name.to_lowercase().as_str())).collect())
}

pub(crate) async fn tables(datasource: &Datasource, database: &str) -> Result<Vec<ListedTable>, Problem> {
    let mut asker = Asker::new(datasource, None, database.to_owned()).await?;
    let rows = asker
        .named_rows(&format!(
            "SELECT TABLE_NAME, TABLE_ROWS FROM information_schema.tables WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME",
            text_literal(database)
        ))
        .await?;
    asker.close().await;
    let table = |row: &starlift_remote::rows::Named| ListedTable {
        name: row.text("table_name").to_owned(),
        rows_estimate: row.number("table_rows"),
    };
    Ok(rows.iter().map(table).collect())
}

pub(crate) async fn columns(
    datasource: &Datasource,
    database: &str,
    table: &str,
) -> Result<TableColumns, Problem> {
    let mut asker = Asker::new(datasource, None, format!("{database}.{table}")).await?;
    let system = match datasource.kind {
        DatasourceKind::Mysql => SourceKind::Mysql,
        DatasourceKind::Starrocks => SourceKind::Starrocks,
    };
    let mut columns = catalogue(&mut asker, database, table, system).await?;
    if system == SourceKind::Starrocks {
        refine_starrocks(&mut asker, database, table, &mut columns).await;
    }
    asker.close().await;
    Ok(TableColumns {
        split_pk: suggested_key(system, &columns),
        columns: columns.into_iter().map(listed).collect(),
    })
}

fn listed(column: Column) -> ListedColumn {
    ListedColumn {
        name: column.name,
        r#type: column.type_text,
        bytes_most: column.bytes_most,
        nullable: column.nullable,
        is_key: column.is_key,
        is_primary: column.is_primary,
        is_sorted: column.is_sorted,
        has_default: column.has_default,
        generated: column.generated,
        comment: column.comment,
    }
}

/// Ranges of a key are cheap to read; of another sorted column, too; of any other each would be a scan of the table.
fn suggested_key(system: SourceKind, columns: &[Column]) -> Option<String> {
    let splits = |column: &&Column| !column.hidden && key_type(system, &column.type_text, None).is_some();
    let primary = columns.iter().filter(|column| column.is_primary).find(splits);
    let sorted = columns.iter().filter(|column| column.is_sorted || column.is_key).find(splits);
    primary.or(sorted).map(|column| column.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::mysql_kind;

    fn column(name: &str, type_text: &str, is_primary: bool, is_sorted: bool) -> Column {
        Column {
            name: name.into(),
            kind: mysql_kind(type_text),
            type_text: type_text.into(),
            bytes_most: None,
            nullable: false,
            has_default: false,
            generated: false,
            hidden: false,
            is_key: is_primary,
            is_primary,
            is_sorted,
            comment: String::new(),
        }
    }

    #[test]
    fn the_key_is_suggested_before_another_index_and_never_what_has_no_order() {
        let suggested = |columns: &[Column]| suggested_key(SourceKind::Mysql, columns);
        let at = column("at", "datetime", false, true);
        let id = column("id", "bigint unsigned", true, true);
        assert_eq!(suggested(&[at.clone(), id]).as_deref(), Some("id"));
        let place = column("place", "point", true, true);
        assert_eq!(suggested(&[place, at]).as_deref(), Some("at"));
        assert_eq!(suggested(&[column("note", "int", false, false)]), None);
    }
}
