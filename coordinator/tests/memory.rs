//! What a task costs the coordinator in memory, counted by the allocator of this test binary: a real state, driven by
//! the events that workers cause, from the plans to the last commit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "an allocator cannot be written without it; this one only counts")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use starlift_common::job::JobState;
use starlift_common::task::Outcome;
use starlift_coordinator::clock::{Millis, Now, UnixMillis};
use starlift_coordinator::commit::Verdict;
use starlift_coordinator::state::{Action, Answer, Event, State, Ticket, Turn};

use common::{info, prepared, running_jobs};

const JOBS: u32 = 5;
const TASKS_PER_JOB: u32 = 20_000;
const WORKERS: u32 = 1000;

/// Bytes that a finished task may take: its plan, its record, and its share of everything else.
const TASK_BYTES_MAX: usize = 1024;

/// Bytes that are allocated now.
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A state and the time it was last given.
struct Crowd {
    state: State,
    now: Now,
    next_ticket: u64,
}

impl Crowd {
    fn apply(&mut self, events: Vec<Event>) -> Turn {
        let Now { monotonic, unix } = self.now;
        self.now = Now { monotonic: Millis(monotonic.0 + 1), unix: UnixMillis(unix.0 + 1) };
        self.state.apply(events, self.now)
    }

    /// Every worker asks for a task, reports it, and what it has prepared is committed.
    fn round(&mut self) {
        let mut asks = Vec::new();
        for number in 0..WORKERS {
            self.next_ticket += 1;
            let worker = info(&format!("worker-{number:04}.starlift.svc"), 1);
            let until = self.now.monotonic;
            asks.push(Event::Acquire { ticket: Ticket(self.next_ticket), worker, free_slots: 1, until });
        }
        let mut reports = Vec::new();
        for action in self.apply(asks).actions {
            let Action::Answer { answer: Answer::Granted { grants, .. }, .. } = action else { continue };
            for grant in grants {
                self.next_ticket += 1;
                let (ticket, attempt) = (Ticket(self.next_ticket), grant.attempt);
                let outcome = Outcome::Prepared { prepared: prepared(attempt, 0..1), bad_rows: Vec::new() };
                reports.push(Event::Report { ticket, attempt, outcome });
            }
        }
        let mut verdicts = Vec::new();
        for action in self.apply(reports).actions {
            let Action::Commit { attempt, part, .. } = action else { continue };
            verdicts.push(Event::Committed { attempt, part, verdict: Verdict::Committed });
        }
        self.apply(verdicts);
    }
}

#[test]
fn a_finished_task_takes_less_than_a_kibibyte() {
    let before = LIVE.load(Ordering::Relaxed);
    let state = running_jobs(JOBS, TASKS_PER_JOB, WORKERS);
    let planned = LIVE.load(Ordering::Relaxed) - before;
    let mut crowd = Crowd { state, now: Now::default(), next_ticket: 1000 };
    let tasks = (JOBS * TASKS_PER_JOB) as usize;
    for _ in 0..JOBS * TASKS_PER_JOB / WORKERS {
        crowd.round();
    }
    let done: u32 = crowd.state.jobs().map(|(_, job)| job.counts().done).sum();
    assert_eq!(done as usize, tasks);
    assert!(crowd.state.jobs().all(|(_, job)| job.state() == JobState::Succeeded));
    let finished = LIVE.load(Ordering::Relaxed) - before;
    println!("{} bytes per planned task, {} per finished one", planned / tasks, finished / tasks);
    assert!(planned / tasks < TASK_BYTES_MAX, "{} bytes per planned task", planned / tasks);
    assert!(finished / tasks < TASK_BYTES_MAX, "{} bytes per finished task", finished / tasks);
}
