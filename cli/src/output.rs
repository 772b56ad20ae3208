//! What people read: reports, tables, problems; and the one JSON document of `--json`. Pure text-making, printed by the
//! few functions at the top.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;
use starlift_common::problem::Problem;
use starlift_common::query;
use starlift_coordinator::Plan;
use starlift_proto as pb;

/// Tasks that a plan or a task list shows on a screen; `--json` has them all.
const TASKS_ON_SCREEN: usize = 20;
/// Problems that fit on a screen with their places and hints.
const PROBLEMS_ON_SCREEN: usize = 12;

/// Prints one JSON document on stdout.
pub(crate) fn json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(document) => text(&format!("{document}\n")),
        Err(error) => eprintln!("starlift: cannot print the answer: {error}"),
    }
}

/// Prints on stdout. A reader that went away is no error.
pub(crate) fn text(text: &str) {
    let _reader_gone = std::io::stdout().write_all(text.as_bytes());
}

pub(crate) fn warnings(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// What is wrong goes to stderr for people, to stdout as a document for scripts.
pub(crate) fn problems(problems: &[Problem], as_json: bool) {
    #[derive(Serialize)]
    struct Document<'a> {
        error: Option<&'a Problem>,
        problems: &'a [Problem],
    }
    if as_json {
        json(&Document { error: problems.first(), problems });
    }
    eprint!("{}", problem_list(problems));
}

fn problem_list(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems.iter().take(PROBLEMS_ON_SCREEN) {
        push_problem(&mut text, &pb::Problem::from(problem));
    }
    if problems.len() > PROBLEMS_ON_SCREEN {
        let more = problems.len() - PROBLEMS_ON_SCREEN;
        line(&mut text, format_args!("and {more} more; --json shows all"));
    }
    text
}

/// `error[CODE]: what`, then where, then what to do.
fn push_problem(text: &mut String, problem: &pb::Problem) {
    line(text, format_args!("error[{}]: {}", problem.code, problem.message));
    if !problem.place.is_empty() {
        line(text, format_args!("  at: {}", problem.place));
    }
    if !problem.hint.is_empty() {
        line(text, format_args!("  do: {}", problem.hint));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing to a string cannot fail");
    text.push('\n');
}

/// The final report; it begins with the seven lines that DataX prints.
pub(crate) fn report(report: &pb::FinalReport) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("job {} ({}): {}", report.job_id, report.name, report.state));
    let failures = report.rows_filtered + report.dirty_records;
    for (name, value) in [
        ("Job start time", report.started_at.clone()),
        ("Job end time", report.finished_at.clone()),
        ("Total elapsed time", seconds(report.elapsed_seconds)),
        ("Average traffic", format!("{}/s", bytes(report.avg_bytes_per_second))),
        ("Record write speed", format!("{} rec/s", whole(report.avg_rows_per_second))),
        ("Records read", count(report.rows_read)),
        ("Read/write failures", count(failures)),
    ] {
        line(&mut text, format_args!("{name:<20}: {value}"));
    }
    let phases = report.phases.unwrap_or_default();
    let tasks = report.tasks.unwrap_or_default();
    for (name, value) in [
        (
            "Rows loaded",
            format!(
                "{} in {} transactions, {} loads, {}",
                count(report.rows_loaded),
                count(report.transactions),
                count(report.loads),
                bytes(to_f64(report.bytes_loaded))
            ),
        ),
        (
            "Rows left out",
            format!(
                "{} filtered, {} unselected, {} dirty",
                count(report.rows_filtered),
                count(report.rows_unselected),
                count(report.dirty_records)
            ),
        ),
        (
            "Tasks",
            format!(
                "{} of {} succeeded, {} failed, {} retries",
                tasks.succeeded, tasks.total, tasks.failed, report.retries
            ),
        ),
        (
            "Phases",
            format!(
                "plan {}, preSql {}, transfer {}, commit {}, postSql {}",
                seconds(phases.plan),
                seconds(phases.pre_sql),
                seconds(phases.transfer),
                seconds(phases.commit),
                seconds(phases.post_sql)
            ),
        ),
    ] {
        line(&mut text, format_args!("{name:<20}: {value}"));
    }
    for share in &report.workers {
        line(
            &mut text,
            format_args!(
                "  worker {}: {} tasks, {} rows, {}",
                share.id,
                share.tasks,
                count(share.rows),
                bytes(to_f64(share.bytes))
            ),
        );
    }
    for task in &report.slowest_tasks {
        line(
            &mut text,
            format_args!(
                "  slow task {} {}: {} rows in {}",
                task.id,
                task.range,
                count(task.rows),
                seconds(task.seconds)
            ),
        );
    }
    if report.labels_to_sweep > 0 {
        line(&mut text, format_args!("{} labels are still being rolled back", report.labels_to_sweep));
    }
    for warning in &report.warnings {
        line(&mut text, format_args!("warning: {warning}"));
    }
    if let Some(error) = &report.error {
        push_problem(&mut text, error);
    }
    text
}

