//! Asks for leases, runs what is granted, renews, reports, and stops what it may no longer do. One loop owns all leases;
//! tasks run beside it and share a [`Control`] with it. The worker's only reader of a clock.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use starlift_common::retry::{Backoff, FailureClass};
use starlift_common::task::{AttemptKey, Outcome};
use starlift_common::wire::{self, Grant};
use starlift_link::dial::told;
use starlift_proto as pb;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status as RpcStatus;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::budget::Purses;
use crate::check::Checks;
use crate::config::Config;
use crate::control::Control;
use crate::coordinators::Coordinators;
use crate::copy::{self, End, Tools};

/// How long a call for work may wait at the coordinator.
const ACQUIRE_WAIT: Duration = Duration::from_secs(15);
/// Between an empty answer and the next question.
const ACQUIRE_PAUSE: Duration = Duration::from_millis(100);
/// What such a call may take on top of that.
const ACQUIRE_GRACE: Duration = Duration::from_secs(10);
const HEARTBEAT_PATIENCE_MAX: Duration = Duration::from_secs(5);
const REPORT_PATIENCE: Duration = Duration::from_secs(10);
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);
/// Heartbeats of one lease. Several may be lost before it ends.
const HEARTBEATS_PER_LEASE: u32 = 5;
/// Between calls that were not answered.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(5) };
/// The same for heartbeats, which are in a hurry.
const HEARTBEAT_BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) };
/// Least wait after a failed call, so that a dead coordinator is not asked in a tight loop.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);

/// The one clock of a worker.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A granted task, from the grant until its future has ended.
struct Running {
    control: Arc<Control>,
    lease: Duration,
    /// Counted from the moment at which the last answered heartbeat was sent; before the first one: from the grant.
    lease_ends: Instant,
}

impl Running {
    fn is_stopped(&self) -> bool {
        self.control.stop.is_cancelled()
    }
}

type Call<A> = Pin<Box<dyn Future<Output = Result<A, RpcStatus>> + Send>>;

/// A call that is repeated: when next, and how often it has failed in a row.
#[derive(Debug, Clone, Copy)]
struct Pace {
    due: Instant,
    failures: u32,
}

impl Pace {
    fn answered(&mut self, next: Instant) {
        *self = Self { due: next, failures: 0 };
    }

    fn failed(&mut self, backoff: Backoff) {
        self.due = now() + backoff.delay(self.failures, fastrand::f64()).max(RETRY_PAUSE_MIN);
        self.failures = self.failures.saturating_add(1);
    }
}

/// Owns everything that runs.
pub(crate) struct Agent {
    config: Config,
    /// `host:port` of the HTTP endpoints; empty when there are none.
    http: String,
    coordinators: Coordinators,
    tools: Arc<Tools>,
    running: HashMap<AttemptKey, Running>,
    tasks: JoinSet<AttemptKey>,
    acquire: Option<Call<pb::AcquireReply>>,
    acquire_pace: Pace,
    heartbeat: Option<Call<pb::HeartbeatReply>>,
    /// When the call that runs, or the last one, was sent.
    heartbeat_sent_at: Instant,
    heartbeat_pace: Pace,
    checks: Checks,
    purses: Purses,
    /// Set once the worker is leaving: when tasks that still run are given back.
    drain_ends: Option<Instant>,
}

impl Agent {
    pub(crate) fn new(config: Config, http: String, coordinators: Coordinators, tools: Arc<Tools>) -> Self {
        let at_once = Pace { due: now(), failures: 0 };
        let checks = Checks::new(config.datasources.clone(), coordinators.clone());
        let purses = Purses::new(coordinators.clone(), config.worker_id.to_string(), now);
        Self {
            config,
            http,
            coordinators,
            tools,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            acquire: None,
            acquire_pace: at_once,
            heartbeat: None,
            heartbeat_sent_at: at_once.due,
            heartbeat_pace: at_once,
            checks,
            purses,
            drain_ends: None,
        }
    }

