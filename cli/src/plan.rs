//! `starlift plan`: what would be done, or the table that a job would need. Touches nothing.

use starlift_common::datasource::Datasources;
use starlift_coordinator::{self as coordinator, PlanDocument};

use crate::args::PlanArgs;
use crate::end::{End, Outcome};
use crate::files::{self, Job};
use crate::output::{self, show};
use crate::process::unix_time;

pub(crate) async fn plan(args: PlanArgs) -> Outcome {
    let schedule = files::schedule(&args.job.times, unix_time());
    let (mut job, datasources) =
        files::read_job_and_datasources(&args.job, schedule, &args.datasources.path)?;
    let spec = &mut job.parsed.spec;
    if args.create_table {
        let document =
            output::NewTable { create_table: coordinator::create_table(spec, &datasources).await? };
        show(&document, args.output.json, |document| format!("{};\n", document.create_table));
        return Ok(End::Done);
    }
    spec.settings.probe_lengths |= args.probe_lengths;
    show_plan(job, &datasources, args.output.json).await
}

/// Plans the job and prints what would be done.
pub(crate) async fn show_plan(job: Job, datasources: &Datasources, json: bool) -> Outcome {
    let mut plan = coordinator::plan_job(&job.parsed.spec, datasources).await?;
    plan.warnings.splice(0..0, job.parsed.warnings);
    let document = PlanDocument { parameters: job.parameters, ..PlanDocument::from(&plan) };
    show(&document, json, output::plan);
    Ok(End::Done)
}
