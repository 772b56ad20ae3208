//! The coordinator: takes jobs, plans them, leases their tasks to workers, and commits every task exactly once.
//!
//! Read [`state`] for the rules, `driver.rs` for the loop that obeys them, [`plan`] for how a job is cut, [`store`] for
//! what survives a restart, `leader.rs` for which of several coordinators acts. Reads and loads no row itself: workers do.

mod check;
pub mod clock;
pub mod columns;
pub mod commit;
mod config;
pub mod ddl;
pub mod dives;
mod driver;
mod election;
mod grpc;
mod history;
mod http;
pub mod keys;
mod leader;
pub mod lease;
mod metrics;
mod perform;
pub mod plan;
pub mod pressure;
mod probe;
mod proxy;
pub mod queue;
pub mod ranges;
pub mod record;
pub mod report;
mod scaler;
pub mod state;
mod statements;
pub mod store;
pub mod sweep;
#[cfg(test)]
mod testing;
mod throttle;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use starlift_common::datasource::Datasources;
use starlift_common::ids::JobId;
use starlift_common::job::JobSpec;
use starlift_common::problem::{Code, Problem};
use starlift_link::guard::{GrpcGuard, Guard};
use starlift_link::listen::Incoming;
use starlift_proto::admin_service_server::AdminServiceServer;
use starlift_proto::externalscaler::external_scaler_server::ExternalScalerServer;
use starlift_proto::worker_service_server::WorkerServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tracing::{error, info};

pub use check::check_job;
pub use config::{Config, EtcdAccess, EtcdLocation, InvalidState, StateLocation};
pub use plan::Plan;
pub use plan::document::{PlanDocument, PlannedTask};

use check::Checks;
use driver::Clock;
use election::{Alone, Ballot};
use history::Histories;
use leader::{Desk, Leader, Office};
use proxy::Proxy;
use state::Rules;
use store::StoreError;

/// Largest message taken: a heartbeat or report of a worker, or a job script.
const REQUEST_BYTES: usize = 16 << 20;

/// Largest message given: a page of tasks.
const REPLY_BYTES: usize = 64 << 20;

/// How often a silent connection is asked whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How long open calls may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(3);

/// Why a coordinator could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    #[error("the state store failed")]
    Store(#[source] StoreError),
    #[error("the gRPC server failed")]
    Grpc(#[source] tonic::transport::Error),
    #[error("the HTTP server failed")]
    Http(#[source] std::io::Error),
}

impl CoordinatorError {
    /// The same for people: with its cause, and what to do.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Store(error) => error.problem(),
            Self::Grpc(source) => Problem::new(Code::Internal, format!("{self}: {source}")),
            Self::Http(source) => Problem::new(Code::Internal, format!("{self}: {source}")),
        }
    }
}

/// The ports of a coordinator.
pub struct Listeners {
    /// Workers and commands.
    pub grpc: TcpListener,
    /// REST, health and metrics.
    pub http: Option<TcpListener>,
    /// Health and metrics alone, open to everybody.
    pub metrics: Option<TcpListener>,
    /// KEDA's questions alone, open to everybody.
    pub scaler: Option<TcpListener>,
}

impl Listeners {
    pub fn new(grpc: TcpListener, http: Option<TcpListener>) -> Self {
        Self { grpc, http, metrics: None, scaler: None }
    }
}