    /// Works until `shutdown` or the coordinator asks it to leave and the last task has ended.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            if self.drain_ends.is_some() && self.running.is_empty() {
                return self.say_farewell().await;
            }
            self.enforce_deadlines();
            self.start_calls();
            let wake_at = self.wake_at();
            tokio::select! {
                () = shutdown.cancelled(), if self.drain_ends.is_none() => self.drain(),
                answer = pending_or(&mut self.acquire) => self.acquired(answer),
                answer = pending_or(&mut self.heartbeat) => self.heartbeat_ended(answer),
                Some(ended) = self.tasks.join_next() => self.task_ended(ended),
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Nobody is to wait for this worker any more. Whoever does not hear it forgets it later.
    async fn say_farewell(self) {
        let request = pb::HeartbeatRequest { worker: Some(self.info()), tasks: Vec::new() };
        if let Err(error) = self.coordinators.heartbeat(request, FAREWELL_PATIENCE).await {
            debug!(%error, "no coordinator hears that this worker leaves");
        }
    }

    /// Tasks whose lease is over stop; when a drain is over, the others go back.
    fn enforce_deadlines(&mut self) {
        let now = now();
        for (attempt, running) in &self.running {
            if now >= running.lease_ends && !running.is_stopped() {
                warn!(job_id = %attempt.task.job, task_id = %attempt.task.task, epoch = %attempt.epoch, "lease lost, task stopped");
                self.tools.status.metrics.leases_lost.inc();
                running.control.stop.cancel();
            }
            if self.drain_ends.is_some_and(|ends| now >= ends) {
                running.control.give_back.cancel();
            }
        }
    }

    fn start_calls(&mut self) {
        let now = now();
        if self.heartbeat.is_none() && self.has_leases() && now >= self.heartbeat_pace.due {
            self.heartbeat_sent_at = now;
            self.heartbeat = Some(self.send_heartbeat());
        }
        let wants_work = self.drain_ends.is_none() && self.free_slots() > 0;
        if self.acquire.is_none() && wants_work && now >= self.acquire_pace.due {
            let request = pb::AcquireRequest {
                worker: Some(self.info()),
                free_slots: self.free_slots(),
                wait_ms: u32::try_from(ACQUIRE_WAIT.as_millis()).unwrap_or(u32::MAX),
            };
            let coordinators = self.coordinators.clone();
            let call = async move { coordinators.acquire(request, ACQUIRE_WAIT + ACQUIRE_GRACE).await };
            self.acquire = Some(Box::pin(call));
        }
    }

    fn wake_at(&self) -> Instant {
        let far = now() + ACQUIRE_WAIT;
        let lease_ends = self.leases().map(|(_, running)| running.lease_ends).min();
        let heartbeat = (self.heartbeat.is_none() && self.has_leases()).then_some(self.heartbeat_pace.due);
        let wants_work = self.acquire.is_none() && self.drain_ends.is_none() && self.free_slots() > 0;
        let acquire = wants_work.then_some(self.acquire_pace.due);
        // Once the drain is over there is nothing left to wake up for.
        let drain_ends = self.drain_ends.filter(|ends| *ends > now());
        [lease_ends, heartbeat, acquire, drain_ends].into_iter().flatten().fold(far, Instant::min)
    }

    fn acquired(&mut self, answer: Result<pb::AcquireReply, RpcStatus>) {
        self.acquire = None;
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) => {
                self.acquire_pace.failed(BACKOFF);
                self.coordinator_failed("acquire", &error);
                return;
            }
        };
        // An empty answer should have been waited for; one that came at once must not be asked for in a tight loop.
        let pause = if reply.grants.is_empty() { ACQUIRE_PAUSE } else { Duration::ZERO };
        self.acquire_pace.answered(now() + pause);
        self.set_ready(true);
        self.checks.start(&self.config.worker_id.to_string(), reply.checks);
        for grant in reply.grants {
            match Grant::try_from(grant) {
                Ok(grant) => self.start(grant),
                // Its lease ends by itself; a newer coordinator may grant what we do not understand.
                Err(error) => warn!(%error, "a grant is unreadable"),
            }
        }
        if reply.drain {
            self.drain();
        }
    }

    fn start(&mut self, grant: Grant) {
        let attempt = grant.attempt;
        let mut control = Control::new(grant.bytes_per_second);
        control.purse = grant.bytes_per_second.map(|_share| self.purses.of(attempt.task.job));
        let control = Arc::new(control);
        let now = now();
        let running =
            Running { control: Arc::clone(&control), lease: grant.lease, lease_ends: now + grant.lease };
        self.running.insert(attempt, running);
        self.heartbeat_pace.due = now;
        self.tools.status.metrics.tasks_running.inc();
        let span = info_span!("task", job_id = %attempt.task.job, task_id = %attempt.task.task, epoch = %attempt.epoch);
        let task = Task {
            grant,
            control,
            tools: Arc::clone(&self.tools),
            coordinators: self.coordinators.clone(),
            worker_id: self.config.worker_id.to_string(),
        };
        self.tasks.spawn(task.run().instrument(span));
    }

    fn send_heartbeat(&self) -> Call<pb::HeartbeatReply> {
        let lines = self
            .leases()
            .map(|(attempt, running)| wire::task_progress(*attempt, &running.control.progress.get()));
        let request = pb::HeartbeatRequest { worker: Some(self.info()), tasks: lines.collect() };
        let patience = (self.shortest_lease() / 3).min(HEARTBEAT_PATIENCE_MAX);
        let coordinators = self.coordinators.clone();
        Box::pin(async move { coordinators.heartbeat(request, patience).await })
    }

    fn heartbeat_ended(&mut self, answer: Result<pb::HeartbeatReply, RpcStatus>) {
        self.heartbeat = None;
        let sent_at = self.heartbeat_sent_at;
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) => {
                self.heartbeat_pace.failed(HEARTBEAT_BACKOFF);
                self.coordinator_failed("heartbeat", &error);
                return;
            }
        };
        self.set_ready(true);
        // A grant that came meanwhile has its first heartbeat still to be sent.
        let granted_meanwhile = self.heartbeat_pace.due > sent_at;
        if !granted_meanwhile {
            self.heartbeat_pace.answered(sent_at + self.shortest_lease() / HEARTBEATS_PER_LEASE);
        }
        self.checks.start(&self.config.worker_id.to_string(), reply.checks);
        for order in reply.orders {
            self.obey(&order, sent_at);
        }
        if reply.drain {
            self.drain();
        }
    }

    fn obey(&mut self, order: &pb::TaskOrder, sent_at: Instant) {
        let Ok(attempt) = wire::attempt_key(&order.job_id, order.task_id, order.epoch) else { return };
        let Some(running) = self.running.get_mut(&attempt) else { return };
        match order.order() {
            pb::Order::Continue => {
                running.lease_ends = running.lease_ends.max(sent_at + running.lease);
                running.control.set_speed(order.bytes_per_second);
                running.control.confirm();
            }
            pb::Order::Stop => {
                info!(job_id = %attempt.task.job, task_id = %attempt.task.task, epoch = %attempt.epoch, "told to stop the task");
                running.control.stop.cancel();
            }
            pb::Order::Unspecified => {}
        }
    }

    fn task_ended(&mut self, ended: Result<AttemptKey, tokio::task::JoinError>) {
        match ended {
            Ok(attempt) => {
                self.running.remove(&attempt);
                self.tools.status.metrics.tasks_running.dec();
            }
            // Panics are caught inside; nobody aborts tasks. Its lease would end by itself.
            Err(error) => warn!(%error, "a task ended in an unforeseen way"),
        }
    }

    fn drain(&mut self) {
        if self.drain_ends.is_none() {
            info!(running = self.running.len(), "draining: no further tasks are taken");
            self.drain_ends = Some(now() + self.config.drain_timeout);
            self.acquire = None;
            self.heartbeat_pace.due = now();
            self.set_ready(false);
        }
    }

    fn coordinator_failed(&self, call: &'static str, error: &RpcStatus) {
        self.tools.status.metrics.coordinator_failed(call);
        let failures = self.acquire_pace.failures.max(self.heartbeat_pace.failures);
        if failures == 1 {
            warn!(call, error = %told(error), "no coordinator answers, trying again");
        } else {
            debug!(call, error = %told(error), failures, "no coordinator answers");
        }
        if failures > 2 {
            self.set_ready(false);
        }
    }

    fn set_ready(&self, ready: bool) {
        self.tools.status.ready.store(ready && self.drain_ends.is_none(), Ordering::Relaxed);
    }

    /// Tasks that may still speak.
    fn leases(&self) -> impl Iterator<Item = (&AttemptKey, &Running)> {
        self.running.iter().filter(|(_, running)| !running.is_stopped())
    }

    fn has_leases(&self) -> bool {
        self.leases().next().is_some()
    }

    fn shortest_lease(&self) -> Duration {
        let shortest = self.leases().map(|(_, running)| running.lease).min();
        shortest.unwrap_or(ACQUIRE_WAIT)
    }

    fn free_slots(&self) -> u32 {
        let used = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        self.config.slots.saturating_sub(used)
    }

    fn info(&self) -> pb::WorkerInfo {
        pb::WorkerInfo {
            worker_id: self.config.worker_id.to_string(),
            host: self.config.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: self.config.slots,
            http: self.http.clone(),
            draining: self.drain_ends.is_some(),
            protocol: wire::PROTOCOL,
        }
    }
}

