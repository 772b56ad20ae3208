//! Every command and flag, with its default and unit. Each flag is also an environment variable `STARLIFT_*`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jiff::civil::Date;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use starlift_common::problem::{Code, Problem};
use starlift_common::script::{ScheduledTime, parse_business_date, parse_scheduled_time};
use starlift_common::telemetry::LogFormat;
use starlift_coordinator::{EtcdAccess, EtcdLocation, StateLocation};
use starlift_link::dial::DialSettings;
use starlift_link::tls::TlsFiles;

use crate::output::Home;

/// Moves very large tables into StarRocks across many machines, every row exactly once.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
#[command(after_help = "Example:\n  starlift plan orders.json && starlift run orders.json")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Which log lines to print on stderr: error, warn, info, debug, or a filter such as `warn,starlift_worker=debug`
    /// [default: info for coordinator and worker, else warn]
    #[arg(long, global = true, env = "STARLIFT_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Form of log lines
    #[arg(long, global = true, env = "STARLIFT_LOG_FORMAT", default_value = "text")]
    pub log_format: LogForm,
}

impl Cli {
    /// Servers tell what they do; commands for people only what is wrong.
    pub(crate) fn log_filter(&self) -> String {
        let is_server = matches!(self.command, Command::Coordinator(_) | Command::Worker(_));
        self.log.clone().unwrap_or_else(|| if is_server { "info" } else { "warn" }.into())
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogForm {
    Text,
    Json,
}

impl From<LogForm> for LogFormat {
    fn from(form: LogForm) -> Self {
        match form {
            LogForm::Text => Self::Text,
            LogForm::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a job here, in one process; interrupted or failed, the same command goes on with it
    #[command(after_help = "Example:\n  starlift run orders.json --workers 2 --param day=2026-11-21")]
    Run(RunArgs),
    /// Start a coordinator: plans jobs, leases tasks to workers, commits what they prepared
    #[command(
        after_help = "Example:\n  starlift coordinator --grpc 127.0.0.1:9470 --http 127.0.0.1:9471 --state file:/var/lib/starlift"
    )]
    Coordinator(Box<CoordinatorArgs>),
    /// Start a worker: reads key ranges and loads them
    #[command(after_help = "Example:\n  starlift worker --coordinator http://127.0.0.1:9470 --slots 8")]
    Worker(WorkerArgs),
    /// Hand a job to a coordinator
    #[command(after_help = "Example:\n  starlift submit orders.json --watch")]
    Submit(SubmitArgs),
    /// List all jobs
    #[command(after_help = "Example:\n  starlift list --json")]
    List(ClientArgs),
    /// Show where a job stands
    #[command(after_help = "Example:\n  starlift status 01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    Status(LookArgs),
    /// Follow a job to its end and print its report
    #[command(after_help = "Example:\n  starlift watch 01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    Watch(JobArgs),
    /// List a job's tasks with ranges, workers and rows
    #[command(after_help = "Example:\n  starlift tasks 01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    Tasks(LookArgs),
    /// Print the final report of a finished job
    #[command(after_help = "Example:\n  starlift report 01ARZ3NDEKTSV4RRFFQ69G5FAV --json")]
    Report(LookArgs),
    /// List the workers that the coordinator hears of
    #[command(after_help = "Example:\n  starlift workers")]
    Workers(ClientArgs),
    /// Cancel a job: stop its tasks and roll back what is not committed
    #[command(after_help = "Example:\n  starlift cancel 01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    Cancel(JobArgs),
    /// Pause a job: what runs is finished and committed, nothing new starts
    #[command(after_help = "Example:\n  starlift pause 01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    Pause(JobArgs),
    /// Go on with a paused job, or with what a failed one has left undone
    #[command(after_help = "Example:\n  starlift resume 01ARZ3NDEKTSV4RRFFQ69G5FAV")]
    Resume(JobArgs),
    /// Let a worker finish the tasks it runs and leave
    #[command(after_help = "Example:\n  starlift drain node7-4q2m9x0abc")]
    Drain(DrainArgs),
    /// Say what became of a task's commit that StarRocks has forgotten
    #[command(
        after_help = "Example:\n  starlift resolve 01ARZ3NDEKTSV4RRFFQ69G5FAV 17 --committed --reason \"count matches\""
    )]
    Resolve(ResolveArgs),
    /// Show a job's tasks, their SQL and warnings, after all checks; touches nothing
    #[command(after_help = "Example:\n  starlift plan orders.json")]
    Plan(PlanArgs),
    /// Turn a DataX job into a job script on stdout and data source entries
    #[command(
        after_help = "Example:\n  starlift convert datax.json --datasources-out datasources.toml > orders.json"
    )]
    Convert(ConvertArgs),
    /// Certificates and tokens for a first cluster
    #[command(after_help = "Example:\n  starlift tls init /etc/starlift/tls --name coordinator.example")]
    Tls(TlsArgs),
    /// Try everything a job needs: logins, grants, every FE and BE, one row, columns and types; changes nothing
    #[command(after_help = "Example:\n  starlift check orders.json --from-workers")]
    Check(CheckArgs),
    /// Print the script by which a shell completes commands and flags
    #[command(
        after_help = "Example:\n  starlift completions bash > ~/.local/share/bash-completion/completions/starlift"
    )]
    Completions(CompletionsArgs),
}