/// Runs a coordinator until `shutdown`: serves workers and people for as long as it leads; otherwise it tells workers who
/// does, and hands on what people ask. Whatever was under way when the last leader stopped goes on. Nothing is left
/// running when it returns.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), CoordinatorError> {
    let Listeners { grpc, http, metrics, scaler } = listeners;
    let scheme = if config.guard.is_encrypted() { "https" } else { "http" };
    let advertise = config.advertise.unwrap_or_else(|| format!("{scheme}://{}", address(&grpc)));
    let advertise_http = config.advertise_http.or_else(|| {
        let listener = http.as_ref()?;
        // Bound to every address, it says nothing of how others reach it.
        let is_named = listener.local_addr().is_ok_and(|bound| !bound.ip().is_unspecified());
        is_named.then(|| format!("{scheme}://{}", address(listener)))
    });
    let (role, desk) = Desk::new();
    let clock = Clock::start();
    let (checks, datasources) = (Checks::default(), config.datasources.clone());
    let (proxy, histories) = (Proxy::new(desk.clone(), config.dialer), Histories::default());
    let (keep_jobs, keep_for) = (config.keep_jobs, config.keep_for);
    let office = Office {
        rules: Rules { keep_jobs, keep_for, ..Rules::new(config.lease, config.attempts.max(1)) },
        datasources: config.datasources,
        clock,
        role,
        saves: Arc::clone(desk.saves()),
    };
    // Ends the servers when the office closes by itself, too.
    let stop = shutdown.child_token();
    let _stop_on_return = stop.clone().drop_guard();
    let console = http.as_ref().map(|listener| format!("{scheme}://{}/", address(listener)));
    info!(grpc = %address(&grpc), %advertise, console = console.unwrap_or_default(), "coordinator is up");
    let grpc_url: Arc<str> = advertise.into();
    let own = Leader { grpc: grpc_url.clone(), http: advertise_http.map(Into::into) };
    let leading = async {
        let ended = match config.state {
            StateLocation::File(directory) => match Alone::new(directory) {
                Ok(alone) => Box::pin(office.serve(alone, &stop)).await,
                Err(error) => Err(error),
            },
            StateLocation::Etcd(location) => {
                let ballot = Ballot::new(location, own, config.leader_ttl);
                Box::pin(office.serve(ballot, &stop)).await
            }
        };
        stop.cancel();
        ended.map_err(CoordinatorError::Store)
    };
    let serving = async {
        let services = grpc::Services::new(desk.clone(), checks.clone(), datasources.clone(), stop.clone());
        let (guard, asked) = (config.guard, scaler::Scaler::new(desk.clone(), proxy.clone()));
        let probed = http::Probes { desk: desk.clone(), readings: config.readings.clone() };
        let views = http::Views {
            desk: desk.clone(),
            checks,
            datasources,
            services: services.clone(),
            guard: guard.clone(),
            readings: config.readings,
            proxy: proxy.clone(),
            histories: histories.clone(),
            grpc: grpc_url,
            clock,
            stop: stop.clone(),
        };
        let recording = async {
            histories.record(&desk, &stop).await;
            Ok(())
        };
        tokio::try_join!(
            serve_grpc(grpc, services, desk.clone(), guard, proxy, stop.clone()),
            http::serve(http, views, stop.clone()),
            http::serve_metrics(metrics, probed, stop.clone()),
            recording,
            serve_scaler(scaler, asked, stop.clone()),
        )
    };
    let result = tokio::try_join!(leading, within_grace(Box::pin(serving), &stop));
    if let Err(failure) = &result {
        error!(error = %failure.problem(), "coordinator stops");
    }
    result.map(|_| ())
}

/// Waits for the servers, and no longer than [`GRACE`] once they were told to stop: a silent caller cannot hold us up.
async fn within_grace<T>(
    serving: impl Future<Output = Result<T, CoordinatorError>>,
    stop: &CancellationToken,
) -> Result<(), CoordinatorError> {
    let out_of_patience = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served.map(|_| ()),
        () = out_of_patience => Ok(()),
    }
}

fn address(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "?".to_owned(), |address: SocketAddr| address.to_string())
}

async fn serve_grpc(
    listener: TcpListener,
    services: grpc::Services,
    desk: Desk,
    guard: Guard,
    proxy: Proxy,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let reporting = report_health(health_reporter, desk);
    let worker = WorkerServiceServer::new(services.clone())
        .max_decoding_message_size(REQUEST_BYTES)
        .max_encoding_message_size(REPLY_BYTES);
    let admin = AdminServiceServer::new(services)
        .max_decoding_message_size(REQUEST_BYTES)
        .max_encoding_message_size(REPLY_BYTES);
    let incoming = Incoming::new(listener, guard.grpc_tls()).map_err(CoordinatorError::Http)?;
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(GrpcGuard { guard, needs: grpc::needs })
        .layer(proxy)
        .add_service(health)
        .add_service(worker)
        .add_service(admin)
        .serve_with_incoming_shutdown(incoming, stop.cancelled());
    tokio::select! {
        served = serving => served.map_err(CoordinatorError::Grpc),
        never = reporting => match never {},
    }
}

/// Serves until `stop`; without a listener it only waits.
async fn serve_scaler(
    listener: Option<TcpListener>,
    scaler: scaler::Scaler,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let Some(listener) = listener else {
        stop.cancelled().await;
        return Ok(());
    };
    let incoming = Incoming::new(listener, Arc::new(|| None)).map_err(CoordinatorError::Http)?;
    let serving = tonic::transport::Server::builder()
        .add_service(ExternalScalerServer::new(scaler))
        .serve_with_incoming_shutdown(incoming, stop.cancelled());
    serving.await.map_err(CoordinatorError::Grpc)
}

