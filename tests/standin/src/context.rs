//! What one backend holds: the open transactions begun there, and the error logs it serves. Both vanish with the
//! backend; the leader knows nothing of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;

use crate::ingest::Ingest;
use crate::params::LoadParams;

/// Error logs kept per backend, the oldest go first.
const ERROR_LOGS_MAX: usize = 1000;

/// A transaction begun on this backend.
pub(crate) struct Context {
    pub(crate) txn: i64,
    pub(crate) label: String,
    pub(crate) db: String,
    pub(crate) table: String,
    pub(crate) begun: Duration,
    pub(crate) timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    /// Taken with `try_lock` only: one operation at a time, others are told to come back.
    pub(crate) work: Arc<AsyncMutex<Work>>,
}

/// What the loads of a transaction have left behind.
pub(crate) struct Work {
    pub(crate) ingest: Option<Ingest>,
    /// Headers of the first load.
    pub(crate) params: Option<LoadParams>,
    pub(crate) max_filter_ratio: f64,
    /// Declared body bytes over all loads.
    pub(crate) declared_bytes: u64,
    pub(crate) last_active: Duration,
    /// The transaction has left this backend; who still holds the context must not use it.
    pub(crate) closed: bool,
    pub(crate) timings: Timings,
}

/// Milliseconds spent, as the answers tell them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timings {
    pub(crate) plan_ms: u64,
    pub(crate) receive_ms: u64,
}

impl Work {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            ingest: None,
            params: None,
            max_filter_ratio: 0.0,
            declared_bytes: 0,
            last_active: now,
            closed: false,
            timings: Timings::default(),
        }
    }
}

/// The contexts of one backend, by label.
#[derive(Default)]
pub(crate) struct Contexts(Mutex<HashMap<String, Arc<Context>>>);

impl Contexts {
    pub(crate) fn get(&self, label: &str) -> Option<Arc<Context>> {
        self.lock().get(label).cloned()
    }

    pub(crate) fn insert(&self, context: Context) {
        self.lock().insert(context.label.clone(), Arc::new(context));
    }

    /// Removes the context of this transaction; a later one under the same label stays.
    pub(crate) fn remove(&self, context: &Context) {
        let mut contexts = self.lock();
        if contexts.get(&context.label).is_some_and(|held| held.txn == context.txn) {
            contexts.remove(&context.label);
        }
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Labels of all contexts.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Drops contexts that outlived their timeout; returns transactions and abort reasons.
    pub(crate) fn expire(&self, now: Duration) -> Vec<(i64, String)> {
        let mut overdue = Vec::new();
        self.lock().retain(|_, context| match context.overdue(now) {
            Some(reason) => {
                overdue.push((context.txn, reason));
                false
            }
            None => true,
        });
        overdue
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Context>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// Marks the context closed if it is overdue; one in use is left alone.
    fn overdue(&self, now: Duration) -> Option<String> {
        let mut work = self.work.try_lock().ok()?;
        let reason = if now.saturating_sub(self.begun) > self.timeout {
            format!("transaction is aborted by timeout {} seconds.", self.timeout.as_secs())
        } else {
            let idle = self.idle_timeout.filter(|idle| now.saturating_sub(work.last_active) > *idle)?;
            format!("transaction is aborted by idle timeout {} seconds.", idle.as_secs())
        };
        work.closed = true;
        Some(reason)
    }
}

/// Error logs of one backend, by file name.
#[derive(Default)]
pub(crate) struct ErrorLogs(Mutex<Logs>);

#[derive(Default)]
struct Logs {
    by_name: HashMap<String, Bytes>,
    order: VecDeque<String>,
}

impl ErrorLogs {
    /// Keeps the lines and returns the file name for the ErrorURL; `None` without lines.
    pub(crate) fn keep(&self, lines: &[String]) -> Option<String> {
        if lines.is_empty() {
            return None;
        }
        let name = format!("error_log_{:016x}_{:016x}", fastrand::u64(..), fastrand::u64(..));
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.order.len() >= ERROR_LOGS_MAX
            && let Some(oldest) = logs.order.pop_front()
        {
            logs.by_name.remove(&oldest);
        }
        logs.by_name.insert(name.clone(), Bytes::from(lines.join("\n") + "\n"));
        logs.order.push_back(name.clone());
        Some(name)
    }

    pub(crate) fn read(&self, name: &str) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }
}