/// A job file and what goes into it.
#[derive(Debug, Args)]
pub(crate) struct JobFile {
    /// The job script, in the DataWorks form; `run` and `plan` take a DataX file as well
    #[arg(id = "job", value_name = "JOB")]
    pub path: PathBuf,
    /// Value of a `${name}` in the script, or a time expression such as `${yyyymmdd-1}`; may be given many times
    #[arg(long = "param", value_name = "NAME=EXPRESSION", value_parser = parameter, env = "STARLIFT_PARAM", value_delimiter = '\u{1f}')]
    pub parameters: Vec<(String, String)>,
    /// File with a line NAME=EXPRESSION for each parameter; a --param of the same name wins
    #[arg(long, value_name = "FILE", env = "STARLIFT_PARAMS_FILE")]
    pub params_file: Option<PathBuf>,
    #[command(flatten)]
    pub times: Times,
    /// Accept comments and trailing commas in the script
    #[arg(long, env = "STARLIFT_LENIENT")]
    pub lenient: bool,
}

/// What the time expressions in a job count from.
#[derive(Debug, Args)]
pub(crate) struct Times {
    /// Business date, the base of `${yyyymmdd}`; the scheduled time moves to the day after it
    /// [default: the day before the scheduled time]
    #[arg(long, value_name = "YYYYMMDD", env = "STARLIFT_BIZDATE", value_parser = parse_business_date)]
    pub bizdate: Option<Date>,
    /// Scheduled time, the base of `$[hh24:mi:ss]`; with --bizdate the time of the day is enough [default: now]
    #[arg(
        long,
        value_name = "YYYY-MM-DD HH:MM:SS",
        env = "STARLIFT_SCHEDULED_TIME",
        value_parser = parse_scheduled_time
    )]
    pub scheduled_time: Option<ScheduledTime>,
    /// Time zone in which now is read, such as Asia/Shanghai or +08:00 [default: the machine's]
    #[arg(long, value_name = "ZONE", env = "STARLIFT_SCHEDULE_ZONE", value_parser = zone)]
    pub schedule_zone: Option<TimeZone>,
}