/// A job's standing in a few lines.
pub(crate) fn status(status: &pb::JobStatus) -> String {
    let mut text = String::new();
    let progress = status.progress.unwrap_or_default();
    let tasks = status.tasks.unwrap_or_default();
    line(&mut text, format_args!("job {} ({}): {}", status.job_id, status.name, status.state));
    line(
        &mut text,
        format_args!("submitted {}, running for {}", status.submitted_at, seconds(status.elapsed_seconds)),
    );
    line(
        &mut text,
        format_args!(
            "rows: {} read, {} loaded, about {} in all",
            count(progress.rows_read),
            count(progress.rows_loaded),
            count(progress.rows_estimate)
        ),
    );
    line(
        &mut text,
        format_args!(
            "tasks: {} of {} succeeded, {} running, {} waiting, {} failed",
            tasks.succeeded, tasks.total, tasks.running, tasks.waiting, tasks.failed
        ),
    );
    if let Some(eta) = progress.eta_seconds {
        line(&mut text, format_args!("ETA: {}", seconds(eta)));
    }
    if status.labels_to_sweep > 0 {
        line(&mut text, format_args!("{} labels are still being rolled back", status.labels_to_sweep));
    }
    for warning in &status.warnings {
        line(&mut text, format_args!("warning: {warning}"));
    }
    if let Some(error) = &status.error {
        push_problem(&mut text, error);
    }
    text
}

pub(crate) fn jobs(jobs: &[pb::JobSummary]) -> String {
    table(
        &["JOB", "NAME", "STATE", "SUBMITTED", "ELAPSED", "ROWS", "TASKS"],
        jobs.iter().map(|job| {
            vec![
                job.job_id.clone(),
                job.name.clone(),
                job.state.clone(),
                job.submitted_at.clone(),
                seconds(job.elapsed_seconds),
                count(job.rows_loaded),
                format!("{}/{}", job.tasks_done, job.tasks_total),
            ]
        }),
    )
}

pub(crate) fn tasks(tasks: &[pb::TaskStatus]) -> String {
    table(
        &["TASK", "STATE", "RANGE", "ATTEMPTS", "WORKER", "ROWS", "SECONDS"],
        tasks.iter().map(|task| {
            vec![
                task.task_id.to_string(),
                task.state.clone(),
                task.range.clone(),
                task.attempts.to_string(),
                task.worker_id.clone(),
                count(task.rows_loaded),
                format!("{:.1}", task.seconds),
            ]
        }),
    )
}

pub(crate) fn workers(workers: &[pb::WorkerStatus]) -> String {
    table(
        &["WORKER", "HOST", "VERSION", "TASKS", "HEARD", "ROWS"],
        workers.iter().map(|worker| {
            let draining = if worker.draining { " draining" } else { "" };
            vec![
                worker.worker_id.clone(),
                worker.host.clone(),
                worker.version.clone(),
                format!("{}/{}{draining}", worker.running, worker.slots),
                format!("{} ago", seconds(worker.seconds_since_heard)),
                count(worker.rows),
            ]
        }),
    )
}

/// Columns as wide as their widest cell.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(ToString::to_string).collect()];
    lines.extend(rows);
    let width =
        |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for cells in &lines {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(&mut text, format_args!("{}", padded.join("  ").trim_end()));
    }
    text
}

/// A plan as `starlift plan` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct PlanDocument {
    pub source: Vec<String>,
    pub target: String,
    pub columns: Vec<ColumnPair>,
    pub rows_estimate: u64,
    pub pre_sql: Vec<String>,
    pub post_sql: Vec<String>,
    pub tasks: Vec<PlannedTask>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ColumnPair {
    pub source: String,
    pub target: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct PlannedTask {
    pub id: usize,
    pub range: String,
    pub rows_estimate: u64,
    pub sql: String,
}

impl From<&Plan> for PlanDocument {
    fn from(plan: &Plan) -> Self {
        let first = plan.shards.first();
        let pair = |(source, target): (&String, &String)| ColumnPair {
            source: source.clone(),
            target: target.clone(),
        };
        let task = |(id, task): (usize, &starlift_common::task::TaskPlan)| PlannedTask {
            id,
            range: task.range.to_string(),
            rows_estimate: task.rows_estimate,
            sql: plan
                .shards
                .get(task.shard as usize)
                .map(|read| query::select(read, &task.range))
                .unwrap_or_default(),
        };
        Self {
            source: plan.shards.iter().map(|read| query::table_name(&read.database, &read.table)).collect(),
            target: query::table_name(&plan.load.database, &plan.load.table),
            columns: first
                .map_or_else(Vec::new, |read| read.select.iter().zip(&plan.load.columns).map(pair).collect()),
            rows_estimate: plan.rows_estimate(),
            pre_sql: plan.pre_sql.clone(),
            post_sql: plan.post_sql.clone(),
            tasks: plan.tasks.iter().enumerate().map(task).collect(),
            warnings: plan.warnings.clone(),
        }
    }
}

pub(crate) fn plan(plan: &PlanDocument) -> String {
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "from {} to {}, about {} rows in {} tasks",
            plan.source.join(", "),
            plan.target,
            count(plan.rows_estimate),
            plan.tasks.len()
        ),
    );
    for pair in &plan.columns {
        line(&mut text, format_args!("  {} -> {}", pair.source, pair.target));
    }
    for statement in &plan.pre_sql {
        line(&mut text, format_args!("before: {statement}"));
    }
    // The last task is often the one for NULL keys; both ends are worth seeing.
    let hidden = plan.tasks.len().saturating_sub(TASKS_ON_SCREEN);
    let is_hidden = |index: usize| hidden > 0 && index >= TASKS_ON_SCREEN - 1 && index + 1 < plan.tasks.len();
    for (index, task) in plan.tasks.iter().enumerate() {
        if !is_hidden(index) {
            line(
                &mut text,
                format_args!("task {} {}, about {} rows", task.id, task.range, count(task.rows_estimate)),
            );
            line(&mut text, format_args!("  {}", task.sql.replace('\n', " ")));
        } else if index + 2 == plan.tasks.len() {
            line(&mut text, format_args!("... {hidden} more tasks; --json shows all"));
        }
    }
    for statement in &plan.post_sql {
        line(&mut text, format_args!("after: {statement}"));
    }
    for warning in &plan.warnings {
        line(&mut text, format_args!("warning: {warning}"));
    }
    text
}

