//! What people read: reports, tables, problems; and the one JSON document of `--json`. Pure text-making, printed by the
//! few functions at the top.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use starlift_common::problem::Problem;
use starlift_common::script::Schedule;
use starlift_coordinator::PlanDocument;
use starlift_proto as pb;

/// Tasks that a plan or a task list shows on a screen; `--json` has them all.
const TASKS_ON_SCREEN: usize = 20;
/// Problems that fit on a screen with their places and hints.
const PROBLEMS_ON_SCREEN: usize = 12;

/// Bad rows and undecided tasks that a text shows; `--json` has all that are kept.
const LINES_ON_SCREEN: usize = 10;

/// Where a job is kept: it decides how the commands for it are written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Home<'a> {
    Coordinator,
    /// The state directory of `starlift run`.
    Directory(&'a Path),
}

impl Home<'_> {
    /// The command by which a human answers for a task.
    pub(crate) fn resolve(self, job_id: &str, task_id: u32) -> String {
        let command = format!("starlift resolve {job_id} {task_id} --committed|--redo --reason TEXT");
        match self {
            Self::Coordinator => command,
            Self::Directory(directory) => format!("{command} --state {}", directory.display()),
        }
    }

    /// What makes a job go on that does not do so by itself.
    fn resume(self, job_id: &str) -> String {
        match self {
            Self::Coordinator => format!("starlift resume {job_id}"),
            Self::Directory(_) => "the same `starlift run` again".into(),
        }
    }
}

/// Prints one JSON document on stdout.
pub(crate) fn json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(document) => text(&format!("{document}\n")),
        Err(error) => eprintln!("starlift: cannot print the answer: {error}"),
    }
}

/// Prints on stdout. A reader that went away is no error.
/// Prints the value as its one JSON document, or as text.
pub(crate) fn show<T: Serialize>(value: &T, json: bool, text: impl FnOnce(&T) -> String) {
    if json { self::json(value) } else { self::text(&text(value)) }
}

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
pub(crate) fn push_problem(text: &mut String, problem: &pb::Problem) {
    line(text, format_args!("error[{}]: {}", problem.code, problem.message));
    if !problem.place.is_empty() {
        line(text, format_args!("  at: {}", problem.place));
    }
    if !problem.hint.is_empty() {
        line(text, format_args!("  do: {}", problem.hint));
    }
}

pub(crate) fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
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
    for row in report.bad_rows.iter().take(LINES_ON_SCREEN) {
        line(&mut text, format_args!("  bad row{}", bad_row(row)));
    }
    if report.dirty_records > LINES_ON_SCREEN as u64 && !report.bad_rows.is_empty() {
        let more = report.dirty_records - report.bad_rows.len().min(LINES_ON_SCREEN) as u64;
        line(
            &mut text,
            format_args!("  and {} more dirty records; --json shows the first 1,000", count(more)),
        );
    }
    for file in &report.dirty_files {
        line(&mut text, format_args!("  all dirty records: {file}"));
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

/// ` 17, column v: too long`
fn bad_row(row: &pb::BadRow) -> String {
    let mut text = String::new();
    if !row.key.is_empty() {
        text.push_str(&format!(" {}", row.key));
    }
    if !row.column.is_empty() {
        text.push_str(&format!(", column {}", row.column));
    }
    // A reason may quote a row, and a row may hold anything.
    format!("{text}: {}", row.reason.replace(char::is_control, " "))
}

/// `PAUSED in RUNNING`, or the state alone.
fn state(status: &pb::JobStatus) -> String {
    match status.paused_in.as_str() {
        "" => status.state.clone(),
        phase => format!("{} in {phase}", status.state),
    }
}

/// What people can do about a job that does not move by itself; empty when it does, or is over.
pub(crate) fn next_steps(status: &pb::JobStatus, home: Home<'_>) -> String {
    let mut text = String::new();
    let undecided = &status.undecided_tasks;
    for task in undecided.iter().take(LINES_ON_SCREEN) {
        let command = home.resolve(&status.job_id, *task);
        line(&mut text, format_args!("task {task} waits for your answer: {command}"));
    }
    if undecided.len() > LINES_ON_SCREEN {
        line(
            &mut text,
            format_args!(
                "and {} more tasks wait; `starlift tasks` lists them",
                undecided.len() - LINES_ON_SCREEN
            ),
        );
    }
    let when = match status.state.as_str() {
        "PAUSED" => "to go on",
        "FAILED" if !undecided.is_empty() => "to go on after that",
        "FAILED" => "to go on with what is not done, once the cause is mended",
        _ => return text,
    };
    line(&mut text, format_args!("{when}: {}", home.resume(&status.job_id)));
    text
}

/// Why a job stands still, and how it goes on.
pub(crate) fn standstill(status: &pb::JobStatus, home: Home<'_>) -> String {
    let mut text = String::new();
    let reason = if status.error.is_some() { "by itself" } else { "by request" };
    line(&mut text, format_args!("job {} was paused {reason} in {}", status.job_id, status.paused_in));
    if let Some(error) = &status.error {
        push_problem(&mut text, error);
    }
    text + &next_steps(status, home)
}

/// The answer to `pause`.
pub(crate) fn paused(status: &pb::JobStatus) -> String {
    let running = status.tasks.unwrap_or_default().running;
    let tasks = match running {
        0 => "no task runs".to_owned(),
        1 => "1 task that runs is finished and committed".into(),
        many => format!("{many} tasks that run are finished and committed"),
    };
    let mut text = String::new();
    line(&mut text, format_args!("job {} is {}: {tasks}, nothing new starts", status.job_id, state(status)));
    text + &next_steps(status, Home::Coordinator)
}

/// The answer to `cancel`.
pub(crate) fn cancelled(status: &pb::JobStatus) -> String {
    let tasks = status.tasks.unwrap_or_default();
    let ended = match status.state.as_str() {
        state @ ("SUCCEEDED" | "FAILED") => {
            return format!("job {} is over already: {state}\n", status.job_id);
        }
        "CANCELLED" => "is cancelled",
        _ => "ends when what is decided is committed",
    };
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "job {} {ended}: {} of {} tasks are in the target and stay there, the rest is rolled back",
            status.job_id, tasks.succeeded, tasks.total
        ),
    );
    line(&mut text, format_args!("what it did: starlift report {}", status.job_id));
    text
}