#[derive(Debug, Args)]
pub(crate) struct DatasourcesFile {
    /// Where the data sources are defined
    #[arg(
        long = "datasources",
        value_name = "FILE",
        env = "STARLIFT_DATASOURCES",
        default_value = "datasources.toml"
    )]
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Json {
    /// Print exactly one JSON document on stdout
    #[arg(long = "json", env = "STARLIFT_JSON")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub job: JobFile,
    #[command(flatten)]
    pub datasources: DatasourcesFile,
    /// Workers in this process
    #[arg(long, env = "STARLIFT_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Tasks that each worker runs at once [default: 2 for each core]
    #[arg(long, env = "STARLIFT_SLOTS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,
    #[command(flatten)]
    pub dirty: DirtyArgs,
    /// Directory of the job's journal; what a later run resumes from
    #[arg(long, value_name = "DIR", env = "STARLIFT_STATE", default_value = ".starlift", value_parser = state)]
    pub state: PathBuf,
    /// Start anew although the state directory holds another unfinished job
    #[arg(long, env = "STARLIFT_NEW")]
    pub new: bool,
    #[command(flatten)]
    pub output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorArgs {
    /// Address for workers and commands (gRPC)
    #[arg(long, value_name = "HOST:PORT", env = "STARLIFT_GRPC", default_value = "127.0.0.1:9470")]
    pub grpc: String,
    /// Address for REST, health and metrics
    #[arg(long, value_name = "HOST:PORT", env = "STARLIFT_HTTP", default_value = "127.0.0.1:9471")]
    pub http: String,
    #[command(flatten)]
    pub link: LinkArgs,
    /// Demand a certificate of --tls-ca from every caller; health and the console's files, which hold no data, stay open
    #[arg(long, env = "STARLIFT_MUTUAL_TLS", requires = "tls_ca")]
    pub mutual_tls: bool,
    /// Address for metrics and health alone, without encryption and token
    #[arg(long, value_name = "HOST:PORT", env = "STARLIFT_METRICS")]
    pub metrics: Option<String>,
    /// Address for KEDA's external scaler alone, without encryption and token
    #[arg(long, value_name = "HOST:PORT", env = "STARLIFT_SCALER")]
    pub scaler: Option<String>,
    /// URL under which workers, commands and other coordinators reach the gRPC address [default: from --grpc]
    #[arg(long, value_name = "URL", env = "STARLIFT_ADVERTISE")]
    pub advertise: Option<String>,
    /// The same for the HTTP address: coordinators that follow hand REST requests on to it [default: from --http]
    #[arg(long, value_name = "URL", env = "STARLIFT_ADVERTISE_HTTP")]
    pub advertise_http: Option<String>,
    /// Where decisions are kept: file:DIR, or etcd://HOST:PORT[,HOST:PORT]/PREFIX shared by several coordinators
    #[arg(
        long,
        value_name = "file:DIR|etcd://...",
        env = "STARLIFT_STATE",
        default_value = "file:.starlift"
    )]
    pub state: StateLocation,
    /// How long a leading coordinator may be silent before another takes over; whole seconds, only with etcd
    #[arg(long, env = "STARLIFT_LEADER_TTL", default_value = "5s", value_parser = duration)]
    pub leader_ttl: Duration,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    #[command(flatten)]
    pub datasources: DatasourcesFile,
    /// How long a worker may be silent before its tasks are granted to others, e.g. 15s
    #[arg(long, env = "STARLIFT_LEASE", default_value = "15s", value_parser = duration)]
    pub lease: Duration,
    /// Attempts per task before the job fails
    #[arg(long, env = "STARLIFT_ATTEMPTS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
    /// Ended jobs that stay to be looked at
    #[arg(long, env = "STARLIFT_KEEP_JOBS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    keep_jobs: u64,
    /// Days after which an ended job is forgotten
    #[arg(long, env = "STARLIFT_KEEP_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub keep_days: u32,
}

impl CoordinatorArgs {
    pub(crate) fn keep_jobs(&self) -> usize {
        usize::try_from(self.keep_jobs).unwrap_or(usize::MAX)
    }
}

/// Certificates and tokens: of a server, and of whoever calls one.
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// Own certificate, PEM, with those between it and its authority
    #[arg(long, value_name = "FILE", env = "STARLIFT_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of --tls-cert, PEM
    #[arg(long, value_name = "FILE", env = "STARLIFT_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authority that the other side's certificate must come from, PEM; needed for https
    #[arg(long, value_name = "FILE", env = "STARLIFT_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Name that a coordinator's certificate must hold, where that is not the host in its URL
    #[arg(long, value_name = "NAME", env = "STARLIFT_TLS_SERVER_NAME")]
    pub tls_server_name: Option<String>,
    /// File with a line `ROLE TOKEN` for each token; roles are worker, user and read
    #[arg(long, value_name = "FILE", env = "STARLIFT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Do without encryption and access control beyond the loopback; warns at every start
    #[arg(long, env = "STARLIFT_INSECURE")]
    pub insecure: bool,
}

