//! A plan for people and scripts: what `starlift plan` prints and what REST answers. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use starlift_common::query;
use starlift_common::task::TaskPlan;

use super::Plan;

/// What would be done, in whole; nothing of it is done.
#[derive(Debug, Serialize)]
pub struct PlanDocument {
    /// Tables, quoted.
    pub source: Vec<String>,
    pub target: String,
    /// What was replaced in the job file, as it is written there, and by what.
    pub parameters: BTreeMap<String, String>,
    pub columns: Vec<ColumnPair>,
    pub rows_estimate: u64,
    /// Load requests, as far as they are cut by rows; more where `maxBatchSize` cuts earlier.
    pub loads_estimate: u64,
    /// Most tasks at once, over all workers; whatever `executeMode` says, they spread.
    pub concurrent: u32,
    pub pre_sql: Vec<String>,
    pub post_sql: Vec<String>,
    pub tasks: Vec<PlannedTask>,
    pub warnings: Vec<String>,
}

/// What is selected, and the column that it goes into.
#[derive(Debug, Serialize)]
pub struct ColumnPair {
    pub source: String,
    pub target: String,
}

#[derive(Debug, Serialize)]
pub struct PlannedTask {
    pub id: usize,
    /// For people.
    pub range: String,
    pub rows_estimate: u64,
    pub sql: String,
}

impl From<&Plan> for PlanDocument {
    fn from(plan: &Plan) -> Self {
        let pair = |(source, target): (&String, &String)| ColumnPair {
            source: source.clone(),
            target: target.clone(),
        };
        let task = |(id, task): (usize, &TaskPlan)| PlannedTask {
            id,
            range: task.range.to_string(),
            rows_estimate: task.rows_estimate,
            sql: plan
                .shards
                .get(task.shard as usize)
                .map(|read| query::select(read, &task.range))
                .unwrap_or_default(),
        };
        let loads = |task: &TaskPlan| task.rows_estimate.div_ceil(plan.load.max_batch_rows.max(1));
        Self {
            source: plan.shards.iter().map(|read| query::table_name(&read.database, &read.table)).collect(),
            target: query::table_name(&plan.load.database, &plan.load.table),
            parameters: BTreeMap::new(),
            columns: plan
                .shards
                .first()
                .map_or_else(Vec::new, |read| read.select.iter().zip(&plan.load.columns).map(pair).collect()),
            rows_estimate: plan.rows_estimate(),
            loads_estimate: plan.tasks.iter().map(loads).sum(),
            concurrent: plan.concurrent,
            pre_sql: plan.pre_sql.clone(),
            post_sql: plan.post_sql.clone(),
            tasks: plan.tasks.iter().enumerate().map(task).collect(),
            warnings: plan.warnings.clone(),
        }
    }
}