/// The call's answer; never, when there is no call.
async fn pending_or<A, F: Future<Output = A> + Unpin>(call: &mut Option<F>) -> A {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// One attempt, run and reported.
struct Task {
    grant: Grant,
    control: Arc<Control>,
    tools: Arc<Tools>,
    coordinators: Coordinators,
    worker_id: String,
}

impl Task {
    async fn run(self) -> AttemptKey {
        let attempt = self.grant.attempt;
        // Its range holds values of the split key, which are not for a log.
        info!(attempt = self.grant.attempt_number, "task started");
        let work = AssertUnwindSafe(copy::run(&self.grant, &self.tools, &self.control));
        let end = match work.catch_unwind().await {
            Ok(end) => end,
            Err(_panic) => End::Outcome(copy::panicked(&self.control)),
        };
        let End::Outcome(outcome) = end else {
            self.tools.status.metrics.task_ended("abandoned");
            return attempt;
        };
        tokio::select! {
            biased;
            () = self.control.stop.cancelled() => {}
            () = self.report(&outcome) => {}
        }
        attempt
    }

    /// Repeats the report until it was answered; the caller ends it with the lease. Nothing is rolled back any more:
    /// the coordinator may have decided already, and otherwise sweeps.
    async fn report(&self, outcome: &Outcome) {
        let metrics = &self.tools.status.metrics;
        let mut failures = 0;
        loop {
            let request = wire::report(&self.worker_id, self.grant.attempt, outcome);
            match self.coordinators.report(request, REPORT_PATIENCE).await {
                Ok(reply) => {
                    let name = name_of(outcome);
                    metrics.task_ended(if reply.accepted { name } else { "stale" });
                    info!(outcome = name, accepted = reply.accepted, "task reported");
                    return;
                }
                Err(error) => {
                    metrics.coordinator_failed("report");
                    warn!(%error, failures, "the report was not answered, trying again");
                    sleep(BACKOFF.delay(failures, fastrand::f64()).max(RETRY_PAUSE_MIN)).await;
                    failures += 1;
                }
            }
        }
    }
}

fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Prepared { .. } => "prepared",
        Outcome::Loaded { .. } => "loaded",
        Outcome::Failed { class: FailureClass::Transient, .. } => "failed_transient",
        Outcome::Failed { class: FailureClass::Permanent, .. } => "failed_permanent",
        Outcome::Failed { class: FailureClass::Distress, .. } => "distress",
        Outcome::Failed { class: FailureClass::Unknown, .. } => "failed_unknown",
        Outcome::GivenBack { .. } => "given_back",
    }
}