impl LinkArgs {
    pub(crate) fn tls(&self) -> TlsFiles {
        TlsFiles { cert: self.tls_cert.clone(), key: self.tls_key.clone(), ca: self.tls_ca.clone() }
    }

    pub(crate) fn dial(&self) -> DialSettings {
        DialSettings {
            tls: self.tls(),
            server_name: self.tls_server_name.clone(),
            token_file: self.token_file.clone(),
            insecure: self.insecure,
        }
    }
}

/// How etcd lets the coordinator in.
#[derive(Debug, Args)]
pub(crate) struct EtcdArgs {
    /// Authority of etcd's certificates, PEM; with it etcd is spoken to over TLS
    #[arg(long, value_name = "FILE", env = "STARLIFT_ETCD_CA")]
    etcd_ca: Option<PathBuf>,
    /// Certificate that etcd wants to see
    #[arg(long, value_name = "FILE", env = "STARLIFT_ETCD_CERT", requires_all = ["etcd_key", "etcd_ca"])]
    etcd_cert: Option<PathBuf>,
    /// Key of --etcd-cert
    #[arg(long, value_name = "FILE", env = "STARLIFT_ETCD_KEY", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// User of etcd
    #[arg(long, value_name = "NAME", env = "STARLIFT_ETCD_USER", requires = "etcd_password_file")]
    etcd_user: Option<String>,
    /// File that holds the user's password, read at every connection
    #[arg(long, value_name = "FILE", env = "STARLIFT_ETCD_PASSWORD_FILE", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
}

