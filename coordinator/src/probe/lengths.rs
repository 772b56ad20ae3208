//! Asks the source for its longest texts, so that a plan can say whether they fit instead of that they may not.

use starlift_common::datasource::Datasources;
use starlift_common::job::{JobSpec, SourceKind};
use starlift_common::problem::Problem;
use starlift_common::query::{push_where, table_name};

use super::Asker;
use crate::plan::{Length, SourceFacts, TargetFacts, lengths_in_doubt};

/// Puts measured lengths in the place of those that may be too long; one pass over the table.
pub(crate) async fn lengths(
    spec: &JobSpec,
    datasources: &Datasources,
    source: &mut SourceFacts,
    target: &TargetFacts,
) -> Result<(), Problem> {
    let in_doubt = lengths_in_doubt(spec, source, target);
    if in_doubt.is_empty() {
        return Ok(());
    }
    let bytes = |index: &usize| {
        let sql = &source.selected[*index].sql;
        match spec.source.kind {
            SourceKind::Mysql => format!("MAX(LENGTH(CONVERT({sql} USING utf8mb4)))"),
            SourceKind::Starrocks => format!("MAX(LENGTH(CAST({sql} AS VARCHAR)))"),
        }
    };
    let asked: Vec<String> = in_doubt.iter().map(bytes).collect();
    let hint = spec.source.hint.as_deref().map(|hint| format!("{hint} ")).unwrap_or_default();
    let from = table_name(&source.database, &spec.source.table);
    let mut sql = format!("SELECT {hint}{} FROM {from}", asked.join(", "));
    push_where(&mut sql, spec.source.filter.as_deref(), None);

    let datasource = datasources.find(&spec.source.datasource, "")?;
    let place = format!("{}.{}", source.database, spec.source.table);
    let mut asker = Asker::new(datasource, spec.settings.time_zone.as_deref(), place).await?;
    let row = asker.rows(&sql).await?.pop().unwrap_or_default();
    asker.close().await;
    for (index, cell) in in_doubt.into_iter().zip(row) {
        // Without a value there is none that is too long.
        let bytes = cell.map_or(Ok(0), |text| text.trim().parse());
        if let Ok(bytes) = bytes {
            source.selected[index].length = Some(Length::Measured(bytes));
        }
    }
    Ok(())
}
