//! Finds out whether the target unpacks bodies as the job wants to pack them: a few copies of one row of the source,
//! packed, in a transaction that is rolled back. Where it does not, and whenever it cannot be told, the plan goes without
//! compression and says why; it never fails for that.

use starlift_common::datasource::Datasources;
use starlift_common::ids::JobId;
use starlift_common::job::LoadMode;
use starlift_remote::trial::{PACKED_COPIES, first_row, load_and_roll_back};

use crate::plan::Plan;

/// Takes the compression out of the plan, with a warning, unless the target is seen to unpack it. Without a row in the
/// source there is nothing to try, and nothing that could go wrong.
pub(crate) async fn compression(plan: &mut Plan, datasources: &Datasources, job: JobId) {
    let Some(compression) = plan.load.compression else { return };
    if let Err(why) = attempt(plan, datasources, job).await {
        plan.load.compression = None;
        plan.warnings.push(format!("bodies are sent without compression {}: {why}", compression.name()));
    }
}

/// The error is for people.
async fn attempt(plan: &Plan, datasources: &Datasources, job: JobId) -> Result<(), String> {
    let load = &plan.load;
    if load.mode == LoadMode::Plain {
        return Err("the server has no transactions in which it could be tried".into());
    }
    let Some(read) = plan.shards.first() else { return Ok(()) };
    let row = first_row(read, datasources).await;
    let row = row.map_err(|problem| format!("no row to try it with: {}", problem.message))?;
    let Some(row) = row else { return Ok(()) };
    let datasource = datasources.find(&load.datasource, "").map_err(|problem| problem.message)?;
    let counted = load_and_roll_back(load, datasource, job, &row, PACKED_COPIES).await;
    counted.map(|_| ()).map_err(|problem| problem.message)
}
