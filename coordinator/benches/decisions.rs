//! How long the coordinator's decisions take, without wire and store: cutting ranges, keeping leases, and a turn of the
//! state with 100,000 tasks.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey, WorkerId};
use starlift_common::task::{AttemptKey, LabelsBegun, Outcome, Progress};
use starlift_coordinator::clock::{Millis, Now, UnixMillis};
use starlift_coordinator::lease::Leases;
use starlift_coordinator::ranges::{Cut, KeyFacts, Size, TASKS_MOST, evenly_spread, split};
use starlift_coordinator::state::{Action, Answer, Event, State, Ticket, WorkerInfo};

use common::{info, running_jobs};

const JOBS: u32 = 5;
const TASKS_PER_JOB: u32 = 20_000;
const WORKERS: u32 = 1000;
/// Most events that the coordinator decides in one turn.
const EVENTS: usize = 256;
const LEASE: Duration = Duration::from_secs(15);

fn planning(criterion: &mut Criterion) {
    let size = Size { rows: TASKS_MOST * 1_000_000, bytes: 0 };
    let pieces = evenly_spread(-1_000_000_000, 1_000_000_000, size.rows, TASKS_MOST);
    let key = KeyFacts { pieces, nulls: Some(0) };
    let cut = Cut { wanted: TASKS_MOST, body_bytes: u64::MAX, tasks_most: TASKS_MOST };
    let mut group = criterion.benchmark_group("plan");
    group.throughput(Throughput::Elements(TASKS_MOST));
    group.bench_function("100,000 ranges", |bencher| bencher.iter(|| split(0, &key, black_box(size), cut)));
    group.finish();
}

fn leasing(criterion: &mut Criterion) {
    let attempt = |number: u32| AttemptKey {
        task: TaskKey { job: JobId::from_parts(1, 1), task: TaskId(number) },
        epoch: Epoch(1),
    };
    let worker = WorkerId("worker-0001.starlift.svc".into());
    let mut leases = Leases::default();
    for number in 0..WORKERS {
        leases.grant(attempt(number), worker.clone(), Millis(number.into()), LEASE);
    }
    let mut now = 1000;
    let mut next = 0;
    let mut group = criterion.benchmark_group("lease table of 1,000");
    group.bench_function("renew", |bencher| {
        bencher.iter(|| {
            (now, next) = (now + 1, (next + 1) % WORKERS);
            leases.renew(black_box(attempt(next)), LabelsBegun::default(), Millis(now), LEASE)
        });
    });
    group.bench_function("end and grant", |bencher| {
        bencher.iter(|| {
            (now, next) = (now + 1, (next + 1) % WORKERS);
            let ended = leases.end(black_box(attempt(next)));
            leases.grant(attempt(next), worker.clone(), Millis(now), LEASE);
            ended
        });
    });
    group.finish();
}

/// A state in the middle of its work: every worker holds a task.
struct Busy {
    state: State,
    now: Now,
    workers: Vec<WorkerInfo>,
    /// What each worker holds.
    held: Vec<Option<AttemptKey>>,
    next: usize,
}

impl Busy {
    fn new() -> Self {
        let workers: Vec<_> =
            (0..WORKERS).map(|number| info(&format!("worker-{number:04}.starlift.svc"), 1)).collect();
        let held = vec![None; workers.len()];
        let state = running_jobs(JOBS, TASKS_PER_JOB, WORKERS);
        let mut busy = Self { state, now: Now::default(), workers, held, next: 0 };
        while busy.held.contains(&None) {
            busy.exchange();
        }
        busy
    }

    fn tick(&mut self) -> Now {
        let Now { monotonic, unix } = self.now;
        self.now = Now { monotonic: Millis(monotonic.0 + 1), unix: UnixMillis(unix.0 + 1) };
        self.now
    }

    /// Every worker of a group gives its task back and asks for another one.
    fn exchange(&mut self) {
        let now = self.tick();
        let mut events = Vec::with_capacity(EVENTS);
        for step in 0..EVENTS / 2 {
            let worker = (self.next + step) % self.workers.len();
            let (ticket, until) = (Ticket(worker as u64), now.monotonic);
            if let Some(attempt) = self.held[worker].take() {
                let outcome = Outcome::GivenBack { begun: LabelsBegun::default(), all_rolled_back: true };
                events.push(Event::Report { ticket: Ticket(u64::MAX), attempt, outcome });
            }
            events.push(Event::Acquire {
                ticket,
                worker: self.workers[worker].clone(),
                free_slots: 1,
                until,
            });
        }
        self.next = (self.next + EVENTS / 2) % self.workers.len();
        for action in self.state.apply(events, now).actions {
            let Action::Answer { ticket: Ticket(worker), answer: Answer::Granted { grants, .. } } = action
            else {
                continue;
            };
            if let Ok(worker) = usize::try_from(worker) {
                self.held[worker] = grants.first().map(|grant| grant.attempt);
            }
        }
    }

    fn heartbeats(&mut self) {
        let now = self.tick();
        let mut events = Vec::with_capacity(EVENTS);
        for step in 0..EVENTS {
            let worker = (self.next + step) % self.workers.len();
            let tasks = self.held[worker].iter().map(|attempt| (*attempt, Progress::default())).collect();
            let ticket = Ticket(worker as u64);
            events.push(Event::Heartbeat { ticket, worker: self.workers[worker].clone(), tasks });
        }
        self.next = (self.next + EVENTS) % self.workers.len();
        black_box(self.state.apply(events, now));
    }
}

fn turns(criterion: &mut Criterion) {
    let mut busy = Busy::new();
    let mut group = criterion.benchmark_group("turn of 256 events, 100,000 tasks, 1,000 workers");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("reports and grants", |bencher| bencher.iter(|| busy.exchange()));
    group.bench_function("heartbeats", |bencher| bencher.iter(|| busy.heartbeats()));
    let now = busy.tick();
    group.bench_function("a tick", |bencher| bencher.iter(|| busy.state.apply(Vec::new(), now)));
    group.finish();
}

criterion_group!(benches, planning, leasing, turns);
criterion_main!(benches);