/// The answer to `resume`.
pub(crate) fn resumed(status: &pb::JobStatus) -> String {
    let tasks = status.tasks.unwrap_or_default();
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "job {} goes on, {} of {} tasks are done: {}",
            status.job_id,
            tasks.succeeded,
            tasks.total,
            state(status)
        ),
    );
    line(&mut text, format_args!("follow it with: starlift watch {}", status.job_id));
    text
}

/// What `run` says of a job that it goes on with: how it stood, and what is not done again.
/// `schedule` is what the job counts its times from, if it does.
pub(crate) fn resuming(before: &pb::JobStatus, schedule: Option<Schedule>) -> String {
    let tasks = before.tasks.unwrap_or_default();
    let how = match before.state.as_str() {
        "FAILED" => ", which had failed",
        "PAUSED" => ", which was paused",
        _ => "",
    };
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "resuming job {}{how}; {} of {} tasks are done",
            before.job_id, tasks.succeeded, tasks.total
        ),
    );
    if let Some(schedule) = schedule {
        line(&mut text, format_args!("  with the times it began with: {schedule}"));
    }
    if let Some(error) = &before.error {
        line(&mut text, format_args!("  it had: {}: {}", error.code, error.message));
    }
    text
}

/// The answer to `drain`.
pub(crate) fn drained(worker: &pb::WorkerStatus) -> String {
    let ends = match worker.running {
        0 => "at once".to_owned(),
        1 => "when the task that it runs is done".into(),
        many => format!("when the {many} tasks that it runs are done"),
    };
    format!(
        "worker {} takes no further tasks and ends {ends}\nsee it with: starlift workers\n",
        worker.worker_id
    )
}

