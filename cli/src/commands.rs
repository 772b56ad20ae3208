//! Each command from its flags to its exit code: sequences only.

use std::path::Path;

use starlift_common::problem::{Code, Problem};
use starlift_coordinator as coordinator;
use starlift_coordinator::state::Resolution;
use starlift_link::dial::Dialer;
use starlift_link::tokens::Role;
use starlift_proto as pb;

use crate::args::{
    CheckArgs, ClientArgs, Command, DrainArgs, JobArgs, LookArgs, ResolveArgs, SubmitArgs, TlsCommand,
};
use crate::client::Client;
use crate::end::{End, Outcome, exit_code, one};
use crate::offline::Journal;
use crate::output::{Home, show};
use crate::process::{new_job_id, stopped_by_signal, unix_time};
use crate::progress::{Progress, tell_next_steps};
use crate::screen::Screen;
use crate::{again, authority, checked, completions, convert, files, output, plan, run, screen, servers};

/// Jobs of a coordinator.
const THERE: Home<'static> = Home::Coordinator;

/// Runs the command and answers its exit code: 0 done, 1 the job failed, 2 mend the input, 3 mend something outside.
pub(crate) async fn execute(command: Command, screen: &Screen) -> u8 {
    let json = wants_json(&command);
    let result = match command {
        Command::Run(args) => run::run(args, screen).await,
        Command::Coordinator(args) => Box::pin(servers::coordinator(*args)).await,
        Command::Worker(args) => Box::pin(servers::worker(args)).await,
        Command::Submit(args) => submit(args, screen).await,
        Command::List(args) => list(args).await,
        Command::Status(args) => status(args).await,
        Command::Watch(args) => watch(args, screen).await,
        Command::Tasks(args) => tasks(args).await,
        Command::Report(args) => report(args).await,
        Command::Workers(args) => workers(args).await,
        Command::Cancel(args) => cancel(args).await,
        Command::Pause(args) => pause(args).await,
        Command::Resume(args) => resume(args).await,
        Command::Drain(args) => drain(args).await,
        Command::Resolve(args) => resolve(args).await,
        Command::Plan(args) => plan::plan(args).await,
        Command::Convert(args) => convert::convert(&args),
        Command::Tls(args) => match args.command {
            TlsCommand::Init(args) => authority::init(&args),
        },
        Command::Check(args) => check(args).await,
        Command::Completions(args) => completions::print(args.shell),
    };
    if let Err(problems) = &result {
        output::problems(problems, json);
    }
    exit_code(&result)
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Run(args) => args.output.json,
        Command::Plan(args) => args.output.json,
        Command::Submit(args) => args.client.output.json,
        Command::Check(args) => args.client.output.json,
        Command::List(args) | Command::Workers(args) => args.output.json,
        Command::Status(args) | Command::Tasks(args) | Command::Report(args) => args.job.client.output.json,
        Command::Watch(args) | Command::Cancel(args) | Command::Pause(args) | Command::Resume(args) => {
            args.client.output.json
        }
        Command::Drain(args) => args.client.output.json,
        Command::Resolve(args) => args.client.output.json,
        // A script is one JSON document already, and servers print none.
        Command::Convert(_)
        | Command::Coordinator(_)
        | Command::Worker(_)
        | Command::Tls(_)
        | Command::Completions(_) => false,
    }
}

async fn submit(args: SubmitArgs, screen: &Screen) -> Outcome {
    let job = files::read_script(&args.job, files::schedule(&args.job.times, unix_time()))?.unless_dry()?;
    output::warnings(&job.parsed.warnings);
    let mut client = connect(&args.client).await?;
    let request = pb::SubmitRequest {
        script: job.script,
        name: args.name.unwrap_or(job.name),
        job_id: new_job_id().to_string(),
    };
    let submitted = client.submit(request).await.map_err(one)?;
    if args.watch {
        return follow(&mut client, &submitted.job_id, &args.client, screen).await;
    }
    show(&submitted, args.client.output.json, |status| {
        format!("{}\nfollow it with: starlift watch {}\n", output::status(status, THERE), status.job_id)
    });
    Ok(End::Done)
}

async fn list(args: ClientArgs) -> Outcome {
    let jobs = connect(&args).await?.jobs().await.map_err(one)?;
    show(&jobs, args.output.json, |jobs| output::jobs(jobs));
    Ok(End::Done)
}

async fn watch(args: JobArgs, screen: &Screen) -> Outcome {
    let mut client = connect(&args.client).await?;
    follow(&mut client, &args.job_id, &args.client, screen).await
}

async fn follow(client: &mut Client, job_id: &str, args: &ClientArgs, screen: &Screen) -> Outcome {
    let progress = Progress::start(screen, args.output.json, THERE);
    let stop = stopped_by_signal();
    let report = tokio::select! {
        report = progress.follow(client, job_id, |_| true) => report,
        () = stop.cancelled() => {
            drop(progress);
            eprintln!("the job goes on; follow it with: {}", again::watch(job_id, args));
            return Ok(End::Interrupted);
        }
    };
    drop(progress);
    let report = report.map_err(one)?;
    show(&report, args.output.json, output::report);
    tell_next_steps(client, job_id, THERE).await;
    Ok(End::Job(Box::new(report)))
}

