//! `starlift run`: a coordinator and its workers in one process, speaking gRPC over the loopback exactly as they would
//! across hosts. The state directory remembers which job it holds, so that the same command resumes it.

use std::fs::DirBuilder;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starlift_common::datasource::{Datasources, LiveDatasources};
use starlift_common::problem::{Code, Problem};
use starlift_common::script::Schedule;
use starlift_coordinator::{self as coordinator, Listeners, StateLocation};
use starlift_link::dial::Dialer;
use starlift_proto as pb;
use starlift_worker as worker;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128;

use crate::again;
use crate::args::RunArgs;
use crate::client::Client;
use crate::end::End;
use crate::files::{self, Job};
use crate::offline::Journal;
use crate::output::{self, Home, show};
use crate::plan::show_plan;
use crate::process::{new_job_id, stopped_by_signal, unix_time};
use crate::progress::{Progress, tell_next_steps};
use crate::screen::Screen;
use crate::servers::worker_problem;

/// After Ctrl-C running tasks are given back at once; the next run reads them again.
const DRAIN: Duration = Duration::from_secs(2);

/// Workers and coordinator live and die together here: a lease that runs out was held by an earlier process.
const LEASE: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: RunArgs, screen: &Screen) -> Result<End, Vec<Problem>> {
    let last = last_job(&args.state).await.map_err(|problem| vec![problem])?;
    let (job, datasources, schedule) = read(&args, last.as_ref())?;
    output::warnings(&job.parsed.warnings);
    if job.parsed.dry_run {
        return show_plan(job, &datasources, args.output.json).await;
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&args.state);
    made.map_err(|error| vec![unwritable(&args.state, &error)])?;
    // Decided before anything runs: a job that is not to go on must not come a step further by the question.
    let start = decide(&args, &job, schedule, last).map_err(|problem| vec![problem])?;
    // From here on an interruption leaves a directory that the same command goes on with.
    let stop = stopped_by_signal();
    let cluster =
        Cluster::start(&args, LiveDatasources::new(datasources)).await.map_err(|problem| vec![problem])?;
    let result = tokio::select! {
        result = drive(&args, job, start, &cluster, screen) => result,
        () = stop.cancelled() => {
            eprintln!("interrupted; what was finished is kept. To resume:\n  {}", again::run(&args));
            Ok(End::Interrupted)
        }
    };
    // A broken half explains whatever else went wrong, so it is told first.
    cluster.stop().await.and(result).map_err(|problem| vec![problem])
}

/// The job of the file, by the schedule with which the directory's unfinished job began if that makes the same job of
/// it, else by the clock: a job is not another one because it goes on a day later.
fn read(
    args: &RunArgs,
    last: Option<&(Remembered, pb::JobStatus)>,
) -> Result<(Job, Datasources, Schedule), Vec<Problem>> {
    let file = &args.job;
    let read = |schedule| {
        let (job, datasources) = files::read_job_and_datasources(file, schedule, &args.datasources.path)?;
        Ok((job, datasources, schedule))
    };
    let unfinished = last.filter(|(_, status)| !args.new && !is_over(status));
    if let Some((last, _)) = unfinished
        && let Some(kept) = last.schedule
        && kept.fits(file.times.bizdate, file.times.scheduled_time)
        && let Ok(same) = read(kept)
        && digest(&same.0) == last.digest
    {
        return Ok(same);
    }
    read(files::schedule(&file.times, unix_time()))
}

/// How a run begins.
struct Beginning {
    step: Step,
    job: Remembered,
    /// The job that the directory holds; nothing but defaults when there is none.
    last: pb::JobStatus,
}

fn decide(
    args: &RunArgs,
    job: &Job,
    schedule: Schedule,
    last: Option<(Remembered, pb::JobStatus)>,
) -> Result<Beginning, Problem> {
    let digest = digest(job);
    let step = match &last {
        Some((last, status)) => next_step(last.digest == digest, args.new, status),
        None => Ok(Step::Start),
    };
    let last = last.map(|(_, status)| status).unwrap_or_default();
    let step = step.map_err(|refusal| refusal.problem(args, &last))?;
    let job_id = match step {
        Step::Start | Step::Replace => new_job_id().to_string(),
        Step::GoOn | Step::Resume => last.job_id.clone(),
    };
    let schedule = job.depends_on_time.then_some(schedule);
    Ok(Beginning { step, job: Remembered { job_id, digest, schedule }, last })
}

fn digest(job: &Job) -> String {
    format!("{:032x}", xxh3_128(job.script.as_bytes()))
}

