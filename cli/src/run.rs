//! `starlift run`: a coordinator and its workers in one process, speaking gRPC over the loopback exactly as they would
//! across hosts. The state directory remembers which job it holds, so that the same command resumes it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starlift_common::datasource::Datasources;
use starlift_common::problem::{Code, Problem};
use starlift_coordinator::{self as coordinator, StateLocation};
use starlift_proto as pb;
use starlift_worker as worker;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128;

use crate::args::RunArgs;
use crate::client::Client;
use crate::commands::{End, WATCH_INTERVAL, new_job_id, show, stopped_by_signal, worker_problem};
use crate::files::{self, Job};
use crate::output;
use crate::progress::Progress;

/// After Ctrl-C running tasks are given back at once; the next run reads them again.
const DRAIN: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: RunArgs) -> Result<End, Vec<Problem>> {
    let (job, datasources) = files::read_job_and_datasources(&args.job, &args.datasources.path)?;
    output::warnings(&job.parsed.warnings);
    std::fs::create_dir_all(&args.state).map_err(|error| vec![unwritable(&args.state, &error)])?;
    let cluster = Cluster::start(&args, datasources).await.map_err(|problem| vec![problem])?;
    let result = drive(&args, job, &cluster).await;
    // A broken half explains whatever else went wrong, so it is told first.
    cluster.stop().await.and(result).map_err(|problem| vec![problem])
}

/// Submits or resumes the job and follows it.
async fn drive(args: &RunArgs, job: Job, cluster: &Cluster) -> Result<End, Problem> {
    let mut client = Client::connect(std::slice::from_ref(&cluster.url)).await?;
    let digest = format!("{:032x}", xxh3_128(job.script.as_bytes()));
    let job_id = match remembered(&args.state)? {
        Some(last) if is_unfinished(&mut client, &last.job_id).await? => {
            match (last.digest == digest, args.new) {
                (true, false) => {
                    eprintln!("resuming job {}", last.job_id);
                    last.job_id
                }
                (_, true) => {
                    client.cancel(&last.job_id).await?;
                    new_job_id().to_string()
                }
                (false, false) => return Err(changed(args, &last)),
            }
        }
        _ => new_job_id().to_string(),
    };
    remember(&args.state, &Remembered { job_id: job_id.clone(), digest })?;
    let request = pb::SubmitRequest { script: job.script, name: job.name, job_id: job_id.clone() };
    client.submit(request).await?;

    let mut progress = Progress::start(args.output.json);
    let stop = stopped_by_signal();
    let report = tokio::select! {
        report = client.follow(&job_id, WATCH_INTERVAL, |status| progress.show(status)) => report,
        () = stop.cancelled() => {
            progress.finish();
            eprintln!("interrupted; what was finished is kept. To resume:\n  starlift run {} --state {}", args.job.path.display(), args.state.display());
            return Ok(End::Interrupted);
        }
        problem = cluster.failed() => Err(problem),
    };
    progress.finish();
    let report = report?;
    show(&report, args.output.json, output::report);
    Ok(End::Job(Box::new(report)))
}

/// What the state directory holds.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    job_id: String,
    /// Of the script with its parameters replaced, so that another day's parameters are another job.
    digest: String,
}

const MEMORY: &str = "run.json";

fn remembered(state: &Path) -> Result<Option<Remembered>, Problem> {
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
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(|error| unwritable(&path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Code::StoreFailed, format!("cannot use the state directory: {error}"))
        .at(path.display().to_string())
        .hint("choose a writable one with --state DIR")
}

fn changed(args: &RunArgs, last: &Remembered) -> Problem {
    let message = format!("{} holds another unfinished job, {}", args.state.display(), last.job_id);
    Problem::new(Code::JobChanged, message).at(args.job.path.display().to_string()).hint(
        "run the job file and parameters it was started with, give another --state DIR, or cancel it with --new",
    )
}

async fn is_unfinished(client: &mut Client, job_id: &str) -> Result<bool, Problem> {
    match client.job(job_id).await {
        Ok(status) => Ok(!matches!(status.state.as_str(), "SUCCEEDED" | "FAILED" | "CANCELLED")),
        Err(problem) if problem.code == Code::UnknownJob => Ok(false),
        Err(problem) => Err(problem),
    }
}

/// The halves of Starlift in this process.
struct Cluster {
    url: String,
    workers: JoinSet<Result<(), Problem>>,
    stop_workers: CancellationToken,
    stop_coordinator: CancellationToken,
    coordinator: tokio::task::JoinHandle<()>,
    failure: tokio::sync::watch::Receiver<Option<Problem>>,
}

impl Cluster {
    async fn start(args: &RunArgs, datasources: Arc<Datasources>) -> Result<Self, Problem> {
        let grpc = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let grpc = grpc.map_err(|error| {
            Problem::new(Code::Internal, format!("cannot listen on the loopback: {error}"))
        })?;
        let address = grpc.local_addr().map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let url = format!("http://{address}");
        let (stop_workers, stop_coordinator) = (CancellationToken::new(), CancellationToken::new());
        let (failed, failure) = tokio::sync::watch::channel(None);

        let config =
            coordinator::Config::new(StateLocation::File(args.state.clone()), Arc::clone(&datasources));
        let stop = stop_coordinator.clone();
        let coordinator = tokio::spawn(async move {
            if let Err(error) = coordinator::run(config, grpc, None, stop).await {
                failed.send_replace(Some(error.problem()));
            }
        });
        let mut workers = JoinSet::new();
        for _ in 0..args.workers {
            let mut config = worker::Config::new(vec![url.clone()], Arc::clone(&datasources));
            config.slots = args.slots;
            config.drain_timeout = DRAIN;
            config.dirty_dir.clone_from(&args.dirty.dirty_dir);
            config.mask_dirty = args.dirty.mask_dirty;
            let stop = stop_workers.clone();
            workers.spawn(async move {
                worker::run(config, None, stop).await.map_err(|error| worker_problem(&error))
            });
        }
        let cluster = Self { url, workers, stop_workers, stop_coordinator, coordinator, failure };
        tokio::select! {
            biased;
            problem = cluster.failed() => Err(problem),
            ready = Client::connect(std::slice::from_ref(&cluster.url)) => ready.map(|_| ()),
        }?;
        Ok(cluster)
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

    #[test]
    fn the_state_directory_remembers_the_last_job() {
        let dir = std::env::temp_dir().join(format!("starlift-run-{}", new_job_id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(remembered(&dir).unwrap().is_none());
        remember(&dir, &Remembered { job_id: "a".into(), digest: "b".into() }).unwrap();
        let found = remembered(&dir).unwrap().unwrap();
        assert_eq!((found.job_id.as_str(), found.digest.as_str()), ("a", "b"));
        std::fs::write(dir.join(MEMORY), "not json").unwrap();
        assert_eq!(remembered(&dir).unwrap_err().code, Code::StoreFailed);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