async fn status(args: LookArgs) -> Outcome {
    let LookArgs { job, kept } = args;
    let status = match &kept.state {
        Some(directory) => open(directory).await?.job(&job.job_id),
        None => connect(&job.client).await?.job(&job.job_id).await,
    };
    let status = status.map_err(one)?;
    show(&status, job.client.output.json, |status| output::status(status, kept.home()));
    Ok(End::Done)
}

async fn tasks(args: LookArgs) -> Outcome {
    let LookArgs { job, kept } = args;
    let tasks = match &kept.state {
        Some(directory) => open(directory).await?.tasks(&job.job_id),
        None => connect(&job.client).await?.tasks(&job.job_id).await,
    };
    let tasks = tasks.map_err(one)?;
    show(&tasks, job.client.output.json, |tasks| output::tasks(&job.job_id, tasks, kept.home()));
    Ok(End::Done)
}

async fn report(args: LookArgs) -> Outcome {
    let LookArgs { job, kept } = args;
    let report = match &kept.state {
        Some(directory) => open(directory).await?.report(&job.job_id),
        None => connect(&job.client).await?.report(&job.job_id).await,
    };
    let report = report.map_err(one)?;
    show(&report, job.client.output.json, output::report);
    Ok(End::Done)
}

async fn workers(args: ClientArgs) -> Outcome {
    let workers = connect(&args).await?.workers().await.map_err(one)?;
    show(&workers, args.output.json, |workers| output::workers(workers));
    Ok(End::Done)
}

async fn cancel(args: JobArgs) -> Outcome {
    let job = connect(&args.client).await?.cancel(&args.job_id).await.map_err(one)?;
    show(&job, args.client.output.json, output::cancelled);
    Ok(End::Done)
}

async fn pause(args: JobArgs) -> Outcome {
    let job = connect(&args.client).await?.pause(&args.job_id).await.map_err(one)?;
    show(&job, args.client.output.json, output::paused);
    Ok(End::Done)
}

async fn resume(args: JobArgs) -> Outcome {
    let job = connect(&args.client).await?.resume(&args.job_id).await.map_err(one)?;
    show(&job, args.client.output.json, output::resumed);
    Ok(End::Done)
}

async fn drain(args: DrainArgs) -> Outcome {
    let worker = connect(&args.client).await?.drain(&args.worker_id).await.map_err(one)?;
    show(&worker, args.client.output.json, output::drained);
    Ok(End::Done)
}

async fn resolve(args: ResolveArgs) -> Outcome {
    let home = args.kept.home();
    let job = match &args.kept.state {
        Some(directory) => {
            let resolution = if args.answer.committed { Resolution::Committed } else { Resolution::Redo };
            open(directory).await?.resolve(&args.job_id, args.task_id, resolution, args.reason).await
        }
        None => {
            let committed = args.answer.committed;
            let resolution = if committed { pb::Resolution::Committed } else { pb::Resolution::Redo };
            let request = pb::ResolveTaskRequest {
                job_id: args.job_id,
                task_id: args.task_id,
                resolution: resolution.into(),
                reason: args.reason,
            };
            connect(&args.client).await?.resolve(request).await
        }
    };
    let word = if args.answer.committed { "counts as committed" } else { "will be loaded again" };
    show(&job.map_err(one)?, args.client.output.json, |status| {
        format!("task {} {word}\n{}", args.task_id, output::next_steps(status, home))
    });
    Ok(End::Done)
}

async fn open(directory: &Path) -> Result<Journal, Vec<Problem>> {
    Journal::open(directory, unix_time()).await.map_err(one)
}

async fn check(args: CheckArgs) -> Outcome {
    let json = args.client.output.json;
    let schedule = files::schedule(&args.job.times, unix_time());
    let reply = if args.from_workers {
        let job = files::read_script(&args.job, schedule)?;
        connect(&args.client).await?.check(job.script, args.wait).await.map_err(one)?
    } else {
        let (job, datasources) =
            files::read_job_and_datasources(&args.job, schedule, &args.datasources.path)?;
        Box::pin(coordinator::check_job(&job.parsed.spec, job.parsed.warnings, &datasources)).await
    };
    show(&reply, json, |reply| checked::text(reply, screen::understands_codes(&std::io::stdout())));
    Ok(match &reply.error {
        None => End::Done,
        Some(error) => End::Unfit(Code::from_name(&error.code)),
    })
}

async fn connect(args: &ClientArgs) -> Result<Client, Vec<Problem>> {
    let dialer = Dialer::new(args.link.dial(), Role::User).map_err(one)?;
    Client::connect(&args.coordinator.urls, dialer).await.map_err(one)
}