impl EtcdArgs {
    /// The place with what etcd wants; a directory wants nothing.
    pub(crate) fn added_to(self, state: StateLocation) -> Result<StateLocation, Vec<Problem>> {
        let access = EtcdAccess {
            tls: TlsFiles { cert: self.etcd_cert, key: self.etcd_key, ca: self.etcd_ca },
            user: self.etcd_user.zip(self.etcd_password_file),
        };
        match state {
            StateLocation::Etcd(location) => Ok(StateLocation::Etcd(EtcdLocation { access, ..location })),
            StateLocation::File(_) if access != EtcdAccess::default() => {
                let problem =
                    Problem::new(Code::InvalidSettings, "no etcd keeps the state of this coordinator");
                Err(vec![problem.hint("leave out --etcd-..., or give --state etcd://HOST:PORT/PREFIX")])
            }
            file @ StateLocation::File(_) => Ok(file),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    #[command(subcommand)]
    pub command: TlsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// Make an authority, certificates for servers and clients, and tokens
    #[command(
        after_help = "Example:\n  starlift tls init /etc/starlift/tls --name coordinator.example --name 10.0.0.5"
    )]
    Init(TlsInitArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TlsInitArgs {
    /// Directory for the new files; none of them may be there already
    pub dir: PathBuf,
    /// Host name or address under which servers are reached; may be given many times
    #[arg(long = "name", value_name = "NAME", env = "STARLIFT_TLS_NAMES", value_delimiter = ',')]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub coordinator: CoordinatorUrls,
    /// Tasks run at once [default: 2 for each core]
    #[arg(long, env = "STARLIFT_SLOTS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,
    /// Address for health and metrics
    #[arg(long, value_name = "HOST:PORT", env = "STARLIFT_HTTP", default_value = "127.0.0.1:9472")]
    pub http: String,
    #[command(flatten)]
    pub datasources: DatasourcesFile,
    #[command(flatten)]
    pub link: LinkArgs,
    /// Address for metrics and health alone, without encryption and token
    #[arg(long, value_name = "HOST:PORT", env = "STARLIFT_METRICS")]
    pub metrics: Option<String>,
    #[command(flatten)]
    pub dirty: DirtyArgs,
    /// How long running tasks may go on after SIGTERM before they are given back, e.g. 600s
    #[arg(long, env = "STARLIFT_DRAIN_TIMEOUT", default_value = "600s", value_parser = duration)]
    pub drain_timeout: Duration,
}

/// Where bad rows go in jobs with `strategyOnError: batchDirtyData`.
#[derive(Debug, Args)]
pub(crate) struct DirtyArgs {
    /// Keep all bad rows under this directory, one JSON object a line
    #[arg(long, value_name = "DIR", env = "STARLIFT_DIRTY_DIR")]
    pub dirty_dir: Option<PathBuf>,
    /// Show lengths instead of values wherever bad rows are told; their split keys stay
    #[arg(long, env = "STARLIFT_MASK_DIRTY")]
    pub mask_dirty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorUrls {
    /// Addresses of the coordinators, tried in order
    #[arg(
        long = "coordinator",
        value_name = "URL[,URL]",
        env = "STARLIFT_COORDINATOR",
        default_value = CoordinatorUrls::DEFAULT,
        value_delimiter = ','
    )]
    pub urls: Vec<String>,
}

impl CoordinatorUrls {
    pub(crate) const DEFAULT: &str = "http://127.0.0.1:9470";
}

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    pub coordinator: CoordinatorUrls,
    #[command(flatten)]
    pub link: LinkArgs,
    #[command(flatten)]
    pub output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job's id, as `starlift list` shows it
    pub job_id: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A job to look at, wherever it is kept.
#[derive(Debug, Args)]
pub(crate) struct LookArgs {
    #[command(flatten)]
    pub job: JobArgs,
    #[command(flatten)]
    pub kept: Kept,
}

#[derive(Debug, Args)]
pub(crate) struct Kept {
    /// State directory of `starlift run` that holds the job, while nothing runs there; no coordinator is asked then
    #[arg(long = "state", value_name = "DIR", env = "STARLIFT_RUN_STATE", value_parser = state)]
    pub state: Option<PathBuf>,
}

impl Kept {
    pub(crate) fn home(&self) -> Home<'_> {
        self.state.as_deref().map_or(Home::Coordinator, Home::Directory)
    }
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The worker's id, as `starlift workers` shows it
    pub worker_id: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The job's id, as `starlift list` shows it
    pub job_id: String,
    /// The task's number, as `starlift tasks` shows it
    pub task_id: u32,
    #[command(flatten)]
    pub answer: ResolveAnswer,
    /// How you know; kept with the job and shown in its report
    #[arg(long, value_name = "TEXT", env = "STARLIFT_REASON")]
    pub reason: String,
    #[command(flatten)]
    pub kept: Kept,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ResolveAnswer {
    /// The rows of the transaction in question are in the target
    #[arg(long, env = "STARLIFT_COMMITTED")]
    pub committed: bool,
    /// None of the task's rows are in the target: load its range again
    #[arg(long, env = "STARLIFT_REDO")]
    pub redo: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub job: JobFile,
    /// A name for people [default: the file's name]
    #[arg(long, env = "STARLIFT_NAME")]
    pub name: Option<String>,
    /// Follow the job to its end, print its report and exit as `run` would
    #[arg(long, env = "STARLIFT_WATCH")]
    pub watch: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub job: JobFile,
    /// Print the StarRocks CREATE TABLE for what the job reads, and nothing else; the target is not asked
    #[arg(long, env = "STARLIFT_CREATE_TABLE")]
    pub create_table: bool,
    /// Ask the source for its longest texts, by one pass over the table, where they may be too long for their column
    #[arg(long, env = "STARLIFT_PROBE_LENGTHS")]
    pub probe_lengths: bool,
    #[command(flatten)]
    pub datasources: DatasourcesFile,
    #[command(flatten)]
    pub output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The DataX job
    #[arg(value_name = "DATAX_JOB")]
    pub path: PathBuf,
    /// Where to write the data source entries; a new file that only you can read [default: stderr]
    #[arg(long, value_name = "FILE", env = "STARLIFT_DATASOURCES_OUT")]
    pub datasources_out: Option<PathBuf>,
    /// Write the passwords of the DataX job into the entries, not the names of environment variables
    #[arg(long, env = "STARLIFT_WITH_PASSWORDS", requires = "datasources_out")]
    pub with_passwords: bool,
    /// Accept comments and trailing commas in the DataX job
    #[arg(long, env = "STARLIFT_LENIENT")]
    pub lenient: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub job: JobFile,
    /// Try from the coordinator and from every worker it hears of, each with its own data sources, instead of from here
    #[arg(long, env = "STARLIFT_FROM_WORKERS")]
    pub from_workers: bool,
    /// How long workers are waited for, e.g. 45s
    #[arg(long, env = "STARLIFT_WAIT", default_value = "45s", value_parser = duration)]
    pub wait: Duration,
    #[command(flatten)]
    pub datasources: DatasourcesFile,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to read the script
    pub shell: Shell,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, for example --param day=2026-11-21".into()),
    }
}

