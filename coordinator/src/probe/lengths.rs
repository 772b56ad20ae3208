//! Asks the source for its longest texts, so that a plan can say whether they fit instead of that they may not.

use starlift_common::datasource::Datasources;
use starlift_common::job::{JobSpec, Relation, SourceKind};
use starlift_common::problem::Problem;
use starlift_common::query::{push_where, quote, table_name};

use super::Asker;
use crate::plan::{Length, ShardFacts, SourceFacts, TargetFacts, lengths_in_doubt, shard_name};

/// Puts measured lengths in the place of those that may be too long; one pass over each table.
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
    let mut longest = vec![0; in_doubt.len()];
    for shard in &source.shards {
        let measured = longest_of(spec, datasources, shard, &asked).await?;
        for (longest, measured) in longest.iter_mut().zip(measured) {
            *longest = measured.max(*longest);
        }
    }
    for (index, bytes) in in_doubt.into_iter().zip(longest) {
        source.selected[index].length = Some(Length::Measured(bytes));
    }
    Ok(())
}

/// One number for each of the expressions asked; of a table without a value, 0.
async fn longest_of(
    spec: &JobSpec,
    datasources: &Datasources,
    shard: &ShardFacts,
    asked: &[String],
) -> Result<Vec<u64>, Problem> {
    let hint = spec.source.hint.as_deref().map(|hint| format!("{hint} ")).unwrap_or_default();
    let from = match &shard.relation {
        Relation::Table(table) => table_name(&shard.database, table),
        Relation::Query(query) => format!("({query}\n) AS starlift_query"),
    };
    let mut sql = format!("SELECT {hint}{} FROM {from}", asked.join(", "));
    push_where(&mut sql, spec.source.filter.as_deref(), None);
    let datasource = datasources.find(&shard.datasource, "")?;
    let place = format!("{}.{}", shard.database, shard_name(&shard.relation));
    let mut asker = Asker::new(datasource, spec.settings.time_zone.as_deref(), place).await?;
    asker.rows(&format!("USE {}", quote(&shard.database))).await?;
    let row = asker.rows(&sql).await?.pop().unwrap_or_default();
    asker.close().await;
    let number = |cell: Option<String>| cell.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Ok(row.into_iter().map(number).collect())
}