/// Submits or resumes the job and follows it.
async fn drive(
    args: &RunArgs,
    job: Job,
    beginning: Beginning,
    cluster: &Cluster,
    screen: &Screen,
) -> Result<End, Problem> {
    let mut client = Client::connect(std::slice::from_ref(&cluster.url), Dialer::default()).await?;
    let Beginning { step, job: remembered, last } = beginning;
    if step == Step::Replace {
        client.cancel(&last.job_id).await?;
    }
    remember(&args.state, &remembered)?;
    let Remembered { job_id, schedule, .. } = remembered;
    let request = pb::SubmitRequest { script: job.script, name: job.name, job_id: job_id.clone() };
    client.submit(request).await?;
    if step == Step::Resume {
        client.resume(&job_id).await?;
    }
    if matches!(step, Step::GoOn | Step::Resume) {
        eprint!("{}", output::resuming(&last, schedule));
    }
    follow(args, &mut client, &job_id, cluster, screen).await
}

/// To the job's end, or to a standstill that nobody but the next run could end.
async fn follow(
    args: &RunArgs,
    client: &mut Client,
    job_id: &str,
    cluster: &Cluster,
    screen: &Screen,
) -> Result<End, Problem> {
    let home = Home::Directory(&args.state);
    let progress = Progress::start(screen, args.output.json, home);
    let (stands_still, standstill) = watch::channel(None);
    let moves = |status: &pb::JobStatus| {
        let reason = status.error.clone().filter(|_| status.state == "PAUSED");
        let moves = reason.is_none();
        if !moves {
            stands_still.send_replace(reason);
        }
        moves
    };
    let report = tokio::select! {
        report = progress.follow(client, job_id, moves) => report,
        problem = cluster.failed() => Err(problem),
        reason = some(standstill) => Err(paused(args, reason.into())),
    };
    drop(progress);
    let report = report?;
    show(&report, args.output.json, output::report);
    tell_next_steps(client, job_id, home).await;
    Ok(End::Job(Box::new(report)))
}

/// Why the job stands still, and how it goes on once that is mended.
fn paused(args: &RunArgs, reason: Problem) -> Problem {
    let go_on = format!("to go on: {}", again::run(args));
    let hint = if reason.hint.is_empty() { go_on } else { format!("{}; {go_on}", reason.hint) };
    reason.hint(hint)
}

/// The value, once there is one.
async fn some<T: Clone>(mut value: watch::Receiver<Option<T>>) -> T {
    let found = value.wait_for(Option::is_some).await.ok().and_then(|value| value.clone());
    match found {
        Some(value) => value,
        None => std::future::pending().await,
    }
}

/// The job that the directory was last used for, and how it stands; none when it never got so far as to be one.
async fn last_job(state: &Path) -> Result<Option<(Remembered, pb::JobStatus)>, Problem> {
    let Some(last) = remembered(state)? else { return Ok(None) };
    match Journal::open(state, unix_time()).await?.job(&last.job_id) {
        Ok(status) => Ok(Some((last, status))),
        Err(problem) if problem.code == Code::UnknownJob => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// What the command means, by what the state directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A fresh job.
    Start,
    /// A fresh job, after the unfinished one is cancelled.
    Replace,
    /// The job there goes on by itself.
    GoOn,
    /// The job there goes on when it is told to.
    Resume,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Another job is there that is unfinished, or has failed after it had loaded rows.
    Changed,
    /// A human has to say first what became of commits.
    Undecided,
    /// The journal and the server contradict each other.
    Foreign,
}

/// `last` is the job that the directory holds, `is_same` whether it was started with the same script and parameters.
fn next_step(is_same: bool, new: bool, last: &pb::JobStatus) -> Result<Step, Refusal> {
    let has_failed = last.state == "FAILED";
    if is_over(last) || has_failed && new {
        return Ok(Step::Start);
    }
    if new {
        return Ok(Step::Replace);
    }
    if !is_same {
        let has_loaded = last.tasks.is_some_and(|tasks| tasks.succeeded > 0);
        let is_harmless = has_failed && !has_loaded && last.undecided_tasks.is_empty();
        return if is_harmless { Ok(Step::Start) } else { Err(Refusal::Changed) };
    }
    if !last.undecided_tasks.is_empty() {
        return Err(Refusal::Undecided);
    }
    let is_foreign = last.error.as_ref().is_some_and(|error| error.code == Code::ForeignLabel.as_str());
    match last.state.as_str() {
        "FAILED" if is_foreign => Err(Refusal::Foreign),
        "FAILED" | "PAUSED" => Ok(Step::Resume),
        _ => Ok(Step::GoOn),
    }
}

/// Whether nothing can go on with the job any more.
fn is_over(job: &pb::JobStatus) -> bool {
    matches!(job.state.as_str(), "SUCCEEDED" | "CANCELLED")
}

impl Refusal {
    fn problem(self, args: &RunArgs, last: &pb::JobStatus) -> Problem {
        let id = &last.job_id;
        let reason = || last.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
        match self {
            Self::Changed => {
                let directory = args.state.display();
                let message = format!("{directory} holds another job, {id}, which is {}", last.state);
                Problem::new(Code::JobChanged, message).at(args.job.path.display().to_string()).hint(
                    "run the job file and parameters it was started with, give another --state DIR, or give it up with --new",
                )
            }
            Self::Undecided => {
                let tasks = last.undecided_tasks.iter().take(TASKS_IN_HINT);
                let answers: Vec<String> =
                    tasks.map(|task| Home::Directory(&args.state).resolve(id, *task)).collect();
                let message = format!("job {id} needs your answer before it can go on: {}", reason());
                Problem::new(Code::WrongState, message)
                    .hint(format!("{}; then run it again", answers.join("; ")))
            }
            Self::Foreign => Problem::new(Code::WrongState, format!("job {id} cannot go on: {}", reason()))
                .hint("see what the target holds, empty it if need be, and start anew with --new"),
        }
    }
}

/// Undecided tasks that one message names.
const TASKS_IN_HINT: usize = 5;

/// What the state directory holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Remembered {
    job_id: String,
    /// Of the script with its parameters replaced, so that another day's parameters are another job.
    digest: String,
    /// What its time expressions were counted from, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule: Option<Schedule>,
}