/// A name of the time zone database, or an offset with its sign. `GMT+8` is refused: half of the world reads it as eight
/// hours west.
fn zone(text: &str) -> Result<TimeZone, String> {
    let zone = if text.starts_with(['+', '-']) {
        DateTimeParser::new().parse_time_zone(text).ok()
    } else {
        TimeZone::get(text).ok().filter(|_| text.contains('/') || !text.contains(['+', '-']))
    };
    zone.ok_or_else(|| "write a time zone as Asia/Shanghai, UTC or +08:00".to_owned())
}

/// `file:DIR`, or a directory alone.
fn state(text: &str) -> Result<PathBuf, String> {
    match text.split_once("://") {
        Some((scheme, _)) => {
            Err(format!("cannot keep state in {scheme}; write file:DIR, e.g. file:/var/lib/starlift"))
        }
        None => match text.strip_prefix("file:").unwrap_or(text) {
            "" => Err("names no directory; write file:DIR, e.g. file:/var/lib/starlift".into()),
            dir => Ok(dir.into()),
        },
    }
}

/// `15s`, `500ms`, `10m`, `2h`, or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "write a number and a unit, for example 15s".to_owned())?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        unit => return Err(format!("unknown unit {unit}; use ms, s, m or h")),
    };
    match milliseconds {
        Some(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => Err("must be more than zero and less than an age".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_shows_an_example_and_every_flag_has_a_variable() {
        let cli = Cli::command();
        for command in cli.get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example:\n  starlift "), "{help}");
            for argument in command.get_arguments().filter(|argument| !argument.is_positional()) {
                let name = argument.get_id().as_str();
                assert!(name == "help" || argument.get_env().is_some(), "--{name} of {}", command.get_name());
            }
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("0s").is_err() && duration("soon").is_err() && duration("5y").is_err());
    }

    #[test]
    fn a_time_zone_has_a_name_or_an_offset() {
        let offset =
            |text: &str| zone(text).map(|zone| zone.to_offset(jiff::Timestamp::UNIX_EPOCH).seconds());
        assert_eq!((offset("+08:00"), offset("-03:30"), offset("UTC")), (Ok(28_800), Ok(-12_600), Ok(0)));
        for wrong in ["GMT+8", "UTC+8", "+", "", "Nowhere/At_All"] {
            assert!(zone(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn state_is_kept_in_a_directory() {
        assert_eq!((state("file:/a/b"), state("c")), (Ok("/a/b".into()), Ok("c".into())));
        assert!(state("etcd://h:2379/p").is_err() && state("file:").is_err());
    }

    #[test]
    fn a_parameter_may_hold_an_equals_sign() {
        assert_eq!(parameter("where=a=b"), Ok(("where".into(), "a=b".into())));
        assert!(parameter("=x").is_err() && parameter("x").is_err());
    }
}