/// A job's standing in a few lines, and what can be done about it.
pub(crate) fn status(status: &pb::JobStatus, home: Home<'_>) -> String {
    let mut text = String::new();
    let progress = status.progress.unwrap_or_default();
    let tasks = status.tasks.unwrap_or_default();
    line(&mut text, format_args!("job {} ({}): {}", status.job_id, status.name, state(status)));
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
    if status.dirty_records > 0 {
        line(&mut text, format_args!("dirty records: {}", count(status.dirty_records)));
    }
    if let Some(eta) = progress.eta_seconds.filter(|_| status.state != "PAUSED") {
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
    text + &next_steps(status, home)
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

/// All tasks, and why some of them do not go on.
pub(crate) fn tasks(job_id: &str, tasks: &[pb::TaskStatus], home: Home<'_>) -> String {
    let mut text = table(
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
    );
    let stopped = tasks.iter().filter(|task| matches!(task.state.as_str(), "FAILED" | "UNDECIDED"));
    for task in stopped.take(LINES_ON_SCREEN) {
        line(&mut text, format_args!("task {}:", task.task_id));
        if let Some(error) = &task.error {
            push_problem(&mut text, error);
        }
        if task.state == "UNDECIDED" {
            line(&mut text, format_args!("  answer: {}", home.resolve(job_id, task.task_id)));
        }
    }
    text
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
pub(crate) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
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

/// What `starlift plan --create-table` shows.
#[derive(Debug, Serialize)]
pub(crate) struct NewTable {
    pub create_table: String,
}

pub(crate) fn plan(plan: &PlanDocument) -> String {
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "from {} to {}, about {} rows in {} tasks, at most {} at once over all workers",
            plan.source.join(", "),
            plan.target,
            count(plan.rows_estimate),
            plan.tasks.len(),
            plan.concurrent,
        ),
    );
    for pair in &plan.columns {
        line(&mut text, format_args!("  {} -> {}", pair.source, pair.target));
    }
    for (written, value) in &plan.parameters {
        line(&mut text, format_args!("parameter {written} = {value}"));
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
    use starlift_coordinator::PlannedTask;

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
    fn a_job_that_stands_still_says_how_it_goes_on() {
        let mut job = pb::JobStatus {
            job_id: "J".into(),
            state: "PAUSED".into(),
            paused_in: "PRE_SQL".into(),
            ..Default::default()
        };
        assert!(status(&job, Home::Coordinator).starts_with("job J (): PAUSED in PRE_SQL\n"));
        assert_eq!(next_steps(&job, Home::Coordinator), "to go on: starlift resume J\n");
        (job.state, job.undecided_tasks) = ("FAILED".into(), vec![3]);
        assert_eq!(
            next_steps(&job, Home::Directory(Path::new("here"))),
            "task 3 waits for your answer: starlift resolve J 3 --committed|--redo --reason TEXT --state here\n\
             to go on after that: the same `starlift run` again\n"
        );
        let error =
            pb::Problem { code: "INVALID_SQL".into(), message: "still runs".into(), ..Default::default() };
        (job.state, job.undecided_tasks, job.error) = ("PAUSED".into(), vec![], Some(error));
        assert_eq!(
            standstill(&job, Home::Coordinator),
            "job J was paused by itself in PRE_SQL\nerror[INVALID_SQL]: still runs\nto go on: starlift resume J\n"
        );
        for state in ["RUNNING", "SUCCEEDED", "CANCELLED"] {
            let job = pb::JobStatus { state: state.into(), ..Default::default() };
            assert_eq!(next_steps(&job, Home::Coordinator), "", "{state}");
        }
    }

    #[test]
    fn a_cancelled_job_says_what_stays() {
        let tasks = pb::TaskCounts { total: 8, succeeded: 3, ..Default::default() };
        let job =
            |state: &str| pb::JobStatus { state: state.into(), tasks: Some(tasks), ..Default::default() };
        assert!(cancelled(&job("CANCELLED")).contains("is cancelled: 3 of 8 tasks are in the target"));
        assert!(cancelled(&job("COMMITTING")).contains("ends when what is decided is committed: 3 of 8"));
        assert!(cancelled(&job("SUCCEEDED")).contains("is over already: SUCCEEDED"));
    }

    #[test]
    fn a_report_shows_the_first_bad_rows_and_where_all_of_them_are() {
        let row =
            |key: u32| pb::BadRow { key: key.to_string(), column: "v".into(), reason: "too\nlong".into() };
        let report = pb::FinalReport {
            dirty_records: 2_000,
            bad_rows: (0..1_000).map(row).collect(),
            dirty_files: vec!["node7:/dirty/a".into()],
            ..Default::default()
        };
        let text = super::report(&report);
        assert!(
            text.contains("  bad row 0, column v: too long\n") && !text.contains("bad row 10,"),
            "{text}"
        );
        assert!(text.contains("and 1,990 more dirty records"), "{text}");
        assert!(text.contains("all dirty records: node7:/dirty/a\n"), "{text}");
    }

    #[test]
    fn an_undecided_task_shows_its_facts_and_the_command_that_settles_it() {
        let error =
            pb::Problem { code: "OUTCOME_UNKNOWN".into(), message: "forgotten".into(), ..Default::default() };
        let task = pb::TaskStatus {
            task_id: 4,
            state: "UNDECIDED".into(),
            error: Some(error),
            ..Default::default()
        };
        let text = tasks("J", &[task], Home::Coordinator);
        assert!(text.contains("error[OUTCOME_UNKNOWN]: forgotten\n"), "{text}");
        assert!(text.contains("starlift resolve J 4 --committed|--redo"), "{text}");
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
            parameters: [("${d0}".to_owned(), "2025-11-01".to_owned())].into(),
            columns: vec![],
            rows_estimate: 100,
            loads_estimate: 1,
            concurrent: 4,
            pre_sql: vec![],
            post_sql: vec![],
            tasks: (0..100).map(task).collect(),
            warnings: vec![],
        };
        let text = plan(&document);
        assert!(text.contains("task 0 ") && text.contains("task 99 ") && !text.contains("task 50 "));
        assert!(text.contains("... 80 more tasks"));
        assert!(text.contains("parameter ${d0} = 2025-11-01\n"));
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