const MEMORY: &str = "run.json";

pub(crate) fn remembered(state: &Path) -> Result<Option<Remembered>, Problem> {
    let path = state.join(MEMORY);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            Problem::new(Code::StoreFailed, format!("unreadable: {error}"))
                .at(path.display().to_string())
                .hint("use another --state directory")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unwritable(&path, &error)),
    }
}

fn remember(state: &Path, job: &Remembered) -> Result<(), Problem> {
    let path = state.join(MEMORY);
    let fresh = state.join("run.json.new");
    let text = serde_json::to_vec(job).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    // Renamed into place, so that an interruption leaves the old or the new one, never half of it.
    std::fs::File::create(&fresh)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(|error| unwritable(&path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Code::StoreFailed, format!("cannot use the state directory: {error}"))
        .at(path.display().to_string())
        .hint("choose a writable one with --state DIR")
}

/// The halves of Starlift in this process.
struct Cluster {
    url: String,
    workers: JoinSet<Result<(), Problem>>,
    stop_workers: CancellationToken,
    stop_coordinator: CancellationToken,
    coordinator: tokio::task::JoinHandle<()>,
    failure: watch::Receiver<Option<Problem>>,
}

impl Cluster {
    async fn start(args: &RunArgs, datasources: LiveDatasources) -> Result<Self, Problem> {
        let grpc = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let grpc = grpc.map_err(|error| {
            Problem::new(Code::Internal, format!("cannot listen on the loopback: {error}"))
        })?;
        let address = grpc.local_addr().map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let url = format!("http://{address}");
        let (stop_workers, stop_coordinator) = (CancellationToken::new(), CancellationToken::new());
        let (failed, failure) = watch::channel(None);

        let mut config =
            coordinator::Config::new(StateLocation::File(args.state.clone()), datasources.clone());
        config.lease = LEASE;
        let stop = stop_coordinator.clone();
        let coordinator = tokio::spawn(async move {
            if let Err(error) = coordinator::run(config, Listeners::new(grpc, None), stop).await {
                failed.send_replace(Some(error.problem()));
            }
        });
        let workers = JoinSet::new();
        let mut cluster = Self { url, workers, stop_workers, stop_coordinator, coordinator, failure };
        tokio::select! {
            biased;
            problem = cluster.failed() => Err(problem),
            led = cluster.until_led() => led,
        }?;
        for _ in 0..args.workers {
            cluster.add_worker(args, datasources.clone());
        }
        Ok(cluster)
    }

    /// Nobody leads before the journal is read, and a worker that asked now would complain of it.
    async fn until_led(&self) -> Result<(), Problem> {
        let mut client = Client::connect(std::slice::from_ref(&self.url), Dialer::default()).await?;
        client.jobs().await.map(|_| ())
    }

    fn add_worker(&mut self, args: &RunArgs, datasources: LiveDatasources) {
        let mut config = worker::Config::new(vec![self.url.clone()], datasources);
        config.slots = args.slots.unwrap_or(config.slots);
        config.drain_timeout = DRAIN;
        config.dirty_dir.clone_from(&args.dirty.dirty_dir);
        config.mask_dirty = args.dirty.mask_dirty;
        let stop = self.stop_workers.clone();
        self.workers.spawn(async move {
            worker::run(config, worker::Listeners::default(), stop)
                .await
                .map_err(|error| worker_problem(&error))
        });
    }

    /// Ends when the coordinator fails, with the reason.
    async fn failed(&self) -> Problem {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(problem) => {
                problem.clone().unwrap_or_else(|| Problem::new(Code::Internal, "the coordinator failed"))
            }
            // It ended without a failure, which only happens after it was told to.
            Err(_) => std::future::pending().await,
        }
    }

    /// Workers first: they give back what they hold while the coordinator still listens.
    async fn stop(mut self) -> Result<(), Problem> {
        self.stop_workers.cancel();
        let mut result = Ok(());
        while let Some(ended) = self.workers.join_next().await {
            let ended =
                ended.map_err(|error| Problem::new(Code::Internal, format!("a worker broke down: {error}")));
            result = result.and(ended.flatten());
        }
        self.stop_coordinator.cancel();
        let ended = self.coordinator.await;
        let ended = ended
            .map_err(|error| Problem::new(Code::Internal, format!("the coordinator broke down: {error}")));
        let failure = self.failure.borrow().clone();
        failure.map_or(Ok(()), Err).and(ended).and(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str) -> pb::JobStatus {
        pb::JobStatus { job_id: "J".into(), state: state.into(), ..Default::default() }
    }

    #[test]
    fn the_same_command_goes_on_with_whatever_can_go_on() {
        for (state, step) in [
            ("RUNNING", Ok(Step::GoOn)),
            ("PAUSED", Ok(Step::Resume)),
            ("FAILED", Ok(Step::Resume)),
            ("SUCCEEDED", Ok(Step::Start)),
            ("CANCELLED", Ok(Step::Start)),
        ] {
            assert_eq!(next_step(true, false, &status(state)), step, "{state}");
        }
        let undecided = pb::JobStatus { undecided_tasks: vec![1], ..status("FAILED") };
        assert_eq!(next_step(true, false, &undecided), Err(Refusal::Undecided));
        let error = pb::Problem { code: "FOREIGN_LABEL".into(), ..Default::default() };
        let foreign = pb::JobStatus { error: Some(error), ..status("FAILED") };
        assert_eq!(next_step(true, false, &foreign), Err(Refusal::Foreign));
    }

    #[test]
    fn another_job_never_silently_follows_one_that_has_loaded_rows() {
        let loaded = |state: &str| pb::JobStatus {
            tasks: Some(pb::TaskCounts { total: 2, succeeded: 1, ..Default::default() }),
            ..status(state)
        };
        for state in ["RUNNING", "PAUSED", "FAILED"] {
            assert_eq!(next_step(false, false, &loaded(state)), Err(Refusal::Changed), "{state}");
        }
        assert_eq!(next_step(false, false, &status("FAILED")), Ok(Step::Start), "nothing was loaded");
        assert_eq!(next_step(false, false, &loaded("SUCCEEDED")), Ok(Step::Start));
        assert_eq!(next_step(false, true, &loaded("FAILED")), Ok(Step::Start));
        assert_eq!(next_step(false, true, &loaded("RUNNING")), Ok(Step::Replace));
    }

    #[test]
    fn the_state_directory_remembers_the_last_job() {
        let dir = std::env::temp_dir().join(format!("starlift-run-{}", new_job_id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(remembered(&dir).unwrap().is_none());
        let schedule = Some(Schedule::new(jiff::civil::date(2025, 11, 1).at(2, 30, 45, 0), None, None));
        remember(&dir, &Remembered { job_id: "a".into(), digest: "b".into(), schedule }).unwrap();
        let found = remembered(&dir).unwrap().unwrap();
        assert_eq!((found.job_id.as_str(), found.digest.as_str(), found.schedule), ("a", "b", schedule));
        std::fs::write(dir.join(MEMORY), r#"{"job_id":"a","digest":"b"}"#).unwrap();
        assert_eq!(remembered(&dir).unwrap().unwrap().schedule, None, "as it was written before");
        std::fs::write(dir.join(MEMORY), "not json").unwrap();
        assert_eq!(remembered(&dir).unwrap_err().code, Code::StoreFailed);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
