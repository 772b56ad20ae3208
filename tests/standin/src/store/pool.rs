//! Connections to the file: one for writing, a handful kept for reading. Every connection knows the numeric
//! collation and StarRocks' functions; a read connection can be interrupted from outside, or by a deadline.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle};
use tokio::time::Instant;

use super::{StoreError, functions, lock};

/// Idle read connections kept open.
const IDLE_MAX: usize = 8;

/// Virtual machine steps between two looks at the clock.
const STEPS_PER_CHECK: i32 = 100_000;

pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Kept>>,
}

struct Kept {
    connection: Connection,
    stop: Arc<Stop>,
}

/// A read connection, given back to the pool when dropped.
pub(crate) struct Reader<'a> {
    pool: &'a Pool,
    kept: Option<Kept>,
}

/// Ends the statement of one connection.
#[derive(Clone)]
pub(crate) struct Killer {
    stop: Arc<Stop>,
    handle: Arc<InterruptHandle>,
}

/// What a running statement looks at: a wish to stop, and a deadline.
#[derive(Default)]
pub(crate) struct Stop {
    state: Mutex<StopState>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy)]
struct StopState {
    killed: bool,
    deadline: Option<Instant>,
}

impl Pool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default() }
    }

    pub(super) fn open_writer(&self) -> Result<Connection, StoreError> {
        let writer = Connection::open(&self.path)?;
        writer.execute_batch(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;
             PRAGMA wal_autocheckpoint = 2000; PRAGMA busy_timeout = 60000;",
        )?;
        writer.set_prepared_statement_cache_capacity(64);
        functions::register(&writer, &Arc::default())?;
        Ok(writer)
    }

    pub(super) fn reader(&self) -> Result<Reader<'_>, StoreError> {
        let kept = match lock(&self.idle).pop() {
            Some(kept) => kept,
            None => self.open_reader()?,
        };
        kept.stop.reset(None);
        Ok(Reader { pool: self, kept: Some(kept) })
    }

    fn open_reader(&self) -> Result<Kept, StoreError> {
        let connection = Connection::open(&self.path)?;
        connection.execute_batch(
            "PRAGMA synchronous = OFF; PRAGMA cache_size = -16384; PRAGMA busy_timeout = 60000;
             PRAGMA case_sensitive_like = ON;",
        )?;
        let stop = Arc::<Stop>::default();
        functions::register(&connection, &stop)?;
        let watched = Arc::clone(&stop);
        connection.progress_handler(STEPS_PER_CHECK, Some(move || watched.must_stop()))?;
        Ok(Kept { connection, stop })
    }
}

impl Reader<'_> {
    /// Something that ends this connection's statement from another thread.
    pub(crate) fn killer(&self) -> Killer {
        let kept = self.kept();
        Killer { stop: Arc::clone(&kept.stop), handle: Arc::new(kept.connection.get_interrupt_handle()) }
    }

    /// Ends the statement once that much time has passed.
    pub(crate) fn limit(&self, timeout: Duration) {
        self.kept().stop.reset(Instant::now().checked_add(timeout));
    }

    /// Waits; false if the statement was stopped meanwhile.
    pub(crate) fn pause(&self, duration: Duration) -> bool {
        self.kept().stop.sleep(duration)
    }

    /// Whether it was killed or ran out of time.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.kept().stop.reason()
    }

    fn kept(&self) -> &Kept {
        self.kept.as_ref().expect("taken only by drop")
    }
}

impl Deref for Reader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.kept().connection
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            let mut idle = lock(&self.pool.idle);
            if idle.len() < IDLE_MAX && !kept.stop.must_stop() {
                idle.push(kept);
            }
        }
    }
}

/// Why a statement was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    Killed,
    TimedOut,
}

impl Killer {
    pub(crate) fn kill(&self) {
        lock(&self.stop.state).killed = true;
        self.stop.changed.notify_all();
        self.handle.interrupt();
    }
}

impl Stop {
    fn reset(&self, deadline: Option<Instant>) {
        let mut state = lock(&self.state);
        state.killed &= deadline.is_some();
        state.deadline = deadline;
    }

    fn reason(&self) -> Option<Stopped> {
        let state = *lock(&self.state);
        if state.killed {
            return Some(Stopped::Killed);
        }
        state.deadline.is_some_and(|deadline| Instant::now() >= deadline).then_some(Stopped::TimedOut)
    }

    pub(crate) fn must_stop(&self) -> bool {
        self.reason().is_some()
    }

    /// Waits; false when it was cut short.
    pub(crate) fn sleep(&self, duration: Duration) -> bool {
        let Some(end) = Instant::now().checked_add(duration) else { return false };
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            let out_of_time = state.deadline.is_some_and(|deadline| now >= deadline);
            if state.killed || out_of_time {
                return false;
            }
            if now >= end {
                return true;
            }
            let until = state.deadline.map_or(end, |deadline| deadline.min(end));
            state = self.changed.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