/// `1,234,567`
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

/// Binary units, as DataX counts traffic: `58.2 MB`.
pub(crate) fn bytes(number: f64) -> String {
    let mut value = number;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TB")
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

/// `0.42 s`, `12 s`, `3 m 20 s`, `2 h 5 m`
pub(crate) fn seconds(number: f64) -> String {
    if number < 1.0 {
        return format!("{number:.2} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, rounded for show"
    )]
    let whole = number.min(1e12).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} m {} s", whole / 60, whole % 60),
        _ => format!("{} h {} m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use starlift_common::problem::Code;

    use super::*;

    #[test]
    fn a_report_begins_with_the_seven_classic_lines() {
        let report = pb::FinalReport {
            job_id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
            name: "orders".into(),
            state: "SUCCEEDED".into(),
            started_at: "2026-11-22T10:00:00Z".into(),
            finished_at: "2026-11-22T10:00:12Z".into(),
            elapsed_seconds: 12.3,
            rows_read: 1_000_000,
            rows_loaded: 1_000_000,
            avg_rows_per_second: 83_333.4,
            avg_bytes_per_second: 12.0 * 1024.0 * 1024.0,
            ..Default::default()
        };
        let text = super::report(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1..8],
            [
                "Job start time      : 2026-11-22T10:00:00Z",
                "Job end time        : 2026-11-22T10:00:12Z",
                "Total elapsed time  : 12 s",
                "Average traffic     : 12.0 MB/s",
                "Record write speed  : 83333 rec/s",
                "Records read        : 1,000,000",
                "Read/write failures : 0",
            ]
        );
    }

    #[test]
    fn a_problem_says_what_where_and_what_to_do() {
        let problem = Problem::new(Code::UnknownColumn, "no column \"naem\" in dw.t")
            .at("/steps/1/parameter/column/1")
            .hint("did you mean \"name\"?");
        assert_eq!(
            problem_list(&[problem]),
            "error[UNKNOWN_COLUMN]: no column \"naem\" in dw.t\n  at: /steps/1/parameter/column/1\n  do: did you mean \"name\"?\n"
        );
    }

    #[test]
    fn problems_never_take_more_than_a_screen() {
        let many = vec![Problem::new(Code::InvalidScript, "wrong").at("/a").hint("mend it"); 100];
        assert!(problem_list(&many).lines().count() < 40);
    }

    #[test]
    fn a_table_lines_up() {
        let rows = [vec!["1".to_owned(), "long cell".into()], vec!["22".into(), "x".into()]];
        assert_eq!(table(&["ID", "NAME"], rows.into_iter()), "ID  NAME\n1   long cell\n22  x\n");
    }

    #[test]
    fn a_long_plan_shows_both_ends() {
        let task = |id| PlannedTask { id, range: format!("r{id}"), rows_estimate: 1, sql: "SELECT".into() };
        let document = PlanDocument {
            source: vec!["a".into()],
            target: "b".into(),
            columns: vec![],
            rows_estimate: 100,
            pre_sql: vec![],
            post_sql: vec![],
            tasks: (0..100).map(task).collect(),
            warnings: vec![],
        };
        let text = plan(&document);
        assert!(text.contains("task 0 ") && text.contains("task 99 ") && !text.contains("task 50 "));
        assert!(text.contains("... 80 more tasks"));
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            (count(999), count(1_000), count(12_345_678)),
            ("999".into(), "1,000".into(), "12,345,678".into())
        );
        assert_eq!((bytes(512.0), bytes(1536.0)), ("512 B".into(), "1.5 KB".into()));
        assert_eq!(
            (seconds(0.42), seconds(59.4), seconds(200.0), seconds(7500.0)),
            ("0.42 s".into(), "59 s".into(), "3 m 20 s".into(), "2 h 5 m".into())
        );
    }
}
