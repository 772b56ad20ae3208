//! A job's speed limit as this worker keeps it. All tasks of the job here draw on one [`Purse`], which asks the coordinator
//! for the next slice when the last one is used up. Where no slice is to be had, because the coordinator is away or does not
//! know the question, each task keeps to its own share of the limit (`speed.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use starlift_common::ids::JobId;
use starlift_proto as pb;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tracing::debug;

use crate::coordinators::Coordinators;

/// How long a slice may be waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing is asked after a question that was not answered.
const PAUSE: Duration = Duration::from_secs(1);
/// The same after the answer of a coordinator that is too old to understand it.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// The purses of all limited jobs that run here. They last as long as a task of theirs.
pub(crate) struct Purses {
    coordinators: Coordinators,
    worker_id: String,
    clock: fn() -> Instant,
    open: Mutex<HashMap<JobId, Weak<Purse>>>,
}

impl Purses {
    pub(crate) fn new(coordinators: Coordinators, worker_id: String, clock: fn() -> Instant) -> Self {
        Self { coordinators, worker_id, clock, open: Mutex::default() }
    }

    /// The job's purse, for one more task.
    pub(crate) fn of(&self, job: JobId) -> Arc<Purse> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(purse) = open.get(&job).and_then(Weak::upgrade) {
            return purse;
        }
        open.retain(|_, purse| purse.strong_count() > 0);
        let source =
            Source { coordinators: self.coordinators.clone(), worker_id: self.worker_id.clone(), job };
        let purse = Purse::open(source, self.clock);
        open.insert(job, Arc::downgrade(&purse));
        purse
    }
}

/// Bytes that the tasks of one job may read here. Each task holds it once.
pub(crate) struct Purse {
    asks: mpsc::Sender<Ask>,
    _keeper: AbortOnDropHandle<()>,
}

struct Ask {
    bytes: u64,
    paid: oneshot::Sender<Paid>,
}

/// How bytes were paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paid {
    /// By slices of the job's budget.
    ByBudget,
    /// Not yet: the task keeps to its own share.
    ByShare,
}

/// Where slices come from.
trait Slices: Send + 'static {
    fn next(&self, tasks: u32) -> impl Future<Output = Result<pb::SpendReply, tonic::Status>> + Send;
}

struct Source {
    coordinators: Coordinators,
    worker_id: String,
    job: JobId,
}

impl Slices for Source {
    async fn next(&self, tasks: u32) -> Result<pb::SpendReply, tonic::Status> {
        let request =
            pb::SpendRequest { worker_id: self.worker_id.clone(), job_id: self.job.to_string(), tasks };
        self.coordinators.spend(request, PATIENCE).await
    }
}

impl Purse {
    fn open(slices: impl Slices, clock: fn() -> Instant) -> Arc<Self> {
        Arc::new_cyclic(|purse| {
            // One ask of each task waits; the channel only has to be there.
            let (asks, asked) = mpsc::channel(1);
            let keeper = tokio::spawn(keep(slices, clock, Weak::clone(purse), asked));
            Self { asks, _keeper: AbortOnDropHandle::new(keeper) }
        })
    }

    /// Waits until bytes that were read are paid for; tasks are served in the order in which they ask.
    pub(crate) async fn pay(&self, bytes: u64) -> Paid {
        let (paid, answer) = oneshot::channel();
        if self.asks.send(Ask { bytes, paid }).await.is_err() {
            return Paid::ByShare;
        }
        answer.await.unwrap_or(Paid::ByShare)
    }
}

/// Serves one ask after the other.
async fn keep(
    slices: impl Slices,
    clock: fn() -> Instant,
    purse: Weak<Purse>,
    mut asked: mpsc::Receiver<Ask>,
) {
    let mut held = 0_u64;
    let mut silent_until: Option<Instant> = None;
    while let Some(Ask { bytes, paid }) = asked.recv().await {
        let mut by = Paid::ByBudget;
        while held < bytes {
            if silent_until.is_some_and(|until| clock() < until) {
                by = Paid::ByShare;
                break;
            }
            let tasks = u32::try_from(purse.strong_count()).unwrap_or(u32::MAX);
            match slices.next(tasks).await {
                Ok(slice) => {
                    silent_until = None;
                    sleep(Duration::from_micros(slice.wait_us)).await;
                    held = held.saturating_add(slice.bytes);
                }
                Err(status) => {
                    debug!(%status, "no slice of the speed limit is to be had");
                    let is_unknown = status.code() == Code::Unimplemented;
                    silent_until = Some(clock() + if is_unknown { LONG_PAUSE } else { PAUSE });
                }
            }
        }
        if by == Paid::ByBudget {
            held -= bytes;
        }
        // The task may have been stopped; what it has read is read.
        let _ = paid.send(by);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Gives 1000 bytes every second; refuses while `refuses` is not 0.
    #[derive(Clone, Default)]
    struct Fake {
        asked: Arc<AtomicU32>,
        tasks: Arc<AtomicU32>,
        refuses: Arc<AtomicU32>,
    }

    impl Slices for Fake {
        async fn next(&self, tasks: u32) -> Result<pb::SpendReply, tonic::Status> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.tasks.store(tasks, Ordering::Relaxed);
            match self.refuses.load(Ordering::Relaxed) {
                0 => Ok(pb::SpendReply { bytes: 1000, wait_us: 1_000_000 }),
                1 => Err(tonic::Status::unavailable("away")),
                _ => Err(tonic::Status::unimplemented("too old")),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_tasks_draw_on_one_budget() {
        let fake = Fake::default();
        let purse = Purse::open(fake.clone(), Instant::now);
        let other = Arc::clone(&purse);
        let start = Instant::now();
        let (first, second) = tokio::join!(
            async {
                for _ in 0..10 {
                    assert_eq!(purse.pay(300).await, Paid::ByBudget);
                }
            },
            async {
                for _ in 0..10 {
                    assert_eq!(other.pay(200).await, Paid::ByBudget);
                }
            }
        );
        let ((), ()) = (first, second);
        assert_eq!(start.elapsed(), Duration::from_secs(5), "5000 bytes at 1000 a second");
        assert_eq!((fake.asked.load(Ordering::Relaxed), fake.tasks.load(Ordering::Relaxed)), (5, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_coordinator_tasks_keep_to_their_shares_and_it_is_asked_again() {
        let fake = Fake::default();
        fake.refuses.store(1, Ordering::Relaxed);
        let purse = Purse::open(fake.clone(), Instant::now);
        for _ in 0..100 {
            assert_eq!(purse.pay(300).await, Paid::ByShare);
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
        fake.refuses.store(0, Ordering::Relaxed);
        sleep(PAUSE).await;
        assert_eq!(purse.pay(300).await, Paid::ByBudget);
    }

    #[tokio::test(start_paused = true)]
    async fn a_coordinator_that_does_not_know_the_question_is_asked_seldom() {
        let fake = Fake::default();
        fake.refuses.store(2, Ordering::Relaxed);
        let purse = Purse::open(fake.clone(), Instant::now);
        for _ in 0..100 {
            assert_eq!(purse.pay(300).await, Paid::ByShare);
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
    }
}