/// A coordinator is of use as long as it leads or knows who does.
async fn report_health(reporter: tonic_health::server::HealthReporter, mut desk: Desk) -> Infallible {
    let mut knows_a_leader = desk.knows_a_leader();
    loop {
        let status = if knows_a_leader { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", status).await;
        reporter.set_service_status(AdminServiceServer::<grpc::Services>::NAME, status).await;
        reporter.set_service_status(WorkerServiceServer::<grpc::Services>::NAME, status).await;
        knows_a_leader = desk.changed().await;
    }
}

/// Plans a job without changing anything: catalogues are read, a transaction or two are begun and rolled back. All faults
/// found on both sides are told together.
pub async fn plan_job(spec: &JobSpec, datasources: &Datasources) -> Result<Plan, Vec<Problem>> {
    plan_as(spec, JobId::from_parts(fastrand::u64(..1 << 48), fastrand::u128(..1 << 80)), datasources).await
}

/// [`plan_job`] for a stored job, from its script; the script's own warnings come first.
async fn plan_script(script: &str, job: JobId, datasources: &Datasources) -> Result<Plan, Vec<Problem>> {
    let parsed = starlift_common::script::parse(script)?;
    let mut plan = plan_as(&parsed.spec, job, datasources).await?;
    plan.warnings.splice(0..0, parsed.warnings);
    Ok(plan)
}

async fn plan_as(spec: &JobSpec, job: JobId, datasources: &Datasources) -> Result<Plan, Vec<Problem>> {
    let (source, target) =
        tokio::join!(probe::source(spec, datasources), probe::target(spec, datasources, job));
    let (mut source, mut target) = match (source, target) {
        (Ok(source), Ok(target)) => (source, target),
        (Err(mut problems), Ok(target)) => {
            if !target.is_missing {
                problems.extend(plan::writer_faults(spec, &target));
            }
            return Err(problems);
        }
        (source, Err(problems)) => {
            return Err(source.err().into_iter().flatten().chain(problems).collect());
        }
    };
    let spec = &ddl::with_names(spec, &source);
    let mut created = None;
    if target.is_missing {
        let table = ddl::new_table(spec, &source, &target.database)?;
        (target.columns, target.model) = (table.columns, Some(table.model));
        created = Some(table.sql);
    }
    if spec.settings.probe_lengths {
        probe::lengths(spec, datasources, &mut source, &target).await.map_err(|problem| vec![problem])?;
    }
    let mut plan = plan::assemble(spec, &source, &target)?;
    // The first of preSql: noted like the others, and harmless when it is sent again.
    plan.pre_sql.splice(0..0, created);
    probe::compression(&mut plan, datasources, job).await;
    Ok(plan)
}

/// The statement that creates the job's target table for what its reader reads. Only the source is asked.
pub async fn create_table(spec: &JobSpec, datasources: &Datasources) -> Result<String, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let target = datasources.find(&spec.target.datasource, "").map_err(one)?;
    let database = probe::database_of(spec.target.database.as_deref(), target, "selectedDatabase");
    let database = database.map_err(one)?;
    let source = probe::source(spec, datasources).await?;
    Ok(ddl::new_table(spec, &source, &database)?.sql)
}

#[cfg(test)]
mod tests {
    use starlift_common::datasource::LiveDatasources;
    use starlift_proto as pb;
    use starlift_proto::admin_service_client::AdminServiceClient;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.expect("a free port")
    }

    fn config(directory: &tempfile::TempDir) -> Config {
        Config::new(StateLocation::File(directory.path().to_owned()), LiveDatasources::default())
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_coordinator_serves_both_ports_and_stops_clean() {
        let directory = tempfile::tempdir().unwrap();
        let (grpc, http) = (listener().await, listener().await);
        let (grpc_address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running =
            tokio::spawn(run(config(&directory), Listeners::new(grpc, Some(http)), shutdown.clone()));

        while !get(http_address, "/readyz").await.ends_with("ok\n") {
            tokio::task::yield_now().await; // it reads its journal first
        }
        let mut admin = AdminServiceClient::connect(format!("http://{grpc_address}")).await.unwrap();
        let minimal = include_str!("../../tests/scripts/e1-minimal.json");
        let dry_run = minimal.replacen("\"setting\": {", "\"setting\": { \"dryRun\": true,", 1);
        for (script, code) in [("{}".to_owned(), Code::InvalidScript), (dry_run, Code::Unsupported)] {
            let job_id = JobId::from_parts(1, 1).to_string();
            let submit = pb::SubmitRequest { script, name: "bad".into(), job_id };
            let refused = admin.submit(submit).await.unwrap_err();
            let problem = starlift_common::wire::problem_of_status(refused.details()).expect("a problem");
            assert_eq!(problem.code, code);
        }
        assert!(admin.list_jobs(pb::ListJobsRequest {}).await.unwrap().into_inner().jobs.is_empty());

        assert!(get(http_address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(http_address, "/readyz").await.ends_with("ok\n"));
        let metrics = get(http_address, "/metrics").await;
        assert!(metrics.contains("starlift_coordinator_queue_depth 0"), "{metrics}");
        assert!(metrics.contains("starlift_coordinator_leader 1"), "{metrics}");
        assert!(get(http_address, "/api/v1/jobs").await.ends_with("{\"jobs\":[],\"states\":{},\"total\":0}"));
        let missing = get(http_address, &format!("/api/v1/jobs/{}", JobId::from_parts(1, 1))).await;
        assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("UNKNOWN_JOB"), "{missing}");
        assert!(get(http_address, "/api/v1/jobs/x/tasks?limit=many").await.contains("\"message\""));

        let second =
            run(config(&directory), Listeners::new(listener().await, None), CancellationToken::new()).await;
        assert_eq!(second.unwrap_err().problem().code, Code::StoreFailed);

        shutdown.cancel();
        running.await.unwrap().unwrap();
        run(config(&directory), Listeners::new(listener().await, None), shutdown)
            .await
            .expect("the state is free again");
    }
}
